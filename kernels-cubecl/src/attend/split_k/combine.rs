//! The end of a split: the sets of a cube are added up and written to the scratch.

use cubecl::prelude::*;

use super::{FLOOR, PER_UNIT, SplitKBlueprint};

/// Writes output, maximum and sum of every packed row of this cube, and how many splits there are.
/// Row by row, so that shared memory holds one row of every unit. `packed` is the number of packed rows.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn combine<N: Size>(
    acc: &Array<Vector<f32, N>>,
    state: &Array<f32>,
    board: &mut Shared<[f32]>,
    maxima: &mut Shared<[f32]>,
    sums: &mut Shared<[f32]>,
    scratch: &mut [f32],
    cube: u32,
    packed: u32,
    active: u32,
    #[comptime] bp: SplitKBlueprint,
) {
    let units = comptime!(bp.units());
    let lanes = comptime!(bp.lanes);
    let unit = UNIT_POS as usize;
    let lane = unit % lanes;
    let set = unit / lanes % comptime!(bp.sets);
    let chunk = unit / comptime!(bp.lanes * bp.sets);
    let first = chunk * comptime!(bp.lanes * bp.sets);

    sync_cube();
    maxima[unit] = state[0];
    sums[unit] = state[1];
    #[unroll]
    for r in 0..comptime!(bp.rows) {
        if comptime!(r > 0) {
            sync_cube();
        }
        #[unroll]
        for e in 0..PER_UNIT {
            let vector = acc[comptime!(r * bp.vectors() + e / bp.width)];
            board[comptime!(e * units) + unit] = vector.extract(comptime!(e % bp.width));
        }
        sync_cube();
        let row = chunk * comptime!(bp.rows) + r;
        if row < packed as usize {
            let owner = first + comptime!(r * bp.lanes_per_row());
            let to = (cube as usize * packed as usize + row) * comptime!(bp.pitch());
            let mut maximum = f32::new(FLOOR);
            for g in 0..comptime!(bp.sets) {
                maximum = max(maximum, maxima[owner + g * lanes]);
            }
            let mut e = set;
            while e < comptime!(PER_UNIT) {
                let mut total = f32::new(0.0);
                for g in 0..comptime!(bp.sets) {
                    let weight = (maxima[owner + g * lanes] - maximum).exp();
                    total += weight * board[e * units + first + g * lanes + lane];
                }
                let vector = e / comptime!(bp.width) * lanes + lane;
                let element = vector * comptime!(bp.width) + e % comptime!(bp.width);
                if element < comptime!(bp.head_dim) {
                    scratch[to + element] = total;
                }
                e += comptime!(bp.sets);
            }
            if unit == first {
                let mut total = f32::new(0.0);
                for g in 0..comptime!(bp.sets) {
                    let weight = (maxima[owner + g * lanes] - maximum).exp();
                    for l in 0..comptime!(bp.lanes_per_row()) {
                        total += weight * sums[owner + g * lanes + l];
                    }
                }
                // Not every device has an exponential that reaches 0.
                if maximum <= FLOOR {
                    total = f32::new(0.0);
                }
                let stats = to + comptime!(bp.head_dim);
                scratch[stats] = maximum;
                scratch[stats + 1] = total / f32::cast_from(comptime!(bp.replicas()));
                scratch[stats + 2] = f32::cast_from(active);
                scratch[stats + 3] = f32::new(0.0);
            }
        }
    }
}
