//! Probe rows against all their keys: log-sum-exp, attention by column and by slash.
//!
//! The packed probe rows of a KV head walk the keys in tiles of 128 twice: for the log-sum-exp, then
//! for what it normalises. Logits are made anew, so that no `[128, L']` matrix is ever stored. Rows
//! are sorted by position: those that see a key tile follow one another, one matrix product for all.

use std::{
    ops::Range,
    sync::atomic::{AtomicU32, Ordering},
};

use pulp::Arch;
use rayon::prelude::*;

use super::View;
use sparse_accelerate_contract::{
    BLOCK, GRANULE, PROBE_GROUP, PROBES, Rules, Sequence, Shape, probe_row,
};
use sparse_accelerate_cpu::{FlexFloat, Rows, exp, product, softmax};

/// Key tiles of a work item: fixed, so that results do not depend on the number of threads.
const TILES: usize = 16;

/// One of fixed point.
const ONE: f32 = (1 << 20) as f32;

const LANES: usize = 16;

/// Attention of the probe rows, `p = exp(logit - lse)`. Keys that the rule of a head keeps for every
/// row anyway (`j < sink` or `p_row - j < window`) count in the log-sum-exp alone.
///
/// # Shapes
/// - `query`: `[B, Hq, N, d]`; `key`: `[B, Hk, S, d]`, `S` at least the keys of the shape
/// - `spans`: `[B, 4]`; `rules`: `[Hi, 8]`
/// - `lse`: `[B, Hq, 128]`, natural, of the scaled logits over all keys that the row sees; 0 for rows that are
///   none
/// - `columns`: `[B, Hq, 2, L']`, mean over the valid rows of a group (last, spread) of `p` by key
/// - `slashes`: `[B, Hq, 2, ceil(L'/16)]`, `p` by `(p_row - j) / 16` in units of `2^-20`, summed over all
///   valid rows; rounded are the sums of one row over one bucket within 128 aligned keys, in the order
///   of keys, halves up
#[allow(clippy::too_many_arguments)]
pub fn probe<E: FlexFloat>(
    shape: &Shape,
    query: View<'_, E>,
    key: View<'_, E>,
    spans: &[u32],
    rules: &[u32],
    lse: &mut [f32],
    columns: &mut [f32],
    slashes: &mut [u32],
) {
    let Shape {
        batch,
        heads,
        kv_heads,
        keys,
        ..
    } = *shape;
    let buckets = shape.slash_buckets();
    assert_eq!(lse.len(), batch * heads * PROBES);
    assert_eq!(columns.len(), batch * heads * 2 * keys);
    assert_eq!(slashes.len(), batch * heads * 2 * buckets);
    let packs: Vec<Pack> = (0..batch * kv_heads)
        .into_par_iter()
        .map(|flat| Pack::new(shape, query, spans, (flat / kv_heads, flat % kv_heads)))
        .collect();
    let walk = Walk {
        shape,
        key,
        rules,
        arch: Arch::new(),
    };
    let segments = shape.key_blocks().div_ceil(TILES);
    let items = packs.len() * segments;

    let parts: Vec<Vec<(f32, f32)>> = (0..items)
        .into_par_iter()
        .map_init(Scratch::default, |scratch, item| {
            walk.sums(scratch, &packs[item / segments], item % segments)
        })
        .collect();
    let mut packed_lse = Vec::with_capacity(packs.len());
    for (pack, parts) in packs.iter().zip(parts.chunks(segments)) {
        packed_lse.push(merge(parts));
        let of_pack = &packed_lse[packed_lse.len() - 1];
        for r in 0..shape.heads_per_kv() {
            let head = pack.at.0 * heads + pack.at.1 * shape.heads_per_kv() + r;
            let lse = &mut lse[head * PROBES..][..PROBES];
            lse.fill(0.0);
            for (i, probe) in pack.probes.iter().enumerate() {
                lse[probe.index] = of_pack[i * shape.heads_per_kv() + r];
            }
        }
    }

    let sums: Vec<AtomicU32> = (0..slashes.len()).map(|_| AtomicU32::new(0)).collect();
    let columns = Rows::new(columns);
    (0..items)
        .into_par_iter()
        .for_each_init(Scratch::default, |scratch, item| {
            let (pack, lse) = (&packs[item / segments], &packed_lse[item / segments]);
            walk.shares(scratch, pack, lse, item % segments, &columns);
            let first = (pack.at.0 * heads + pack.at.1 * shape.heads_per_kv()) * 2 * buckets;
            for (sum, &part) in sums[first..].iter().zip(&scratch.slashes) {
                if part > 0 {
                    sum.fetch_add(part, Ordering::Relaxed);
                }
            }
        });
    for (to, sum) in slashes.iter_mut().zip(sums) {
        *to = sum.into_inner();
    }
}

/// Log-sum-exp of rows from their `(maximum, sum)` by segment, in the order of segments.
fn merge(parts: &[Vec<(f32, f32)>]) -> Vec<f32> {
    let rows = parts.first().map_or(0, Vec::len);
    let lse = |row: usize| {
        let (maximum, sum) = parts.iter().fold((softmax::UNSEEN, 0.0), |(m, s), part| {
            let (part_m, part_s) = part[row];
            let maximum = if part_m > m { part_m } else { m };
            (
                maximum,
                s * exp(m - maximum) + part_s * exp(part_m - maximum),
            )
        });
        maximum + f32::ln(sum)
    };
    (0..rows).map(lse).collect()
}

/// One probe row of a sequence.
struct Probe {
    /// Its number, 0 to 127; from 64 on it is one of the spread ones.
    index: usize,
    position: usize,
}

/// The probe rows of a KV head, ascending by position; of each, all query heads that share it.
struct Pack {
    /// Sequence and KV head.
    at: (usize, usize),
    sequence: Sequence,
    probes: Vec<Probe>,
    /// `[probes * heads_per_kv, d]`, scaled.
    query: Vec<f32>,
}

impl Pack {
    fn new<E: FlexFloat>(
        shape: &Shape,
        query: View<'_, E>,
        spans: &[u32],
        at: (usize, usize),
    ) -> Self {
        let sequence = Sequence::of(spans, at.0);
        let mut probes: Vec<Probe> = (0..PROBES)
            .filter_map(|index| {
                let position = sequence.offset() + probe_row(index, sequence.query_len)?;
                Some(Probe { index, position })
            })
            .collect();
        probes.sort_by_key(|probe| (probe.position, probe.index));
        let heads_per_kv = shape.heads_per_kv();
        let mut packed = Vec::with_capacity(probes.len() * heads_per_kv * shape.head_dim);
        for probe in &probes {
            let row = probe.position - sequence.offset();
            for head in at.1 * heads_per_kv..(at.1 + 1) * heads_per_kv {
                let row = query.row(at.0, head, row, shape.head_dim);
                packed.extend(row.iter().map(|x| x.widen() * shape.scale));
            }
        }
        Self {
            at,
            sequence,
            probes,
            query: packed,
        }
    }
}

/// Buffers of one thread, reused from item to item.
#[derive(Default)]
struct Scratch {
    key: Vec<f32>,
    logits: Vec<f32>,
    columns: Vec<f32>,
    /// `[heads_per_kv, buckets]` of the last item.
    slashes: Vec<u32>,
}

struct Walk<'a, E> {
    shape: &'a Shape,
    key: View<'a, E>,
    rules: &'a [u32],
    arch: Arch,
}

impl<E: FlexFloat> Walk<'_, E> {
    /// Logits of one key tile, `[rows that see any of it, keys]`. Returns those probes and the number of
    /// keys, 0 if no probe sees any.
    fn logits(&self, scratch: &mut Scratch, pack: &Pack, tile: usize) -> (Range<usize>, usize) {
        let start = tile * BLOCK;
        let keys = pack.sequence.kv_len.saturating_sub(start).min(BLOCK);
        let (probes, visible) = (&pack.probes, self.shape.visible);
        let first = probes.partition_point(|probe| probe.position < start);
        let end = probes.partition_point(|probe| visible.first(probe.position) < start + keys);
        let (d, heads_per_kv) = (self.shape.head_dim, self.shape.heads_per_kv());
        let rows = end.saturating_sub(first) * heads_per_kv;
        if rows == 0 {
            return (first..first, 0);
        }
        let (key, stride) = self
            .key
            .wide(pack.at, start..start + keys, d, &mut scratch.key);
        scratch.logits.resize(PROBES * heads_per_kv * BLOCK, 0.0);
        product(
            [rows, keys, d],
            &mut scratch.logits,
            false,
            (&pack.query[first * heads_per_kv * d..], [d, 1]),
            (key, [1, stride]),
        );
        (first..end, keys)
    }

    /// First key, counted in the tile, that the row at a position sees, and the end of its keys there.
    fn seen(&self, position: usize, tile: usize, keys: usize) -> Range<usize> {
        let (start, first) = (tile * BLOCK, self.shape.visible.first(position));
        first.saturating_sub(start)..(position + 1 - start).min(keys)
    }

    /// `(maximum, sum)` of every packed row over the keys of one segment.
    fn sums(&self, scratch: &mut Scratch, pack: &Pack, segment: usize) -> Vec<(f32, f32)> {
        let heads_per_kv = self.shape.heads_per_kv();
        let mut sums = vec![(softmax::UNSEEN, 0.0); pack.probes.len() * heads_per_kv];
        for tile in segment * TILES..(segment + 1) * TILES {
            let (probes, keys) = self.logits(scratch, pack, tile);
            if keys == 0 {
                continue;
            }
            let rows = scratch.logits.chunks_exact_mut(keys);
            let sums = &mut sums[probes.start * heads_per_kv..probes.end * heads_per_kv];
            for (r, (row, (maximum, sum))) in rows.zip(sums).enumerate() {
                let position = pack.probes[probes.start + r / heads_per_kv].position;
                let seen = self.seen(position, tile, keys);
                let (new, part) = softmax::row(self.arch, &mut row[seen], *maximum);
                *sum = *sum * exp(*maximum - new) + part;
                *maximum = new;
            }
        }
        sums
    }

    /// Columns of one segment, written; slashes of one segment, into `scratch`.
    fn shares(
        &self,
        scratch: &mut Scratch,
        pack: &Pack,
        lse: &[f32],
        segment: usize,
        columns: &Rows<'_, f32>,
    ) {
        let (heads_per_kv, buckets) = (self.shape.heads_per_kv(), self.shape.slash_buckets());
        let counts = pack.sequence.probes();
        scratch.slashes.clear();
        scratch.slashes.resize(heads_per_kv * 2 * buckets, 0);
        let tiles = segment * TILES..((segment + 1) * TILES).min(self.shape.key_blocks());
        for tile in tiles {
            scratch.columns.clear();
            scratch.columns.resize(heads_per_kv * 2 * BLOCK, 0.0);
            let (probes, keys) = self.logits(scratch, pack, tile);
            let (start, first) = (tile * BLOCK, probes.start);
            let rows = scratch.logits.chunks_exact_mut(keys.max(1));
            for (r, row) in rows.take(probes.len() * heads_per_kv).enumerate() {
                let (probe, head) = (&pack.probes[first + r / heads_per_kv], r % heads_per_kv);
                let index_head = (pack.at.1 * heads_per_kv + head) / self.shape.heads_per_index();
                let (sink, window) = Rules::of(self.rules, index_head).local();
                let seen = self.seen(probe.position, tile, keys);
                let from = sink.saturating_sub(start).min(keys).max(seen.start);
                let to = (probe.position + 1)
                    .saturating_sub(start + window)
                    .min(keys);
                if from >= to {
                    continue;
                }
                let row = &mut row[from..to];
                let line = head * 2 + probe.index / PROBE_GROUP;
                let columns = line * BLOCK + from;
                self.arch.dispatch(Share {
                    row,
                    lse: lse[first * heads_per_kv + r],
                    columns: &mut scratch.columns[columns..][..to - from],
                });
                let sums = &mut scratch.slashes[line * buckets..][..buckets];
                add_slashes(row, probe.position - (start + from), sums);
            }
            let width = self.shape.keys.min(start + BLOCK) - start;
            for (line, sums) in scratch.columns.chunks_exact(BLOCK).enumerate() {
                let head = pack.at.0 * self.shape.heads + pack.at.1 * heads_per_kv + line / 2;
                #[allow(unsafe_code)]
                // SAFETY: an item writes the columns of its own block and heads, line by line.
                let to =
                    unsafe { columns.row((head * 2 + line % 2) * self.shape.keys + start, width) };
                let count = counts[line % 2].max(1) as f32;
                for (to, &sum) in to.iter_mut().zip(sums) {
                    *to = sum / count;
                }
            }
        }
    }
}

/// Adds the shares of one row to its slash buckets; `offset` is the distance of the first key.
fn add_slashes(row: &[f32], offset: usize, sums: &mut [u32]) {
    let (mut row, mut offset) = (row, offset);
    while !row.is_empty() {
        let bucket = offset / GRANULE;
        // Keys ascend, so distances fall: the bucket ends at its smallest distance.
        let len = (offset - bucket * GRANULE + 1).min(row.len());
        let sum: f32 = row[..len].iter().sum();
        // NaN becomes 0: the log-sum-exp tells of it.
        sums[bucket] += (sum * ONE + 0.5) as u32;
        row = &row[len..];
        offset = offset.wrapping_sub(len);
    }
}

/// Logits to shares, added to the columns.
struct Share<'a> {
    row: &'a mut [f32],
    lse: f32,
    columns: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Share<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (row, row_tail) = self.row.as_chunks_mut::<LANES>();
        let (columns, columns_tail) = self.columns.as_chunks_mut::<LANES>();
        for (row, columns) in row.iter_mut().zip(columns) {
            // Indexed loops over whole chunks: these become vector instructions, zipped ones did not.
            #[allow(clippy::needless_range_loop)]
            for i in 0..LANES {
                row[i] = exp(row[i] - self.lse);
            }
            for i in 0..LANES {
                columns[i] += row[i];
            }
        }
        for (x, column) in row_tail.iter_mut().zip(columns_tail) {
            *x = exp(*x - self.lse);
            *column += *x;
        }
    }
}

#[cfg(test)]
mod tests;
