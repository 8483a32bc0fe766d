//! Which head gets which candidate: the least error that a budget of time buys.
//!
//! Greedy. Every head begins with its cheapest candidate. Then, again and again, the step of a head to
//! another candidate that takes away the most error per added price is made, if the budget still holds it.
//! Steps go to any dearer candidate, not only the next, so a head climbs the lower convex hull of its
//! candidates, for which this is the best choice but for the last step.

/// A candidate of a head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Offer {
    /// Share of the time of dense attention.
    pub(super) price: f64,
    /// Relative L2 error of the head's output.
    pub(super) error: f64,
}

/// Slack for sums of prices, so that a budget of exactly what is wanted buys it.
const ROUNDING: f64 = 1e-9;

/// The candidate of every head; `budget` is the mean price. Heads that cost more than that at their
/// cheapest keep it. Every head has at least one offer, and all numbers are finite.
pub(super) fn assign(heads: &[Vec<Offer>], budget: f64) -> Vec<usize> {
    let mut chosen: Vec<usize> = heads.iter().map(|offers| cheapest(offers)).collect();
    let price = |chosen: &[usize]| -> f64 {
        let held = heads.iter().zip(chosen);
        held.map(|(offers, at)| offers[*at].price).sum()
    };
    let most = budget * heads.len() as f64 + ROUNDING;
    let mut room = most - price(&chosen);
    loop {
        let mut best: Option<(f64, usize, usize)> = None;
        for (head, offers) in heads.iter().enumerate() {
            let held = offers[chosen[head]];
            for (at, offer) in offers.iter().enumerate() {
                let (extra, gain) = (offer.price - held.price, held.error - offer.error);
                if gain <= 0.0 || extra > room {
                    continue;
                }
                // A candidate that is better and not dearer is taken before all others.
                let rate = if extra > 0.0 {
                    gain / extra
                } else {
                    f64::INFINITY
                };
                if best.is_none_or(|(most, ..)| rate > most) {
                    best = Some((rate, head, at));
                }
            }
        }
        let Some((_, head, at)) = best else {
            return chosen;
        };
        chosen[head] = at;
        room = most - price(&chosen);
    }
}

/// The least price; of equal ones the least error.
fn cheapest(offers: &[Offer]) -> usize {
    let order = |a: &usize, b: &usize| {
        let (a, b) = (offers[*a], offers[*b]);
        a.price
            .total_cmp(&b.price)
            .then(a.error.total_cmp(&b.error))
    };
    (0..offers.len()).min_by(order).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(list: &[(f64, f64)]) -> Vec<Offer> {
        let offer = |(price, error): &(f64, f64)| Offer {
            price: *price,
            error: *error,
        };
        list.iter().map(offer).collect()
    }

    fn cost(heads: &[Vec<Offer>], chosen: &[usize]) -> (f64, f64) {
        let held = heads.iter().zip(chosen).map(|(offers, at)| offers[*at]);
        held.fold((0.0, 0.0), |(p, e), offer| {
            (p + offer.price, e + offer.error)
        })
    }

    #[test]
    fn a_budget_of_nothing_buys_the_cheapest_and_of_one_the_best() {
        let heads = vec![
            offers(&[(0.2, 0.5), (0.1, 0.8), (1.0, 0.0)]),
            offers(&[(0.1, 0.9), (0.1, 0.3), (1.0, 0.0)]),
        ];
        assert_eq!(assign(&heads, 0.0), [1, 1]);
        assert_eq!(assign(&heads, 1.0), [2, 2]);
        assert!(assign(&[], 0.5).is_empty());
    }

    #[test]
    fn the_budget_goes_where_it_takes_most_error() {
        // Going dense saves 0.9 in the second head and 0.1 in the first; there is money for one.
        let heads = vec![
            offers(&[(0.1, 0.1), (1.0, 0.0)]),
            offers(&[(0.1, 0.9), (1.0, 0.0)]),
        ];
        assert_eq!(assign(&heads, 0.55), [0, 1]);
        assert_eq!(assign(&heads, 0.549), [0, 0]);
    }

    #[test]
    fn a_step_over_a_bad_candidate_is_seen() {
        // 0.3 is worse per price than the step past it.
        let heads = vec![offers(&[(0.1, 1.0), (0.3, 0.95), (0.4, 0.1)])];
        assert_eq!(assign(&heads, 0.4), [2]);
        assert_eq!(assign(&heads, 0.35), [1]);
    }

    #[test]
    fn greedy_is_within_one_step_of_the_best() {
        // Every pair of six heads' candidates, against trying them all.
        let mut state = 7u64;
        let mut draw = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        for budget in [0.2, 0.35, 0.5, 0.8] {
            let heads: Vec<Vec<Offer>> = (0..6)
                .map(|_| {
                    let mut list = vec![(1.0, 0.0)];
                    list.extend((0..3).map(|_| (0.05 + 0.9 * draw(), draw())));
                    offers(&list)
                })
                .collect();
            let chosen = assign(&heads, budget);
            let (price, error) = cost(&heads, &chosen);
            let least = cost(
                &heads,
                &heads.iter().map(|h| cheapest(h)).collect::<Vec<_>>(),
            )
            .0;
            assert!(
                price <= (6.0 * budget).max(least) + 1e-6,
                "{price} {budget}"
            );
            let mut best = f64::INFINITY;
            for code in 0..4usize.pow(6) {
                let all: Vec<usize> = (0..6).map(|head| code / 4usize.pow(head) % 4).collect();
                let (p, e) = cost(&heads, &all);
                if p <= 6.0 * budget + 1e-9 {
                    best = best.min(e);
                }
            }
            assert!(
                best.is_infinite() || error <= best + 1.0,
                "{error} {best} {budget}"
            );
        }
    }
}
