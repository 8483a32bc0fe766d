//! Which model it was: SHA-256 over the files that make its answers.
//!
//! Configuration, tokenizer, chat template and weights, in the order below, each as name, NUL, length
//! (8 bytes, little end first), content. Read in pieces: a model is larger than memory may be.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::error::EvalError;

const TEXTS: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
];
const PIECE: usize = 1 << 20;

/// The hash of a model directory, hexadecimal. `progress` gets bytes done and bytes in all.
///
/// # Errors
/// A file that cannot be read.
pub fn model_hash(dir: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<String, EvalError> {
    let files = files(dir)?;
    let total = files.iter().map(|(_, bytes)| bytes).sum();
    let (mut hash, mut done, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
    for (path, bytes) in &files {
        begin(&mut hash, path, *bytes);
        let mut file = File::open(path).map_err(unreadable(path))?;
        loop {
            let read = file.read(&mut piece).map_err(unreadable(path))?;
            if read == 0 {
                break;
            }
            hash.update(&piece[..read]);
            done += read as u64;
            progress(done, total);
        }
    }
    Ok(hexadecimal(&hash.finalize()))
}

/// The outline of a model directory, hexadecimal: SHA-256 of its configuration, and of names and sizes of its weights. It
/// reads no weights, so models that differ in their values alone have the same.
///
/// # Errors
/// A file that cannot be read.
pub fn model_outline(dir: &Path) -> Result<String, EvalError> {
    let config = dir.join("config.json");
    let text = std::fs::read(&config).map_err(unreadable(&config))?;
    let mut hash = Sha256::new();
    hash.update(text);
    for (path, bytes) in weights(dir)? {
        begin(&mut hash, &path, bytes);
    }
    Ok(hexadecimal(&hash.finalize()))
}

/// Adds what stands before a file's content.
fn begin(hash: &mut Sha256, path: &Path, bytes: u64) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    hash.update(name.as_bytes());
    hash.update([0]);
    hash.update(bytes.to_le_bytes());
}

/// SHA-256 of a text, hexadecimal.
pub fn text_hash(text: &str) -> String {
    hexadecimal(&Sha256::digest(text.as_bytes()))
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Those that are there, with their bytes: texts in the order above, then weights by name.
fn files(dir: &Path) -> Result<Vec<(PathBuf, u64)>, EvalError> {
    let texts = TEXTS.iter().map(|name| dir.join(name));
    let there = texts.filter(|path| path.exists());
    let mut files: Vec<_> = there.map(sized).collect::<Result<_, _>>()?;
    files.extend(weights(dir)?);
    Ok(files)
}

/// Weights by name, with their bytes.
fn weights(dir: &Path) -> Result<Vec<(PathBuf, u64)>, EvalError> {
    let mut weights = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable(dir))? {
        let path = entry.map_err(unreadable(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") {
            weights.push(path);
        }
    }
    weights.sort();
    weights.into_iter().map(sized).collect()
}

fn sized(path: PathBuf) -> Result<(PathBuf, u64), EvalError> {
    let bytes = path.metadata().map_err(unreadable(&path))?.len();
    Ok((path, bytes))
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> EvalError + '_ {
    |source| EvalError::Read {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn hash(dir: &Path) -> String {
        model_hash(dir, &mut |_, _| {}).unwrap()
    }

    #[test]
    fn every_file_that_makes_answers_counts_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "weights");
        let first = hash(dir.path());
        // By `printf 'config.json\0\2\0\0\0\0\0\0\0{}model.safetensors\0\7\0\0\0\0\0\0\0weights' | sha256sum`.
        assert_eq!(
            first,
            "800d17785f28dc789dc01b03d9fba9b88ecd57d57956c04f75641289811d8551"
        );
        write("README.md", "notes");
        assert_eq!(hash(dir.path()), first);
        for name in ["tokenizer.json", "model-00001-of-00002.safetensors"] {
            let before = hash(dir.path());
            write(name, "more");
            assert_ne!(hash(dir.path()), before, "{name}");
        }
    }

    #[test]
    fn an_outline_reads_no_weights() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let outline = || model_outline(dir.path()).unwrap();
        assert!(model_outline(dir.path()).is_err(), "no config.json");
        write("config.json", "{}");
        write("model.safetensors", "weights");
        let first = outline();
        write("model.safetensors", "WEIGHTS");
        write("tokenizer.json", "{}");
        assert_eq!(outline(), first);
        write("model.safetensors", "more weights");
        assert_ne!(outline(), first);
        write("model.safetensors", "weights");
        write("config.json", "{ }");
        assert_ne!(outline(), first);
    }

    #[test]
    fn progress_ends_at_the_total() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("model.safetensors"), vec![7; PIECE + 5]).unwrap();
        let mut last = (0, 0);
        model_hash(dir.path(), &mut |done, total| last = (done, total)).unwrap();
        assert_eq!(last, (PIECE as u64 + 5, PIECE as u64 + 5));
    }
}
