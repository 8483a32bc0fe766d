//! Families and shapes of inputs, and their limits.

use crate::error::{InputError, in_range};

/// Most tokens: the counter of an element has 17 bits for its position.
pub const MAX_LEN: usize = 1 << 17;
/// Most heads: the counter has 8 bits for the head.
pub const MAX_HEADS: usize = 256;
/// The head dimension of the structured family, and the largest of the random one.
pub const HEAD_DIM: usize = 128;
/// Longest row of [`Family::Random`].
pub const MAX_HEAD_DIM: usize = 2 * HEAD_DIM;

/// Construction of queries and keys. Values are `normal(2, i)` in both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Independent normals, `q = normal(0, i)` and `k = normal(1, i)`. Good for speed under a
    /// given mask; useless for selection, since no key stands out.
    Random,
    /// Attention as trained models have it: sinks, a local band, slashes at offsets of each head,
    /// columns that all queries see, and columns that only some segments of queries see.
    ///
    /// Logits are `q.k / sqrt(128)`. Dimensions `2m, 2m + 1` for `m` below 48 rotate, 96 holds
    /// sinks, 97 global columns, 98 to 105 eight topics, the rest noise. With
    /// `phase(p, m) = p * round(2^32 / (4 * 1024^(m / 47)))` modulo 2^32,
    /// `c(p, m) = COS[phase >> 16]` and `s(p, m) = COS[(phase - 2^30) >> 16]`:
    ///
    /// - Key of KV head `g` at `j`, to which `0.5 * normal(1, i)` is added: `1.5 * (c(j, m),
    ///   s(j, m))`; dimension 96 is 8, 7, 6.5, 6 for the first four tokens; with
    ///   `n = g * 2^17 + j`, dimension 97 is 8 where `bits(16, n) < 2^22`, and dimension
    ///   `98 + (bits(18, n) & 7)` is 8 where `bits(17, n) < 2^23`.
    /// - Query of head `h` at `i`, to which `normal(0, i)` is added: the sum over local band and
    ///   two slashes of `A * (c(i - D, m), s(i - D, m))`, in this order from 0, where
    ///   `A = peak * sqrt(128) / 72` and `D` is 0, `256 + bits(32, h) % 3840`,
    ///   `4096 + bits(33, h) % 12288`; then `peak * sqrt(128) / 8` of sink, column and topic in
    ///   dimensions 96, 97 and `98 + (bits(34, g * 2^10 + (i >> 9)) & 7)`. Constants are computed
    ///   in f64 and rounded once.
    ///
    /// | `h & 3` | local | slash | slash | sink | column | topic |
    /// | --- | --- | --- | --- | --- | --- | --- |
    /// | 0 | 12 | 0 | 0 | 13 | 6 | 0 |
    /// | 1 | 10 | 14 | 11 | 12 | 6 | 0 |
    /// | 2 | 9 | 0 | 0 | 11 | 11 | 11 |
    /// | 3 | 10 | 9 | 8 | 12 | 8 | 7 |
    Structured,
}

/// Sizes of one problem. Queries are `[heads, len, head_dim]`, keys and values
/// `[kv_heads, len, head_dim]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Query heads, 1 to [`MAX_HEADS`], a multiple of the KV heads.
    pub heads: usize,
    /// KV heads; `heads / kv_heads` consecutive query heads share one.
    pub kv_heads: usize,
    /// Tokens, 1 to [`MAX_LEN`].
    pub len: usize,
    /// Elements of a row, 1 to [`MAX_HEAD_DIM`]. Below 128, rows are the first elements of those of
    /// 128: the counter does not change. From 128 on they go on with those of the stream 8 higher.
    /// [`Family::Structured`] has 128 only.
    pub head_dim: usize,
}

impl Shape {
    /// A shape with rows of 128 elements.
    #[must_use]
    pub const fn new(heads: usize, kv_heads: usize, len: usize) -> Self {
        Self {
            heads,
            kv_heads,
            len,
            head_dim: HEAD_DIM,
        }
    }

    /// The same with other rows; for [`Family::Random`].
    #[must_use]
    pub const fn with_head_dim(self, head_dim: usize) -> Self {
        Self { head_dim, ..self }
    }

    /// Query heads per KV head.
    #[must_use]
    pub const fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Elements of a tensor of so many heads.
    pub(crate) const fn elements(&self, heads: usize) -> usize {
        heads * self.len * self.head_dim
    }

    /// Refuses what the rules do not define.
    pub(crate) fn check(&self) -> Result<(), InputError> {
        in_range("len", self.len, MAX_LEN)?;
        in_range("heads", self.heads, MAX_HEADS)?;
        in_range("kv_heads", self.kv_heads, MAX_HEADS)?;
        in_range("head_dim", self.head_dim, MAX_HEAD_DIM)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(InputError::Heads {
                heads: self.heads,
                kv_heads: self.kv_heads,
            });
        }
        Ok(())
    }

    /// Checks the shape as [`Shape::check`] does, for a family.
    pub(crate) fn check_for(&self, family: Family) -> Result<(), InputError> {
        self.check()?;
        if family == Family::Structured && self.head_dim != HEAD_DIM {
            return Err(InputError::StructuredHeadDim { got: self.head_dim });
        }
        Ok(())
    }
}
