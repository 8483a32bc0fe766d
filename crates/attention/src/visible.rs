//! The keys that a model lets a row see, before any pattern leaves some out.

use serde::{Deserialize, Serialize};

use crate::{error::AttentionError, span::Span};

/// The visibility rule of a model: which keys a row may see at all.
///
/// The rule binds harder than any pattern: sinks, columns and dense last rows show no key that the model
/// hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Visible {
    /// The row at absolute position `i` sees every key `j <= i`.
    #[default]
    Causal,
    /// The row at absolute position `i` sees the keys `j <= i` with `i - j < W`: the last `W`, its own
    /// included.
    Window(usize),
}

impl Visible {
    /// The rule of a window of so many keys; [`Visible::Causal`] for none.
    pub fn of(window: Option<usize>) -> Self {
        window.map_or(Self::Causal, Self::Window)
    }

    /// The window in keys; `None` where every key up to the row's own is visible.
    pub fn window(self) -> Option<usize> {
        match self {
            Self::Causal => None,
            Self::Window(keys) => Some(keys),
        }
    }

    /// Tells whether the row at absolute position `position` sees key `key`.
    pub fn sees(self, position: usize, key: usize) -> bool {
        key <= position && key >= self.first(position)
    }

    /// The first key that the row at absolute position `position` sees.
    pub fn first(self, position: usize) -> usize {
        self.window()
            .map_or(0, |keys| (position + 1).saturating_sub(keys))
    }

    /// The (query, key) pairs that a span's rows see.
    pub fn pairs(self, span: &Span) -> u64 {
        let Some(keys) = self.window() else {
            return span.causal_pairs();
        };
        // Rows before position `keys` see all keys up to their own.
        let (from, to) = (span.offset(), span.kv_len);
        let whole = to.min(keys).max(from);
        let growing = (from as u64 + 1 + whole as u64) * (whole - from) as u64 / 2;
        growing + (to - whole) as u64 * keys as u64
    }

    /// The rule for sequences of at most `keys` keys: a window that hides none of them is causal.
    #[must_use]
    pub(crate) fn within(self, keys: usize) -> Self {
        match self {
            Self::Window(window) if window >= keys => Self::Causal,
            other => other,
        }
    }

    /// The stricter of two rules.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        match (self.window(), other.window()) {
            (Some(a), Some(b)) => Self::Window(a.min(b)),
            (Some(a), None) | (None, Some(a)) => Self::Window(a),
            (None, None) => Self::Causal,
        }
    }

    /// Checks the window.
    ///
    /// # Errors
    /// [`AttentionError::Setting`] for a window of 0.
    pub fn validate(self) -> Result<(), AttentionError> {
        match self {
            Self::Window(0) => Err(AttentionError::Setting {
                op: "visible keys",
                field: "window",
                got: "0".into(),
                limit: "at least 1".into(),
                hint: "a row must always see its own key; `Visible::Causal` is without a window",
            }),
            _ => Ok(()),
        }
    }
}

/// The visible (query, key) pairs of a batch, for one head.
pub(crate) fn pairs(visible: Visible, spans: &[Span]) -> u64 {
    spans.iter().map(|span| visible.pairs(span)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_those_that_are_seen() {
        for visible in [1, 2, 7, 64, 100, 1000].map(Visible::Window) {
            for (query_len, kv_len) in [(1, 1), (5, 5), (3, 90), (90, 90), (64, 128), (70, 163)] {
                let span = Span {
                    query_len,
                    kv_len,
                    prompt_len: kv_len,
                };
                let rows = span.offset()..kv_len;
                let all = rows.flat_map(|p| (0..kv_len).map(move |j| (p, j)));
                let seen = all.filter(|&(p, j)| visible.sees(p, j)).count();
                assert_eq!(visible.pairs(&span), seen as u64, "{visible:?} {span:?}");
            }
        }
        assert!(Visible::Window(0).validate().is_err());
    }
}
