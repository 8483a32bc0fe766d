//! Sets of key blocks that the oracle keeps, chosen from the mass of one query block's tiles.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{
    choose::{fewest, pairs},
    inputs::BLOCK,
    rows::Rows,
};

/// Shares of the mass that the oracle keeps.
pub const SHARES: [f64; 5] = [0.7, 0.8, 0.9, 0.95, 0.98];

/// Query tiles and key blocks, small ones first.
pub(super) const SIZES: [usize; 2] = [TILE, BLOCK];
pub(super) const TILE: usize = 64;
/// Tiles of a query block.
pub(super) const HALVES: usize = BLOCK / TILE;
/// Sets of one size: by query head and by KV head, for every share.
pub(super) const SETS: usize = 2 * SHARES.len();
/// Sets in all, and before them the one that keeps everything.
pub(super) const ALL: usize = 1 + SIZES.len() * SETS;
/// Sums over everything that was sampled, by set.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) kept: [u64; ALL],
    pub(super) causal: [u64; ALL],
    pub(super) distance: [f64; ALL],
    pub(super) corrected: [f64; ALL],
    pub(super) size: f64,
}

/// The set of a size (by its place in [`SIZES`]), a chooser and a share.
pub(super) fn set(size: usize, shared: bool, share: usize) -> usize {
    1 + (2 * size + usize::from(shared)) * SHARES.len() + share
}

/// Which blocks every set keeps and leaves out, as 0 and 1.
pub(super) struct Sets {
    tiles: usize,
    /// Blocks of 64 there is a mass of.
    blocks: usize,
    /// `[tiles, ALL, blocks]`.
    pub(super) kept: Vec<f32>,
    /// Left out, wholly before the tile, by size: `[tiles, SETS, blocks of the size]`.
    pub(super) left: [Vec<f32>; 2],
}

impl Sets {
    /// Chooses from the mass `[tiles, blocks of 64]`, and counts pairs.
    pub(super) fn new(rows: &Rows, mass: &[f32], sums: &mut Sums) -> Self {
        let (tiles, blocks) = (rows.tiles, mass.len() / rows.tiles);
        let mut sets = Self {
            tiles,
            blocks,
            kept: vec![0.0; tiles * ALL * blocks],
            left: SIZES.map(|size| vec![0.0; tiles * SETS * blocks * TILE / size]),
        };
        for tile in 0..tiles {
            sets.kept[tile * ALL * blocks..][..blocks].fill(1.0);
        }
        let by_tile: Vec<&[f32]> = mass.chunks_exact(blocks).collect();
        for (place, size) in SIZES.into_iter().enumerate() {
            for part in 0..BLOCK / size {
                let first = rows.block * BLOCK + part * size;
                let count = size.min((rows.block * BLOCK + rows.count).saturating_sub(first));
                if count == 0 {
                    continue;
                }
                // The mass of one tile of this size, by head; a tile of 128 is two of 64.
                let of_head: Vec<Vec<f64>> = (0..tiles / HALVES)
                    .map(|head| {
                        let halves = size / TILE;
                        let own = head * HALVES + part * halves;
                        sum_blocks(&by_tile[own..own + halves], first / size + 1, halves)
                    })
                    .collect();
                sets.choose(place, part, [first, count], &of_head, sums);
            }
        }
        sets
    }

    fn choose(
        &mut self,
        place: usize,
        part: usize,
        [first, count]: [usize; 2],
        of_head: &[Vec<f64>],
        sums: &mut Sums,
    ) {
        let size = SIZES[place];
        let together: Vec<f64> = (0..of_head[0].len())
            .map(|block| of_head.iter().map(|mass| mass[block]).sum())
            .collect();
        let pairs: Vec<u64> = (0..together.len())
            .map(|block| pairs(first, count, block * size, size))
            .collect();
        for (at, share) in SHARES.into_iter().enumerate() {
            let shared = fewest(&together, share);
            for (head, mass) in of_head.iter().enumerate() {
                let own = fewest(mass, share);
                for (by_kv_head, chosen) in [(false, &own), (true, &shared)] {
                    let set = set(place, by_kv_head, at);
                    for (block, kept) in chosen.iter().enumerate() {
                        sums.causal[set] += pairs[block];
                        sums.kept[set] += if *kept { pairs[block] } else { 0 };
                        self.mark(place, part, head, set, block, *kept);
                    }
                }
            }
        }
    }

    /// Marks a block of some size as kept or left out by a set, for a tile of that size.
    fn mark(
        &mut self,
        place: usize,
        part: usize,
        head: usize,
        set: usize,
        block: usize,
        kept: bool,
    ) {
        let halves = SIZES[place] / TILE;
        for half in 0..halves {
            let tile = head * HALVES + part * halves + half;
            if kept {
                let start = (tile * ALL + set) * self.blocks + block * halves;
                self.kept[start..start + halves].fill(1.0);
            } else {
                let blocks = self.blocks / halves;
                let own = set - 1 - place * SETS;
                self.left[place][(tile * SETS + own) * blocks + block] = 1.0;
            }
        }
    }

    /// Some blocks of `[tiles, sets, blocks]` on the device.
    pub(super) fn part(
        &self,
        marks: &[f32],
        sets: usize,
        first: usize,
        count: usize,
        device: &Device,
    ) -> Tensor<3> {
        let blocks = marks.len() / (self.tiles * sets);
        let rows = marks.chunks_exact(blocks);
        let values: Vec<f32> = rows
            .flat_map(|row| &row[first..first + count])
            .copied()
            .collect();
        let data = TensorData::new(values, [self.tiles, sets, count]);
        Tensor::from_data(data, (device, DType::F32))
    }
}

/// Sums the rows of some tiles, and neighbouring `width` blocks; the first `count` of the results.
fn sum_blocks(tiles: &[&[f32]], count: usize, width: usize) -> Vec<f64> {
    let sum = |tile: &&[f32], block: usize| -> f64 {
        let part = tile[block * width..(block + 1) * width].iter();
        part.map(|mass| f64::from(*mass)).sum()
    };
    (0..count)
        .map(|block| tiles.iter().map(|tile| sum(tile, block)).sum())
        .collect()
}
