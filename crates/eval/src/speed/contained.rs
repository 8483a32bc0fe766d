//! A measurement whose failure does not end the run.
//!
//! Burn's operations cannot return errors, so a device without memory panics inside them. The panic
//! ends here and becomes an error; what it printed stays on standard error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::SpeedError;

/// Runs `work`; a panic in it is [`SpeedError::GaveUp`].
pub(super) fn contained<T>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, SpeedError>,
) -> Result<T, SpeedError> {
    // Whatever `work` touched is thrown away with it: a session, a plan, tensors.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let reason = text.unwrap_or("it did not say why");
        let short: String = reason.chars().take(300).collect();
        Err(SpeedError::GaveUp {
            what,
            reason: short,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        let size = 7;
        let error = contained::<()>("prefill", || panic!("no room for {size} bytes"));
        let text = error.expect_err("a panic").to_string();
        assert!(
            text.contains("prefill") && text.contains("no room for 7 bytes"),
            "{text}"
        );
        assert_eq!(contained("prefill", || Ok(3)).expect("a value"), 3);
    }
}
