//! Panics of the backend as errors.
//!
//! Burn's operations cannot return errors, so a device without memory panics inside them. The panic ends
//! here; what it printed stays on standard error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::EngineError;

/// Most characters of a panic's words.
const WORDS: usize = 300;

/// Runs `work` and turns a panic into [`EngineError::GaveUp`]. The caller must drop whatever a panicking
/// `work` was changing.
///
/// # Errors
/// The errors of `work`, and [`EngineError::GaveUp`].
pub fn contained<T, E: From<EngineError>>(
    op: &'static str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let reason = text.unwrap_or("it did not say why");
        Err(E::from(EngineError::GaveUp {
            op,
            reason: reason.chars().take(WORDS).collect(),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        let size = 7;
        let error = contained::<(), EngineError>("prefill", || panic!("no room for {size} bytes"));
        let text = error.expect_err("a panic").to_string();
        assert!(
            text.contains("prefill") && text.contains("no room for 7 bytes"),
            "{text}"
        );
        assert_eq!(
            contained::<_, EngineError>("prefill", || Ok(3)).expect("a value"),
            3
        );
    }
}
