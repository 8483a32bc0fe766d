//! Partial attention of one split of the keys.
//!
//! One cube owns a sequence, a head group and a split of the keys that its rows see: the index's
//! ranges, clipped to the causal end, then its columns, laid end to end and cut into equal parts.
//! Packed row `r` is query head `group * pack + r % pack` at query row `r / pack`. A *set* of `lanes`
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

use cubecl::prelude::*;

use super::{
    DecodeBlueprint, FLOOR, SPLIT_KEYS, UNSEEN,
    combine::combine,
    exchange::exchange,
    load::{load, load_scales, position as position_of, widen},
};
use crate::{attend::visible::Rule, int8::CachePart};

/// See the module documentation. Keys and values are `T`, see `load`. `table` as in the extension trait;
/// `scratch` holds [`DecodeBlueprint::pitch`] floats for each sequence, group, split and packed row, in
/// this order.
#[cube(launch_unchecked, address_type = "dynamic")]
// A comptime condition is an `if` of its own: it decides what is compiled.
#[allow(clippy::too_many_arguments, clippy::collapsible_if)]
pub(super) fn attend_split<E: Float, N: Size, T: Numeric, M: Size>(
    query: &Tensor<Vector<E, N>>,
    key: &Tensor<Vector<T, M>>,
    value: &Tensor<Vector<T, M>>,
    scales: ComptimeOption<&Tensor<f32>>,
    table: &[u32],
    scratch: &mut [f32],
    batch: u32,
    groups: u32,
    pack: u32,
    heads_per_kv: u32,
    n_rows: u32,
    splits: u32,
    index_heads: u32,
    tiles: u32,
    scale: f32,
    sink: u32,
    band: u32,
    window: ComptimeOption<u32>,
    #[comptime] bp: DecodeBlueprint,
    #[define(E)] _elem: ElemType,
    #[define(T)] _stored: ElemType,
) {
    let vectors = comptime!(bp.vectors());
    // One-dimensional cubes: WGSL has no planes in others.
    let lane = UNIT_POS % u32::cast_from(comptime!(bp.lanes));
    let set = UNIT_POS / u32::cast_from(comptime!(bp.lanes)) % u32::cast_from(comptime!(bp.sets));
    let chunk = UNIT_POS / u32::cast_from(comptime!(bp.lanes * bp.sets));
    let mut first = 0u32;
    if comptime!(bp.planes) {
        first = UNIT_POS_PLANE - lane;
    }

    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= batch * groups * splits {
        terminate!();
    }
    let split = cube % splits;
    let group = (cube / splits) % groups;
    let b = cube / (splits * groups);
    let kv_head = group * pack / heads_per_kv;
    let q_len = table[(b * 4) as usize];
    let kv_len = table[(b * 4 + 1) as usize];
    let dense_from = table[(b * 4 + 2) as usize];
    let offset = kv_len - q_len;
    let rule = Rule::new(sink, band, dense_from, &window);

    // What the sequence sees, laid end to end. A sequence without rows sees nothing.
    let mut n_ranges = 1u32;
    let mut n_columns = 0u32;
    let mut ranges_at = 0u32;
    let mut columns_at = 0u32;
    let window_start = rule.first_key(offset, comptime!(bp.windowed));
    let mut total = kv_len;
    if comptime!(bp.windowed) {
        total -= window_start;
    }
    if comptime!(bp.indexed) {
        let index_head = group * index_heads / groups;
        let row = batch * 4 + ((b * index_heads + index_head) * tiles) * 4;
        ranges_at = table[row as usize];
        n_ranges = table[(row + 1) as usize];
        columns_at = table[(row + 2) as usize];
        n_columns = table[(row + 3) as usize];
        total = n_columns;
        for i in 0..n_ranges {
            let mut start = table[(ranges_at + i * 2) as usize];
            if comptime!(bp.windowed) {
                start = max(start, window_start);
            }
            let end = min(table[(ranges_at + i * 2 + 1) as usize], kv_len);
            total += max(end, start) - start;
        }
    }
    if q_len == 0 {
        total = 0u32.runtime();
    }
    // This cube's part of it.
    let step = u32::cast_from(comptime!(bp.step()));
    let per_split = max(
        total.div_ceil(splits),
        u32::cast_from(comptime!(SPLIT_KEYS)),
    );
    let per_split = per_split.div_ceil(step) * step;
    let active = max(total.div_ceil(per_split), 1);
    if split >= active {
        terminate!();
    }
    let low = split * per_split;
    let high = min(low + per_split, total);

    // The unit's queries, and which keys its rows see.
    let mut columns = Array::<usize>::new(vectors);
    let mut q = Array::<Vector<f32, N>>::new(comptime!(bp.rows * bp.vectors()));
    let mut acc = Array::<Vector<f32, N>>::new(comptime!(bp.rows * bp.vectors()));
    let mut position = Array::<u32>::new(comptime!(bp.rows));
    let mut exists = Array::<bool>::new(comptime!(bp.rows));
    #[unroll]
    for i in 0..vectors {
        let column = comptime!(i * bp.lanes) + lane as usize;
        columns[i] = min(column, comptime!(bp.head_dim / bp.width - 1));
    }
    #[unroll]
    for r in 0..comptime!(bp.rows) {
        let packed = chunk * u32::cast_from(comptime!(bp.rows)) + u32::cast_from(r);
        let row = packed / pack;
        let head = group * pack + packed % pack;
        exists[r] = row < q_len;
        position[r] = offset + row;
        #[unroll]
        for i in 0..vectors {
            let at = comptime!(r * bp.vectors() + i);
            let column = comptime!(i * bp.lanes) + lane as usize;
            let mut loaded = Vector::<f32, N>::new(f32::new(0.0));
            if row < q_len && column < comptime!(bp.head_dim / bp.width) {
                let from = b as usize * query.stride(0)
                    + head as usize * query.stride(1)
                    + row as usize * query.stride(2);
                loaded = Vector::cast_from(query[from / comptime!(bp.width) + column]);
            }
            q[at] = loaded * Vector::new(scale);
            acc[at] = Vector::new(f32::new(0.0));
        }
    }

    let mut board = Shared::<[f32]>::new_slice(comptime!(bp.board()));
    let mut maxima = Shared::<[f32]>::new_slice(comptime!(bp.units()));
    let mut sums = Shared::<[f32]>::new_slice(comptime!(bp.units()));
    let mut dealt = Shared::<[f32]>::new_slice(comptime!(bp.dealt()));
    // Running maximum and sum of the row whose scores this lane owns.
    let mut state = Array::<f32>::new(2usize);
    state[0] = f32::new(FLOOR);
    state[1] = f32::new(0.0);

    let stored = comptime!(bp.stride_width());
    let key_base = (b as usize * key.stride(0) + kv_head as usize * key.stride(1)) / stored;
    let value_base = (b as usize * value.stride(0) + kv_head as usize * value.stride(1)) / stored;
    let key_stride = key.stride(2) / stored;
    let value_stride = value.stride(2) / stored;
    let mut key_scales_at = 0usize;
    let mut value_scales_at = 0usize;
    #[comptime]
    match &scales {
        ComptimeOption::Some(scales) => {
            let first = b as usize * scales.stride(0) + kv_head as usize * scales.stride(1);
            key_scales_at = first + comptime!(CachePart::Key.index()) * scales.stride(2);
            value_scales_at = first + comptime!(CachePart::Value.index()) * scales.stride(2);
        }
        ComptimeOption::None => {}
    }
    let mut key_scales = Array::<f32>::new(comptime!(bp.scales()));
    let mut value_scales = Array::<f32>::new(comptime!(bp.scales()));
    let mut k = Array::<Vector<T, M>>::new(comptime!(bp.keys * bp.vectors()));
    let mut v = Array::<Vector<T, M>>::new(comptime!(bp.keys * bp.vectors()));
    let mut s = Array::<f32>::new(comptime!(bp.scores()));
    let mut p = Array::<f32>::new(comptime!(bp.scores()));
    let mut alpha = Array::<f32>::new(comptime!(bp.rows));

    let mut items = n_ranges;
    if n_columns > 0 {
        items += 1;
    }
    let mut before = 0u32;
    for item in 0..items {
        let gathered = item == n_ranges;
        let mut start = 0u32;
        let mut end = total;
        if comptime!(bp.windowed && !bp.indexed) {
            start = window_start;
            end = kv_len;
        }
        if comptime!(bp.indexed) {
            if gathered {
                end = n_columns;
            } else {
                start = table[(ranges_at + item * 2) as usize];
                if comptime!(bp.windowed) {
                    start = max(start, window_start);
                }
                end = max(
                    min(table[(ranges_at + item * 2 + 1) as usize], kv_len),
                    start,
                );
            }
        }
        let from = max(low, before);
        let to = min(high, before + (end - start));
        if from < to {
            let mut at = start + (from - before);
            let end = start + (to - before);
            load::<T, M>(
                key, &mut k, table, &columns, key_base, key_stride, at, set, end, gathered,
                columns_at, bp,
            );
            load::<T, M>(
                value,
                &mut v,
                table,
                &columns,
                value_base,
                value_stride,
                at,
                set,
                end,
                gathered,
                columns_at,
                bp,
            );
            load_scales(
                &scales,
                &mut key_scales,
                table,
                key_scales_at,
                at,
                set,
                end,
                gathered,
                columns_at,
                bp,
            );
            load_scales(
                &scales,
                &mut value_scales,
                table,
                value_scales_at,
                at,
                set,
                end,
                gathered,
                columns_at,
                bp,
            );
            while at < end {
                #[unroll]
                for u in 0..comptime!(bp.keys) {
                    let slot = at + u32::cast_from(comptime!(u * bp.sets)) + set;
                    let mut seen = slot < end;
                    if comptime!(bp.single && bp.banded) {
                        seen = seen && (gathered || rule.in_band(slot, offset));
                    }
                    // Ranges begin at the window of the first row, columns anywhere.
                    let key_at = if comptime!(bp.windowed && bp.columns) {
                        position_of(table, at, set, end, gathered, columns_at, u, bp) as u32
                    } else {
                        slot
                    };
                    if comptime!(bp.single && bp.windowed && bp.columns) {
                        seen = seen && (!gathered || rule.in_window(key_at, offset));
                    }
                    let bias = select(seen, f32::new(0.0), f32::new(UNSEEN));
                    #[unroll]
                    for r in 0..comptime!(bp.rows) {
                        let i = comptime!(r * bp.keys + u);
                        s[i] = bias;
                        if comptime!(!bp.single) {
                            let mut seen = slot <= position[r];
                            if comptime!(bp.banded) {
                                seen = seen && rule.in_band(slot, position[r]);
                            }
                            seen = exists[r] && (gathered || seen);
                            if comptime!(bp.windowed) {
                                seen = seen && rule.in_window(key_at, position[r]);
                            }
                            s[i] = select(seen, bias, f32::new(UNSEEN));
                        }
                    }
                    // Of bytes, the products come first; then one scale for all, and the bias.
                    let mut biases = Array::<f32>::new(comptime!(bp.rows));
                    if comptime!(bp.int8) {
                        #[unroll]
                        for r in 0..comptime!(bp.rows) {
                            biases[r] = s[comptime!(r * bp.keys + u)];
                            s[comptime!(r * bp.keys + u)] = f32::new(0.0);
                        }
                    }
                    #[unroll]
                    for i in 0..vectors {
                        let x = widen::<T, M, E, N>(k[comptime!(u * bp.vectors() + i)], bp);
                        #[unroll]
                        for r in 0..comptime!(bp.rows) {
                            let y = q[comptime!(r * bp.vectors() + i)];
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
                            s[at] = fma(s[at], key_scales[u], biases[r]);
                        }
                    }
                }
                load::<T, M>(
                    key,
                    &mut k,
                    table,
                    &columns,
                    key_base,
                    key_stride,
                    at + step,
                    set,
                    end,
                    gathered,
                    columns_at,
                    bp,
                );
                load_scales(
                    &scales,
                    &mut key_scales,
                    table,
                    key_scales_at,
                    at + step,
                    set,
                    end,
                    gathered,
                    columns_at,
                    bp,
                );
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
                        for i in 0..vectors {
                            let at = comptime!(r * bp.vectors() + i);
                            acc[at] *= Vector::new(alpha[r]);
                        }
                    }
                }
                if comptime!(bp.int8) {
                    #[unroll]
                    for u in 0..comptime!(bp.keys) {
                        #[unroll]
                        for r in 0..comptime!(bp.rows) {
                            p[comptime!(r * bp.keys + u)] *= value_scales[u];
                        }
                    }
                }
                #[unroll]
                for u in 0..comptime!(bp.keys) {
                    #[unroll]
                    for i in 0..vectors {
                        let x = widen::<T, M, E, N>(v[comptime!(u * bp.vectors() + i)], bp);
                        #[unroll]
                        for r in 0..comptime!(bp.rows) {
                            let at = comptime!(r * bp.vectors() + i);
                            let weight = p[comptime!(r * bp.keys + u)];
                            acc[at] = fma(Vector::new(weight), x, acc[at]);
                        }
                    }
                }
                load::<T, M>(
                    value,
                    &mut v,
                    table,
                    &columns,
                    value_base,
                    value_stride,
                    at + step,
                    set,
                    end,
                    gathered,
                    columns_at,
                    bp,
                );
                load_scales(
                    &scales,
                    &mut value_scales,
                    table,
                    value_scales_at,
                    at + step,
                    set,
                    end,
                    gathered,
                    columns_at,
                    bp,
                );
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
        cube,
        n_rows * pack,
        active,
        bp,
    );
}
