//! Rules of the index heads as the device reads them.

use sparse_accelerate_contract::{Choice, RULE_WORDS, Rules};

use super::Selection;
use crate::pattern::{BlockCluster, IntervalSlash, Pattern};

/// Bits of the choices that rules allow.
const DENSE: u32 = Choice::Dense.bit();
const TRIANGULAR: u32 = Choice::Triangular.bit();
const INTERVAL_SLASH: u32 = Choice::IntervalSlash.bit();
const BLOCK_CLUSTER: u32 = Choice::BlockCluster.bit();
const HYBRID: u32 = Choice::Hybrid.bit();

/// The rules of all heads of a layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerRules {
    /// `[heads, RULE_WORDS]`, see [`rule`].
    pub(crate) words: Vec<u32>,
    /// Most columns and slashes of any head.
    pub(crate) columns: usize,
    pub(crate) slashes: usize,
}

impl LayerRules {
    /// The rules of index heads with these patterns.
    pub(crate) fn new(patterns: &[Pattern], selection: &Selection) -> Self {
        let mut rules = Self {
            words: Vec::with_capacity(RULE_WORDS * patterns.len()),
            columns: 0,
            slashes: 0,
        };
        for pattern in patterns {
            let rule = rule(pattern, selection);
            rules.columns = rules.columns.max(rule.columns as usize);
            rules.slashes = rules.slashes.max(rule.slashes as usize);
            rules.words.extend(rule.words());
        }
        rules
    }
}

/// The rule of a head with a pattern.
///
/// Dense is always allowed beside a pattern that is chosen from the input: it is what the contract
/// falls back on. A Triangular given by name is taken as it is, whatever it keeps.
fn rule(pattern: &Pattern, selection: &Selection) -> Rules {
    let (mut sink, mut window, mut floor) = (selection.sink, selection.window, selection.recall);
    let none = IntervalSlash {
        columns: 0,
        slashes: 0,
    };
    let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX / 2);
    let (allowed, lists, blocks) = match pattern {
        Pattern::Dense | Pattern::FixedBlocks(_) | Pattern::Index => {
            (DENSE, none, BlockCluster::default())
        }
        Pattern::Triangular(t) => {
            (sink, window, floor) = (t.sink, t.window, 0.0);
            (TRIANGULAR, none, BlockCluster::default())
        }
        Pattern::GroupBlocks => {
            return Rules {
                allowed: DENSE,
                sink: word(sink),
                window: word(window),
                columns: 0,
                slashes: 0,
                floor,
                accepted: selection.error,
                alpha: 0.0,
            };
        }
        Pattern::IntervalSlash(lists) => (DENSE | INTERVAL_SLASH, *lists, BlockCluster::default()),
        Pattern::BlockCluster(blocks) => (DENSE | BLOCK_CLUSTER, none, *blocks),
        Pattern::Hybrid(d) => (DENSE | HYBRID, d.interval_slash, d.block_cluster),
        Pattern::Dynamic(d) => {
            let union = if d.hybrid { HYBRID } else { 0 };
            let all = DENSE | TRIANGULAR | INTERVAL_SLASH | BLOCK_CLUSTER | union;
            (all, d.interval_slash, d.block_cluster)
        }
    };
    Rules {
        allowed,
        sink: word(sink),
        window: word(window),
        columns: word(lists.columns),
        slashes: word(lists.slashes),
        floor: aim(floor),
        accepted: floor,
        alpha: blocks.alpha,
    }
}

/// The recall to aim at, so that noise of the estimates does not push a head below its floor, which costs all of
/// dense: 0.05 more, as far as there is room. On a small model heads cut to a floor miss it by 0.01 to
/// 0.02 half of the time; columns and slashes taken as independent promise up to 0.04 too much.
fn aim(floor: f32) -> f32 {
    if floor > 0.0 {
        floor + (0.05f32).min((1.0 - floor) / 3.0)
    } else {
        0.0
    }
}
