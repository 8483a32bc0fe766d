//! `cargo xtask results`: writes the results page of a folder of runs, or checks it with `--check`.
//!
//! Arguments: `[--check] RUNS PAGE`. Exit code 1 when the page is not what the runs give.

use std::{env, fs, path::Path, process::ExitCode};

use sparse_accelerate_report::results;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (check, paths) = match arguments.split_first() {
        Some((first, rest)) if first == "--check" => (true, rest),
        _ => (false, &arguments[..]),
    };
    let [runs, page] = paths else {
        eprintln!("error: expected [--check] RUNS PAGE");
        return ExitCode::from(2);
    };
    let text = match results(Path::new(runs)) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    if check {
        let current = fs::read_to_string(page).unwrap_or_default();
        if current != text {
            eprintln!("error: {page} is not what {runs} gives; run `cargo xtask results`");
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    }
    match fs::write(page, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {page}: {error}");
            ExitCode::FAILURE
        }
    }
}
