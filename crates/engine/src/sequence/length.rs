//! Checks of lengths that need no cache.

use sparse_accelerate_checkpoint::ModelConfig;

use crate::error::EngineError;

/// Checks a prompt and the new tokens wanted after it against the model's positions, which can be
/// done before anything is loaded.
///
/// # Errors
/// [`EngineError::EmptyPrompt`], [`EngineError::TooLong`].
pub fn check_length(
    config: &ModelConfig,
    prompt: usize,
    max_tokens: usize,
) -> Result<(), EngineError> {
    if prompt == 0 {
        return Err(EngineError::EmptyPrompt);
    }
    if prompt.saturating_add(max_tokens) > config.max_positions {
        return Err(too_many_positions(prompt, max_tokens, config.max_positions));
    }
    Ok(())
}

pub(super) fn too_many_positions(prompt: usize, max_tokens: usize, limit: usize) -> EngineError {
    EngineError::TooLong {
        prompt,
        max_tokens,
        what: "the number of positions this model has",
        limit,
        hint: "shorten the prompt or ask for fewer new tokens",
    }
}
