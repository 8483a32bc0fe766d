//! The correction in scalar units, shared memory and barriers: runs on every device, in 16 KiB of shared
//! memory.
//!
//! One cube owns 32 packed query rows of one query tile, as in the portable attention, whose tile it shares
//! (see [`crate::tile::unit`]): a step is 32 key blocks.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;

use super::{Blueprint, Order, first_whole, left_out::LeftOut, pooled_at, whole_blocks};
use crate::{
    table::{Call, Place, Window},
    tile::unit::{self, CHUNK, KEYS, PER_UNIT, PITCH, Softmax, UNITS_X, UnitTile, Vec4},
};

/// Units along query rows.
pub(super) const UNITS_Y: usize = 8;

/// Arguments as in `correct_mma`.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn correct_unit<E: Float>(
    query: &Tensor<Vec4<E>>,
    pooled: &[Vec4<f32>],
    table: &[u32],
    out: &mut Tensor<Vec4<E>>,
    lse: &[f32],
    corrected: &mut [f32],
    call: Call,
    capacity: u32,
    cap: f32,
    window: ComptimeOption<u32>,
    #[comptime] bp: Blueprint,
    #[define(E)] _elem: ElemType,
) {
    let tile = comptime!(UnitTile {
        units_y: UNITS_Y,
        head_dim: bp.head_dim,
    });
    let ux = UNIT_POS_X as usize;
    let uy = UNIT_POS_Y as usize;
    let place = Place::new(table, call, comptime!(bp.tiling(tile.rows())));
    let window = Window::of(&window);
    let blocks = whole_blocks(&place, &window);

    let mut q_tile = Shared::<[Vec4<f32>]>::new_slice(comptime!(tile.rows() * PITCH));
    let mut staged = Shared::<[Vec4<f32>]>::new_slice(comptime!(KEYS * PITCH));
    let mut probabilities = Shared::<[Vec4<f32>]>::new_slice(comptime!(tile.rows() * PITCH));
    let mut partials = Shared::<[f32]>::new_slice(comptime!(tile.rows() * UNITS_X));
    let mut left = LeftOut::new(bp.segment);

    // The rows of this unit begin with what attention has found: a sum of 1 at its log-sum-exp.
    let mut exists = Array::<bool>::new(PER_UNIT);
    let mut before = Array::<f32>::new(PER_UNIT);
    let mut softmax = Softmax::new();
    #[unroll]
    for r in 0..PER_UNIT {
        let packed = place.first_packed + u32::cast_from(uy * PER_UNIT + r);
        let row = place.row(packed);
        exists[r] = packed < place.tile_rows && row < place.span.query_len;
        before[r] = f32::new(0.0);
        softmax.sum[r] = f32::new(0.0);
        if packed < place.tile_rows && row < place.call.rows {
            before[r] = lse[place.lse_at(packed)];
            if comptime!(bp.with_lse) {
                // A row past its sequence keeps its own.
                if ux == 0 && (row >= place.span.query_len || blocks == 0) {
                    corrected[place.lse_at(packed)] = before[r];
                }
            }
        }
        softmax.maximum[r] = f32::new(0.0);
        if exists[r] {
            softmax.maximum[r] = before[r];
            if ux == 0 {
                softmax.sum[r] = f32::new(1.0);
            }
        }
    }
    if blocks == 0 {
        terminate!();
    }
    let mut acc = unit::no_output(tile);

    let head_at = pooled_at(&place, capacity);
    let mut first = first_whole(&place, &window);
    while first < blocks {
        let live = left.count(
            table,
            place.index_row() as usize,
            first,
            blocks,
            comptime!(bp.segment),
        );
        let steps = min(blocks - first, comptime!(bp.segment.blocks as u32))
            .div_ceil(comptime!(KEYS as u32));
        for step in 0..steps {
            if (live >> step) & 1 == 1 {
                let at = step as usize * KEYS;
                let step_blocks = min(blocks - first - at as u32, comptime!(KEYS as u32)) as usize;
                let block_at = head_at + first as usize + at;

                // Pseudo scores of 4 rows x 4 blocks, chunk by chunk of the head dimension.
                let mut scores = unit::no_products();
                let mut spreads = Array::<f32>::new(comptime!(PER_UNIT * PER_UNIT));
                #[unroll]
                for i in 0..comptime!(PER_UNIT * PER_UNIT) {
                    spreads[i] = f32::new(0.0);
                }
                for chunk in 0..comptime!(tile.chunks()) {
                    sync_cube();
                    unit::stage_query(query, &mut q_tile, &place, chunk, true, tile);
                    stage(
                        pooled,
                        &mut staged,
                        block_at,
                        step_blocks,
                        0usize,
                        chunk,
                        tile,
                    );
                    sync_cube();
                    unit::dots(&q_tile, &staged, &mut scores);
                    if comptime!(bp.order == Order::Second) {
                        sync_cube();
                        stage(
                            pooled,
                            &mut staged,
                            block_at,
                            step_blocks,
                            1usize,
                            chunk,
                            tile,
                        );
                        sync_cube();
                        spread(&q_tile, &staged, &mut spreads);
                    }
                }

                // Logits, and the row maximum over the 8 units of a row.
                let mut p = Array::<f32>::new(comptime!(PER_UNIT * PER_UNIT));
                #[unroll]
                for r in 0..PER_UNIT {
                    let mut highest = softmax.maximum[r];
                    #[unroll]
                    for c in 0..PER_UNIT {
                        let i = comptime!(r * PER_UNIT + c);
                        let mut logit = unit::total(scores[i]);
                        if comptime!(bp.order == Order::Second) {
                            logit += min(0.5 * spreads[i], cap);
                        }
                        p[i] = logit + left.logs[at + ux + c * UNITS_X];
                        highest = max(highest, p[i]);
                    }
                    partials[(uy * PER_UNIT + r) * UNITS_X + ux] = highest;
                }
                sync_cube();
                softmax.weigh(&p, &exists, &partials, &mut probabilities, false);

                #[unroll]
                for chunk in 0..comptime!(tile.chunks()) {
                    sync_cube();
                    stage(
                        pooled,
                        &mut staged,
                        block_at,
                        step_blocks,
                        2usize,
                        chunk,
                        tile,
                    );
                    sync_cube();
                    unit::weigh(&probabilities, &staged, &softmax.alpha, &mut acc, chunk);
                }
            }
        }
        first += comptime!(bp.segment.blocks as u32);
    }

    softmax.share_sums(&mut partials);
    #[unroll]
    for r in 0..PER_UNIT {
        if exists[r] {
            let whole = softmax.row_sum(&partials, r);
            let inverse = 1.0 / whole;
            let share = (before[r] - softmax.maximum[r]).exp() * inverse;
            let packed = place.first_packed + u32::cast_from(uy * PER_UNIT + r);
            let to = place.row_at(&*out, packed);
            #[unroll]
            for chunk in 0..comptime!(tile.chunks()) {
                let vector = chunk * CHUNK + ux;
                if vector < comptime!(tile.vectors()) {
                    let attended = Vec4::<f32>::cast_from(out[to / 4 + vector]);
                    let i = comptime!(chunk * PER_UNIT + r);
                    out[to / 4 + vector] = Vec4::<E>::cast_from(
                        acc[i] * Vector::new(inverse) + attended * Vector::new(share),
                    );
                }
            }
            if comptime!(bp.with_lse) {
                if ux == 0 {
                    corrected[place.lse_at(packed)] = softmax.maximum[r] + whole.ln();
                }
            }
        }
    }
}

/// Stages one chunk of the step's mean keys, variances or mean values; blocks past the step's are zeros.
#[cube]
fn stage(
    pooled: &[Vec4<f32>],
    to: &mut Shared<[Vec4<f32>]>,
    block_at: usize,
    blocks: usize,
    #[comptime] part: usize,
    chunk: usize,
    #[comptime] tile: UnitTile,
) {
    let vectors = comptime!(tile.vectors());
    #[unroll]
    for i in 0..comptime!(KEYS * CHUNK / tile.units()) {
        let slot = i * comptime!(tile.units()) + UNIT_POS as usize;
        let (row, v) = (slot / CHUNK, slot % CHUNK);
        let vector = chunk * CHUNK + v;
        let mut loaded = Vec4::<f32>::new(f32::new(0.0));
        if row < blocks && vector < vectors {
            loaded = pooled[((block_at + row) * 3 + part) * vectors + vector];
        }
        to[row * PITCH + v] = loaded;
    }
}

/// Adds the products of the squares of 4 staged rows and 4 staged blocks, whole, since registers are few.
#[cube]
fn spread(rows: &Shared<[Vec4<f32>]>, blocks: &Shared<[Vec4<f32>]>, sums: &mut Array<f32>) {
    for v in 0..CHUNK {
        let mut squares = Array::<Vec4<f32>>::new(PER_UNIT);
        #[unroll]
        for r in 0..PER_UNIT {
            let row = rows[(UNIT_POS_Y as usize * PER_UNIT + r) * PITCH + v];
            squares[r] = row * row;
        }
        #[unroll]
        for c in 0..PER_UNIT {
            let variance = blocks[(UNIT_POS_X as usize + c * UNITS_X) * PITCH + v];
            #[unroll]
            for r in 0..PER_UNIT {
                sums[r * PER_UNIT + c] += unit::total(squares[r] * variance);
            }
        }
    }
}
