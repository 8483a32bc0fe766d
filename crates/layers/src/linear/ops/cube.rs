//! The extension on every CubeCL runtime: cuBLASLt where the device has it, else Burn's product.

use burn::backend::ops::FloatTensorOps;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};

use super::LinearOps;

impl LinearOps for CubeBackend {
    fn linear(x: CubeTensor, weight: CubeTensor) -> CubeTensor {
        #[cfg(feature = "cublaslt")]
        let (x, weight) = match crate::linear::cublaslt::linear(x, weight) {
            Ok(product) => return product,
            Err(operands) => operands,
        };
        Self::float_matmul(x, Self::float_swap_dims(weight, 0, 1))
    }
}
