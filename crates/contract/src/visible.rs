//! Which keys a row may see before any index is asked: a property of the model, not of a pattern.

use std::num::NonZeroU32;

/// The keys that a row may see; an index and its rules choose among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Visible {
    /// Every key at or before the row's position.
    #[default]
    Causal,
    /// Of those the last this many, the row's own included.
    Window(NonZeroU32),
}

impl Visible {
    /// Gives the keys of the window where it hides any of `keys` keys; `None` where every row sees all up
    /// to its own.
    pub fn window(self, keys: usize) -> Option<u32> {
        match self {
            Self::Window(window) if (window.get() as usize) < keys => Some(window.get()),
            _ => None,
        }
    }

    /// Gives the rule of a window of so many keys; causal for none, and for a window of 0, which plans refuse.
    pub fn of(window: Option<u32>) -> Self {
        window
            .and_then(NonZeroU32::new)
            .map_or(Self::Causal, Self::Window)
    }

    /// Gives the most keys that a row of a sequence of `keys` keys sees.
    pub fn most(self, keys: usize) -> usize {
        self.window(keys).map_or(keys, |window| window as usize)
    }

    /// Gives the first key that the row at an absolute position sees; it sees all from there to its own.
    pub fn first(self, position: usize) -> usize {
        match self {
            Self::Causal => 0,
            Self::Window(window) => (position + 1).saturating_sub(window.get() as usize),
        }
    }

    /// Counts the keys from `from` to before `to` that the row at an absolute position sees.
    pub fn seen(self, position: usize, from: usize, to: usize) -> usize {
        let from = from.max(self.first(position));
        to.min(position + 1).saturating_sub(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_at_its_row() {
        let window = |keys| Visible::Window(NonZeroU32::new(keys).expect("keys"));
        assert_eq!(Visible::Causal.first(9), 0);
        assert_eq!(window(1).first(9), 9);
        assert_eq!(window(4).first(9), 6);
        assert_eq!(window(10).first(9), 0);
        assert_eq!(window(11).first(9), 0);
        assert_eq!(window(9).window(10), Some(9));
        assert_eq!(window(10).window(10), None);
        assert_eq!(Visible::Causal.window(10), None);
        assert_eq!(window(4).most(9), 4);
        assert_eq!(window(4).most(3), 3);
        assert_eq!(Visible::Causal.most(9), 9);
        assert_eq!(Visible::of(Some(4)), window(4));
        assert_eq!(Visible::of(Some(0)), Visible::Causal);
        assert_eq!(Visible::of(None), Visible::Causal);
    }

    #[test]
    fn keys_of_a_range_are_counted_one_by_one() {
        for visible in [None, Some(1), Some(4), Some(20)].map(Visible::of) {
            for position in [0, 3, 9] {
                for (from, to) in [(0, 0), (0, 4), (2, 12), (7, 9), (9, 10), (11, 12)] {
                    let seen = |j: &usize| visible.first(position) <= *j && *j <= position;
                    let expected = (from..to).filter(seen).count();
                    assert_eq!(visible.seen(position, from, to), expected);
                }
            }
        }
    }
}
