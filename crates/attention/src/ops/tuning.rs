//! The environment's word on choosing kernels by measurement, read once.
//!
//! `SPARSE_ACCELERATE_TUNE`: `on` (also when unset or empty) or `off`. Anything else is refused by the
//! check before a call, so that a misspelt `off` does not pass as `on`.

use std::{env, sync::OnceLock};

use sparse_accelerate_kernels::attend::tune::{self, Choice, Tuning};

use crate::{diagnostics::TunedPlan, error::AttentionError};

const TUNE_ENV: &str = "SPARSE_ACCELERATE_TUNE";

fn parse(value: Option<&str>) -> Result<Tuning, AttentionError> {
    match value {
        None | Some("" | "on") => Ok(Tuning::default()),
        Some("off") => Ok(Tuning::OFF),
        Some(other) => Err(AttentionError::Setting {
            op: "attend",
            field: TUNE_ENV,
            got: format!("{other:?}"),
            limit: "on or off".into(),
            hint: "it says whether kernels of large problems are chosen by measuring them",
        }),
    }
}

/// The word of the environment at the first call.
pub(super) fn tuning() -> Result<Tuning, AttentionError> {
    static TUNING: OnceLock<Result<Tuning, AttentionError>> = OnceLock::new();
    let read = || {
        let value = env::var_os(TUNE_ENV);
        parse(value.as_deref().map(|v| v.to_string_lossy()).as_deref())
    };
    TUNING.get_or_init(read).clone()
}

/// Every measurement of the process as text.
pub(super) fn plans() -> Vec<TunedPlan> {
    tune::choices().iter().map(plan).collect()
}

fn plan(choice: &Choice) -> TunedPlan {
    let tiers: Vec<String> = choice.key.tiers.iter().map(|t| format!("{t:?}")).collect();
    TunedPlan {
        problem: format!("{}, device {}", choice.key, choice.device.device),
        plan: tiers[choice.chosen].clone(),
        candidates: tiers
            .into_iter()
            .zip(choice.milliseconds.iter().copied())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_unless_it_says_off() {
        assert_eq!(parse(None), Ok(Tuning::default()));
        assert_eq!(parse(Some("")), Ok(Tuning::default()));
        assert_eq!(parse(Some("on")), Ok(Tuning::default()));
        assert_eq!(parse(Some("off")), Ok(Tuning::OFF));
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        let text = parse(Some("0ff")).expect_err("refused").to_string();
        assert!(text.contains("SPARSE_ACCELERATE_TUNE is \"0ff\""), "{text}");
        assert!(text.contains("on or off"), "{text}");
    }
}
