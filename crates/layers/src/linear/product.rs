//! The checked entry. Where Burn's product runs, it is called exactly as a model would call it, so
//! that its results and its fusion stay what they were; only cuBLASLt goes through the extension.

use burn::{backend::Dispatch, tensor::Tensor};

use super::{error::LinearError, ops::LinearOps, route};

/// `x` `[rows, in]` times the transpose of `weight` `[out, in]`: `[rows, out]`.
///
/// Both may be views of any strides. Sums are in f32 for every element type on CUDA; f32 there does not
/// go through TF32.
///
/// # Errors
/// Shapes that do not fit or hold nothing, element types or devices that differ.
pub fn linear(x: Tensor<2>, weight: &Tensor<2>) -> Result<Tensor<2>, LinearError> {
    check(&x, weight)?;
    if route::uses_cublaslt(&x.device(), x.dtype()) {
        let product = Dispatch::linear(x.into_dispatch(), weight.clone().into_dispatch());
        return Ok(Tensor::from_dispatch(product));
    }
    Ok(x.matmul(weight.clone().swap_dims(0, 1)))
}

fn check(x: &Tensor<2>, weight: &Tensor<2>) -> Result<(), LinearError> {
    let (dims, weight_dims) = (x.dims(), weight.dims());
    if dims[1] != weight_dims[1] {
        return Err(LinearError::Shape {
            x: dims,
            weight: weight_dims,
        });
    }
    if dims.contains(&0) || weight_dims.contains(&0) {
        return Err(LinearError::Empty {
            x: dims,
            weight: weight_dims,
        });
    }
    if x.dtype() != weight.dtype() {
        return Err(LinearError::DType {
            x: x.dtype(),
            weight: weight.dtype(),
        });
    }
    let (device, weight_device) = (x.device(), weight.device());
    if device != weight_device {
        return Err(LinearError::Device {
            x: format!("{device:?}"),
            weight: format!("{weight_device:?}"),
        });
    }
    Ok(())
}
