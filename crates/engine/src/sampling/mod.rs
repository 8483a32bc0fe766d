//! Sampling: logits in, one token out.
//!
//! Order, stated once: repetition penalty, temperature, top-k, top-p, min-p. Temperature 0 is
//! greedy (after the penalty; the other filters cannot change the winner). Ties always go to the
//! lowest token id. The generator is ChaCha8 seeded with `seed`, one draw a token, so the same
//! logits and seed give the same tokens on any machine.

mod filter;
mod settings;

pub use settings::SamplingSettings;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

/// Error of sampling.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// A setting is outside its range.
    #[error("sampling: {field} is {got}, but must be {limit}")]
    Setting {
        /// The setting's name.
        field: &'static str,
        /// The value got.
        got: String,
        /// The allowed values.
        limit: &'static str,
    },
    /// A logit is NaN or infinitely large: the forward pass went wrong.
    #[error(
        "sampling: logit {token} is {got}; the forward pass overflowed or read bad weights. \
         Try weights in f32, or check the checkpoint for values that are not finite"
    )]
    NotFinite {
        /// Token id of the first such logit.
        token: usize,
        /// Its value.
        got: f32,
    },
    /// There is nothing to choose from.
    #[error("sampling: all {vocab} logits are empty or minus infinity")]
    NoCandidates {
        /// Number of logits.
        vocab: usize,
    },
}

/// A token and its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Token id.
    pub token: u32,
    /// Probability among the candidates kept, 0 to 1.
    pub probability: f64,
}

/// Draws tokens by its settings.
#[derive(Debug, Clone)]
pub struct Sampler {
    settings: SamplingSettings,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler at the start of its seed's sequence.
    ///
    /// # Errors
    /// [`SamplingError::Setting`] for a value outside its range.
    pub fn new(settings: SamplingSettings) -> Result<Self, SamplingError> {
        settings.validate()?;
        let rng = ChaCha8Rng::seed_from_u64(settings.seed);
        Ok(Self { settings, rng })
    }

    /// Draws the next token. `logits` has one value per token id; `history` is the prompt and everything
    /// generated so far, for the repetition penalty.
    ///
    /// # Errors
    /// [`SamplingError::NotFinite`] for NaN or plus infinity, [`SamplingError::NoCandidates`] when
    /// nothing can be chosen.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32, SamplingError> {
        let kept = self.candidates(logits, history)?;
        let mut left = unit_interval(self.rng.next_u64());
        for candidate in &kept {
            left -= candidate.probability;
            if left < 0.0 {
                return Ok(candidate.token);
            }
        }
        // Rounding may leave a sliver above the last candidate.
        kept.last()
            .map(|c| c.token)
            .ok_or(SamplingError::NoCandidates {
                vocab: logits.len(),
            })
    }

    /// Lists the candidates that `sample` draws from, most likely first; their probabilities sum to 1.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn candidates(
        &self,
        logits: &[f32],
        history: &[u32],
    ) -> Result<Vec<Candidate>, SamplingError> {
        let settings = &self.settings;
        let mut logits = filter::checked(logits)?;
        filter::repetition_penalty(&mut logits, history, settings.repetition_penalty);
        if settings.temperature == 0.0 {
            return Ok(vec![Candidate {
                token: filter::greedy(&logits),
                probability: 1.0,
            }]);
        }
        let mut kept = filter::top_k(&logits, settings.temperature, settings.top_k);
        filter::top_p(&mut kept, settings.top_p);
        filter::min_p(&mut kept, settings.min_p);
        Ok(kept)
    }
}

/// 53 random bits as a number in `[0, 1)`.
fn unit_interval(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
