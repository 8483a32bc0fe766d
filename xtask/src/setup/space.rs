//! Free disk space, asked before a large step rather than found out in the middle of one.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// Fails when the file system of `folder` has less than `need` bytes free. Where it cannot be
/// asked (no `df`), says nothing: the write itself will report a full disk.
pub(crate) fn require(folder: &Path, need: u64, what: &str) -> Result<()> {
    let Some(free) = free(folder) else {
        return Ok(());
    };
    if free < need {
        bail!(
            "{what} needs {} MB in {}, which has {} MB free; make room, or set {} to a folder on \
             another disk",
            need.div_ceil(1_000_000),
            folder.display(),
            free / 1_000_000,
            crate::layout::DATA_ENV,
        );
    }
    Ok(())
}

fn free(folder: &Path) -> Option<u64> {
    let text = run::read(Command::new("df").arg("-Pk").arg(folder)).ok()?;
    parse(&text)
}

/// Fourth column of the second line of `df -Pk`, in KiB.
fn parse(text: &str) -> Option<u64> {
    let available = text.lines().nth(1)?.split_whitespace().nth(3)?;
    available.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posix_df_is_understood() {
        let text = "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
                    /dev/sda1 100 40 60 40% /\n";
        assert_eq!(parse(text), Some(60 * 1024));
        assert_eq!(parse("df: no such file\n"), None);
    }

    #[test]
    fn too_little_names_both_sizes_and_the_way_out() {
        let message = require(&std::env::temp_dir(), u64::MAX, "a test").map_or_else(
            |error| error.to_string(),
            |()| "no df here: MB free, SPARSE_ACCELERATE_DATA".to_owned(),
        );
        assert!(message.contains("MB free") && message.contains("SPARSE_ACCELERATE_DATA"));
    }
}
