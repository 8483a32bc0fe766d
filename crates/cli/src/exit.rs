//! Errors for people, and exit codes for scripts.
//!
//! 2 means the request has to change (the same code clap uses), 130 that the user ended it, 1 that something
//! failed.

use std::{error::Error, fmt, process::ExitCode};

use sparse_accelerate::AttentionError;
use sparse_accelerate_checkpoint::CheckpointError;
use sparse_accelerate_engine::{DeviceError, EngineError};
use sparse_accelerate_eval::{AttentionSpecError, EvalError};

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
    eprintln!("error: {error}");
    let mut above = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // Transparent errors repeat the words of what they wrap.
        if text != above {
            eprintln!("  caused by: {text}");
        }
        above = text;
    }
    let cancelled = error.chain().any(|cause| {
        matches!(
            cause.downcast_ref::<EngineError>(),
            Some(EngineError::Cancelled { .. })
        )
    });
    ExitCode::from(match is_usage(error) {
        true => 2,
        false if cancelled => interrupt::CODE,
        false => 1,
    })
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<UsageError>()
            || cause.is::<AttentionSpecError>()
            || cause
                .downcast_ref::<EvalError>()
                .is_some_and(EvalError::is_usage)
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
