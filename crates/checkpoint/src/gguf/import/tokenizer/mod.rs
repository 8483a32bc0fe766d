//! tokenizer.json and tokenizer_config.json from GGUF metadata.
//!
//! GGUF keeps a tokenizer's tokens and their types (`vocabulary`), and only names what is done with them: `byte_level` and
//! `sentence_piece` know the two kinds of model that the supported families have. What a file does not say clearly enough to give the
//! ids that its model was trained with is refused.

mod byte_level;
mod merges;
mod rebuild;
mod runs;
mod sentence_piece;
mod vocabulary;

pub(crate) use byte_level::rules;
pub(super) use rebuild::rebuild;
