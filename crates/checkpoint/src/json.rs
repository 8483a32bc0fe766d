//! JSON as Python writes it.
//!
//! Python's `json` writes `NaN`, `Infinity` and `-Infinity`, which are no JSON, and reads them back. Here they become strings of
//! that spelling: a field that nobody reads does no harm, and a field that is read shows its value in the error.

use serde_json::Value;

/// Numbers that are not finite, as Python spells them.
pub(crate) const WORDS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Parses a text. An error is that of the text with its words put in quotes, if it has any.
pub(crate) fn parse(text: &str) -> serde_json::Result<Value> {
    match serde_json::from_str(text) {
        Err(_) if WORDS.iter().any(|word| text.contains(word)) => {
            serde_json::from_str(&with_quoted_words(text))
        }
        parsed => parsed,
    }
}

/// The text with every word that stands outside of strings in quotes.
fn with_quoted_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let (mut in_string, mut escaped) = (false, false);
    while let Some(next) = rest.chars().next() {
        let word = WORDS.into_iter().find(|word| rest.starts_with(word));
        if let Some(word) = word.filter(|_| !in_string) {
            out.extend(["\"", word, "\""]);
            rest = &rest[word.len()..];
            continue;
        }
        match next {
            '"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && next == '\\' && !escaped;
        out.push(next);
        rest = &rest[next.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_become_strings_and_strings_stay() {
        let text = r#"{"a": [NaN, -Infinity ,Infinity], "NaN \" NaN": "\\", "b": Infinity, "c": "Infinity"}"#;
        let expected = json!({
            "a": ["NaN", "-Infinity", "Infinity"], "NaN \" NaN": "\\", "b": "Infinity", "c": "Infinity",
        });
        assert_eq!(parse(text).expect("Python reads it"), expected);
    }

    #[test]
    fn other_faults_stay_faults() {
        for text in ["", "{NaN", "NaNs", "-NaN", "1Infinity", r#"{"a": nan}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse(r#"{"a": 1.5}"#).expect("JSON"), json!({ "a": 1.5 }));
    }
}
