//! Perplexity: how likely the end of each window of a text is, and how far its distributions are from dense's.
//!
//! The attention rules every row of a window, the scored ones too. Dense last rows, which a pattern has
//! for the question at the end of a prompt, are switched off unless asked for: otherwise some of the
//! scored rows would be dense and the number would flatter the pattern.

use std::collections::HashSet;

use sparse_accelerate_checkpoint::Tokenizer;
use sparse_accelerate_report::record::{Line, PerplexityRow, RunFile};

use super::{
    OnProgress, Subject, Work, at_least_one, check_lengths, finite, warm_up, without_last,
};
use sparse_accelerate_engine::{Scored, attention::NamedAttention};

use crate::{corpus::Corpus, error::EvalError};

/// Tokens scored unless told otherwise: a quarter of the window, at most this many.
const SCORED: usize = 512;

/// Name of the attention that the others are compared with.
const DENSE: &str = "dense";

/// Windows and attentions of a perplexity run.
#[derive(Debug, Clone)]
pub struct PerplexityPlan {
    /// Attentions of whole windows.
    pub attentions: Vec<NamedAttention>,
    /// Tokens of a window.
    pub lengths: Vec<usize>,
    /// Tokens scored at its end; `None` for a quarter of it, 512 at most.
    pub scored: Option<usize>,
    /// `true` keeps a pattern's dense last rows.
    pub keep_last: bool,
    /// Windows of each length, evenly over the text.
    pub samples: usize,
}

impl PerplexityPlan {
    /// Refuses what cannot be scored, before any weights are read.
    ///
    /// # Errors
    /// Numbers out of range, a length over the model's positions, a text that is too short.
    pub fn check(&self, corpus: &Corpus, limit: usize) -> Result<(), EvalError> {
        at_least_one("samples", self.samples)?;
        for &length in &self.lengths {
            if length > limit {
                return Err(EvalError::OverLimit { length, limit });
            }
            let scored = self.scored_of(length);
            if scored == 0 || scored >= length {
                return Err(EvalError::Range {
                    field: "scored",
                    got: scored.to_string(),
                    limit: format!("of a window of {length} tokens, 1 to {}", length.max(2) - 1),
                });
            }
            corpus.require(length, length)?;
        }
        Ok(())
    }

    /// Tokens scored of a window.
    pub fn scored_of(&self, length: usize) -> usize {
        self.scored.unwrap_or((length / 4).clamp(1, SCORED))
    }

    /// Attentions as they are applied.
    fn applied(&self) -> Vec<NamedAttention> {
        let mut attentions = self.attentions.clone();
        if !self.keep_last {
            for attention in &mut attentions {
                attention.settings = without_last(&attention.settings);
            }
        }
        attentions
    }
}

/// First token of window `sample` of `samples`: evenly spread, neither at the very beginning nor at the
/// very end where there is room.
pub(crate) fn window_start(tokens: usize, window: usize, sample: usize, samples: usize) -> usize {
    let room = tokens.saturating_sub(window);
    (room * (2 * sample + 1)) / (2 * samples)
}

/// Scores what the file lacks; `finished` are its rows.
///
/// # Errors
/// Whatever ends the run; rows before are in the file.
pub fn run_perplexity(
    subject: &Subject<'_>,
    plan: &PerplexityPlan,
    corpus: &Corpus,
    file: &mut RunFile,
    finished: &[Line],
    report: OnProgress<'_>,
) -> Result<(), EvalError> {
    check_lengths(&plan.lengths, subject.dir.config())?;
    let done: HashSet<_> = finished
        .iter()
        .filter_map(|line| match line {
            Line::Perplexity(row) => Some((row.attention.as_str(), row.length, row.sample)),
            _ => None,
        })
        .collect();
    let attentions = plan.applied();
    let mut todo = Vec::new();
    for &length in &plan.lengths {
        for sample in 0..plan.samples {
            let missing = attentions.iter();
            let missing = missing.filter(|a| !done.contains(&(a.name.as_str(), length, sample)));
            let mut missing: Vec<_> = missing.cloned().collect();
            // Dense is what the others are compared with.
            missing.sort_by_key(|attention| attention.name != DENSE);
            if !missing.is_empty() {
                todo.push((length, sample, missing));
            }
        }
    }
    let Some(capacity) = todo.iter().map(|(length, ..)| *length).max() else {
        return Ok(());
    };
    let dense = attentions.iter().find(|attention| attention.name == DENSE);
    // A window whose dense row is in the file already is run dense again.
    let again = |missing: &[NamedAttention]| dense.filter(|_| missing[0].name != DENSE);
    let runs = |missing: &[NamedAttention]| missing.len() + usize::from(again(missing).is_some());
    let mut total: usize = todo.iter().map(|(length, _, m)| length * runs(m)).sum();
    let mut lengths: Vec<usize> = todo.iter().map(|(length, ..)| *length).collect();
    lengths.dedup();
    if subject.warm_up {
        total += lengths.iter().sum::<usize>() * attentions.len();
    }
    let of = plan.lengths.len() * plan.samples * attentions.len();
    let mut work = Work::new(done.len(), of, total as u64, report);
    let mut session = subject.sequence(capacity)?;
    let tokenizer = subject.dir.tokenizer();
    let begin = tokenizer.encode("", true)?;
    let mut warm = 0;
    for (length, sample, missing) in todo {
        session = subject.fit(session, length)?;
        let taken = length.saturating_sub(begin.len());
        let start = window_start(corpus.ids().len(), taken, sample, plan.samples);
        let mut ids = begin.clone();
        ids.extend(&corpus.ids()[start..start + taken]);
        let scored = plan.scored_of(length);
        let bytes = scored_bytes(tokenizer, &ids, scored)?;
        if subject.warm_up && warm != length {
            warm_up(&mut session, &ids, subject, &attentions, &mut work)?;
            warm = length;
        }
        let mut reference: Option<Scored> = None;
        for attention in again(&missing).into_iter().chain(&missing) {
            let what = format!("perplexity {length} {}", attention.name);
            let mut tell = |progress| work.within(&what, progress);
            let settings = &attention.settings;
            let result = session.score(&ids, scored, subject.chunk.into(), settings, &mut tell)?;
            if attention.name == DENSE && missing[0].name != DENSE {
                reference = Some(result);
                work.step(&what, length);
                continue;
            }
            let nll: f64 = result.nll.iter().map(|nll| f64::from(*nll)).sum();
            let beside = match &reference {
                Some(reference) => Some(session.diverge(reference, &result)?),
                None => None,
            };
            let of_scored = |sum: f64| sum / scored as f64;
            let kl = beside.as_ref().map(|found| {
                let sum = found.kl.iter().map(|kl| f64::from(*kl)).sum::<f64>();
                let what = || format!("the divergence of window {sample} ({})", attention.name);
                finite(what, of_scored(sum))
            });
            let top1 = beside
                .map(|found| of_scored(found.top1.iter().filter(|same| **same).count() as f64));
            let of_what = || format!("the log-likelihood of window {sample} ({})", attention.name);
            file.append(&Line::Perplexity(PerplexityRow {
                attention: attention.name.clone(),
                length,
                sample,
                start,
                scored,
                bytes,
                nll: finite(of_what, nll)?,
                kl: kl.transpose()?,
                top1,
                density: result.density,
                seconds: result.seconds,
            }))?;
            if attention.name == DENSE {
                reference = Some(result);
            }
            work.row(&what, length);
            if work.ended {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Bytes of UTF-8 that the last `scored` tokens complete; a character belongs to its last token.
fn scored_bytes(tokenizer: &Tokenizer, ids: &[u32], scored: usize) -> Result<usize, EvalError> {
    let (mut stream, mut out) = (tokenizer.stream(), 0);
    let (before, scored) = ids.split_at(ids.len() - scored);
    let mut complete = |ids: &[u32]| -> Result<usize, EvalError> {
        for id in ids {
            out += stream.push(*id)?.map_or(0, |piece| piece.len());
        }
        // Whole characters may be held back as well, which a bad byte after them would change.
        Ok(out + stream.pending().trim_end_matches('\u{fffd}').len())
    };
    let before = complete(before)?;
    Ok(complete(scored)?.saturating_sub(before))
}

#[cfg(test)]
mod tests {
    use super::window_start;

    #[test]
    fn windows_are_spread_over_the_text() {
        let starts: Vec<_> = (0..4).map(|i| window_start(1000, 200, i, 4)).collect();
        assert_eq!(starts, [100, 300, 500, 700]);
        assert_eq!(window_start(200, 200, 3, 4), 0);
    }
}
