//! First words of docs: a doc comment says subject, verb and object, and so does not begin with a
//! relative pronoun. "What a row weighs" leaves the reader to find the noun; "Weight of a row" has it.

use anyhow::{Result, bail};

use crate::layout::Layout;

/// Words that no doc comment begins with.
const BANNED: [&str; 3] = ["What", "Whether", "Where"];
const SHOWN: usize = 60;

/// Fails with the place of every comment that begins so.
pub(crate) fn check(layout: &Layout) -> Result<()> {
    let mut found = Vec::new();
    for (name, text) in super::sources(layout)? {
        let finds = finds(&text).into_iter();
        found.extend(finds.map(|(at, line)| format!("{name}:{at}: {line}")));
    }
    if !found.is_empty() {
        let count = found.len();
        found.truncate(SHOWN);
        bail!(
            "{count} doc comments begin with {}:\n   {}",
            BANNED.join(", "),
            found.join("\n   ")
        );
    }
    Ok(())
}

/// Line number and text of each doc comment that begins with a banned word.
fn finds(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut before = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let marker = marker(line);
        if let Some(marker) = marker
            && before != Some(marker)
            && first_word(&line[marker.len()..]).is_some_and(|word| BANNED.contains(&word))
        {
            found.push((number + 1, line));
        }
        before = marker;
    }
    found
}

fn marker(line: &str) -> Option<&'static str> {
    let is = |marker: &str| line.starts_with(marker) && !line.starts_with("////");
    ["///", "//!"].into_iter().find(|marker| is(marker))
}

fn first_word(text: &str) -> Option<&str> {
    text.trim_start()
        .split(|c: char| !c.is_alphanumeric())
        .find(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        finds(text).iter().map(|(at, _)| *at).collect()
    }

    #[test]
    fn the_first_line_of_a_block_counts() {
        assert_eq!(lines("/// What it is.\nstruct A;\n"), [1]);
        assert_eq!(lines("    /// **Whether** it is.\n"), [1]);
        assert_eq!(lines("//! Where it is.\n\n/// What it is.\n"), [1, 3]);
        assert_eq!(lines("//! A file.\n/// What it is.\n"), [2]);
    }

    #[test]
    fn other_lines_and_comments_do_not() {
        assert!(lines("/// A thing.\n/// What it is.\n").is_empty());
        assert!(lines("// What it is.\n//// What it is.\n").is_empty());
        assert!(lines("/// Whatever it is, and whether.\n").is_empty());
        assert!(lines("///\n").is_empty());
    }
}
