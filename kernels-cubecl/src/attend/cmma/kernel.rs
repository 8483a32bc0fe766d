//! The cube's program: stage Q, then per step stage K and V, score, weigh; write.
//!
//! A step has two barriers of the cube: before its tiles are overwritten and when they are there; two more
//! where V replaces K. Tiles of the next step are not copied ahead: other cubes on the same multiprocessor
//! compute meanwhile.

use cubecl::{cmma, prelude::*};

use super::{CmmaBlueprint, PLANE_ROWS, product, product::Quad, softmax::Row};
use crate::table::{Call, Cursor, Items, KvRows, Limits, Place, Rule, Step};

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
    call: Call,
    limits: Limits,
    #[comptime] with_lse: bool,
    #[comptime] bp: CmmaBlueprint,
    #[define(E)] _elem: ElemType,
) {
    let width = comptime!(bp.width);
    let walk = comptime!(bp.walk());
    let place = Place::new(table, call, comptime!(bp.tiling()));
    let rule = Rule::new(&limits, place.span.dense_from);

    // Fragments begin at multiples of 32 bytes.
    let mut memory = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime!(bp.staged()), 128usize);
    let mut weights =
        Shared::<[Vector<E, N>]>::new_aligned_slice(comptime!(bp.weights()), 128usize);
    let mut scores = Shared::<[Quad]>::new_aligned_slice(comptime!(bp.scores()), 128usize);
    let mut positions = Shared::<[u32]>::new_slice(comptime!(bp.positions()));

    stage_query(query, &mut memory, &place, bp);
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
    let packed = place.first_packed + row as u32;
    let mut own = Row::new(row, place.offset + place.row(packed), bp);
    let mut o = product::zeros(comptime!(bp.row_tiles() * bp.out_tiles()), bp);

    let keys = KvRows::new(key, &place, width);
    let values = KvRows::new(value, &place, width);
    let factor = place.call.scale * f32::new(core::f32::consts::LOG2_E);
    let first = place.first_position();
    let end = place.end_position(comptime!(bp.rows()));
    let start = rule.start(first, comptime!(bp.windowed));
    let items = Items::of(table, place.index_row(), start, end, walk);

    // `step` computes; `ahead` and `column` are being looked up meanwhile.
    let mut ahead = Cursor::new(table, items, place.has_rows(), walk);
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
        let at = comptime!(bp.key_at());
        stage(key, &keys, &mut memory, &positions, &step, at, bp);
        if comptime!(!bp.one_tile) {
            let at = comptime!(bp.value_at());
            stage(value, &values, &mut memory, &positions, &step, at, bp);
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
            let at = comptime!(bp.value_at());
            stage(value, &values, &mut memory, &positions, &step, at, bp);
        } else {
            sync_plane();
        }
        let masked = step.crosses(first, end, &rule, walk);
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

    own.write(&mut scores, &o, out, lse, &place, packed, with_lse, bp);
}

/// Copies the cube's query rows to the beginning of shared memory; rows that do not exist are zeros, and
/// rows are padded with zeros to whole fragments.
#[cube]
fn stage_query<E: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    memory: &mut Shared<[Vector<E, N>]>,
    place: &Place,
    #[comptime] bp: CmmaBlueprint,
) {
    let rows = comptime!(bp.rows());
    let vectors = comptime!(bp.padded() / bp.width);
    let per_pass = comptime!(bp.units() / vectors);
    let unit = UNIT_POS as usize;
    let (first_row, vector) = (unit / vectors, unit % vectors);
    let first = place.sequence_at(query);
    #[unroll]
    for i in 0..comptime!(rows.div_ceil(per_pass)) {
        let row = first_row + comptime!(i * per_pass);
        if first_row < per_pass && row < rows {
            let packed = place.first_packed + row as u32;
            let token = place.row(packed);
            let mut loaded = Vector::<E, N>::new(E::from_int(0));
            if packed < place.tile_rows
                && token < place.span.query_len
                && vector < comptime!(bp.vectors())
            {
                let from = place.row_from(first, query, packed);
                loaded = query[from / comptime!(bp.width) + vector];
            }
            memory[row * comptime!(bp.pitch() / bp.width) + vector] = loaded;
        }
    }
}

/// Copies the keys or values of a step's slots to their tile; slots past the step's end become zeros,
/// since what lies past a sequence may be anything. Rows are padded with zeros to whole fragments.
#[cube]
fn stage<E: Float, N: Size>(
    from: &Tensor<Vector<E, N>>,
    rows: &KvRows,
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
