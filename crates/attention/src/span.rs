//! Spans: where the query rows of each sequence of a ragged batch stand in its cache.
//!
//! Alignment is bottom-right: the last query row is the last cached token. Query tensors are padded
//! on the right to the longest `query_len` of the batch; padded rows are written as zeros.

use crate::error::AttentionError;

/// One sequence of a batch. All counts in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// New query rows.
    pub query_len: usize,
    /// Cached keys, the new rows included.
    pub kv_len: usize,
    /// The whole prompt, of which this chunk may be a part; rules the "last rows" of a pattern.
    pub prompt_len: usize,
}

impl Span {
    /// A whole prompt of `len` tokens in one piece.
    pub fn whole(len: usize) -> Self {
        Self {
            query_len: len,
            kv_len: len,
            prompt_len: len,
        }
    }

    /// Checks the spans of a batch.
    ///
    /// # Errors
    /// [`AttentionError::Shape`]: no spans, a span without rows, or counts that contradict each other or
    /// exceed [`MAX_KV_LEN`].
    pub fn validate_batch(spans: &[Self]) -> Result<(), AttentionError> {
        validate(spans)
    }

    /// Position of the first query row.
    pub fn offset(&self) -> usize {
        self.kv_len - self.query_len
    }

    /// Causal (query, key) pairs of the span.
    pub fn causal_pairs(&self) -> u64 {
        let (n, o) = (self.query_len as u64, self.offset() as u64);
        n * o + n * (n + 1) / 2
    }
}

/// Largest supported cache length: positions are `u32` on the device, and the largest value marks
/// "no limit".
pub const MAX_KV_LEN: usize = (u32::MAX / 2) as usize;

pub(crate) fn validate(spans: &[Span]) -> Result<(), AttentionError> {
    let shape = |what, got: String, expected: String, hint| AttentionError::Shape {
        op: "plan",
        what,
        got,
        expected,
        hint,
    };
    if spans.is_empty() {
        return Err(shape(
            "the number of spans",
            "0".into(),
            "at least 1".into(),
            "give one span per sequence of the batch",
        ));
    }
    for (b, span) in spans.iter().enumerate() {
        if span.query_len == 0 {
            return Err(shape(
                "a span's query_len",
                format!("0 (sequence {b})"),
                "at least 1".into(),
                "leave finished sequences out of the batch",
            ));
        }
        if span.kv_len < span.query_len || span.kv_len > MAX_KV_LEN {
            return Err(shape(
                "a span's kv_len",
                format!("{} (sequence {b})", span.kv_len),
                format!("between query_len = {} and {MAX_KV_LEN}", span.query_len),
                "kv_len counts the cached tokens and the new rows",
            ));
        }
    }
    Ok(())
}
