//! A run file on disk: made or gone on with, one finished row at a time.
//!
//! A row is on disk before the next one is begun, so that an interruption costs at most the row in
//! hand. A last line without its end is such a row: it is cut off and run again. A complete line that
//! means nothing is an error, because somebody's result would be lost otherwise. Anything but a
//! regular file (`/dev/null`) is written to without being read.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{Header, Line, RecordError, SCHEMA, limits};

/// A run file that is open for writing, locked against other processes.
#[derive(Debug)]
pub struct RunFile {
    path: PathBuf,
    file: File,
    /// Bytes up to the last complete row.
    length: u64,
    rows: usize,
    regular: bool,
}

impl RunFile {
    /// Makes the file with its header, or opens the one that is there and gives its finished rows.
    ///
    /// # Errors
    /// A file that cannot be opened, locked or written, one that is no run file, or one whose schema,
    /// command, seed, model hash, device, type, chunk or settings are not those of `header`.
    pub fn create_or_resume(
        path: &Path,
        header: &Header,
    ) -> Result<(Self, Vec<Line>), RecordError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let open = |source| RecordError::Open {
            path: path.into(),
            source,
        };
        let mut file = file.open(path).map_err(open)?;
        let regular = file.metadata().map_err(open)?.is_file();
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => RecordError::Locked { path: path.into() },
            TryLockError::Error(source) => RecordError::NoLock {
                path: path.into(),
                source,
            },
        })?;
        let mut text = Vec::new();
        if regular {
            file.read_to_end(&mut text).map_err(open)?;
        }
        let content = Content::parse(path, &text)?;
        if let Some(found) = &content.header {
            same_run(path, found, header)?;
        }
        let mut run = Self {
            path: path.into(),
            file,
            length: content.length,
            rows: content.rows.len(),
            regular,
        };
        run.cut();
        if content.header.is_none() {
            run.write(&[Line::Header(Box::new(header.clone()))], 0)?;
        }
        Ok((run, content.rows))
    }

    /// Writes one finished row.
    ///
    /// # Errors
    /// [`RecordError::Full`] or [`RecordError::Write`]; the file then ends with the row before.
    pub fn append(&mut self, line: &Line) -> Result<(), RecordError> {
        self.append_all(std::slice::from_ref(line))
    }

    /// Writes rows that belong together. After an interruption the file may hold the first of them
    /// only, so the row that says that all are there comes last.
    ///
    /// # Errors
    /// As [`RunFile::append`].
    pub fn append_all(&mut self, lines: &[Line]) -> Result<(), RecordError> {
        self.write(lines, lines.len())
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Finished rows in it.
    pub fn rows(&self) -> usize {
        self.rows
    }

    fn write(&mut self, lines: &[Line], rows: usize) -> Result<(), RecordError> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line).map_err(|error| self.failed(error.into()))?;
            text.push(b'\n');
        }
        let written = self.file.write_all(&text).and_then(|()| self.settle());
        if let Err(error) = written {
            self.cut();
            return Err(self.failed(error));
        }
        self.length += text.len() as u64;
        self.rows += rows;
        Ok(())
    }

    /// Writes through to the disk itself: a row has cost more than this wait.
    fn settle(&mut self) -> std::io::Result<()> {
        self.file.flush()?;
        if self.regular {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Cuts off what follows the last complete row. A failure leaves a torn line, which the next
    /// start cuts off.
    fn cut(&mut self) {
        if self.regular {
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::Start(self.length));
        }
    }

    fn failed(&self, source: std::io::Error) -> RecordError {
        let (path, rows) = (self.path.clone(), self.rows);
        if matches!(
            source.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded
        ) {
            return RecordError::Full { path, rows };
        }
        RecordError::Write { path, rows, source }
    }
}

/// Reads a run file; a last line without its end is left out.
///
/// # Errors
/// A file that cannot be read, is no run file, has another schema or a damaged line.
pub fn read(path: &Path) -> Result<(Header, Vec<Line>), RecordError> {
    let text = std::fs::read(path).map_err(|source| RecordError::Read {
        path: path.into(),
        source,
    })?;
    let content = Content::parse(path, &text)?;
    let header = content.header.ok_or_else(|| RecordError::NotARunFile {
        path: path.into(),
        reason: "there is none".into(),
    })?;
    if header.schema != SCHEMA {
        return Err(differs(path, "the schema", &header.schema, &SCHEMA));
    }
    Ok((header, content.rows))
}

/// Complete lines of a file.
struct Content {
    header: Option<Header>,
    rows: Vec<Line>,
    /// Bytes of header and rows.
    length: u64,
}

impl Content {
    fn parse(path: &Path, text: &[u8]) -> Result<Self, RecordError> {
        let length = text.iter().rposition(|byte| *byte == b'\n');
        let length = length.map_or(0, |at| at + 1);
        if length == 0 && !text.is_empty() && !header_begins(text) {
            return Err(RecordError::NotARunFile {
                path: path.into(),
                reason: "no header".into(),
            });
        }
        let mut content = Self {
            header: None,
            rows: Vec::new(),
            length: length as u64,
        };
        for (index, line) in text[..length].split_inclusive(|b| *b == b'\n').enumerate() {
            let parsed = serde_json::from_slice::<Line>(line);
            let absurd = match index {
                0 => None,
                _ => serde_json::from_slice(line)
                    .ok()
                    .and_then(|row| limits::check(&row).err()),
            };
            if let Some(reason) = absurd {
                return Err(RecordError::Damaged {
                    path: path.into(),
                    line: index + 1,
                    reason,
                });
            }
            match (index, parsed) {
                (0, Ok(Line::Header(header))) => content.header = Some(*header),
                (0, other) => {
                    return Err(RecordError::NotARunFile {
                        path: path.into(),
                        reason: other
                            .err()
                            .map_or("no header".into(), |error| error.to_string()),
                    });
                }
                (_, Ok(line)) => content.rows.push(line),
                (_, Err(error)) => {
                    return Err(RecordError::Damaged {
                        path: path.into(),
                        line: index + 1,
                        reason: error.to_string(),
                    });
                }
            }
        }
        Ok(content)
    }
}

/// Returns true if a file without a complete line may be a run file whose header was torn.
fn header_begins(text: &[u8]) -> bool {
    let start = br#"{"kind":"header""#;
    let common = start.len().min(text.len());
    text[..common] == start[..common]
}

/// Refuses to mix two runs in one file.
fn same_run(path: &Path, found: &Header, asked: &Header) -> Result<(), RecordError> {
    if found.schema != asked.schema {
        return Err(differs(path, "the schema", &found.schema, &asked.schema));
    }
    let hash = |header: &Header| header.model.as_ref().and_then(|model| model.hash.clone());
    let (found_hash, asked_hash) = (hash(found), hash(asked));
    if found.command != asked.command {
        return Err(differs(path, "the command", &found.command, &asked.command));
    }
    if found_hash != asked_hash || found.model.is_some() != asked.model.is_some() {
        let none = || "none".to_owned();
        let (there, here) = (
            found_hash.unwrap_or_else(none),
            asked_hash.unwrap_or_else(none),
        );
        return Err(differs(path, "the model's hash", &there, &here));
    }
    if found.seed != asked.seed {
        return Err(differs(path, "seed", &found.seed, &asked.seed));
    }
    if found.device != asked.device {
        return Err(differs(path, "the device", &found.device, &asked.device));
    }
    if found.dtype != asked.dtype {
        return Err(differs(path, "dtype", &found.dtype, &asked.dtype));
    }
    if found.chunk != asked.chunk {
        return Err(differs(path, "chunk", &found.chunk, &asked.chunk));
    }
    let names = found.settings.keys().chain(asked.settings.keys());
    let null = serde_json::Value::Null;
    for name in names {
        let of = |header: &'_ Header| header.settings.get(name).unwrap_or(&null).clone();
        if of(found) != of(asked) {
            return Err(differs(path, name, &of(found), &of(asked)));
        }
    }
    Ok(())
}

fn differs<T: std::fmt::Display>(path: &Path, field: &str, found: &T, asked: &T) -> RecordError {
    RecordError::OtherRun {
        path: path.into(),
        field: field.into(),
        in_file: found.to_string(),
        asked: asked.to_string(),
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
