//! The backend extension: the unchecked layer under the crate's functions; call those.
//!
//! With Fusion the operations are registered lazily and stay opaque: they end a fused group, they do
//! not force a synchronisation.

#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;

#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;
use burn::{
    backend::{Backend, backend_extension, tensor::FloatTensor},
    tensor::{DType, Device},
};

use crate::fused::error::FusedError;

/// The function of a gated MLP's gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `g / (1 + exp(-g))`.
    Silu,
    /// `g / 2 (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3)))`.
    GeluTanh,
}

/// Norm and gate, per backend.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    Fusion: cfg(feature = "cube")
)]
pub trait FusedOps: Backend {
    /// `x` `[rows, width]` by its rows' root mean squares, times `gamma` `[width]` in f32.
    #[fusion(dtype = x, shape = x)]
    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, eps: f32) -> FloatTensor<Self>;

    /// `gate_up` `[rows, 2 * width]` to `activation(gate) * up` `[rows, width]`.
    #[fusion(meta = glu_spec)]
    fn glu(gate_up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;
}

#[cfg(feature = "cube")]
fn glu_spec(gate_up: &TensorSpec, _activation: &Activation) -> TensorSpec {
    let shape = &gate_up.shape;
    TensorSpec::new([shape[0], shape[1] / 2].into(), gate_up.dtype)
}

/// Refuses an element type that the device does not compute in.
pub(crate) fn check_type(
    op: &'static str,
    device: &Device,
    dtype: DType,
) -> Result<(), FusedError> {
    #[cfg(feature = "cube")]
    if let burn::backend::DispatchDevice::Cube(device) = device.as_dispatch() {
        return cube::check_type(op, device, dtype);
    }
    let _ = (op, device, dtype);
    Ok(())
}
