#![doc = include_str!("../README.md")]

mod attend;
mod baseline;
mod cut;
mod flash_prefill;
mod flex_prefill;
mod minference;
mod parse;
mod pooled;
mod problem;
mod scores;
mod xattention;

pub use attend::{BaselineOutput, attend};
pub use baseline::Baseline;

use burn::tensor::Tensor;

use sparse_accelerate::{
    AttentionError, Span, Triangular,
    index::{self, TileIndex},
};

use pooled::Pooled;
use problem::Problem;

/// The operation's name in errors.
const OP: &str = "baseline";

/// Tokens of a block.
pub const BLOCK: usize = 128;

/// Builds the index of the keys that a baseline keeps of one chunk of one layer; `None` where it computes
/// the layer densely.
///
/// The index has one head per query head, one per KV head for [`Baseline::FlashPrefillV2`], and one in
/// all for the baselines that look at no input.
///
/// # Shapes
/// `query` `[B, Hq, N, d]`, right-padded to the longest span; `key` `[B, Hk, S, d]` with `S >= kv_len`
/// of every span. What lies past a span's rows and keys is not read.
///
/// # Errors
/// Parameters out of range, shapes that disagree with each other or with the spans, a first row off
/// the grid of a block baseline, or scores that cannot be read back.
pub fn index(
    baseline: &Baseline,
    layer: usize,
    query: &Tensor<4>,
    key: &Tensor<4>,
    spans: &[Span],
) -> Result<Option<TileIndex>, AttentionError> {
    baseline.validate()?;
    let problem = Problem::new(query, key, spans)?;
    let triangle = |sink, window, last| {
        let pattern = Triangular { sink, window, last };
        index::triangular(spans, &pattern).map(Some)
    };
    match *baseline {
        Baseline::AShape { sink, window } => triangle(sink, window, 0),
        Baseline::TriShape { sink, window, last } => triangle(sink, window, last),
        Baseline::TriangleMix { first_layer, .. } if layer < first_layer => Ok(None),
        Baseline::TriangleMix {
            sink, window, last, ..
        } => triangle(sink, window, last),
        Baseline::MInference { vertical, slash } => {
            minference::index(&problem, vertical, slash).map(Some)
        }
        Baseline::FlexPrefill {
            gamma,
            tau,
            min_budget,
        } => flex_prefill::index(&problem, gamma, tau, min_budget).map(Some),
        Baseline::XAttention { stride, threshold } => {
            xattention::index(&problem, stride, threshold).map(Some)
        }
        Baseline::FlashPrefillV1 { alpha, last_blocks } => {
            flash_prefill::per_query_head(&problem, alpha, last_blocks).map(Some)
        }
        Baseline::FlashPrefillV2 { alpha, last_blocks } => {
            flash_prefill::per_kv_head(&problem, alpha, last_blocks).map(Some)
        }
        Baseline::Pooled {
            parts,
            means,
            mass,
            sink,
            window,
            together,
        } => {
            let pooled = Pooled {
                parts,
                means,
                mass,
                sink,
                window,
                together: together == 1,
            };
            pooled.index(&problem).map(Some)
        }
    }
}
