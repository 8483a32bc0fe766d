//! One device: buffers, launches and times.

use anyhow::{Context, Result, bail};
use cubecl::{
    client::Client,
    future::block_on,
    ir::{ElemType, FloatKind},
    prelude::*,
    server::Handle,
};

use crate::args::Element;

/// The device a run uses.
pub(crate) struct Bench {
    pub(crate) client: Client,
    name: String,
}

impl Bench {
    /// The first device of the runtime that was built in.
    pub(crate) fn open() -> Result<Self> {
        #[cfg(feature = "cuda-runtime")]
        let (device, runtime) = (cubecl::Device::Cuda(Default::default()), "cuda");
        #[cfg(all(feature = "wgpu", not(feature = "cuda-runtime")))]
        let (device, runtime) = (cubecl::Device::Wgpu(Default::default()), "wgpu");
        #[cfg(not(any(feature = "cuda-runtime", feature = "wgpu")))]
        bail!("built for no device: build with --features cuda, cuda-llvm or wgpu");
        #[cfg(any(feature = "cuda-runtime", feature = "wgpu"))]
        {
            let client = device.client();
            let properties = client.properties();
            let route = match (runtime, properties.features.copy_async) {
                ("cuda", true) => " through CUDA C++",
                ("cuda", false) => " through LLVM",
                _ => "",
            };
            let name = format!(
                "{runtime}{route}, {:?} multiprocessors, {} KiB shared memory",
                properties.hardware.num_streaming_multiprocessors,
                properties.hardware.max_shared_memory_size / 1024
            );
            Ok(Self { client, name })
        }
    }

    /// Runtime, compiler route and size.
    pub(crate) fn describe(&self) -> String {
        self.name.clone()
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
