//! Reading small text files under a size limit, and mapping large ones.
//!
//! A limit far above any real file keeps a wrong path (a weight file named config.json, a device) from filling memory. Whatever
//! is opened here may be a Git LFS pointer, which a clone without LFS leaves in place of every large file: it is named as such.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use memmap2::Mmap;

use crate::CheckpointError;

/// Limit for config.json and its like, in bytes.
pub(crate) const SMALL_FILE: u64 = 16 << 20;
/// Limit for tokenizer.json and the shard index, in bytes.
pub(crate) const LARGE_FILE: u64 = 512 << 20;

/// First words of a Git LFS pointer, in the order of their age.
const POINTERS: [&str; 2] = [
    "version https://git-lfs.github.com/spec/",
    "version https://hawser.github.com/spec/",
];
/// A pointer is smaller than this.
const POINTER_BYTES: usize = 1024;

/// Refuses the bytes of a file that are a Git LFS pointer.
fn refuse_pointer(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let begins = |words: &&str| bytes.starts_with(words.as_bytes());
    if bytes.len() >= POINTER_BYTES || !POINTERS.iter().any(begins) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(bytes);
    let size = text.lines().find_map(|line| line.strip_prefix("size "));
    Err(CheckpointError::LfsPointer {
        path: path.to_path_buf(),
        bytes: size.and_then(|size| size.trim().parse().ok()),
    })
}

/// Reads a whole text file of at most `limit` bytes; `None` when there is no such file.
pub(crate) fn read_optional(path: &Path, limit: u64) -> Result<Option<String>, CheckpointError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CheckpointError::io("open", path)(error)),
    };
    let bytes = file
        .metadata()
        .map_err(CheckpointError::io("examine", path))?
        .len();
    let mut text = String::new();
    let read = file
        .take(limit + 1)
        .read_to_string(&mut text)
        .map_err(CheckpointError::io("read", path))?;
    if read as u64 > limit {
        return Err(CheckpointError::FileTooLarge {
            path: path.to_path_buf(),
            bytes: bytes.max(read as u64),
            limit,
        });
    }
    refuse_pointer(path, text.as_bytes())?;
    Ok(Some(text))
}

/// Reads a config.json wherever it stands, for [`ModelConfig::from_json`](crate::ModelConfig::from_json).
///
/// # Errors
/// A file that cannot be read, is over 16 MiB, or is a pointer that Git LFS left.
pub fn read_config(path: &Path) -> Result<String, CheckpointError> {
    let missing = || CheckpointError::Io {
        action: "open",
        path: path.to_path_buf(),
        source: std::io::ErrorKind::NotFound.into(),
    };
    read_optional(path, SMALL_FILE)?.ok_or_else(missing)
}

/// Reads a whole text file that must be there.
pub(crate) fn read_required(
    dir: &Path,
    file: &'static str,
    limit: u64,
    hint: &'static str,
) -> Result<String, CheckpointError> {
    read_optional(&dir.join(file), limit)?.ok_or_else(|| CheckpointError::MissingFile {
        dir: dir.to_path_buf(),
        file,
        hint,
    })
}

/// Maps a file for reading. The file must not be truncated while the map lives: reading past its new end would end the process.
pub(crate) fn map(path: &Path) -> Result<Mmap, CheckpointError> {
    let file = File::open(path).map_err(CheckpointError::io("open", path))?;
    let metadata = file
        .metadata()
        .map_err(CheckpointError::io("examine", path))?;
    if !metadata.is_file() {
        return Err(CheckpointError::UnknownFormat {
            path: path.to_path_buf(),
        });
    }
    // SAFETY: the map is read-only and private to this process; model files are not written while they are open, which the
    // crate's contract asks of its caller, and every read is bounds-checked against the length taken here.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.map_err(CheckpointError::io("map", path))?;
    refuse_pointer(path, &map)?;
    Ok(map)
}
