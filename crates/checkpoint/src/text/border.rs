//! The border to the `tokenizers` library.
//!
//! It panics on some files and texts that it should refuse. The panic ends here as an error; what it printed stays on standard
//! error.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Most characters of what the library says.
const WORDS: usize = 300;

/// Calls the library; its errors and its panics are one text. Nothing that it was changing may be used after an error.
pub(super) fn library<T>(work: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, String> {
    let reason = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("it gave up: {}", text.unwrap_or("it did not say why"))
        }
    };
    Err(reason.chars().take(WORDS).collect())
}
