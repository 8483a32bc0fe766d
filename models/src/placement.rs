//! Placement of the layers of a model: one device, or consecutive stages on several.
//!
//! The words are those of Burn's coming `LayerParallelism`: an input layer (the embedding), hidden layers
//! (the decoder's), an output layer (final norm and head), each on a device. A [`Placement`] says which
//! *stage* holds each of them; which device a stage is on is the caller's to say.

use std::ops::Range;

use crate::error::ModelError;

/// Consecutive layers of a model, with or without its ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagePart {
    /// Hidden layers, counted from the model's first.
    pub layers: Range<usize>,
    /// `true` if the input layer is here: token ids come in, else hidden states.
    pub input: bool,
    /// `true` if the output layer is here: last hidden states and logits come out, else hidden states.
    pub output: bool,
}

impl StagePart {
    /// All of a model of `layers` hidden layers.
    pub fn whole(layers: usize) -> Self {
        Self {
            layers: 0..layers,
            input: true,
            output: true,
        }
    }
}

/// The stages of a model, in order: no gaps, at least one hidden layer each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    parts: Vec<StagePart>,
}

impl Placement {
    /// One stage that holds everything.
    pub fn whole(layers: usize) -> Self {
        Self {
            parts: vec![StagePart::whole(layers)],
        }
    }

    /// A stage for every count of hidden layers; the first holds the input layer too, the last the output
    /// layer.
    ///
    /// # Errors
    /// [`ModelError::Placement`] for no stages or a stage without a layer.
    pub fn of_counts(counts: &[usize]) -> Result<Self, ModelError> {
        if counts.is_empty() || counts.contains(&0) {
            return Err(ModelError::Placement {
                counts: counts.to_vec(),
            });
        }
        let last = counts.len() - 1;
        let mut first = 0;
        let parts = counts.iter().enumerate().map(|(stage, count)| {
            let layers = first..first + count;
            first = layers.end;
            StagePart {
                layers,
                input: stage == 0,
                output: stage == last,
            }
        });
        Ok(Self {
            parts: parts.collect(),
        })
    }

    /// The stages.
    pub fn parts(&self) -> &[StagePart] {
        &self.parts
    }

    /// Hidden layers of every stage.
    pub fn counts(&self) -> Vec<usize> {
        self.parts.iter().map(|part| part.layers.len()).collect()
    }

    /// Hidden layers in all.
    pub fn layers(&self) -> usize {
        self.parts.last().map_or(0, |part| part.layers.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_become_consecutive_stages_with_ends() {
        let placement = Placement::of_counts(&[2, 3, 1]).expect("placement");
        let parts = placement.parts();
        assert_eq!(placement.layers(), 6);
        assert_eq!(placement.counts(), [2, 3, 1]);
        assert_eq!(parts[1].layers, 2..5);
        let ends: Vec<_> = parts.iter().map(|p| (p.input, p.output)).collect();
        assert_eq!(ends, [(true, false), (false, false), (false, true)]);
        assert_eq!(
            Placement::of_counts(&[6]).expect("one"),
            Placement::whole(6)
        );
    }

    #[test]
    fn a_stage_without_layers_is_refused() {
        for counts in [&[][..], &[3, 0], &[0, 3]] {
            let error = Placement::of_counts(counts).expect_err("empty stage");
            assert!(error.to_string().contains("at least one layer"), "{error}");
        }
    }
}
