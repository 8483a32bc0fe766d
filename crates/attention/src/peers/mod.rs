//! Published selectors as index builders, for comparison on the same index and the same kernels.
//!
//! Each peer scores keys with tensor operations on the tensors' device, reduces the scores there
//! (column sums, diagonal sums, block sums) and cuts the sets on the host by the rule of its paper or
//! repository. So what differs between two peers is what they keep, not how it is computed; the times
//! of a selection are those of plain tensor operations, not of each author's fused kernels.
//!
//! Products `q . k` are in the tensors' type with the softmax scale applied first, as the published
//! programs have them; softmax, sums and cuts are in f32 and f64. Ties go to the lower index.
//!
//! Blocks are 128 tokens at absolute positions. A mean or a score of a partial block is over its real
//! tokens. Block peers need sequences whose first new row stands at a multiple of [`QUERY_TILE`].
//!
//! [`QUERY_TILE`]: crate::index::QUERY_TILE

mod attend;
mod cut;
mod flash_prefill;
mod flex_prefill;
mod minference;
mod parse;
mod peer;
mod problem;
mod scores;
mod xattention;

pub use attend::{PeerOutput, attend};
pub use peer::Peer;

use burn::tensor::Tensor;

use crate::{
    error::AttentionError,
    index::{self, TileIndex},
    pattern::Triangular,
    span::Span,
};
use problem::Problem;

/// Tokens of a block.
pub const BLOCK: usize = 128;

/// What a peer keeps of one chunk of one layer; `None` where it computes the layer densely.
///
/// The index has one head per query head, one per KV head for [`Peer::FlashPrefillV2`], and one in
/// all for the peers that look at no input.
///
/// # Shapes
/// `query` `[B, Hq, N, d]`, right-padded to the longest span; `key` `[B, Hk, S, d]` with `S >= kv_len`
/// of every span. What lies past a span's rows and keys is not read.
///
/// # Errors
/// Parameters out of range, shapes that disagree with each other or with the spans, a first row off
/// the grid of a block peer, or scores that cannot be read back.
pub fn index(
    peer: &Peer,
    layer: usize,
    query: &Tensor<4>,
    key: &Tensor<4>,
    spans: &[Span],
) -> Result<Option<TileIndex>, AttentionError> {
    peer.validate()?;
    let problem = Problem::new(query, key, spans)?;
    let triangle = |sink, window, last| {
        let pattern = Triangular { sink, window, last };
        index::triangular(spans, &pattern).map(Some)
    };
    match *peer {
        Peer::AShape { sink, window } => triangle(sink, window, 0),
        Peer::TriShape { sink, window, last } => triangle(sink, window, last),
        Peer::TriangleMix { first_layer, .. } if layer < first_layer => Ok(None),
        Peer::TriangleMix {
            sink, window, last, ..
        } => triangle(sink, window, last),
        Peer::MInference { vertical, slash } => {
            minference::index(&problem, vertical, slash).map(Some)
        }
        Peer::FlexPrefill {
            gamma,
            tau,
            min_budget,
        } => flex_prefill::index(&problem, gamma, tau, min_budget).map(Some),
        Peer::XAttention { stride, threshold } => {
            xattention::index(&problem, stride, threshold).map(Some)
        }
        Peer::FlashPrefillV1 { alpha } => flash_prefill::per_query_head(&problem, alpha).map(Some),
        Peer::FlashPrefillV2 { alpha } => flash_prefill::per_kv_head(&problem, alpha).map(Some),
    }
}
