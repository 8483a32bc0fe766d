//! The part of cuBLASLt's C interface that a product needs.
//!
//! Declared here because cudarc's loader looks for the library of the CUDA version it was built for
//! and panics when it is missing; a program built for CUDA 12 meets machines that have only CUDA 13.
//! Nothing of this part differs between the two.

use std::ffi::{c_int, c_void};

use libloading::Library;

/// A handle or a descriptor of the library's.
pub(super) type Raw = *mut c_void;
type Status = c_int;
type Destroy = unsafe extern "C" fn(Raw) -> Status;
type Set = unsafe extern "C" fn(Raw, c_int, *const c_void, usize) -> Status;

pub(super) const R_32F: c_int = 0;
pub(super) const R_16F: c_int = 2;
pub(super) const R_16BF: c_int = 14;
/// f32 sums of f32 products; for f32 operands without TF32.
pub(super) const COMPUTE_32F: c_int = 68;
pub(super) const OP_N: c_int = 0;
pub(super) const OP_T: c_int = 1;
pub(super) const DESC_OP_A: c_int = 3;
pub(super) const DESC_OP_B: c_int = 4;
pub(super) const PREF_WORKSPACE: c_int = 1;
pub(super) const PREF_REDUCTION: c_int = 3;
/// Attributes of the alignments of A, B, C and D.
pub(super) const PREF_ALIGNMENTS: [c_int; 4] = [5, 6, 7, 8];
/// Splits over `in` are summed in the compute type, never in the output's.
pub(super) const REDUCTION_COMPUTE_TYPE: u32 = 2;

/// An algorithm, opaque.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Algo {
    data: [u64; 8],
}

/// The heuristic's result for one algorithm.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Candidate {
    pub(super) algo: Algo,
    pub(super) workspace: usize,
    pub(super) state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

/// A call of the library that failed.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{call}: {} ({status})", name(*.status))]
pub(super) struct CublasError {
    pub(super) call: &'static str,
    pub(super) status: c_int,
}

fn name(status: c_int) -> &'static str {
    match status {
        1 => "not initialised",
        3 => "allocation failed",
        7 => "invalid value",
        8 => "architecture mismatch",
        13 => "execution failed",
        14 => "internal error",
        15 => "not supported",
        _ => "failed",
    }
}

/// A status as a result.
pub(super) fn ok(call: &'static str, status: Status) -> Result<(), CublasError> {
    match status {
        0 => Ok(()),
        _ => Err(CublasError { call, status }),
    }
}

/// The functions, and the library that holds them.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) version: unsafe extern "C" fn() -> usize,
    pub(super) create: unsafe extern "C" fn(*mut Raw) -> Status,
    pub(super) desc_create: unsafe extern "C" fn(*mut Raw, c_int, c_int) -> Status,
    pub(super) desc_set: Set,
    pub(super) desc_destroy: Destroy,
    pub(super) layout_create: unsafe extern "C" fn(*mut Raw, c_int, u64, u64, i64) -> Status,
    pub(super) layout_destroy: Destroy,
    pub(super) pref_create: unsafe extern "C" fn(*mut Raw) -> Status,
    pub(super) pref_set: Set,
    pub(super) pref_destroy: Destroy,
    /// Handle, operation, A, B, C, D, preference, most candidates, candidates, their number.
    pub(super) heuristic: unsafe extern "C" fn(
        Raw,
        Raw,
        Raw,
        Raw,
        Raw,
        Raw,
        Raw,
        c_int,
        *mut Candidate,
        *mut c_int,
    ) -> Status,
    /// Handle, operation, alpha, A, B, beta, C, D (each with its layout), algorithm, workspace, its
    /// size, stream.
    pub(super) matmul: unsafe extern "C" fn(
        Raw,
        Raw,
        *const c_void,
        *const c_void,
        Raw,
        *const c_void,
        Raw,
        *const c_void,
        *const c_void,
        Raw,
        *mut c_void,
        Raw,
        *const Algo,
        *mut c_void,
        usize,
        *mut c_void,
    ) -> Status,
    _library: Library,
}

impl Api {
    /// Looks up every function.
    pub(super) fn new(library: Library) -> Result<Self, libloading::Error> {
        /// The symbol as the function the field's type says it is.
        fn get<F: Copy>(library: &Library, symbol: &str) -> Result<F, libloading::Error> {
            // SAFETY: the types of `Api` are those of the library's header, CUDA 12 and 13 alike.
            unsafe { library.get::<F>(symbol).map(|function| *function) }
        }
        Ok(Self {
            version: get(&library, "cublasLtGetVersion")?,
            create: get(&library, "cublasLtCreate")?,
            desc_create: get(&library, "cublasLtMatmulDescCreate")?,
            desc_set: get(&library, "cublasLtMatmulDescSetAttribute")?,
            desc_destroy: get(&library, "cublasLtMatmulDescDestroy")?,
            layout_create: get(&library, "cublasLtMatrixLayoutCreate")?,
            layout_destroy: get(&library, "cublasLtMatrixLayoutDestroy")?,
            pref_create: get(&library, "cublasLtMatmulPreferenceCreate")?,
            pref_set: get(&library, "cublasLtMatmulPreferenceSetAttribute")?,
            pref_destroy: get(&library, "cublasLtMatmulPreferenceDestroy")?,
            heuristic: get(&library, "cublasLtMatmulAlgoGetHeuristic")?,
            matmul: get(&library, "cublasLtMatmul")?,
            _library: library,
        })
    }
}

/// A descriptor that destroys itself. The library only reads it once it is set up.
#[derive(Debug)]
pub(super) struct Descriptor {
    raw: Raw,
    destroy: Destroy,
}

// SAFETY: the library keeps no thread-bound state in a descriptor, and nothing writes it after setup.
unsafe impl Send for Descriptor {}
// SAFETY: as above.
unsafe impl Sync for Descriptor {}

impl Descriptor {
    /// Takes what `create` writes.
    pub(super) fn new(
        call: &'static str,
        destroy: Destroy,
        create: impl FnOnce(*mut Raw) -> Status,
    ) -> Result<Self, CublasError> {
        let mut raw = std::ptr::null_mut();
        ok(call, create(&mut raw))?;
        Ok(Self { raw, destroy })
    }

    pub(super) fn raw(&self) -> Raw {
        self.raw
    }

    /// Sets one attribute.
    pub(super) fn set<T: Copy>(
        &self,
        call: &'static str,
        set: Set,
        attribute: c_int,
        value: T,
    ) -> Result<(), CublasError> {
        let value: *const T = &value;
        // SAFETY: the descriptor is alive and `value` is as large as the size given.
        let status = unsafe { set(self.raw, attribute, value.cast(), size_of::<T>()) };
        ok(call, status)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: created by the library and destroyed nowhere else.
        unsafe { (self.destroy)(self.raw) };
    }
}
