//! The order in which keys and values of the steps reach shared memory.
//!
//! With asynchronous copies the tiles of the next step land while this one is computed; with late values
//! there is one tile of V, copied during its own step's score product. Otherwise a step waits for its own.

use cubecl::prelude::*;

use super::{MmaBlueprint, VECTOR, copy};
use crate::table::{KvRows, Place, Step};

/// The source and the target of the copies of a cube.
#[derive(CubeType)]
pub(super) struct Pipeline {
    keys: KvRows,
    values: KvRows,
    /// Address of shared memory.
    pub(super) base: u32,
}

#[cube]
impl Pipeline {
    /// Of the cube's KV head.
    pub(super) fn new<E: Float, N: Size>(
        key: &Tensor<Vector<E, N>>,
        value: &Tensor<Vector<E, N>>,
        memory: &Shared<[Vector<E, N>]>,
        place: &Place,
        #[comptime] bp: MmaBlueprint,
    ) -> Pipeline {
        let base = if comptime!(bp.asynchronous) {
            copy::address(memory)
        } else {
            0u32.runtime()
        };
        Pipeline {
            keys: KvRows::new(key, place, VECTOR),
            values: KvRows::new(value, place, VECTOR),
            base,
        }
    }

    /// Begins the copies of the first step, whose columns are at `look_up`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn begin<E: Float, N: Size>(
        &self,
        key: &Tensor<Vector<E, N>>,
        value: &Tensor<Vector<E, N>>,
        memory: &mut Shared<[Vector<E, N>]>,
        positions: &Shared<[u32]>,
        look_up: usize,
        step: &Step,
        #[comptime] bp: MmaBlueprint,
    ) {
        if comptime!(bp.asynchronous) {
            if step.live {
                let at = comptime!(bp.key_at(0)).runtime();
                self.keys(key, memory, at, positions, look_up, step, bp);
                if comptime!(!bp.late_values) {
                    let at = comptime!(bp.value_at()).runtime();
                    self.values(value, memory, at, positions, look_up, step, bp);
                }
            }
            copy::commit();
        }
    }

    /// Makes the tiles of `step` land, all but late values, and begins the copies of `next`, whose columns
    /// are at `look_up`. `parity` is that of `next`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn turn<E: Float, N: Size>(
        &self,
        key: &Tensor<Vector<E, N>>,
        value: &Tensor<Vector<E, N>>,
        memory: &mut Shared<[Vector<E, N>]>,
        positions: &Shared<[u32]>,
        look_up: usize,
        parity: usize,
        step: &Step,
        next: &Step,
        #[comptime] bp: MmaBlueprint,
    ) {
        let value_at = comptime!(bp.value_at()).runtime();
        // Where the columns of this step are looked up.
        let current = comptime!(bp.keys) - look_up;
        if comptime!(bp.asynchronous) {
            // This step's tiles have landed, and nobody reads the other ones any more.
            copy::land(0u32, bp);
            if comptime!(bp.late_values) {
                self.values(value, memory, value_at, positions, current, step, bp);
                copy::commit();
            }
            if next.live {
                let at = comptime!(bp.key_at(0)) + parity * comptime!(bp.tile());
                self.keys(key, memory, at, positions, look_up, next, bp);
                if comptime!(!bp.late_values) {
                    let at = value_at + parity * comptime!(bp.tile());
                    self.values(value, memory, at, positions, look_up, next, bp);
                }
            }
            copy::commit();
        } else {
            sync_cube();
            let at = comptime!(bp.key_at(0)).runtime();
            self.keys(key, memory, at, positions, current, step, bp);
            self.values(value, memory, value_at, positions, current, step, bp);
            sync_cube();
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn keys<E: Float, N: Size>(
        &self,
        from: &Tensor<Vector<E, N>>,
        memory: &mut Shared<[Vector<E, N>]>,
        at: usize,
        positions: &Shared<[u32]>,
        positions_at: usize,
        step: &Step,
        #[comptime] bp: MmaBlueprint,
    ) {
        copy::stage(
            from,
            &self.keys,
            memory,
            self.base,
            at,
            positions,
            positions_at,
            step,
            bp,
        );
    }

    #[allow(clippy::too_many_arguments)]
    fn values<E: Float, N: Size>(
        &self,
        from: &Tensor<Vector<E, N>>,
        memory: &mut Shared<[Vector<E, N>]>,
        at: usize,
        positions: &Shared<[u32]>,
        positions_at: usize,
        step: &Step,
        #[comptime] bp: MmaBlueprint,
    ) {
        copy::stage(
            from,
            &self.values,
            memory,
            self.base,
            at,
            positions,
            positions_at,
            step,
            bp,
        );
    }
}
