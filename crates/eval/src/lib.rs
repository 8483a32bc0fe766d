//! What sparse attention keeps of a model's answers, and what it saves.

mod attention;

pub use attention::{AttentionSpecError, NamedAttention, parse_attentions};
