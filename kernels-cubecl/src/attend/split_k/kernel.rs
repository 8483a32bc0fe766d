//! Partial attention of one split of the keys.
//!
//! One cube owns a sequence, a head group and a split of the keys that its rows see: the index's
//! ranges, clipped to the causal end, then its columns, laid end to end and cut into equal parts.
//! Packed row `r` is query head `group * packed_heads + r % packed_heads` at query row `r / packed_heads`. A *set* of `lanes`
//! units holds one key at a time in vectors of `width`: lane `l` the vectors `l`, `l + lanes`, ..;
//! neighbouring sets hold neighbouring keys, so a plane reads consecutive memory. Per step a set takes
//! `keys` keys: it multiplies queries and keys, loads the next keys, sums the products over its lanes (see
//! `exchange`), multiplies probabilities and values, and loads the next values.
//!
//! Queries (scaled), outputs and softmax in f32 registers, running maximum and sum per row and set;
//! sets are merged through shared memory at the end. Where keys and values are bytes, scores and
//! probabilities are multiplied by the scales, not the elements. Positions past the end are clamped to the last
//! key, never read beyond, and score [`UNSEEN`]. A row that sees nothing leaves a sum of 0. Units whose
//! vectors lie past the head dimension repeat its last vector against queries of 0.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;

use super::{
    FLOOR, SPLIT_KEYS, SplitKBlueprint, UNSEEN,
    combine::combine,
    exchange::exchange,
    load::{Slots, Source, widen},
};
use crate::{
    int8::CachePart,
    table::{Call, Items, Limits, Place, Rule},
};

/// See the module documentation. Keys and values are `T`, see `load`. `table` as in the extension trait;
/// `scratch` holds [`SplitKBlueprint::pitch`] floats for each sequence, group, split and packed row, in
/// this order.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn attend_split<E: Float, N: Size, T: Numeric, M: Size>(
    query: &Tensor<Vector<E, N>>,
    key: &Tensor<Vector<T, M>>,
    value: &Tensor<Vector<T, M>>,
    scales: ComptimeOption<&Tensor<f32>>,
    table: &[u32],
    scratch: &mut [f32],
    call: Call,
    limits: Limits,
    #[comptime] bp: SplitKBlueprint,
    #[define(E)] _elem: ElemType,
    #[define(T)] _stored: ElemType,
) {
    let walk = comptime!(bp.walk());
    // One-dimensional cubes: WGSL has no planes in others.
    let lane = UNIT_POS % u32::cast_from(comptime!(bp.lanes));
    let set = UNIT_POS / u32::cast_from(comptime!(bp.lanes)) % u32::cast_from(comptime!(bp.sets));
    let mut first = 0u32;
    if comptime!(bp.planes) {
        first = UNIT_POS_PLANE - lane;
    }
    let place = Place::of_split_keys(table, call);
    let rule = Rule::new(&limits, place.span.dense_from);

    // What the sequence sees, laid end to end, and this cube's part of it.
    let items = Items::of(
        table,
        place.index_row(),
        rule.first_key(place.offset, comptime!(bp.windowed)),
        place.span.kv_len,
        walk,
    );
    let total = visible_keys(table, &items, &place, bp);
    let step = u32::cast_from(comptime!(bp.step()));
    let per_split = max(
        total.div_ceil(place.call.splits),
        u32::cast_from(comptime!(SPLIT_KEYS)),
    );
    let per_split = per_split.div_ceil(step) * step;
    let active = max(total.div_ceil(per_split), 1);
    if place.split >= active {
        terminate!();
    }
    let low = place.split * per_split;
    let high = min(low + per_split, total);

    let rows = Rows::new(query, &place, lane, bp);
    let mut acc = Array::<Vector<f32, N>>::new(comptime!(bp.rows * bp.vectors()));
    #[unroll]
    for i in 0..comptime!(bp.rows * bp.vectors()) {
        acc[i] = Vector::new(f32::new(0.0));
    }
    let mut board = Shared::<[f32]>::new_slice(comptime!(bp.board()));
    let mut maxima = Shared::<[f32]>::new_slice(comptime!(bp.units()));
    let mut sums = Shared::<[f32]>::new_slice(comptime!(bp.units()));
    let mut dealt = Shared::<[f32]>::new_slice(comptime!(bp.dealt()));
    // Running maximum and sum of the row whose scores this lane owns.
    let mut state = Array::<f32>::new(2usize);
    state[0] = f32::new(FLOOR);
    state[1] = f32::new(0.0);

    let keys = Source::new(key, &scales, &place, lane, CachePart::Key, bp);
    let values = Source::new(value, &scales, &place, lane, CachePart::Value, bp);
    let mut key_scales = Array::<f32>::new(comptime!(bp.scales()));
    let mut value_scales = Array::<f32>::new(comptime!(bp.scales()));
    let mut k = Array::<Vector<T, M>>::new(comptime!(bp.keys * bp.vectors()));
    let mut v = Array::<Vector<T, M>>::new(comptime!(bp.keys * bp.vectors()));
    let mut s = Array::<f32>::new(comptime!(bp.scores()));
    let mut p = Array::<f32>::new(comptime!(bp.scores()));
    let mut alpha = Array::<f32>::new(comptime!(bp.rows));

    let mut before = 0u32;
    for item in 0..items.count() {
        let gathered = item == items.ranges;
        let start = items.start(table, item, walk);
        let end = max(items.end(table, item, walk), start);
        let from = max(low, before);
        let to = min(high, before + (end - start));
        if from < to {
            let mut at = start + (from - before);
            let slots = Slots::new(&items, start + (to - before), gathered, set);
            keys.load(key, &mut k, table, &slots, at, bp);
            values.load(value, &mut v, table, &slots, at, bp);
            keys.load_scales(&scales, &mut key_scales, table, &slots, at, bp);
            values.load_scales(&scales, &mut value_scales, table, &slots, at, bp);
            while at < slots.end {
                #[unroll]
                for u in 0..comptime!(bp.keys) {
                    rows.bias(&mut s, table, &slots, &rule, at, u, bp);
                    rows.multiply::<E, T, M>(&mut s, &k, &key_scales, u, bp);
                }
                keys.load(key, &mut k, table, &slots, at + step, bp);
                keys.load_scales(&scales, &mut key_scales, table, &slots, at + step, bp);
                let grew = exchange(
                    &mut s,
                    &mut state,
                    &mut p,
                    &mut alpha,
                    &mut board,
                    &mut maxima,
                    &mut dealt,
                    lane,
                    first,
                    bp,
                );
                if grew {
                    #[unroll]
                    for r in 0..comptime!(bp.rows) {
                        #[unroll]
                        for i in 0..comptime!(bp.vectors()) {
                            let at = comptime!(r * bp.vectors() + i);
                            acc[at] *= Vector::new(alpha[r]);
                        }
                    }
                }
                weigh::<E, N, T, M>(&mut acc, &mut p, &v, &value_scales, bp);
                values.load(value, &mut v, table, &slots, at + step, bp);
                values.load_scales(&scales, &mut value_scales, table, &slots, at + step, bp);
                at += step;
            }
        }
        before += end - start;
    }
    combine::<N>(
        &acc,
        &state,
        &mut board,
        &mut maxima,
        &mut sums,
        scratch,
        CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X,
        place.tile_rows,
        active,
        bp,
    );
}

/// Keys that the rows of a sequence see between them, all items together. A sequence without rows sees
/// none.
#[cube]
fn visible_keys(
    table: &[u32],
    items: &Items,
    place: &Place,
    #[comptime] bp: SplitKBlueprint,
) -> u32 {
    let walk = comptime!(bp.walk());
    let mut total = items.columns;
    if comptime!(bp.indexed) {
        for range in 0..items.ranges {
            let start = items.range_start(table, range, walk);
            total += max(items.range_end(table, range), start) - start;
        }
    } else {
        total = items.end(table, 0u32, walk) - items.start(table, 0u32, walk);
    }
    if place.span.query_len == 0 {
        total = 0u32.runtime();
    }
    total
}

/// A unit's packed rows: its part of the queries, scaled, and what tells which keys they see.
#[derive(CubeType)]
struct Rows<N: Size> {
    q: Array<Vector<f32, N>>,
    position: Array<u32>,
    exists: Array<bool>,
    offset: u32,
}

#[cube]
impl<N: Size> Rows<N> {
    fn new<E: Float>(
        query: &Tensor<Vector<E, N>>,
        place: &Place,
        lane: u32,
        #[comptime] bp: SplitKBlueprint,
    ) -> Rows<N> {
        let chunk = UNIT_POS / u32::cast_from(comptime!(bp.lanes * bp.sets));
        let mut q = Array::<Vector<f32, N>>::new(comptime!(bp.rows * bp.vectors()));
        let mut position = Array::<u32>::new(comptime!(bp.rows));
        let mut exists = Array::<bool>::new(comptime!(bp.rows));
        #[unroll]
        for r in 0..comptime!(bp.rows) {
            let packed = chunk * u32::cast_from(comptime!(bp.rows)) + u32::cast_from(r);
            let row = place.row(packed);
            exists[r] = row < place.span.query_len;
            position[r] = place.offset + row;
            #[unroll]
            for i in 0..comptime!(bp.vectors()) {
                let column = comptime!(i * bp.lanes) + lane as usize;
                let mut loaded = Vector::<f32, N>::new(f32::new(0.0));
                if row < place.span.query_len && column < comptime!(bp.head_dim / bp.width) {
                    let from = place.row_at(query, packed);
                    loaded = Vector::cast_from(query[from / comptime!(bp.width) + column]);
                }
                q[comptime!(r * bp.vectors() + i)] = loaded * Vector::new(place.call.scale);
            }
        }
        Rows::<N> {
            q,
            position,
            exists,
            offset: place.offset,
        }
    }

    /// Begins the scores of key `u` of a step: 0 where a row sees it, [`UNSEEN`] where not.
    #[allow(clippy::too_many_arguments)]
    fn bias(
        &self,
        s: &mut Array<f32>,
        table: &[u32],
        slots: &Slots,
        rule: &Rule,
        at: u32,
        #[comptime] u: usize,
        #[comptime] bp: SplitKBlueprint,
    ) {
        let slot = slots.slot(at, u, bp);
        let mut seen = slot < slots.end;
        if comptime!(bp.single && bp.banded) {
            seen = seen && (slots.gathered || rule.in_band(slot, self.offset));
        }
        // Ranges begin at the window of the first row, columns anywhere.
        let key = if comptime!(bp.windowed && bp.columns) {
            slots.position(table, at, u, bp)
        } else {
            slot
        };
        if comptime!(bp.single && bp.windowed && bp.columns) {
            seen = seen && (!slots.gathered || rule.in_window(key, self.offset));
        }
        let bias = select(seen, f32::new(0.0), f32::new(UNSEEN));
        #[unroll]
        for r in 0..comptime!(bp.rows) {
            let i = comptime!(r * bp.keys + u);
            s[i] = bias;
            if comptime!(!bp.single) {
                let mut seen = slot <= self.position[r];
                if comptime!(bp.banded) {
                    seen = seen && rule.in_band(slot, self.position[r]);
                }
                seen = self.exists[r] && (slots.gathered || seen);
                if comptime!(bp.windowed) {
                    seen = seen && rule.in_window(key, self.position[r]);
                }
                s[i] = select(seen, bias, f32::new(UNSEEN));
            }
        }
    }

    /// Adds a unit's part of the products with key `u` of a step to its scores.
    fn multiply<E: Float, T: Numeric, M: Size>(
        &self,
        s: &mut Array<f32>,
        k: &Array<Vector<T, M>>,
        scales: &Array<f32>,
        #[comptime] u: usize,
        #[comptime] bp: SplitKBlueprint,
    ) {
        // Of int8, the products come first; then one scale for all, and the bias.
        let mut biases = Array::<f32>::new(comptime!(bp.rows));
        if comptime!(bp.int8) {
            #[unroll]
            for r in 0..comptime!(bp.rows) {
                biases[r] = s[comptime!(r * bp.keys + u)];
                s[comptime!(r * bp.keys + u)] = f32::new(0.0);
            }
        }
        #[unroll]
        for i in 0..comptime!(bp.vectors()) {
            let x = widen::<T, M, E, N>(k[comptime!(u * bp.vectors() + i)], bp);
            #[unroll]
            for r in 0..comptime!(bp.rows) {
                let y = self.q[comptime!(r * bp.vectors() + i)];
                #[unroll]
                for e in 0..comptime!(bp.width) {
                    let at = comptime!(r * bp.keys + u);
                    s[at] = fma(y.extract(e), x.extract(e), s[at]);
                }
            }
        }
        if comptime!(bp.int8) {
            #[unroll]
            for r in 0..comptime!(bp.rows) {
                let at = comptime!(r * bp.keys + u);
                s[at] = fma(s[at], scales[u], biases[r]);
            }
        }
    }
}

/// Adds probabilities times values to the output. Of int8, the scales go into the probabilities.
#[cube]
fn weigh<E: Float, N: Size, T: Numeric, M: Size>(
    acc: &mut Array<Vector<f32, N>>,
    p: &mut Array<f32>,
    v: &Array<Vector<T, M>>,
    scales: &Array<f32>,
    #[comptime] bp: SplitKBlueprint,
) {
    if comptime!(bp.int8) {
        #[unroll]
        for u in 0..comptime!(bp.keys) {
            #[unroll]
            for r in 0..comptime!(bp.rows) {
                p[comptime!(r * bp.keys + u)] *= scales[u];
            }
        }
    }
    #[unroll]
    for u in 0..comptime!(bp.keys) {
        #[unroll]
        for i in 0..comptime!(bp.vectors()) {
            let x = widen::<T, M, E, N>(v[comptime!(u * bp.vectors() + i)], bp);
            #[unroll]
            for r in 0..comptime!(bp.rows) {
                let at = comptime!(r * bp.vectors() + i);
                let weight = p[comptime!(r * bp.keys + u)];
                acc[at] = fma(Vector::new(weight), x, acc[at]);
            }
        }
    }
}
