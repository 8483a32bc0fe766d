//! Leaving: rows are divided by their sums and go through shared memory, so that they are written in
//! whole vectors; log-sum-exps beside them.

use cubecl::prelude::*;

use super::{MmaBlueprint, N8, VECTOR, tile::Fragments};

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
    b: u32,
    group: u32,
    groups: u32,
    pack: u32,
    n_rows: u32,
    q_len: u32,
    tile_first: u32,
    first_packed: u32,
    tile_rows: u32,
    scale: f32,
    #[comptime] with_lse: bool,
    #[comptime] bp: MmaBlueprint,
) {
    let lane = UNIT_POS_X;
    let plane_row = UNIT_POS_Y * comptime!((bp.m_tiles * 16) as u32);
    let pairs = memory.with_vector_size_mut::<Const<2>>();
    #[unroll]
    for r in 0..comptime!(bp.m_tiles * 2) {
        let row = plane_row + lane / 4 + comptime!(r as u32 * 8);
        let packed = first_packed + row;
        let token = tile_first + packed / pack;
        let mut total = sum[r];
        total += plane_shuffle_xor(total, 1);
        total += plane_shuffle_xor(total, 2);
        let mut inverse = f32::new(0.0);
        if token < q_len && total > 0.0 {
            inverse = f32::new(1.0) / total;
        }
        let first = row as usize * comptime!(bp.pitch() * VECTOR / 2) + (lane % 4) as usize;
        #[unroll]
        for n in 0..comptime!(bp.head_dim / N8) {
            let a = o.index(comptime!((r / 2) * bp.out_tiles() + n))[comptime!(r % 2)];
            pairs[first + comptime!(n * N8 / 2)] = Vector::cast_from(a * Vector::new(inverse));
        }
        if comptime!(with_lse) {
            if lane % 4 == 0 && packed < tile_rows && token < n_rows {
                let head = group * pack + packed % pack;
                let at = ((b * groups * pack + head) * n_rows + token) as usize;
                let mut seen = f32::new(0.0);
                if token < q_len {
                    seen = total;
                }
                // ln(0) = -inf for a row that saw nothing.
                lse[at] = maximum[r] * scale + seen.ln();
            }
        }
    }
    sync_plane();
    let vectors = comptime!(bp.vectors());
    let plane_rows = comptime!(bp.m_tiles * 16);
    #[unroll]
    for i in 0..comptime!((plane_rows * vectors).div_ceil(32)) {
        let slot = lane as usize + comptime!(i * 32);
        let (row, vector) = (slot / vectors, slot % vectors);
        if comptime!((i + 1) * 32 <= plane_rows * vectors) || slot < plane_rows * vectors {
            let row = plane_row as usize + row;
            let packed = first_packed + row as u32;
            let token = tile_first + packed / pack;
            if packed < tile_rows && token < n_rows {
                let head = group * pack + packed % pack;
                let to = b as usize * out.stride(0)
                    + head as usize * out.stride(1)
                    + token as usize * out.stride(2);
                out[to / comptime!(VECTOR) + vector] = memory[row * comptime!(bp.pitch()) + vector];
            }
        }
    }
}
