//! Haystacks: what needles are hidden in.
//!
//! Prose comes from the user's text and takes needles between sentences; its end is cut at a word, so
//! that a prompt is a few tokens short at most. Noise and needles are RULER's: one sentence group or
//! one other needle a line.

use crate::corpus::Corpus;

/// RULER's noise.
pub(super) const NOISE: &str =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

/// Prose from `start` on, `count` words of it, with `needles` (depth, sentence) in order of depth.
pub(super) fn prose(
    corpus: &Corpus,
    start: usize,
    count: usize,
    needles: &[(f64, &str)],
) -> String {
    let end = start + count;
    let border = |depth: f64| {
        let target = start + (depth * count as f64).round() as usize;
        let sentence = corpus.sentences.partition_point(|at| *at <= target);
        corpus.sentences[..sentence]
            .last()
            .map_or(start, |at| (*at).clamp(start, end))
    };
    let (mut parts, mut from) = (Vec::with_capacity(count + needles.len()), start);
    for (depth, needle) in needles {
        let to = border(*depth).max(from);
        parts.extend(corpus.words[from..to].iter().map(String::as_str));
        parts.push(needle);
        from = to;
    }
    parts.extend(corpus.words[from..end].iter().map(String::as_str));
    parts.join(" ")
}

/// Lines with `needles` (depth, line) in order of depth between them.
pub(super) fn lines(fill: &[String], needles: &[(f64, &str)]) -> String {
    let (mut parts, mut from) = (Vec::with_capacity(fill.len() + needles.len()), 0);
    for (depth, needle) in needles {
        let to = ((depth * fill.len() as f64).round() as usize).clamp(from, fill.len());
        parts.extend(fill[from..to].iter().map(String::as_str));
        parts.push(needle);
        from = to;
    }
    parts.extend(fill[from..].iter().map(String::as_str));
    parts.join("\n")
}
