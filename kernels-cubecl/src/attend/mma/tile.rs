//! One step of a plane: scores, softmax, output; all in registers.
//!
//! Unit `u` of a plane holds, of every 16 x 8 accumulator, the columns `2 (u % 4)` and the next of the
//! rows `u / 4` (first pair) and `u / 4 + 8` (second pair).

use cubecl::{
    cmma::{MatrixIdent, MmaDefinition},
    prelude::*,
};

use super::{MmaBlueprint, N8};
use crate::table::{Cursor, Rule, Step};

pub(crate) type Pair<E> = Vector<E, Const<2>>;
pub(crate) type Fragments<E> = Sequence<Array<Pair<E>>>;

/// `e^x = 2^(x log2 e)`: the base that the hardware has.
#[cube]
pub(crate) fn exp2(x: f32, #[comptime] inline: bool) -> f32 {
    if comptime!(inline) {
        let y: f32;
        gpu_asm!("ex2.approx.ftz.f32 {}, {};", out(_) y, in(_) x, options(pure, nomem));
        y
    } else {
        (x * f32::new(core::f32::consts::LN_2)).exp()
    }
}

/// Accumulators of `tiles` blocks, all zero.
#[cube]
pub(crate) fn zeros(#[comptime] tiles: usize) -> Fragments<f32> {
    let mut out = Sequence::new();
    #[unroll]
    for _ in 0..tiles {
        let mut a = Array::<Pair<f32>>::new(2usize);
        a[0] = Vector::new(f32::new(0.0));
        a[1] = Vector::new(f32::new(0.0));
        out.push(a);
    }
    out
}

/// The left operand for rows `row..row + 16` and depth `16 k..16 k + 16` of a staged Q.
#[cube]
pub(crate) fn load_query<E: Float, N: Size>(
    def: &MmaDefinition<E, E, f32>,
    tile: &Shared<[Vector<E, N>]>,
    row: usize,
    #[comptime] k: usize,
    #[comptime] bp: MmaBlueprint,
) -> Array<Pair<E>> {
    let lane = UNIT_POS_X as usize;
    let at = (row + lane % 16) * comptime!(bp.pitch()) + lane / 16 + comptime!(2 * k);
    def.load_matrix::<Vector<E, N>, Const<2>>(&tile[at..at + 1], MatrixIdent::A, 4usize, false)
}

/// Two right operands of 8 columns and depth 16; `at` is the staged vector that this unit points at, one
/// row of one of the four 8 x 8 blocks.
#[cube]
pub(crate) fn load_right<E: Float, N: Size>(
    def: &MmaDefinition<E, E, f32>,
    tile: &Shared<[Vector<E, N>]>,
    at: usize,
    #[comptime] transposed: bool,
) -> Fragments<E> {
    let r = def.load_matrix::<Vector<E, N>, Const<2>>(
        &tile[at..at + 1],
        MatrixIdent::B,
        4usize,
        transposed,
    );
    let mut out = Sequence::<Array<Pair<E>>>::new();
    #[unroll]
    for half in 0..2usize {
        let mut b = Array::<Pair<E>>::new(2usize);
        b[0] = r[comptime!(half * 2)];
        b[1] = r[comptime!(half * 2 + 1)];
        out.push(b);
    }
    out
}

/// Scores of the plane's rows against the step's keys: `m_tiles * key_tiles` accumulators.
#[cube]
pub(super) fn scores<E: Float, N: Size>(
    def: &MmaDefinition<E, E, f32>,
    tile: &Shared<[Vector<E, N>]>,
    key_at: usize,
    query: &Fragments<E>,
    #[comptime] bp: MmaBlueprint,
) -> Fragments<f32> {
    let lane = UNIT_POS_X as usize;
    let first = key_at + (lane % 8 + lane / 16 * 8) * comptime!(bp.pitch()) + lane / 8 % 2;
    let plane_row = UNIT_POS_Y as usize * comptime!(bp.m_tiles * 16);
    let tiles = comptime!(bp.key_tiles());
    let mut s = zeros(comptime!(bp.m_tiles * bp.key_tiles()));
    #[unroll]
    for k in 0..comptime!(bp.depth()) {
        let mut a = Sequence::<Array<Pair<E>>>::new();
        if comptime!(!bp.query_in_registers) {
            #[unroll]
            for m in 0..comptime!(bp.m_tiles) {
                a.push(load_query(def, tile, plane_row + comptime!(m * 16), k, bp));
            }
        }
        #[unroll]
        for j in 0..comptime!(tiles / 2) {
            let at = first + comptime!(j * 16 * bp.pitch() + 2 * k);
            let right = load_right(def, tile, at, false);
            #[unroll]
            for m in 0..comptime!(bp.m_tiles) {
                let even = comptime!(m * tiles + 2 * j);
                let odd = comptime!(m * tiles + 2 * j + 1);
                if comptime!(bp.query_in_registers) {
                    let left = query.index(comptime!(m * bp.depth() + k));
                    def.execute_inplace(left, right.index(0usize), s.index_mut(even));
                    def.execute_inplace(left, right.index(1usize), s.index_mut(odd));
                } else {
                    def.execute_inplace(a.index(m), right.index(0usize), s.index_mut(even));
                    def.execute_inplace(a.index(m), right.index(1usize), s.index_mut(odd));
                }
            }
        }
    }
    s
}

/// Adds probabilities times values to the output accumulators.
#[cube]
pub(crate) fn weigh<E: Float, N: Size>(
    def: &MmaDefinition<E, E, f32>,
    tile: &Shared<[Vector<E, N>]>,
    value_at: usize,
    p: &Fragments<E>,
    o: &mut Fragments<f32>,
    #[comptime] bp: MmaBlueprint,
) {
    let lane = UNIT_POS_X as usize;
    let first = value_at + (lane % 16) * comptime!(bp.pitch()) + lane / 16;
    let (steps, tiles) = comptime!((bp.keys / 16, bp.out_tiles()));
    #[unroll]
    for t in 0..steps {
        #[unroll]
        for n in 0..comptime!(tiles / 2) {
            let at = first + comptime!(t * 16 * bp.pitch() + 2 * n);
            let right = load_right(def, tile, at, true);
            #[unroll]
            for m in 0..comptime!(bp.m_tiles) {
                let left = p.index(comptime!(m * steps + t));
                def.execute_inplace(
                    left,
                    right.index(0usize),
                    o.index_mut(comptime!(m * tiles + 2 * n)),
                );
                def.execute_inplace(
                    left,
                    right.index(1usize),
                    o.index_mut(comptime!(m * tiles + 2 * n + 1)),
                );
            }
        }
    }
}

/// Online softmax of one step. `factor` turns scores into exponents of 2. Updates the rows' maxima and
/// this unit's share of their sums, rescales the output and returns the probabilities as left operands.
#[cube]
pub(crate) fn softmax<E: Float>(
    s: &Fragments<f32>,
    maximum: &mut Array<f32>,
    sum: &mut Array<f32>,
    o: &mut Fragments<f32>,
    factor: f32,
    #[comptime] bp: MmaBlueprint,
) -> Fragments<E> {
    let (tiles, out_tiles) = comptime!((bp.key_tiles(), bp.out_tiles()));
    let mut p = Sequence::<Array<Pair<E>>>::new();
    #[unroll]
    for m in 0..comptime!(bp.m_tiles) {
        let mut shift = Array::<f32>::new(2usize);
        let mut before = Array::<f32>::new(2usize);
        let mut moved = false.runtime();
        #[unroll]
        for h in 0..2usize {
            let row = comptime!(m * 2 + h);
            let mut highest = maximum[row];
            #[unroll]
            for j in 0..tiles {
                let a = s.index(comptime!(m * tiles + j))[h];
                highest = max(highest, max(a.extract(0usize), a.extract(1usize)));
            }
            highest = max(highest, plane_shuffle_xor(highest, 1));
            highest = max(highest, plane_shuffle_xor(highest, 2));
            before[h] = maximum[row];
            moved = moved || highest > maximum[row];
            maximum[row] = highest;
            shift[h] = f32::new(0.0) - highest * factor;
        }
        // After the first steps maxima rarely move, and then nothing needs rescaling.
        if plane_any(moved) {
            #[unroll]
            for h in 0..2usize {
                let row = comptime!(m * 2 + h);
                let alpha = exp2(
                    (before[h] - maximum[row]) * factor,
                    comptime!(bp.asynchronous),
                );
                sum[row] *= alpha;
                #[unroll]
                for n in 0..out_tiles {
                    let a = o.index_mut(comptime!(m * out_tiles + n));
                    a[h] *= Vector::new(alpha);
                }
            }
        }
        #[unroll]
        for t in 0..comptime!(bp.keys / 16) {
            let mut left = Array::<Pair<E>>::new(4usize);
            #[unroll]
            for half in 0..2usize {
                let a = s.index(comptime!(m * tiles + 2 * t + half));
                #[unroll]
                for h in 0..2usize {
                    let row = comptime!(m * 2 + h);
                    let x = exp2(
                        fma(a[h].extract(0usize), factor, shift[h]),
                        comptime!(bp.asynchronous),
                    );
                    let y = exp2(
                        fma(a[h].extract(1usize), factor, shift[h]),
                        comptime!(bp.asynchronous),
                    );
                    sum[row] += x + y;
                    let mut pair = Pair::<f32>::empty();
                    pair.insert(0usize, x);
                    pair.insert(1usize, y);
                    left[comptime!(half * 2 + h)] = Vector::cast_from(pair);
                }
            }
            p.push(left);
        }
    }
    p
}

/// Score of a key that is not seen: its probability is 0 against any maximum that a row can have.
pub(super) const UNSEEN: f32 = -3.0e38;

/// Replaces the scores of keys of a step that a row does not see. `position` holds the rows' positions.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn mask(
    s: &mut Fragments<f32>,
    position: &Array<u32>,
    cursor: &Cursor,
    step: &Step,
    rule: &Rule,
    table: &[u32],
    #[comptime] bp: MmaBlueprint,
) {
    let column = (UNIT_POS_X % 4) * 2;
    let tiles = comptime!(bp.key_tiles());
    #[unroll]
    for m in 0..comptime!(bp.m_tiles) {
        #[unroll]
        for h in 0..2usize {
            let i = position[comptime!(m * 2 + h)];
            #[unroll]
            for j in 0..tiles {
                let a = s.index_mut(comptime!(m * tiles + j));
                let mut pair = a[h];
                #[unroll]
                for c in 0..2usize {
                    let offset = column + u32::cast_from(comptime!(j * N8 + c));
                    let sees = cursor.sees(step, offset, i, rule, table, comptime!(bp.walk()));
                    if !sees {
                        pair.insert(c, f32::new(UNSEEN));
                    }
                }
                a[h] = pair;
            }
        }
    }
}
