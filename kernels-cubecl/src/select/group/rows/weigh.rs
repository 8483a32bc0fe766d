//! Probabilities times values, and the outputs of the classes, which stay in registers.

use cubecl::{
    cmma::{MatrixIdent, MmaDefinition},
    prelude::*,
};

use super::{CLASSES, OUTPUTS_AT, RowsBlueprint};
use crate::{
    attend::mma::tile::{load_right, zeros},
    select::product::{MMA_WIDTH, Pair, Sums, UNIT_WIDTH},
};

/// First column of this unit's group among the staged ones.
#[cube]
fn group_column(#[comptime] bp: RowsBlueprint) -> usize {
    UNIT_POS_Y as usize / comptime!(bp.tile().row_planes) * comptime!(bp.columns() * 8)
}

/// Adds the product of the step's probabilities and the staged values, whole, to the classes of its rows.
#[cube]
pub(super) fn by_matrix_units<F: Float, N: Size>(
    wide: &Shared<[Vector<F, N>]>,
    values: &Shared<[Vector<F, N>]>,
    out: &mut Sums,
    alphas: &Array<f32>,
    classes: &Array<u32>,
    #[comptime] bp: RowsBlueprint,
) {
    let tile = comptime!(bp.tile());
    let def = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let (pitch, wide_pitch) = comptime!((tile.pitch(), bp.wide_pitch()));
    let lane = UNIT_POS_X as usize;
    let row = UNIT_POS_Y as usize % comptime!(tile.row_planes) * 16;
    let row_at = (row + lane % 16) * wide_pitch + lane / 16;
    let value_at = lane % 16 * pitch + group_column(bp) / MMA_WIDTH + lane / 16;
    let mut left = Sequence::<Array<Pair<F>>>::new();
    #[unroll]
    for t in 0..comptime!(tile.keys() / 16) {
        let at = row_at + comptime!(2 * t);
        left.push(def.load_matrix::<Vector<F, N>, Const<2>>(
            &wide[at..at + 1],
            MatrixIdent::A,
            4usize,
            false,
        ));
    }
    // Two blocks of columns at a time: more would not fit beside the outputs.
    #[unroll]
    for n in 0..comptime!(bp.columns() / 2) {
        let mut new = zeros(2usize);
        #[unroll]
        for t in 0..comptime!(tile.keys() / 16) {
            let at = value_at + comptime!(t * 16 * pitch + 2 * n);
            let right = load_right(&def, values, at, true);
            #[unroll]
            for half in 0..2usize {
                def.execute_inplace(left.index(t), right.index(half), new.index_mut(half));
            }
        }
        add(out, &new, alphas, classes, 0usize, comptime!(2 * n), bp);
    }
}

/// The same by scalar units, for the columns of a chunk.
#[cube]
pub(super) fn by_units<F: Float, N: Size>(
    narrow: &Shared<[f32]>,
    values: &Shared<[Vector<F, N>]>,
    out: &mut Sums,
    alphas: &Array<f32>,
    classes: &Array<u32>,
    #[comptime] chunk: usize,
    #[comptime] bp: RowsBlueprint,
) {
    let mut new = zeros(comptime!(bp.columns()));
    let tile = comptime!(bp.tile());
    let pitch = comptime!(tile.pitch());
    let lane = UNIT_POS_X as usize % 4;
    let row = crate::select::product::first_row(tile);
    let row_at = row * comptime!(bp.narrow_pitch());
    // A unit's two columns are one half of a vector.
    let value_at = (group_column(bp) + lane * 2) / UNIT_WIDTH;
    let upper = lane % 2 == 1;
    for key in 0..comptime!(tile.keys()) {
        let first = narrow[row_at + key];
        let second = narrow[row_at + comptime!(8 * bp.narrow_pitch()) + key];
        #[unroll]
        for j in 0..comptime!(bp.columns()) {
            let v = Vector::<f32, N>::cast_from(
                values[key * pitch + value_at + comptime!(j * 8 / UNIT_WIDTH)],
            );
            let mut pair = Pair::<f32>::empty();
            pair.insert(0usize, select(upper, v.extract(2usize), v.extract(0usize)));
            pair.insert(1usize, select(upper, v.extract(3usize), v.extract(1usize)));
            let a = new.index_mut(j);
            a[0] = fma(Vector::new(first), pair, a[0]);
            a[1] = fma(Vector::new(second), pair, a[1]);
        }
    }
    add(out, &new, alphas, classes, chunk, 0usize, bp);
}

/// Adds what a step found for a chunk's blocks of columns from `first` on to the classes of its rows.
#[cube]
fn add(
    out: &mut Sums,
    new: &Sums,
    alphas: &Array<f32>,
    classes: &Array<u32>,
    #[comptime] chunk: usize,
    #[comptime] first: usize,
    #[comptime] bp: RowsBlueprint,
) {
    let blocks = new.len();
    #[unroll]
    for class in 0..CLASSES {
        #[unroll]
        for j in 0..blocks {
            let row = comptime!((class * bp.tile().chunks() + chunk) * bp.columns() + first);
            let a = out.index_mut(comptime!(row + j));
            #[unroll]
            for h in 0..2usize {
                let counts = classes[h] == comptime!(class as u32);
                let weight = select(counts, f32::new(1.0), f32::new(0.0));
                a[h] = fma(
                    a[h],
                    Vector::new(alphas[h]),
                    new.index(j)[h] * Vector::new(weight),
                );
            }
        }
    }
}

/// Writes the outputs of a unit's row `h`, whose floats begin at `to`.
#[cube]
pub(super) fn write(
    out: &Sums,
    parts: &mut [f32],
    to: usize,
    #[comptime] h: usize,
    #[comptime] bp: RowsBlueprint,
) {
    let tile = comptime!(bp.tile());
    let first = group_column(bp) + UNIT_POS_X as usize % 4 * 2;
    #[unroll]
    for class in 0..CLASSES {
        #[unroll]
        for chunk in 0..comptime!(tile.chunks()) {
            #[unroll]
            for j in 0..comptime!(bp.columns()) {
                let at = comptime!((class * tile.chunks() + chunk) * bp.columns() + j);
                let column = first + comptime!(chunk * tile.chunk * tile.width() + j * 8);
                if column < comptime!(tile.depth) {
                    let at_class = to + comptime!(OUTPUTS_AT + class * tile.depth) + column;
                    let pair = out.index(at)[h];
                    parts[at_class] = pair.extract(0usize);
                    parts[at_class + 1] = pair.extract(1usize);
                }
            }
        }
    }
}
