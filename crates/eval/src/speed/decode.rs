//! Decoding after a prefill: tokens per second at a depth of the cache.
//!
//! Every run begins at the same depth: what the run before appended is forgotten. The most likely token
//! is fed back, logits read to the host for each, as generation does.

use std::time::Instant;

use sparse_accelerate_engine::{PrefillProgress, Sequence, Session, contained};
use sparse_accelerate_models::CausalLm;
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
}

/// Fills a cache with `ids` and times decoding after it.
///
/// # Errors
/// No runs or tokens, whatever [`Session::prefill`] and [`Session::decode`] refuse, a device that gave
/// up.
pub fn decode(
    model: &CausalLm,
    case: &Case,
    ids: &[u32],
    settings: DecodeSettings,
    progress: &mut dyn FnMut(PrefillProgress),
) -> Result<DecodeRow, SpeedError> {
    for (field, count) in [("--runs", settings.runs), ("--tokens", settings.tokens)] {
        if count == 0 {
            return Err(SpeedError::Nothing { field });
        }
    }
    contained("decode", || {
        let mut session = Session::new(model, ids.len() + settings.tokens)?;
        let prefill = session.prefill(ids, settings.chunk.into(), &case.settings, progress)?;
        let mut runs_s = Vec::with_capacity(settings.runs);
        for run in 0..=settings.runs {
            session.rewind(ids.len())?;
            let mut token = likeliest(&prefill.logits);
            let start = Instant::now();
            for _ in 0..settings.tokens {
                token = likeliest(&session.decode(token)?);
            }
            if run > 0 {
                runs_s.push(start.elapsed().as_secs_f64());
            }
        }
        Ok(DecodeRow {
            attention: case.name.clone(),
            depth: ids.len(),
            tokens: settings.tokens,
            per_token_s: median(&runs_s) / settings.tokens as f64,
            runs_s,
        })
    })
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
