//! One device: buffers, launches and times.

use anyhow::{Context, Result, bail};
use cubecl::{
    client::Client,
    future::block_on,
    ir::{ElemType, FloatKind},
    prelude::*,
    server::Handle,
};

#[cfg(any(feature = "cuda-runtime", feature = "wgpu"))]
use crate::save::Driver;
use crate::{args::Element, save::Gpu};

/// The device a run uses.
pub(crate) struct Bench {
    pub(crate) client: Client,
    gpu: Gpu,
}

impl Bench {
    /// The first device of the runtime that was built in.
    pub(crate) fn open() -> Result<Self> {
        #[cfg(feature = "cuda-runtime")]
        let (device, driver) = (cubecl::Device::Cuda(Default::default()), Driver::cuda()?);
        #[cfg(all(feature = "wgpu", not(feature = "cuda-runtime")))]
        let (device, driver) = {
            let device = cubecl::device::WgpuDevice::default();
            let driver = Driver::wgpu(&device);
            (cubecl::Device::Wgpu(device), driver)
        };
        #[cfg(not(any(feature = "cuda-runtime", feature = "wgpu")))]
        bail!("built for no device: build with --features cuda, cuda-llvm or wgpu");
        #[cfg(any(feature = "cuda-runtime", feature = "wgpu"))]
        {
            let client = device.client();
            let properties = client.properties();
            let compiler = match (
                cfg!(feature = "cuda-runtime"),
                properties.features.copy_async,
            ) {
                (true, true) => "CUDA C++",
                (true, false) => "LLVM",
                _ => "WGSL",
            };
            let hardware = &properties.hardware;
            let gpu = Gpu {
                name: driver.name,
                compute_capability: driver.compute_capability,
                driver: driver.driver,
                cuda: driver.cuda,
                compiler: compiler.into(),
                multiprocessors: hardware.num_streaming_multiprocessors,
                shared_kib: hardware.max_shared_memory_size / 1024,
            };
            Ok(Self { client, gpu })
        }
    }

    /// Returns the description of this device.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Name, compiler and size.
    pub(crate) fn describe(&self) -> String {
        let gpu = &self.gpu;
        let processors = gpu
            .multiprocessors
            .map(|n| format!("{n} multiprocessors, "));
        format!(
            "{} through {}, {}{} KiB shared memory",
            gpu.name,
            gpu.compiler,
            processors.unwrap_or_default(),
            gpu.shared_kib
        )
    }

    /// Copies values to the device.
    pub(crate) fn upload<T: bytemuck::Pod>(&self, values: &[T]) -> Handle {
        self.client.create_from_slice(bytemuck::cast_slice(values))
    }

    /// Copies a buffer back, or says why what should have filled it failed.
    pub(crate) fn read(&self, handle: &Handle) -> Result<Vec<u8>> {
        match self.client.read_one(handle.clone()) {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(error) => {
                let text = format!("{error:?}");
                let short: String = text.chars().take(600).collect();
                bail!("the launch failed: {short}")
            }
        }
    }

    /// Device milliseconds of `runs` launches after two that do not count, ascending.
    pub(crate) fn time(&self, runs: usize, launch: impl Fn() + Send + Sync) -> Result<Vec<f64>> {
        let mut times = Vec::with_capacity(runs);
        for run in 0..runs + 2 {
            let ((), ticks) = self
                .client
                .profile(&launch, "bench")
                .map_err(|error| anyhow::anyhow!("cannot time: {error:?}"))?;
            let ticks = block_on(ticks.resolve()).context("the device gave no time")?;
            if run >= 2 {
                times.push(ticks.duration().as_secs_f64() * 1e3);
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }
}

/// A contiguous `[B, H, N, d]` argument.
#[allow(unsafe_code)]
pub(crate) fn tensor(handle: &Handle, shape: [usize; 4]) -> TensorArg {
    let [_, h, n, d] = shape;
    let strides = [h * n * d, n * d, d, 1];
    // SAFETY: every buffer here is made from a slice of the shape's size.
    unsafe { TensorArg::from_raw_parts(handle.clone(), strides.into(), shape.into()) }
}

/// A flat argument of `len` elements.
#[allow(unsafe_code)]
pub(crate) fn buffer(handle: &Handle, len: usize) -> BufferArg {
    // SAFETY: every buffer here is made from a slice of that length.
    unsafe { BufferArg::from_raw_parts(handle.clone(), len) }
}

/// The device's name of an element type.
pub(crate) fn elem(element: Element) -> ElemType {
    ElemType::Float(match element {
        Element::Bf16 => FloatKind::BF16,
        Element::F16 => FloatKind::F16,
    })
}
