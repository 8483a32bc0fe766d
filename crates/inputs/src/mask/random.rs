//! A random causal block mask with a given density; its rule is that of [`random_block_mask`].

use rayon::prelude::*;

use super::{BlockMask, last_column};
use crate::error::{InputError, in_range};
use crate::hash::Stream;
use crate::shape::{MAX_HEADS, MAX_LEN};

/// Streams of a row's rounding and of its order of columns.
const ROUNDING: u32 = 48;
const ORDER: u32 = 64;

/// A random causal mask of `len / query_block` by `len / key_block` blocks.
///
/// Row `r` may see the columns 0 to `last = ((r + 1) * query_block - 1) / key_block`, `n = last + 1`
/// of them. Column 0 and the columns of its own positions are always kept; then those with the
/// smallest `bits(64, (h * 2^12 + r) * 2^12 + c)`, until `t` are. With `u = bits(48, r) / 2^32` in
/// f64, `t = floor(density * n + u)`, but at least `min(2, n)` and at most `n`. So all heads keep as
/// many columns of a row, and short sequences keep more than `density`.
///
/// # Errors
///
/// If `len` is not 1 to 131072, `heads` not 1 to 256, a block size does not divide `len`,
/// `density` is not in (0, 1], or more than 2^32 - 1 blocks are kept.
pub fn random_block_mask(
    len: usize,
    query_block: usize,
    key_block: usize,
    density: f64,
    heads: usize,
    seed: u32,
) -> Result<BlockMask, InputError> {
    check(len, query_block, key_block, density, heads)?;
    let rounding = Stream::new(seed, ROUNDING);
    let order = Stream::new(seed, ORDER);
    let rows: Vec<Row> = (0..len / query_block)
        .map(|row| Row::new(row, query_block, key_block, density, rounding))
        .collect();
    let offsets = offsets(&rows, heads)?;

    let mut kept = vec![0_u32; offsets.last().map_or(0, |&end| end as usize)];
    let mut rest = kept.as_mut_slice();
    let mut lists = Vec::with_capacity(heads * rows.len());
    for head in 0..heads {
        for row in &rows {
            let (list, after) = rest.split_at_mut(row.kept());
            lists.push((head, row, list));
            rest = after;
        }
    }
    lists
        .into_par_iter()
        .for_each(|(head, row, list)| row.choose(head, order, list));

    Ok(BlockMask {
        heads,
        rows: rows.len(),
        columns: len / key_block,
        query_block,
        key_block,
        offsets,
        kept,
    })
}

fn check(
    len: usize,
    query_block: usize,
    key_block: usize,
    density: f64,
    heads: usize,
) -> Result<(), InputError> {
    in_range("len", len, MAX_LEN)?;
    in_range("heads", heads, MAX_HEADS)?;
    for (what, block) in [("query block", query_block), ("key block", key_block)] {
        in_range(what, block, len)?;
        if !len.is_multiple_of(block) {
            return Err(InputError::Block { what, block, len });
        }
    }
    if density > 0.0 && density <= 1.0 {
        Ok(())
    } else {
        Err(InputError::Density { got: density })
    }
}

fn offsets(rows: &[Row], heads: usize) -> Result<Vec<u32>, InputError> {
    let per_head: u128 = rows.iter().map(|row| row.kept() as u128).sum();
    let kept = per_head * heads as u128;
    if kept > u128::from(u32::MAX) {
        return Err(InputError::MaskTooLarge { kept });
    }
    let mut offsets = Vec::with_capacity(heads * rows.len() + 1);
    let mut end = 0;
    offsets.push(end);
    for _ in 0..heads {
        for row in rows {
            end += row.kept() as u32;
            offsets.push(end);
        }
    }
    Ok(offsets)
}

/// Mask entries of a row that all heads share.
struct Row {
    row: usize,
    /// Columns of the row's own positions.
    diagonal: std::ops::RangeInclusive<usize>,
    /// 1 if column 0 is none of them.
    sink: usize,
    /// Columns chosen between column 0 and the diagonal.
    chosen: usize,
}

impl Row {
    fn new(
        row: usize,
        query_block: usize,
        key_block: usize,
        density: f64,
        rounding: Stream,
    ) -> Self {
        let first = row * query_block / key_block;
        let last = last_column(row, query_block, key_block);
        let n = last + 1;
        let u = f64::from(rounding.bits(row as u32)) / 2_f64.powi(32);
        let wanted = (density * n as f64 + u).floor() as usize;
        let wanted = wanted.max(n.min(2)).min(n);
        let sink = usize::from(first > 0);
        Self {
            row,
            diagonal: first..=last,
            sink,
            chosen: wanted.saturating_sub(sink + last + 1 - first),
        }
    }

    fn kept(&self) -> usize {
        self.sink + self.chosen + (self.diagonal.end() + 1 - self.diagonal.start())
    }

    fn choose(&self, head: usize, order: Stream, list: &mut [u32]) {
        // Counters wrap where a head has more than 4096 rows or columns. Keys of one row differ
        // all the same, since the hash is a bijection.
        let first_counter = (((head << 12) + self.row) << 12) as u32;
        let first = *self.diagonal.start() as u32;
        let mut candidates: Vec<(u32, u32)> = (1..first)
            .map(|c| (order.bits(first_counter.wrapping_add(c)), c))
            .collect();
        if self.chosen > 0 && self.chosen < candidates.len() {
            candidates.select_nth_unstable(self.chosen - 1);
        }
        candidates.truncate(self.chosen);
        let columns = (0..self.sink as u32)
            .chain(candidates.into_iter().map(|(_, c)| c))
            .chain(first..=*self.diagonal.end() as u32);
        for (slot, column) in list.iter_mut().zip(columns) {
            *slot = column;
        }
        list.sort_unstable();
    }
}
