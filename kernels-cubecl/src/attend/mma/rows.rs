//! Rows on their way out: divided by their sums, they go through shared memory, so that they are written in
//! whole vectors; log-sum-exps beside them.

use cubecl::prelude::*;

use super::{MmaBlueprint, N8, VECTOR, tile::Fragments};
use crate::table::Place;

/// Writes the plane's rows; rows past a sequence are zeros with `lse = -inf`. Shared memory must be free.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn write<E: Float, N: Size>(
    o: &Fragments<f32>,
    maximum: &Array<f32>,
    sum: &Array<f32>,
    memory: &mut Shared<[Vector<E, N>]>,
    out: &mut Tensor<Vector<E, N>>,
    lse: &mut [f32],
    place: &Place,
    #[comptime] with_lse: bool,
    #[comptime] bp: MmaBlueprint,
) {
    let lane = UNIT_POS_X;
    let plane_row = UNIT_POS_Y * comptime!((bp.m_tiles * 16) as u32);
    let pairs = memory.with_vector_size_mut::<Const<2>>();
    #[unroll]
    for r in 0..comptime!(bp.m_tiles * 2) {
        let row = plane_row + lane / 4 + comptime!(r as u32 * 8);
        let packed = place.first_packed + row;
        let token = place.row(packed);
        let mut total = sum[r];
        total += plane_shuffle_xor(total, 1);
        total += plane_shuffle_xor(total, 2);
        let mut inverse = f32::new(0.0);
        if token < place.span.query_len && total > 0.0 {
            inverse = f32::new(1.0) / total;
        }
        let first = row as usize * comptime!(bp.pitch() * VECTOR / 2) + (lane % 4) as usize;
        #[unroll]
        for n in 0..comptime!(bp.head_dim / N8) {
            let a = o.index(comptime!((r / 2) * bp.out_tiles() + n))[comptime!(r % 2)];
            pairs[first + comptime!(n * N8 / 2)] = Vector::cast_from(a * Vector::new(inverse));
        }
        if comptime!(with_lse) {
            if lane % 4 == 0 && packed < place.tile_rows && token < place.call.rows {
                let mut seen = f32::new(0.0);
                if token < place.span.query_len {
                    seen = total;
                }
                // ln(0) = -inf for a row that saw nothing.
                lse[place.lse_at(packed)] = maximum[r] * place.call.scale + seen.ln();
            }
        }
    }
    sync_plane();
    store(out, &*memory, place, place.call.rows, bp);
}

/// Copies the plane's rows below row `end` of their sequence from shared memory to the output.
#[cube]
pub(crate) fn store<E: Float, N: Size>(
    out: &mut Tensor<Vector<E, N>>,
    memory: &Shared<[Vector<E, N>]>,
    place: &Place,
    end: u32,
    #[comptime] bp: MmaBlueprint,
) {
    let total = comptime!(bp.m_tiles * 16 * bp.vectors());
    let first = place.sequence_at(&*out);
    #[unroll]
    for i in 0..comptime!(total.div_ceil(32)) {
        let slot = UNIT_POS_X as usize + comptime!(i * 32);
        if comptime!((i + 1) * 32 <= total) || slot < total {
            let row = row_of(slot, bp);
            let packed = place.first_packed + row as u32;
            let token = place.row(packed);
            if packed < place.tile_rows && token < end {
                let vector = slot % comptime!(bp.vectors());
                let to = place.row_from(first, &*out, packed) / comptime!(VECTOR) + vector;
                out[to] = memory[row * comptime!(bp.pitch()) + vector];
            }
        }
    }
}

/// Copies them back.
#[cube]
pub(crate) fn load<E: Float, N: Size>(
    out: &Tensor<Vector<E, N>>,
    memory: &mut Shared<[Vector<E, N>]>,
    place: &Place,
    end: u32,
    #[comptime] bp: MmaBlueprint,
) {
    let total = comptime!(bp.m_tiles * 16 * bp.vectors());
    let first = place.sequence_at(out);
    #[unroll]
    for i in 0..comptime!(total.div_ceil(32)) {
        let slot = UNIT_POS_X as usize + comptime!(i * 32);
        if comptime!((i + 1) * 32 <= total) || slot < total {
            let row = row_of(slot, bp);
            let packed = place.first_packed + row as u32;
            let token = place.row(packed);
            if packed < place.tile_rows && token < end {
                let vector = slot % comptime!(bp.vectors());
                let from = place.row_from(first, out, packed) / comptime!(VECTOR) + vector;
                memory[row * comptime!(bp.pitch()) + vector] = out[from];
            }
        }
    }
}

/// Row in the cube of a vector of the plane's rows.
#[cube]
fn row_of(slot: usize, #[comptime] bp: MmaBlueprint) -> usize {
    UNIT_POS_Y as usize * comptime!(bp.m_tiles * 16) + slot / comptime!(bp.vectors())
}
