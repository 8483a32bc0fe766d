//! Writing to standard output and to files. A closed pipe is no error: the reader has seen enough.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write, stdout},
    path::Path,
};

use anyhow::{Context, Result};
use serde::Serialize;

/// Prints a text as it is.
pub(crate) fn print_text(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Prints one JSON value and a newline.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write the report as JSON")?;
    print_text(&format!("{text}\n"))
}

/// Writes a file whole or not at all: beside it first, then in its place.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(name);
    let written = File::create(&partial)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&partial, path));
    written
        .inspect_err(|_| {
            // What could not be written may not be there to remove.
            let _ = fs::remove_file(&partial);
        })
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_a_folder_is_left_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.json");
        fs::write(&path, "old and longer").expect("write");
        write_whole(&path, b"new").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"new");
        let inside = folder.path().join("folder");
        fs::create_dir(&inside).expect("folder");
        let error = write_whole(&inside, b"new")
            .expect_err("a folder")
            .to_string();
        assert!(error.contains("cannot write"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 2);
    }
}
