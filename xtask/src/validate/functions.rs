//! Function lengths: a function that cannot be read on a few screens has sections that want names.
//!
//! Counted as rustfmt leaves them, which another check holds: a function ends with the first
//! closing brace in the column of its first word.

use anyhow::{Result, bail};

use crate::layout::Layout;

/// Longest a function may be, in lines from `fn` to its closing brace.
const LIMIT: usize = 200;
const SHOWN: usize = 5;

/// Prints the longest functions and fails above the limit.
pub(crate) fn check(layout: &Layout) -> Result<()> {
    let mut all = Vec::new();
    for (file, text) in super::sources(layout)? {
        all.extend(functions(&text).map(|(name, lines)| (lines, file.clone(), name.to_owned())));
    }
    all.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    println!("   {} functions; the longest:", all.len());
    for (lines, file, name) in all.iter().take(SHOWN) {
        println!("   {lines:>5}  {file}: {name}");
    }
    let too_long: Vec<String> = all
        .iter()
        .filter(|(lines, ..)| *lines > LIMIT)
        .map(|(lines, file, name)| format!("{file}: {name} ({lines})"))
        .collect();
    if !too_long.is_empty() {
        bail!("over {LIMIT} lines, to be cut: {}", too_long.join(", "));
    }
    Ok(())
}

/// Name and length of every function with a body of its own lines.
fn functions(text: &str) -> impl Iterator<Item = (&str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let count = lines.len();
    (0..count).filter_map(move |start| {
        let name = name(lines[start])?;
        let column = lines[start].len() - lines[start].trim_start().len();
        let end = (start..count).find(|at| {
            let line = lines[*at];
            // A declaration, or a body on one line.
            let short = *at == start && (line.ends_with(';') || line.ends_with('}'));
            short || ends(line, column)
        })?;
        Some((name, end - start + 1))
    })
}

/// True if a function whose first word stands in this column ends with this line.
fn ends(line: &str, column: usize) -> bool {
    let Some((before, rest)) = line.split_at_checked(column) else {
        return false;
    };
    let declaration = rest.starts_with(')') && rest.ends_with(';');
    before.trim().is_empty() && (rest == "}" || declaration)
}

/// The name a line gives to a function, if it begins one.
fn name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    loop {
        if let Some(name) = rest.strip_prefix("fn ") {
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
            return Some(&name[..end]);
        }
        let (word, after) = rest.split_once(' ')?;
        let modifier = matches!(
            word,
            "pub" | "const" | "unsafe" | "async" | "extern" | "\"C\""
        ) || word.starts_with("pub(");
        if !modifier {
            return None;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&str, usize)> {
        functions(text).collect()
    }

    #[test]
    fn a_function_ends_in_its_own_column() {
        let text = "\
pub(crate) fn long<T>(
    a: T,
) {
    if true {
    }
}

impl A {
    const fn short() {
    }
}
";
        assert_eq!(found(text), [("long", 6), ("short", 2)]);
    }

    #[test]
    fn declarations_and_one_line_bodies_are_short() {
        let text = "trait A {\n    fn a(&self);\n    fn b(&self) -> u8 { 1 }\n}\nfn c() {\n}\n";
        assert_eq!(found(text), [("a", 1), ("b", 1), ("c", 2)]);
        let text = "trait A {\n    fn a(\n        b: u8,\n    ) -> u8;\n}\n\nfn c() {\n}\n";
        assert_eq!(found(text), [("a", 3), ("c", 2)]);
    }

    #[test]
    fn words_in_text_are_no_functions() {
        assert!(found("// fn a() {\nlet fn_b = 1;\ntype F = fn (u8);\n").is_empty());
    }
}
