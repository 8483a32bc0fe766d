//! The cube's program: stage Q, then per step stage K and V, score, weigh; write.
//!
//! A step has two barriers of the cube: before its tiles are overwritten and when they are there; two more
//! where V replaces K. Tiles of the next step are not copied ahead: other cubes on the same multiprocessor
//! compute meanwhile.

use cubecl::{cmma, prelude::*};

use super::{CmmaBlueprint, PLANE_ROWS, product, product::Quad, softmax::Row};
use crate::attend::{
    gate,
    visible::Rule,
    walk::{Cursor, Rows, Step},
};

/// Arguments as in `attend_unit`; all strides are multiples of 8, `N` is the blueprint's width.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(crate) fn attend_cmma<E: Float, N: Size>(
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
    #[comptime] bp: CmmaBlueprint,
    #[define(E)] _elem: ElemType,
) {
    let rows = comptime!(bp.rows());
    let width = comptime!(bp.width);
    let walk = comptime!(bp.walk());
    let unit = UNIT_POS as usize;

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

    // Fragments begin at multiples of 32 bytes.
    let mut memory = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime!(bp.staged()), 128usize);
    let mut weights =
        Shared::<[Vector<E, N>]>::new_aligned_slice(comptime!(bp.weights()), 128usize);
    let mut scores = Shared::<[Quad]>::new_aligned_slice(comptime!(bp.scores()), 128usize);
    let mut positions = Shared::<[u32]>::new_slice(comptime!(bp.positions()));

    let tile_rows = comptime!(bp.tile_tokens as u32) * pack;
    let first_packed = split * comptime!(rows as u32);
    let last_packed = min(first_packed + comptime!(rows as u32), tile_rows) - 1;
    let tile_first = tile * comptime!(bp.tile_tokens as u32);
    let cube_first = tile_first + first_packed / pack;
    let cube_last = min(tile_first + last_packed / pack + 1, q_len);

    // Q to shared memory; rows that do not exist are zeros.
    let vectors = comptime!(bp.padded() / bp.width);
    let query_at = b as usize * query.stride(0);
    let per_pass = comptime!(bp.units() / vectors);
    let (first_row, vector) = (unit / vectors, unit % vectors);
    #[unroll]
    for i in 0..comptime!(rows.div_ceil(per_pass)) {
        let row = first_row + comptime!(i * per_pass);
        if first_row < per_pass && row < rows {
            let packed = first_packed + row as u32;
            let token = tile_first + packed / pack;
            let mut loaded = Vector::<E, N>::new(E::from_int(0));
            if packed < tile_rows && token < q_len && vector < comptime!(bp.vectors()) {
                let head = group * pack + packed % pack;
                let from =
                    query_at + head as usize * query.stride(1) + token as usize * query.stride(2);
                loaded = query[from / width + vector];
            }
            memory[row * comptime!(bp.pitch() / bp.width) + vector] = loaded;
        }
    }
    sync_cube();

    let plane_row = UNIT_POS_Y as usize * PLANE_ROWS;
    let mut held = Sequence::<cmma::Matrix<Vector<E, N>>>::new();
    if comptime!(bp.query_in_fragments) {
        #[unroll]
        for k in 0..comptime!(bp.depth()) {
            let at = plane_row * comptime!(bp.pitch() / bp.width)
                + comptime!(k * bp.fragment.k / bp.width);
            product::load_left(&mut held, &memory, at, comptime!(bp.pitch()), bp);
        }
    }

    let row = Row::of_unit(bp);
    let packed = first_packed + row as u32;
    let token = tile_first + packed / pack;
    let mut own = Row::new(row, offset + token, bp);
    let mut o = product::zeros(comptime!(bp.row_tiles() * bp.out_tiles()), bp);

    let key_rows = Rows {
        first: (b as usize * key.stride(0) + kv_head as usize * key.stride(1)) / width,
        stride: key.stride(2) / width,
    };
    let value_rows = Rows {
        first: (b as usize * value.stride(0) + kv_head as usize * value.stride(1)) / width,
        stride: value.stride(2) / width,
    };
    let index_row =
        batch * 4 + ((b * index_heads + group * index_heads / groups) * tiles + tile) * 4;

    let factor = scale * f32::new(core::f32::consts::LOG2_E);

    // `step` computes; `ahead` and `column` are being looked up meanwhile.
    let mut ahead = Cursor::new(
        table,
        index_row,
        rule.start(offset + cube_first, comptime!(bp.windowed)),
        offset + cube_last,
        cube_first < q_len,
        walk,
    );
    let mut step = ahead.step();
    let mut column = 0u32;
    if comptime!(bp.columns) {
        column = ahead.column(table, walk);
    }
    while step.live {
        if comptime!(bp.columns) {
            // The last step's copies, which read these, are behind a barrier.
            ahead.keep_column(column, &mut positions, 0usize, walk);
        }
        // Nobody reads the last step's tiles any more, nor Q where these replace it.
        sync_cube();
        stage(
            key,
            &key_rows,
            &mut memory,
            &positions,
            &step,
            comptime!(bp.key_at()),
            bp,
        );
        if comptime!(!bp.one_tile) {
            stage(
                value,
                &value_rows,
                &mut memory,
                &positions,
                &step,
                comptime!(bp.value_at()),
                bp,
            );
        }
        sync_cube();
        ahead.advance(table, walk);
        if comptime!(bp.columns) {
            column = ahead.column(table, walk);
        }

        product::scores(&held, &memory, &mut scores, plane_row, bp);
        if comptime!(bp.one_tile) {
            // Every plane has read K.
            sync_cube();
            stage(
                value,
                &value_rows,
                &mut memory,
                &positions,
                &step,
                comptime!(bp.value_at()),
                bp,
            );
        } else {
            sync_plane();
        }
        let masked = step.crosses(offset + cube_first, offset + cube_last, &rule, walk);
        own.weigh(
            &mut scores,
            &mut weights,
            &mut o,
            &ahead,
            &step,
            &rule,
            table,
            masked,
            factor,
            bp,
        );
        if comptime!(bp.one_tile) {
            sync_cube();
        } else {
            sync_plane();
        }
        product::weigh(&memory, &weights, &o, plane_row, bp);
        step.follow(&ahead.step());
    }

    let head = group * pack + packed % pack;
    let to =
        b as usize * out.stride(0) + head as usize * out.stride(1) + token as usize * out.stride(2);
    own.write(
        &mut scores,
        &o,
        out,
        lse,
        to / width,
        ((b * groups * pack + head) * n_rows + token) as usize,
        packed < tile_rows && token < n_rows,
        token < q_len,
        scale,
        with_lse,
        bp,
    );
}

/// Copies the keys or values of a step's slots to their tile; slots past the step's end become zeros,
/// since what lies past a sequence may be anything. Rows are padded with zeros to whole fragments.
#[cube]
fn stage<E: Float, N: Size>(
    from: &Tensor<Vector<E, N>>,
    rows: &Rows,
    tile: &mut Shared<[Vector<E, N>]>,
    positions: &Shared<[u32]>,
    step: &Step,
    #[comptime] tile_at: usize,
    #[comptime] bp: CmmaBlueprint,
) {
    let vectors = comptime!(bp.padded() / bp.width);
    // A unit keeps its place in a row, so that it has few addresses to remember.
    let per_pass = comptime!(bp.units() / vectors);
    let unit = UNIT_POS as usize;
    let (first_row, vector) = (unit / vectors, unit % vectors);
    let mut busy = true.runtime();
    if comptime!(!bp.units().is_multiple_of(vectors)) {
        busy = first_row < per_pass;
    }
    #[unroll]
    for i in 0..comptime!(bp.keys.div_ceil(per_pass)) {
        let row = first_row + comptime!(i * per_pass);
        let mut within = busy;
        if comptime!((i + 1) * per_pass > bp.keys) {
            within = busy && row < comptime!(bp.keys);
        }
        if within {
            let mut position = step.at + row as u32;
            let mut seen = position < step.end;
            if comptime!(vectors > bp.vectors()) {
                seen = seen && vector < comptime!(bp.vectors());
            }
            if comptime!(bp.columns) {
                if step.gathered && seen {
                    position = positions[row];
                }
            }
            let mut loaded = Vector::<E, N>::new(E::from_int(0));
            if seen {
                loaded = from[rows.first + position as usize * rows.stride + vector];
            }
            tile[tile_at + row * comptime!(bp.pitch() / bp.width) + vector] = loaded;
        }
    }
}
