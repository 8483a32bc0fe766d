//! The extension on the CPU: burn-flex's product, which reads the transposed weight in place.

use burn::backend::ops::FloatTensorOps;
use burn_flex::{Flex, FlexTensor};

use super::LinearOps;

impl LinearOps for Flex {
    fn linear(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        Self::float_matmul(x, Self::float_swap_dims(weight, 0, 1))
    }
}
