//! The largest prompt that fits a number of tokens.
//!
//! A prompt is made of `n` units (words, sentences, needles) and grows with `n`, nearly always: a token
//! may span a seam. So the result is the largest `n` found by search, and its tokens are counted, never
//! estimated.

use crate::error::EvalError;

/// A prompt of `units` units.
#[derive(Debug)]
pub(crate) struct Fitted<T> {
    pub(crate) units: usize,
    pub(crate) made: T,
    pub(crate) ids: Vec<u32>,
}

/// The largest `n` in `least..=most` whose `make(n)` has at most `budget` tokens, beginning near `guess`;
/// `Err(tokens of the least)` inside the result when not even that fits.
pub(crate) fn fit<T>(
    (least, most): (usize, usize),
    guess: usize,
    budget: usize,
    make: &mut dyn FnMut(usize) -> Result<(T, Vec<u32>), EvalError>,
) -> Result<Result<Fitted<T>, usize>, EvalError> {
    let (made, ids) = make(least)?;
    if ids.len() > budget {
        return Ok(Err(ids.len()));
    }
    let base = ids.len();
    let mut best = Fitted {
        units: least,
        made,
        ids,
    };
    // A unit has a token at least.
    let mut beyond = most.min(budget.max(least)).saturating_add(1);
    let (mut probe, mut steps, mut overshot) = (guess, 0u32, false);
    while beyond - best.units > 1 {
        let n = probe.clamp(best.units + 1, beyond - 1);
        let (made, ids) = make(n)?;
        // Tokens a unit, from the least prompt to this one.
        let rate = (ids.len() as f64 - base as f64) / (n - least) as f64;
        if ids.len() <= budget {
            best = Fitted {
                units: n,
                made,
                ids,
            };
        } else {
            (beyond, overshot) = (n, true);
        }
        steps += 1;
        let room = (budget - best.ids.len()) as f64;
        probe = match (overshot, rate > 0.0) {
            // Interpolation alone may creep up from one side.
            (true, _) if steps.is_multiple_of(4) => best.units + (beyond - best.units) / 2,
            (_, true) => best.units.saturating_add((room / rate) as usize),
            (_, false) => best.units.saturating_mul(2),
        };
    }
    Ok(Ok(best))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units of 1 to 7 tokens after a beginning of 20.
    fn tokens(n: usize) -> usize {
        20 + (0..n).map(|i| 1 + i * 31 % 7).sum::<usize>()
    }

    fn run(range: (usize, usize), guess: usize, budget: usize) -> (Result<usize, usize>, usize) {
        let mut calls = 0;
        let fitted = fit(range, guess, budget, &mut |n| {
            calls += 1;
            Ok((n, vec![0; tokens(n)]))
        });
        let found = fitted.unwrap().map(|fitted| {
            assert_eq!(fitted.made, fitted.units);
            assert_eq!(fitted.ids.len(), tokens(fitted.units));
            fitted.units
        });
        (found, calls)
    }

    #[test]
    fn the_largest_that_fits_is_found_from_any_guess() {
        for budget in [20, 21, 100, 999, 5000] {
            let best = (0..2000).rfind(|n| tokens(*n) <= budget).unwrap();
            for guess in [0, 1, best, best + 1, 1999, usize::MAX] {
                let (found, calls) = run((0, 1999), guess, budget);
                assert_eq!(found, Ok(best), "budget {budget} from {guess}");
                assert!(calls < 25, "{calls} prompts made");
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_hold() {
        assert_eq!(run((3, 9), 5, tokens(3) - 1).0, Err(tokens(3)));
        assert_eq!(run((3, 9), 5, usize::MAX / 2).0, Ok(9));
        assert_eq!(run((3, 3), 3, 1000).0, Ok(3));
    }
}
