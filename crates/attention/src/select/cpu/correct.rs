//! The mass of what was left out, put back from pooled keys and values.
//!
//! Source: the zero-order mean correction of FlashPrefill V2 (arXiv 2608.19758): a pruned key block
//! becomes one pseudo key of logit `q . mean + ln n` and of its mean value. Here also with the
//! second-order term of the log-moment of Gaussian logits, `ln E exp(x) = mu + sigma^2 / 2`.

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::{Pooled, View, ViewMut};
use sparse_accelerate_contract::{
    BLOCK, Correction, IndexRow, Order, QUERY_TILE, SPAN_WORDS, Sequence, Shape, TableLayout,
    table::DENSE,
};
use sparse_accelerate_cpu::{FlexFloat, Rows, exp, product, softmax};

/// Key blocks of one matrix product.
const CHUNK: usize = 256;

/// Merges, for every row of every query tile, the pruned part of the key blocks that the whole tile
/// may see (`128 J + 128 <= ` the tile's first position, and no key of it before the first that the tile's last
/// row sees) into output and log-sum-exp: with `n` of 128
/// keys left out, a key of logit `scale q . mean (+ min(cap, scale^2 / 2 sum_d q_d^2 variance_d)) + ln n`
/// and of the block's mean value. Rows of heads whose gate is 1, and rows with nothing left out, keep
/// their bits.
///
/// # Shapes
/// - `query`, `out`: `[B, Hq, N, d]`; `pooled`: `[B, Hk, blocks, 3, d]`
/// - `table`: spans `[B, 4]`, rows `[B, Hi, tiles, 4]`, gates `[B, Hi]`, then ranges and columns
/// - `lse`, `lse_out`: `[B, Hq, N]`
#[allow(clippy::too_many_arguments)]
pub fn correct<E: FlexFloat>(
    shape: &Shape,
    query: View<'_, E>,
    pooled: Pooled<'_>,
    table: &[u32],
    correction: Correction,
    out: ViewMut<'_, E>,
    lse: &[f32],
    lse_out: &mut [f32],
) {
    assert!(shape.heads_per_index() <= shape.heads_per_kv());
    let Some(order) = correction.order() else {
        lse_out.copy_from_slice(lse);
        return;
    };
    lse_out.copy_from_slice(lse);
    let (tiles, index_heads) = (shape.tiles(), shape.index_heads);
    let problem = Problem {
        shape,
        query,
        pooled,
        order,
        cap: correction.cap(),
        arch: Arch::new(),
        out_strides: out.strides,
        out: Rows::new(out.data),
        lse: Rows::new(lse_out),
    };
    let rows_of_all = shape.indexes() * tiles;
    let gates = &table[TableLayout::gates_at(shape.batch, rows_of_all)..];
    (0..rows_of_all)
        .into_par_iter()
        .with_max_len(1)
        .for_each_init(Scratch::default, |scratch, item| {
            // The last tiles have most to correct, so they come first.
            let (flat, tile) = (item % shape.indexes(), item / shape.indexes());
            let tile = tiles - 1 - tile;
            let at = (flat / index_heads, flat % index_heads);
            let sequence = Sequence::of(table, at.0);
            let first = tile * QUERY_TILE;
            let rows = QUERY_TILE.min(sequence.query_len.saturating_sub(first));
            if rows == 0 || gates[flat] == DENSE {
                return;
            }
            let rows_words = &table[shape.batch * SPAN_WORDS..];
            let (ranges, columns) = IndexRow::of(rows_words, flat * tiles + tile).keys(table);
            let position = sequence.offset() + first;
            let seen = shape.visible.first(position + rows - 1).div_ceil(BLOCK);
            let blocks = seen..(position / BLOCK).max(seen);
            scratch.first = blocks.start;
            left_out(ranges, columns, blocks, &mut scratch.left_out);
            if scratch.left_out.iter().any(|&n| n > 0) {
                problem.run(scratch, at, first..first + rows);
            }
        });
}

/// Keys of each of the key blocks `blocks` that are in no range and no column.
fn left_out(ranges: &[u32], columns: &[u32], blocks: Range<usize>, out: &mut Vec<u32>) {
    out.clear();
    out.resize(blocks.len(), BLOCK as u32);
    let keys = blocks.start * BLOCK..blocks.end * BLOCK;
    for range in ranges.chunks_exact(2) {
        let mut start = (range[0] as usize).max(keys.start);
        let stop = (range[1] as usize).min(keys.end);
        while start < stop {
            let next = (start / BLOCK + 1) * BLOCK;
            out[start / BLOCK - blocks.start] -= (next.min(stop) - start) as u32;
            start = next;
        }
    }
    for column in columns.iter().map(|&c| c as usize) {
        if keys.contains(&column) {
            out[column / BLOCK - blocks.start] -= 1;
        }
    }
}

/// Buffers of one thread, reused from item to item.
#[derive(Default)]
struct Scratch {
    /// The first block that is counted in `left_out`.
    first: usize,
    left_out: Vec<u32>,
    query: Vec<f32>,
    squares: Vec<f32>,
    logits: Vec<f32>,
    second: Vec<f32>,
    out: Vec<f32>,
    state: Vec<(f32, f32)>,
}

struct Problem<'a, E> {
    shape: &'a Shape,
    query: View<'a, E>,
    pooled: Pooled<'a>,
    order: Order,
    cap: f32,
    arch: Arch,
    out_strides: [usize; 3],
    out: Rows<'a, E>,
    lse: Rows<'a, f32>,
}

impl<E: FlexFloat> Problem<'_, E> {
    /// Query rows `rows` of all query heads of one index head.
    fn run(&self, scratch: &mut Scratch, (b, index_head): (usize, usize), rows: Range<usize>) {
        let Shape {
            heads,
            rows: n_rows,
            head_dim: d,
            scale,
            ..
        } = *self.shape;
        let heads_per_index = self.shape.heads_per_index();
        let heads_of = index_head * heads_per_index..(index_head + 1) * heads_per_index;
        let packed: Vec<(usize, usize)> = heads_of
            .clone()
            .flat_map(|h| rows.clone().map(move |row| (h, row)))
            .collect();
        let out = |(h, row): (usize, usize)| {
            let [sb, sh, sr] = self.out_strides;
            #[allow(unsafe_code)]
            // SAFETY: an item writes the rows of its own block and heads, one at a time.
            unsafe {
                self.out.row(b * sb + h * sh + row * sr, d)
            }
        };
        let lse = |(h, row): (usize, usize)| {
            #[allow(unsafe_code)]
            // SAFETY: as above; no result outlives the statement that asks for it.
            unsafe {
                &mut self.lse.row((b * heads + h) * n_rows + row, 1)[0]
            }
        };

        scratch.query.clear();
        scratch.out.clear();
        scratch.state.clear();
        for &at in &packed {
            let query = self.query.row(b, at.0, at.1, d);
            scratch
                .query
                .extend(query.iter().map(|x| x.widen() * scale));
            // The sparse result stands for one key of logit `lse` and of the output as value.
            let seen = *lse(at) != f32::NEG_INFINITY;
            scratch.state.push(if seen {
                (*lse(at), 1.0)
            } else {
                (softmax::UNSEEN, 0.0)
            });
            scratch.out.extend(out(at).iter().map(|x| x.widen()));
        }
        if self.order == Order::Second {
            scratch.squares.clear();
            scratch
                .squares
                .extend(scratch.query.iter().map(|q| 0.5 * q * q));
        }
        let kv_head = b * self.shape.kv_heads + heads_of.start / self.shape.heads_per_kv();
        let pooled = &self.pooled.head(kv_head, d)[scratch.first * 3 * d..];
        for start in (0..scratch.left_out.len()).step_by(CHUNK) {
            self.step(scratch, packed.len(), &pooled[start * 3 * d..], start);
        }
        for (r, &at) in packed.iter().enumerate() {
            let (maximum, sum) = scratch.state[r];
            let inverse = 1.0 / sum;
            for (to, &x) in out(at).iter_mut().zip(&scratch.out[r * d..]) {
                *to = E::narrow(x * inverse);
            }
            *lse(at) = maximum + sum.ln();
        }
    }

    /// One chunk of pseudo keys: logits, softmax, output.
    fn step(&self, scratch: &mut Scratch, rows: usize, pooled: &[f32], start: usize) {
        let d = self.shape.head_dim;
        let left_out = &scratch.left_out[start..];
        let left_out = &left_out[..left_out.len().min(CHUNK)];
        let count = left_out.len();
        let (logits, second) = (&mut scratch.logits, &mut scratch.second);
        logits.resize(logits.len().max(rows * count), 0.0);
        let mean = (pooled, [1, 3 * d]);
        product(
            [rows, count, d],
            logits,
            false,
            (&scratch.query, [d, 1]),
            mean,
        );
        if self.order == Order::Second {
            let cap = self.cap;
            second.resize(second.len().max(rows * count), 0.0);
            let variance = (&pooled[d..], [1, 3 * d]);
            product(
                [rows, count, d],
                second,
                false,
                (&scratch.squares, [d, 1]),
                variance,
            );
            for (logit, &x) in logits[..rows * count].iter_mut().zip(&*second) {
                // A NaN is not below the cap: it stays.
                *logit += if x > cap { cap } else { x };
            }
        }
        // -inf where nothing is left out.
        let weights: Vec<f32> = left_out.iter().map(|&n| (n as f32).ln()).collect();
        let row_state = logits.chunks_exact_mut(count).zip(&mut scratch.state);
        for ((row, (maximum, sum)), out) in row_state.zip(scratch.out.chunks_exact_mut(d)) {
            for (logit, &weight) in row.iter_mut().zip(&weights) {
                *logit += weight;
            }
            let (new, part) = softmax::row(self.arch, row, *maximum);
            let shrink = exp(*maximum - new);
            *sum = *sum * shrink + part;
            *maximum = new;
            if shrink != 1.0 {
                out.iter_mut().for_each(|x| *x *= shrink);
            }
        }
        let value = (&pooled[2 * d..], [3 * d, 1]);
        product(
            [rows, d, count],
            &mut scratch.out,
            true,
            (&scratch.logits, [count, 1]),
            value,
        );
    }
}

#[cfg(test)]
mod tests;
