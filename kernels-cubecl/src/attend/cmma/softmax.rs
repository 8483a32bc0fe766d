//! Work done row by row: online softmax of a step, rescaling of the output, and leaving.
//!
//! Unit `u` of a plane owns row `u / share` of the plane together with `share - 1` neighbours. All
//! traffic through shared memory stays inside a plane, so a plane's barrier is enough.

use cubecl::prelude::*;

use super::{
    CmmaBlueprint, PLANE_ROWS, QUAD,
    product::{self, Quad, Sums},
};
use crate::{
    attend::mma::exp2,
    table::{Cursor, Place, Rule, Step},
};

/// Maximum of a row that has seen nothing: above [`UNSEEN`], below every score.
const NOTHING: f32 = -1.0e30;
/// Score of a key that is not seen: its probability is 0 against any maximum that a row can have. Finite
/// times any scale, since not every device has infinities.
const UNSEEN: f32 = -1.0e36;
/// Exponents of 2 may exceed a row's maximum by this much before the output is rescaled: probabilities up
/// to 128 are as exact in f16 and bf16 as those up to 1, and few steps raise a maximum by more.
const SLACK: f32 = 7.0;

/// The row that a unit owns a part of.
#[derive(CubeType)]
pub(super) struct Row {
    /// In the cube.
    pub(super) row: usize,
    /// Which of the row's units this is.
    part: usize,
    /// Of the row, among the sequence's keys.
    position: u32,
    /// The score that probabilities are relative to, in units of scores; at most [`SLACK`] below the true maximum.
    maximum: f32,
    /// This unit's share of the sum.
    sum: f32,
}

#[cube]
impl Row {
    /// This unit's row in the cube.
    pub(super) fn of_unit(#[comptime] bp: CmmaBlueprint) -> usize {
        (UNIT_POS_Y * comptime!(PLANE_ROWS as u32) + UNIT_POS_X / comptime!(bp.share() as u32))
            as usize
    }

    /// A row that has seen nothing yet.
    pub(super) fn new(row: usize, position: u32, #[comptime] bp: CmmaBlueprint) -> Row {
        Row {
            row,
            part: (UNIT_POS_X % comptime!(bp.share() as u32)) as usize,
            position,
            maximum: NOTHING.runtime(),
            sum: 0.0f32.runtime(),
        }
    }

    /// Turns a step's scores into probabilities, rescaling the output where maxima rose. `factor` turns
    /// scores into exponents of 2.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn weigh<E: Float, N: Size>(
        &mut self,
        scores: &mut Shared<[Quad]>,
        weights: &mut Shared<[Vector<E, N>]>,
        o: &mut Sums,
        cursor: &Cursor,
        step: &Step,
        rule: &Rule,
        table: &[u32],
        masked: bool,
        factor: f32,
        #[comptime] bp: CmmaBlueprint,
    ) {
        let quads = comptime!(bp.width / QUAD);
        let from = self.row * comptime!(bp.score_pitch() / QUAD);
        let mut s = Array::<Quad>::new(comptime!(bp.groups() * bp.width / QUAD));
        let mut highest = self.maximum;
        #[unroll]
        for g in 0..comptime!(bp.groups()) {
            let group = self.part + comptime!(g * bp.share());
            #[unroll]
            for v in 0..quads {
                let quad = group * quads + v;
                let mut x = scores[from + quad];
                if masked {
                    #[unroll]
                    for c in 0..QUAD {
                        let offset = (quad * QUAD + c) as u32;
                        let walk = comptime!(bp.walk());
                        let sees = cursor.sees(step, offset, self.position, rule, table, walk);
                        if !sees {
                            x.insert(c, f32::new(UNSEEN));
                        }
                    }
                }
                #[unroll]
                for c in 0..QUAD {
                    highest = max(highest, x.extract(c));
                }
                s[comptime!(g * quads + v)] = x;
            }
        }
        // Masks may have parted the units, and a shuffle is between those that arrive together.
        sync_plane();
        #[unroll]
        for i in 0..comptime!(bp.reductions()) {
            highest = max(highest, plane_shuffle_xor(highest, comptime!(1u32 << i)));
        }
        let risen = plane_any((highest - self.maximum) * factor > f32::new(SLACK));
        let mut alpha = f32::new(1.0);
        if risen {
            alpha = exp2((self.maximum - highest) * factor, comptime!(bp.inline));
            self.maximum = highest;
            self.sum *= alpha;
        }
        let shift = f32::new(0.0) - self.maximum * factor;
        let to = self.row * comptime!(bp.weight_pitch() / bp.width);
        #[unroll]
        for g in 0..comptime!(bp.groups()) {
            let group = self.part + comptime!(g * bp.share());
            let mut p = Vector::<E, N>::empty();
            #[unroll]
            for v in 0..quads {
                let x = s[comptime!(g * quads + v)];
                #[unroll]
                for c in 0..QUAD {
                    let y = exp2(fma(x.extract(c), factor, shift), comptime!(bp.inline));
                    self.sum += y;
                    p.insert(comptime!(v * QUAD + c), E::cast_from(y));
                }
            }
            weights[to + group] = p;
        }
        // Last, since the output takes the scores' place.
        if risen {
            self.rescale(scores, o, alpha, bp);
        }
    }

    /// Multiplies the plane's rows of the output by their `alpha`, a few columns at a time.
    fn rescale(
        &self,
        scores: &mut Shared<[Quad]>,
        o: &mut Sums,
        alpha: f32,
        #[comptime] bp: CmmaBlueprint,
    ) {
        let plane_row = self.row - self.row % PLANE_ROWS;
        let from = self.row * comptime!(bp.score_pitch() / QUAD);
        #[unroll]
        for chunk in 0..comptime!(bp.out_tiles().div_ceil(bp.key_tiles())) {
            lay_out(scores, &*o, plane_row, chunk, bp);
            #[unroll]
            for i in 0..comptime!(bp.keys / QUAD / bp.share()) {
                let at = from + self.part + comptime!(i * bp.share());
                scores[at] *= Vector::new(alpha);
            }
            sync_plane();
            #[unroll]
            for m in 0..comptime!(bp.row_tiles()) {
                #[unroll]
                for j in 0..comptime!(bp.key_tiles()) {
                    let n = comptime!(chunk * bp.key_tiles() + j);
                    if comptime!(n < bp.out_tiles()) {
                        let sum = o.index_mut(comptime!(m * bp.out_tiles() + n));
                        product::load(sum, &*scores, plane_row, m, j, bp);
                    }
                }
            }
        }
    }

    /// Writes the row divided by its sum, and its log-sum-exp; a row past its sequence is zeros with
    /// `lse = -inf`. `packed` is the row in its tile.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn write<E: Float, N: Size>(
        &self,
        scores: &mut Shared<[Quad]>,
        o: &Sums,
        out: &mut Tensor<Vector<E, N>>,
        lse: &mut [f32],
        place: &Place,
        packed: u32,
        #[comptime] with_lse: bool,
        #[comptime] bp: CmmaBlueprint,
    ) {
        let token = place.row(packed);
        let written = packed < place.tile_rows && token < place.call.rows;
        let to = place.row_at(&*out, packed) / comptime!(bp.width);
        let mut total = self.sum;
        sync_plane();
        #[unroll]
        for i in 0..comptime!(bp.reductions()) {
            total += plane_shuffle_xor(total, comptime!(1u32 << i));
        }
        if token >= place.span.query_len {
            total = f32::new(0.0);
        }
        let mut inverse = f32::new(0.0);
        if total > 0.0 {
            inverse = f32::new(1.0) / total;
        }
        if comptime!(with_lse) {
            if written && self.part == 0 {
                // ln(0) = -inf for a row that saw nothing.
                lse[place.lse_at(packed)] = self.maximum * place.call.scale + total.ln();
            }
        }
        let quads = comptime!(bp.width / QUAD);
        let plane_row = self.row - self.row % PLANE_ROWS;
        let from = self.row * comptime!(bp.score_pitch() / QUAD);
        #[unroll]
        for chunk in 0..comptime!(bp.out_tiles().div_ceil(bp.key_tiles())) {
            lay_out(scores, o, plane_row, chunk, bp);
            #[unroll]
            for g in 0..comptime!(bp.groups()) {
                let group = self.part + comptime!(g * bp.share());
                let vector = group + comptime!(chunk * bp.keys / bp.width);
                if written && vector < comptime!(bp.vectors()) {
                    let mut y = Vector::<E, N>::empty();
                    #[unroll]
                    for v in 0..quads {
                        let x = scores[from + group * quads + v];
                        #[unroll]
                        for c in 0..QUAD {
                            y.insert(
                                comptime!(v * QUAD + c),
                                E::cast_from(x.extract(c) * inverse),
                            );
                        }
                    }
                    out[to + vector] = y;
                }
            }
        }
    }
}

/// Puts the columns of chunk `chunk` of the plane's output into its rows of the scores, when nobody
/// reads these any more and before anybody does.
#[cube]
fn lay_out(
    scores: &mut Shared<[Quad]>,
    o: &Sums,
    plane_row: usize,
    #[comptime] chunk: usize,
    #[comptime] bp: CmmaBlueprint,
) {
    sync_plane();
    #[unroll]
    for m in 0..comptime!(bp.row_tiles()) {
        #[unroll]
        for j in 0..comptime!(bp.key_tiles()) {
            let n = comptime!(chunk * bp.key_tiles() + j);
            if comptime!(n < bp.out_tiles()) {
                let from = o.index(comptime!(m * bp.out_tiles() + n));
                product::store(from, scores, plane_row, m, j, bp);
            }
        }
    }
    sync_plane();
}
