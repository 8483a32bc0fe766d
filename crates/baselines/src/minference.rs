//! Vertical-slash of MInference (arXiv 2407.02490, repository at August 2025), per query head.
//!
//! `A` is the attention of the chunk's last 64 rows. Columns: the `vertical` largest of the column
//! sums, the first 30 in any case; offsets: the `slash` largest of the diagonal sums, the nearest 100 in
//! any case. A tile of rows `[a, b]` sees the columns and, for every offset `o`, the keys
//! `[a - o, b - o]`. The published tiles of 64 reach a little further where they meet position 0 or
//! merge; here they are exact but for range starts, which are rounded down to the index's grid.

use sparse_accelerate::{
    AttentionError,
    index::{Builder, QUERY_TILE, TileIndex},
};

use crate::{cut, problem::Problem, scores};

const PROBE_ROWS: usize = 64;
/// Columns and offsets that are kept whatever their scores.
const FORCED: [usize; 2] = [30, 100];
/// Fewest columns and offsets.
const FEWEST: [usize; 2] = [30, 50];

pub(crate) fn index(
    problem: &Problem<'_>,
    vertical: usize,
    slash: usize,
) -> Result<TileIndex, AttentionError> {
    let mut builder = Builder::new(problem.spans, problem.heads, None)?;
    for sequence in 0..problem.spans.len() {
        for kv_head in 0..problem.kv_heads {
            let sums = scores::probe(problem, sequence, kv_head, PROBE_ROWS)?;
            for (i, sums) in sums.into_iter().enumerate() {
                let columns = largest(sums.columns, vertical.max(FEWEST[0]), FORCED[0]);
                let offsets = largest(sums.diagonals, slash.max(FEWEST[1]), FORCED[1]);
                let head = kv_head * problem.group() + i;
                set(&mut builder, sequence, head, &columns, &offsets)?;
            }
        }
    }
    builder.finish()
}

/// The `count` largest; the first `forced` count as infinite, so they use up the count.
fn largest(mut scores: Vec<f32>, count: usize, forced: usize) -> Vec<usize> {
    let forced = forced.min(scores.len());
    scores[..forced].fill(f32::INFINITY);
    cut::top(&scores, count)
}

fn set(
    builder: &mut Builder,
    sequence: usize,
    head: usize,
    columns: &[usize],
    offsets: &[usize],
) -> Result<(), AttentionError> {
    let whole = merged(offsets, QUERY_TILE);
    let mut tile = 0;
    while let Some((first, last)) = builder.tile_positions(sequence, tile) {
        let rows = last - first + 1;
        let partial = (rows < QUERY_TILE).then(|| merged(offsets, rows));
        let intervals = partial.as_ref().unwrap_or(&whole);
        let ranges = intervals
            .iter()
            .filter(|(near, _)| *near <= last)
            .map(|&(near, far)| (first.saturating_sub(far), last - near + 1));
        builder.set((sequence, head, tile), ranges, columns.iter().copied())?;
        tile += 1;
    }
    Ok(())
}

/// Runs of ascending offsets whose key ranges touch for tiles of `rows`, as nearest and farthest.
fn merged(offsets: &[usize], rows: usize) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &offset in offsets {
        match runs.last_mut() {
            Some((_, far)) if offset - *far <= rows => *far = offset,
            _ => runs.push((offset, offset)),
        }
    }
    runs
}
