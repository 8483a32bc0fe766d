//! The index of a chunk, on the device: for every index row the union of what its head's choice keeps, as
//! ranges of whole granules and columns outside them.
//!
//! For a tile of the positions `[first, last]`: sinks, window (of the first row, and the tile itself),
//! kept slash buckets (bucket `b` is the keys from `first - 16 b - 15` to `last - 16 b`), kept blocks of the
//! tile's query block; everything if the head is dense or the tile has rows that see everything. All are
//! rounded outwards to granules, none beyond `last`. Runs of granules become ranges; kept columns before
//! `first` and outside them stay columns.
//!
//! One cube per row, over a bit map of granules in shared memory: 1 KiB at 128K keys, as much more per
//! further 128K. Blocks, sinks and window are written word by word, slashes added by atomics; one scan then
//! gives every unit the place of its runs and columns.

use cubecl::{client::Client, ir::AddressType, prelude::*, server::Handle};

use super::{BLOCK, GRANULE, ListLayout, REPORT_WORDS, RULE_WORDS, Shape, TableLayout, scan};
use crate::{
    attend::QUERY_TILE,
    layout::{buffer, cubes},
    table::Span,
};

/// Units of a cube.
const UNITS: usize = 128;
const SPAN: u32 = GRANULE as u32;

/// Bits of word `word` that lie in `[from, to)`, in granules.
#[cube]
fn between(word: u32, from: u32, to: u32) -> u32 {
    let start = word * 32;
    let mut bits = 0u32;
    if from < start + 32 && to > start && from < to {
        bits = 0xffff_ffffu32.runtime();
        if from > start {
            bits <<= from - start;
        }
        if to < start + 32 {
            bits &= (1u32 << (to - start)) - 1;
        }
    }
    bits
}

/// Granules of the 4 blocks whose bits are the lowest of `blocks`.
#[cube]
fn widened(blocks: u32) -> u32 {
    let mut bits = 0u32;
    #[unroll]
    for i in 0..4u32 {
        if blocks & comptime!(1u32 << i) != 0 {
            bits |= comptime!(0xffu32 << (8 * i));
        }
    }
    bits
}

#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn build_rows(
    spans: &[u32],
    lists: &[u32],
    masks: &[u32],
    report: &[f32],
    gates: &[u32],
    rules: &[u32],
    table: &mut [u32],
    kept: &mut [u32],
    batch: usize,
    index_heads: usize,
    tiles: usize,
    key_blocks: usize,
    gates_at: usize,
    ranges_at: usize,
    range_stride: usize,
    columns_at: usize,
    #[comptime] words: usize,
    #[comptime] layout: ListLayout,
) {
    let row = CUBE_POS;
    if row >= batch * index_heads * tiles {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let index = row / tiles;
    let tile = row % tiles;
    let b = index / index_heads;
    let span = Span::of(spans, b as u32);
    let query_len = span.query_len;
    let kv_len = span.kv_len;
    let dense_from = span.dense_from;
    let head = index % index_heads;
    let rule = head * RULE_WORDS;
    let choice = u32::cast_from(report[index * REPORT_WORDS]);
    let at = (tile * QUERY_TILE) as u32;
    // A tile past the sequence's rows has no granules, and so no runs and no columns.
    let mut first = 0u32;
    let mut end = 0u32;
    if at < query_len {
        first = kv_len - query_len + at;
        end = kv_len - query_len + min(at + QUERY_TILE as u32, query_len);
    }
    let granules = end.div_ceil(SPAN);
    let dense = gates[index] == 1 || choice == 0 || end > dense_from;

    let bits = Shared::<[Atomic<u32>]>::new_slice(words);
    let mut starts = Shared::<[u32]>::new_slice(comptime!(2 * UNITS));
    let mut places = Shared::<[u32]>::new_slice(comptime!(2 * UNITS));
    let count = Shared::<[Atomic<u32>]>::new_slice(1usize);
    let sinks = min(rules[rule + 1], end).div_ceil(SPAN);
    let window = max(rules[rule + 2], 1u32);
    let mut local = 0u32;
    if first + 1 > window {
        local = (first + 1 - window) / SPAN;
    }
    let query_blocks = tiles.div_ceil(comptime!(BLOCK / QUERY_TILE));
    let mask_words = key_blocks.div_ceil(32usize);
    let mut variant = 0usize.runtime();
    if choice == 4 {
        variant = batch * index_heads;
    }
    let mask =
        ((variant + index) * query_blocks + tile / comptime!(BLOCK / QUERY_TILE)) * mask_words;
    let mut word = unit;
    while word < words {
        let mut value = 0u32;
        let of = word as u32;
        if of * 32 < granules {
            if dense {
                value = between(of, 0u32, granules);
            } else {
                value = between(of, 0u32, sinks) | between(of, local, granules);
                // 4 blocks a word, 8 words of granules to one of the mask.
                if choice >= 3 && word / 8 < mask_words {
                    let blocks = masks[mask + word / 8] >> (of % 8 * 4);
                    value |= widened(blocks) & between(of, 0u32, granules);
                }
            }
        }
        bits[word].store(value);
        word += UNITS;
    }
    if unit == 0 {
        count[0].store(0u32);
    }
    sync_cube();

    let list = index * comptime!(layout.stride());
    let listed = (choice == 2 || choice == 4) && !dense;
    let mut columns = 0u32;
    let mut slashes = 0u32;
    if listed && end > 0 {
        columns = min(lists[list], comptime!(layout.columns as u32));
        slashes = min(lists[list + 1], comptime!(layout.slashes as u32));
    }
    let mut at = UNIT_POS;
    while at < slashes {
        let offset = lists[list + comptime!(layout.slashes_at()) + at as usize] * SPAN;
        if offset < end {
            let mut from = 0u32;
            if first > offset + comptime!(SPAN - 1) {
                from = (first - offset - comptime!(SPAN - 1)) / SPAN;
            }
            // Granules of at most 79 keys: they meet two words at most.
            let to = (end - 1 - offset) / SPAN + 1;
            let low = from / 32;
            bits[low as usize].fetch_or(between(low, from, to));
            let high = (to - 1) / 32;
            if high > low {
                bits[high as usize].fetch_or(between(high, from, to));
            }
        }
        at += comptime!(UNITS as u32);
    }
    sync_cube();

    // Units take neighbouring words and columns: first they count, then they write.
    let each = comptime!(words.div_ceil(UNITS));
    let mut before = 0u32;
    if unit * each > 0 && unit * each <= words {
        before = bits[unit * each - 1].load() >> 31;
    }
    let mut carry = before;
    let mut runs = 0u32;
    let mut set = 0u32;
    #[unroll]
    for i in 0..each {
        let word = unit * each + i;
        if word < words {
            let value = bits[word].load();
            runs += (value & !((value << 1) | carry)).count_ones();
            set += value.count_ones();
            carry = value >> 31;
        }
    }
    let each_column = columns.div_ceil(comptime!(UNITS as u32));
    let from = UNIT_POS * each_column;
    let until = min(from + each_column, columns);
    let mut outside = 0u32;
    let mut at = from;
    while at < until {
        let column = lists[list + ListLayout::COLUMNS_AT + at as usize];
        if column < first {
            let granule = column / SPAN;
            let word = bits[(granule / 32) as usize].load();
            outside += 1 - ((word >> (granule % 32)) & 1);
        }
        at += 1;
    }
    count[0].fetch_add(set);
    let runs_before = scan::exclusive_sum(runs, &mut starts, UNITS);
    let outside_before = scan::exclusive_sum(outside, &mut places, UNITS);

    let ranges = ranges_at + row * range_stride;
    let mut starting = runs_before;
    // A run that is open before this unit's words has its start counted, not its end.
    let mut ending = runs_before - before;
    let mut carry = before;
    #[unroll]
    for i in 0..each {
        let word = unit * each + i;
        if word < words {
            let value = bits[word].load();
            let shifted = (value << 1) | carry;
            carry = value >> 31;
            let mut edges = value ^ shifted;
            while edges > 0 {
                let bit = edges.trailing_zeros();
                edges &= edges - 1;
                let position = (word as u32 * 32 + bit) * SPAN;
                if (value >> bit) & 1 == 1 {
                    table[ranges + (starting * 2) as usize] = position;
                    starting += 1;
                } else {
                    table[ranges + (ending * 2 + 1) as usize] = min(position, end);
                    ending += 1;
                }
            }
        }
    }
    let mut to = columns_at + row * comptime!(layout.columns) + outside_before as usize;
    let mut at = from;
    while at < until {
        let column = lists[list + ListLayout::COLUMNS_AT + at as usize];
        if column < first {
            let granule = column / SPAN;
            let word = bits[(granule / 32) as usize].load();
            if (word >> (granule % 32)) & 1 == 0 {
                table[to] = column;
                to += 1;
            }
        }
        at += 1;
    }

    if unit == 0 {
        let entry = batch * 4 + row * 4;
        let mut keys = 0u32;
        if end > 0 {
            table[entry] = ranges as u32;
            table[entry + 1] = scan::total(&mut starts, UNITS);
            table[entry + 2] = (columns_at + row * comptime!(layout.columns)) as u32;
            table[entry + 3] = scan::total(&mut places, UNITS);
            // The last granule may reach past the tile's last position.
            keys =
                count[0].load() * SPAN - (granules * SPAN - end) + scan::total(&mut places, UNITS);
        } else {
            #[unroll]
            for i in 0..4usize {
                table[entry + i] = 0u32.runtime();
            }
        }
        kept[row] = keys;
        if tile == 0 {
            table[gates_at + index] = gates[index];
        }
    }
    if tile == 0 && head == 0 && unit < 4 {
        table[b * 4 + unit] = spans[b * 4 + unit];
    }
}

/// The buffers of a call; f32 and u32, contiguous.
#[allow(missing_debug_implementations)] // launch arguments have none
pub struct Buffers {
    /// Begins with the spans `[B, 4]`: new rows, keys, first position that sees everything, 0. Not the
    /// table.
    pub spans: Handle,
    /// `[B * Hi]` rows of a [`ListLayout`], of `cut_columns`: positions and buckets ascending, positions
    /// below the keys of the sequence.
    pub lists: Handle,
    /// `[2, B * Hi, query blocks, ceil(key blocks / 32)]`, of `cut_blocks`.
    pub masks: Handle,
    /// `[B * Hi, 16]` f32, of `choose`; its first word rules.
    pub report: Handle,
    /// `[B * Hi]`, of `choose`; copied to the table.
    pub gates: Handle,
    /// `[Hi, 8]`.
    pub rules: Handle,
    /// Written: [`TableLayout::words`]. What a row does not use of its room is left.
    pub table: Handle,
    /// Written: `[B * Hi, tiles]`, keys that the last row of each tile sees.
    pub kept: Handle,
    /// Index width.
    pub address: AddressType,
}

/// Launches the build. The chunk's rows must be fewer than 2^32 words of table.
#[allow(unsafe_code)]
pub fn launch(client: &Client, shape: &Shape, lists: &ListLayout, buffers: &Buffers) {
    let table = TableLayout::new(shape, lists);
    let indexes = shape.batch * shape.index_heads;
    let rows = indexes * shape.tiles();
    let mask_words = shape.key_blocks().div_ceil(32);
    // One word more than the granules fill, where the last run may end; few sizes, so few kernels.
    let granules = shape.keys.div_ceil(GRANULE);
    let words = (granules / 32 + 1).next_multiple_of(UNITS);
    let (count, dim) = cubes(client, rows, UNITS);
    // SAFETY: cubes past the last row stop at once. A row's runs and columns fit its room: see
    // `TableLayout::new`; granules below `ceil(keys / 16)` have bits.
    unsafe {
        build_rows::launch_unchecked(
            client,
            count,
            dim,
            buffers.address,
            buffer(&buffers.spans, 4 * shape.batch),
            buffer(&buffers.lists, indexes * lists.stride()),
            buffer(
                &buffers.masks,
                2 * indexes * shape.query_blocks() * mask_words,
            ),
            buffer(&buffers.report, indexes * REPORT_WORDS),
            buffer(&buffers.gates, indexes),
            buffer(&buffers.rules, RULE_WORDS * shape.index_heads),
            buffer(&buffers.table, table.words),
            buffer(&buffers.kept, rows),
            shape.batch,
            shape.index_heads,
            shape.tiles(),
            shape.key_blocks(),
            table.gates_at,
            table.ranges_at,
            table.range_stride,
            table.columns_at,
            words,
            *lists,
        );
    }
}
