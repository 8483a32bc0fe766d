//! Running other programs, with errors that give the command line and the way it ended.

use std::process::{Command, ExitStatus, Output, Stdio};

use anyhow::{Context, Result, bail};

/// The command as one would type it, without its environment.
pub(crate) fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            if word.is_empty() || word.contains([' ', '"', '\'', '\n']) {
                format!("{word:?}")
            } else {
                word.into_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Gives a program that may open Vulkan a runtime folder where the session has none: Mesa complains
/// without one, and any folder will do.
pub(crate) fn headless(command: &mut Command) {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
}

/// Runs with our own input and output; any status is an answer.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command
        .status()
        .with_context(|| format!("cannot start `{}`", line(command)))
}

/// Runs with our own input and output; anything but success is an error.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs and returns standard output as text; anything but success is an error with stderr in it.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = capture(command)?;
    if !output.status.success() {
        bail!(
            "`{}` failed: {}\n{}",
            line(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// True if the program exists and ends well; prints nothing.
pub(crate) fn works(program: &str, args: &[&str]) -> bool {
    capture(Command::new(program).args(args)).is_ok_and(|output| output.status.success())
}

fn capture(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_named_with_its_status_and_stderr() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no luck >&2; exit 3"]);
        let message = read(&mut command).unwrap_err().to_string();
        assert!(
            message.contains("no luck") && message.contains('3'),
            "{message}"
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let message = read(&mut Command::new("no-such-program-here"))
            .unwrap_err()
            .to_string();
        assert!(message.contains("no-such-program-here"), "{message}");
        assert!(!works("no-such-program-here", &[]));
    }

    #[test]
    fn words_with_spaces_are_quoted() {
        let mut command = Command::new("python3");
        command.args(["-c", "import sys"]);
        assert_eq!(line(&command), "python3 -c \"import sys\"");
    }
}
