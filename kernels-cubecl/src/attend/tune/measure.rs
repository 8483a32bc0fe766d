//! Device times of a few plans of one problem, and which of them to take.
//!
//! Every launch writes the call's whole output, so the outputs are never scratch and never half written.
//! Turns are taken, so that a clock that ramps up favours no plan. A plan that fails is left out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cubecl::{client::Client, future::block_on};

use crate::attend::Plan;

/// Most timed launches of a plan, after one that compiles it.
const ROUNDS: usize = 5;
/// Device milliseconds of timed launches after which no further round begins: long problems are timed
/// once, and differ by more than noise.
const BUDGET_MS: f64 = 40.0;
/// A plan this many times slower than the fastest takes no further turn.
const HOPELESS: f64 = 1.3;
/// A plan must be this much faster than the first to be taken instead: below is noise.
const GAIN: f64 = 0.02;

/// The least device time of each plan in milliseconds; `None` for one that failed or gave no time.
///
/// `launch` launches a plan on the client's stream. Blocks until the device has answered; run it where
/// nothing else is scheduled on the device ([`Client::exclusive`]).
pub fn measure(client: &Client, plans: &[Plan], launch: impl Fn(&Plan) + Sync) -> Vec<Option<f64>> {
    let once = |plan: &Plan| {
        // A launch that fails spoils the window it falls into; a compiler may panic instead.
        let go = || catch_unwind(AssertUnwindSafe(|| launch(plan))).is_ok();
        let (launched, window) = client.profile(go, "attend").ok()?;
        if !launched {
            return None;
        }
        let ticks = block_on(window.resolve())?;
        let time = ticks.duration().as_secs_f64() * 1e3;
        (time > 0.0).then_some(time)
    };
    // The first launch compiles; its time says nothing.
    let mut live: Vec<usize> = (0..plans.len())
        .filter(|&i| once(&plans[i]).is_some())
        .collect();
    let mut least = vec![None; plans.len()];
    let mut spent = 0.0;
    for _ in 0..ROUNDS {
        live.retain(|&i| {
            let time = once(&plans[i]);
            spent += time.unwrap_or(0.0);
            least[i] = match (least[i], time) {
                (Some(before), Some(now)) => Some(f64::min(before, now)),
                // One failure is enough: what works now and then is not taken.
                (_, None) => None,
                (None, now) => now,
            };
            time.is_some()
        });
        let fastest = live.iter().filter_map(|&i| least[i]).reduce(f64::min);
        live.retain(|&i| {
            least[i]
                .zip(fastest)
                .is_some_and(|(t, f)| t <= HOPELESS * f)
        });
        if live.len() < 2 || spent > BUDGET_MS {
            break;
        }
    }
    least
}

/// Which plan to take: the fastest, but the first if nothing beats it by more than noise. The first, too,
/// if all failed: then the launch that follows reports why.
pub fn best(milliseconds: &[Option<f64>]) -> usize {
    let fastest = milliseconds
        .iter()
        .enumerate()
        .filter_map(|(i, time)| time.map(|time| (i, time)))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    match (milliseconds.first().copied().flatten(), fastest) {
        (Some(first), Some((i, time))) if time < first * (1.0 - GAIN) => i,
        (None, Some((i, _))) => i,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn the_fastest_is_taken() {
        assert_eq!(best(&[Some(2.0), Some(1.0), Some(1.5)]), 1);
        assert_eq!(best(&[Some(1.0), Some(2.0)]), 0);
    }

    #[test]
    fn noise_does_not_move_the_choice() {
        assert_eq!(best(&[Some(1.0), Some(0.99), Some(0.981)]), 0);
        assert_eq!(best(&[Some(1.0), Some(0.99), Some(0.97)]), 2);
    }

    #[test]
    fn what_failed_is_left_out() {
        assert_eq!(best(&[None, Some(3.0), Some(2.0)]), 2);
        assert_eq!(best(&[Some(1.0), None]), 0);
        assert_eq!(best(&[None, None]), 0);
        assert_eq!(best(&[]), 0);
    }
}
