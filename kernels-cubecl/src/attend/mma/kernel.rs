//! The cube's program: stage Q, then per step wait, stage the next, score, mask, weigh; write.

use cubecl::{cmma::MmaDefinition, prelude::*};

use super::{
    MmaBlueprint, VECTOR, copy, hopper,
    tile::{self, Pair},
    write,
};
use crate::attend::{
    gate,
    visible::Rule,
    walk::{Cursor, Rows},
};

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
    batch: u32,
    groups: u32,
    pack: u32,
    heads_per_kv: u32,
    n_rows: u32,
    tiles: u32,
    splits: u32,
    index_heads: u32,
    scale: f32,
    sink: u32,
    band: u32,
    window: ComptimeOption<u32>,
    #[comptime] with_lse: bool,
    #[comptime] bp: MmaBlueprint,
    #[define(E)] _elem: ElemType,
) {
    let rows = comptime!(bp.rows());
    let pitch = comptime!(bp.pitch());
    let vectors = comptime!(bp.vectors());
    let units = comptime!(bp.units());
    let lane = UNIT_POS_X;
    let unit = UNIT_POS as usize;
    let plane_row = UNIT_POS_Y * comptime!((bp.m_tiles * 16) as u32);

    // Which rows: the last tiles, which see most, come first.
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= batch * groups * tiles * splits {
        terminate!();
    }
    let split = cube % splits;
    let tile = tiles - 1 - (cube / splits) % tiles;
    let group = (cube / (splits * tiles)) % groups;
    let b = cube / (splits * tiles * groups);
    if comptime!(bp.gated) {
        let index_head = group * index_heads / groups;
        let row_tiles = gate::row_tiles(tiles, n_rows, bp.indexed);
        if !gate::serves(
            table,
            batch,
            index_heads,
            row_tiles,
            b,
            index_head,
            bp.indexed,
        ) {
            terminate!();
        }
    }
    let kv_head = group * pack / heads_per_kv;
    let q_len = table[(b * 4) as usize];
    let kv_len = table[(b * 4 + 1) as usize];
    let dense_from = table[(b * 4 + 2) as usize];
    let offset = kv_len - q_len;
    let rule = Rule::new(sink, band, dense_from, &window);

    let mut memory =
        Shared::<[Vector<E, N>]>::new_aligned_slice(comptime!(bp.shared_vectors()), 1024usize);
    let mut positions =
        Shared::<[u32]>::new_slice(comptime!(if bp.columns { 2 * bp.keys } else { 1 }));

    let tile_rows = comptime!(bp.tile_tokens as u32) * pack;
    let first_packed = split * comptime!(rows as u32);
    let last_packed = min(first_packed + comptime!(rows as u32), tile_rows) - 1;
    let tile_first = tile * comptime!(bp.tile_tokens as u32);
    let cube_first = tile_first + first_packed / pack;
    let cube_last = min(tile_first + last_packed / pack + 1, q_len);

    // Q to shared memory; rows that do not exist are zeros.
    let query_at = b as usize * query.stride(0);
    #[unroll]
    for i in 0..comptime!((rows * vectors).div_ceil(units)) {
        let slot = unit + i * units;
        let (row, vector) = (slot / vectors, slot % vectors);
        if comptime!((i + 1) * units <= rows * vectors) || slot < rows * vectors {
            let packed = first_packed + row as u32;
            let token = tile_first + packed / pack;
            let mut loaded = Vector::<E, N>::new(E::from_int(0));
            if packed < tile_rows && token < q_len {
                let head = group * pack + packed % pack;
                let from =
                    query_at + head as usize * query.stride(1) + token as usize * query.stride(2);
                loaded = query[from / comptime!(VECTOR) + vector];
            }
            if comptime!(bp.wgmma()) {
                memory[hopper::swizzled(row, vector, rows, bp)] = loaded;
            } else {
                memory[row * pitch + vector] = loaded;
            }
        }
    }
    copy::pad(&mut memory, 0usize, rows, bp);
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
        let packed = first_packed + plane_row + lane / 4 + comptime!(r as u32 * 8);
        position[r] = offset + tile_first + packed / pack;
        maximum[r] = f32::new(NOTHING);
        sum[r] = f32::new(0.0);
    }
    let mut o = tile::zeros(comptime!(bp.m_tiles * bp.out_tiles()));

    let key_rows = Rows {
        first: (b as usize * key.stride(0) + kv_head as usize * key.stride(1)) / comptime!(VECTOR),
        stride: key.stride(2) / comptime!(VECTOR),
    };
    let value_rows = Rows {
        first: (b as usize * value.stride(0) + kv_head as usize * value.stride(1))
            / comptime!(VECTOR),
        stride: value.stride(2) / comptime!(VECTOR),
    };
    let index_row =
        batch * 4 + ((b * index_heads + group * index_heads / groups) * tiles + tile) * 4;
    let factor = scale * f32::new(core::f32::consts::LOG2_E);

    // `step` computes, `next` is being copied, `ahead` is being looked up.
    let walk = comptime!(bp.walk());
    let mut ahead = Cursor::new(
        table,
        index_row,
        rule.start(offset + cube_first, comptime!(bp.windowed)),
        offset + cube_last,
        cube_first < q_len,
        walk,
    );
    let mut step = ahead.step();
    let mut base = 0u32;
    if comptime!(bp.asynchronous) {
        base = copy::address(&memory);
    }
    let mut parity = 0usize;
    let mut look_up = 0usize;
    if comptime!(bp.columns) {
        let column = ahead.column(table, walk);
        ahead.keep_column(column, &mut positions, look_up, walk);
        sync_cube();
    }
    let value_at = comptime!(bp.value_at());
    if comptime!(bp.asynchronous) {
        if step.live {
            let at = comptime!(bp.key_at(0));
            copy::stage(
                key,
                &key_rows,
                &mut memory,
                base,
                at,
                &positions,
                look_up,
                &step,
                bp,
            );
            if comptime!(!bp.late_values) {
                copy::stage(
                    value,
                    &value_rows,
                    &mut memory,
                    base,
                    value_at,
                    &positions,
                    look_up,
                    &step,
                    bp,
                );
            }
        }
        copy::commit();
    }
    ahead.advance(table, walk);
    if comptime!(bp.columns) {
        let column = ahead.column(table, walk);
        look_up = comptime!(bp.keys);
        ahead.keep_column(column, &mut positions, look_up, walk);
    }
    let mut next = ahead.step();

    while step.live {
        let key_here = comptime!(bp.key_at(0)) + parity * comptime!(bp.tile());
        let mut value_here = value_at.runtime();
        if comptime!(bp.value_stages() == 2) {
            value_here += parity * comptime!(bp.tile());
        }
        // Where the columns of this step are looked up; those of the next one are at `look_up`.
        let current = comptime!(bp.keys) - look_up;
        if comptime!(bp.asynchronous) {
            // This step's tiles have landed, and nobody reads the other ones any more.
            copy::land(0u32, bp);
            parity = 1 - parity;
            if comptime!(bp.late_values) {
                copy::stage(
                    value,
                    &value_rows,
                    &mut memory,
                    base,
                    value_at,
                    &positions,
                    current,
                    &step,
                    bp,
                );
                copy::commit();
            }
            if next.live {
                let at = comptime!(bp.key_at(0)) + parity * comptime!(bp.tile());
                copy::stage(
                    key,
                    &key_rows,
                    &mut memory,
                    base,
                    at,
                    &positions,
                    look_up,
                    &next,
                    bp,
                );
                if comptime!(!bp.late_values) {
                    let at = value_at + parity * comptime!(bp.tile());
                    copy::stage(
                        value,
                        &value_rows,
                        &mut memory,
                        base,
                        at,
                        &positions,
                        look_up,
                        &next,
                        bp,
                    );
                }
            }
            copy::commit();
        } else {
            sync_cube();
            copy::stage(
                key,
                &key_rows,
                &mut memory,
                base,
                key_here,
                &positions,
                current,
                &step,
                bp,
            );
            copy::stage(
                value,
                &value_rows,
                &mut memory,
                base,
                value_here,
                &positions,
                current,
                &step,
                bp,
            );
            sync_cube();
        }
        ahead.advance(table, walk);
        let mut column = 0u32;
        if comptime!(bp.columns) {
            column = ahead.column(table, walk);
        }

        let mut s = if comptime!(bp.wgmma()) {
            hopper::scores(base, key_here, bp)
        } else {
            tile::scores(&def, &memory, key_here, &held, bp)
        };
        let partial = step.crosses(offset + cube_first, offset + cube_last, &rule, walk);
        if partial {
            tile::mask(&mut s, &position, &ahead, &step, &rule, table, bp);
        }
        let p = tile::softmax::<E>(&s, &mut maximum, &mut sum, &mut o, factor, bp);
        if comptime!(bp.late_values) {
            copy::land(1u32, bp);
        }
        if comptime!(bp.wgmma()) {
            hopper::weigh(base, value_here, &p, &mut o, bp);
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
    write::write(
        &o,
        &maximum,
        &sum,
        &mut memory,
        out,
        lse,
        b,
        group,
        groups,
        pack,
        n_rows,
        q_len,
        tile_first,
        first_packed,
        tile_rows,
        scale,
        with_lse,
        bp,
    );
}
