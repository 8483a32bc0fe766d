//! Products by NVIDIA's cuBLASLt, between CubeCL's kernels on the same stream.
#![allow(unsafe_code)] // A C library.

mod api;
mod choose;
mod engine;
mod launch;
mod library;
mod operand;
mod plan;

use burn::tensor::DType;
use burn_cubecl::{
    CubeDevice, kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype,
    tensor::CubeTensor,
};
pub(crate) use engine::engine;

use crate::linear::diagnostics;
use launch::Product;
use operand::Operand;
use plan::Problem;

/// The product of `x` `[rows, in]` and the transpose of `weight` `[out, in]`.
///
/// Gives the operands back where the device, the element type or the library does not take them; the
/// latter has warned then.
pub(crate) fn linear(
    x: CubeTensor,
    weight: CubeTensor,
) -> Result<CubeTensor, (CubeTensor, CubeTensor)> {
    let element = match x.dtype {
        DType::F32 => api::R_32F,
        DType::F16 => api::R_16F,
        DType::BF16 => api::R_16BF,
        _ => return Err((x, weight)),
    };
    let CubeDevice::Cuda(device) = &x.device else {
        return Err((x, weight));
    };
    let index = device.index;
    let Ok(engine) = engine(index) else {
        return Err((x, weight));
    };
    let (x, x_lies) = readable(x);
    let (weight, weight_lies) = readable(weight);
    let (rows, outputs) = (x.meta.shape()[0], weight.meta.shape()[0]);
    let problem = x_lies
        .zip(weight_lies)
        .map(|(x_lies, weight_lies)| Problem {
            rows,
            inputs: x.meta.shape()[1],
            outputs,
            element,
            x: x_lies,
            weight: weight_lies,
        });
    let Some(plan) = problem.and_then(|problem| engine.plan(index, problem)) else {
        diagnostics::count_refused();
        return Err((x, weight));
    };

    let (client, shape) = (x.client.clone(), [rows, outputs].into());
    let out = empty_device_contiguous_dtype(client.clone(), x.device.clone(), shape, x.dtype);
    let workspace = (plan.workspace > 0).then(|| client.empty(plan.workspace).binding());
    // A dry run compiles and tunes without running: there is nothing to run then.
    if cubecl::dry_run::launch_mode().is_skipped() {
        return Ok(out);
    }
    let product = Product {
        plan,
        x: x.handle.clone().binding(),
        weight: weight.handle.clone().binding(),
        out: out.handle.clone().binding(),
        workspace,
    };
    engine.submit(index, product);
    diagnostics::count_launch();
    Ok(out)
}

/// The tensor, copied where neither its rows nor its columns are contiguous, and how it lies.
fn readable(tensor: CubeTensor) -> (CubeTensor, Option<Operand>) {
    if let Some(operand) = Operand::of(&tensor) {
        return (tensor, Some(operand));
    }
    let tensor = into_contiguous(tensor);
    let operand = Operand::of(&tensor);
    (tensor, operand)
}
