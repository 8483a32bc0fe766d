//! Choice of the product for a device and an element type, with its reason.

use std::fmt;

use burn::tensor::{DType, Device};

/// Implementation that computes the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// NVIDIA's cuBLASLt, on the stream of Burn's kernels.
    CublasLt,
    /// Burn's matrix product.
    Burn,
}

/// A route and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// Implementation that computes the product.
    pub route: Route,
    /// Reason of the choice: the library found, or the obstacle.
    pub reason: String,
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = match self.route {
            Route::CublasLt => "cuBLASLt",
            Route::Burn => "Burn",
        };
        write!(f, "{route} ({})", self.reason)
    }
}

/// The route of products of `dtype` on `device`.
///
/// On CUDA this looks for the library, as the first product would. A single shape for which cuBLASLt
/// has no algorithm still goes to Burn, with a warning: see [`crate::linear::diagnostics::refused`].
pub fn route(device: &Device, dtype: DType) -> Routing {
    let burn = |reason: String| Routing {
        route: Route::Burn,
        reason,
    };
    if !supports(dtype) {
        return burn(format!(
            "cuBLASLt is used for f32, f16 and bf16, not {dtype:?}"
        ));
    }
    #[cfg(feature = "cublaslt")]
    if let Some(index) = cuda_index(device) {
        return match crate::linear::cublaslt::engine(index) {
            Ok(engine) => Routing {
                route: Route::CublasLt,
                reason: engine.description().to_owned(),
            },
            Err(reason) => burn(reason.to_string()),
        };
    }
    let _ = device;
    burn(match cfg!(feature = "cublaslt") {
        true => "not a CUDA device".to_owned(),
        false => "this build has no feature `cublaslt`".to_owned(),
    })
}

/// Returns the implementation alone, without the reason that [`route`] gives.
pub(crate) fn uses_cublaslt(device: &Device, dtype: DType) -> bool {
    #[cfg(feature = "cublaslt")]
    if let (true, Some(index)) = (supports(dtype), cuda_index(device)) {
        return crate::linear::cublaslt::engine(index).is_ok();
    }
    let _ = (device, dtype);
    false
}

fn supports(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

#[cfg(feature = "cublaslt")]
fn cuda_index(device: &Device) -> Option<usize> {
    use burn::backend::DispatchDevice;
    match device.as_dispatch() {
        DispatchDevice::Cube(burn_cubecl::CubeDevice::Cuda(device)) => Some(device.index),
        #[allow(unreachable_patterns)]
        _ => None,
    }
}
