//! Stop strings, found across token boundaries.
//!
//! Text is held back only while it might still become a stop string, so the stop string itself is
//! never shown and nothing is delayed without need. The match that ends first wins (the longest of
//! those), so the result does not depend on how the text was cut into tokens.
//!
//! Special tokens are no part of the text, but a stop string may name them: it is looked for in the text
//! with them and in the text without.

use thiserror::Error;

/// Error of a stop string.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("stop: stop string {index} is empty, it would stop before the first token; leave it out")]
pub struct StopError {
    /// Position in the list given.
    pub index: usize,
}

/// Text that may be shown after a piece was pushed, and the stop string that ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Text that can be shown now.
    pub text: String,
    /// The stop string that was completed, if any; nothing more must be pushed then.
    pub stopped: Option<String>,
}

/// Watches a stream of text for stop strings.
#[derive(Debug, Clone)]
pub struct StopScanner {
    stops: Vec<String>,
    held: Vec<Held>,
}

/// A character that may be part of a stop string.
#[derive(Debug, Clone, Copy)]
struct Held {
    char: char,
    /// Belongs to a special token, which is not shown.
    special: bool,
}

impl StopScanner {
    /// A scanner for the given strings; an empty list lets everything through.
    ///
    /// # Errors
    /// [`StopError`] for an empty string.
    pub fn new(stops: &[String]) -> Result<Self, StopError> {
        if let Some(index) = stops.iter().position(String::is_empty) {
            return Err(StopError { index });
        }
        Ok(Self {
            stops: stops.to_vec(),
            held: Vec::new(),
        })
    }

    /// Takes the next piece and releases the text that may be shown.
    pub fn push(&mut self, piece: &str) -> Released {
        self.take(piece, false)
    }

    /// Takes the spelling of a special token, which is never shown.
    pub fn push_special(&mut self, token: &str) -> Released {
        self.take(token, true)
    }

    /// As `push` would end with a text that is not certain yet: the release if it holds a stop string.
    /// Nothing is taken otherwise.
    pub fn ended_by(&mut self, pending: &str, special: &str) -> Option<Released> {
        if self.stops.is_empty() || (pending.is_empty() && special.is_empty()) {
            return None;
        }
        let mut ahead = self.clone();
        let mut released = ahead.push(pending);
        if released.stopped.is_none() {
            let after = ahead.push_special(special);
            released.text.push_str(&after.text);
            released.stopped = after.stopped;
        }
        released.stopped.is_some().then(|| {
            self.held.clear();
            released
        })
    }

    /// The text still held back, when no more will come.
    pub fn finish(&mut self) -> String {
        self.release(self.held.len())
    }

    fn take(&mut self, piece: &str, special: bool) -> Released {
        let from = self.held.len();
        self.held
            .extend(piece.chars().map(|char| Held { char, special }));
        if let Some((start, stop)) = self.first_match(from) {
            let stopped = Some(stop.to_string());
            let text = self.release(start);
            self.held.clear();
            return Released { text, stopped };
        }
        let keep = self.possible_start();
        Released {
            text: self.release(keep),
            stopped: None,
        }
    }

    /// Takes out the first `count` characters; the text among them.
    fn release(&mut self, count: usize) -> String {
        let gone = self.held.drain(..count);
        gone.filter(|held| !held.special)
            .map(|held| held.char)
            .collect()
    }

    /// The match that ends first, after character `from`; the longest of those.
    fn first_match(&self, from: usize) -> Option<(usize, &str)> {
        (from + 1..=self.held.len()).find_map(|end| {
            self.stops
                .iter()
                .filter_map(|stop| {
                    let starts = [true, false].map(|special| self.start_of(stop, end, special));
                    Some((starts.into_iter().flatten().min()?, stop.as_str()))
                })
                .max_by_key(|(_, stop)| stop.len())
        })
    }

    /// Start of a stop string that ends at `end`, in the text with special tokens or without.
    fn start_of(&self, stop: &str, end: usize, special: bool) -> Option<usize> {
        let mut start = end;
        let mut before = (0..end)
            .rev()
            .filter(|at| special || !self.held[*at].special);
        for char in stop.chars().rev() {
            start = before.next()?;
            if self.held[start].char != char {
                return None;
            }
        }
        Some(start)
    }

    /// First character from which the held text is the beginning of a stop string.
    fn possible_start(&self) -> usize {
        (0..self.held.len())
            .find(|at| {
                let begins = |stop: &str, special: bool| {
                    let tail = self.held[*at..].iter();
                    let mut stop = stop.chars();
                    tail.filter(|held| special || !held.special)
                        .all(|held| stop.next() == Some(held.char))
                };
                let shown = !self.held[*at].special;
                let mut stops = self.stops.iter();
                stops.any(|stop| begins(stop, true) || (shown && begins(stop, false)))
            })
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scanner(stops: &[&str]) -> StopScanner {
        let stops: Vec<_> = stops.iter().map(ToString::to_string).collect();
        StopScanner::new(&stops).expect("stops")
    }

    /// All pieces through the scanner: text shown, stop string found.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut scanner = scanner(stops);
        let mut shown = String::new();
        for piece in pieces {
            let released = scanner.push(piece);
            shown.push_str(&released.text);
            if released.stopped.is_some() {
                return (shown, released.stopped);
            }
        }
        shown.push_str(&scanner.finish());
        (shown, None)
    }

    #[test]
    fn a_match_across_pieces_is_never_shown() {
        let (shown, stop) = run(&["</end>"], &["abc<", "/e", "nd", "> more"]);
        assert_eq!((shown.as_str(), stop.as_deref()), ("abc", Some("</end>")));
    }

    #[test]
    fn a_false_start_is_released_as_soon_as_it_fails() {
        let mut scanner = scanner(&["STOP"]);
        assert_eq!(scanner.push("xST").text, "x");
        assert_eq!(scanner.push("S").text, "ST");
        assert_eq!(scanner.push("!").text, "S!");
        assert_eq!(scanner.finish(), "");
    }

    #[test]
    fn held_text_is_released_at_the_end() {
        assert_eq!(run(&["abc"], &["xxab"]), ("xxab".to_string(), None));
    }

    #[test]
    fn no_stops_hold_nothing_back() {
        assert_eq!(scanner(&[]).push("é\n").text, "é\n");
    }

    #[test]
    fn special_tokens_are_found_and_never_shown() {
        let mut only = scanner(&["<end>"]);
        assert_eq!(only.push("ab").text, "ab");
        let released = only.push_special("<end>");
        assert_eq!(
            (released.text.as_str(), released.stopped.as_deref()),
            ("", Some("<end>"))
        );

        let mut among = scanner(&["b<end>\n"]);
        assert_eq!(among.push("ab").text, "a");
        assert_eq!(among.push_special("<end>").text, "");
        let released = among.push("\nc");
        assert_eq!(
            (released.text.as_str(), released.stopped.as_deref()),
            ("", Some("b<end>\n"))
        );

        let mut apart = scanner(&["abc"]);
        assert_eq!(apart.push("xa").text, "x");
        assert_eq!(apart.push_special("<end>").stopped, None);
        let released = apart.push("bcd");
        assert_eq!(
            (released.text.as_str(), released.stopped.as_deref()),
            ("", Some("abc"))
        );

        let mut other = scanner(&["<end>!"]);
        assert_eq!(other.push_special("<end>").text, "");
        assert_eq!(other.push("yes").text, "yes");
        assert_eq!(other.finish(), "");
    }

    #[test]
    fn a_text_that_is_not_certain_may_end_it() {
        let mut scanner = scanner(&["\n\n", "\n<end>"]);
        assert_eq!(scanner.push("a").text, "a");
        assert_eq!(scanner.ended_by("\n", ""), None);
        let released = scanner.clone().ended_by("b\n\n", "").expect("ends");
        assert_eq!(released.text, "b");
        let released = scanner.ended_by("\n", "<end>").expect("ends");
        assert_eq!(released.stopped.as_deref(), Some("\n<end>"));
        assert_eq!(scanner.finish(), "");
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        let error = StopScanner::new(&["a".into(), String::new()]).expect_err("empty");
        assert_eq!(error.index, 1);
    }

    /// The definition: grow the text a character at a time until it ends with a stop string.
    fn naive(stops: &[&str], text: &str) -> (String, Option<String>) {
        for (at, c) in text.char_indices() {
            let seen = &text[..at + c.len_utf8()];
            let ended = stops.iter().filter(|s| seen.ends_with(**s));
            if let Some(stop) = ended.max_by_key(|s| s.len()) {
                return (
                    seen[..seen.len() - stop.len()].to_string(),
                    Some(stop.to_string()),
                );
            }
        }
        (text.to_string(), None)
    }

    proptest! {
        #[test]
        fn the_cut_into_pieces_does_not_matter(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let parts: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&stops, &parts), naive(&stops, &pieces.concat()));
        }
    }
}
