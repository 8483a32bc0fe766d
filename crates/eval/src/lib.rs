//! What sparse attention keeps of a model's answers, and what it saves.

mod attention;
mod error;
mod hash;
mod lengths;
pub mod speed;
mod time;
mod version;

pub use attention::{AttentionSpecError, NamedAttention, parse_attentions};
pub use error::EvalError;
pub use hash::{model_hash, text_hash};
pub use lengths::parse_lengths;
pub use time::utc_now;
pub use version::{commit, version};
