//! Enqueueing a product between CubeCL's kernels.
//!
//! CubeCL keeps its CUDA streams to itself, but the server of a device implements the public trait
//! [`WriteScoped`], which hands out its streams, and [`DeviceHandle::submit`] runs a closure with that
//! server where launches run: on the device's thread, in the order they were submitted. So a product
//! does here what the server does for a kernel:
//!
//! - it is submitted like a launch, hence ordered like one;
//! - [`resolve`](cubecl_server::stream::MultiStream::resolve) orders the current stream behind the
//!   streams that own the operands, and keeps their memory until this stream has passed;
//! - the write scope marks the output as unwritten when an operand is or the call fails, so that a
//!   read of it reports the reason.

use std::sync::Arc;

use cubecl::{
    device_handle::DeviceHandle,
    server::{BufferBinding, ServerError},
};
use cubecl_server::{
    id::KernelId,
    runtime::Runtime,
    stream::{ExecuteScope, ScopedOutcome, WriteScoped},
};

use super::{
    choose,
    engine::Engine,
    plan::{Addresses, Plan},
};

/// CubeCL's server of one CUDA device.
pub(super) type Server = <cubecl::cuda::CudaRuntime as Runtime>::Server;

/// One product: operands, output and scratch memory.
#[derive(Debug)]
pub(super) struct Product {
    pub(super) plan: Arc<Plan>,
    pub(super) x: BufferBinding,
    pub(super) weight: BufferBinding,
    pub(super) out: BufferBinding,
    pub(super) workspace: Option<BufferBinding>,
}

/// Submits the product to the stream its output was allocated on.
pub(super) fn submit(server: &DeviceHandle<Server>, engine: Arc<Engine>, product: Product) {
    server.submit(move |server| {
        let stream = product.out.stream;
        let reads = [product.x.clone(), product.weight.clone()];
        let mut written = server.write_set();
        written.push(product.out.clone());
        let kernel = KernelId::new::<Product>();
        let scope = ExecuteScope::launching(server, kernel, stream, reads.iter(), written);
        let outcome = scope.execute(|server| run(server, &engine, product));
        if let ScopedOutcome::Failed(error) = outcome {
            tracing::error!("linear: {error}");
        }
    });
}

fn run(server: &mut Server, engine: &Engine, product: Product) -> Result<(), ServerError> {
    engine.enter().map_err(|error| failure(&error))?;
    let Product {
        plan,
        x,
        weight,
        out,
        workspace,
    } = product;
    let buffers = [&x, &weight, &out].into_iter().chain(&workspace);
    // Held until the product is enqueued: dropping it marks the point from which other streams may
    // reuse the operands.
    let mut streams = server.write_streams().resolve(out.stream, buffers)?;
    let mut address = |buffer: BufferBinding| -> Result<u64, ServerError> {
        // A graph being recorded keeps the pages it will replay against.
        let location = buffer.memory.descriptor().location();
        streams.current().capturing.touch(buffer.stream, location);
        let memory = &mut streams.get(&buffer.stream).memory_management_gpu;
        let resource =
            memory.get_resource(buffer.memory, buffer.offset_start, buffer.offset_end)?;
        Ok(resource.ptr)
    };
    let at = Addresses {
        x: address(x)?,
        weight: address(weight)?,
        out: address(out)?,
        workspace: workspace.map(address).transpose()?.unwrap_or(0),
    };
    if !plan.aligned(&at) {
        return Err(failure(&format!(
            "{at:x?} are not aligned as allocations are"
        )));
    }
    let recording = streams.current().capturing.is_recording();
    let raw = streams.current().sys;
    let (api, handle) = (engine.api(), engine.handle());
    // SAFETY: the addresses are of live allocations with the plan's shapes, ordered on this stream by
    // `resolve`; `enter` made the context of stream and handle current.
    unsafe {
        let algo = match plan.algos.len() {
            1 => 0,
            // Timing waits, which a stream being recorded must not.
            _ if recording => plan.chosen.get().copied().unwrap_or(0),
            _ => *plan
                .chosen
                .get_or_init(|| choose::fastest(&plan, api, handle, at, raw)),
        };
        plan.enqueue(api, handle, algo, at, raw.cast())
    }
    .map_err(|error| failure(&error))
}

fn failure(error: &dyn std::fmt::Display) -> ServerError {
    ServerError::Generic {
        reason: format!("linear: {error}"),
        backtrace: Default::default(),
    }
}
