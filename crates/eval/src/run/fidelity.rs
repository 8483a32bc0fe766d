//! Fidelity: what sparse attention changes on a prompt, with no answer to be known.
//!
//! The dense pass is the reference: its last hidden state and the distribution of the next token, and
//! inside it, per layer and head, the attention mass that a pattern keeps of it. Each attention then
//! runs by itself.

use std::collections::HashSet;

use sparse_accelerate::AttentionSettings;
use sparse_accelerate_engine::{Prefill, Sequence, attention::NamedAttention};
use sparse_accelerate_report::record::{FidelityRow, HeadRow, Line, RunFile};

use super::{
    OnProgress, Subject, Work, at_least_one, check_lengths, finite, perplexity::window_start,
    warm_up,
};
use crate::{corpus::Corpus, error::EvalError, recall::RecallObserver};

/// Source of the prompts.
#[derive(Debug, Clone, Copy)]
pub enum Prompts<'a> {
    /// One prompt, whole.
    One(&'a [u32]),
    /// Slices of a text, evenly spread, without a chat template.
    Slices {
        /// The text.
        corpus: &'a Corpus,
        /// Tokens of a slice.
        lengths: &'a [usize],
        /// Slices of each length.
        samples: usize,
    },
}

/// Attentions and rows of a fidelity run.
#[derive(Debug, Clone)]
pub struct FidelityPlan {
    /// Attentions compared with dense.
    pub attentions: Vec<NamedAttention>,
    /// Rows of each prompt whose attention is looked at.
    pub rows: usize,
}

/// One prompt.
struct Item {
    ids: Vec<u32>,
    sample: usize,
    missing: Vec<NamedAttention>,
}

impl Prompts<'_> {
    /// Refuses what cannot be compared, before any weights are read.
    ///
    /// # Errors
    /// Numbers out of range, a length over the model's positions, a text that is too short.
    pub fn check(&self, limit: usize) -> Result<(), EvalError> {
        match self {
            Self::One(ids) => within(ids.len(), limit),
            Self::Slices {
                corpus,
                lengths,
                samples,
            } => {
                at_least_one("samples", *samples)?;
                for &length in *lengths {
                    within(length, limit)?;
                    corpus.require(length, length)?;
                }
                Ok(())
            }
        }
    }

    fn all(&self, subject: &Subject<'_>) -> Result<Vec<(Vec<u32>, usize)>, EvalError> {
        let (corpus, lengths, samples) = match self {
            Self::One(ids) => return Ok(vec![(ids.to_vec(), 0)]),
            Self::Slices {
                corpus,
                lengths,
                samples,
            } => (corpus, lengths, *samples),
        };
        check_lengths(lengths, subject.dir.config())?;
        let begin = subject.dir.tokenizer().encode("", true)?;
        let mut all = Vec::new();
        for &length in *lengths {
            for sample in 0..samples {
                let taken = length.saturating_sub(begin.len());
                let start = window_start(corpus.ids().len(), taken, sample, samples);
                let mut ids = begin.clone();
                ids.extend(&corpus.ids()[start..start + taken]);
                all.push((ids, sample));
            }
        }
        Ok(all)
    }
}

fn within(length: usize, limit: usize) -> Result<(), EvalError> {
    if length <= limit {
        return Ok(());
    }
    Err(EvalError::OverLimit { length, limit })
}

/// Compares what the file lacks; `finished` are its rows. The rows of a prompt's heads stand before the
/// row of the prompt.
///
/// # Errors
/// Whatever ends the run; rows before are in the file.
pub fn run_fidelity(
    subject: &Subject<'_>,
    plan: &FidelityPlan,
    prompts: &Prompts<'_>,
    file: &mut RunFile,
    finished: &[Line],
    report: OnProgress<'_>,
) -> Result<(), EvalError> {
    at_least_one("rows", plan.rows)?;
    let done = Done::of(finished);
    let all = prompts.all(subject)?;
    let of = all.len() * plan.attentions.len();
    let items = all.into_iter().map(|(ids, sample)| {
        let missing = plan.attentions.iter();
        let missing = missing.filter(|a| !done.prompts.contains(&key(&a.name, ids.len(), sample)));
        Item {
            missing: missing.cloned().collect(),
            ids,
            sample,
        }
    });
    let todo: Vec<Item> = items.filter(|item| !item.missing.is_empty()).collect();
    let Some(capacity) = todo.iter().map(|item| item.ids.len()).max() else {
        return Ok(());
    };
    let mut total: usize = todo
        .iter()
        .map(|i| i.ids.len() * (i.missing.len() + 1))
        .sum();
    let mut lengths: Vec<usize> = todo.iter().map(|item| item.ids.len()).collect();
    lengths.dedup();
    if subject.warm_up {
        total += lengths.iter().sum::<usize>() * plan.attentions.len();
    }
    let mut work = Work::new(done.prompts.len(), of, total as u64, report);
    let mut session = subject.sequence(capacity)?;
    let mut warm = 0;
    for item in todo {
        let length = item.ids.len();
        session = subject.fit(session, length)?;
        if subject.warm_up && warm != length {
            let attentions = &plan.attentions;
            warm_up(&mut session, &item.ids, subject, attentions, &mut work)?;
            warm = length;
        }
        let (dense, observer) = reference(subject, &mut session, plan.rows, &item, &mut work)?;
        let dense_seconds = dense.seconds - observer.seconds;
        for (index, attention) in item.missing.iter().enumerate() {
            let what = format!("fidelity {length} {}", attention.name);
            let mut tell = |progress| work.within(&what, progress);
            let settings = &attention.settings;
            let sparse = session.prefill(&item.ids, subject.chunk.into(), settings, &mut tell)?;
            let mut lines = Vec::new();
            for (layer, heads) in observer.heads[index].iter().enumerate() {
                for (head, sums) in heads.iter().enumerate() {
                    let at = || format!("{} in layer {layer}, head {head}", attention.name);
                    let row = HeadRow {
                        attention: attention.name.clone(),
                        length,
                        sample: item.sample,
                        layer,
                        head,
                        recall: finite(at, sums.recall())?,
                        recall_min: finite(at, sums.recall_min())?,
                        error: finite(at, sums.error())?,
                        density: sums.chosen.map_or(sparse.density, |c| c.density()),
                        choice: sums.chosen.map(|c| c.choice.name().to_owned()),
                        predicted_recall: sums.chosen.and_then(|c| c.predicted_recall()),
                        lse_error: sums.chosen.map(|c| c.lse_error()),
                    };
                    if !done.heads.contains(&head_key(&row)) {
                        lines.push(Line::Head(row));
                    }
                }
            }
            let change = Change::between(&dense, &sparse);
            let at = || format!("the next token's distribution ({})", attention.name);
            lines.push(Line::Fidelity(FidelityRow {
                attention: attention.name.clone(),
                length,
                sample: item.sample,
                kl: finite(at, change.kl)?,
                top1: change.top1,
                hidden_error: finite(|| "the hidden state's error".into(), change.hidden)?,
                density: sparse.density,
                seconds: sparse.seconds,
                dense_seconds,
            }));
            file.append_all(&lines)?;
            work.row(&what, length);
            if work.ended {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The dense pass, looked at for every attention that is missing.
fn reference(
    subject: &Subject<'_>,
    session: &mut Sequence<'_>,
    rows: usize,
    item: &Item,
    work: &mut Work<'_>,
) -> Result<(Prefill, RecallObserver), EvalError> {
    let length = item.ids.len();
    let settings: Vec<AttentionSettings> =
        item.missing.iter().map(|a| a.settings.clone()).collect();
    let model = subject.model.whole()?;
    let (heads, visible) = (model.heads(), model.visible());
    let mut observer =
        RecallObserver::new(length, rows, &settings, heads, visible, model.device())?;
    let what = format!("fidelity {length} reference");
    let mut tell = |progress| work.within(&what, progress);
    let dense = session.prefill_observed(
        &item.ids,
        subject.chunk.into(),
        &AttentionSettings::dense(),
        Some(&mut observer),
        &mut tell,
    )?;
    work.step(&what, length);
    Ok((dense, observer))
}

/// Rows that a file holds already.
struct Done {
    prompts: HashSet<(String, usize, usize)>,
    heads: HashSet<(String, usize, usize, usize, usize)>,
}

impl Done {
    fn of(lines: &[Line]) -> Self {
        let (mut prompts, mut heads) = (HashSet::new(), HashSet::new());
        for line in lines {
            match line {
                Line::Fidelity(row) => {
                    prompts.insert(key(&row.attention, row.length, row.sample));
                }
                Line::Head(row) => {
                    heads.insert(head_key(row));
                }
                _ => {}
            }
        }
        Self { prompts, heads }
    }
}

fn key(attention: &str, length: usize, sample: usize) -> (String, usize, usize) {
    (attention.to_owned(), length, sample)
}

fn head_key(row: &HeadRow) -> (String, usize, usize, usize, usize) {
    let attention = row.attention.clone();
    (attention, row.length, row.sample, row.layer, row.head)
}

/// Differences between two prefills of one prompt.
struct Change {
    kl: f64,
    top1: bool,
    hidden: f64,
}

impl Change {
    fn between(dense: &Prefill, sparse: &Prefill) -> Self {
        let (p, q) = (log_softmax(&dense.logits), log_softmax(&sparse.logits));
        let kl = p
            .iter()
            .zip(&q)
            .map(|(p, q)| p.exp() * (p - q))
            .sum::<f64>();
        let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
        let (d, s) = (&dense.last_hidden, &sparse.last_hidden);
        let mut apart = d.iter().zip(s).map(|(d, s)| f64::from(*s) - f64::from(*d));
        let difference = squares(&mut apart);
        let whole = squares(&mut d.iter().map(|d| f64::from(*d)));
        Self {
            // Never negative but by rounding.
            kl: if kl < 0.0 { 0.0 } else { kl },
            top1: top(&dense.logits) == top(&sparse.logits),
            hidden: (difference / whole).sqrt(),
        }
    }
}

/// Natural logarithms of the softmax, in f64.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted: Vec<f64> = logits
        .iter()
        .map(|l| f64::from(*l) - f64::from(most))
        .collect();
    let sum = shifted.iter().map(|l| l.exp()).sum::<f64>().ln();
    shifted.into_iter().map(|l| l - sum).collect()
}

/// The first of the largest.
fn top(logits: &[f32]) -> Option<usize> {
    let first = |best: Option<(usize, f32)>, (at, value): (usize, f32)| match best {
        Some((_, most)) if most >= value => best,
        _ => Some((at, value)),
    };
    let indexed = logits.iter().copied().enumerate();
    indexed.fold(None, first).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefill(logits: &[f32], hidden: &[f32]) -> Prefill {
        Prefill {
            last_hidden: hidden.to_vec(),
            logits: logits.to_vec(),
            decisions: Vec::new(),
            selection: Vec::new(),
            density: 1.0,
            tokens: 1,
            reused: 0,
            busy_s: Vec::new(),
            seconds: 0.0,
        }
    }

    #[test]
    fn nothing_changed_is_exactly_zero() {
        let same = prefill(&[1.5, -2.0, 300.0, 299.0], &[1.0, -4.0]);
        let change = Change::between(&same, &same);
        assert_eq!((change.kl, change.hidden, change.top1), (0.0, 0.0, true));
    }

    #[test]
    fn the_divergence_is_that_of_the_formula() {
        // p = (3/4, 1/4), q = (1/2, 1/2), whatever is added to the logits.
        let dense = prefill(&[100.0 + 3f32.ln(), 100.0], &[3.0, 4.0]);
        let sparse = prefill(&[-7.0, -7.0], &[3.0, 3.0]);
        let change = Change::between(&dense, &sparse);
        let expected = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        assert!((change.kl - expected).abs() < 1e-5, "{}", change.kl);
        assert!((change.hidden - 0.2).abs() < 1e-9, "{}", change.hidden);
        assert!(change.top1);
    }

    #[test]
    fn a_value_that_is_none_does_not_look_like_agreement() {
        let dense = prefill(&[1.0, 2.0], &[1.0]);
        let broken = prefill(&[f32::NAN, 2.0], &[f32::NAN]);
        let change = Change::between(&dense, &broken);
        assert!(change.kl.is_nan() && change.hidden.is_nan());
    }
}
