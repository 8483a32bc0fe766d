//! The correction by matrix units with operands in registers: f16 and bf16.
//!
//! One cube owns `rows` packed query rows of one query tile, as in attention's tier of that name, whose
//! products and softmax it shares: a step is `keys` key blocks, of which mean keys, variances and mean
//! values are staged in the elements' type, the next step's while this one is computed. The left operand
//! of the variances is made from Q in registers, where it is squared.
//!
//! Numbers: means and variances are rounded to the element type, so a logit of 8 is off by 0.03 in bf16.
//! `q / 16` is what is squared, which keeps elements up to 4096 within f16.

// A comptime condition is an `if` of its own: it decides what is compiled; device code has no
// `is_multiple_of`.
#![allow(clippy::collapsible_if, clippy::manual_is_multiple_of)]

use cubecl::{cmma::MmaDefinition, prelude::*};

use super::{Blueprint, Order, first_whole, left_out::LeftOut, pooled_at, whole_blocks};
use crate::{
    attend::mma::{
        MmaBlueprint, N8, VECTOR, copy, rows,
        tile::{self, Fragments, Pair},
    },
    table::{Call, Place, Window},
};

/// The divisor of `q` before it is squared.
const QUERY_SHIFT: f32 = 16.0;
/// Largest f16 that is a multiple of 32.
const MOST_F16: f32 = 65504.0;

/// The compile-time choices of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct MmaCorrection {
    pub(super) common: Blueprint,
    pub(super) tile: MmaBlueprint,
}

impl MmaCorrection {
    /// Staged parts of a block: mean key, variance where it is needed, mean value.
    fn parts(&self) -> usize {
        match self.common.order {
            Order::First => 2,
            Order::Second => 3,
        }
    }

    fn stages(&self) -> usize {
        if self.tile.asynchronous { 2 } else { 1 }
    }

    /// First vector of a part of the first stage.
    fn part_at(&self, part: usize) -> usize {
        self.tile.rows() * self.tile.pitch() + part * self.tile.tile()
    }

    /// Vectors from stage to stage.
    fn stage(&self) -> usize {
        self.parts() * self.tile.tile()
    }

    /// Vectors of shared memory.
    fn shared_vectors(&self) -> usize {
        self.part_at(0) + self.stages() * self.stage()
    }

    /// Shared memory of a cube.
    pub(super) fn shared_bytes(&self) -> usize {
        let segment = self.common.segment;
        self.shared_vectors() * 16 + (2 * segment.blocks + 1) * 4
    }
}

/// Pooled blocks in another element type, in whose range they are kept.
#[cube(launch_unchecked)]
pub(super) fn narrow<E: Float, N: Size>(
    pooled: &[Vector<f32, N>],
    out: &mut [Vector<E, N>],
    vectors: usize,
    #[comptime] half: bool,
    #[define(E)] _elem: ElemType,
) {
    if ABSOLUTE_POS < vectors {
        let mut x = pooled[ABSOLUTE_POS];
        if comptime!(half) {
            let most = Vector::<f32, N>::new(f32::new(MOST_F16));
            x = max(min(x, most), Vector::new(f32::new(-MOST_F16)));
        }
        out[ABSOLUTE_POS] = Vector::cast_from(x);
    }
}

/// `pooled` as [`narrow`] writes it; `lse` and `corrected` `[B, Hq, N]`; `table` the index with its gates.
/// All strides are multiples of 8, `N` is 8.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn correct_mma<E: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    pooled: &Tensor<Vector<E, N>>,
    table: &[u32],
    out: &mut Tensor<Vector<E, N>>,
    lse: &[f32],
    corrected: &mut [f32],
    call: Call,
    capacity: u32,
    cap: f32,
    window: ComptimeOption<u32>,
    #[comptime] all: MmaCorrection,
    #[define(E)] _elem: ElemType,
) {
    let bp = comptime!(all.tile);
    let rows = comptime!(bp.rows());
    let pitch = comptime!(bp.pitch());
    let segment = comptime!(all.common.segment);
    let lane = UNIT_POS_X;
    let plane_row = UNIT_POS_Y * comptime!((bp.m_tiles * 16) as u32);
    let place = Place::new(table, call, comptime!(all.common.tiling(bp.rows())));
    let window = Window::of(&window);
    let blocks = whole_blocks(&place, &window);

    // The rows of this unit begin with what attention has found: a sum of 1 at its log-sum-exp.
    let mut maximum = Array::<f32>::new(comptime!(bp.m_tiles * 2));
    let mut sum = Array::<f32>::new(comptime!(bp.m_tiles * 2));
    #[unroll]
    for r in 0..comptime!(bp.m_tiles * 2) {
        let packed = place.first_packed + plane_row + lane / 4 + comptime!(r as u32 * 8);
        let token = place.row(packed);
        maximum[r] = f32::new(0.0);
        sum[r] = f32::new(0.0);
        if packed < place.tile_rows && token < place.call.rows {
            let at = place.lse_at(packed);
            let found = lse[at];
            if comptime!(all.common.with_lse) {
                // A row past its sequence keeps its own.
                if lane % 4 == 0 && (token >= place.span.query_len || blocks == 0) {
                    corrected[at] = found;
                }
            }
            if token < place.span.query_len {
                maximum[r] = found;
                if lane % 4 == 0 {
                    sum[r] = f32::new(1.0);
                }
            }
        }
    }
    if blocks == 0 {
        terminate!();
    }

    let mut memory =
        Shared::<[Vector<E, N>]>::new_aligned_slice(comptime!(all.shared_vectors()), 128usize);
    let mut left = LeftOut::new(segment);

    copy::stage_query(query, &mut memory, &place, bp);
    copy::pad(&mut memory, 0usize, rows, bp);
    copy::pad(
        &mut memory,
        comptime!(all.part_at(0)),
        comptime!(all.stages() * all.parts() * bp.keys),
        bp,
    );

    let def = MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize);
    let mut o = tile::zeros(comptime!(bp.m_tiles * bp.out_tiles()));
    let mut base = 0u32;
    if comptime!(bp.asynchronous) {
        base = copy::address(&memory);
    }
    let index_row = place.index_row() as usize;
    let head_at = pooled_at(&place, capacity);
    let mut first = first_whole(&place, &window);
    while first < blocks {
        let mut live = left.count(table, index_row, first, blocks, segment);
        let here = min(blocks - first, comptime!(segment.blocks as u32));
        let block_at = head_at + first as usize;
        let mut stage = 0usize;
        if comptime!(bp.asynchronous) {
            if live != 0 {
                let step = live.trailing_zeros();
                copy_step(pooled, &mut memory, base, block_at, step, here, stage, all);
            }
            copy::commit();
        }
        while live != 0 {
            let step = live.trailing_zeros();
            live &= live - 1;
            let now = stage;
            if comptime!(bp.asynchronous) {
                // This step's parts have landed, and nobody reads the other ones any more.
                copy::land(0u32, bp);
                stage = 1 - stage;
                if live != 0 {
                    let next = live.trailing_zeros();
                    copy_step(pooled, &mut memory, base, block_at, next, here, stage, all);
                }
                copy::commit();
            } else {
                sync_cube();
                copy_step(pooled, &mut memory, base, block_at, step, here, stage, all);
                sync_cube();
            }
            let stage_at = now * comptime!(all.stage());
            let logs_at = (step * comptime!(segment.step as u32)) as usize;
            let logits = logits(
                &def,
                &memory,
                stage_at,
                &left,
                logs_at,
                place.call.scale,
                cap,
                all,
            );
            let factor = f32::new(core::f32::consts::LOG2_E);
            let p = tile::softmax::<E>(&logits, &mut maximum, &mut sum, &mut o, factor, bp);
            let value_at = stage_at + comptime!(all.part_at(all.parts() - 1));
            tile::weigh(&def, &memory, value_at, &p, &mut o, bp);
        }
        first += comptime!(segment.blocks as u32);
    }

    // What attention wrote comes to where Q was, is merged unit by unit, and leaves in whole vectors.
    sync_cube();
    rows::load(&*out, &mut memory, &place, place.span.query_len, bp);
    sync_plane();
    let pairs = memory.with_vector_size_mut::<Const<2>>();
    #[unroll]
    for r in 0..comptime!(bp.m_tiles * 2) {
        let row = plane_row + lane / 4 + comptime!(r as u32 * 8);
        let packed = place.first_packed + row;
        let token = place.row(packed);
        let mut total = sum[r];
        total += plane_shuffle_xor(total, 1);
        total += plane_shuffle_xor(total, 2);
        if packed < place.tile_rows && token < place.span.query_len {
            let inverse = 1.0 / total;
            // Read again: it would take a register all the while.
            let lse_at = place.lse_at(packed);
            let share = (lse[lse_at] - maximum[r]).exp() * inverse;
            let at = row as usize * comptime!(pitch * VECTOR / 2) + (lane % 4) as usize;
            #[unroll]
            for n in 0..comptime!(bp.head_dim / N8) {
                let a = o.index(comptime!((r / 2) * bp.out_tiles() + n))[comptime!(r % 2)];
                let attended = Pair::<f32>::cast_from(pairs[at + comptime!(n * N8 / 2)]);
                pairs[at + comptime!(n * N8 / 2)] =
                    Vector::cast_from(a * Vector::new(inverse) + attended * Vector::new(share));
            }
            if comptime!(all.common.with_lse) {
                if lane % 4 == 0 {
                    corrected[lse_at] = maximum[r] + total.ln();
                }
            }
        }
    }
    sync_plane();
    rows::store(out, &memory, &place, place.span.query_len, bp);
}

/// Copies the parts of a step's blocks, of which the segment has `here`; blocks past them become zeros.
#[cube]
#[allow(clippy::too_many_arguments)]
fn copy_step<E: Float, N: Size>(
    pooled: &Tensor<Vector<E, N>>,
    memory: &mut Shared<[Vector<E, N>]>,
    base: u32,
    block_at: usize,
    step: u32,
    here: u32,
    stage: usize,
    #[comptime] all: MmaCorrection,
) {
    let bp = comptime!(all.tile);
    let (units, vectors) = comptime!((bp.units(), bp.vectors()));
    let total = comptime!(bp.keys * bp.vectors());
    let first = step * comptime!(bp.keys as u32);
    #[unroll]
    for part in 0..comptime!(all.parts()) {
        // Pooled blocks have all three.
        let source_part = comptime!(if part + 1 == all.parts() { 2 } else { part });
        #[unroll]
        for i in 0..comptime!(total.div_ceil(units)) {
            let slot = UNIT_POS as usize + comptime!(i * units);
            let (row, vector) = (slot / vectors, slot % vectors);
            if comptime!((i + 1) * units <= total) || slot < total {
                let block = first + row as u32;
                let seen = block < here;
                let source = ((block_at + block as usize) * 3 + source_part) * vectors + vector;
                let target = comptime!(all.part_at(part))
                    + stage * comptime!(all.stage())
                    + row * comptime!(bp.pitch())
                    + vector;
                if comptime!(bp.asynchronous) {
                    let bytes = u32::cast_from(seen) * 16;
                    copy::copy_16(pooled, source, base + (target * 16) as u32, bytes);
                } else {
                    let mut loaded = Vector::<E, N>::new(E::from_int(0));
                    if seen {
                        loaded = pooled[source];
                    }
                    memory[target] = loaded;
                }
            }
        }
    }
}

/// Logits of the plane's rows and a step's blocks.
#[cube]
#[allow(clippy::too_many_arguments)]
fn logits<E: Float, N: Size>(
    def: &MmaDefinition<E, E, f32>,
    memory: &Shared<[Vector<E, N>]>,
    stage_at: usize,
    left: &LeftOut,
    logs_at: usize,
    scale: f32,
    cap: f32,
    #[comptime] all: MmaCorrection,
) -> Fragments<f32> {
    let bp = comptime!(all.tile);
    let second = comptime!(all.common.order == Order::Second);
    let lane = UNIT_POS_X as usize;
    let plane_row = UNIT_POS_Y as usize * comptime!(bp.m_tiles * 16);
    let within = stage_at + (lane % 8 + lane / 16 * 8) * comptime!(bp.pitch()) + lane / 8 % 2;
    let tiles = comptime!(bp.key_tiles());
    let mut s = tile::zeros(comptime!(bp.m_tiles * tiles));
    let mut spread = tile::zeros(comptime!(if second { bp.m_tiles * tiles } else { 0 }));
    #[unroll]
    for k in 0..comptime!(bp.depth()) {
        let mut q = Sequence::<Array<Pair<E>>>::new();
        let mut squares = Sequence::<Array<Pair<E>>>::new();
        #[unroll]
        for m in 0..comptime!(bp.m_tiles) {
            let a = tile::load_query(def, memory, plane_row + comptime!(m * 16), k, bp);
            if comptime!(second) {
                let mut square = Array::<Pair<E>>::new(4usize);
                #[unroll]
                for i in 0..4usize {
                    let x = a[i] * Vector::new(E::new(1.0 / QUERY_SHIFT));
                    square[i] = x * x;
                }
                squares.push(square);
            }
            q.push(a);
        }
        #[unroll]
        for j in 0..comptime!(tiles / 2) {
            let at = within + comptime!(all.part_at(0) + j * 16 * bp.pitch() + 2 * k);
            let means = tile::load_right(def, memory, at, false);
            #[unroll]
            for m in 0..comptime!(bp.m_tiles) {
                #[unroll]
                for half in 0..2usize {
                    let to = comptime!(m * tiles + 2 * j + half);
                    def.execute_inplace(q.index(m), means.index(half), s.index_mut(to));
                }
            }
            if comptime!(second) {
                let at = within + comptime!(all.part_at(1) + j * 16 * bp.pitch() + 2 * k);
                let variances = tile::load_right(def, memory, at, false);
                #[unroll]
                for m in 0..comptime!(bp.m_tiles) {
                    #[unroll]
                    for half in 0..2usize {
                        let to = comptime!(m * tiles + 2 * j + half);
                        let sums = spread.index_mut(to);
                        def.execute_inplace(squares.index(m), variances.index(half), sums);
                    }
                }
            }
        }
    }
    let spread_scale = scale * scale * comptime!(0.5 * QUERY_SHIFT * QUERY_SHIFT);
    #[unroll]
    for j in 0..tiles {
        let column = logs_at + lane % 4 * 2 + comptime!(j * N8);
        let mut log = Pair::<f32>::empty();
        log.insert(0usize, left.logs[column]);
        log.insert(1usize, left.logs[column + 1]);
        #[unroll]
        for m in 0..comptime!(bp.m_tiles) {
            #[unroll]
            for h in 0..2usize {
                let a = s.index_mut(comptime!(m * tiles + j));
                let mut logit = fma(a[h], Vector::new(scale), log);
                if comptime!(second) {
                    let terms = spread.index(comptime!(m * tiles + j))[h];
                    logit += min(terms * Vector::new(spread_scale), Vector::new(cap));
                }
                a[h] = logit;
            }
        }
    }
    s
}
