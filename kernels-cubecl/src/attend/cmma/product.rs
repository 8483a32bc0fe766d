//! The two products of a step, fragment by fragment.
//!
//! Fragments point at the first vector of a row; all strides are in elements, as the instruction wants
//! them. Every function is called by whole planes.

use cubecl::{
    cmma::{self, MatrixIdent, MatrixLayout},
    prelude::*,
};

use super::{CmmaBlueprint, QUAD};

/// Left or right operands.
pub(super) type Operands<E, N> = Sequence<cmma::Matrix<Vector<E, N>>>;
/// Accumulators.
pub(super) type Sums = Sequence<cmma::Matrix<f32>>;
pub(super) type Quad = Vector<f32, Const<4>>;

/// `tiles` accumulators, all zero.
#[cube]
pub(super) fn zeros(#[comptime] tiles: usize, #[comptime] bp: CmmaBlueprint) -> Sums {
    let mut out = Sequence::<cmma::Matrix<f32>>::new();
    #[unroll]
    for _ in 0..tiles {
        out.push(cmma::Matrix::<f32>::from_value(
            MatrixIdent::Accumulator,
            comptime!(bp.fragment.m),
            comptime!(bp.fragment.n),
            comptime!(bp.fragment.k),
            MatrixLayout::Undefined,
            0.0f32,
        ));
    }
    out
}

/// Appends the left operands of the plane's rows: one per `m` rows from vector `at` on, `pitch` elements
/// from row to row.
#[cube]
pub(super) fn load_left<E: Float, N: Size>(
    out: &mut Operands<E, N>,
    memory: &Shared<[Vector<E, N>]>,
    at: usize,
    #[comptime] pitch: usize,
    #[comptime] bp: CmmaBlueprint,
) {
    #[unroll]
    for m in 0..comptime!(bp.row_tiles()) {
        let from = at + comptime!(m * bp.fragment.m * pitch / bp.width);
        out.push(cmma::Matrix::<Vector<E, N>>::from_slice(
            MatrixIdent::A,
            comptime!(bp.fragment.m),
            comptime!(bp.fragment.n),
            comptime!(bp.fragment.k),
            MatrixLayout::RowMajor,
            &memory[from..from + 1],
            comptime!(pitch as u32),
        ));
    }
}

/// A right operand from staged K (`ColMajor`: its columns are keys) or V (`RowMajor`: its rows are).
#[cube]
fn load_right<E: Float, N: Size>(
    memory: &Shared<[Vector<E, N>]>,
    at: usize,
    layout: MatrixLayout,
    #[comptime] bp: CmmaBlueprint,
) -> cmma::Matrix<Vector<E, N>> {
    cmma::Matrix::<Vector<E, N>>::from_slice(
        MatrixIdent::B,
        comptime!(bp.fragment.m),
        comptime!(bp.fragment.n),
        comptime!(bp.fragment.k),
        layout,
        &memory[at..at + 1],
        comptime!(bp.pitch() as u32),
    )
}

/// Puts the scores of the plane's rows against the staged keys into `scores`. `query` holds the left
/// operands of every depth step, or none: then Q is read from `memory`.
#[cube]
pub(super) fn scores<E: Float, N: Size>(
    query: &Operands<E, N>,
    memory: &Shared<[Vector<E, N>]>,
    scores: &mut Shared<[Quad]>,
    plane_row: usize,
    #[comptime] bp: CmmaBlueprint,
) {
    let (row_tiles, key_tiles) = comptime!((bp.row_tiles(), bp.key_tiles()));
    let s = zeros(comptime!(bp.row_tiles() * bp.key_tiles()), bp);
    #[unroll]
    for k in 0..comptime!(bp.depth()) {
        let mut left = Sequence::<cmma::Matrix<Vector<E, N>>>::new();
        if comptime!(!bp.query_in_fragments) {
            let at = plane_row * comptime!(bp.pitch() / bp.width)
                + comptime!(k * bp.fragment.k / bp.width);
            load_left(&mut left, memory, at, comptime!(bp.pitch()), bp);
        }
        #[unroll]
        for j in 0..key_tiles {
            let at = comptime!(
                bp.key_at() + (j * bp.fragment.n * bp.pitch() + k * bp.fragment.k) / bp.width
            )
            .runtime();
            let right = load_right(memory, at, MatrixLayout::ColMajor, bp);
            #[unroll]
            for m in 0..row_tiles {
                let sum = s.index(comptime!(m * key_tiles + j));
                if comptime!(bp.query_in_fragments) {
                    let left = query.index(comptime!(k * row_tiles + m));
                    cmma::execute(left, &right, sum, sum);
                } else {
                    cmma::execute(left.index(m), &right, sum, sum);
                }
            }
        }
    }
    #[unroll]
    for m in 0..row_tiles {
        #[unroll]
        for j in 0..key_tiles {
            store(
                s.index(comptime!(m * key_tiles + j)),
                scores,
                plane_row,
                m,
                j,
                bp,
            );
        }
    }
}

/// Adds the plane's probabilities times the staged values to the output, `out_tiles` accumulators per
/// `m` rows.
#[cube]
pub(super) fn weigh<E: Float, N: Size>(
    memory: &Shared<[Vector<E, N>]>,
    weights: &Shared<[Vector<E, N>]>,
    o: &Sums,
    plane_row: usize,
    #[comptime] bp: CmmaBlueprint,
) {
    let (row_tiles, out_tiles) = comptime!((bp.row_tiles(), bp.out_tiles()));
    #[unroll]
    for t in 0..comptime!(bp.keys / bp.fragment.k) {
        let at = plane_row * comptime!(bp.weight_pitch() / bp.width)
            + comptime!(t * bp.fragment.k / bp.width);
        let mut left = Sequence::<cmma::Matrix<Vector<E, N>>>::new();
        load_left(&mut left, weights, at, comptime!(bp.weight_pitch()), bp);
        #[unroll]
        for n in 0..out_tiles {
            let at = comptime!(
                bp.value_at() + (t * bp.fragment.k * bp.pitch() + n * bp.fragment.n) / bp.width
            )
            .runtime();
            let right = load_right(memory, at, MatrixLayout::RowMajor, bp);
            #[unroll]
            for m in 0..row_tiles {
                let sum = o.index(comptime!(m * out_tiles + n));
                cmma::execute(left.index(m), &right, sum, sum);
            }
        }
    }
}

/// The place of fragment `(m, j)` of the plane's rows in the scores, in vectors of 4.
#[cube]
fn place(
    plane_row: usize,
    #[comptime] m: usize,
    #[comptime] j: usize,
    #[comptime] bp: CmmaBlueprint,
) -> usize {
    plane_row * comptime!(bp.score_pitch() / QUAD)
        + comptime!((m * bp.fragment.m * bp.score_pitch() + j * bp.fragment.n) / QUAD)
}

/// Puts an accumulator into the plane's rows of the scores, at fragment `(m, j)`.
#[cube]
pub(super) fn store(
    from: &cmma::Matrix<f32>,
    scores: &mut Shared<[Quad]>,
    plane_row: usize,
    #[comptime] m: usize,
    #[comptime] j: usize,
    #[comptime] bp: CmmaBlueprint,
) {
    let at = place(plane_row, m, j, bp);
    cmma::store(
        &mut scores[at..at + 1],
        from,
        comptime!(bp.score_pitch() as u32),
        MatrixLayout::RowMajor,
    );
}

/// Takes it back.
#[cube]
pub(super) fn load(
    to: &mut cmma::Matrix<f32>,
    scores: &Shared<[Quad]>,
    plane_row: usize,
    #[comptime] m: usize,
    #[comptime] j: usize,
    #[comptime] bp: CmmaBlueprint,
) {
    let at = place(plane_row, m, j, bp);
    cmma::load_with_layout(
        to,
        &scores[at..at + 1],
        comptime!(bp.score_pitch() as u32),
        MatrixLayout::RowMajor,
    );
}
