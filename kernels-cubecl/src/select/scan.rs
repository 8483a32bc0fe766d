//! Sums over the units of a cube through shared memory, so that planes of any size will do.

use cubecl::prelude::*;

/// Units of the cubes that scan; WebGPU guarantees as many.
pub(super) const UNITS: usize = 256;

/// The sum over the units before this one; [`total`] is that over all. `sums` has room for `2 * units`; `units` is a
/// power of two. Every unit of the cube must call it.
#[cube]
pub(super) fn exclusive_sum(mine: u32, sums: &mut Shared<[u32]>, #[comptime] units: usize) -> u32 {
    let unit = UNIT_POS as usize;
    let stages = comptime!(units.ilog2() as usize);
    // What an earlier call left may still be read.
    sync_cube();
    sums[unit] = mine;
    sync_cube();
    #[unroll]
    for stage in 0..stages {
        let from = comptime!(stage % 2 * units);
        let to = comptime!((stage + 1) % 2 * units);
        let reach = comptime!(1usize << stage);
        let mut sum = sums[from + unit];
        if unit >= reach {
            sum += sums[from + unit - reach];
        }
        sums[to + unit] = sum;
        sync_cube();
    }
    sums[comptime!(stages % 2 * units) + unit] - mine
}

/// The sum over all units of the last [`exclusive_sum`] in `sums`.
#[cube]
pub(super) fn total(sums: &mut Shared<[u32]>, #[comptime] units: usize) -> u32 {
    let stages = comptime!(units.ilog2() as usize);
    sums[comptime!(stages % 2 * units + units - 1)]
}
