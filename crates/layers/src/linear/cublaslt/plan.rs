//! One product's descriptors and algorithm, for one shape, layout and alignment.
//!
//! The library counts columns first. A row-major `[r, c]` matrix is its `[c, r]`, so the row-major
//! `y = x Wᵀ` is `yᵀ = W xᵀ` there: A is the weight, transposed as stored, and B is x as stored.

use std::{ffi::c_int, sync::OnceLock};

use super::{
    api::{self, Algo, Api, Candidate, CublasError, Descriptor, Raw, ok},
    operand::Operand,
};

/// Scratch memory an algorithm may take. NVIDIA's own advice for Hopper is 32 MiB.
const WORKSPACE: usize = 32 << 20;
/// Alignment of a fresh allocation that the library can make use of.
pub(super) const ALIGNED: u32 = 256;

/// Key of an algorithm's choice: the product's sizes, types and layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    pub(super) rows: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// The library's element type.
    pub(super) element: c_int,
    pub(super) x: Operand,
    pub(super) weight: Operand,
}

/// Device addresses of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) x: u64,
    pub(super) weight: u64,
    pub(super) out: u64,
    pub(super) workspace: u64,
}

/// A problem with its descriptors and its algorithms, the library's favourite first.
#[derive(Debug)]
pub(super) struct Plan {
    operation: Descriptor,
    weight: Descriptor,
    x: Descriptor,
    out: Descriptor,
    pub(super) algos: Vec<Algo>,
    /// The one that measured fastest, where several were tried.
    pub(super) chosen: OnceLock<usize>,
    /// Bytes that any of them needs.
    pub(super) workspace: usize,
    /// Alignments the algorithms count on: of x and of the weight.
    alignments: [u32; 2],
}

impl Plan {
    /// Asks the library for up to `tries` algorithms. The device's context must be current.
    pub(super) fn new(
        api: &Api,
        handle: Raw,
        problem: &Problem,
        tries: usize,
    ) -> Result<Self, CublasError> {
        let operation = operation(api, problem)?;
        let Problem {
            rows,
            inputs,
            outputs,
            ..
        } = *problem;
        let weight = layout(api, problem.element, (outputs, inputs), problem.weight)?;
        let x = layout(api, problem.element, (rows, inputs), problem.x)?;
        let fresh = Operand {
            transposed: false,
            stride: outputs,
            alignment: ALIGNED,
        };
        let out = layout(api, problem.element, (rows, outputs), fresh)?;
        let preference = preference(api, problem)?;

        let mut found = vec![Candidate::default(); tries.max(1)];
        let mut count: c_int = 0;
        // SAFETY: all descriptors live; `found` has as many entries as are asked for.
        let status = unsafe {
            (api.heuristic)(
                handle,
                operation.raw(),
                weight.raw(),
                x.raw(),
                out.raw(),
                out.raw(),
                preference.raw(),
                found.len() as c_int,
                found.as_mut_ptr(),
                &mut count,
            )
        };
        let call = "cublasLtMatmulAlgoGetHeuristic";
        ok(call, status)?;
        found.truncate(usize::try_from(count).unwrap_or(0));
        found.retain(|candidate| candidate.state == 0);
        if found.is_empty() {
            return Err(CublasError { call, status: 15 });
        }
        Ok(Self {
            operation,
            weight,
            x,
            out,
            workspace: found.iter().map(|c| c.workspace).max().unwrap_or(0),
            algos: found.iter().map(|c| c.algo).collect(),
            chosen: OnceLock::new(),
            alignments: [problem.x.alignment, problem.weight.alignment],
        })
    }

    /// Returns true if the addresses are as aligned as the algorithms need; a kernel that finds less
    /// takes the device down.
    pub(super) fn aligned(&self, at: &Addresses) -> bool {
        let [x, weight] = self.alignments;
        let pairs = [
            (at.x, x),
            (at.weight, weight),
            (at.out, ALIGNED),
            (at.workspace, ALIGNED),
        ];
        pairs
            .iter()
            .all(|(address, by)| address.is_multiple_of(u64::from(*by)))
    }

    /// Enqueues the product with algorithm `algo` on `stream`.
    ///
    /// # Safety
    /// The addresses hold what the problem says, until the stream has passed the call; the stream is
    /// of the current context, which is the handle's.
    pub(super) unsafe fn enqueue(
        &self,
        api: &Api,
        handle: Raw,
        algo: usize,
        at: Addresses,
        stream: Raw,
    ) -> Result<(), CublasError> {
        let (one, zero) = (1f32, 0f32);
        let out = at.out as Raw;
        // SAFETY: the caller's, and the descriptors are this plan's.
        let status = unsafe {
            (api.matmul)(
                handle,
                self.operation.raw(),
                (&raw const one).cast(),
                at.weight as Raw,
                self.weight.raw(),
                at.x as Raw,
                self.x.raw(),
                (&raw const zero).cast(),
                out,
                self.out.raw(),
                out,
                self.out.raw(),
                &self.algos[algo],
                at.workspace as Raw,
                self.workspace,
                stream,
            )
        };
        ok("cublasLtMatmul", status)
    }
}

fn operation(api: &Api, problem: &Problem) -> Result<Descriptor, CublasError> {
    let operation = Descriptor::new("cublasLtMatmulDescCreate", api.desc_destroy, |raw| {
        // SAFETY: writes one handle.
        unsafe { (api.desc_create)(raw, api::COMPUTE_32F, api::R_32F) }
    })?;
    // Stored rows are the library's columns, which turns what has to be transposed around.
    let a = if problem.weight.transposed {
        api::OP_N
    } else {
        api::OP_T
    };
    let b = if problem.x.transposed {
        api::OP_T
    } else {
        api::OP_N
    };
    for (attribute, value) in [(api::DESC_OP_A, a), (api::DESC_OP_B, b)] {
        operation.set(
            "cublasLtMatmulDescSetAttribute",
            api.desc_set,
            attribute,
            value,
        )?;
    }
    Ok(operation)
}

/// The library's layout of a logical `[rows, columns]`.
fn layout(
    api: &Api,
    element: c_int,
    (rows, columns): (usize, usize),
    operand: Operand,
) -> Result<Descriptor, CublasError> {
    let (inner, outer) = match operand.transposed {
        true => (rows, columns),
        false => (columns, rows),
    };
    let stride = operand.stride as i64;
    Descriptor::new("cublasLtMatrixLayoutCreate", api.layout_destroy, |raw| {
        // SAFETY: writes one handle.
        unsafe { (api.layout_create)(raw, element, inner as u64, outer as u64, stride) }
    })
}

fn preference(api: &Api, problem: &Problem) -> Result<Descriptor, CublasError> {
    let create = "cublasLtMatmulPreferenceCreate";
    let preference = Descriptor::new(create, api.pref_destroy, |raw| {
        // SAFETY: writes one handle.
        unsafe { (api.pref_create)(raw) }
    })?;
    let call = "cublasLtMatmulPreferenceSetAttribute";
    let set = |attribute, value: u32| preference.set(call, api.pref_set, attribute, value);
    preference.set(call, api.pref_set, api::PREF_WORKSPACE, WORKSPACE)?;
    set(api::PREF_REDUCTION, api::REDUCTION_COMPUTE_TYPE)?;
    let alignments = [
        problem.weight.alignment,
        problem.x.alignment,
        ALIGNED,
        ALIGNED,
    ];
    for (attribute, alignment) in api::PREF_ALIGNMENTS.into_iter().zip(alignments) {
        set(attribute, alignment)?;
    }
    Ok(preference)
}
