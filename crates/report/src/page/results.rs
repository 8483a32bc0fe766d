//! The results page of a folder of runs: what is checked in, shown, and nothing typed by hand.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::markdown::section;
use crate::{error::ReportError, record::RecordError, run::Run};

const HEAD: &str = "\
# Results

Made by `cargo xtask results` from `benches/runs/*/*.jsonl`; `cargo xtask validate` fails when it is not
what those files give. A `README.md` beside a run file says what was learned.
";

/// The page over `<folder>/*/*.jsonl`, newest folder name first.
///
/// # Errors
/// A folder or file that cannot be read, or is no run file.
pub fn results(folder: &Path) -> Result<String, ReportError> {
    let mut page = HEAD.to_string();
    let mut folders = entries(folder)?;
    folders.reverse();
    for run in folders.iter().filter(|path| path.is_dir()) {
        for file in entries(run)? {
            if file
                .extension()
                .is_some_and(|extension| extension == "jsonl")
            {
                let name = |path: &Path| {
                    path.file_name()
                        .map_or(String::new(), |n| n.to_string_lossy().into_owned())
                };
                let file_name = format!("{}/{}", name(run), name(&file));
                let link = format!("[{file_name}](runs/{file_name})");
                page.push('\n');
                page += &section(&Run::read(&file)?, Some(&link));
            }
        }
    }
    Ok(page)
}

/// Entries of a folder, sorted by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let failed = |source: io::Error| RecordError::Read {
        path: folder.into(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}
