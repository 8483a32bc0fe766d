//! How an attention is named in text: names with parameters, pattern files, files of a pattern per head.

mod heads;
mod named;
mod pattern_file;

pub use heads::{HeadsError, read_heads};
pub use named::{ATTENTIONS, AttentionSpecError, NamedAttention, baselines, parse_attentions};
pub use pattern_file::{PatternFileError, read_pattern};
