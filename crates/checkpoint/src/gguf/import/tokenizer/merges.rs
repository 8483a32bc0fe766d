//! The order of pairs that gives what SentencePiece's scores give.
//!
//! SentencePiece makes the piece of the highest score of which two neighbours are the parts, the leftmost of equals first. Each way to cut
//! a piece in two becomes a pair here, pieces of the highest score first; where equal pairs are found the leftmost is taken too.
//!
//! Different pieces of one score are another matter, for which goes first depends on where they stand. Where all of them are runs of one
//! character (Mistral's runs of spaces have one score) `runs` knows the order nevertheless; others are refused.

use std::collections::HashMap;

use super::runs;
use super::vocabulary::{TokenType, Vocabulary, fault};
use crate::GgufError;

/// Longest piece accepted, in bytes: those of Llama 2 and Mistral reach 48.
const MAX_PIECE: usize = 256;

/// A piece that two others make.
struct Made<'a> {
    id: usize,
    text: &'a str,
    score: f64,
    cuts: Vec<[&'a str; 2]>,
}

/// The pairs in order.
pub(super) fn merges<'a>(
    vocabulary: &Vocabulary<'a>,
    scores: &[f64],
) -> Result<Vec<[&'a str; 2]>, GgufError> {
    let mut made = made(vocabulary, scores)?;
    made.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut pairs = Vec::new();
    for equals in made.chunk_by(|a, b| a.score == b.score) {
        match equals {
            [single] => pairs.extend(&single.cuts),
            [first, second, ..] => {
                let texts: Vec<&str> = equals.iter().map(|made| made.text).collect();
                let cuts = equals.iter().flat_map(|made| &made.cuts);
                let ordered = runs::ordered(&texts, cuts.copied().collect());
                pairs.extend(ordered.ok_or_else(|| {
                    fault(format!(
                        "tokens {} ({:?}) and {} ({:?}) have the same score {}, so which is made first depends on the text, which \
                         tokenizer.json cannot say: use the Hugging Face directory of the model",
                        first.id, first.text, second.id, second.text, first.score
                    ))
                })?);
            }
            [] => {}
        }
    }
    Ok(pairs)
}

fn made<'a>(vocabulary: &Vocabulary<'a>, scores: &[f64]) -> Result<Vec<Made<'a>>, GgufError> {
    let mut known = HashMap::new();
    for (id, text, kind) in vocabulary.iter() {
        if kind == TokenType::Normal {
            if text.len() > MAX_PIECE {
                return Err(GgufError::Limit {
                    what: "the length of a token in bytes",
                    got: text.len() as u64,
                    limit: MAX_PIECE as u64,
                });
            }
            known.insert(text, id);
        }
    }
    let mut made = Vec::new();
    for ((id, text, kind), &score) in vocabulary.iter().zip(scores) {
        if !matches!(kind, TokenType::Normal | TokenType::Unused) || text.len() > MAX_PIECE {
            continue;
        }
        let cuts = cuts(text, |part| known.contains_key(part));
        match (cuts.is_empty(), kind) {
            (true, _) => {}
            (false, TokenType::Unused) => {
                let reason = format!("token {id} ({text:?}) is unused, yet two others make it");
                return Err(fault(reason));
            }
            (false, _) => made.push(Made {
                id,
                text,
                score,
                cuts,
            }),
        }
    }
    Ok(made)
}

/// The cuts of a piece whose parts are both pieces. Where neighbours overlap in such a way that either pair could become this piece, as
/// (`ab`, `a`) and (`a`, `ba`) in `ab` `a` `ba`, the cut of the left pair goes first; otherwise that with the longer left part.
fn cuts(piece: &str, known: impl Fn(&str) -> bool) -> Vec<[&str; 2]> {
    let inner = piece.char_indices().skip(1).map(|(at, _)| at);
    let mut cuts: Vec<usize> = inner
        .filter(|&at| known(&piece[..at]) && known(&piece[at..]))
        .collect();
    // Behind such a cut, the right part may also begin this piece once more.
    let overlaps = |at: usize| piece.get(at..).is_some_and(|part| piece.starts_with(part));
    cuts.reverse();
    cuts.sort_by_key(|&at| match (overlaps(at), overlaps(piece.len() - at)) {
        (true, false) => 0,
        (false, true) => 2,
        (true, true) | (false, false) => 1,
    });
    let parts = |at: usize| [&piece[..at], &piece[at..]];
    cuts.into_iter().map(parts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_left_of_two_overlapping_pairs_goes_first() {
        let all = |_: &str| true;
        assert_eq!(cuts("aba", all), [["ab", "a"], ["a", "ba"]]);
        // `ab` `aba` `ba` could be `ababa` in two places; the left one is cut after two.
        let order = cuts("ababa", all);
        let at = |left: &str| order.iter().position(|cut| cut[0] == left);
        assert!(at("ab") < at("aba"), "{order:?}");
        assert!(at("abab") < at("a"), "{order:?}");
        assert_eq!(cuts("äbä", all)[0], ["äb", "ä"]);
        assert_eq!(cuts("ab", |part| part != "b"), [["", ""]; 0]);
    }
}
