//! Pairs of devices: what this machine has, a software driver opened twice where there is no second card.

use burn::tensor::Device;
#[cfg(feature = "wgpu")]
use burn::tensor::DeviceKind;
use sparse_accelerate_checkpoint::WeightDtype;
#[cfg(any(feature = "wgpu", feature = "cuda-runtime"))]
use sparse_accelerate_engine::device::list_devices;
use sparse_accelerate_engine::{Pipeline, PipelineOptions, Transport};
use sparse_accelerate_models::Placement;

use crate::{backends, models::Recorded};

/// Two devices.
#[derive(Debug)]
pub struct Pair {
    /// Name of the pair in messages.
    pub name: String,
    /// The devices.
    pub devices: [Device; 2],
}

/// Devices of every backend that run the same kernels: one twice, or two CUDA cards.
pub fn alike() -> Vec<Pair> {
    let all = backends::all();
    let pair = |backend: &backends::Backend| Pair {
        name: format!("{0} + {0}", backend.name),
        devices: [backend.device.clone(), card(backend, 1)],
    };
    all.iter().map(pair).collect()
}

/// Devices with memory and queues of their own.
pub fn apart() -> Vec<Pair> {
    let all = backends::all();
    let mut pairs = Vec::new();
    for backend in all.iter().filter(|backend| backend.name != "flex") {
        pairs.push(Pair {
            name: format!("{0} + another {0}", backend.name),
            devices: [backend.device.clone(), second(backend)],
        });
    }
    if let [first, .., last] = all.as_slice() {
        pairs.push(Pair {
            name: format!("{} + {}", first.name, last.name),
            devices: [first.device.clone(), last.device.clone()],
        });
    }
    pairs
}

/// Device of a number, if a backend has that many devices; its first device otherwise.
fn card(backend: &backends::Backend, _number: usize) -> Device {
    match backend.name {
        #[cfg(feature = "cuda-runtime")]
        "cuda" if count("cuda") > _number => Device::cuda(_number),
        _ => backend.device.clone(),
    }
}

/// Another device of a backend, on the same hardware where there is no other.
fn second(backend: &backends::Backend) -> Device {
    match backend.name {
        #[cfg(feature = "wgpu")]
        "wgpu" if software_only() => Device::wgpu(DeviceKind::Cpu),
        _ => card(backend, 1),
    }
}

#[cfg(feature = "cuda-runtime")]
fn count(backend: &str) -> usize {
    let named = format!("{backend}:");
    let devices = list_devices();
    devices
        .iter()
        .filter(|info| info.choice.to_string().starts_with(&named))
        .count()
}

#[cfg(feature = "wgpu")]
fn software_only() -> bool {
    let devices = list_devices();
    let adapters = devices
        .iter()
        .filter(|info| info.choice.to_string().starts_with("wgpu:"));
    adapters
        .into_iter()
        .all(|info| info.kind == sparse_accelerate_engine::device::DeviceKind::Software)
}

/// A model in f32, half of its layers on each device.
///
/// # Panics
/// When it does not load.
pub fn start(recorded: &Recorded, pair: &Pair, transport: Transport) -> Pipeline {
    let layers = recorded.dir.config().layers;
    let counts = [layers / 2, layers - layers / 2];
    let placement = Placement::of_counts(&counts).expect("a placement");
    let mut options = PipelineOptions {
        transport,
        ..PipelineOptions::new(pair.devices.to_vec(), placement)
    };
    options.model.dtype = Some(WeightDtype::F32);
    let mut told = (0, 0);
    let pipeline = Pipeline::load(&recorded.dir, &options, &mut |done, total| {
        told = (done, total);
    });
    let pipeline = pipeline.expect(&pair.name);
    assert_eq!(told.0, told.1);
    assert_eq!(told.1, pipeline.weight_bytes().iter().sum::<u64>());
    pipeline
}
