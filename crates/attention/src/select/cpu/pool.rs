//! Key blocks in three vectors: mean key, variance of the keys, mean value.

use pulp::Arch;
use rayon::prelude::*;

use super::View;
use sparse_accelerate_contract::{BLOCK, Sequence, Shape};
use sparse_accelerate_cpu::FlexFloat;

/// Pools every key block that overlaps the new rows, over its real tokens; other blocks are left as
/// they are. A block is always pooled whole and in the order of its tokens, so a prompt in chunks gives
/// the bits of the whole.
///
/// # Shapes
/// - `key`, `value`: `[B, Hk, S, d]`, `S` at least the keys of the shape
/// - `spans`: `[B, 4]`
/// - `pooled`: `[B, Hk, blocks, 3, d]`, `blocks` at least the key blocks of the shape
pub fn pool<E: FlexFloat>(
    shape: &Shape,
    key: View<'_, E>,
    value: View<'_, E>,
    spans: &[u32],
    pooled: &mut [f32],
    blocks: usize,
) {
    let d = shape.head_dim;
    assert!(
        blocks >= shape.key_blocks()
            && pooled.len() == shape.batch * shape.kv_heads * blocks * 3 * d
    );
    let arch = Arch::new();
    let init = || [Vec::new(), Vec::new()];
    let items = pooled.par_chunks_exact_mut(3 * d).enumerate();
    items.for_each_init(init, |[key_rows, value_rows], (item, out)| {
        let (flat, block) = (item / blocks, item % blocks);
        let at = (flat / shape.kv_heads, flat % shape.kv_heads);
        let sequence = Sequence::of(spans, at.0);
        let start = block * BLOCK;
        let end = (start + BLOCK).min(sequence.kv_len);
        if start >= sequence.kv_len || end <= sequence.offset() {
            return;
        }
        let (key, key_stride) = key.wide(at, start..end, d, key_rows);
        let (value, value_stride) = value.wide(at, start..end, d, value_rows);
        let (moments, mean_value) = out.split_at_mut(2 * d);
        let (mean_key, variance) = moments.split_at_mut(d);
        let rows = end - start;
        arch.dispatch(Mean {
            rows,
            from: key,
            stride: key_stride,
            to: mean_key,
        });
        arch.dispatch(Variance {
            rows,
            from: key,
            stride: key_stride,
            mean: mean_key,
            to: variance,
        });
        arch.dispatch(Mean {
            rows,
            from: value,
            stride: value_stride,
            to: mean_value,
        });
    });
}

struct Mean<'a> {
    rows: usize,
    from: &'a [f32],
    stride: usize,
    to: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Mean<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let d = self.to.len();
        self.to.fill(0.0);
        for row in 0..self.rows {
            let from = &self.from[row * self.stride..][..d];
            for (sum, &x) in self.to.iter_mut().zip(from) {
                *sum += x;
            }
        }
        let count = self.rows as f32;
        self.to.iter_mut().for_each(|sum| *sum /= count);
    }
}

/// Biased: divided by the number of rows.
struct Variance<'a> {
    rows: usize,
    from: &'a [f32],
    stride: usize,
    mean: &'a [f32],
    to: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Variance<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let d = self.to.len();
        let mean = &self.mean[..d];
        self.to.fill(0.0);
        for row in 0..self.rows {
            let from = &self.from[row * self.stride..][..d];
            for ((sum, &x), &m) in self.to.iter_mut().zip(from).zip(mean) {
                *sum += (x - m) * (x - m);
            }
        }
        let count = self.rows as f32;
        self.to.iter_mut().for_each(|sum| *sum /= count);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::bf16;

    use super::super::testing::{CASES, Case, close};
    use super::*;

    fn matches_formula<E: FlexFloat>() {
        for (seed, &lengths) in CASES.iter().enumerate() {
            let case = Case::<E>::normal(lengths, 1.0, seed as u64);
            let (shape, d) = (case.shape, case.shape.head_dim);
            let blocks = shape.key_blocks() + 2;
            let mut pooled = vec![-7.0; shape.batch * shape.kv_heads * blocks * 3 * d];
            pool(
                &shape,
                case.key(),
                case.value(),
                &case.spans,
                &mut pooled,
                blocks,
            );
            for (item, got) in pooled.chunks_exact(3 * d).enumerate() {
                let (flat, block) = (item / blocks, item % blocks);
                let (b, head) = (flat / shape.kv_heads, flat % shape.kv_heads);
                let (query_len, kv_len) = case.lengths(b);
                // Some key of the block is a new one.
                let new = (block * BLOCK..(block + 1) * BLOCK)
                    .any(|j| (kv_len - query_len..kv_len).contains(&j));
                match new {
                    true => close(
                        "pooled",
                        got,
                        &case.moments(b, head, block).concat(),
                        1e-6,
                        1e-5,
                    ),
                    false => assert!(got.iter().all(|&x| x == -7.0), "{b} {head} {block}"),
                }
            }
        }
    }

    #[test]
    fn pooled_blocks_match_the_formula_f32() {
        matches_formula::<f32>();
    }

    #[test]
    fn pooled_blocks_match_the_formula_bf16() {
        matches_formula::<bf16>();
    }

    #[test]
    fn chunks_give_the_bits_of_the_whole() {
        let case = Case::<f32>::normal((&[(1000, 1000)], 3, 3, 64), 1.0, 7);
        let blocks = case.shape.key_blocks();
        let mut pooled = vec![f32::NAN; 3 * blocks * 3 * 64];
        let mut before = 0;
        for kv_len in [1, 63, 128, 129, 500, 512, 999, 1000] {
            let spans = Sequence::new(kv_len - before, kv_len).words();
            pool(
                &case.shape,
                case.key(),
                case.value(),
                &spans,
                &mut pooled,
                blocks,
            );
            before = kv_len;
        }
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&pooled), bits(&case.pooled()));
    }
}
