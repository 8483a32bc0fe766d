//! Scores of answers: RULER's string match, whatever the case.
//!
//! More words around the expected ones cost nothing, so generation may end as soon as everything
//! expected was written.

/// How much of what is expected an answer must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The share that is there (`string_match_all`).
    All,
    /// One is enough (`string_match_part`).
    Any,
}

/// The score of an answer, 0 to 1.
pub fn score(answer: &str, expected: &[String], rule: Match) -> f64 {
    if expected.is_empty() {
        return 0.0;
    }
    let answer = answer.to_lowercase();
    let found = expected
        .iter()
        .filter(|text| answer.contains(&text.to_lowercase()))
        .count();
    match rule {
        Match::All => found as f64 / expected.len() as f64,
        Match::Any => f64::from(u8::from(found > 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_counts_the_share_whatever_the_case() {
        let expected = strings(&["Alpha", "beta", "7654321", "1234567"]);
        assert_eq!(score("ALPHA, then 1234567.", &expected, Match::All), 0.5);
        assert_eq!(score("", &expected, Match::All), 0.0);
        assert_eq!(
            score("7654321 1234567 beta alpha", &expected, Match::All),
            1.0
        );
    }

    #[test]
    fn a_part_of_a_value_is_not_the_value() {
        assert_eq!(score("765432 1", &strings(&["7654321"]), Match::All), 0.0);
    }

    #[test]
    fn any_is_satisfied_by_one() {
        let expected = strings(&["Paris", "the capital"]);
        assert_eq!(score("It is paris.", &expected, Match::Any), 1.0);
        assert_eq!(score("Lyon", &expected, Match::Any), 0.0);
    }

    #[test]
    fn nothing_expected_is_nothing_found() {
        assert_eq!(score("anything", &[], Match::All), 0.0);
        assert_eq!(score("anything", &[], Match::Any), 0.0);
    }
}
