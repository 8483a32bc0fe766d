//! From partial dot products to probabilities, within a set of lanes.
//!
//! Every lane comes with a partial sum of each of the set's scores, score `r * keys + u` of row `r` and
//! key `u`. The sums are taken so that each lane ends up *owning* a few scores of one row: it alone
//! exponentiates them and keeps that row's running maximum and its own part of the row's sum; then all
//! lanes learn all probabilities. Where there are more lanes than scores, `replicas` neighbours own the
//! same one.

use cubecl::prelude::*;

use super::SplitKBlueprint;

/// `lane` is the unit's place in its set, whose lane 0 is unit `first` of the plane; `state` the maximum
/// and the sum of the lane's row. Afterwards `p` holds all probabilities and `alpha` the factor by which
/// each row's output shrinks; false if none does.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn exchange(
    s: &mut Array<f32>,
    state: &mut Array<f32>,
    p: &mut Array<f32>,
    alpha: &mut Array<f32>,
    board: &mut Shared<[f32]>,
    maxima: &mut Shared<[f32]>,
    dealt: &mut Shared<[f32]>,
    lane: u32,
    first: u32,
    #[comptime] bp: SplitKBlueprint,
) -> bool {
    if comptime!(bp.planes) {
        by_planes(s, state, p, alpha, lane, first, bp)
    } else {
        by_barriers(s, state, p, alpha, board, maxima, dealt, lane, bp)
    }
}

/// By plane shuffles: halving exchange, `scores` values in `scores - 1` shuffles.
#[cube]
fn by_planes(
    s: &mut Array<f32>,
    state: &mut Array<f32>,
    p: &mut Array<f32>,
    alpha: &mut Array<f32>,
    lane: u32,
    first: u32,
    #[comptime] bp: SplitKBlueprint,
) -> bool {
    #[unroll]
    for stage in 0..comptime!(bp.lanes.ilog2() as usize) {
        let mask = u32::cast_from(comptime!(bp.lanes >> (stage + 1)));
        if comptime!((bp.scores() >> stage) > 1) {
            let half = comptime!(bp.scores() >> (stage + 1));
            let upper = lane & mask != 0;
            #[unroll]
            for i in 0..half {
                let other = comptime!(i + half);
                let mine = select(upper, s[other], s[i]);
                let theirs = select(upper, s[i], s[other]);
                s[i] = mine + plane_shuffle_xor(theirs, mask);
            }
        } else {
            s[0] += plane_shuffle_xor(s[0], mask);
        }
    }
    let mut highest = s[0];
    #[unroll]
    for i in 1..comptime!(bp.owned()) {
        highest = max(highest, s[i]);
    }
    #[unroll]
    for bit in 0..comptime!(bp.lanes_per_row().ilog2() as usize) {
        let mask = u32::cast_from(comptime!(1usize << bit));
        highest = max(highest, plane_shuffle_xor(highest, mask));
    }
    let factor = weigh(s, state, highest, bp);
    #[unroll]
    for i in 0..comptime!(bp.scores()) {
        let owner = u32::cast_from(comptime!(i * bp.lanes / bp.scores()));
        p[i] = plane_shuffle(s[comptime!(i % bp.owned())], first + owner);
    }
    #[unroll]
    for r in 0..comptime!(bp.rows) {
        let owner = u32::cast_from(comptime!(r * bp.lanes_per_row()));
        alpha[r] = plane_shuffle(factor, first + owner);
    }
    plane_any(factor < 1.0)
}

/// Through shared memory and three barriers of the cube, for devices without plane operations.
#[cube]
#[allow(clippy::too_many_arguments)]
fn by_barriers(
    s: &mut Array<f32>,
    state: &mut Array<f32>,
    p: &mut Array<f32>,
    alpha: &mut Array<f32>,
    board: &mut Shared<[f32]>,
    maxima: &mut Shared<[f32]>,
    dealt: &mut Shared<[f32]>,
    lane: u32,
    #[comptime] bp: SplitKBlueprint,
) -> bool {
    let units = comptime!(bp.units());
    let lane = lane as usize;
    let unit = UNIT_POS as usize;
    let first = unit - lane;
    #[unroll]
    for i in 0..comptime!(bp.scores()) {
        board[comptime!(i * units) + unit] = s[i];
    }
    sync_cube();
    let own = lane / comptime!(bp.replicas()) * comptime!(bp.owned());
    #[unroll]
    for i in 0..comptime!(bp.owned()) {
        let mut total = f32::new(0.0);
        for l in 0..comptime!(bp.lanes) {
            total += board[(own + i) * units + first + l];
        }
        s[i] = total;
    }
    let mut highest = s[0];
    #[unroll]
    for i in 1..comptime!(bp.owned()) {
        highest = max(highest, s[i]);
    }
    maxima[unit] = highest;
    sync_cube();
    let row = lane / comptime!(bp.lanes_per_row());
    for l in 0..comptime!(bp.lanes_per_row()) {
        let other = first + row * comptime!(bp.lanes_per_row()) + l;
        highest = max(highest, maxima[other]);
    }
    let factor = weigh(s, state, highest, bp);
    let set = unit / comptime!(bp.lanes) * comptime!(bp.scores() + bp.rows);
    let replica = lane % comptime!(bp.replicas());
    if replica == 0 {
        #[unroll]
        for i in 0..comptime!(bp.owned()) {
            dealt[set + own + i] = s[i];
        }
    }
    let place = lane % comptime!(bp.lanes_per_row());
    if place == 0 {
        dealt[set + comptime!(bp.scores()) + row] = factor;
    }
    sync_cube();
    #[unroll]
    for i in 0..comptime!(bp.scores()) {
        p[i] = dealt[set + i];
    }
    #[unroll]
    for r in 0..comptime!(bp.rows) {
        alpha[r] = dealt[set + comptime!(bp.scores()) + r];
    }
    true.runtime()
}

/// Replaces a lane's own scores by probabilities under the row's new maximum; the factor for the old.
#[cube]
fn weigh(
    s: &mut Array<f32>,
    state: &mut Array<f32>,
    highest: f32,
    #[comptime] bp: SplitKBlueprint,
) -> f32 {
    let maximum = max(state[0], highest);
    let factor = (state[0] - maximum).exp();
    let mut sum = state[1] * factor;
    #[unroll]
    for i in 0..comptime!(bp.owned()) {
        s[i] = (s[i] - maximum).exp();
        sum += s[i];
    }
    state[0] = maximum;
    state[1] = sum;
    factor
}
