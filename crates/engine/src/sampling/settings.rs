//! The sampling settings and their ranges.

use serde::{Deserialize, Serialize};

use super::SamplingError;

/// Settings of choosing the next token. The defaults switch every filter off and are greedy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingSettings {
    /// Divides the logits; 0 takes the most likely token. At least 0, finite.
    pub temperature: f32,
    /// Keep the `top_k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the fewest tokens whose probabilities reach `top_p`; 1 keeps all. Over 0, up to 1.
    pub top_p: f32,
    /// Keep tokens at least `min_p` times as likely as the likeliest; 0 keeps all. 0 to 1.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens already seen; 1 does nothing.
    /// Over 0, finite.
    pub repetition_penalty: f32,
    /// Seed of the generator.
    pub seed: u64,
}

impl Default for SamplingSettings {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl SamplingSettings {
    /// Checks every range.
    ///
    /// # Errors
    /// [`SamplingError::Setting`] naming the first field outside its range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let ranges = [
            (
                "temperature",
                self.temperature,
                self.temperature.is_finite() && self.temperature >= 0.0,
                "0 (greedy) or a positive number",
            ),
            (
                "top_p",
                self.top_p,
                self.top_p > 0.0 && self.top_p <= 1.0,
                "above 0 and at most 1 (1 switches it off)",
            ),
            (
                "min_p",
                self.min_p,
                (0.0..=1.0).contains(&self.min_p),
                "between 0 (off) and 1",
            ),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0,
                "a positive number (1 switches it off)",
            ),
        ];
        for (field, got, ok, limit) in ranges {
            if !ok {
                return Err(SamplingError::Setting {
                    field,
                    got: got.to_string(),
                    limit,
                });
            }
        }
        Ok(())
    }
}
