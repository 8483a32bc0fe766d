//! A loaded model: whole on one device, or in stages on several.

use sparse_accelerate::{AttentionSettings, Pattern};
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_models::CausalLm;

use crate::{
    chunking::{Chunking, EqualTime},
    error::EngineError,
    estimate::Density,
    memory,
    pipeline::Pipeline,
    sequence::Sequence,
};

/// A loaded model.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // one value a process
pub enum Loaded {
    /// A whole model on one device, computed in the caller's thread.
    Whole(CausalLm),
    /// A model in stages, each on a device with a thread of its own.
    Staged(Pipeline),
}

impl Loaded {
    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Loaded::Whole(model) => model.config(),
            Loaded::Staged(pipeline) => pipeline.config(),
        }
    }

    /// Gives the whole model, for work that looks into its layers.
    ///
    /// # Errors
    /// [`EngineError::Staged`] for a model in stages.
    pub fn whole(&self) -> Result<&CausalLm, EngineError> {
        match self {
            Loaded::Whole(model) => Ok(model),
            Loaded::Staged(_) => Err(EngineError::Staged {
                stages: self.stages(),
            }),
        }
    }

    /// Number of stages; 1 for a whole model.
    pub fn stages(&self) -> usize {
        match self {
            Loaded::Whole(_) => 1,
            Loaded::Staged(pipeline) => pipeline.devices().len(),
        }
    }

    /// Makes an empty sequence of up to `capacity` tokens.
    ///
    /// # Errors
    /// As [`Sequence::new`] and [`Pipeline::sequence`].
    pub fn sequence(&self, capacity: usize) -> Result<Sequence<'_>, EngineError> {
        match self {
            Loaded::Whole(model) => Sequence::new(model, capacity),
            Loaded::Staged(pipeline) => pipeline.sequence(capacity),
        }
    }

    /// Chooses the chunks of a prompt: of `chunk` tokens on one device, of equal time and at most `chunk`
    /// tokens on several.
    pub fn chunking(&self, prompt: usize, chunk: usize, settings: &AttentionSettings) -> Chunking {
        let density = expected_density(settings, prompt);
        let stages = self.stages();
        match (
            self,
            Chunking::for_stages(
                self.config(),
                stages,
                prompt,
                chunk,
                density,
                settings.selects() && density < 1.0,
            ),
        ) {
            (Loaded::Staged(pipeline), Chunking::EqualTime(equal)) => {
                let chunks = pipeline.chunks().unwrap_or(equal.chunks);
                Chunking::EqualTime(EqualTime { chunks, ..equal })
            }
            (_, chunking) => chunking,
        }
    }

    /// Gives unused memory of its devices back.
    pub fn cleanup(&self) {
        match self {
            Loaded::Whole(model) => memory::give_back(model.device()),
            Loaded::Staged(pipeline) => {
                for device in pipeline.devices() {
                    memory::give_back(device);
                }
            }
        }
    }
}

/// Estimates the share of attention's pairs that settings compute of a prompt. Heads that choose their keys are
/// taken to keep the published share of the prompt's length.
pub(crate) fn expected_density(settings: &AttentionSettings, prompt: usize) -> f64 {
    if !settings.is_sparse_at(prompt) {
        return 1.0;
    }
    if let Some(blocks) = settings.imposed {
        return blocks.density;
    }
    match settings.pattern {
        Pattern::Triangular(t) => {
            let kept = 2.0 * (t.sink as f64 + t.window as f64);
            (kept / prompt.max(1) as f64).min(1.0)
        }
        Pattern::FixedBlocks(blocks) => blocks.density,
        Pattern::Dense if settings.heads.is_none() => 1.0,
        _ => Density::ByLength.at(prompt),
    }
}

#[cfg(test)]
mod tests {
    use sparse_accelerate::Triangular;

    use super::*;

    #[test]
    fn densities_are_guessed_within_reason() {
        let triangular = AttentionSettings::sparse(Pattern::Triangular(Triangular {
            sink: 128,
            window: 896,
            last: 0,
        }));
        assert_eq!(expected_density(&AttentionSettings::dense(), 1 << 17), 1.0);
        assert_eq!(expected_density(&triangular, 8192), 0.25);
        assert_eq!(expected_density(&triangular, 100), 1.0);
        let boundless = AttentionSettings::sparse(Pattern::Triangular(Triangular {
            sink: usize::MAX,
            window: usize::MAX,
            last: usize::MAX,
        }));
        assert_eq!(expected_density(&boundless, 8192), 1.0);
        let auto = AttentionSettings::default();
        assert_eq!(expected_density(&auto, 8192), 1.0);
        assert_eq!(expected_density(&auto, 1 << 17), 0.046);
    }
}
