//! The cube's program: stage Q, then per step wait, stage the next, score, mask, weigh; write.

use cubecl::{cmma::MmaDefinition, prelude::*};

use super::{
    MmaBlueprint, copy, hopper,
    pipeline::Pipeline,
    rows,
    tile::{self, Pair},
};
use crate::table::{Call, Cursor, Items, Limits, Place, Rule};

/// Maximum of a row that has seen nothing: above [`tile::UNSEEN`], below every score.
const NOTHING: f32 = -1.0e30;

/// Arguments as in `attend_unit`; all strides are multiples of 8, `N` is 8.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(crate) fn attend_mma<E: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    key: &Tensor<Vector<E, N>>,
    value: &Tensor<Vector<E, N>>,
    table: &[u32],
    out: &mut Tensor<Vector<E, N>>,
    lse: &mut [f32],
    call: Call,
    limits: Limits,
    #[comptime] with_lse: bool,
    #[comptime] bp: MmaBlueprint,
    #[define(E)] _elem: ElemType,
) {
    let walk = comptime!(bp.walk());
    let plane_row = UNIT_POS_Y * comptime!((bp.m_tiles * 16) as u32);
    let place = Place::new(table, call, comptime!(bp.tiling()));
    let rule = Rule::new(&limits, place.span.dense_from);

    let mut memory =
        Shared::<[Vector<E, N>]>::new_aligned_slice(comptime!(bp.shared_vectors()), 1024usize);
    let mut positions =
        Shared::<[u32]>::new_slice(comptime!(if bp.columns { 2 * bp.keys } else { 1 }));

    copy::stage_query(query, &mut memory, &place, bp);
    copy::pad(&mut memory, 0usize, comptime!(bp.rows()), bp);
    sync_cube();

    let def = MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize);
    let mut held = Sequence::<Array<Pair<E>>>::new();
    if comptime!(bp.query_in_registers && !bp.wgmma()) {
        #[unroll]
        for m in 0..comptime!(bp.m_tiles) {
            #[unroll]
            for k in 0..comptime!(bp.depth()) {
                held.push(tile::load_query(
                    &def,
                    &memory,
                    plane_row as usize + comptime!(m * 16),
                    k,
                    bp,
                ));
            }
        }
        sync_cube();
    }
    #[unroll]
    for stage in 0..comptime!(bp.key_stages()) {
        copy::pad(
            &mut memory,
            comptime!(bp.key_at(stage)),
            comptime!(bp.keys),
            bp,
        );
    }

    // The rows of this unit: two per block of 16.
    let mut position = Array::<u32>::new(comptime!(bp.m_tiles * 2));
    let mut maximum = Array::<f32>::new(comptime!(bp.m_tiles * 2));
    let mut sum = Array::<f32>::new(comptime!(bp.m_tiles * 2));
    #[unroll]
    for r in 0..comptime!(bp.m_tiles * 2) {
        let packed = place.first_packed + plane_row + UNIT_POS_X / 4 + comptime!(r as u32 * 8);
        position[r] = place.offset + place.row(packed);
        maximum[r] = f32::new(NOTHING);
        sum[r] = f32::new(0.0);
    }
    let mut o = tile::zeros(comptime!(bp.m_tiles * bp.out_tiles()));

    let pipeline = Pipeline::new(key, value, &memory, &place, bp);
    let factor = place.call.scale * f32::new(core::f32::consts::LOG2_E);
    let first = place.first_position();
    let end = place.end_position(comptime!(bp.rows()));
    let start = rule.start(first, comptime!(bp.windowed));
    let items = Items::of(table, place.index_row(), start, end, walk);

    // `step` computes, `next` is being copied, `ahead` is being looked up.
    let mut ahead = Cursor::new(table, items, place.has_rows(), walk);
    let mut step = ahead.step();
    let mut parity = 0usize;
    let mut look_up = 0usize;
    if comptime!(bp.columns) {
        let column = ahead.column(table, walk);
        ahead.keep_column(column, &mut positions, look_up, walk);
        sync_cube();
    }
    pipeline.begin(key, value, &mut memory, &positions, look_up, &step, bp);
    ahead.advance(table, walk);
    if comptime!(bp.columns) {
        let column = ahead.column(table, walk);
        look_up = comptime!(bp.keys);
        ahead.keep_column(column, &mut positions, look_up, walk);
    }
    let mut next = ahead.step();

    while step.live {
        let key_here = comptime!(bp.key_at(0)) + parity * comptime!(bp.tile());
        let mut value_here = comptime!(bp.value_at()).runtime();
        if comptime!(bp.value_stages() == 2) {
            value_here += parity * comptime!(bp.tile());
        }
        if comptime!(bp.asynchronous) {
            parity = 1 - parity;
        }
        pipeline.turn(
            key,
            value,
            &mut memory,
            &positions,
            look_up,
            parity,
            &step,
            &next,
            bp,
        );
        ahead.advance(table, walk);
        let mut column = 0u32;
        if comptime!(bp.columns) {
            column = ahead.column(table, walk);
        }

        let mut s = if comptime!(bp.wgmma()) {
            hopper::scores(pipeline.base, key_here, bp)
        } else {
            tile::scores(&def, &memory, key_here, &held, bp)
        };
        let partial = step.crosses(first, end, &rule, walk);
        if partial {
            tile::mask(&mut s, &position, &ahead, &step, &rule, table, bp);
        }
        let p = tile::softmax::<E>(&s, &mut maximum, &mut sum, &mut o, factor, bp);
        if comptime!(bp.late_values) {
            copy::land(1u32, bp);
        }
        if comptime!(bp.wgmma()) {
            hopper::weigh(pipeline.base, value_here, &p, &mut o, bp);
        } else {
            tile::weigh(&def, &memory, value_here, &p, &mut o, bp);
        }

        step.follow(&next);
        next.follow(&ahead.step());
        if comptime!(bp.columns) {
            look_up = comptime!(bp.keys) - look_up;
            ahead.keep_column(column, &mut positions, look_up, walk);
        }
    }

    // Through shared memory, so that rows leave in whole vectors.
    sync_cube();
    rows::write(
        &o,
        &maximum,
        &sum,
        &mut memory,
        out,
        lse,
        &place,
        with_lse,
        bp,
    );
}
