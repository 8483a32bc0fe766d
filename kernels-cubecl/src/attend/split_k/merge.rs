//! Merges the partial outputs of the splits: each weighs `exp(its maximum - the largest)`.

use cubecl::prelude::*;

use super::{FLOOR, SplitKBlueprint};
use crate::table::Call;

type Vec4<E> = Vector<E, Const<4>>;

/// Splits a unit loads at a time.
const BATCH: usize = 4;

/// One cube per row of the output, `head_dim / 4` units wide; its slots take the splits in turn. A row
/// that saw nothing becomes zeros and `lse = -inf`.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments, clippy::collapsible_if)]
pub(super) fn merge_splits<E: Float>(
    scratch: &[Vec4<f32>],
    out: &mut Tensor<Vec4<E>>,
    lse: &mut [f32],
    call: Call,
    #[comptime] with_lse: bool,
    #[comptime] bp: SplitKBlueprint,
    #[define(E)] _elem: ElemType,
) {
    let width = comptime!(bp.head_dim / 4);
    let slots = comptime!(bp.slots());
    let x = UNIT_POS_X as usize;
    let y = UNIT_POS_Y as usize;
    let at = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    let heads = call.groups * call.packed_heads;
    if at >= call.batch * heads * call.rows {
        terminate!();
    }
    let row = at % call.rows;
    let head = (at / call.rows) % heads;
    let b = at / (call.rows * heads);
    let packed = row * call.packed_heads + head % call.packed_heads;
    let group = (b * heads + head) / call.packed_heads;
    let pitch = comptime!(bp.pitch() / 4);
    let packed_rows = (call.rows * call.packed_heads) as usize;
    let base = (group as usize * call.splits as usize * packed_rows + packed as usize) * pitch;
    let stride = packed_rows * pitch;
    let active = u32::cast_from(scratch[base + width].extract(2usize)) as usize;

    let mut maximum = f32::new(FLOOR);
    let mut sum = f32::new(0.0);
    let mut acc = Vec4::<f32>::new(f32::new(0.0));
    let mut split = y;
    while split < active {
        let mut parts = Array::<Vec4<f32>>::new(BATCH);
        let mut stats = Array::<Vec4<f32>>::new(BATCH);
        #[unroll]
        for i in 0..BATCH {
            let from = base + min(split + comptime!(i * slots), active - 1) * stride;
            parts[i] = scratch[from + x];
            stats[i] = scratch[from + width];
        }
        let mut highest = maximum;
        #[unroll]
        for i in 0..BATCH {
            highest = max(highest, stats[i].extract(0usize));
        }
        let factor = (maximum - highest).exp();
        sum *= factor;
        acc *= Vector::new(factor);
        #[unroll]
        for i in 0..BATCH {
            let weight = (stats[i].extract(0usize) - highest).exp();
            let weight = select(split + comptime!(i * slots) < active, weight, f32::new(0.0));
            sum += weight * stats[i].extract(1usize);
            acc += Vector::new(weight) * parts[i];
        }
        maximum = highest;
        split += comptime!(BATCH * slots);
    }

    let mut outputs = Shared::<[Vec4<f32>]>::new_slice(comptime!(bp.slots() * bp.head_dim / 4));
    let mut maxima = Shared::<[f32]>::new_slice(slots);
    let mut sums = Shared::<[f32]>::new_slice(slots);
    outputs[y * width + x] = acc;
    if x == 0 {
        maxima[y] = maximum;
        sums[y] = sum;
    }
    sync_cube();
    if y == 0 {
        let mut highest = f32::new(FLOOR);
        let mut total = f32::new(0.0);
        let mut merged = Vec4::<f32>::new(f32::new(0.0));
        #[unroll]
        for i in 0..slots {
            highest = max(highest, maxima[i]);
        }
        #[unroll]
        for i in 0..slots {
            let weight = (maxima[i] - highest).exp();
            total += weight * sums[i];
            merged += Vector::new(weight) * outputs[i * width + x];
        }
        let mut inverse = f32::new(0.0);
        if total > 0.0 {
            inverse = f32::new(1.0) / total;
        }
        let to = b as usize * out.stride(0)
            + head as usize * out.stride(1)
            + row as usize * out.stride(2);
        out[to / 4 + x] = Vec4::<E>::cast_from(merged * Vector::new(inverse));
        if comptime!(with_lse) {
            if x == 0 {
                // ln(0) = -inf for a row that saw nothing.
                lse[at as usize] = highest + total.ln();
            }
        }
    }
}
