//! The tier that needs nothing: attention in scalar units, shared memory and barriers.
//!
//! One cube owns `rows` packed query rows of one query tile and walks the tile's ranges, then its columns,
//! 32 keys a step, on the tile of [`crate::tile::unit`].
//!
//! Memory: shared memory is the same for every head dimension: chunks of Q and of K or V, the
//! probabilities, row partials, key positions; 14 KiB for 32 rows, 24 KiB for 64. Q is read again at every
//! step. Numbers: everything in f32; running maximum and sum per row; the sum over a row's units is taken
//! once at the end. Keys that a row does not see have probability 0; a row that sees none, or is past its
//! sequence, writes zeros and `lse = -inf`. Keys past a range are never read.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;

use super::UnitBlueprint;
use crate::{
    table::{Call, Items, Limits, Place, Rule},
    tile::unit::{self, CHUNK, KEYS, PER_UNIT, PITCH, Softmax, UNITS_X, UnitTile, Vec4},
};

/// Position of a slot past the end of a range.
const NOWHERE: u32 = u32::MAX;
/// Score of a key that is not seen; finite, since not every device has infinities.
const UNSEEN: f32 = -1.0e30;

/// See the module documentation. `table` as in the extension trait: spans `[B, 4]`, then index rows
/// `[B * index_heads * tiles, 4]`, ranges, columns.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(crate) fn attend_unit<E: Float>(
    query: &Tensor<Vec4<E>>,
    key: &Tensor<Vec4<E>>,
    value: &Tensor<Vec4<E>>,
    table: &[u32],
    out: &mut Tensor<Vec4<E>>,
    lse: &mut [f32],
    call: Call,
    limits: Limits,
    #[comptime] with_lse: bool,
    #[comptime] bp: UnitBlueprint,
    #[define(E)] _elem: ElemType,
) {
    let tile = comptime!(bp.tile());
    let walk = comptime!(bp.walk());
    let ux = UNIT_POS_X as usize;
    let uy = UNIT_POS_Y as usize;
    let place = Place::new(table, call, comptime!(bp.tiling()));
    let rule = Rule::new(&limits, place.span.dense_from);

    let mut q_tile = Shared::<[Vec4<f32>]>::new_slice(comptime!(bp.rows() * PITCH));
    let mut kv_tile = Shared::<[Vec4<f32>]>::new_slice(comptime!(KEYS * PITCH));
    let mut probabilities = Shared::<[Vec4<f32>]>::new_slice(comptime!(bp.rows() * PITCH));
    let mut partials = Shared::<[f32]>::new_slice(comptime!(bp.rows() * UNITS_X));
    let mut positions = Shared::<[u32]>::new_slice(KEYS);

    // The four rows of this unit.
    let mut row_of = Array::<u32>::new(PER_UNIT);
    let mut exists = Array::<bool>::new(PER_UNIT);
    let mut softmax = Softmax::new();
    #[unroll]
    for r in 0..PER_UNIT {
        let packed = place.first_packed + u32::cast_from(uy * PER_UNIT + r);
        row_of[r] = place.row(packed);
        exists[r] = packed < place.tile_rows && row_of[r] < place.span.query_len;
        softmax.maximum[r] = f32::new(UNSEEN);
        softmax.sum[r] = f32::new(0.0);
    }
    let mut acc = unit::no_output(tile);

    let items = Items::of(
        table,
        place.index_row(),
        rule.start(place.first_position(), comptime!(bp.windowed)),
        place.end_position(comptime!(bp.rows())),
        walk,
    );
    let mut count = items.count();
    // A cube whose rows are all padding walks nothing and writes zeros.
    if !place.has_rows() {
        count = 0;
    }
    for item in 0..count {
        let gathered = item == items.ranges;
        let end = items.end(table, item, walk);
        let mut at = items.start(table, item, walk);
        while at < end {
            sync_cube();
            look_up(&mut positions, table, &items, at, end, gathered, bp);
            sync_cube();

            // Scores of 4 rows x 4 keys, chunk by chunk of the head dimension.
            let mut scores = unit::no_products();
            for chunk in 0..comptime!(tile.chunks()) {
                if chunk > 0 {
                    sync_cube();
                }
                unit::stage_query(query, &mut q_tile, &place, chunk, false, tile);
                stage::<E>(key, &mut kv_tile, &positions, &place, chunk, tile);
                sync_cube();
                unit::dots(&q_tile, &kv_tile, &mut scores);
            }

            // Visibility, and the row maximum over the 8 units of a row.
            let mut p = Array::<f32>::new(comptime!(PER_UNIT * PER_UNIT));
            let mut seen = Array::<bool>::new(comptime!(PER_UNIT * PER_UNIT));
            #[unroll]
            for r in 0..PER_UNIT {
                let position = place.offset + row_of[r];
                let mut highest = f32::new(UNSEEN);
                #[unroll]
                for c in 0..PER_UNIT {
                    let i = comptime!(r * PER_UNIT + c);
                    let j = positions[ux + c * UNITS_X];
                    let mut sees = exists[r] && j <= position;
                    if comptime!(bp.banded) {
                        if sees && !gathered {
                            sees = rule.in_band(j, position);
                        }
                    }
                    if comptime!(bp.windowed) {
                        sees = sees && rule.in_window(j, position);
                    }
                    seen[i] = sees;
                    p[i] = unit::total(scores[i]) * place.call.scale;
                    if sees {
                        highest = max(highest, p[i]);
                    }
                }
                partials[(uy * PER_UNIT + r) * UNITS_X + ux] = highest;
            }
            sync_cube();
            softmax.weigh(&p, &seen, &partials, &mut probabilities, true);

            #[unroll]
            for chunk in 0..comptime!(tile.chunks()) {
                sync_cube();
                stage::<E>(value, &mut kv_tile, &positions, &place, chunk, tile);
                sync_cube();
                unit::weigh(&probabilities, &kv_tile, &softmax.alpha, &mut acc, chunk);
            }
            at += u32::cast_from(comptime!(KEYS));
        }
    }

    softmax.share_sums(&mut partials);
    #[unroll]
    for r in 0..PER_UNIT {
        let packed = place.first_packed + u32::cast_from(uy * PER_UNIT + r);
        if packed < place.tile_rows && row_of[r] < place.call.rows {
            let total = softmax.row_sum(&partials, r);
            let mut inverse = f32::new(0.0);
            if total > 0.0 {
                inverse = f32::new(1.0) / total;
            }
            let to = place.row_at(&*out, packed);
            #[unroll]
            for chunk in 0..comptime!(tile.chunks()) {
                let vector = chunk * CHUNK + ux;
                if vector < comptime!(tile.vectors()) {
                    let i = comptime!(chunk * PER_UNIT + r);
                    out[to / 4 + vector] = Vec4::<E>::cast_from(acc[i] * Vector::new(inverse));
                }
            }
            if comptime!(with_lse) {
                if ux == 0 {
                    // ln(0) = -inf for a row that saw nothing.
                    lse[place.lse_at(packed)] = softmax.maximum[r] + total.ln();
                }
            }
        }
    }
}

/// Key positions of a step; past the end: none.
#[cube]
fn look_up(
    positions: &mut Shared<[u32]>,
    table: &[u32],
    items: &Items,
    at: u32,
    end: u32,
    gathered: bool,
    #[comptime] bp: UnitBlueprint,
) {
    if (UNIT_POS as usize) < KEYS {
        let slot = at + UNIT_POS;
        let mut position = NOWHERE.runtime();
        if slot < end {
            position = slot;
            if comptime!(bp.indexed) {
                if gathered {
                    position = table[(items.columns_at + slot) as usize];
                }
            }
        }
        positions[UNIT_POS as usize] = position;
    }
}

/// Stages one chunk of the step's 32 keys or values; positions past the end become zeros.
#[cube]
fn stage<E: Float>(
    from: &Tensor<Vec4<E>>,
    to: &mut Shared<[Vec4<f32>]>,
    positions: &Shared<[u32]>,
    place: &Place,
    chunk: usize,
    #[comptime] tile: UnitTile,
) {
    #[unroll]
    for i in 0..comptime!(KEYS * CHUNK / tile.units()) {
        let slot = i * comptime!(tile.units()) + UNIT_POS as usize;
        let (row, v) = (slot / CHUNK, slot % CHUNK);
        let position = positions[row];
        let vector = chunk * CHUNK + v;
        let mut loaded = Vec4::<f32>::new(f32::new(0.0));
        if position != NOWHERE.runtime() && vector < comptime!(tile.vectors()) {
            let at = place.kv_at(from) + position as usize * from.stride(2);
            loaded = Vec4::<f32>::cast_from(from[at / 4 + vector]);
        }
        to[row * PITCH + v] = loaded;
    }
}
