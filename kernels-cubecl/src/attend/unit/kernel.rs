//! The tier that needs nothing: attention in scalar units, shared memory and barriers.
//!
//! One cube owns `rows` packed query rows of one query tile: row `r` is query head
//! `group * pack + r % pack` at tile position `r / pack`, so that the heads of a KV group share every
//! key they load. It walks the tile's ranges, then its columns, 32 keys a step. Units form a grid of
//! 8 x `units_y`; a unit owns 4 rows and the keys `x, x + 8, x + 16, x + 24` of a step (scores) or 4
//! of every 32 head elements (output).
//!
//! Memory: the head dimension is cut into chunks of 32, so shared memory is the same for every head
//! dimension: chunks of Q and of K or V, the probabilities, row partials, key positions; 14 KiB for
//! 32 rows, 24 KiB for 64. Q is read again at every step. Numbers: everything in f32; running
//! maximum and sum per row; the sum over a row's units is taken once at the end. Keys that a row does
//! not see have probability 0; a row that sees none, or is past its sequence, writes zeros and
//! `lse = -inf`. Keys past a range are never read.

use cubecl::prelude::*;

use super::{CHUNK, KEYS, PER_UNIT, PITCH, UNITS_X, UnitBlueprint};
use crate::attend::{gate, visible::Rule};

type Vec4<E> = Vector<E, Const<4>>;

/// Position of a slot past the end of a range.
const NOWHERE: u32 = u32::MAX;
/// Score of a key that is not seen; finite, since not every device has infinities.
const UNSEEN: f32 = -1.0e30;

/// See the module documentation. `table` as in the extension trait: spans `[B, 4]`, then index rows
/// `[B * index_heads * tiles, 4]`, ranges, columns.
#[cube(launch, address_type = "dynamic")]
// A comptime condition is an `if` of its own: it decides what is compiled.
#[allow(clippy::too_many_arguments, clippy::collapsible_if)]
pub(crate) fn attend_unit<E: Float>(
    query: &Tensor<Vec4<E>>,
    key: &Tensor<Vec4<E>>,
    value: &Tensor<Vec4<E>>,
    table: &[u32],
    out: &mut Tensor<Vec4<E>>,
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
    #[comptime] bp: UnitBlueprint,
    #[define(E)] _elem: ElemType,
) {
    let units = comptime!(bp.units());
    let rows = comptime!(bp.rows());
    let vectors = comptime!(bp.head_dim / 4);
    let chunks = comptime!((bp.head_dim / 4).div_ceil(CHUNK));
    let unit = UNIT_POS as usize;
    let ux = UNIT_POS_X as usize;
    let uy = UNIT_POS_Y as usize;

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

    let mut q_tile = Shared::<[Vec4<f32>]>::new_slice(comptime!(bp.rows() * PITCH));
    let mut kv_tile = Shared::<[Vec4<f32>]>::new_slice(comptime!(KEYS * PITCH));
    let mut probabilities = Shared::<[Vec4<f32>]>::new_slice(comptime!(bp.rows() * PITCH));
    let mut partials = Shared::<[f32]>::new_slice(comptime!(bp.rows() * UNITS_X));
    let mut positions = Shared::<[u32]>::new_slice(KEYS);

    // Packed row -> tile position: first and last of this cube.
    let tile_rows = u32::cast_from(comptime!(bp.tile_tokens)) * pack;
    let first_packed = split * u32::cast_from(rows);
    let last_packed = min(first_packed + u32::cast_from(rows), tile_rows) - 1;
    let tile_first = tile * u32::cast_from(comptime!(bp.tile_tokens));
    let cube_first = tile_first + first_packed / pack;
    let cube_last = min(tile_first + last_packed / pack + 1, q_len);

    // The four rows of this unit: query row, whether it exists, absolute position.
    let mut row_of = Array::<u32>::new(PER_UNIT);
    let mut exists = Array::<bool>::new(PER_UNIT);
    let mut maximum = Array::<f32>::new(PER_UNIT);
    let mut sum = Array::<f32>::new(PER_UNIT);
    #[unroll]
    for r in 0..PER_UNIT {
        let packed = first_packed + u32::cast_from(uy * PER_UNIT + r);
        row_of[r] = tile_first + packed / pack;
        exists[r] = packed < tile_rows && row_of[r] < q_len;
        maximum[r] = f32::new(UNSEEN);
        sum[r] = f32::new(0.0);
    }
    let mut acc = Array::<Vec4<f32>>::new(comptime!(chunks * PER_UNIT));
    #[unroll]
    for i in 0..comptime!(chunks * PER_UNIT) {
        acc[i] = Vector::new(f32::new(0.0));
    }

    // What to walk.
    let mut n_ranges = 1u32;
    let mut n_columns = 0u32;
    let mut ranges_at = 0u32;
    let mut columns_at = 0u32;
    if comptime!(bp.indexed) {
        let index_head = group * index_heads / groups;
        let row = batch * 4 + ((b * index_heads + index_head) * tiles + tile) * 4;
        ranges_at = table[row as usize];
        n_ranges = table[(row + 1) as usize];
        columns_at = table[(row + 2) as usize];
        n_columns = table[(row + 3) as usize];
    }
    let mut items = n_ranges;
    if n_columns > 0 {
        items += 1;
    }
    // A cube whose rows are all padding walks nothing and writes zeros.
    if cube_first >= q_len {
        items = 0;
    }
    let causal_end = offset + cube_last;
    let window_start = rule.start(offset + cube_first, comptime!(bp.windowed));

    for item in 0..items {
        let gathered = item == n_ranges;
        let mut start = 0u32;
        let mut end = causal_end;
        if comptime!(bp.indexed) {
            if gathered {
                end = n_columns;
            } else {
                start = table[(ranges_at + item * 2) as usize];
                end = min(table[(ranges_at + item * 2 + 1) as usize], causal_end);
            }
        }
        if comptime!(bp.windowed) {
            if !gathered {
                start = max(start, window_start);
            }
        }
        let mut at = start;
        while at < end {
            // Key positions of this step; past the end: none.
            sync_cube();
            if unit < KEYS {
                let slot = at + u32::cast_from(unit);
                let mut position = NOWHERE.runtime();
                if slot < end {
                    position = slot;
                    if comptime!(bp.indexed) {
                        if gathered {
                            position = table[(columns_at + slot) as usize];
                        }
                    }
                }
                positions[unit] = position;
            }
            sync_cube();

            // Scores of 4 rows x 4 keys, chunk by chunk of the head dimension.
            let mut scores = Array::<Vec4<f32>>::new(comptime!(PER_UNIT * PER_UNIT));
            #[unroll]
            for i in 0..comptime!(PER_UNIT * PER_UNIT) {
                scores[i] = Vector::new(f32::new(0.0));
            }
            for chunk in 0..chunks {
                if chunk > 0 {
                    sync_cube();
                }
                #[unroll]
                for i in 0..comptime!(bp.rows() * CHUNK / bp.units()) {
                    let slot = i * units + unit;
                    let (r, v) = (slot / CHUNK, slot % CHUNK);
                    let packed = first_packed + u32::cast_from(r);
                    let i_row = tile_first + packed / pack;
                    let vector = chunk * CHUNK + v;
                    let mut loaded = Vec4::<f32>::new(f32::new(0.0));
                    if packed < tile_rows && i_row < q_len && vector < vectors {
                        let head = group * pack + packed % pack;
                        let from = b as usize * query.stride(0)
                            + head as usize * query.stride(1)
                            + i_row as usize * query.stride(2);
                        loaded = Vec4::<f32>::cast_from(query[from / 4 + vector]);
                    }
                    q_tile[r * PITCH + v] = loaded;
                }
                stage::<E>(
                    key,
                    &mut kv_tile,
                    &positions,
                    b,
                    kv_head,
                    chunk,
                    vectors,
                    unit,
                    units,
                );
                sync_cube();
                for v in 0..CHUNK {
                    let mut q = Array::<Vec4<f32>>::new(PER_UNIT);
                    #[unroll]
                    for r in 0..PER_UNIT {
                        q[r] = q_tile[(uy * PER_UNIT + r) * PITCH + v];
                    }
                    #[unroll]
                    for c in 0..PER_UNIT {
                        let k = kv_tile[(ux + c * UNITS_X) * PITCH + v];
                        #[unroll]
                        for r in 0..PER_UNIT {
                            scores[r * PER_UNIT + c] += q[r] * k;
                        }
                    }
                }
            }

            // Visibility, and the row maximum over the 8 units of a row.
            let mut p = Array::<f32>::new(comptime!(PER_UNIT * PER_UNIT));
            let mut seen = Array::<bool>::new(comptime!(PER_UNIT * PER_UNIT));
            #[unroll]
            for r in 0..PER_UNIT {
                let position = offset + row_of[r];
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
                    let s = scores[i];
                    p[i] = (s.extract(0usize)
                        + s.extract(1usize)
                        + s.extract(2usize)
                        + s.extract(3usize))
                        * scale;
                    if sees {
                        highest = max(highest, p[i]);
                    }
                }
                partials[(uy * PER_UNIT + r) * UNITS_X + ux] = highest;
            }
            sync_cube();

            // Probabilities; the old sum and output shrink by alpha.
            let mut alpha = Array::<f32>::new(PER_UNIT);
            #[unroll]
            for r in 0..PER_UNIT {
                let mut highest = maximum[r];
                #[unroll]
                for u in 0..UNITS_X {
                    highest = max(highest, partials[(uy * PER_UNIT + r) * UNITS_X + u]);
                }
                alpha[r] = (maximum[r] - highest).exp();
                maximum[r] = highest;
                let mut row = Vec4::<f32>::new(f32::new(0.0));
                let mut row_sum = f32::new(0.0);
                #[unroll]
                for c in 0..PER_UNIT {
                    let i = comptime!(r * PER_UNIT + c);
                    let mut e = f32::new(0.0);
                    if seen[i] {
                        e = (p[i] - highest).exp();
                    }
                    row.insert(c, e);
                    row_sum += e;
                }
                sum[r] = sum[r] * alpha[r] + row_sum;
                probabilities[(uy * PER_UNIT + r) * PITCH + ux] = row;
            }

            // Output: vector u of a row's probabilities belongs to the keys u, u + 8, u + 16, u + 24.
            #[unroll]
            for chunk in 0..chunks {
                sync_cube();
                stage::<E>(
                    value,
                    &mut kv_tile,
                    &positions,
                    b,
                    kv_head,
                    chunk,
                    vectors,
                    unit,
                    units,
                );
                sync_cube();
                #[unroll]
                for r in 0..PER_UNIT {
                    let i = comptime!(chunk * PER_UNIT + r);
                    acc[i] *= Vector::new(alpha[r]);
                }
                for u in 0..UNITS_X {
                    let mut v = Array::<Vec4<f32>>::new(PER_UNIT);
                    #[unroll]
                    for c in 0..PER_UNIT {
                        v[c] = kv_tile[(u + c * UNITS_X) * PITCH + ux];
                    }
                    #[unroll]
                    for r in 0..PER_UNIT {
                        let i = comptime!(chunk * PER_UNIT + r);
                        let row = probabilities[(uy * PER_UNIT + r) * PITCH + u];
                        #[unroll]
                        for c in 0..PER_UNIT {
                            acc[i] += Vector::new(row.extract(c)) * v[c];
                        }
                    }
                }
            }
            at += u32::cast_from(comptime!(KEYS));
        }
    }

    // Row sums over units, then the output.
    sync_cube();
    #[unroll]
    for r in 0..PER_UNIT {
        partials[(uy * PER_UNIT + r) * UNITS_X + ux] = sum[r];
    }
    sync_cube();
    #[unroll]
    for r in 0..PER_UNIT {
        let packed = first_packed + u32::cast_from(uy * PER_UNIT + r);
        if packed < tile_rows && row_of[r] < n_rows {
            let mut total = f32::new(0.0);
            #[unroll]
            for u in 0..UNITS_X {
                total += partials[(uy * PER_UNIT + r) * UNITS_X + u];
            }
            let mut inverse = f32::new(0.0);
            if total > 0.0 {
                inverse = f32::new(1.0) / total;
            }
            let head = group * pack + packed % pack;
            let to = b as usize * out.stride(0)
                + head as usize * out.stride(1)
                + row_of[r] as usize * out.stride(2);
            #[unroll]
            for chunk in 0..chunks {
                let vector = chunk * CHUNK + ux;
                if vector < vectors {
                    let i = comptime!(chunk * PER_UNIT + r);
                    out[to / 4 + vector] = Vec4::<E>::cast_from(acc[i] * Vector::new(inverse));
                }
            }
            if comptime!(with_lse) {
                if ux == 0 {
                    let at = ((b * groups * pack + head) * n_rows + row_of[r]) as usize;
                    // ln(0) = -inf for a row that saw nothing.
                    lse[at] = maximum[r] + total.ln();
                }
            }
        }
    }
}

/// Stages one chunk of the step's 32 keys or values; positions past the end become zeros.
#[cube]
#[allow(clippy::too_many_arguments)]
fn stage<E: Float>(
    from: &Tensor<Vec4<E>>,
    tile: &mut Shared<[Vec4<f32>]>,
    positions: &Shared<[u32]>,
    b: u32,
    head: u32,
    chunk: usize,
    #[comptime] vectors: usize,
    unit: usize,
    #[comptime] units: usize,
) {
    #[unroll]
    for i in 0..comptime!(KEYS * CHUNK / units) {
        let slot = i * units + unit;
        let (row, v) = (slot / CHUNK, slot % CHUNK);
        let position = positions[row];
        let vector = chunk * CHUNK + v;
        let mut loaded = Vec4::<f32>::new(f32::new(0.0));
        if position != NOWHERE.runtime() && vector < vectors {
            let at = b as usize * from.stride(0)
                + head as usize * from.stride(1)
                + position as usize * from.stride(2);
            loaded = Vec4::<f32>::cast_from(from[at / 4 + vector]);
        }
        tile[row * PITCH + v] = loaded;
    }
}
