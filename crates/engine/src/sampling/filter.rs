//! The filters, each a plain function: penalty and greedy on logits, the rest on candidates.
//!
//! Candidates are always sorted by probability, ties by token id, and sum to 1 after each filter.
//! Probabilities are f64, so a cumulative sum over a large vocabulary stays exact enough.

use std::cmp::Ordering;

use super::{Candidate, SamplingError};

/// A copy of the logits, checked: no NaN, no plus infinity, something to choose from.
pub(super) fn checked(logits: &[f32]) -> Result<Vec<f32>, SamplingError> {
    if let Some(token) = logits
        .iter()
        .position(|l| l.is_nan() || *l == f32::INFINITY)
    {
        return Err(SamplingError::NotFinite {
            token,
            got: logits[token],
        });
    }
    if logits.iter().all(|l| *l == f32::NEG_INFINITY) {
        return Err(SamplingError::NoCandidates {
            vocab: logits.len(),
        });
    }
    Ok(logits.to_vec())
}

/// Makes every token of `history` less likely, once however often it occurs.
pub(super) fn repetition_penalty(logits: &mut [f32], history: &[u32], penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    let mut seen = history.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for token in seen {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = if *logit > 0.0 {
                *logit / penalty
            } else {
                *logit * penalty
            };
        }
    }
}

/// The most likely token, the lowest id on a tie. The logits hold no NaN.
pub(super) fn greedy(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as u32
}

/// Softmax of `logits / temperature` over the `k` most likely tokens (0: over all).
pub(super) fn top_k(logits: &[f32], temperature: f32, k: usize) -> Vec<Candidate> {
    let mut kept: Vec<(u32, f32)> = (0u32..)
        .zip(logits.iter().copied())
        .filter(|(_, logit)| *logit > f32::NEG_INFINITY)
        .collect();
    let likelier = |a: &(u32, f32), b: &(u32, f32)| {
        b.1.partial_cmp(&a.1)
            .unwrap_or(Ordering::Equal)
            .then(a.0.cmp(&b.0))
    };
    if k > 0 && k < kept.len() {
        kept.select_nth_unstable_by(k - 1, likelier);
        kept.truncate(k);
    }
    kept.sort_unstable_by(likelier);
    let top = kept.first().map_or(0.0, |(_, logit)| f64::from(*logit));
    let mut candidates: Vec<_> = kept
        .into_iter()
        .map(|(token, logit)| Candidate {
            token,
            probability: ((f64::from(logit) - top) / f64::from(temperature)).exp(),
        })
        .collect();
    normalise(&mut candidates);
    candidates
}

/// Keeps the shortest head whose probabilities reach `p`; at least one token.
pub(super) fn top_p(candidates: &mut Vec<Candidate>, p: f32) {
    if p >= 1.0 {
        return;
    }
    let mut reached = 0.0;
    let keep = candidates
        .iter()
        .position(|c| {
            reached += c.probability;
            reached >= f64::from(p)
        })
        .map_or(candidates.len(), |last| last + 1);
    candidates.truncate(keep);
    normalise(candidates);
}

/// Keeps tokens at least `p` times as likely as the likeliest; at least one token.
pub(super) fn min_p(candidates: &mut Vec<Candidate>, p: f32) {
    let Some(top) = candidates.first().map(|c| c.probability) else {
        return;
    };
    if p > 0.0 {
        candidates.retain(|c| c.probability >= f64::from(p) * top);
        normalise(candidates);
    }
}

fn normalise(candidates: &mut [Candidate]) {
    let sum: f64 = candidates.iter().map(|c| c.probability).sum();
    for candidate in candidates {
        candidate.probability /= sum;
    }
}
