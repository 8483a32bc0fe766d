//! One choice for a group of query heads, which is one head or all that share a KV head: the key blocks that hold most of
//! their mass together.
//!
//! Of every query tile, with the blocks `J` of [`MEAN_BLOCK`] keys of which its last row sees a key,
//!
//! ```text
//! z_hp(J) = scale qmean_hp . kmean_J     share(J) = 1/H sum_h max_p softmax_J(z_hp)
//! ```
//!
//! over the `H` heads of the group and the parts `p` of the tile's rows; `qmean_hp` is the mean of a part's queries, rounded to
//! their type, and `kmean_J` that of the block's keys. What few rows look for counts as much as what all do: of equal
//! densities, the largest part costs a trained model less than the mean of all. Sinks and the window of the
//! rule are kept; of the other blocks the best, until what is kept outside the sinks reaches the share of the mass there
//! that is aimed at. Sinks do not count: they can hold most of the mass of a head whose output comes from elsewhere.
//! FlexPrefill (arXiv 2502.20766) ranks blocks by pooled queries and keys and cuts them by cumulative mass, per
//! query head.
//!
//! Estimates choose, a measurement decides: a few rows are attended exactly, and with their outputs those over what the choice
//! keeps. Where these are off by more than the largest error, relative to the layer's mean head, the next *level* is
//! taken, half of what the first leaves out; where that is off too, the head sees every key. The error and not the kept mass
//! decides: heads that lose mass but little output need no more keys, and of equal densities a trained
//! model's predictions stay about a third closer to those of dense attention. One launch of attention then reads the index.
//!
//! | stage | reads | writes |
//! | --- | --- | --- |
//! | [`means`] | keys | mean keys of the blocks that have new rows |
//! | `share` | queries, mean keys | shares, and where each level cuts them |
//! | `rows` | sampled rows, keys, values, shares, cuts | their attention over what each level keeps, and over the rest |
//! | `measure` | that | the errors of each level, and what it keeps of the mass outside the sinks |
//! | `index` | all of it | the index as a table, the report |
//!
//! Shares are added up in fixed point, so equal inputs give equal bits.

mod index;
mod launch;
mod level;
pub mod means;
mod measure;
mod rows;
mod share;

use cubecl::prelude::*;

pub use launch::{Chosen, Inputs, Plan, prepare, select};
pub use sparse_accelerate_contract::group::MEAN_BLOCK;
use sparse_accelerate_contract::{
    QUERY_TILE,
    group::{BASE, LEVELS},
};

use super::fixed::{ONE, fixed, score};
use crate::table::{HeadRules, Span, Window};

/// Bits of a share below its rank; on the host `sparse_accelerate_contract::group::rank`.
const RANK_SHIFT: u32 = 19;
/// Units of the cubes that measure and index; WebGPU guarantees more.
const UNITS: usize = 128;

/// A query tile and the blocks that are its candidates.
#[derive(CubeType, Clone, Copy)]
struct Tile {
    /// Rows.
    rows: u32,
    /// First position.
    first: u32,
    /// End of the positions; 0 for a tile past the sequence's rows.
    end: u32,
    /// First block of which the first row sees a key.
    low: u32,
    /// End of the blocks of which the last row sees a key.
    high: u32,
    /// Blocks before this one are kept as sinks.
    sinks: u32,
    /// Blocks from this one on are kept as the window.
    local: u32,
}

#[cube]
impl Tile {
    /// Finds tile `tile` of a sequence under the rule of its head.
    fn new(span: &Span, rule: &HeadRules, rules: &[u32], tile: u32, window: &Window) -> Tile {
        let at = tile * comptime!(QUERY_TILE as u32);
        let size = comptime!(MEAN_BLOCK as u32);
        let mut rows = 0u32;
        let mut end = 0u32;
        let first = span.offset() + at;
        if at < span.query_len {
            rows = min(span.query_len - at, comptime!(QUERY_TILE as u32));
            end = first + rows;
        }
        let local = max(rule.window(rules), 1u32);
        Tile {
            rows,
            first,
            end,
            low: window.first_key(first) / size,
            high: end.div_ceil(size),
            sinks: rule.sink(rules).div_ceil(size),
            local: (max(first + 1, local) - local) / size,
        }
    }

    fn has(&self, block: u32) -> bool {
        block >= self.low && block < self.high
    }

    /// Tells whether a candidate is kept whatever its share.
    fn forced(&self, block: u32) -> bool {
        block < self.sinks || block >= self.local
    }

    /// Tells whether a candidate of a share is kept by a level that cuts at rank `cut`.
    fn keeps(&self, block: u32, share: f32, cut: u32) -> bool {
        self.forced(block) || score(u32::reinterpret(share)) >> comptime!(RANK_SHIFT) >= cut
    }
}

/// The bin of a score; on the host `sparse_accelerate_contract::group::bin`.
#[cube]
fn bin(score: u32) -> u32 {
    max(score >> comptime!(RANK_SHIFT), comptime!(BASE)) - comptime!(BASE)
}

/// The mass that a level aims at, in units of 2^-24: that of the rule, or half of what it leaves out added.
#[cube]
fn aim(rule: &HeadRules, rules: &[u32], level: u32) -> u32 {
    let aim = fixed(score(rule.floor_bits(rules)), 0u32);
    ONE - ((ONE - aim) >> level)
}

const _: () = assert!(LEVELS == 2 && MEAN_BLOCK == QUERY_TILE);
