//! The backend extension: the unchecked layer under [`crate::linear`]; call that.
//!
//! With Fusion the operation is registered lazily and stays opaque: it ends a fused group, it does not
//! force a synchronisation.

#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;

#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::{Backend, backend_extension, tensor::FloatTensor};

/// A linear map, per backend.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    Fusion: cfg(feature = "cube")
)]
pub trait LinearOps: Backend {
    /// `x` `[rows, in]` times the transpose of `weight` `[out, in]`: `[rows, out]`.
    #[fusion(meta = linear_spec)]
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
}

#[cfg(feature = "cube")]
fn linear_spec(x: &TensorSpec, weight: &TensorSpec) -> TensorSpec {
    TensorSpec::new([x.shape[0], weight.shape[0]].into(), x.dtype)
}
