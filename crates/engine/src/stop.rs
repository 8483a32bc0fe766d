//! Stop strings, found across token boundaries.
//!
//! Text is held back only while it might still become a stop string, so the stop string itself is
//! never shown and nothing is delayed without need. The match that ends first wins (the longest of
//! those), so the result does not depend on how the text was cut into tokens.

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
    held: String,
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
            held: String::new(),
        })
    }

    /// Takes the next piece and releases the text that may be shown.
    pub fn push(&mut self, piece: &str) -> Released {
        let from = self.held.len();
        self.held.push_str(piece);
        if let Some((start, stop)) = self.first_match(from) {
            let stopped = Some(stop.to_string());
            self.held.truncate(start);
            return Released {
                text: std::mem::take(&mut self.held),
                stopped,
            };
        }
        let keep = self.possible_start();
        let waiting = self.held.split_off(keep);
        Released {
            text: std::mem::replace(&mut self.held, waiting),
            stopped: None,
        }
    }

    /// The text still held back, when no more will come.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The match that ends first, after byte `from`; the longest of those.
    fn first_match(&self, from: usize) -> Option<(usize, &str)> {
        (from + 1..=self.held.len())
            .filter(|end| self.held.is_char_boundary(*end))
            .find_map(|end| {
                let seen = &self.held[..end];
                self.stops
                    .iter()
                    .filter(|stop| seen.ends_with(stop.as_str()))
                    .max_by_key(|stop| stop.len())
                    .map(|stop| (end - stop.len(), stop.as_str()))
            })
    }

    /// First byte from which the held text is the beginning of a stop string.
    fn possible_start(&self) -> usize {
        self.held
            .char_indices()
            .map(|(at, _)| at)
            .find(|at| {
                let tail = &self.held[*at..];
                self.stops.iter().any(|stop| stop.starts_with(tail))
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
