//! The extension on every CubeCL runtime: allocate, then launch.

use burn::{backend::cubecl::dtype_to_storage_type, tensor::DType};
use burn_cubecl::{
    CubeBackend, CubeDevice, kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype,
    tensor::CubeTensor,
};
use sparse_accelerate_kernels::{glu, rms_norm, supports};

use super::{Activation, FusedOps};
use crate::fused::error::FusedError;

/// Asks whether this device computes in an element type.
pub(super) fn check_type(
    op: &'static str,
    device: &CubeDevice,
    dtype: DType,
) -> Result<(), FusedError> {
    let client = device.client();
    supports(dtype_to_storage_type(dtype), client.properties()).map_err(|refusal| {
        FusedError::Refused {
            op,
            reason: refusal.to_string(),
        }
    })
}

/// The matrix, its rows contiguous.
fn rows_contiguous(matrix: CubeTensor) -> CubeTensor {
    match matrix.meta.strides()[1] == 1 {
        true => matrix,
        false => into_contiguous(matrix),
    }
}

/// A contiguous matrix beside another.
fn empty(shape: [usize; 2], like: &CubeTensor) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, shape.to_vec().into(), like.dtype)
}

impl FusedOps for CubeBackend {
    fn rms_norm(x: CubeTensor, gamma: CubeTensor, eps: f32) -> CubeTensor {
        let (x, gamma) = (rows_contiguous(x), into_contiguous(gamma));
        let shape = [x.meta.shape()[0], x.meta.shape()[1]];
        let out = empty(shape, &x);
        let address = x.required_address_type().max(out.required_address_type());
        let client = x.client.clone();
        rms_norm::launch(
            &client,
            shape,
            x.meta.strides()[0],
            dtype_to_storage_type(x.dtype),
            eps,
            address,
            x.into_tensor_arg(),
            gamma.into_buffer_arg(),
            out.clone().into_buffer_arg(),
        );
        out
    }

    fn glu(gate_up: CubeTensor, activation: Activation) -> CubeTensor {
        let x = rows_contiguous(gate_up);
        let shape = [x.meta.shape()[0], x.meta.shape()[1] / 2];
        let out = empty(shape, &x);
        let client = x.client.clone();
        let activation = match activation {
            Activation::Silu => glu::Activation::Silu,
            Activation::GeluTanh => glu::Activation::GeluTanh,
        };
        glu::launch(
            &client,
            activation,
            shape,
            x.meta.strides()[0],
            dtype_to_storage_type(x.dtype),
            x.required_address_type(),
            x.into_tensor_arg(),
            out.clone().into_buffer_arg(),
        );
        out
    }
}
