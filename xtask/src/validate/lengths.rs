//! File lengths: a file that cannot be read in one sitting is split.

use anyhow::{Result, bail};

use crate::layout::Layout;

/// Longest a `.rs` file may be, in lines.
const LIMIT: usize = 600;
const SHOWN: usize = 10;

/// Prints the ten longest files and fails above the limit.
pub(crate) fn check(layout: &Layout) -> Result<()> {
    let files = super::sources(layout)?
        .into_iter()
        .map(|(name, text)| (name, text.lines().count()))
        .collect();
    let report = report(files);
    print!("{}", report.text);
    if !report.too_long.is_empty() {
        bail!(
            "over {LIMIT} lines, to be split: {}",
            report.too_long.join(", ")
        );
    }
    Ok(())
}

struct Report {
    text: String,
    too_long: Vec<String>,
}

fn report(mut files: Vec<(String, usize)>) -> Report {
    files.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let median = files.get(files.len() / 2).map_or(0, |file| file.1);
    let mut text = format!(
        "   {} files, median {median} lines; the longest:\n",
        files.len()
    );
    for (name, lines) in files.iter().take(SHOWN) {
        text += &format!("   {lines:>5}  {name}\n");
    }
    let too_long = files
        .into_iter()
        .filter(|(_, lines)| *lines > LIMIT)
        .map(|(name, lines)| format!("{name} ({lines})"))
        .collect();
    Report { text, too_long }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(lengths: &[usize]) -> Vec<(String, usize)> {
        lengths.iter().map(|n| (format!("f{n}.rs"), *n)).collect()
    }

    #[test]
    fn ten_are_shown_longest_first() {
        let report = report(files(&(1..=12).collect::<Vec<_>>()));
        let names: Vec<&str> = report.text.lines().skip(1).collect();
        assert_eq!(names.len(), SHOWN);
        assert!(names[0].ends_with("f12.rs") && names[9].ends_with("f3.rs"));
        assert!(report.text.contains("median 6"), "{}", report.text);
        assert!(report.too_long.is_empty());
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        let report = report(files(&[LIMIT, LIMIT + 1]));
        assert_eq!(report.too_long, ["f601.rs (601)"]);
    }

    #[test]
    fn no_files_is_no_failure() {
        assert!(report(Vec::new()).too_long.is_empty());
    }
}
