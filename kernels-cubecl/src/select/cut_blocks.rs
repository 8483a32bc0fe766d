//! From the shares of key blocks to the blocks that a query block keeps, as bit masks: variant 0 beside
//! sinks and window alone (block-cluster), variant 1 beside columns and slashes too (hybrid).
//!
//! Blocks rank by the most that any query head of the index head gives them, in bins of a quarter of an
//! octave. Mass rule: every query head needs the share `f = (R - A) / (1 - A)` of its blocks' mass, `A`
//! being what it covers already; kept are all blocks from the highest bin on at which every head has its
//! own. Max-relative rule: kept are the blocks with at least `alpha` times the largest share.
//!
//! One cube per query block of an index head; it reads the visible part of its heads' shares twice. Shared
//! memory holds 128 sums a query head, in units of 2^-24, which wrap beyond 256; shares add up to at most
//! the number of score variants.

use cubecl::{client::Client, ir::AddressType, prelude::*, server::Handle};
use sparse_accelerate_contract::{SPAN_WORDS, scratch::COVERED_WORDS};

use super::{
    BLOCK, RULE_WORDS, Shape,
    fixed::{fixed, missing, scaled, score},
    scan::UNITS,
};
use crate::{
    layout::{buffer, cubes},
    table::{HeadRules, Span, Window},
};

/// Bins of shares from 2^-31 to 1; smaller ones share the first, which is never kept by mass.
const BINS: usize = 128;
/// The bin before that of 2^-31.
const BASE: u32 = (127 - 31) * 4 - 1;
/// Blocks between two writes of mask words.
const STRETCH: usize = 1024;

/// The most that any head gives block `j`; `at` is the first head's row.
#[cube]
fn rank(shares: &[u32], at: usize, stride: usize, #[comptime] heads_per_index: usize) -> u32 {
    let mut highest = 0u32;
    #[unroll]
    for h in 0..heads_per_index {
        highest = max(highest, score(shares[at + h * stride]));
    }
    highest
}

#[cube]
fn bin(rank: u32) -> u32 {
    let mut bin = 0u32;
    if rank >> 21 > BASE {
        bin = (rank >> 21) - BASE;
    }
    bin
}

#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn cut_rows(
    shares: &[u32],
    covered: &[u32],
    spans: &[u32],
    rules: &[u32],
    masks: &mut [u32],
    counts: &mut [u32],
    batch: usize,
    index_heads: usize,
    query_blocks: usize,
    key_blocks: usize,
    window: ComptimeOption<u32>,
    #[comptime] heads_per_index: usize,
) {
    let rows = batch * index_heads * query_blocks;
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let index = row / query_blocks;
    let block = row % query_blocks;
    let b = index / index_heads;
    let rule = HeadRules::of(index % index_heads);
    let floor = fixed(score(rule.floor_bits(rules)), 0u32);
    let alpha = score(rule.alpha_bits(rules));
    let span = Span::of(spans, b as u32);
    let query_len = span.query_len as usize;
    let kv_len = span.kv_len as usize;
    // Blocks up to the one that holds the query block's last position.
    let mut causal = 0usize.runtime();
    if block * BLOCK < query_len {
        let last = kv_len - query_len + min((block + 1) * BLOCK, query_len) - 1;
        causal = min(last / BLOCK + 1, key_blocks);
    }
    // The first block with a key that the query block's first position sees.
    let window = Window::of(&window);
    let seen = if comptime!(window.some) {
        window.first_key((kv_len - query_len + block * BLOCK) as u32) as usize / BLOCK
    } else {
        0usize.runtime()
    };
    let stride = query_blocks * key_blocks;
    let from = (index * heads_per_index * query_blocks + block) * key_blocks;

    let sums = Shared::<[Atomic<u32>]>::new_slice(comptime!(BINS * heads_per_index));
    // The largest rank, then the lowest bin of each variant, then the blocks that each keeps.
    let found = Shared::<[Atomic<u32>]>::new_slice(5usize);
    let mut at = unit;
    while at < comptime!(BINS * heads_per_index) {
        sums[at].store(0u32);
        at += UNITS;
    }
    if unit < 5 {
        let mut value = 0u32;
        if unit == 1 || unit == 2 {
            value = BINS as u32;
        }
        found[unit].store(value);
    }
    sync_cube();

    let mut largest = 0u32;
    let mut j = unit;
    if comptime!(window.some) {
        j += seen;
    }
    while j < causal {
        let rank = rank(shares, from + j, stride, heads_per_index);
        largest = max(largest, rank);
        if rank > 0 && alpha == 0 {
            let bin = bin(rank) as usize;
            #[unroll]
            for h in 0..heads_per_index {
                let part = fixed(score(shares[from + j + h * stride]), 0u32);
                if part > 0 {
                    sums[h * BINS + bin].fetch_add(part);
                }
            }
        }
        j += UNITS;
    }
    found[0].fetch_max(largest);
    sync_cube();

    // A unit per query head and variant walks down from the highest bin.
    let mut at = unit;
    while at < comptime!(2 * heads_per_index) {
        let (h, variant) = (at / 2, at % 2);
        let cover = (index * heads_per_index + h) * COVERED_WORDS + variant;
        let has = min(score(covered[cover]), score(covered[cover + 2]));
        let mut total = 0u32;
        for i in 0..BINS {
            total += sums[h * BINS + i].load();
        }
        let needed = scaled(missing(floor, fixed(has, 0u32)), total);
        let mut lowest = comptime!(BINS as u32).runtime();
        let mut sum = 0u32;
        while sum < needed {
            lowest -= 1;
            sum += sums[h * BINS + lowest as usize].load();
        }
        found[1 + variant].fetch_min(lowest);
        at += UNITS;
    }
    sync_cube();

    let bound = f32::reinterpret(alpha) * f32::reinterpret(found[0].load());
    let lowest = found[1].load();
    let lowest_beside = found[2].load();
    let words = key_blocks.div_ceil(32usize);
    let kept = Shared::<[Atomic<u32>]>::new_slice(comptime!(STRETCH / 16));
    let mut count = 0u32;
    let mut count_beside = 0u32;
    for stretch in 0..key_blocks.div_ceil(STRETCH) {
        if unit < comptime!(STRETCH / 16) {
            kept[unit].store(0u32);
        }
        sync_cube();
        #[unroll]
        for i in 0..comptime!(STRETCH / UNITS) {
            let local = i * UNITS + unit;
            let j = stretch * STRETCH + local;
            let visible = if comptime!(window.some) {
                j >= seen && j < causal
            } else {
                j < causal
            };
            if visible {
                let rank = rank(shares, from + j, stride, heads_per_index);
                if rank > 0 {
                    let bit = 1u32 << (local % 32) as u32;
                    let near = alpha > 0 && f32::reinterpret(rank) >= bound;
                    let bin = bin(rank);
                    if near || (alpha == 0 && bin >= lowest) {
                        kept[local / 32].fetch_or(bit);
                    }
                    if near || (alpha == 0 && bin >= lowest_beside) {
                        kept[comptime!(STRETCH / 32) + local / 32].fetch_or(bit);
                    }
                }
            }
        }
        sync_cube();
        let word = stretch * comptime!(STRETCH / 32) + unit;
        if unit < comptime!(STRETCH / 32) && word < words {
            let bits = kept[unit].load();
            let beside = kept[comptime!(STRETCH / 32) + unit].load();
            masks[row * words + word] = bits;
            masks[(rows + row) * words + word] = beside;
            count += bits.count_ones();
            count_beside += beside.count_ones();
        }
        // The next stretch clears what was just read.
        sync_cube();
    }
    found[3].fetch_add(count);
    found[4].fetch_add(count_beside);
    sync_cube();
    if unit == 0 {
        counts[row] = found[3].load();
        counts[rows + row] = found[4].load();
    }
}

/// The buffers of a call; f32 and u32, contiguous.
#[allow(missing_debug_implementations)] // launch arguments have none
pub struct Buffers {
    /// `[B, Hq, query blocks, key blocks]` f32.
    pub shares: Handle,
    /// `[B * Hq, 4]` f32, of `cut_columns`.
    pub covered: Handle,
    /// Begins with the spans `[B, 4]`.
    pub spans: Handle,
    /// `[Hi, 8]`.
    pub rules: Handle,
    /// Written: `[2, B * Hi, query blocks, ceil(key blocks / 32)]`, the bits of a word in ascending order.
    pub masks: Handle,
    /// Written: `[2, B * Hi, query blocks]`, blocks kept.
    pub counts: Handle,
    /// Index width.
    pub address: AddressType,
}

/// Launches the cut.
#[allow(unsafe_code)]
pub fn launch(client: &Client, shape: &Shape, buffers: &Buffers) {
    let (query_blocks, key_blocks) = (shape.query_blocks(), shape.key_blocks());
    let rows = shape.batch * shape.index_heads * query_blocks;
    let shares = shape.batch * shape.heads * query_blocks * key_blocks;
    let (count, dim) = cubes(client, rows, UNITS);
    // SAFETY: cubes past the last row stop at once; the others stay inside their rows of each buffer.
    unsafe {
        cut_rows::launch_unchecked(
            client,
            count,
            dim,
            buffers.address,
            buffer(&buffers.shares, shares),
            buffer(&buffers.covered, shape.batch * shape.heads * COVERED_WORDS),
            buffer(&buffers.spans, SPAN_WORDS * shape.batch),
            buffer(&buffers.rules, RULE_WORDS * shape.index_heads),
            buffer(&buffers.masks, 2 * rows * shape.mask_words()),
            buffer(&buffers.counts, 2 * rows),
            shape.batch,
            shape.index_heads,
            query_blocks,
            key_blocks,
            shape.window().into(),
            shape.heads_per_index(),
        );
    }
}
