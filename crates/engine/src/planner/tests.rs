//! Plans of Llama-3.1-8B on GPUs, against hand numbers and runs.

use sparse_accelerate_checkpoint::LayerAttention;

use super::*;
use crate::{
    estimate::Density,
    gpus::GpuModel,
    memory::{Footprint, tests::llama},
    placement::{Split, SplitError},
};
use sparse_accelerate::KvType;

fn request(context: usize, gpus: &[&str]) -> PlanRequest {
    let device = |name: &&str| PlanDevice::of_model(GpuModel::named(name).expect("a known GPU"));
    PlanRequest {
        config: llama(),
        footprint: Footprint {
            element: 2,
            kv: KvType::Model,
            mlp_rows: 2048,
            gpu: true,
        },
        context,
        max_tokens: 0,
        chunk: 8192,
        split: Split::Auto,
        devices: gpus.iter().map(device).collect(),
        density: Density::ByLength,
    }
}

const TWO: [&str; 2] = ["rtx-a5000", "rtx-a5000"];

#[test]
fn two_a5000_hold_128k() {
    let plan = plan(&request(131_072, &TWO)).expect("fits");
    for stage in &plan.stages {
        assert_eq!(stage.memory.layers.len(), 16);
        assert_eq!(stage.memory.cache, 8 << 30);
        assert_eq!(stage.free, stage.device.memory.map(|has| has - stage.total));
        // Weights 7.48 GiB and cache 8: with everything else under 17.5.
        let gib = stage.total as f64 / (1u64 << 30) as f64;
        assert!((16.0..17.5).contains(&gib), "{gib}");
    }
    assert_eq!((plan.longest, plan.longest_by_memory), (131_072, false));
}

#[test]
fn one_a5000_does_not_and_every_advice_does() {
    let request = request(131_072, &TWO[..1]);
    let error = plan(&request).expect_err("too much");
    assert!(error.is_memory(), "{error}");
    let advice = advise(&request);
    for advice in &advice {
        let plan = plan(&advice.request).expect("advice fits");
        assert!(plan.stages.iter().all(|stage| stage.free.is_some()));
    }
    // 14.96 GiB of weights and 8.25 of an int8 cache are more than 22: only a shorter context or a GPU.
    assert_eq!(advice.len(), 2, "{advice:?}");
    let [Change::Context(tokens)] = advice[0].changes[..] else {
        panic!("{advice:?}")
    };
    let one_more = Change::Devices {
        added: 1,
        name: "rtx-a5000".into(),
    };
    assert_eq!(advice[1].changes, [one_more]);
    assert!((40_000..60_000).contains(&tokens), "{tokens}");
    let longer = PlanRequest {
        context: tokens + 1024,
        ..advice[0].request.clone()
    };
    assert!(plan(&longer).is_err(), "{tokens} is the longest");
}

#[test]
fn the_nearest_advice_comes_first() {
    // 64K: 8 GiB of cache do not fit beside the weights, 4.1 do.
    let advice = advise(&request(65_536, &TWO[..1]));
    assert_eq!(advice[0].changes, [Change::Int8Cache]);
    // A bad split of what would fit.
    let bad = PlanRequest {
        split: Split::Counts(vec![28, 4]),
        ..request(131_072, &TWO)
    };
    let error = plan(&bad).expect_err("28 layers are too many");
    let PlanError::Split(SplitError::DoesNotFit { stage: 0, .. }) = error else {
        panic!("{error}")
    };
    let advice = advise(&bad);
    let auto = [Change::Split(Split::Auto)];
    assert!(advice.iter().any(|one| one.changes == auto), "{advice:?}");
    // Weights alone are too much: no context is short enough.
    let tiny = PlanRequest {
        devices: vec![PlanDevice {
            memory: Some(4 << 30),
            ..PlanDevice::of_model(GpuModel::named("l4").expect("a known GPU"))
        }],
        ..request(8192, &["l4"])
    };
    let advice = advise(&tiny);
    assert_eq!(advice.len(), 1, "{advice:?}");
    let [Change::Devices { name, .. }] = &advice[0].changes[..] else {
        panic!("{advice:?}")
    };
    assert_eq!(name, "l4");
}

#[test]
fn h100_times_are_those_of_the_run() {
    // benches/runs/2026-11-25-h100-models, Llama-3.1-8B; density as forced there.
    for (length, density, dense, sparse) in [
        (8192, 0.541, 0.221, 0.205),
        (32_768, 0.187, 1.340, 0.893),
        (131_072, 0.046, 13.09, 3.478),
    ] {
        let request = PlanRequest {
            density: Density::Given(density),
            ..request(length, &["h100"])
        };
        let times = plan(&request).expect("fits").times;
        for (predicted, measured) in [
            (times.dense.sequential_s, dense),
            (times.sparse.sequential_s, sparse),
        ] {
            let off = predicted / measured - 1.0;
            assert!(
                off.abs() < 0.08,
                "{length}: {predicted} s, measured {measured}"
            );
        }
        assert_eq!(times.dense.pipelined_s, None);
    }
}

#[test]
fn h200_times_are_those_of_the_run_on_one_and_on_two() {
    // benches/runs/2026-11-26-h200-two-devices, Llama-3.1-8B, dense. What a chunk costs by itself is not
    // planned, and is most at 8K.
    for (length, one, two, off_two) in [
        (8192, 0.2134, 0.1373, 0.15),
        (32_768, 1.329, 0.7604, 0.08),
        (131_072, 12.74, 6.748, 0.05),
    ] {
        let near = |predicted: f64, measured: f64, most: f64| {
            let off = (predicted / measured - 1.0).abs();
            assert!(off < most, "{length}: {predicted} s, measured {measured}");
        };
        let dense = |gpus: &[&str]| plan(&request(length, gpus)).expect("fits").times.dense;
        near(dense(&["h200"]).sequential_s, one, 0.05);
        let both = dense(&["h200", "h200"]).pipelined_s.expect("two GPUs");
        near(both, two, off_two);
    }
}

#[test]
fn a_pipeline_of_two_nearly_halves_the_time() {
    let times = plan(&request(131_072, &TWO)).expect("fits").times;
    // 1,779 TFLOP at 65.5 and 4,504 at 55.6 TFLOP/s, one GPU at a time.
    let sequential = times.dense.sequential_s;
    assert!((sequential - 108.2).abs() < 1.0, "{sequential}");
    assert_eq!(times.density, 0.046);
    for schedule in [times.dense, times.sparse] {
        let pipelined = schedule.pipelined_s.expect("two GPUs");
        let gain = schedule.sequential_s / pipelined;
        assert!((1.8..2.0).contains(&gain), "{gain}");
    }
    assert!(times.sparse.sequential_s < 0.35 * sequential);
}

#[test]
fn a_window_leaves_little_of_a_long_prompts_attention() {
    let full = plan(&request(131_072, &TWO)).expect("fits");
    let mut request = request(131_072, &TWO);
    request.config.attention = vec![LayerAttention::within(Some(4096)); 32];
    let windowed = plan(&request).expect("fits");
    // 2 * 4096 / 131072 of 4,504 TFLOP of attention; the products stay.
    let share = windowed.times.dense.sequential_s / full.times.dense.sequential_s;
    assert!((0.28..0.31).contains(&share), "{share}");
    assert_eq!(windowed.times.density, Density::ByLength.at(4096));
    // Each layer keeps its window and room for 256 tokens.
    let cache = |plan: &Plan| plan.stages[0].memory.cache as f64;
    let share = cache(&windowed) / cache(&full);
    assert!((share - 4352.0 / 131_072.0).abs() < 1e-9, "{share}");
}

#[test]
fn lengths_and_splits_are_refused_as_such() {
    for (context, max_tokens, says) in [
        (131_073, 0, "positions"),
        (0, 0, "0 tokens"),
        (64, 64, "0 tokens"),
    ] {
        let request = PlanRequest {
            max_tokens,
            ..request(context, &TWO)
        };
        let error = plan(&request).expect_err(says);
        assert!(
            !error.is_memory() && error.to_string().contains(says),
            "{error}"
        );
    }
    let request = PlanRequest {
        split: Split::Counts(vec![16, 15]),
        ..request(8192, &TWO)
    };
    assert!(!plan(&request).expect_err("31 layers").is_memory());
}
