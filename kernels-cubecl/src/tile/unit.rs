//! The tile of scalar units, which needs no feature of a device: shared by attention and its correction.
//!
//! Units form a grid of 8 x `units_y`. A step has 32 keys (or key blocks); a unit owns 4 query rows and the
//! keys `x, x + 8, x + 16, x + 24` of a step (scores) or 4 of every 32 head elements (output). The head
//! dimension is staged in chunks of 32, so shared memory is the same for every head dimension. Everything
//! is f32; a row's maximum is known to its 8 units, its sum is added up at the end.

use cubecl::prelude::*;

use crate::table::Place;

pub(crate) type Vec4<E> = Vector<E, Const<4>>;

/// Keys per step.
pub(crate) const KEYS: usize = 32;
/// Units along keys, and along the head dimension.
pub(crate) const UNITS_X: usize = 8;
/// Query rows per unit, and keys per unit and step.
pub(crate) const PER_UNIT: usize = 4;
/// Vectors of 4 per chunk of the head dimension.
pub(crate) const CHUNK: usize = 8;
/// Row pitch of staged tiles in vectors: one more than a chunk, against bank conflicts.
pub(crate) const PITCH: usize = CHUNK + 1;

/// The part of a blueprint that shapes the tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct UnitTile {
    /// Units along query rows; a cube owns four times as many rows.
    pub(crate) units_y: usize,
    /// Head dimension, a multiple of 8.
    pub(crate) head_dim: usize,
}

impl UnitTile {
    /// Query rows of a cube.
    pub(crate) fn rows(&self) -> usize {
        self.units_y * PER_UNIT
    }

    /// Units of a cube.
    pub(crate) fn units(&self) -> usize {
        self.units_y * UNITS_X
    }

    /// Vectors of a row.
    pub(crate) fn vectors(&self) -> usize {
        self.head_dim / 4
    }

    /// Chunks of a row.
    pub(crate) fn chunks(&self) -> usize {
        self.vectors().div_ceil(CHUNK)
    }
}

/// Stages one chunk of the cube's query rows; rows that do not exist are zeros. `scaled` multiplies by the
/// softmax scale.
#[cube]
pub(crate) fn stage_query<E: Float>(
    query: &Tensor<Vec4<E>>,
    to: &mut Shared<[Vec4<f32>]>,
    place: &Place,
    chunk: usize,
    #[comptime] scaled: bool,
    #[comptime] tile: UnitTile,
) {
    let units = comptime!(tile.units());
    #[unroll]
    for i in 0..comptime!(tile.rows() * CHUNK / tile.units()) {
        let slot = i * units + UNIT_POS as usize;
        let (r, v) = (slot / CHUNK, slot % CHUNK);
        let packed = place.first_packed + u32::cast_from(r);
        let row = place.row(packed);
        let vector = chunk * CHUNK + v;
        let mut loaded = Vec4::<f32>::new(f32::new(0.0));
        if packed < place.tile_rows
            && row < place.span.query_len
            && vector < comptime!(tile.vectors())
        {
            let from = place.row_at(query, packed);
            loaded = Vec4::<f32>::cast_from(query[from / 4 + vector]);
        }
        if comptime!(scaled) {
            to[r * PITCH + v] = loaded * Vector::new(place.call.scale);
        } else {
            to[r * PITCH + v] = loaded;
        }
    }
}

/// No products yet, of 4 rows and 4 keys.
#[cube]
pub(crate) fn no_products() -> Array<Vec4<f32>> {
    let mut sums = Array::<Vec4<f32>>::new(comptime!(PER_UNIT * PER_UNIT));
    #[unroll]
    for i in 0..comptime!(PER_UNIT * PER_UNIT) {
        sums[i] = Vector::new(f32::new(0.0));
    }
    sums
}

/// Adds the products of 4 staged rows and 4 staged keys, element by element of a vector.
#[cube]
pub(crate) fn dots(
    rows: &Shared<[Vec4<f32>]>,
    keys: &Shared<[Vec4<f32>]>,
    sums: &mut Array<Vec4<f32>>,
) {
    for v in 0..CHUNK {
        let mut q = Array::<Vec4<f32>>::new(PER_UNIT);
        #[unroll]
        for r in 0..PER_UNIT {
            q[r] = rows[(UNIT_POS_Y as usize * PER_UNIT + r) * PITCH + v];
        }
        #[unroll]
        for c in 0..PER_UNIT {
            let k = keys[(UNIT_POS_X as usize + c * UNITS_X) * PITCH + v];
            #[unroll]
            for r in 0..PER_UNIT {
                sums[r * PER_UNIT + c] += q[r] * k;
            }
        }
    }
}

/// The sum of a vector's elements.
#[cube]
pub(crate) fn total(x: Vec4<f32>) -> f32 {
    x.extract(0usize) + x.extract(1usize) + x.extract(2usize) + x.extract(3usize)
}

/// The softmax of a unit's rows: running maximum and its own part of the running sum.
#[derive(CubeType)]
pub(crate) struct Softmax {
    /// Running maximum of every row.
    pub(crate) maximum: Array<f32>,
    /// This unit's part of every row's running sum.
    pub(crate) sum: Array<f32>,
    /// Factor by which the last step shrank what came before it.
    pub(crate) alpha: Array<f32>,
}

#[cube]
impl Softmax {
    /// Makes room for the unit's rows.
    pub(crate) fn new() -> Softmax {
        Softmax {
            maximum: Array::<f32>::new(PER_UNIT),
            sum: Array::<f32>::new(PER_UNIT),
            alpha: Array::<f32>::new(PER_UNIT),
        }
    }

    /// Turns a step's logits into probabilities under the rows' new maxima. `partials` holds the largest
    /// logit of every row and unit; with `masked`, keys that are not `seen` get probability 0.
    pub(crate) fn weigh(
        &mut self,
        logits: &Array<f32>,
        seen: &Array<bool>,
        partials: &Shared<[f32]>,
        probabilities: &mut Shared<[Vec4<f32>]>,
        #[comptime] masked: bool,
    ) {
        let (ux, uy) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
        #[unroll]
        for r in 0..PER_UNIT {
            let mut highest = self.maximum[r];
            #[unroll]
            for u in 0..UNITS_X {
                highest = max(highest, partials[(uy * PER_UNIT + r) * UNITS_X + u]);
            }
            self.alpha[r] = (self.maximum[r] - highest).exp();
            self.maximum[r] = highest;
            let mut row = Vec4::<f32>::new(f32::new(0.0));
            let mut row_sum = f32::new(0.0);
            #[unroll]
            for c in 0..PER_UNIT {
                let i = comptime!(r * PER_UNIT + c);
                let mut e = f32::new(0.0);
                if comptime!(masked) {
                    if seen[i] {
                        e = (logits[i] - highest).exp();
                    }
                } else {
                    e = (logits[i] - highest).exp();
                }
                row.insert(c, e);
                row_sum += e;
            }
            self.sum[r] = self.sum[r] * self.alpha[r] + row_sum;
            probabilities[(uy * PER_UNIT + r) * PITCH + ux] = row;
        }
    }

    /// Puts the units' parts of the rows' sums into `partials`, for [`Softmax::row_sum`].
    pub(crate) fn share_sums(&self, partials: &mut Shared<[f32]>) {
        let (ux, uy) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
        sync_cube();
        #[unroll]
        for r in 0..PER_UNIT {
            partials[(uy * PER_UNIT + r) * UNITS_X + ux] = self.sum[r];
        }
        sync_cube();
    }

    /// Gives the sum of a row over its units.
    pub(crate) fn row_sum(&self, partials: &Shared<[f32]>, #[comptime] r: usize) -> f32 {
        let mut sum = f32::new(0.0);
        #[unroll]
        for u in 0..UNITS_X {
            sum += partials[(UNIT_POS_Y as usize * PER_UNIT + r) * UNITS_X + u];
        }
        sum
    }
}

/// The unit's part of the output, all zeros.
#[cube]
pub(crate) fn no_output(#[comptime] tile: UnitTile) -> Array<Vec4<f32>> {
    let mut out = Array::<Vec4<f32>>::new(comptime!(tile.chunks() * PER_UNIT));
    #[unroll]
    for i in 0..comptime!(tile.chunks() * PER_UNIT) {
        out[i] = Vector::new(f32::new(0.0));
    }
    out
}

/// Adds probabilities times one chunk of the staged values to the output, which shrinks by `alpha` first.
/// Vector `u` of a row's probabilities belongs to the keys `u, u + 8, u + 16, u + 24`.
#[cube]
pub(crate) fn weigh(
    probabilities: &Shared<[Vec4<f32>]>,
    values: &Shared<[Vec4<f32>]>,
    alpha: &Array<f32>,
    out: &mut Array<Vec4<f32>>,
    #[comptime] chunk: usize,
) {
    #[unroll]
    for r in 0..PER_UNIT {
        let i = comptime!(chunk * PER_UNIT + r);
        out[i] *= Vector::new(alpha[r]);
    }
    for u in 0..UNITS_X {
        let mut v = Array::<Vec4<f32>>::new(PER_UNIT);
        #[unroll]
        for c in 0..PER_UNIT {
            v[c] = values[(u + c * UNITS_X) * PITCH + UNIT_POS_X as usize];
        }
        #[unroll]
        for r in 0..PER_UNIT {
            let i = comptime!(chunk * PER_UNIT + r);
            let row = probabilities[(UNIT_POS_Y as usize * PER_UNIT + r) * PITCH + u];
            #[unroll]
            for c in 0..PER_UNIT {
                out[i] += Vector::new(row.extract(c)) * v[c];
            }
        }
    }
}
