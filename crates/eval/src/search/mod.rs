//! A search for the pattern of every head, offline, on a text of the user's kind (as MInference does, arXiv
//! 2407.02490, 3.2; its budget is one of operations, and it looks at attention rather than outputs).
//!
//! One dense pass of the text; in every layer and KV head each candidate is run on the pass's own queries,
//! keys and values, chunk by chunk:
//!
//!   error = |o_candidate - o_dense| / |o_dense|   over sampled rows, the query heads of the KV head together
//!   price = kept causal pairs / causal pairs      the share of dense attention's time
//!
//! with no recall floor, so a candidate is what it is. Then the candidates with the least error within a
//! mean price are given out, see the module `assign`.

mod assign;
mod candidates;
mod observer;

pub use candidates::candidates;

use sparse_accelerate::{
    AttentionSettings, HeadPatterns, Pattern, Selection,
    select::{BLOCK, LEAST_ROWS},
};
use sparse_accelerate_engine::PrefillProgress;

use crate::{
    error::EvalError,
    run::{Subject, at_least_one, check_lengths, finite},
};
use assign::{Offer, assign};
use observer::{CandidateObserver, Model};

/// Fewest tokens of a text: in fewer, sinks and window are everything.
pub const LEAST_TOKENS: usize = 4 * BLOCK;

/// Limits of a search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchPlan {
    /// Rows of the text whose outputs are compared.
    pub rows: usize,
    /// Mean price of the heads, share of dense attention, above 0 to 1.
    pub budget: f64,
    /// Sinks, window, correction and the like; its floor is not used.
    pub selection: Selection,
}

/// Pattern of one KV head, with its price and error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Given {
    /// The pattern.
    pub pattern: Pattern,
    /// Share of causal pairs it computes.
    pub density: f64,
    /// Relative L2 error of the outputs of its query heads.
    pub error: f64,
}

/// The result of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// `[layer][KV head]`.
    pub given: Vec<Vec<Given>>,
}

impl SearchPlan {
    /// Refuses what cannot be searched, before any weights are read.
    ///
    /// # Errors
    /// A budget or a number of rows out of range, a text or a chunk that is too short.
    pub fn check(&self, length: usize, chunk: usize) -> Result<(), EvalError> {
        at_least_one("rows", self.rows)?;
        let refuse =
            |field, got: String, limit: String| Err(EvalError::Range { field, got, limit });
        if !(self.budget > 0.0 && self.budget <= 1.0) {
            let limit = "it must be above 0 and at most 1, the share of dense attention";
            return refuse("budget", self.budget.to_string(), limit.into());
        }
        if length < LEAST_TOKENS {
            return Err(EvalError::TooFewTokens {
                tokens: length,
                least: LEAST_TOKENS,
            });
        }
        if chunk < LEAST_ROWS {
            let limit = format!("heads choose in chunks of at least {LEAST_ROWS}");
            return refuse("chunk", chunk.to_string(), limit);
        }
        Ok(())
    }
}

impl Search {
    /// The patterns alone, as a run takes them.
    pub fn patterns(&self) -> HeadPatterns {
        let layer = |heads: &Vec<Given>| heads.iter().map(|given| given.pattern).collect();
        HeadPatterns::from(self.given.iter().map(layer).collect::<Vec<_>>())
    }

    /// Mean share of causal pairs.
    pub fn density(&self) -> f64 {
        self.mean(|given| given.density)
    }

    /// Mean error of the heads.
    pub fn error(&self) -> f64 {
        self.mean(|given| given.error)
    }

    fn mean(&self, of: impl Fn(&Given) -> f64) -> f64 {
        sparse_accelerate_report::mean(self.given.iter().flatten().map(of))
    }
}

/// Searches the patterns of a model on the tokens of a text.
///
/// # Errors
/// As [`SearchPlan::check`]; a text over the model's positions, an output that is no number, and
/// failures of the device.
pub fn search(
    subject: &Subject<'_>,
    ids: &[u32],
    plan: &SearchPlan,
    progress: &mut dyn FnMut(PrefillProgress),
) -> Result<Search, EvalError> {
    plan.check(ids.len(), subject.chunk)?;
    let config = subject.model.config();
    check_lengths(&[ids.len()], config)?;
    let candidates = candidates();
    let sparse = candidates.iter().copied();
    let sparse: Vec<Pattern> = sparse.filter(|c| *c != Pattern::Dense).collect();
    let model = Model {
        layers: config.layers,
        heads: subject.model.whole()?.heads(),
        visible: subject.model.whole()?.visible(),
        device: subject.model.whole()?.device(),
    };
    let mut observer =
        CandidateObserver::new(ids.len(), plan.rows, &sparse, &plan.selection, model)?;
    let mut session = subject.sequence(ids.len())?;
    let dense = AttentionSettings::dense();
    session.prefill_observed(
        ids,
        subject.chunk.into(),
        &dense,
        Some(&mut observer),
        progress,
    )?;
    let offers = observer.offers().ok_or_else(|| EvalError::Range {
        field: "rows",
        got: plan.rows.to_string(),
        limit: "none of them lies in a chunk that is long enough; ask for more".into(),
    })?;
    give(&sparse, offers, plan.budget)
}

/// Gives out the candidates, dense among them; `offers` `[layer][KV head][candidate]`.
fn give(
    candidates: &[Pattern],
    offers: Vec<Vec<Vec<Offer>>>,
    budget: f64,
) -> Result<Search, EvalError> {
    let mut flat = Vec::new();
    for (layer, heads) in offers.iter().enumerate() {
        for (head, offers) in heads.iter().enumerate() {
            for (offer, pattern) in offers.iter().zip(candidates) {
                let at = || format!("{} in layer {layer}, KV head {head}", pattern.name());
                finite(at, offer.error + offer.price)?;
            }
            // Dense is what the others are compared with.
            let dense = Offer {
                price: 1.0,
                error: 0.0,
            };
            flat.push([&offers[..], &[dense]].concat());
        }
    }
    let chosen = assign(&flat, budget);
    let given = flat.iter().zip(chosen).map(|(offers, at)| Given {
        pattern: candidates.get(at).copied().unwrap_or(Pattern::Dense),
        density: offers[at].price,
        error: offers[at].error,
    });
    let given: Vec<Given> = given.collect();
    let mut rest = given.as_slice();
    let layers = offers.iter().map(|heads| {
        let (layer, after) = rest.split_at(heads.len());
        rest = after;
        layer.to_vec()
    });
    Ok(Search {
        given: layers.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> SearchPlan {
        SearchPlan {
            rows: 8,
            budget: 0.3,
            selection: Selection::default(),
        }
    }

    #[test]
    fn what_cannot_be_searched_is_refused() {
        plan().check(LEAST_TOKENS, LEAST_ROWS).unwrap();
        for (plan, length, chunk, words) in [
            (SearchPlan { rows: 0, ..plan() }, 1024, 128, "rows is 0"),
            (
                SearchPlan {
                    budget: 0.0,
                    ..plan()
                },
                1024,
                128,
                "budget is 0",
            ),
            (
                SearchPlan {
                    budget: 1.5,
                    ..plan()
                },
                1024,
                128,
                "at most 1",
            ),
            (
                SearchPlan {
                    budget: f64::NAN,
                    ..plan()
                },
                1024,
                128,
                "budget is NaN",
            ),
            (plan(), 511, 128, "at least 512"),
            (plan(), 1024, 127, "chunk is 127"),
        ] {
            let error = plan.check(length, chunk).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.is_usage());
        }
    }

    #[test]
    fn heads_keep_their_place_and_dense_is_always_offered() {
        let [cheap, dear] = [candidates()[0], candidates()[3]];
        let offer = |price, error| Offer { price, error };
        // Three heads: a cheap one that is good, one that needs the dear one, one that nothing serves.
        let offers = vec![
            vec![
                vec![offer(0.1, 0.01), offer(0.2, 0.005)],
                vec![offer(0.1, 0.6), offer(0.2, 0.1)],
            ],
            vec![
                vec![offer(0.1, 0.9), offer(0.2, 0.89)],
                vec![offer(0.1, 0.0), offer(0.2, 0.0)],
            ],
        ];
        let search = give(&[cheap, dear], offers, 0.35).unwrap();
        let patterns = search.patterns();
        assert_eq!(
            patterns.layers(),
            [vec![cheap, dear], vec![Pattern::Dense, cheap]]
        );
        assert!((search.density() - 0.35).abs() < 1e-9);
        assert!((search.error() - 0.0275).abs() < 1e-9);
    }

    #[test]
    fn an_error_that_is_no_number_is_named() {
        let offers = vec![vec![vec![Offer {
            price: 0.1,
            error: f64::NAN,
        }]]];
        let error = give(&candidates()[..1], offers, 0.5)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("triangular in layer 0, KV head 0 is NaN"),
            "{error}"
        );
    }
}
