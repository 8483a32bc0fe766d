//! Selection and attention in one call.

use std::time::Instant;

use burn::tensor::Tensor;

use crate::{
    AttentionPlan, AttentionSettings,
    error::AttentionError,
    index::TileIndex,
    pattern::{BlockCluster, IntervalSlash, Pattern, Triangular},
    peers::{Peer, index, scores},
    span::Span,
};

/// What [`attend`] gives.
#[derive(Debug, Clone)]
pub struct PeerOutput {
    /// As of [`crate::attend`].
    pub output: Tensor<4>,
    /// What was kept; `None` where the peer computes this layer densely.
    pub index: Option<TileIndex>,
    /// Wall time of scores, cuts and index, seconds; not of the index's upload.
    pub selection_seconds: f64,
}

/// Attention with a peer's choice for this layer and chunk.
///
/// # Shapes
/// As [`crate::attend`].
///
/// # Errors
/// As [`index()`] and [`crate::attend`].
pub fn attend(
    peer: &Peer,
    layer: usize,
    query: Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    spans: &[Span],
) -> Result<PeerOutput, AttentionError> {
    let device = query.device();
    // What was queued before is not the selection's time.
    device
        .sync()
        .map_err(|error| scores::failed(error.to_string()))?;
    let start = Instant::now();
    let index = index(peer, layer, &query, key, spans)?;
    let selection_seconds = start.elapsed().as_secs_f64();
    let plan = match &index {
        Some(index) => AttentionPlan::with_index(index.clone(), nearest(peer), &device)?,
        None => AttentionPlan::new(&AttentionSettings::dense(), spans, &device)?,
    };
    Ok(PeerOutput {
        output: crate::attend(query, key, value, &plan)?,
        index,
        selection_seconds,
    })
}

/// The pattern that a plan made for a peer records: the one of its shape.
fn nearest(peer: &Peer) -> Pattern {
    match *peer {
        Peer::AShape { sink, window } => {
            let last = 0;
            Pattern::Triangular(Triangular { sink, window, last })
        }
        Peer::TriShape { sink, window, last }
        | Peer::TriangleMix {
            sink, window, last, ..
        } => Pattern::Triangular(Triangular { sink, window, last }),
        Peer::MInference { vertical, slash } => Pattern::IntervalSlash(IntervalSlash {
            columns: vertical,
            slashes: slash,
        }),
        Peer::FlexPrefill { .. }
        | Peer::XAttention { .. }
        | Peer::FlashPrefillV1 { .. }
        | Peer::FlashPrefillV2 { .. } => Pattern::BlockCluster(BlockCluster::default()),
    }
}
