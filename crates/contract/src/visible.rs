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

    /// Gives the first key that the row at an absolute position sees; it sees all from there to its own.
    pub fn first(self, position: usize) -> usize {
        match self {
            Self::Causal => 0,
            Self::Window(window) => (position + 1).saturating_sub(window.get() as usize),
        }
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
    }
}
