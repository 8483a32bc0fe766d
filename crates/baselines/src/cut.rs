//! Cuts on the host: scores in, sorted indices out. Ties go to the lower index; NaN counts as largest.

use sparse_accelerate::{
    AttentionError,
    index::{Builder, TileIndex},
};

use crate::problem::Problem;

/// Indices by score, largest first.
pub(crate) fn descending(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order
}

/// The `count` indices of largest score, ascending.
pub(crate) fn top(scores: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let count = count.min(order.len());
    if count < order.len() {
        order.select_nth_unstable_by(count, |&a, &b| {
            scores[b].total_cmp(&scores[a]).then(a.cmp(&b))
        });
        order.truncate(count);
    }
    order.sort_unstable();
    order
}

/// How many of the largest scores sum up to at most `mass`, and one more.
pub(crate) fn to_cover(scores: &[f32], mass: f64) -> usize {
    let mut sum = 0.0;
    let order = descending(scores).into_iter();
    let within = order.take_while(|&i| {
        sum += f64::from(scores[i]);
        sum <= mass
    });
    within.count() + 1
}

/// Indices that are kept whatever their score, then those of largest score until what is kept sums up to `share` of
/// all scores.
pub(crate) fn cover(scores: &[f32], share: f64, forced: impl Fn(usize) -> bool) -> Vec<usize> {
    let required = scores.iter().map(|&s| f64::from(s)).sum::<f64>() * share;
    let mut kept: Vec<usize> = (0..scores.len()).filter(|&i| forced(i)).collect();
    let mut sum: f64 = kept.iter().map(|&i| f64::from(scores[i])).sum();
    for i in descending(scores) {
        if sum >= required {
            break;
        }
        if !forced(i) {
            sum += f64::from(scores[i]);
            kept.push(i);
        }
    }
    kept
}

/// The key blocks before and at the end of a row of blocks, from what a baseline keeps.
pub(crate) struct KeptBlocks {
    /// Tokens of a query block: 128 at absolute positions, or 64 from the first row on.
    pub(crate) query_block: usize,
    /// Tokens of a key block.
    pub(crate) key_block: usize,
    /// `[sequence][index head][query block]`, key blocks in any order.
    pub(crate) kept: Vec<Vec<Vec<Vec<usize>>>>,
}

impl KeptBlocks {
    /// The index of the choice.
    pub(crate) fn index(&self, problem: &Problem<'_>) -> Result<TileIndex, AttentionError> {
        let heads = self.kept.first().map_or(0, Vec::len);
        let mut builder = Builder::new(problem.spans, heads, None)?;
        for (sequence, heads) in self.kept.iter().enumerate() {
            let origin = problem.spans[sequence].offset() / self.query_block;
            for (head, rows) in heads.iter().enumerate() {
                let mut tile = 0;
                while let Some((first, _)) = builder.tile_positions(sequence, tile) {
                    let kept = &rows[first / self.query_block - origin];
                    let ranges = kept
                        .iter()
                        .map(|b| (b * self.key_block, (b + 1) * self.key_block));
                    builder.set((sequence, head, tile), ranges, [])?;
                    tile += 1;
                }
            }
        }
        builder.finish()
    }
}
