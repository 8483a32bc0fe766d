//! The tally on recorded output of `cargo test`.

use super::*;

const OUTPUT: &str = "\
\u{1b}[1m\u{1b}[92m     Running\u{1b}[0m unittests src/lib.rs (target/debug/deps/alpha_beta-0123456789abcdef)
running 2 tests
test a ... ok
test b ... FAILED
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.25s
     Running tests/decode.rs (target/debug/deps/decode-fedcba9876543210)
test result: ok. 4 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 12.50s
     Running tests/crash.rs (target/debug/deps/crash-00)
     Running tests/nothing.rs (target/debug/deps/nothing-00)
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
   Doc-tests alpha_beta
test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
";

fn tally() -> Tally {
    let mut tally = Tally::default();
    OUTPUT.lines().for_each(|line| tally.line(line));
    tally
}

#[test]
fn rows_are_named_and_counted() {
    let tally = tally();
    let names: Vec<&str> = tally.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "alpha_beta src/lib.rs (unit tests)",
            "tests/decode.rs",
            "tests/crash.rs",
            "tests/nothing.rs",
            "alpha_beta (doc tests)"
        ]
    );
    assert_eq!(tally.totals(), (12, 1, 3));
    assert_eq!(tally.rows[1].seconds, 12.5);
}

#[test]
fn a_binary_that_died_is_shown_and_an_empty_one_is_not() {
    let table = tally().table();
    assert!(
        table.contains("tests/crash.rs  (ended without a result)"),
        "{table}"
    );
    assert!(!table.contains("nothing.rs"), "{table}");
    let first = table.lines().nth(1).unwrap();
    assert!(first.ends_with("tests/decode.rs"), "slowest first: {table}");
}

#[test]
fn a_result_line_printed_by_a_test_is_not_counted_twice() {
    let mut tally = Tally::default();
    tally.line("     Running tests/x.rs (target/debug/deps/x-00)");
    tally.line("test result: ok. 1 passed; 0 failed; 0 ignored; finished in 0.10s");
    tally.line("test result: ok. 9 passed; 0 failed; 0 ignored; finished in 0.10s");
    assert_eq!(tally.totals(), (1, 0, 0));
}

#[test]
fn other_lines_are_ignored() {
    let mut tally = Tally::default();
    tally.line("Running late today");
    tally.line("test result: nonsense");
    assert_eq!(tally.rows, []);
}
