//! The mean queries of a cube's tiles.

use cubecl::prelude::*;
use sparse_accelerate_contract::QUERY_TILE;

use super::ShareBlueprint;
use crate::select::product::NOTHING;

/// Rows of a part that are in flight at once.
const AT_ONCE: usize = 16;

/// Writes the mean queries of the cube's columns, and to `weights` the logarithm to base 2 of what each counts: that
/// of a head. `head` is where the first head's queries begin.
#[cube]
pub(super) fn mean_queries<E: Float, F: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    columns: &mut Shared<[Vector<F, N>]>,
    weights: &mut Shared<[f32]>,
    head: usize,
    first_tile: u32,
    query_len: u32,
    #[comptime] bp: ShareBlueprint,
) {
    let tile = comptime!(bp.tile);
    let each = comptime!(QUERY_TILE / bp.parts);
    let at_once = comptime!(AT_ONCE.min(each));
    let wide = comptime!(tile.chunks() * tile.chunk);
    let mut task = UNIT_POS as usize;
    while task < comptime!(tile.keys() * wide) {
        let (column, vector) = (task / wide, task % wide);
        let (of_cube, place) = place(column, bp);
        let (h, part) = (place / comptime!(bp.parts), place % comptime!(bp.parts));
        let tile_first = (first_tile + of_cube as u32) * comptime!(QUERY_TILE as u32);
        let first = tile_first + (part * each) as u32;
        let mut sum = Vector::<f32, N>::new(f32::new(0.0));
        let mut count = 0u32;
        if place < comptime!(bp.used()) && first < query_len {
            count = min(query_len - first, comptime!(each as u32));
            if vector < comptime!(tile.vectors()) {
                let at = head + h * query.stride(1) + first as usize * query.stride(2);
                let at = at / comptime!(tile.width()) + vector;
                let stride = query.stride(2) / comptime!(tile.width());
                if count == comptime!(each as u32) {
                    for i in 0..comptime!(each / at_once) {
                        // All on their way before the first is added.
                        let mut loaded = Array::<Vector<E, N>>::new(at_once);
                        #[unroll]
                        for u in 0..at_once {
                            loaded[u] = query[at + (i * at_once + u) * stride];
                        }
                        #[unroll]
                        for u in 0..at_once {
                            sum += Vector::cast_from(loaded[u]);
                        }
                    }
                } else {
                    for row in 0..count as usize {
                        sum += Vector::cast_from(query[at + row * stride]);
                    }
                }
            }
        }
        let share = f32::new(1.0) / f32::cast_from(max(count, 1u32));
        // Mean queries have the precision of queries on every device.
        let mean = Vector::<E, N>::cast_from(sum * Vector::new(share));
        columns[column * comptime!(tile.whole_pitch()) + vector] = Vector::cast_from(mean);
        if vector == 0 {
            let mut weight = f32::new(NOTHING);
            if count > 0 {
                weight = f32::new(comptime!(-(bp.heads as f32).log2()));
            }
            weights[column] = weight;
        }
        task += comptime!(tile.units());
    }
}

/// Tile of a column among those of the cube, and its place among the tile's columns: all parts of the first head come
/// first. What a unit holds of a row of the products is one tile's, in neighbouring places.
#[cube]
fn place(column: usize, #[comptime] bp: ShareBlueprint) -> (usize, usize) {
    let (set, within) = (
        column / comptime!(bp.mixed()),
        column % comptime!(bp.mixed()),
    );
    let unit = within % 8 / 2;
    let tile = set * comptime!(bp.set_tiles()) + unit / comptime!(bp.holders());
    let place =
        unit % comptime!(bp.holders()) * comptime!(bp.values()) + within / 8 * 2 + within % 2;
    (tile, place)
}

/// Tile, among those of the cube, of the columns that this unit holds of a set.
#[cube]
pub(super) fn own_tile(#[comptime] set: usize, #[comptime] bp: ShareBlueprint) -> usize {
    let group = UNIT_POS_Y as usize / comptime!(bp.tile.row_planes);
    (group * comptime!(bp.sets()) + set) * comptime!(bp.set_tiles())
        + UNIT_POS_X as usize % 4 / comptime!(bp.holders())
}
