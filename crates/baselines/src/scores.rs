//! Attention of probe rows and its sums, on the device.

use std::ops::Range;

use burn::tensor::{DType, Device, Int, Tensor, activation::softmax};

use sparse_accelerate::AttentionError;

use crate::{OP, problem::Problem};

/// Largest scores held at once, in elements (64 MiB in f32): heads and rows are taken in pieces.
pub(crate) const MOST_SCORES: usize = 1 << 24;

/// Stands for `-inf` before a softmax: finite, because WGSL has no infinities.
pub(crate) const MASKED: f32 = -1e30;

/// `scale * a b^T` in f32, with the product in the type of the operands.
pub(crate) fn products(a: Tensor<2>, b: Tensor<2>, scale: f64) -> Tensor<2> {
    a.mul_scalar(scale).matmul(b.transpose()).cast(DType::F32)
}

/// Column and diagonal sums of the attention of a head's last rows.
pub(crate) struct Sums {
    /// Rows summed over.
    pub(crate) rows: usize,
    /// `sum_r A[r, j]` for every key `j`.
    pub(crate) columns: Vec<f32>,
    /// `sum_r A[r, p_r - o]` for every offset `o`.
    pub(crate) diagonals: Vec<f32>,
}

/// [`Sums`] of the last `most` new rows of every query head of a KV head, in head order.
pub(crate) fn probe(
    problem: &Problem<'_>,
    sequence: usize,
    kv_head: usize,
    most: usize,
) -> Result<Vec<Sums>, AttentionError> {
    let span = problem.spans[sequence];
    let (rows, keys) = (most.min(span.query_len), span.kv_len);
    let at_once = (MOST_SCORES / (rows * keys)).clamp(1, problem.group());
    let key = problem.key(sequence, kv_head);
    let mut sums = Vec::new();
    let heads = kv_head * problem.group()..(kv_head + 1) * problem.group();
    for first in heads.clone().step_by(at_once) {
        let heads = first..(first + at_once).min(heads.end);
        let query = problem.query(
            sequence,
            heads.clone(),
            span.query_len - rows..span.query_len,
        );
        let attention = causal_softmax(query, key.clone(), problem.scale());
        let columns = read(attention.clone().sum_dim(1))?;
        let diagonals = read(diagonal_sums(attention))?;
        for (columns, diagonals) in columns
            .chunks_exact(keys)
            .zip(diagonals.chunks_exact(keys + rows))
        {
            sums.push(Sums {
                rows,
                columns: columns.to_vec(),
                // Entry `c` is the offset `keys - 1 - c`; those past it lie above the diagonal.
                diagonals: diagonals[..keys].iter().rev().copied().collect(),
            });
        }
    }
    Ok(sums)
}

/// Softmax over the causal keys; the last of the `[heads, rows]` is the last of the `[keys]`.
fn causal_softmax(query: Tensor<3>, key: Tensor<2>, scale: f64) -> Tensor<3> {
    let ([heads, rows, dim], [keys, _]) = (query.dims(), key.dims());
    let device = key.device();
    let logits = products(query.reshape([heads * rows, dim]), key, scale);
    let row = positions(keys - rows..keys, &device).reshape([1, rows, 1]);
    let column = positions(0..keys, &device).reshape([1, 1, keys]);
    let future = column
        .expand([1, rows, keys])
        .greater(row.expand([1, rows, keys]));
    let logits = logits
        .reshape([heads, rows, keys])
        .mask_fill(future.expand([heads, rows, keys]), MASKED);
    softmax(logits, 2)
}

/// Sums along diagonals without a scatter: rows padded on the left by `rows - 1` and read again with a
/// stride one longer, so that a diagonal becomes a column. `[heads, keys + rows]`.
fn diagonal_sums(attention: Tensor<3>) -> Tensor<2> {
    let [heads, rows, keys] = attention.dims();
    let options = (&attention.device(), DType::F32);
    let flat = match rows {
        1 => attention.reshape([heads, keys]),
        _ => {
            let left = Tensor::<3>::zeros([heads, rows, rows - 1], options);
            Tensor::cat(vec![left, attention], 2).reshape([heads, rows * (keys + rows - 1)])
        }
    };
    let rest = Tensor::<2>::zeros([heads, rows], options);
    Tensor::cat(vec![flat, rest], 1)
        .reshape([heads, rows, keys + rows])
        .sum_dim(1)
        .reshape([heads, keys + rows])
}

/// Positions as integers on the device.
pub(crate) fn positions(range: Range<usize>, device: &Device) -> Tensor<1, Int> {
    Tensor::arange(range.start as i64..range.end as i64, device)
}

/// Values on the host, as f32.
pub(crate) fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, AttentionError> {
    let data = tensor.cast(DType::F32).try_into_data();
    let data = data.map_err(|error| failed(error.to_string()))?;
    data.try_to_vec()
        .map_err(|error| failed(format!("{error:?}")))
}

pub(crate) fn failed(reason: String) -> AttentionError {
    AttentionError::Device {
        op: OP,
        reason: format!("the device failed: {reason}"),
    }
}
