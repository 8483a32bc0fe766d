//! The oracle: per query tile the fewest key blocks that hold a share of the true attention mass.
//!
//! With the dense pass' log-sum-exp the probabilities of a query block's rows are
//! `p = exp(scale q.k - lse)`. Summed by key block they say which sets are the smallest; the products of
//! each block with its values, `O_J = P_J V_J`, then give the output of every set as one more product,
//! `out = sum_J m_J O_J / sum_J m_J P_J 1` with the set's indicator `m`. With block means, every left out
//! block that lies wholly before the tile adds a key of logit `scale q.mean(k) + ln n` and value `mean(v)`.
//!
//! Everything is in f32, one query block of one KV head at a time, keys in pieces of [`PIECE`] whatever
//! the length, so that every product has the same few shapes. The probabilities of one query block stay
//! on the device: 256 MiB at 128K keys and four query heads a KV head.

use burn::tensor::{DType, Tensor};
use sparse_accelerate_report::record::OracleRow;

use super::{
    inputs::{BLOCK, Frontier, read},
    rows::{NEVER, Piece, Rows, pad_rows},
    sets::{ALL, SETS, SHARES, SIZES, Sets, Sums, TILE, set},
};
use sparse_accelerate_engine::contained;

use crate::speed::SpeedError;

/// Keys that are computed at a time.
const PIECE: usize = 16_384;
/// The largest exponent of a pseudo key; only masked ones come near it.
const CAP: f64 = 80.0;

impl Frontier {
    /// Density and error of the oracle for tiles of 128 and of 64, chosen by query head and by KV head,
    /// at every share of [`SHARES`]. `progress` is told the query blocks done, of all.
    ///
    /// # Errors
    /// A device that gave up.
    pub fn oracle(
        &self,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<OracleRow>, SpeedError> {
        contained("oracle", || {
            let mut sums = Sums::default();
            self.add_oracle(&mut sums, progress)?;
            Ok(rows(self.shape.length, &sums))
        })
    }

    /// Adds the oracle's choices to sums, which may be of several layers.
    pub(super) fn add_oracle(
        &self,
        sums: &mut Sums,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), SpeedError> {
        let all = self.shape.kv_heads * self.blocks.len();
        for kv_head in 0..self.shape.kv_heads {
            let head = Head::new(self, kv_head);
            for (at, block) in self.blocks.iter().enumerate() {
                head.add(self, *block, sums)?;
                progress(kv_head * self.blocks.len() + at + 1, all);
            }
        }
        Ok(())
    }
}

/// The rows of sums.
pub(super) fn rows(length: usize, sums: &Sums) -> Vec<OracleRow> {
    let mut rows = Vec::with_capacity(ALL - 1);
    for (size, block) in SIZES.into_iter().enumerate().rev() {
        for shared in [false, true] {
            for (at, share) in SHARES.into_iter().enumerate() {
                let set = set(size, shared, at);
                rows.push(OracleRow {
                    length,
                    block,
                    shared,
                    share,
                    density: sums.kept[set] as f64 / sums.causal[set] as f64,
                    error: (sums.distance[set] / sums.size).sqrt(),
                    corrected_error: (sums.corrected[set] / sums.size).sqrt(),
                });
            }
        }
    }
    rows
}

/// One KV head in f32, padded with zeros to whole pieces.
pub(super) struct Head {
    pub(super) kv_head: usize,
    pub(super) group: usize,
    /// Keys that are computed at a time.
    pub(super) piece: usize,
    /// `[padded, d]`.
    pub(super) keys: Tensor<2>,
    values: Tensor<2>,
    /// Mean key and mean value by block of either size, `[blocks, d]`.
    means: [[Tensor<2>; 2]; 2],
}

impl Head {
    fn new(layer: &Frontier, kv_head: usize) -> Self {
        let (length, d) = (layer.shape.length, layer.shape.head_dim);
        let piece = PIECE.min(length.next_multiple_of(BLOCK));
        let padded = length.next_multiple_of(piece);
        let take = |tensor: &Tensor<4>| {
            let ranges = [0..1, kv_head..kv_head + 1, 0..length, 0..d];
            let part = tensor.clone().slice(ranges).cast(DType::F32);
            let part = part.reshape([length, d]);
            pad_rows(part, padded, 0.0, &layer.device)
        };
        let (keys, values) = (take(&layer.key), take(&layer.value));
        let mean = |tensor: &Tensor<2>, size: usize| {
            let blocks = tensor.clone().reshape([padded / size, size, d]).mean_dim(1);
            blocks.reshape([padded / size, d])
        };
        Self {
            kv_head,
            group: layer.shape.heads / layer.shape.kv_heads,
            piece,
            means: SIZES.map(|size| [mean(&keys, size), mean(&values, size)]),
            keys,
            values,
        }
    }

    /// Adds one query block.
    fn add(&self, layer: &Frontier, block: usize, sums: &mut Sums) -> Result<(), SpeedError> {
        let rows = Rows::new(self, layer, block);
        let pieces: Vec<Piece> = (0..=BLOCK * block / self.piece)
            .map(|at| Piece::new(self, &rows, at))
            .collect();
        let mass: Vec<Tensor<2>> = pieces.iter().map(Piece::mass).collect();
        // Every key block of 64 by tile: `[group * HALVES, blocks]`.
        let mass = read(Tensor::cat(mass, 1))?;
        let sets = Sets::new(&rows, &mass, sums);
        let (distance, corrected, size) = self.errors(&rows, &pieces, &sets)?;
        sums.size += size;
        for at in 0..ALL {
            sums.distance[at] += distance[at];
            sums.corrected[at] += corrected[at];
        }
        Ok(())
    }

    /// Squared distance to dense of every set, without and with block means, and dense squared.
    fn errors(
        &self,
        rows: &Rows,
        pieces: &[Piece],
        sets: &Sets,
    ) -> Result<([f64; ALL], [f64; ALL], f64), SpeedError> {
        let (tiles, d) = (rows.tiles, self.keys.dims()[1]);
        let device = &rows.device;
        let mut sums = Tensor::<3>::zeros([tiles, ALL, TILE * d], (device, DType::F32));
        let mut weights = Tensor::<3>::zeros([tiles, ALL, TILE], (device, DType::F32));
        let mut added: Vec<(Tensor<2>, Tensor<2>)> = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            let count = self.piece / TILE;
            let kept = sets.part(&sets.kept, ALL, at * count, count, device);
            let values = self.values.clone();
            let values = values.slice([at * self.piece..(at + 1) * self.piece, 0..d]);
            let values = values.reshape([1, count, TILE, d]);
            let products = piece.probabilities.clone().swap_dims(1, 2).matmul(values);
            let products = products.reshape([tiles, count, TILE * d]);
            sums = sums + kept.clone().matmul(products);
            weights = weights + kept.matmul(piece.by_row.clone().swap_dims(1, 2));
            for (size, place) in SIZES.into_iter().zip(0..) {
                let more = self.means(rows, sets, size, place, at);
                match added.get_mut(place) {
                    Some((sum, weight)) => {
                        *sum = sum.clone() + more.0;
                        *weight = weight.clone() + more.1;
                    }
                    None => added.push(more),
                }
            }
        }
        let sums = sums.reshape([tiles, ALL, TILE, d]);
        let weights = weights.reshape([tiles, ALL, TILE, 1]);
        let output = sums.clone() / weights.clone().clamp_min(1e-30);
        let dense = output.clone().slice([0..tiles, 0..1, 0..TILE, 0..d]);
        let distance = |output: Tensor<4>| {
            let sets = output.dims()[1];
            let squares = (output - dense.clone()).square();
            squares.sum_dims(&[0, 2, 3]).reshape([sets])
        };
        let mut all = vec![distance(output)];
        for (place, (sum, weight)) in added.into_iter().enumerate() {
            let first = 1 + place * SETS;
            let own = |tensor: Tensor<4>, last: usize| {
                tensor.slice([0..tiles, first..first + SETS, 0..TILE, 0..last])
            };
            let sum = own(sums.clone(), d) + sum.reshape([tiles, SETS, TILE, d]);
            let weight = own(weights.clone(), 1) + weight.reshape([tiles, SETS, TILE, 1]);
            all.push(distance(sum / weight.clamp_min(1e-30)));
        }
        all.push(dense.square().sum());
        let got: Vec<f64> = read(Tensor::cat(all, 0))?
            .into_iter()
            .map(f64::from)
            .collect();
        let (mut plain, mut corrected) = ([0.0; ALL], [0.0; ALL]);
        plain.copy_from_slice(&got[..ALL]);
        corrected[1..].copy_from_slice(&got[ALL..2 * ALL - 1]);
        Ok((plain, corrected, got[2 * ALL - 1]))
    }

    /// Computes the share of block means in sums and weights: of the blocks of one size that the sets leave
    /// out, over the keys of one piece: `[tiles * SETS * TILE, d]` and `[.., 1]`.
    fn means(
        &self,
        rows: &Rows,
        sets: &Sets,
        size: usize,
        place: usize,
        at: usize,
    ) -> (Tensor<2>, Tensor<2>) {
        let count = self.piece / size;
        let [keys, values] = &self.means[place];
        let part = |tensor: &Tensor<2>| {
            let ranges = [at * count..(at + 1) * count, 0..tensor.dims()[1]];
            tensor.clone().slice(ranges)
        };
        let logits = rows.query.clone().matmul(part(keys).transpose()) - rows.lse.clone();
        let weights = (logits + (size as f64).ln()).clamp(-NEVER, CAP).exp();
        let weights = weights.reshape([rows.tiles, 1, TILE, count]);
        let left = sets.part(&sets.left[place], SETS, at * count, count, &rows.device);
        let weights = weights * left.reshape([rows.tiles, SETS, 1, count]);
        let weights = weights.reshape([rows.tiles * SETS * TILE, count]);
        (weights.clone().matmul(part(values)), weights.sum_dim(1))
    }
}
