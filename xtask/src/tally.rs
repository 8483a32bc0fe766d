//! Reads the output of `cargo test` as it goes by and counts, test binary by test binary.

/// Results of one test binary (or one crate's doc tests).
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Row {
    /// As cargo names it, with the crate in front for unit tests.
    pub(crate) name: String,
    /// Tests passed.
    pub(crate) passed: u64,
    /// Tests failed.
    pub(crate) failed: u64,
    /// Tests marked ignored.
    pub(crate) ignored: u64,
    /// Seconds it took, by libtest.
    pub(crate) seconds: f64,
    /// False while no result line was seen: the binary died.
    pub(crate) finished: bool,
}

/// All rows seen so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// In order of running.
    pub(crate) rows: Vec<Row>,
}

impl Tally {
    /// Takes one line of output, colours and all.
    pub(crate) fn line(&mut self, line: &str) {
        let line = plain(line);
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("Running ") {
            if let Some(name) = running(rest) {
                self.begin(name);
            }
        } else if let Some(name) = line.strip_prefix("Doc-tests ") {
            self.begin(format!("{name} (doc tests)"));
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            // Tests of test tools print result lines of their own: only the first one counts.
            if let (Some(row), Some(parsed)) = (self.rows.last_mut(), result(rest))
                && !row.finished
            {
                let name = std::mem::take(&mut row.name);
                *row = Row { name, ..parsed };
            }
        }
    }

    fn begin(&mut self, name: String) {
        self.rows.push(Row {
            name,
            ..Row::default()
        });
    }

    /// Sums of passed, failed and ignored.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        self.rows.iter().fold((0, 0, 0), |(p, f, i), row| {
            (p + row.passed, f + row.failed, i + row.ignored)
        })
    }

    /// A table with one row per binary that has tests, slowest first.
    pub(crate) fn table(&self) -> String {
        let mut rows: Vec<&Row> = self
            .rows
            .iter()
            .filter(|row| !row.finished || row.passed + row.failed + row.ignored > 0)
            .collect();
        rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let mut text = format!(
            "{:>7} {:>7} {:>8} {:>8}  test binary\n",
            "passed", "failed", "ignored", "seconds"
        );
        for row in rows {
            let note = if row.finished {
                ""
            } else {
                "  (ended without a result)"
            };
            text += &format!(
                "{:>7} {:>7} {:>8} {:>8.2}  {}{note}\n",
                row.passed, row.failed, row.ignored, row.seconds, row.name
            );
        }
        text
    }
}

/// `unittests src/lib.rs (target/debug/deps/name-0123456789abcdef)` to `name unittests src/lib.rs`.
fn running(rest: &str) -> Option<String> {
    let (what, path) = rest.rsplit_once(" (")?;
    let file = path.strip_suffix(')')?.rsplit(['/', '\\']).next()?;
    let stem = file.rsplit_once('-').map_or(file, |(name, _hash)| name);
    Some(match what.strip_prefix("unittests ") {
        Some(source) => format!("{stem} {source} (unit tests)"),
        None => what.to_owned(),
    })
}

/// `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.50s`
fn result(rest: &str) -> Option<Row> {
    let (_, counts) = rest.split_once(". ")?;
    let mut row = Row {
        finished: true,
        ..Row::default()
    };
    for part in counts.split("; ") {
        if let Some(time) = part.strip_prefix("finished in ") {
            row.seconds = time.strip_suffix('s')?.parse().ok()?;
            continue;
        }
        let (number, what) = part.split_once(' ')?;
        let number = number.parse().ok()?;
        match what {
            "passed" => row.passed = number,
            "failed" => row.failed = number,
            "ignored" => row.ignored = number,
            _ => {}
        }
    }
    Some(row)
}

/// The line without colour codes (`ESC [ ... m`).
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find("\u{1b}[") {
        text += &rest[..start];
        let code = &rest[start + 2..];
        rest = code
            .find(char::is_alphabetic)
            .map_or("", |end| &code[end + 1..]);
    }
    text + rest
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
