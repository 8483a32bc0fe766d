//! Text in and out of tokens: tokenizer, incremental decoding, chat template.
//!
//! Thin wrappers: the formats are those of the `tokenizers` library and of Jinja, and their errors come back typed.

mod beside;
mod border;
mod chat;
mod json;
mod source;
mod special;
mod stream;
mod tokenizer;

pub(crate) use beside::Beside;
pub use chat::{ChatDate, ChatMessage, ChatTemplate};
pub use special::SpecialTokens;
pub use stream::TextStream;
pub use tokenizer::Tokenizer;
