//! The index of a chunk as a table: for every index row the union of what its head's choice keeps, rounded
//! outwards to granules.

use rayon::prelude::*;

use super::{BLOCK, GRANULE, ListLayout, REPORT_WORDS, Rules, Shape, TableLayout};
use crate::index::QUERY_TILE;

/// What an index is built from.
#[derive(Debug, Clone, Copy)]
pub struct BuildInputs<'a> {
    /// `[B, 4]`: new rows, keys, first position that sees everything, 0.
    pub spans: &'a [u32],
    /// `[B * Hi]` rows of a [`ListLayout`].
    pub lists: &'a [u32],
    /// `[2, B * Hi, query blocks, ceil(key blocks / 32)]`.
    pub masks: &'a [u32],
    /// `[B * Hi, 16]`.
    pub report: &'a [f32],
    /// `[B * Hi]`.
    pub gates: &'a [u32],
    /// `[Hi, 8]`.
    pub rules: &'a [u32],
}

/// Writes the table, [`TableLayout::words`] long, and the keys that the last row of each tile sees,
/// `[B * Hi, tiles]`. What a row does not use of its room is left.
pub fn build(
    shape: &Shape,
    layout: &ListLayout,
    inputs: &BuildInputs<'_>,
    table: &mut [u32],
    kept: &mut [u32],
) {
    let at = TableLayout::new(shape, layout);
    let tiles = shape.tiles();
    let indexes = shape.batch * shape.index_heads;
    let rows = indexes * tiles;
    let (head, rest) = table[..at.words].split_at_mut(at.ranges_at);
    let (ranges, columns) = rest.split_at_mut(at.columns_at - at.ranges_at);
    let (spans, head) = head.split_at_mut(at.rows_at);
    let (entries, gates) = head.split_at_mut(at.gates_at - at.rows_at);
    spans.copy_from_slice(&inputs.spans[..spans.len()]);
    gates.copy_from_slice(&inputs.gates[..indexes]);
    // Chunks of nothing are no chunks: a row without room for columns gets an empty slice.
    let mut room: Vec<&mut [u32]> = Vec::with_capacity(rows);
    let mut left = columns;
    for _ in 0..rows {
        let (columns, rest) = left.split_at_mut(at.column_stride);
        room.push(columns);
        left = rest;
    }
    let rows = entries
        .par_chunks_mut(4)
        .zip(ranges.par_chunks_mut(at.range_stride))
        .zip(room)
        .zip(&mut kept[..rows])
        .enumerate();
    rows.for_each(|(row, (((entry, ranges), columns), kept))| {
        entry.fill(0);
        *kept = 0;
        let (index, tile) = (row / tiles, row % tiles);
        let Some(built) = Row::new(shape, layout, inputs, index, tile) else {
            return;
        };
        let mut runs = 0;
        let mut g = 0;
        while g < built.granules.len() {
            let run = built.granules[g..].iter().take_while(|kept| **kept).count();
            if run > 0 {
                let end = ((g + run) * GRANULE).min(built.last + 1);
                ranges[2 * runs..2 * runs + 2].copy_from_slice(&[(g * GRANULE) as u32, end as u32]);
                *kept += (end - g * GRANULE) as u32;
                runs += 1;
            }
            g += run.max(1);
        }
        columns[..built.columns.len()].copy_from_slice(&built.columns);
        *kept += built.columns.len() as u32;
        entry.copy_from_slice(&[
            (at.ranges_at + row * at.range_stride) as u32,
            runs as u32,
            (at.columns_at + row * at.column_stride) as u32,
            built.columns.len() as u32,
        ]);
    });
}

/// What one index row keeps.
struct Row {
    granules: Vec<bool>,
    columns: Vec<u32>,
    /// The tile's last position.
    last: usize,
}

impl Row {
    /// `None` past the sequence's rows.
    fn new(
        shape: &Shape,
        layout: &ListLayout,
        inputs: &BuildInputs<'_>,
        index: usize,
        tile: usize,
    ) -> Option<Self> {
        let span = &inputs.spans[index / shape.index_heads * 4..];
        let (query_len, kv_len) = (span[0] as usize, span[1] as usize);
        if tile * QUERY_TILE >= query_len {
            return None;
        }
        let first = kv_len - query_len + tile * QUERY_TILE;
        let last = kv_len - query_len + ((tile + 1) * QUERY_TILE).min(query_len) - 1;
        let mut row = Self {
            granules: vec![false; (last + 1).div_ceil(GRANULE)],
            columns: Vec::new(),
            last,
        };
        let choice = inputs.report[index * REPORT_WORDS] as usize;
        if choice == 0 || inputs.gates[index] == 1 || last >= span[2] as usize {
            row.keep(0, last + 1);
            return Some(row);
        }
        let rules = Rules::read(inputs.rules, index % shape.index_heads);
        row.keep(0, rules.sink as usize);
        row.keep(
            (first + 1).saturating_sub((rules.window as usize).max(1)),
            last + 1,
        );
        if choice >= 3 {
            let variant = usize::from(choice == 4) * shape.batch * shape.index_heads;
            let block = (variant + index) * shape.query_blocks() + tile / (BLOCK / QUERY_TILE);
            let mask = &inputs.masks[block * shape.mask_words()..][..shape.mask_words()];
            for j in (0..shape.key_blocks()).filter(|j| mask[j / 32] >> (j % 32) & 1 == 1) {
                row.keep(j * BLOCK, (j + 1) * BLOCK);
            }
        }
        if choice == 2 || choice == 4 {
            let list = &inputs.lists[index * layout.stride()..][..layout.stride()];
            let (columns, slashes) = layout.read(list);
            for offset in slashes.iter().map(|b| *b as usize * GRANULE) {
                if offset <= last {
                    row.keep(
                        first.saturating_sub(offset + GRANULE - 1),
                        last - offset + 1,
                    );
                }
            }
            let outside = |c: &u32| (*c as usize) < first && !row.granules[*c as usize / GRANULE];
            row.columns = columns.iter().copied().filter(outside).collect();
        }
        Some(row)
    }

    /// Keeps the granules that meet the keys `[from, to)`, as far as the last position's.
    fn keep(&mut self, from: usize, to: usize) {
        let to = to.div_ceil(GRANULE).min(self.granules.len());
        if from / GRANULE < to {
            self.granules[from / GRANULE..to].fill(true);
        }
    }
}
