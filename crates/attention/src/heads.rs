//! The heads of a model: what a plan must know of it beside the tokens.

use serde::{Deserialize, Serialize};

use crate::error::AttentionError;

/// Head counts and head dimension of an attention layer, equal in every layer of a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Heads {
    /// Query heads, a multiple of the KV heads.
    pub query: usize,
    /// KV heads; each is shared by `query / kv` query heads.
    pub kv: usize,
    /// Elements per head.
    pub dim: usize,
    /// Base of the rotary frequencies `base^(-2j/dim)` of heads that are rotated in halves (see
    /// [`crate::rope_append`]); `None` for heads without rotation or with another layout. Block-Cluster
    /// scores pooled keys only on the frequencies that survive averaging over a block; no other pattern
    /// reads it.
    pub rotary_base: Option<f64>,
}

impl Heads {
    /// `query` heads over `kv` heads of `dim` elements, without rotation.
    pub const fn new(query: usize, kv: usize, dim: usize) -> Self {
        Self {
            query,
            kv,
            dim,
            rotary_base: None,
        }
    }

    /// The same heads, rotated in halves with frequencies of this base.
    #[must_use]
    pub const fn with_rotary_base(mut self, base: f64) -> Self {
        self.rotary_base = Some(base);
        self
    }

    /// The softmax scale, `1 / sqrt(dim)`.
    pub fn scale(&self) -> f32 {
        (self.dim as f64).sqrt().recip() as f32
    }

    /// Checks the counts and the rotary base.
    ///
    /// # Errors
    /// [`AttentionError::Setting`] for a count of 0, query heads that are no multiple of the KV heads, or a
    /// rotary base that is not above 1.
    pub fn validate(&self) -> Result<(), AttentionError> {
        let refuse = |field, got: String, limit: String, hint| {
            Err(AttentionError::Setting {
                op: "heads",
                field,
                got,
                limit,
                hint,
            })
        };
        let hint = "take the counts from the model's configuration";
        for (field, got) in [("KV heads", self.kv), ("head_dim", self.dim)] {
            if got == 0 {
                return refuse(field, "0".into(), "at least 1".into(), hint);
            }
        }
        if self.query == 0 || !self.query.is_multiple_of(self.kv) {
            let limit = format!("a multiple of the KV heads ({})", self.kv);
            let hint = "grouped-query attention shares each KV head among equally many query heads";
            return refuse("query heads", self.query.to_string(), limit, hint);
        }
        match self.rotary_base {
            Some(base) if !(base.is_finite() && base > 1.0) => {
                let limit = "finite and above 1".into();
                refuse("rotary base", base.to_string(), limit, hint)
            }
            _ => Ok(()),
        }
    }
}
