//! From the probes' attention by column and by slash to the columns and slashes that every row keeps.
//!
//! The score of a column is the most that any query head of the index head gives it in either group of
//! probes; kept is what reaches the [`Thresholds::column`] over `L`. The score of a slash bucket is the most that any
//! of them gives it over either group of probes; kept is what reaches the [`Thresholds::bucket`] over `L`, the
//! most keys that a row sees: those of the sequence, or of the window. Where that is more than the rules allow, the threshold rises along bins of an eighth of an octave until it is not:
//! a bin is kept whole or not at all.
//!
//! Two launches. The first takes a stretch of positions a cube: scores, how many fall into each bin, sums
//! of every head's columns. In the second a cube has an index head: it adds up the bins, finds the
//! thresholds and writes the lists in ascending order, and the mass that they and the local keys cover,
//! as if columns and slashes were independent:
//!
//!   A_T  = 1 - sum of the columns
//!   A_IS = A_T + kept columns + kept slashes * (1 - kept columns / (1 - A_T))
//!
//! Sums are integers, in units of 2^-28 and 2^-24. They wrap beyond 16, which shares of attention do not.

use cubecl::{client::Client, ir::AddressType, prelude::*, server::Handle};

use sparse_accelerate_contract::{
    PROBE_GROUP, SPAN_WORDS,
    scratch::{COVERED_WORDS, CutScratch, SelectionWords},
};

use super::{
    ListLayout, RULE_WORDS, Shape, Thresholds,
    fixed::{ONE, SUM_EXTRA, exact, fixed, ratio, scaled, score, share},
    scan::{UNITS, exclusive_sum, total},
};
use crate::{
    layout::{buffer, cubes},
    table::{HeadRules, Span, Window},
};

/// Units of the second launch where a cube may have so many.
const MANY_UNITS: usize = 1024;
/// Entries a unit of the second launch takes at a time.
const HELD: usize = 16;
/// The bin before that of a sum of 1.
const SLASH_BASE: usize = (127 << 3) - 1;
const SEGMENT: usize = CutScratch::SEGMENT;
const COLUMN_BINS: usize = CutScratch::COLUMN_BINS;
const SLASH_BINS: usize = CutScratch::SLASH_BINS;
const BINS: usize = CutScratch::BINS;

/// The bin of a score's bits; a score of 0 has none.
#[cube]
fn bin(bits: u32, #[comptime] base: usize) -> usize {
    (bits >> 20) as usize - base
}

/// One cube per segment of every index head.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn score_segments(
    columns: &[u32],
    slashes: &[u32],
    spans: &[u32],
    rules: &[u32],
    scratch: &mut [u32],
    batch: usize,
    index_heads: usize,
    keys: usize,
    buckets: usize,
    segments: usize,
    least_column: f32,
    least_bucket: f32,
    window: ComptimeOption<u32>,
    #[comptime] heads_per_index: usize,
) {
    let index = CUBE_POS / segments;
    let segment = CUBE_POS % segments;
    if index >= batch * index_heads {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let b = index / index_heads;
    let head = index * heads_per_index;
    let span = Span::of(spans, b as u32);
    let kv_len = span.kv_len;
    let window = Window::of(&window);
    let length = if comptime!(window.some) {
        exact(min(kv_len, window.keys))
    } else {
        exact(kv_len)
    };
    let sink = HeadRules::of(index % index_heads).sink(rules) as usize;
    let stride = keys + buckets + segments * comptime!(BINS + 2 * heads_per_index);
    let base = index * stride;

    let bins = Shared::<[Atomic<u32>]>::new_slice(BINS);
    let sums = Shared::<[Atomic<u32>]>::new_slice(comptime!(2 * heads_per_index));
    let mut at = unit;
    while at < BINS {
        bins[at].store(0u32);
        at += UNITS;
    }
    let mut at = unit;
    while at < comptime!(2 * heads_per_index) {
        sums[at].store(0u32);
        at += UNITS;
    }
    sync_cube();

    let mut mine = Array::<u32>::new(comptime!(2 * heads_per_index));
    #[unroll]
    for a in 0..comptime!(2 * heads_per_index) {
        mine[a] = 0u32.runtime();
    }
    let end = min((segment + 1) * SEGMENT, keys);
    let mut j = segment * SEGMENT + unit;
    while j < end {
        let mut highest = 0u32;
        if j < kv_len as usize {
            #[unroll]
            for a in 0..comptime!(2 * heads_per_index) {
                let value = score(columns[(head * 2 + a) * keys + j]);
                mine[a] += fixed(value, SUM_EXTRA);
                highest = max(highest, value);
            }
        }
        let mut kept = 0u32;
        if highest > 0 && j >= sink && f32::reinterpret(highest) * length >= least_column {
            kept = highest;
            bins[bin(highest, 0usize)].fetch_add(1u32);
        }
        scratch[base + j] = kept;
        j += UNITS;
    }
    #[unroll]
    for a in 0..comptime!(2 * heads_per_index) {
        sums[a].fetch_add(mine[a]);
    }

    // The threshold on both sides times the rows that were summed over, in units of 2^-20.
    let wanted = least_bucket * exact(probes(span.query_len) << 20);
    let end = min((segment + 1) * CutScratch::SEGMENT_BUCKETS, buckets);
    let mut bucket = segment * CutScratch::SEGMENT_BUCKETS + unit;
    while bucket < end {
        let mut highest = 0u32;
        #[unroll]
        for a in 0..comptime!(2 * heads_per_index) {
            highest = max(highest, slashes[(head * 2 + a) * buckets + bucket]);
        }
        let value = exact(highest);
        let mut kept = 0u32;
        if highest > 0 && value * length >= wanted {
            kept = u32::reinterpret(value);
            bins[COLUMN_BINS + bin(kept, SLASH_BASE)].fetch_add(1u32);
        }
        scratch[base + keys + bucket] = kept;
        bucket += UNITS;
    }
    sync_cube();

    let to = base + keys + buckets + segment * comptime!(BINS + 2 * heads_per_index);
    let mut at = unit;
    while at < BINS {
        scratch[to + at] = bins[at].load();
        at += UNITS;
    }
    let mut at = unit;
    while at < comptime!(2 * heads_per_index) {
        scratch[to + BINS + at] = sums[at].load();
        at += UNITS;
    }
}

/// Valid probe rows of either group, if it has any, of a sequence with so many new rows; at least 1.
#[cube]
fn probes(query_len: u32) -> u32 {
    max(min(query_len, comptime!(PROBE_GROUP as u32)), 1u32)
}

/// The lowest bin such that it and all above hold at most `most`; one past the last if even that holds
/// more. `bins` are `count` from `from` on.
#[cube]
#[allow(clippy::too_many_arguments)]
fn threshold(
    bins: &Shared<[u32]>,
    most: u32,
    sums: &mut Shared<[u32]>,
    #[comptime] from: usize,
    #[comptime] count: usize,
    #[comptime] units: usize,
) -> u32 {
    let unit = UNIT_POS as usize;
    let each = comptime!(count.div_ceil(units));
    let mut mine = 0u32;
    #[unroll]
    for i in 0..each {
        let at = unit * each + i;
        if at < count {
            mine += bins[from + at];
        }
    }
    let before = exclusive_sum(mine, sums, units);
    // What bins from here on hold falls from bin to bin: those that hold too much are the first.
    let mut above = total(sums, units) - before;
    let mut over = 0u32;
    #[unroll]
    for i in 0..each {
        let at = unit * each + i;
        if at < count {
            if above > most {
                over += 1;
            }
            above -= bins[from + at];
        }
    }
    exclusive_sum(over, sums, units);
    total(sums, units)
}

/// Writes the kept of `length` scores from `scores_at` on to `lists`, ascending, and adds up what each of
/// `arrays` of `values` has there. Returns how many.
#[cube]
#[allow(clippy::too_many_arguments)]
fn compact(
    scratch: &[u32],
    scores_at: usize,
    length: usize,
    lowest: u32,
    values: &[u32],
    values_at: usize,
    lists: &mut [u32],
    list_at: usize,
    kept: &mut Array<u32>,
    sums: &mut Shared<[u32]>,
    #[comptime] arrays: usize,
    #[comptime] base: usize,
    #[comptime] units: usize,
) -> u32 {
    let unit = UNIT_POS as usize;
    let mut written = 0u32;
    let tiles = length.div_ceil(comptime!(units * HELD));
    for tile in 0..tiles {
        let first = (tile * units + unit) * HELD;
        let mut marks = 0u32;
        #[unroll]
        for i in 0..HELD {
            if first + i < length {
                let bits = scratch[scores_at + first + i];
                if bits > 0 && bin(bits, base) as u32 >= lowest {
                    marks |= comptime!(1u32 << i as u32);
                }
            }
        }
        let before = exclusive_sum(marks.count_ones(), sums, units);
        let mut to = list_at + (written + before) as usize;
        #[unroll]
        for i in 0..HELD {
            if marks & comptime!(1u32 << i as u32) != 0 {
                lists[to] = (first + i) as u32;
                to += 1;
                #[unroll]
                for a in 0..arrays {
                    let value = values[values_at + a * length + first + i];
                    if comptime!(base == 0) {
                        kept[a] += fixed(score(value), SUM_EXTRA);
                    } else {
                        kept[a] += value;
                    }
                }
            }
        }
        written += total(sums, units);
    }
    written
}

/// One cube per index head.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn cut_lists(
    columns: &[u32],
    slashes: &[u32],
    spans: &[u32],
    rules: &[u32],
    scratch: &[u32],
    lists: &mut [u32],
    covered: &mut [u32],
    batch: usize,
    index_heads: usize,
    keys: usize,
    buckets: usize,
    segments: usize,
    #[comptime] heads_per_index: usize,
    #[comptime] layout: ListLayout,
    #[comptime] units: usize,
) {
    let index = CUBE_POS;
    if index >= batch * index_heads {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let head = index * heads_per_index;
    let rule = HeadRules::of(index % index_heads);
    let most_columns = min(rule.columns(rules), comptime!(layout.columns as u32));
    let most_slashes = min(rule.slashes(rules), comptime!(layout.slashes as u32));
    let of_segment = comptime!(BINS + 2 * heads_per_index);
    let base = index * (keys + buckets + segments * of_segment);
    let found = base + keys + buckets;
    let list = index * comptime!(layout.stride());

    let mut bins = Shared::<[u32]>::new_slice(BINS);
    let mut sums = Shared::<[u32]>::new_slice(comptime!(2 * units));
    let masses = Shared::<[Atomic<u32>]>::new_slice(comptime!(4 * heads_per_index));
    let mut at = unit;
    while at < BINS {
        let mut count = 0u32;
        for segment in 0..segments {
            count += scratch[found + segment * of_segment + at];
        }
        bins[at] = count;
        at += units;
    }
    let mut at = unit;
    while at < comptime!(4 * heads_per_index) {
        masses[at].store(0u32);
        at += units;
    }
    sync_cube();

    let column = threshold(&bins, most_columns, &mut sums, 0usize, COLUMN_BINS, units);
    let slash = threshold(
        &bins,
        most_slashes,
        &mut sums,
        COLUMN_BINS,
        SLASH_BINS,
        units,
    );
    let mut of_columns = Array::<u32>::new(comptime!(2 * heads_per_index));
    let mut of_slashes = Array::<u32>::new(comptime!(2 * heads_per_index));
    #[unroll]
    for a in 0..comptime!(2 * heads_per_index) {
        of_columns[a] = 0u32.runtime();
        of_slashes[a] = 0u32.runtime();
    }
    let kept_columns = compact(
        scratch,
        base,
        keys,
        column,
        columns,
        head * 2 * keys,
        lists,
        list + ListLayout::COLUMNS_AT,
        &mut of_columns,
        &mut sums,
        comptime!(2 * heads_per_index),
        0usize,
        units,
    );
    let kept_slashes = compact(
        scratch,
        base + keys,
        buckets,
        slash,
        slashes,
        head * 2 * buckets,
        lists,
        list + comptime!(layout.slashes_at()),
        &mut of_slashes,
        &mut sums,
        comptime!(2 * heads_per_index),
        SLASH_BASE,
        units,
    );
    if unit == 0 {
        lists[list + ListLayout::COLUMNS] = kept_columns;
        lists[list + ListLayout::SLASHES] = kept_slashes;
    }
    #[unroll]
    for a in 0..comptime!(2 * heads_per_index) {
        masses[a].fetch_add(of_columns[a]);
        masses[comptime!(2 * heads_per_index + a)].fetch_add(of_slashes[a]);
    }
    sync_cube();

    let rows = probes(Span::of(spans, (index / index_heads) as u32).query_len);
    let mut at = unit;
    while at < comptime!(2 * heads_per_index) {
        let mut all = 0u32;
        for segment in 0..segments {
            all += scratch[found + segment * of_segment + BINS + at];
        }
        let rest = min(all, comptime!(ONE << SUM_EXTRA)) >> SUM_EXTRA;
        let local = ONE - rest;
        let by_columns = min(masses[at].load() >> SUM_EXTRA, rest);
        let by_slashes = min(
            masses[comptime!(2 * heads_per_index) + at].load(),
            rows << 20,
        );
        let slash_share = (by_slashes << 4) / rows;
        let apart = ONE - ratio(by_columns, rest);
        let both = min(local + by_columns + scaled(apart, slash_share), ONE);
        let to = (head + at / 2) * COVERED_WORDS + at % 2 * 2;
        covered[to] = u32::reinterpret(share(local));
        covered[to + 1] = u32::reinterpret(share(both));
        at += units;
    }
}

/// The buffers of a call; f32 and u32, contiguous.
#[allow(missing_debug_implementations)] // launch arguments have none
pub struct Buffers {
    /// `[B, Hq, 2, keys]` f32.
    pub columns: Handle,
    /// `[B, Hq, 2, ceil(keys / 16)]`, in units of 2^-20.
    pub slashes: Handle,
    /// Begins with the spans `[B, 4]`.
    pub spans: Handle,
    /// `[Hi, 8]`.
    pub rules: Handle,
    /// [`CutScratch::words`]; overwritten.
    pub scratch: Handle,
    /// Written: `[B * Hi]` rows of a [`ListLayout`]; what is past the counts is left.
    pub lists: Handle,
    /// Written: `[B * Hq, 4]` f32: `A_T`, `A_IS` of the first group of probes, then of the second. A group
    /// without valid rows covers all.
    pub covered: Handle,
    /// Index width.
    pub address: AddressType,
}

/// Launches the cut.
#[allow(unsafe_code)]
pub fn launch(
    client: &Client,
    shape: &Shape,
    lists: &ListLayout,
    thresholds: &Thresholds,
    buffers: &Buffers,
) {
    let scratch = CutScratch::new(shape);
    let lengths = SelectionWords::new(shape, lists);
    let heads = shape.indexes();
    let columns = || buffer(&buffers.columns, lengths.columns);
    let slashes = || buffer(&buffers.slashes, lengths.slashes);
    let spans = || buffer(&buffers.spans, SPAN_WORDS * shape.batch);
    let rules = || buffer(&buffers.rules, RULE_WORDS * shape.index_heads);
    let words = || buffer(&buffers.scratch, lengths.cut);
    let (count, dim) = cubes(client, heads * scratch.segments, UNITS);
    // SAFETY: cubes past the last segment stop at once; the others stay inside their head's part of each
    // buffer, bins inside the bins that scores and sums can have.
    unsafe {
        score_segments::launch_unchecked(
            client,
            count,
            dim,
            buffers.address,
            columns(),
            slashes(),
            spans(),
            rules(),
            words(),
            shape.batch,
            shape.index_heads,
            shape.keys,
            scratch.buckets,
            scratch.segments,
            thresholds.column,
            thresholds.bucket(),
            shape.window().into(),
            scratch.heads_per_index,
        );
    }
    // One cube a head: as many units as it may have.
    let most = client.properties().hardware.max_units_per_cube as usize;
    let units = if most >= MANY_UNITS {
        MANY_UNITS
    } else {
        UNITS
    };
    let (count, dim) = cubes(client, heads, units);
    // SAFETY: as above; a list holds no more than its threshold lets through.
    unsafe {
        cut_lists::launch_unchecked(
            client,
            count,
            dim,
            buffers.address,
            columns(),
            slashes(),
            spans(),
            rules(),
            words(),
            buffer(&buffers.lists, lengths.lists),
            buffer(&buffers.covered, lengths.covered),
            shape.batch,
            shape.index_heads,
            shape.keys,
            scratch.buckets,
            scratch.segments,
            scratch.heads_per_index,
            *lists,
            units,
        );
    }
}
