//! SHA-256 of files, and what happens when it is not the one expected: the file goes.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// SHA-256 of a file as lower-case hex, read in 1 MiB pieces.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file
            .read(&mut piece)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Fails with both digests unless the file's is the expected one; touches nothing.
pub(crate) fn verify(path: &Path, expected: &str) -> Result<()> {
    let got = sha256(path)?;
    if got != expected {
        bail!(
            "{} has the wrong SHA-256\n  expected {expected}\n  got      {got}",
            path.display()
        );
    }
    Ok(())
}

/// [`verify`], and deletes the file when it is wrong, so that the next run fetches it anew.
pub(crate) fn verify_or_delete(path: &Path, expected: &str) -> Result<()> {
    verify(path, expected).or_else(|error| {
        fs::remove_file(path)
            .with_context(|| format!("cannot delete the wrong file {}", path.display()))?;
        Err(error.context(
            "a download was damaged or replaced; it has been deleted. Run the command again; \
             if it fails the same way, the package index in use serves another file under this \
             version",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn file(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("xtask-digest-{}-{name}", std::process::id()));
        fs::write(&path, "abc").unwrap();
        path
    }

    #[test]
    fn the_published_digest_of_abc() {
        let path = file("right");
        assert_eq!(sha256(&path).unwrap(), ABC);
        verify_or_delete(&path, ABC).unwrap();
        assert!(path.exists());
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_wrong_file_is_deleted_and_both_digests_are_told() {
        let path = file("wrong");
        let expected = ABC.replace('b', "c");
        let message = format!("{:#}", verify_or_delete(&path, &expected).unwrap_err());
        assert!(
            message.contains(ABC) && message.contains(&expected),
            "{message}"
        );
        assert!(message.contains("Run the command again"), "{message}");
        assert!(!path.exists());
    }
}
