//! The index of a chunk as a table: for every index row the union of what its head's choice keeps, rounded
//! outwards to granules.

use rayon::prelude::*;

use sparse_accelerate_contract::{
    BLOCK, Choice, GRANULE, ListLayout, QUERY_TILE, RANGE_WORDS, REPORT_WORDS, ROW_WORDS, Report,
    Rules, Sequence, Shape, TableLayout,
    table::{self, DENSE},
};

/// Inputs of a build.
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
/// `[B * Hi, tiles]`; under a window the pairs of its rows and the kept keys that they see. What a row does
/// not use of its room is left.
pub fn build(
    shape: &Shape,
    layout: &ListLayout,
    inputs: &BuildInputs<'_>,
    table: &mut [u32],
    kept: &mut [u32],
) {
    let at = TableLayout::new(shape, layout);
    let tiles = shape.tiles();
    let indexes = shape.indexes();
    let rows = indexes * tiles;
    let parts = at.split(table);
    parts.spans.copy_from_slice(&inputs.spans[..at.rows_at]);
    parts.gates.copy_from_slice(&inputs.gates[..indexes]);
    // Chunks of nothing are no chunks: a row without room for columns gets an empty slice.
    let mut room: Vec<&mut [u32]> = Vec::with_capacity(rows);
    let mut left = parts.columns;
    for _ in 0..rows {
        let (columns, rest) = left.split_at_mut(at.column_stride);
        room.push(columns);
        left = rest;
    }
    let rows = parts
        .rows
        .par_chunks_mut(ROW_WORDS)
        .zip(parts.ranges.par_chunks_mut(at.range_stride))
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
        let count = |from: usize, to: usize| match shape.window() {
            None => (to - from) as u32,
            Some(_) => {
                let seen = |position| shape.visible.seen(position, from, to) as u64;
                table::word((built.first..=built.last).map(seen).sum::<u64>() as usize)
            }
        };
        while g < built.granules.len() {
            let run = built.granules[g..].iter().take_while(|kept| **kept).count();
            if run > 0 {
                let end = ((g + run) * GRANULE).min(built.last + 1);
                ranges[runs * RANGE_WORDS..][..RANGE_WORDS]
                    .copy_from_slice(&[(g * GRANULE) as u32, end as u32]);
                *kept += count(g * GRANULE, end);
                runs += 1;
            }
            g += run.max(1);
        }
        columns[..built.columns.len()].copy_from_slice(&built.columns);
        let columns = built.columns.iter().map(|&column| column as usize);
        *kept += columns.map(|c| count(c, c + 1)).sum::<u32>();
        entry.copy_from_slice(&at.row(row, runs, built.columns.len()).words());
    });
}

/// The keys that one index row keeps.
struct Row {
    granules: Vec<bool>,
    columns: Vec<u32>,
    /// First granule that may be kept: it holds the first key that a row of the tile sees.
    from: usize,
    /// The tile's first and last position.
    first: usize,
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
        let sequence = Sequence::of(inputs.spans, index / shape.index_heads);
        if tile * QUERY_TILE >= sequence.query_len {
            return None;
        }
        let first = sequence.offset() + tile * QUERY_TILE;
        let last = sequence.offset() + ((tile + 1) * QUERY_TILE).min(sequence.query_len) - 1;
        let mut row = Self {
            granules: vec![false; (last + 1).div_ceil(GRANULE)],
            columns: Vec::new(),
            from: shape.visible.first(first) / GRANULE,
            first,
            last,
        };
        let number = inputs.report[index * REPORT_WORDS + Report::CHOICE] as u32;
        let choice = Choice::from_number(number).unwrap_or(Choice::Dense);
        let dense = choice == Choice::Dense || inputs.gates[index] == DENSE;
        if dense || last >= sequence.dense_from {
            row.keep(0, last + 1);
            return Some(row);
        }
        let (sink, window) = Rules::of(inputs.rules, index % shape.index_heads).local();
        row.keep(0, sink);
        row.keep((first + 1).saturating_sub(window), last + 1);
        if choice.has_blocks() {
            let variant = usize::from(choice.has_lists()) * shape.indexes();
            let block = (variant + index) * shape.query_blocks() + tile / (BLOCK / QUERY_TILE);
            let mask = &inputs.masks[block * shape.mask_words()..][..shape.mask_words()];
            for j in (0..shape.key_blocks()).filter(|j| mask[j / 32] >> (j % 32) & 1 == 1) {
                row.keep(j * BLOCK, (j + 1) * BLOCK);
            }
        }
        if choice.has_lists() {
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
            let seen = shape.visible.first(first)..first;
            let outside = |c: &u32| {
                let column = *c as usize;
                seen.contains(&column) && !row.granules[column / GRANULE]
            };
            row.columns = columns.iter().copied().filter(outside).collect();
        }
        Some(row)
    }

    /// Keeps the granules that meet the keys `[from, to)`, from the first visible to the last position's.
    fn keep(&mut self, from: usize, to: usize) {
        let from = (from / GRANULE).max(self.from);
        let to = to.div_ceil(GRANULE).min(self.granules.len());
        if from < to {
            self.granules[from..to].fill(true);
        }
    }
}
