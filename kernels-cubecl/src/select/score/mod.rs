//! How much of a query block's attention every key block would take, by its pooled keys.
//!
//! `S[b, h, t, J] = max_v mean_i softmax_J(z_v(i, J))` with
//!
//! ```text
//! z_v(i, J) = scale sum_d w_v[d] q_i[d] kmean_J[d]  (+ 1/2 scale^2 sum_d q_i[d]^2 kvar_J[d], v = 0 if `gauss`)
//! ```
//!
//! over the rows `i` of query block `t` that are sampled: every eighth from its fifth on (row `128 t` where
//! there is none), and its candidates `J`: key blocks wholly before the query block that are not wholly
//! local (sinks or window of the head's rule). All else is 0; so is a block of rows past the sequence. The
//! second-order term is that of a Gaussian's log-moment. All candidates have 128 keys, whose `ln` cancels.
//!
//! Under a window of visible keys the candidates of a row begin with the block that holds the first key it
//! sees. Of that block it sees `n` keys, as if they were a fair sample of it: `ln (n / 128)` is added to
//! `z_v`. A rule whose local window is no shorter leaves no candidates.
//!
//! One cube takes the sampled rows of the query heads that share pooled keys, for one query block or
//! several, and walks the candidates twice: for every row's log-sum-exp, then for the means. Mean and
//! variance of a block lie side by side, so the second-order term is only a product of twice the depth,
//! with `[w q, scale / 2 q^2]`. Matrix units take both operands rounded to the element type.

mod kernel;
mod launch;
mod plan;
mod rows;
mod walk;

pub use launch::{Tensors, launch};
pub use plan::{Plan, plans, prepare};

use super::product::{Tile, whole};

/// Rows that are sampled of a query block.
const SAMPLES: usize = 16;

/// Compile-time parameters of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScoreBlueprint {
    /// The tile of a variant without the second-order term; its keys are key blocks.
    pub tile: Tile,
    /// Query heads of a cube, a power of two, at most 8: then all rows of a unit are of one head. Row `r`
    /// is sample `r / slots % 16` of head `r % slots` of query block `r / slots / 16`.
    pub slots: usize,
    /// Weights of the query's elements: how many sets.
    pub variants: usize,
    /// The first variant has the second-order term.
    pub gauss: bool,
    /// The exponential is an instruction of inline PTX.
    pub inline: bool,
}

impl ScoreBlueprint {
    /// The tile of a variant.
    fn of(&self, variant: usize) -> Tile {
        let depth = match self.gauss && variant == 0 {
            true => 2 * self.tile.depth,
            false => self.tile.depth,
        };
        Tile {
            depth,
            chunk: match self.tile.mma {
                true => whole(depth),
                false => self.tile.chunk,
            },
            ..self.tile
        }
    }

    /// Query blocks of a cube.
    pub fn blocks(&self) -> usize {
        self.tile.rows() / (SAMPLES * self.slots)
    }

    /// Vectors of a pooled mean.
    fn vectors(&self) -> usize {
        self.tile.vectors()
    }

    /// Vectors of the longest staged row.
    fn pitch(&self) -> usize {
        self.of(0).pitch()
    }

    /// Floats between the entries of the rows that different units of a row leave: neighbours fall into
    /// different banks.
    fn row_pitch(&self) -> usize {
        self.tile.rows() + 8
    }

    /// Floats from one unit row's sums to the next.
    fn column_pitch(&self) -> usize {
        self.tile.keys() + 8
    }

    /// Floats through which units meet.
    fn exchange(&self) -> usize {
        let parts = 2 * self.tile.key_planes * 4 * self.row_pitch();
        let columns = self.tile.rows() / 2 * self.column_pitch();
        parts.max(columns)
    }

    /// Shared memory of a cube.
    pub fn shared_bytes(&self) -> usize {
        let tile = self.of(0);
        let floats = self.exchange() + tile.rows();
        tile.staged_bytes(tile.rows() + tile.keys()) + floats * 4
    }
}
