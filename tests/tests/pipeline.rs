//! Two devices that work as one: pairs of what this machine has, a software driver opened twice where there
//! is no second card.
//!
//! Where both run the same kernels, results equal one device's bit for bit. Burn tunes its products for
//! every device it opens, so that two devices on one adapter may round differently; two stages on one device
//! do not, nor do two CUDA cards of a kind. SmolLM2 answers as recorded on two devices.

use std::ops::ControlFlow;

use burn::tensor::{Device, DeviceKind};
use sparse_accelerate::{AttentionSettings, Dynamic, Pattern};
use sparse_accelerate_checkpoint::WeightDtype;
use sparse_accelerate_engine::{
    GenerateSettings, Pipeline, PipelineOptions, SamplingSettings, Sequence, Session, Transport,
    device::list_devices, generate,
};
use sparse_accelerate_models::Placement;
use sparse_accelerate_tests::{
    backends,
    models::{Recorded, TINY, distance},
};

/// Tokens of a chunk: prompts have several.
const CHUNK: usize = 48;

/// Two devices.
struct Pair {
    name: String,
    devices: [Device; 2],
}

/// Devices of every backend that run the same kernels: one twice, or two CUDA cards.
fn alike() -> Vec<Pair> {
    let all = backends::all();
    let pair = |backend: &backends::Backend| Pair {
        name: format!("{0} + {0}", backend.name),
        devices: [backend.device.clone(), card(backend, 1)],
    };
    all.iter().map(pair).collect()
}

/// Devices with memory and queues of their own.
fn apart() -> Vec<Pair> {
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

/// The card of a number, where a backend has cards and that many of them; its first device otherwise.
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

fn software_only() -> bool {
    let devices = list_devices();
    let adapters = devices
        .iter()
        .filter(|info| info.choice.to_string().starts_with("wgpu:"));
    adapters
        .into_iter()
        .all(|info| info.kind == sparse_accelerate_engine::device::DeviceKind::Software)
}

fn start(recorded: &Recorded, pair: &Pair, transport: Transport) -> Pipeline {
    let layers = recorded.dir.config().layers;
    let counts = [layers / 2, layers - layers / 2];
    let placement = Placement::of_counts(&counts).expect("a placement");
    let options = PipelineOptions {
        dtype: Some(WeightDtype::F32),
        transport,
        ..PipelineOptions::new(pair.devices.to_vec(), placement)
    };
    let mut told = (0, 0);
    let pipeline = Pipeline::load(&recorded.dir, &options, &mut |done, total| {
        told = (done, total);
    });
    let pipeline = pipeline.expect(&pair.name);
    assert_eq!(told.0, told.1);
    assert_eq!(told.1, pipeline.weight_bytes().iter().sum::<u64>());
    pipeline
}

#[test]
fn alike_devices_equal_one_bit_for_bit() {
    let dynamic = AttentionSettings::sparse(Pattern::Dynamic(Dynamic::default()));
    for pair in &alike() {
        for name in TINY {
            let recorded = Recorded::tiny(name);
            let whole = recorded.load(&pair.devices[0]);
            let config = recorded.dir.config();
            let len = config.max_positions.min(300);
            let ids: Vec<u32> = (0..len)
                .map(|i| ((i * i * 7 + i * 13 + 3) % config.vocab_size) as u32)
                .collect();
            let (prompt, token) = ids.split_at(len - 1);
            let mut one = Session::new(&whole, len).expect("a session");
            for transport in [Transport::Peer, Transport::Host] {
                let pipeline = start(&recorded, pair, transport);
                let mut two = pipeline.session(len).expect("a session");
                for (kind, settings) in [
                    ("dense", AttentionSettings::dense()),
                    ("triangular", recorded.triangular()),
                    ("dynamic", dynamic.clone()),
                ] {
                    let name = format!("{name} on {}, {kind}, {transport:?}", pair.name);
                    let run = |sequence: &mut dyn Sequence| {
                        let prefill = sequence
                            .prefill(prompt, 160.into(), &settings, &mut |_| {})
                            .expect(&name);
                        let after = sequence.decode(token[0]).expect(&name);
                        (prefill.logits, after, prefill.selection)
                    };
                    let (expected, got) = (run(&mut one), run(&mut two));
                    assert!(expected.0.iter().all(|logit| logit.is_finite()), "{name}");
                    assert_eq!(got, expected, "{name}");
                }
            }
        }
    }
}

#[test]
fn two_devices_answer_as_recorded() {
    let recorded = Recorded::smollm2();
    let tokenizer = recorded.dir.tokenizer();
    for pair in &apart() {
        let pipeline = start(&recorded, pair, Transport::Peer);
        // A prompt of several chunks, and a short one.
        let mut cases: Vec<_> = recorded.cases.iter().collect();
        cases.sort_by_key(|case| case.ids.len());
        for case in [cases[0], cases[cases.len() / 2]] {
            let name = format!("{} on {}", case.name, pair.name);
            let settings = GenerateSettings {
                max_tokens: case.greedy.len(),
                chunking: CHUNK.into(),
                reuse: false,
                attention: AttentionSettings::dense(),
                sampling: SamplingSettings::default(),
                stop: Vec::new(),
                eos: Vec::new(),
            };
            let capacity = case.ids.len() + case.greedy.len();
            let mut session = pipeline.session(capacity).expect(&name);
            let go_on = &mut |_: &str| ControlFlow::Continue(());
            let got = generate(
                &mut session,
                tokenizer,
                &case.ids,
                &settings,
                &mut |_| {},
                go_on,
            );
            let got = got.expect(&name);
            assert_eq!(got.ids, case.greedy, "{name}");
            assert_eq!(got.busy_s.len(), 2, "{name}");
            let prefill = session
                .prefill(
                    &case.ids,
                    CHUNK.into(),
                    &AttentionSettings::dense(),
                    &mut |_| {},
                )
                .expect(&name);
            let apart = distance(recorded.last_logits(&case.name), &prefill.logits);
            assert!(apart <= 3e-4, "{name}: {apart} apart");
        }
    }
}

/// Sequences give their caches back, a pipeline its weights.
#[test]
fn memory_returns() {
    let recorded = Recorded::tiny(TINY[0]);
    for pair in &apart() {
        let in_use = || {
            pair.devices.each_ref().map(|device| {
                device.sync().expect("a device");
                device.memory_pool_usage().map(|usage| usage.bytes_in_use)
            })
        };
        let before = in_use();
        let pipeline = start(&recorded, pair, Transport::Peer);
        let session = |capacity| pipeline.session(capacity).expect("a session");
        drop(session(8));
        let loaded = settled(&in_use);
        let held = session(256);
        let bytes = recorded.dir.config();
        let cache = 2 * bytes.layers * bytes.kv_heads * bytes.head_dim * 256 * 4;
        for (stage, (with, without)) in in_use().iter().zip(&loaded).enumerate() {
            let grown = with.zip(*without).map(|(with, without)| with - without);
            // Half of the layers; all of them where both stages are on one device.
            assert!(
                grown.is_none_or(|grown| grown >= cache as u64 / 2),
                "stage {stage} of {}: {grown:?}",
                pair.name
            );
        }
        drop(held);
        drop(session(8));
        assert_eq!(settled(&in_use), loaded, "{}", pair.name);
        drop(pipeline);
        let after = settled(&in_use);
        for (after, before) in after.iter().zip(&before) {
            assert!(
                after <= before,
                "{}: {after:?} after, {before:?} before",
                pair.name
            );
        }
    }
}

/// A number that no longer falls: closing is not waited for.
fn settled<T: PartialEq + Copy>(read: &dyn Fn() -> T) -> T {
    let mut last = read();
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let now = read();
        if now == last {
            break;
        }
        last = now;
    }
    last
}
