//! Selections on every CubeCL runtime.

use burn_cubecl::{CubeBackend, tensor::CubeTensor};

use super::SelectionOps;
use crate::select::SelectOptions;

impl SelectionOps for CubeBackend {
    fn pool(_: CubeTensor, _: CubeTensor, _: CubeTensor, _: CubeTensor) -> CubeTensor {
        unimplemented!()
    }
    fn attend_selected(
        _: CubeTensor,
        _: CubeTensor,
        _: CubeTensor,
        _: CubeTensor,
        _: CubeTensor,
        _: CubeTensor,
        _: CubeTensor,
        _: SelectOptions,
    ) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        unimplemented!()
    }
}
