//! The element rule of Triangular, applied inside an index's ranges.

use crate::span::Span;

/// Row `p` sees key `j <= p` iff `j < sink`, or `p - j < window`, or `p` is one of the prompt's
/// last `last` rows (or after the prompt). Source: `M(i)` of Triangular in [`crate::Triangular`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    /// Leading keys that every row sees.
    pub sink: usize,
    /// Latest keys, the row's own included, that every row sees.
    pub window: usize,
    /// Rows at the prompt's end that see everything.
    pub last: usize,
}

impl Band {
    /// First absolute position that sees everything in this sequence.
    pub fn dense_from(&self, span: &Span) -> usize {
        span.prompt_len.saturating_sub(self.last)
    }

    /// Tells whether the row at absolute position `p` sees key `j`; both below `kv_len`.
    pub fn sees(&self, span: &Span, p: usize, j: usize) -> bool {
        j <= p && (j < self.sink || p - j < self.window || p >= self.dense_from(span))
    }
}
