//! The index of a chunk, on the device: for every index row the union of what its head's choice keeps, as
//! ranges of whole granules and columns outside them.
//!
//! For a tile of the positions `[first, last]`: sinks, window (of the first row, and the tile itself),
//! kept slash buckets (bucket `b` is the keys from `first - 16 b - 15` to `last - 16 b`), kept blocks of the
//! tile's query block; everything if the head is dense or the tile has rows that see everything. All are
//! rounded outwards to granules, none beyond `last`. Runs of granules become ranges; kept columns before
//! `first` and outside them stay columns. Under a window of visible keys granules and columns begin with the
//! first key that the row at `first` sees: no row of the tile sees an earlier one.
//!
//! One cube per row, over a bit map of granules in shared memory: 1 KiB at 128K keys, as much more per
//! further 128K. Blocks, sinks and window are written word by word, slashes added by atomics; one scan then
//! gives every unit the place of its runs and columns.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if, clippy::collapsible_else_if)]

use cubecl::{client::Client, ir::AddressType, prelude::*, server::Handle};
use sparse_accelerate_contract::{
    IndexRow, RANGE_WORDS, ROW_WORDS, SPAN_WORDS, scratch::SelectionWords, table::DENSE,
};

use super::{BLOCK, Choice, GRANULE, ListLayout, RULE_WORDS, Shape, TableLayout, scan};
use crate::{
    attend::QUERY_TILE,
    layout::{buffer, cubes},
    table::{HeadReport, HeadRules, Span, Window},
};

/// Units of a cube.
const UNITS: usize = 128;
const SPAN: u32 = GRANULE as u32;

/// Numbers of the choices, as kernels compare them: those with blocks are the last two.
const DENSE_CHOICE: u32 = Choice::Dense.number();
const INTERVAL_SLASH: u32 = Choice::IntervalSlash.number();
const BLOCK_CLUSTER: u32 = Choice::BlockCluster.number();
const HYBRID: u32 = Choice::Hybrid.number();

/// A tile of query rows.
#[derive(CubeType)]
struct Tile {
    /// First position.
    first: u32,
    /// End of the positions; 0 for a tile past the sequence's rows.
    end: u32,
    /// Granules up to the end.
    granules: u32,
    /// First key that a row sees through the window.
    seen: u32,
}

#[cube]
impl Tile {
    /// Finds the tile that begins at row `at`. A tile past the sequence's rows has no granules, and so no
    /// runs and no columns.
    fn new(span: &Span, at: u32, window: &Window) -> Tile {
        let mut first = 0u32;
        let mut end = 0u32;
        if at < span.query_len {
            first = span.offset() + at;
            end = span.offset() + min(at + QUERY_TILE as u32, span.query_len);
        }
        Tile {
            first,
            end,
            granules: end.div_ceil(SPAN),
            seen: window.first_key(first),
        }
    }

    /// Counts the pairs of the tile's rows and the keys before `key` that they see through the window.
    fn pairs_before(&self, key: u32, window: &Window) -> u32 {
        let key = max(min(key, self.end), self.seen);
        let rows = self.end - self.first;
        // Keys before the last row's first are lost row by row: each is seen by one row more than the one
        // before. The tile's own keys, one row fewer each, were not there for its first rows.
        let lost = min(key, window.first_key(self.end - 1)) - self.seen;
        let own = max(key, self.first) - self.first;
        let fewest = self.seen + window.keys - self.first;
        lost * fewest + (lost * lost - lost) / 2 + (key - self.seen - lost) * rows
            - (own * own - own) / 2
    }
}

/// Columns of an index head that a unit looks at.
#[derive(CubeType)]
struct Part {
    from: u32,
    until: u32,
}

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
    window: ComptimeOption<u32>,
    #[comptime] words: usize,
    #[comptime] layout: ListLayout,
) {
    let visible = Window::of(&window);
    let row = CUBE_POS;
    if row >= batch * index_heads * tiles {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let index = row / tiles;
    let tile = row % tiles;
    let b = index / index_heads;
    let span = Span::of(spans, b as u32);
    let head = index % index_heads;
    let rule = HeadRules::of(head);
    let choice = HeadReport::of(index).choice(report);
    let own = Tile::new(&span, (tile * QUERY_TILE) as u32, &visible);
    let dense = gates[index] == DENSE || choice == DENSE_CHOICE || own.end > span.dense_from;

    let bits = Shared::<[Atomic<u32>]>::new_slice(words);
    let mut starts = Shared::<[u32]>::new_slice(comptime!(2 * UNITS));
    let mut places = Shared::<[u32]>::new_slice(comptime!(2 * UNITS));
    let count = Shared::<[Atomic<u32>]>::new_slice(1usize);
    let sinks = min(rule.sink(rules), own.end).div_ceil(SPAN);
    let window = max(rule.window(rules), 1u32);
    let query_blocks = tiles.div_ceil(comptime!(BLOCK / QUERY_TILE));
    let mask_words = key_blocks.div_ceil(32usize);
    let mut variant = 0usize.runtime();
    if choice == HYBRID {
        variant = batch * index_heads;
    }
    let mask =
        ((variant + index) * query_blocks + tile / comptime!(BLOCK / QUERY_TILE)) * mask_words;
    paint(
        &bits, masks, &own, choice, dense, sinks, window, mask, mask_words, &visible, words,
    );
    if unit == 0 {
        count[0].store(0u32);
    }
    sync_cube();

    let list = index * comptime!(layout.stride());
    let listed = (choice == INTERVAL_SLASH || choice == HYBRID) && !dense;
    let mut columns = 0u32;
    let mut slashes = 0u32;
    if listed && own.end > 0 {
        columns = min(
            lists[list + ListLayout::COLUMNS],
            comptime!(layout.columns as u32),
        );
        slashes = min(
            lists[list + ListLayout::SLASHES],
            comptime!(layout.slashes as u32),
        );
    }
    add_slashes(
        &bits,
        lists,
        list + comptime!(layout.slashes_at()),
        slashes,
        &own,
        &visible,
    );
    sync_cube();

    // Units take neighbouring words and columns: first they count, then they write.
    let each = comptime!(words.div_ceil(UNITS));
    let mut before = 0u32;
    if unit * each > 0 && unit * each <= words {
        before = bits[unit * each - 1].load() >> 31;
    }
    let runs = count_runs(&bits, &count, before, &own, &visible, words);
    let each_column = columns.div_ceil(comptime!(UNITS as u32));
    let from = UNIT_POS * each_column;
    let part = Part {
        from,
        until: min(from + each_column, columns),
    };
    let columns_from = list + ListLayout::COLUMNS_AT;
    let outside = count_outside(&bits, lists, columns_from, &part, &own, &count, &visible);
    let runs_before = scan::exclusive_sum(runs, &mut starts, UNITS);
    let outside_before = scan::exclusive_sum(outside, &mut places, UNITS);

    let ranges = ranges_at + row * range_stride;
    write_runs(&bits, table, ranges, before, runs_before, own.end, words);
    let to = columns_at + row * comptime!(layout.columns);
    let place = to + outside_before as usize;
    write_outside(
        &bits,
        lists,
        columns_from,
        &part,
        &own,
        table,
        place,
        &visible,
    );

    if unit == 0 {
        let entry = batch * SPAN_WORDS + row * ROW_WORDS;
        let mut keys = 0u32;
        if own.end > 0 {
            let outside = scan::total(&mut places, UNITS);
            table[entry + IndexRow::RANGES_AT] = ranges as u32;
            table[entry + IndexRow::RANGES] = scan::total(&mut starts, UNITS);
            table[entry + IndexRow::COLUMNS_AT] = to as u32;
            table[entry + IndexRow::COLUMNS] = outside;
            keys = if comptime!(visible.some) {
                count[0].load()
            } else {
                // The last granule may reach past the tile's last position.
                count[0].load() * SPAN - (own.granules * SPAN - own.end) + outside
            };
        } else {
            #[unroll]
            for i in 0..ROW_WORDS {
                table[entry + i] = 0u32.runtime();
            }
        }
        kept[row] = keys;
        if tile == 0 {
            table[gates_at + index] = gates[index];
        }
    }
    if tile == 0 && head == 0 && unit < SPAN_WORDS {
        table[b * SPAN_WORDS + unit] = spans[b * SPAN_WORDS + unit];
    }
}

/// Sets the granules of sinks, window and blocks, or all of a dense tile, word by word.
#[cube]
#[allow(clippy::too_many_arguments)]
fn paint(
    bits: &Shared<[Atomic<u32>]>,
    masks: &[u32],
    own: &Tile,
    choice: u32,
    dense: bool,
    sinks: u32,
    window: u32,
    mask: usize,
    mask_words: usize,
    visible: &Window,
    #[comptime] words: usize,
) {
    let mut local = 0u32;
    if own.first + 1 > window {
        local = (own.first + 1 - window) / SPAN;
    }
    let mut word = UNIT_POS as usize;
    while word < words {
        let mut value = 0u32;
        let of = word as u32;
        if of * 32 < own.granules {
            if dense {
                value = between(of, 0u32, own.granules);
            } else {
                value = between(of, 0u32, sinks) | between(of, local, own.granules);
                // 4 blocks a word, 8 words of granules to one of the mask.
                if choice >= BLOCK_CLUSTER && word / 8 < mask_words {
                    let blocks = masks[mask + word / 8] >> (of % 8 * 4);
                    value |= widened(blocks) & between(of, 0u32, own.granules);
                }
            }
            if comptime!(visible.some) {
                value &= between(of, own.seen / SPAN, own.granules);
            }
        }
        bits[word].store(value);
        word += UNITS;
    }
}

/// Sets the granules of the slash buckets, `slashes` of them from `list` on.
#[cube]
fn add_slashes(
    bits: &Shared<[Atomic<u32>]>,
    lists: &[u32],
    list: usize,
    slashes: u32,
    own: &Tile,
    visible: &Window,
) {
    let mut at = UNIT_POS;
    while at < slashes {
        let offset = lists[list + at as usize] * SPAN;
        if offset < own.end {
            let mut from = 0u32;
            if own.first > offset + comptime!(SPAN - 1) {
                from = (own.first - offset - comptime!(SPAN - 1)) / SPAN;
            }
            if comptime!(visible.some) {
                from = max(from, own.seen / SPAN);
            }
            // Granules of at most 79 keys: they meet two words at most.
            let to = (own.end - 1 - offset) / SPAN + 1;
            let low = from / 32;
            bits[low as usize].fetch_or(between(low, from, to));
            let high = (to - 1) / 32;
            if high > low {
                bits[high as usize].fetch_or(between(high, from, to));
            }
        }
        at += comptime!(UNITS as u32);
    }
}

/// Counts the runs that begin in this unit's words, and adds its granules to those of the tile, or the pairs
/// that rows see of its runs through a window. `before` is the bit before them.
#[cube]
fn count_runs(
    bits: &Shared<[Atomic<u32>]>,
    count: &Shared<[Atomic<u32>]>,
    before: u32,
    own: &Tile,
    visible: &Window,
    #[comptime] words: usize,
) -> u32 {
    let each = comptime!(words.div_ceil(UNITS));
    let mut carry = before;
    let mut runs = 0u32;
    let mut set = 0u32;
    #[unroll]
    for i in 0..each {
        let word = UNIT_POS as usize * each + i;
        if word < words {
            let value = bits[word].load();
            runs += (value & !((value << 1) | carry)).count_ones();
            if comptime!(visible.some) {
                // What an end adds the run's start takes off, in whichever unit, modulo 2^32.
                let mut edges = value ^ ((value << 1) | carry);
                while edges > 0 {
                    let bit = edges.trailing_zeros();
                    edges &= edges - 1;
                    let key = (word as u32 * 32 + bit) * SPAN;
                    let pairs = own.pairs_before(key, visible);
                    if (value >> bit) & 1 == 1 {
                        set -= pairs;
                    } else {
                        set += pairs;
                    }
                }
            } else {
                set += value.count_ones();
            }
            carry = value >> 31;
        }
    }
    count[0].fetch_add(set);
    runs
}

/// Counts the unit's columns that stay columns: before the tile, outside its granules; and adds the pairs
/// that rows see of them through a window to those of the tile.
#[cube]
fn count_outside(
    bits: &Shared<[Atomic<u32>]>,
    lists: &[u32],
    list: usize,
    part: &Part,
    own: &Tile,
    count: &Shared<[Atomic<u32>]>,
    visible: &Window,
) -> u32 {
    let mut outside = 0u32;
    let mut at = part.from;
    while at < part.until {
        let column = lists[list + at as usize];
        if comptime!(visible.some) {
            if column < own.first && column >= own.seen {
                let here = 1 - granule(bits, column);
                outside += here;
                let rows = min(own.end, column + visible.keys) - own.first;
                count[0].fetch_add(here * rows);
            }
        } else {
            if column < own.first {
                outside += 1 - granule(bits, column);
            }
        }
        at += 1;
    }
    outside
}

/// Reads the bit of the granule that holds a position.
#[cube]
fn granule(bits: &Shared<[Atomic<u32>]>, position: u32) -> u32 {
    let granule = position / SPAN;
    let word = bits[(granule / 32) as usize].load();
    (word >> (granule % 32)) & 1
}

/// Writes the ranges that begin or end in this unit's words.
#[cube]
#[allow(clippy::too_many_arguments)]
fn write_runs(
    bits: &Shared<[Atomic<u32>]>,
    table: &mut [u32],
    ranges: usize,
    before: u32,
    runs_before: u32,
    end: u32,
    #[comptime] words: usize,
) {
    let each = comptime!(words.div_ceil(UNITS));
    let mut starting = runs_before;
    // A run that is open before this unit's words has its start counted, not its end.
    let mut ending = runs_before - before;
    let mut carry = before;
    #[unroll]
    for i in 0..each {
        let word = UNIT_POS as usize * each + i;
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
                    table[ranges + (starting * comptime!(RANGE_WORDS as u32)) as usize] = position;
                    starting += 1;
                } else {
                    table[ranges + (ending * comptime!(RANGE_WORDS as u32) + 1) as usize] =
                        min(position, end);
                    ending += 1;
                }
            }
        }
    }
}

/// Writes the unit's columns that stay columns, from `place` on.
#[cube]
#[allow(clippy::too_many_arguments)]
fn write_outside(
    bits: &Shared<[Atomic<u32>]>,
    lists: &[u32],
    list: usize,
    part: &Part,
    own: &Tile,
    table: &mut [u32],
    place: usize,
    visible: &Window,
) {
    let mut to = place;
    let mut at = part.from;
    while at < part.until {
        let column = lists[list + at as usize];
        let mut before = column < own.first;
        if comptime!(visible.some) {
            before = before && column >= own.seen;
        }
        if before && granule(bits, column) == 0 {
            table[to] = column;
            to += 1;
        }
        at += 1;
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
    /// Written: `[B * Hi, tiles]`, keys that the last row of each tile sees; under a window the pairs of its
    /// rows and the kept keys that they see.
    pub kept: Handle,
    /// Index width.
    pub address: AddressType,
}

/// Launches the build. The chunk's rows must be fewer than 2^32 words of table.
#[allow(unsafe_code)]
pub fn launch(client: &Client, shape: &Shape, lists: &ListLayout, buffers: &Buffers) {
    let table = TableLayout::new(shape, lists);
    let lengths = SelectionWords::new(shape, lists);
    let rows = shape.indexes() * shape.tiles();
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
            buffer(&buffers.spans, SPAN_WORDS * shape.batch),
            buffer(&buffers.lists, lengths.lists),
            buffer(&buffers.masks, lengths.masks),
            buffer(&buffers.report, lengths.report),
            buffer(&buffers.gates, lengths.gates),
            buffer(&buffers.rules, RULE_WORDS * shape.index_heads),
            buffer(&buffers.table, table.words),
            buffer(&buffers.kept, lengths.kept),
            shape.batch,
            shape.index_heads,
            shape.tiles(),
            shape.key_blocks(),
            table.gates_at,
            table.ranges_at,
            table.range_stride,
            table.columns_at,
            shape.window().into(),
            words,
            *lists,
        );
    }
}
