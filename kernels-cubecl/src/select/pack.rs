//! The work of a cube of the probes or of the scores: query heads that share a KV head, times a part of a
//! sequence; and the tiles that a device has for it.

use cubecl::{
    ir::{DeviceProperties, ElemType},
    prelude::*,
};

use super::product::Tile;
use crate::{Refusal, attend::mma, layout::supports, table::Span};

/// A row that does not exist.
pub(super) const NOWHERE: u32 = u32::MAX;

/// The heads and the sequence of a cube.
#[derive(CubeType)]
pub(super) struct Pack {
    /// Sequence.
    pub(super) b: u32,
    /// KV head.
    pub(super) kv_head: u32,
    /// First of the query heads.
    pub(super) first_head: u32,
    /// Query heads, at most as many as there are slots.
    pub(super) heads: u32,
    /// Span of the sequence.
    pub(super) span: Span,
    /// Absolute position of its first query row.
    pub(super) offset: u32,
    /// Begin of the cube's part of the sequence: a key of the probes, a query block of the scores.
    pub(super) first: u32,
}

#[cube]
impl Pack {
    /// Finds the pack of cube `cube`, where `parts` cubes share a pack and `packs` a KV head.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        table: &[u32],
        cube: u32,
        parts: u32,
        first: u32,
        kv_heads: u32,
        packs: u32,
        heads_per_kv: u32,
        #[comptime] slots: usize,
    ) -> Pack {
        let slots = comptime!(slots as u32);
        let pack = cube / parts % packs;
        let kv_head = cube / (parts * packs) % kv_heads;
        let b = cube / (parts * packs * kv_heads);
        let span = Span::of(table, b);
        Pack {
            b,
            kv_head,
            first_head: kv_head * heads_per_kv + pack * slots,
            heads: min(slots, heads_per_kv - pack * slots),
            offset: span.offset(),
            span,
            first,
        }
    }
}

/// Lists the tiles that a device has, in the order of preference: those of matrix units where they serve
/// the type, then those of scalar units.
///
/// # Errors
/// [`Refusal::ElementType`] if the device does not compute with the type at all.
pub(super) fn tiles(
    matrix: impl IntoIterator<Item = Tile>,
    units: [Tile; 2],
    elem: ElemType,
    device: &DeviceProperties,
) -> Result<Vec<Tile>, Refusal> {
    supports(elem, device)?;
    let mut all = Vec::new();
    if mma::serves(elem, device) {
        all.extend(matrix);
    }
    all.extend(units);
    Ok(all)
}

/// Makes the plans of all tiles that fit a device.
pub(super) fn plans<P>(tiles: Vec<Tile>, plan: impl Fn(Tile) -> Result<P, Refusal>) -> Vec<P> {
    tiles
        .into_iter()
        .filter_map(|tile| plan(tile).ok())
        .collect()
}
