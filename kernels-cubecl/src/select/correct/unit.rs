//! The correction in scalar units, shared memory and barriers: runs on every device, in 16 KiB of shared
//! memory.
//!
//! One cube owns 32 packed query rows of one query tile, as in the portable attention: row `r` is query
//! head `group * pack + r % pack` at tile position `r / pack`. It walks the tile's key blocks, 32 a step;
//! units form a grid of 8 x 8, a unit owns 4 rows and the blocks `x, x + 8, x + 16, x + 24` of a step, or
//! 4 of every 32 head elements. The head dimension is staged in chunks of 32.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;

use super::{Blueprint, Order, left_out::LeftOut};
use crate::select::BLOCK;

type Vec4<E> = Vector<E, Const<4>>;

/// Key blocks per step.
pub(super) const KEYS: usize = 32;
/// Units along key blocks, and along the head dimension.
pub(super) const UNITS_X: usize = 8;
/// Units along query rows.
pub(super) const UNITS_Y: usize = 8;
/// Query rows per unit, and key blocks per unit and step.
pub(super) const PER_UNIT: usize = 4;
/// Vectors of 4 per chunk of the head dimension.
const CHUNK: usize = 8;
/// Vectors from row to row of a staged tile.
const PITCH: usize = CHUNK + 1;
/// Units of a cube.
const UNITS: usize = UNITS_X * UNITS_Y;
/// Query rows of a cube.
pub(super) const ROWS: usize = UNITS_Y * PER_UNIT;

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
    batch: u32,
    groups: u32,
    pack: u32,
    heads_per_kv: u32,
    n_rows: u32,
    tiles: u32,
    splits: u32,
    index_heads: u32,
    capacity: u32,
    scale: f32,
    cap: f32,
    #[comptime] bp: Blueprint,
    #[define(E)] _elem: ElemType,
) {
    let vectors = comptime!(bp.head_dim / 4);
    let chunks = comptime!((bp.head_dim / 4).div_ceil(CHUNK));
    let unit = UNIT_POS as usize;
    let ux = UNIT_POS_X as usize;
    let uy = UNIT_POS_Y as usize;

    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= batch * groups * tiles * splits {
        terminate!();
    }
    let split = cube % splits;
    let tile = tiles - 1 - (cube / splits) % tiles;
    let group = (cube / (splits * tiles)) % groups;
    let b = cube / (splits * tiles * groups);
    let kv_head = group * pack / heads_per_kv;
    let index_head = b * index_heads + group * index_heads / groups;
    let rows_end = batch * 4 + batch * index_heads * tiles * 4;
    if table[(rows_end + index_head) as usize] == 1 {
        terminate!();
    }
    let q_len = table[(b * 4) as usize];
    let offset = table[(b * 4 + 1) as usize] - q_len;
    let tile_first = tile * comptime!(bp.tile_tokens as u32);
    let tile_rows = comptime!(bp.tile_tokens as u32) * pack;
    let first_packed = split * comptime!(ROWS as u32);
    // Blocks that every row of the tile sees whole.
    let mut blocks = 0u32;
    if tile_first + first_packed / pack < q_len {
        blocks = (offset + tile_first) / comptime!(BLOCK as u32);
    }

    let mut q_tile = Shared::<[Vec4<f32>]>::new_slice(comptime!(ROWS * PITCH));
    let mut tile_of_keys = Shared::<[Vec4<f32>]>::new_slice(comptime!(KEYS * PITCH));
    let mut probabilities = Shared::<[Vec4<f32>]>::new_slice(comptime!(ROWS * PITCH));
    let mut partials = Shared::<[f32]>::new_slice(comptime!(ROWS * UNITS_X));
    let mut left = LeftOut::new(bp.segment);

    // The rows of this unit begin with what attention has found: a sum of 1 at its log-sum-exp.
    let mut row_of = Array::<u32>::new(PER_UNIT);
    let mut lse_at = Array::<u32>::new(PER_UNIT);
    let mut exists = Array::<bool>::new(PER_UNIT);
    let mut before = Array::<f32>::new(PER_UNIT);
    let mut maximum = Array::<f32>::new(PER_UNIT);
    let mut sum = Array::<f32>::new(PER_UNIT);
    #[unroll]
    for r in 0..PER_UNIT {
        let packed = first_packed + u32::cast_from(uy * PER_UNIT + r);
        row_of[r] = tile_first + packed / pack;
        lse_at[r] = (b * groups * pack + group * pack + packed % pack) * n_rows + row_of[r];
        exists[r] = packed < tile_rows && row_of[r] < q_len;
        before[r] = f32::new(0.0);
        sum[r] = f32::new(0.0);
        if packed < tile_rows && row_of[r] < n_rows {
            before[r] = lse[lse_at[r] as usize];
            if comptime!(bp.with_lse) {
                // A row past its sequence keeps its own.
                if ux == 0 && (row_of[r] >= q_len || blocks == 0) {
                    corrected[lse_at[r] as usize] = before[r];
                }
            }
        }
        maximum[r] = f32::new(0.0);
        if exists[r] {
            maximum[r] = before[r];
            if ux == 0 {
                sum[r] = f32::new(1.0);
            }
        }
    }
    if blocks == 0 {
        terminate!();
    }
    let mut acc = Array::<Vec4<f32>>::new(comptime!(chunks * PER_UNIT));
    #[unroll]
    for i in 0..comptime!(chunks * PER_UNIT) {
        acc[i] = Vector::new(f32::new(0.0));
    }

    let index_row = (batch * 4 + (index_head * tiles + tile) * 4) as usize;
    let pooled_at = (b * (groups * pack / heads_per_kv) + kv_head) as usize * capacity as usize;
    let mut first = 0u32;
    while first < blocks {
        left.count(table, index_row, first, blocks, comptime!(bp.segment));
        let steps = min(blocks - first, comptime!(bp.segment.blocks as u32))
            .div_ceil(comptime!(KEYS as u32));
        for step in 0..steps {
            if left.live[step as usize] == 1 {
                let at = step as usize * KEYS;
                let step_blocks = min(blocks - first - at as u32, comptime!(KEYS as u32)) as usize;
                let block_at = pooled_at + first as usize + at;

                // Pseudo scores of 4 rows x 4 blocks, chunk by chunk of the head dimension.
                let mut scores = Array::<Vec4<f32>>::new(comptime!(PER_UNIT * PER_UNIT));
                let mut spreads = Array::<f32>::new(comptime!(PER_UNIT * PER_UNIT));
                #[unroll]
                for i in 0..comptime!(PER_UNIT * PER_UNIT) {
                    scores[i] = Vector::new(f32::new(0.0));
                    spreads[i] = f32::new(0.0);
                }
                for chunk in 0..chunks {
                    sync_cube();
                    #[unroll]
                    for i in 0..comptime!(ROWS * CHUNK / UNITS) {
                        let slot = i * UNITS + unit;
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
                        q_tile[r * PITCH + v] = loaded * Vector::new(scale);
                    }
                    stage(
                        pooled,
                        &mut tile_of_keys,
                        block_at,
                        step_blocks,
                        0usize,
                        chunk,
                        bp,
                    );
                    sync_cube();
                    dots(&q_tile, &tile_of_keys, &mut scores);
                    if comptime!(bp.order == Order::Second) {
                        sync_cube();
                        stage(
                            pooled,
                            &mut tile_of_keys,
                            block_at,
                            step_blocks,
                            1usize,
                            chunk,
                            bp,
                        );
                        sync_cube();
                        spread(&q_tile, &tile_of_keys, &mut spreads);
                    }
                }

                // Logits, and the row maximum over the 8 units of a row.
                let mut p = Array::<f32>::new(comptime!(PER_UNIT * PER_UNIT));
                #[unroll]
                for r in 0..PER_UNIT {
                    let mut highest = maximum[r];
                    #[unroll]
                    for c in 0..PER_UNIT {
                        let i = comptime!(r * PER_UNIT + c);
                        let mut logit = total(scores[i]);
                        if comptime!(bp.order == Order::Second) {
                            logit += min(0.5 * spreads[i], cap);
                        }
                        p[i] = logit + left.logs[at + ux + c * UNITS_X];
                        highest = max(highest, p[i]);
                    }
                    partials[(uy * PER_UNIT + r) * UNITS_X + ux] = highest;
                }
                sync_cube();
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
                        let e = (p[comptime!(r * PER_UNIT + c)] - highest).exp();
                        row.insert(c, e);
                        row_sum += e;
                    }
                    sum[r] = sum[r] * alpha[r] + row_sum;
                    probabilities[(uy * PER_UNIT + r) * PITCH + ux] = row;
                }

                // Vector u of a row's probabilities belongs to the blocks u, u + 8, u + 16, u + 24.
                #[unroll]
                for chunk in 0..chunks {
                    sync_cube();
                    stage(
                        pooled,
                        &mut tile_of_keys,
                        block_at,
                        step_blocks,
                        2usize,
                        chunk,
                        bp,
                    );
                    sync_cube();
                    #[unroll]
                    for r in 0..PER_UNIT {
                        acc[comptime!(chunk * PER_UNIT + r)] *= Vector::new(alpha[r]);
                    }
                    for u in 0..UNITS_X {
                        let mut v = Array::<Vec4<f32>>::new(PER_UNIT);
                        #[unroll]
                        for c in 0..PER_UNIT {
                            v[c] = tile_of_keys[(u + c * UNITS_X) * PITCH + ux];
                        }
                        #[unroll]
                        for r in 0..PER_UNIT {
                            let row = probabilities[(uy * PER_UNIT + r) * PITCH + u];
                            #[unroll]
                            for c in 0..PER_UNIT {
                                acc[comptime!(chunk * PER_UNIT + r)] +=
                                    Vector::new(row.extract(c)) * v[c];
                            }
                        }
                    }
                }
            }
        }
        first += comptime!(bp.segment.blocks as u32);
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
        if exists[r] {
            let mut whole = f32::new(0.0);
            #[unroll]
            for u in 0..UNITS_X {
                whole += partials[(uy * PER_UNIT + r) * UNITS_X + u];
            }
            let inverse = 1.0 / whole;
            let share = (before[r] - maximum[r]).exp() * inverse;
            let packed = first_packed + u32::cast_from(uy * PER_UNIT + r);
            let head = group * pack + packed % pack;
            let to = b as usize * out.stride(0)
                + head as usize * out.stride(1)
                + row_of[r] as usize * out.stride(2);
            #[unroll]
            for chunk in 0..chunks {
                let vector = chunk * CHUNK + ux;
                if vector < vectors {
                    let attended = Vec4::<f32>::cast_from(out[to / 4 + vector]);
                    let i = comptime!(chunk * PER_UNIT + r);
                    out[to / 4 + vector] = Vec4::<E>::cast_from(
                        acc[i] * Vector::new(inverse) + attended * Vector::new(share),
                    );
                }
            }
            if comptime!(bp.with_lse) {
                if ux == 0 {
                    corrected[lse_at[r] as usize] = maximum[r] + whole.ln();
                }
            }
        }
    }
}

/// Stages one chunk of the step's mean keys, variances or mean values; blocks past the step's are zeros.
#[cube]
fn stage(
    pooled: &[Vec4<f32>],
    tile: &mut Shared<[Vec4<f32>]>,
    block_at: usize,
    blocks: usize,
    #[comptime] part: usize,
    chunk: usize,
    #[comptime] bp: Blueprint,
) {
    let vectors = comptime!(bp.head_dim / 4);
    #[unroll]
    for i in 0..comptime!(KEYS * CHUNK / UNITS) {
        let slot = i * UNITS + UNIT_POS as usize;
        let (row, v) = (slot / CHUNK, slot % CHUNK);
        let vector = chunk * CHUNK + v;
        let mut loaded = Vec4::<f32>::new(f32::new(0.0));
        if row < blocks && vector < vectors {
            loaded = pooled[((block_at + row) * 3 + part) * vectors + vector];
        }
        tile[row * PITCH + v] = loaded;
    }
}

/// Adds the products of 4 staged rows and 4 staged blocks, element by element of a vector.
#[cube]
fn dots(rows: &Shared<[Vec4<f32>]>, blocks: &Shared<[Vec4<f32>]>, sums: &mut Array<Vec4<f32>>) {
    for v in 0..CHUNK {
        let mut q = Array::<Vec4<f32>>::new(PER_UNIT);
        #[unroll]
        for r in 0..PER_UNIT {
            q[r] = rows[(UNIT_POS_Y as usize * PER_UNIT + r) * PITCH + v];
        }
        #[unroll]
        for c in 0..PER_UNIT {
            let k = blocks[(UNIT_POS_X as usize + c * UNITS_X) * PITCH + v];
            #[unroll]
            for r in 0..PER_UNIT {
                sums[r * PER_UNIT + c] += q[r] * k;
            }
        }
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
                sums[r * PER_UNIT + c] += total(squares[r] * variance);
            }
        }
    }
}

#[cube]
fn total(x: Vec4<f32>) -> f32 {
    x.extract(0usize) + x.extract(1usize) + x.extract(2usize) + x.extract(3usize)
}
