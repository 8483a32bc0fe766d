//! The product of rows and keys that the stages of the selection share: two tiles staged in shared
//! memory, row by row, and their sums, which stay in registers.
//!
//! A cube is `row_planes * key_planes` groups of 32 units, `(UNIT_POS_X, UNIT_POS_Y)`; a group owns
//! `16 * row_tiles` rows and `8 * key_tiles` keys. Its unit `u` holds, of every 16 x 8 block, the keys
//! `2 (u % 4)` and the next of the rows `u / 4` (first pair) and `u / 4 + 8` (second pair): the layout
//! of `mma` m16n8k16, which scalar units keep too, so whatever follows a product is written once.
//!
//! Tiles are staged in `F`: the element type for matrix units, f32 for scalar units, in whose case
//! `chunk` vectors of a row at a time. A row lies `pitch` vectors after the one before, an odd number,
//! so that eight rows fall into different banks. Sums are f32.

use cubecl::{
    cmma::{MatrixIdent, MmaDefinition},
    prelude::*,
};

/// Units of a group.
pub(crate) const GROUP: usize = 32;
/// Elements of a vector: 16 bytes of f16 or bf16, or of f32.
pub(crate) const MMA_WIDTH: usize = 8;
/// The same for scalar units.
pub(crate) const UNIT_WIDTH: usize = 4;

pub(crate) type Pair<F> = Vector<F, Const<2>>;
/// `row_tiles * key_tiles` blocks of 16 x 8, row by row.
pub(crate) type Sums = Sequence<Array<Pair<f32>>>;

/// The tile of a cube and how it is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// By matrix units, otherwise by scalar units.
    pub mma: bool,
    /// Groups of units along rows.
    pub row_planes: usize,
    /// Blocks of 16 rows of a group.
    pub row_tiles: usize,
    /// Groups of units along keys.
    pub key_planes: usize,
    /// Blocks of 8 keys of a group, an even number for matrix units.
    pub key_tiles: usize,
    /// Elements of a row, a multiple of 8.
    pub depth: usize,
    /// Vectors of a row that are staged at once.
    pub chunk: usize,
}

impl Tile {
    /// Four planes of matrix units, 32 x 64 each, for rows of `depth` elements.
    pub(crate) fn matrix(depth: usize) -> Self {
        Self {
            mma: true,
            row_planes: 2,
            row_tiles: 2,
            key_planes: 2,
            key_tiles: 8,
            depth,
            chunk: whole(depth),
        }
    }

    /// Rows of the tile.
    pub fn rows(&self) -> usize {
        self.row_planes * self.row_tiles * 16
    }

    /// Keys of the tile.
    pub fn keys(&self) -> usize {
        self.key_planes * self.group_keys()
    }

    /// Units of a cube.
    pub fn units(&self) -> usize {
        self.row_planes * self.key_planes * GROUP
    }

    pub(crate) fn group_keys(&self) -> usize {
        self.key_tiles * 8
    }

    /// Elements of a vector.
    pub(crate) fn width(&self) -> usize {
        if self.mma { MMA_WIDTH } else { UNIT_WIDTH }
    }

    /// Vectors of a row.
    pub(crate) fn vectors(&self) -> usize {
        self.depth / self.width()
    }

    /// Rounds of staging; what a row lacks in the last of them is staged as zeros.
    pub(crate) fn chunks(&self) -> usize {
        self.vectors().div_ceil(self.chunk)
    }

    /// Vectors from one staged row to the next.
    pub(crate) fn pitch(&self) -> usize {
        self.chunk | 1
    }

    /// The same where rows are staged whole, all rounds of them.
    pub(crate) fn whole_pitch(&self) -> usize {
        (self.chunks() * self.chunk) | 1
    }

    /// Bytes of `rows` staged rows.
    pub(crate) fn staged_bytes(&self, rows: usize) -> usize {
        rows * self.pitch() * 16
    }
}

/// Vectors of a row that matrix units want staged: all, padded to the depth of an instruction.
pub(crate) fn whole(depth: usize) -> usize {
    depth.next_multiple_of(16) / MMA_WIDTH
}

/// First row of this unit in the tile: it owns `16 m + 8 h` after it, `m < row_tiles` and `h < 2`.
#[cube]
pub(crate) fn first_row(#[comptime] tile: Tile) -> usize {
    UNIT_POS_Y as usize % comptime!(tile.row_planes) * comptime!(tile.row_tiles * 16)
        + UNIT_POS_X as usize / 4
}

/// First key of this unit in the tile: it owns `8 j + c` after it, `j < key_tiles` and `c < 2`.
#[cube]
pub(crate) fn first_key(#[comptime] tile: Tile) -> usize {
    group_key(tile) + UNIT_POS_X as usize % 4 * 2
}

/// First key of this unit's group in the tile.
#[cube]
pub(crate) fn group_key(#[comptime] tile: Tile) -> usize {
    UNIT_POS_Y as usize / comptime!(tile.row_planes) * comptime!(tile.group_keys())
}

/// Sums of nothing.
#[cube]
pub(crate) fn zeros(#[comptime] tile: Tile) -> Sums {
    crate::attend::mma::tile::zeros(comptime!(tile.row_tiles * tile.key_tiles))
}

/// Adds the products of the staged rows and the staged keys, over the `chunk` vectors that are staged.
#[cube]
pub(crate) fn accumulate<F: Float, N: Size>(
    rows: &Shared<[Vector<F, N>]>,
    keys: &Shared<[Vector<F, N>]>,
    sums: &mut Sums,
    #[comptime] tile: Tile,
) {
    if comptime!(tile.mma) {
        by_matrix_units(rows, 0usize, keys, sums, tile);
    } else {
        by_units(rows, keys, 0usize, sums, comptime!(tile.pitch()), tile);
    }
}

/// The same where keys are staged whole, [`Tile::whole_pitch`] apart, and rows from vector `from` on; for matrix units,
/// which stage rows whole as well, these lie from `rows_at` on.
#[cube]
pub(crate) fn accumulate_whole<F: Float, N: Size>(
    rows: &Shared<[Vector<F, N>]>,
    rows_at: usize,
    keys: &Shared<[Vector<F, N>]>,
    from: usize,
    sums: &mut Sums,
    #[comptime] tile: Tile,
) {
    if comptime!(tile.mma) {
        by_matrix_units(rows, rows_at, keys, sums, tile);
    } else {
        by_units(rows, keys, from, sums, comptime!(tile.whole_pitch()), tile);
    }
}

#[cube]
fn by_matrix_units<F: Float, N: Size>(
    rows: &Shared<[Vector<F, N>]>,
    rows_at: usize,
    keys: &Shared<[Vector<F, N>]>,
    sums: &mut Sums,
    #[comptime] tile: Tile,
) {
    let def = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let pitch = comptime!(tile.pitch());
    let (row_tiles, key_tiles) = comptime!((tile.row_tiles, tile.key_tiles));
    let lane = UNIT_POS_X as usize;
    // The staged vector that this unit points at, one row of one of four 8 x 8 blocks.
    let row = UNIT_POS_Y as usize % comptime!(tile.row_planes) * comptime!(tile.row_tiles * 16);
    let row_at = rows_at + (row + lane % 16) * pitch + lane / 16;
    let key_at = (group_key(tile) + lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2;
    #[unroll]
    for k in 0..comptime!(tile.chunk / 2) {
        let mut left = Sequence::<Array<Pair<F>>>::new();
        #[unroll]
        for m in 0..row_tiles {
            let at = row_at + comptime!(m * 16 * pitch + 2 * k);
            left.push(def.load_matrix::<Vector<F, N>, Const<2>>(
                &rows[at..at + 1],
                MatrixIdent::A,
                4usize,
                false,
            ));
        }
        #[unroll]
        for j in 0..comptime!(key_tiles / 2) {
            let at = key_at + comptime!(j * 16 * pitch + 2 * k);
            let both = def.load_matrix::<Vector<F, N>, Const<2>>(
                &keys[at..at + 1],
                MatrixIdent::B,
                4usize,
                false,
            );
            #[unroll]
            for half in 0..2usize {
                let mut right = Array::<Pair<F>>::new(2usize);
                right[0] = both[comptime!(half * 2)];
                right[1] = both[comptime!(half * 2 + 1)];
                #[unroll]
                for m in 0..row_tiles {
                    let to = comptime!(m * key_tiles + 2 * j + half);
                    def.execute_inplace(left.index(m), &right, sums.index_mut(to));
                }
            }
        }
    }
}

#[cube]
fn by_units<F: Float, N: Size>(
    rows: &Shared<[Vector<F, N>]>,
    keys: &Shared<[Vector<F, N>]>,
    from: usize,
    sums: &mut Sums,
    #[comptime] key_pitch: usize,
    #[comptime] tile: Tile,
) {
    let pitch = comptime!(tile.pitch());
    let (row_tiles, key_tiles) = comptime!((tile.row_tiles, tile.key_tiles));
    let row_at = first_row(tile) * pitch;
    let key_at = first_key(tile) * key_pitch + from;
    for v in 0..comptime!(tile.chunk) {
        let mut left = Array::<Vector<F, N>>::new(comptime!(row_tiles * 2));
        #[unroll]
        for r in 0..comptime!(row_tiles * 2) {
            left[r] = rows[row_at + comptime!(r * 8 * pitch) + v];
        }
        #[unroll]
        for j in 0..key_tiles {
            #[unroll]
            for c in 0..2usize {
                let right = keys[key_at + comptime!((j * 8 + c) * key_pitch) + v];
                #[unroll]
                for r in 0..comptime!(row_tiles * 2) {
                    let product = Vector::<f32, N>::cast_from(left[r] * right);
                    let a = sums.index_mut(comptime!(r / 2 * key_tiles + j));
                    let mut pair = a[comptime!(r % 2)];
                    let mut sum = pair.extract(c);
                    #[unroll]
                    for i in 0..comptime!(UNIT_WIDTH) {
                        sum += product.extract(i);
                    }
                    pair.insert(c, sum);
                    a[comptime!(r % 2)] = pair;
                }
            }
        }
    }
}

/// Score of what is not seen, as in the attention kernels; and what is above it, below every score.
pub(crate) const UNSEEN: f32 = -3.0e38;
pub(crate) const NOTHING: f32 = -1.0e30;

/// Replaces the scores outside `[low, high)`, in the unit's row `h` of its block `m`; the tile's keys count
/// from `base` on.
#[cube]
pub(crate) fn mask_row(
    sums: &mut Sums,
    base: u32,
    low: u32,
    high: u32,
    #[comptime] m: usize,
    #[comptime] h: usize,
    #[comptime] tile: Tile,
) {
    let first = base + first_key(tile) as u32;
    #[unroll]
    for j in 0..comptime!(tile.key_tiles) {
        let a = sums.index_mut(comptime!(m * tile.key_tiles + j));
        let mut pair: Pair<f32> = a[h];
        #[unroll]
        for c in 0..2usize {
            let at = first + comptime!((j * 8 + c) as u32);
            if at < low || at >= high {
                pair.insert(c, f32::new(UNSEEN));
            }
        }
        a[h] = pair;
    }
}

/// `2^(score * factor + shift)` of a score that may be masked: not every exponential reaches 0.
#[cube]
pub(crate) fn weight(score: f32, factor: f32, shift: f32, #[comptime] inline: bool) -> f32 {
    let x = crate::attend::mma::exp2(fma(score, factor, shift), inline);
    if comptime!(inline) {
        x
    } else {
        select(score <= f32::new(UNSEEN), f32::new(0.0), x)
    }
}
