//! Gemma 3, Llama, Mistral, Phi-3, Qwen2, Qwen3 and SmolLM3 language models as Burn modules over `sparse-accelerate`.
//!
//! [`CausalLm`] loads a Hugging Face model directory, runs a prompt chunk by chunk against a
//! [`KvCache`](sparse_accelerate::KvCache) and gives the logits of the last token. Attention goes
//! through `sparse_accelerate::attend`; nothing here builds a mask, repeats a key head or keeps a
//! logit of a token that is not the last of its sequence. [`Watch`] lets measurements look inside.
//!
//! The way of a prompt: `chunk` checks and pads the ids, `model` embeds them and walks the
//! layers of `decoder`, the last layer narrows to one row a sequence. Families are known to the
//! checkpoint crate alone: here a configuration becomes a `blueprint`, and `load` reads the tensors
//! that it has, one at a time. Layers that see other keys than the rest, or rotate positions otherwise, are of another
//! kind (`kinds`): layers of a kind share a plan and a table.
//!
//! A [`CausalLm`] is a whole model or, with [`LoadOptions::part`], a *stage*: consecutive layers of one, as a
//! [`Placement`] cuts them. Stages pass hidden states on ([`CausalLm::forward_stage`]); run one after the
//! other they compute what the whole model does, operation by operation.

mod blueprint;
mod chunk;
mod decoder;
mod error;
mod frequencies;
mod kinds;
mod load;
mod model;
mod observe;
mod placement;
mod rotation;

pub use error::ModelError;
pub use kinds::chooses;
pub use load::{LoadOptions, LoadProgress, MLP_ROWS, ModelOptions};
pub use model::{CausalLm, ChunkOutput, StageInput, StageOutput};
pub use observe::{LayerObserver, LayerView, Watch};
pub use placement::{Placement, StagePart};
