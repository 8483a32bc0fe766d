//! Query rows of one block and their probabilities, in f32 on the device.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{
    inputs::{BLOCK, Frontier},
    oracle::Head,
    sets::{HALVES, TILE},
};

/// A logit that means nothing is this much lower.
pub(super) const NEVER: f64 = 1e30;
/// The query rows of one block, of the heads that share a KV head.
pub(super) struct Rows {
    pub(super) device: Device,
    /// Query block.
    pub(super) block: usize,
    /// Rows that exist.
    pub(super) count: usize,
    /// `heads * HALVES`.
    pub(super) tiles: usize,
    /// `[tiles * TILE, d]`, scaled; rows that do not exist are zeros.
    pub(super) query: Tensor<2>,
    /// `[tiles * TILE, 1]`; so large for rows that do not exist that they weigh nothing.
    pub(super) lse: Tensor<2>,
}

impl Rows {
    pub(super) fn new(head: &Head, layer: &Frontier, block: usize) -> Self {
        let (first, group, d) = (BLOCK * block, head.group, layer.shape.head_dim);
        let count = BLOCK.min(layer.shape.length - first);
        let heads = head.kv_head * group..(head.kv_head + 1) * group;
        let ranges = [0..1, heads.clone(), first..first + count, 0..d];
        let query = layer.query.clone().slice(ranges).cast(DType::F32);
        let query = query.reshape([group, count * d]);
        let lse = layer.lse.clone().slice([0..1, heads, first..first + count]);
        let lse = lse.reshape([group, count]);
        // Padded along the rows: one head is one row of these matrices.
        let pad = |tensor: Tensor<2>, width: usize, value: f64| {
            pad_rows(tensor.transpose(), width, value, &layer.device).transpose()
        };
        let scale = (d as f64).sqrt().recip();
        Self {
            device: layer.device.clone(),
            block,
            count,
            tiles: group * HALVES,
            query: pad(query, BLOCK * d, 0.0).reshape([group * BLOCK, d]) * scale,
            lse: pad(lse, BLOCK, NEVER).reshape([group * BLOCK, 1]),
        }
    }
}

/// Probabilities of the rows over one piece of the keys.
pub(super) struct Piece {
    /// `[tiles, TILE, blocks of 64, 64]`.
    pub(super) probabilities: Tensor<4>,
    /// Summed over the keys of a block: `[tiles, TILE, blocks]`.
    pub(super) by_row: Tensor<3>,
}

impl Piece {
    pub(super) fn new(head: &Head, rows: &Rows, at: usize) -> Self {
        let (piece, tiles) = (head.piece, rows.tiles);
        let keys = head.keys.clone();
        let d = keys.dims()[1];
        let keys = keys.slice([at * piece..(at + 1) * piece, 0..d]);
        let mut logits = rows.query.clone().matmul(keys.transpose()) - rows.lse.clone();
        let (first, start) = (rows.block * BLOCK, at * piece);
        if first < start + piece {
            let causal = causal(first as f64 - start as f64, piece, &rows.device);
            let by_head = logits.reshape([tiles / HALVES, BLOCK, piece]);
            logits = (by_head + causal).reshape([tiles * TILE, piece]);
        }
        let count = piece / TILE;
        let probabilities = logits.exp().reshape([tiles, TILE, count, TILE]);
        let by_row = probabilities.clone().sum_dim(3);
        Self {
            by_row: by_row.reshape([tiles, TILE, count]),
            probabilities,
        }
    }

    /// Summed over the rows of a tile: `[tiles, blocks]`.
    pub(super) fn mass(&self) -> Tensor<2> {
        let [tiles, _, count] = self.by_row.dims();
        self.by_row.clone().sum_dim(1).reshape([tiles, count])
    }
}

/// 0 where row `i` at `offset + i` sees key `j`, far below elsewhere: `[1, BLOCK, keys]`.
fn causal(offset: f64, keys: usize, device: &Device) -> Tensor<3> {
    let count = |n: usize| {
        let numbers: Vec<f32> = (0..n).map(|i| i as f32).collect();
        TensorData::new(numbers, [n])
    };
    let tensor = |n| Tensor::<1>::from_data(count(n), (device, DType::F32));
    let row = tensor(BLOCK).reshape([1, BLOCK, 1]) + (offset + 1.0);
    let ahead = row - tensor(keys).reshape([1, 1, keys]);
    (ahead.clamp(0.0, 1.0) - 1.0) * NEVER
}

/// Rows of `value` below a matrix, until there are `count`.
pub(super) fn pad_rows(matrix: Tensor<2>, count: usize, value: f64, device: &Device) -> Tensor<2> {
    let [rows, columns] = matrix.dims();
    if rows == count {
        return matrix;
    }
    let more = Tensor::full([count - rows, columns], value, (device, DType::F32));
    Tensor::cat(vec![matrix, more], 0)
}
