//! Text in and out of tokens: tokenizer, incremental decoding, chat template.
//!
//! Thin wrappers: the formats are those of the `tokenizers` library and of Jinja, and their errors come back typed.

mod chat;
mod special;
mod stream;
mod tokenizer;

pub use chat::{ChatMessage, ChatTemplate};
pub(crate) use special::TokenizerConfig;
pub use stream::TextStream;
pub use tokenizer::Tokenizer;
