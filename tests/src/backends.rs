//! The backends that this build and this machine have.
//!
//! Every one that is built in must be there: a missing Vulkan driver is a failure with a way out, not
//! a silent skip. `SPARSE_ACCELERATE_TEST_BACKENDS=flex,cuda` narrows the list on purpose.

use burn::tensor::{DType, Device};

/// A backend under test.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Name of the backend in messages.
    pub name: &'static str,
    /// Device of the backend.
    pub device: Device,
    /// Element types it computes attention in.
    pub dtypes: Vec<DType>,
}

/// Value of `SPARSE_ACCELERATE_TEST_BACKENDS`; empty for no restriction.
fn wanted() -> String {
    std::env::var("SPARSE_ACCELERATE_TEST_BACKENDS").unwrap_or_default()
}

/// The backends of this build that run CubeCL kernels. None of them is an error, unless the list was
/// narrowed on purpose: then the caller's test says that it was skipped.
pub fn with_kernels() -> Vec<Backend> {
    let found: Vec<_> = all().into_iter().filter(|b| b.name != "flex").collect();
    if found.is_empty() {
        assert!(
            !wanted().is_empty(),
            "this build has no CubeCL runtime to test"
        );
        println!("skipped: {:?} leaves no CubeCL runtime to test", wanted());
    }
    found
}

/// All backends of this build.
pub fn all() -> Vec<Backend> {
    let wanted = wanted();
    let keep = |name: &str| wanted.is_empty() || wanted.split(',').any(|w| w == name);
    let mut out = Vec::new();
    #[cfg(feature = "flex")]
    if keep("flex") {
        out.push(Backend {
            name: "flex",
            device: Device::flex(),
            dtypes: vec![DType::F32, DType::F16, DType::BF16],
        });
    }
    #[cfg(feature = "wgpu")]
    if keep("wgpu") {
        out.push(Backend {
            name: "wgpu",
            device: Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
            dtypes: vec![DType::F32, DType::F16],
        });
    }
    #[cfg(feature = "cuda-runtime")]
    if keep("cuda") {
        out.push(Backend {
            name: "cuda",
            device: Device::cuda(0),
            dtypes: vec![DType::F32, DType::F16, DType::BF16],
        });
    }
    assert!(
        !out.is_empty(),
        "no backend to test: {wanted:?} names none of this build"
    );
    out
}
