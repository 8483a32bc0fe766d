//! Decoding after a prefill: tokens per second at a depth of the cache.
//!
//! Every run begins at the same depth: what the run before appended is forgotten. The most likely token
//! is fed back, logits read to the host for each, as generation does. Several sequences decode at once on
//! the stages of a pipeline, each in a thread of its own, and one after the other, token by token, on one
//! device.

use std::{thread, time::Instant};

use sparse_accelerate::{AttentionSettings, KvCache};
use sparse_accelerate_engine::{
    Chunking, EngineError, Loaded, PrefillProgress, Sequence, contained,
};
use sparse_accelerate_report::record::DecodeRow;

use super::{Case, SpeedError, median};

/// How many tokens, how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeSettings {
    /// Prompt tokens computed at a time.
    pub chunk: usize,
    /// Tokens decoded in each run, at least 1.
    pub tokens: usize,
    /// Timed runs, at least 1; one more comes before them, untimed.
    pub runs: usize,
    /// Sequences that decode at once, at least 1; each has a cache of its own.
    pub sequences: usize,
}

/// Fills a cache with `ids` and times decoding after it.
///
/// # Errors
/// No runs, tokens or sequences; more tokens than a model with windows takes back; whatever a prefill and decoding refuse, a device that gave up.
pub fn decode(
    model: &Loaded,
    case: &Case,
    ids: &[u32],
    settings: DecodeSettings,
    progress: &mut dyn FnMut(PrefillProgress),
) -> Result<DecodeRow, SpeedError> {
    for (field, count) in [
        ("runs", settings.runs),
        ("tokens", settings.tokens),
        ("sequences", settings.sequences),
    ] {
        if count == 0 {
            return Err(SpeedError::Nothing { field });
        }
    }
    let (got, limit) = (settings.tokens, KvCache::TAKEN_BACK);
    let capacity = ids.len() + got;
    let mut windows = model.config().windows().into_iter();
    if got > limit && windows.any(|window| KvCache::lets_go(window, capacity)) {
        return Err(SpeedError::TakenBack { got, limit });
    }
    contained("decode", || {
        let depth = ids.len();
        let chunking = model.chunking(depth, settings.chunk, &case.settings);
        let prompt = (ids, chunking, &case.settings);
        let run: TimedRun = match model {
            Loaded::Whole(_) => by_turns,
            Loaded::Staged(_) => at_once,
        };
        let open = || filled(model.sequence(capacity)?, prompt, progress);
        let runs_s = timed(settings, depth, open, run)?;
        Ok(DecodeRow {
            attention: case.name.clone(),
            depth: ids.len(),
            tokens: settings.tokens,
            per_token_s: median(&runs_s) / settings.tokens as f64,
            runs_s,
            sequences: settings.sequences,
        })
    })
}

/// Decodes from a depth, beginning with a token, and gives the seconds of so many tokens.
type TimedRun = fn(&mut [Sequence<'_>], usize, u32, usize) -> Result<f64, EngineError>;

/// A sequence that holds the prompt, and the token that follows.
fn filled<'m>(
    mut sequence: Sequence<'m>,
    (ids, chunking, settings): (&[u32], Chunking, &AttentionSettings),
    progress: &mut dyn FnMut(PrefillProgress),
) -> Result<(Sequence<'m>, u32), EngineError> {
    let prefill = sequence.prefill(ids, chunking, settings, progress)?;
    Ok((sequence, likeliest(&prefill.logits)))
}

/// Seconds of every timed run of sequences that `open` fills.
fn timed<'m>(
    settings: DecodeSettings,
    depth: usize,
    mut open: impl FnMut() -> Result<(Sequence<'m>, u32), EngineError>,
    run: TimedRun,
) -> Result<Vec<f64>, EngineError> {
    let (mut all, mut first) = (Vec::new(), 0);
    for _ in 0..settings.sequences {
        let (sequence, token) = open()?;
        first = token;
        all.push(sequence);
    }
    let runs = (0..=settings.runs).map(|_| run(&mut all, depth, first, settings.tokens));
    let mut runs_s = runs.collect::<Result<Vec<_>, _>>()?;
    // The first run is not timed.
    runs_s.remove(0);
    Ok(runs_s)
}

/// Seconds of one run in which sequences decode a token each, in turn.
fn by_turns(
    all: &mut [Sequence<'_>],
    depth: usize,
    first: u32,
    tokens: usize,
) -> Result<f64, EngineError> {
    for sequence in all.iter_mut() {
        sequence.rewind(depth)?;
    }
    let mut next = vec![first; all.len()];
    let start = Instant::now();
    for _ in 0..tokens {
        for (sequence, token) in all.iter_mut().zip(&mut next) {
            *token = likeliest(&sequence.decode(*token)?);
        }
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds of one run in which every sequence decodes as fast as it can.
fn at_once(
    all: &mut [Sequence<'_>],
    depth: usize,
    first: u32,
    tokens: usize,
) -> Result<f64, EngineError> {
    for sequence in all.iter_mut() {
        sequence.rewind(depth)?;
    }
    let start = Instant::now();
    thread::scope(|scope| {
        let running: Vec<_> = all
            .iter_mut()
            .map(|sequence| {
                scope.spawn(move || {
                    let mut token = first;
                    for _ in 0..tokens {
                        token = likeliest(&sequence.decode(token)?);
                    }
                    Ok(())
                })
            })
            .collect();
        running.into_iter().try_for_each(|one| {
            let gone = |_| {
                Err(EngineError::GaveUp {
                    op: "decode",
                    reason: "a thread panicked".into(),
                })
            };
            one.join().unwrap_or_else(gone)
        })
    })?;
    Ok(start.elapsed().as_secs_f64())
}

/// The first of the largest; 0 where nothing is a number.
fn likeliest(logits: &[f32]) -> u32 {
    let best = (0, f32::NEG_INFINITY);
    let larger =
        |best: (usize, f32), (at, x): (usize, &f32)| if *x > best.1 { (at, *x) } else { best };
    logits.iter().enumerate().fold(best, larger).0 as u32
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_of_the_largest_is_taken() {
        assert_eq!(super::likeliest(&[1.0, 3.0, f32::NAN, 3.0]), 1);
        assert_eq!(super::likeliest(&[f32::NAN]), 0);
    }
}
