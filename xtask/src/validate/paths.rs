//! No file may name a folder of the machine it was written on.
//!
//! Looked for are this checkout, the folder it lies in, the user's home, and anything that looks
//! like somebody's home. Patterns are made at run time, so this file does not find itself.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::layout::Layout;

const SHOWN: usize = 20;

/// Fails with file, line and path for each find.
pub(crate) fn check(layout: &Layout) -> Result<()> {
    let needles = needles(&layout.root, std::env::home_dir().as_deref());
    let files = super::files(layout)?;
    let mut found = Vec::new();
    for name in &files {
        // Not text: nothing to read.
        let Ok(text) = fs::read_to_string(layout.root.join(name)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if let Some(path) = find(line, &needles) {
                found.push(format!("{name}:{}: {path}", number + 1));
            }
        }
    }
    if !found.is_empty() {
        let count = found.len();
        found.truncate(SHOWN);
        bail!(
            "{count} lines name a folder of one machine:\n   {}",
            found.join("\n   ")
        );
    }
    println!("   {} files", files.len());
    Ok(())
}

/// Folders that mean this machine; too short a one would mean any.
fn needles(root: &Path, home: Option<&Path>) -> Vec<String> {
    [Some(root), root.parent(), home]
        .into_iter()
        .flatten()
        .filter_map(Path::to_str)
        .filter(|path| {
            path.len() > 1 && !["/home", "/Users", "/tmp", "/usr", "/opt"].contains(path)
        })
        .map(str::to_owned)
        .collect()
}

/// The first machine path in a line: a needle, or a home folder, standing as a whole path.
fn find<'a>(line: &'a str, needles: &[String]) -> Option<&'a str> {
    let homes = ["/home/", "/Users/", r"C:\Users\"];
    let known = needles
        .iter()
        .filter_map(|needle| occurrence(line, needle, |next| !word(next)));
    let somebody = homes
        .iter()
        .filter_map(|home| occurrence(line, home, |next| next.is_ascii_alphanumeric()));
    known.chain(somebody).next()
}

/// `what` in `line` at the start of a path and followed by something `next` accepts.
fn occurrence<'a>(line: &'a str, what: &str, next: impl Fn(char) -> bool) -> Option<&'a str> {
    line.match_indices(what).find_map(|(at, _)| {
        let before = line[..at].chars().next_back().unwrap_or(' ');
        let after = line[at + what.len()..].chars().next().unwrap_or(' ');
        let path = line[at..].split([' ', '"', '`', '\'', ')']).next();
        path.filter(|_| !word(before) && !"./~:}>".contains(before) && next(after))
    })
}

fn word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Option<String> {
        let needles = needles(Path::new("/srv/ann/repo"), Some(Path::new("/ann")));
        find(line, &needles).map(str::to_owned)
    }

    #[test]
    fn checkout_its_parent_and_home_are_found() {
        assert_eq!(
            found("see `/srv/ann/repo/x.rs`").as_deref(),
            Some("/srv/ann/repo/x.rs")
        );
        assert_eq!(
            found("in /srv/ann/other").as_deref(),
            Some("/srv/ann/other")
        );
        assert_eq!(found("cd /ann && ls").as_deref(), Some("/ann"));
    }

    #[test]
    fn anybodys_home_is_found() {
        let line = ["cd /ho", "me/bob/src"].concat();
        assert_eq!(found(&line).as_deref(), Some(&line[3..]));
        assert!(found(&["C:\\Us", "ers\\bob"].concat()).is_some());
    }

    #[test]
    fn parts_of_other_paths_are_not() {
        assert_eq!(found("crates/srv/ann/repo"), None);
        assert_eq!(found("see ./ann and /annex and docs/ann"), None);
        assert_eq!(found("the /home/ folder"), None);
    }

    #[test]
    fn a_root_folder_is_no_needle() {
        assert_eq!(needles(Path::new("/repo"), None), ["/repo"]);
    }
}
