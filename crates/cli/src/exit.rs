//! Errors for people, and exit codes for scripts.
//!
//! 2 means the request has to change (the same code clap uses), 130 that the user ended it, 1 that something
//! failed.

use std::{error::Error, fmt, process::ExitCode};

use sparse_accelerate::AttentionError;
use sparse_accelerate_checkpoint::CheckpointError;
use sparse_accelerate_engine::{
    CalibrationError, DeviceError, EngineError, SamplingError, attention::AttentionSpecError,
    placement::SplitError,
};
use sparse_accelerate_eval::{EvalError, speed::SpeedError};
use sparse_accelerate_report::record::RecordError;

use crate::interrupt;

/// A request that should be asked differently.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for UsageError {}

/// A [`UsageError`] as an anyhow error.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(UsageError(message.into()))
}

/// Prints the chain to standard error and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {}", message(error));
    let mut above = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // Transparent errors repeat the words of what they wrap.
        if text != above {
            eprintln!("  caused by: {text}");
        }
        above = text;
    }
    let engine = engine_error(error);
    let mut arguments = engine.map_or(&[][..], arguments).to_vec();
    arguments.extend(record_error(error).map_or(&[][..], file_arguments));
    if !arguments.is_empty() {
        eprintln!("  see {}", arguments.join(", "));
    }
    let cancelled = matches!(engine, Some(EngineError::Cancelled { .. }));
    ExitCode::from(match is_usage(error) {
        true => 2,
        false if cancelled => interrupt::CODE,
        false => 1,
    })
}

/// The words of an error, with the flag of the field that it names: libraries know fields, not flags.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let text = error.to_string();
    let field = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(error), _) => EvalError::field(error),
        (_, Some(error)) => SpeedError::field(error),
        _ => None,
    };
    match field {
        Some(field) => with_flag(field, &text),
        None => text,
    }
}

/// `runs is 0` becomes `--runs is 0`; words that do not begin with the field are put after the flag.
fn with_flag(field: &str, text: &str) -> String {
    let flag = format!("--{}", field.replace('_', "-"));
    match text.strip_prefix(field) {
        Some(rest) => format!("{flag}{rest}"),
        None => format!("{flag}: {text}"),
    }
}

/// The engine's error behind a chain; crates above the engine pass it on under a type of their own.
fn engine_error(error: &anyhow::Error) -> Option<&EngineError> {
    error.chain().find_map(|cause| {
        let own = cause.downcast_ref::<EngineError>();
        let eval = || match cause.downcast_ref() {
            Some(EvalError::Engine(error)) => Some(error),
            _ => None,
        };
        let speed = || match cause.downcast_ref() {
            Some(SpeedError::Engine(error)) => Some(error),
            _ => None,
        };
        own.or_else(eval).or_else(speed)
    })
}

/// The error of a run file that is written, behind a chain. Files that are only read are shown as errors of the
/// report, which name no file to write.
fn record_error(error: &anyhow::Error) -> Option<&RecordError> {
    error.chain().find_map(|cause| {
        let own = cause.downcast_ref::<RecordError>();
        let eval = || match cause.downcast_ref() {
            Some(EvalError::Record(error)) => Some(error),
            _ => None,
        };
        own.or_else(eval)
    })
}

/// The arguments that name another file, or ask for the run that is in it.
fn file_arguments(error: &RecordError) -> &'static [&'static str] {
    match error {
        RecordError::OtherRun { field, .. } => match field.as_str() {
            "seed" => &["--out", "--seed"],
            "dtype" => &["--out", "--dtype"],
            "chunk" => &["--out", "--chunk"],
            _ => &["--out"],
        },
        error if error.wants_another_file() => &["--out"],
        _ => &[],
    }
}

/// The arguments that change what an error complains of.
fn arguments(error: &EngineError) -> &'static [&'static str] {
    match error {
        EngineError::Stage { source, .. } => arguments(source),
        EngineError::Memory { .. } | EngineError::GaveUp { .. } => &["--chunk", "--dtype"],
        EngineError::Stalled { .. } => &["--stall-limit", "--transport host"],
        EngineError::Split(SplitError::UnknownMemory { .. }) => &["--memory-limit", "--split"],
        EngineError::Calibration(CalibrationError::Write { .. }) => &["--out"],
        EngineError::Device(
            DeviceError::NoSuchDevice { .. } | DeviceError::NoKernelCompiler { .. },
        ) => &["--device flex"],
        EngineError::Sampling(SamplingError::NotFinite { .. }) => &["--dtype f32"],
        _ => &[],
    }
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<UsageError>()
            || cause.is::<AttentionSpecError>()
            || cause
                .downcast_ref::<EvalError>()
                .is_some_and(EvalError::is_usage)
            || cause
                .downcast_ref::<SpeedError>()
                .is_some_and(SpeedError::is_usage)
            || cause
                .downcast_ref::<EngineError>()
                .is_some_and(EngineError::is_usage)
            || cause
                .downcast_ref::<DeviceError>()
                .is_some_and(|e| !matches!(e, DeviceError::CannotOpen { .. }))
            || matches!(
                cause.downcast_ref::<CheckpointError>(),
                Some(
                    CheckpointError::NotADirectory { .. }
                        | CheckpointError::OutputExists { .. }
                        | CheckpointError::UnknownFormat { .. }
                )
            )
            || matches!(
                cause.downcast_ref::<AttentionError>(),
                Some(AttentionError::Setting { .. })
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_shown_as_its_flag() {
        let error = SpeedError::Nothing { field: "kv_heads" }.into();
        assert_eq!(message(&error), "--kv-heads is 0, but must be at least 1");
        let length = EvalError::OverLimit {
            length: 9,
            limit: 8,
        };
        assert!(message(&length.into()).starts_with("--lengths: length 9: this model has 8"));
        assert_eq!(message(&usage("as it is")), "as it is");
    }

    #[test]
    fn a_run_file_that_is_in_the_way_is_named_by_its_arguments() {
        let other = |field: &str| RecordError::OtherRun {
            path: "run.jsonl".into(),
            field: field.into(),
            in_file: "7".into(),
            asked: "8".into(),
        };
        let arguments = |error: anyhow::Error| record_error(&error).map(file_arguments);
        let seed = Some(&["--out", "--seed"][..]);
        assert_eq!(arguments(other("seed").into()), seed);
        assert_eq!(arguments(EvalError::Record(other("seed")).into()), seed);
        let own = Some(&["--out"][..]);
        assert_eq!(arguments(other("the model's hash").into()), own);
        let locked = RecordError::Locked {
            path: "run.jsonl".into(),
        };
        assert_eq!(arguments(locked.into()), own);
        let full = RecordError::Full {
            path: "run.jsonl".into(),
            rows: 3,
        };
        assert_eq!(arguments(full.into()), Some(&[][..]));
        assert_eq!(arguments(usage("as it is")), None);
    }

    #[test]
    fn arguments_are_found_behind_stages_and_other_crates() {
        let gave_up = || EngineError::GaveUp {
            op: "prefill",
            reason: "no memory".into(),
        };
        let stage = EngineError::Stage {
            stage: 1,
            device: "flex".into(),
            source: Box::new(gave_up()),
        };
        for error in [
            anyhow::Error::new(gave_up()),
            anyhow::Error::new(stage),
            anyhow::Error::new(EvalError::Engine(gave_up())),
            anyhow::Error::new(SpeedError::Engine(gave_up())).context("bench"),
        ] {
            let found = engine_error(&error).map(arguments);
            assert_eq!(found, Some(&["--chunk", "--dtype"][..]), "{error}");
        }
        let cancelled = EvalError::Engine(EngineError::Cancelled { done: 1, total: 2 });
        let cancelled = anyhow::Error::new(cancelled);
        let engine = engine_error(&cancelled);
        assert!(matches!(engine, Some(EngineError::Cancelled { .. })));
        assert_eq!(engine.map(arguments), Some(&[][..]));
    }
}
