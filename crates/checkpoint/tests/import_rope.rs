//! Importing GGUF: scalings of rotary positions, under each of their names and as divisors.
//!
//! Divisors are made here as the converter makes them: branch by branch, in f32.

mod support;

use sparse_accelerate_checkpoint::{GgufError, Llama3Scaling, RopeScaling};
use support::gguf_file::{GgufBuilder, Meta, tiny_model};
use support::import::{F32, imported, refused};

/// Llama 3.2's base, and the size of the tiny model's heads.
const THETA: f32 = 500_000.0;
const HEAD: usize = 32;

#[test]
fn yarn_comes_in_the_measures_of_config_json() {
    let mut gguf = tiny_model("llama");
    gguf.set("llama.rope.scaling.type", Meta::Text("yarn".into()));
    gguf.set("llama.rope.scaling.factor", Meta::F32(4.0));
    gguf.set("llama.rope.scaling.original_context_length", Meta::U32(64));
    gguf.set("llama.rope.scaling.attn_factor", Meta::F32(0.5));
    gguf.set("llama.rope.scaling.yarn_beta_slow", Meta::F32(2.0));
    let (_dir, model) = imported(&gguf, &F32);
    let Some(RopeScaling::Yarn(yarn)) = model.config().rope_scaling.clone() else {
        panic!("{:?}", model.config().rope_scaling);
    };
    assert_eq!((yarn.factor, yarn.original_max_positions), (4.0, 64));
    assert_eq!((yarn.beta_fast, yarn.beta_slow), (32.0, 2.0));
    let gain = 0.5 * (0.1 * 4f64.ln() + 1.0);
    assert!((yarn.attention_factor - gain).abs() < 1e-12);
    assert!(model.config().max_positions >= 256);
}

#[test]
fn linear_interpolation_comes_under_each_of_its_names() {
    let scaling = |edits: &[(&str, Meta)]| {
        let mut gguf = tiny_model("qwen2");
        for (key, value) in edits {
            gguf.set(&format!("qwen2.rope.{key}"), value.clone());
        }
        let (_dir, model) = imported(&gguf, &F32);
        model.config().rope_scaling.clone()
    };
    let kind = |name: &str| ("scaling.type", Meta::Text(name.into()));
    let factor = |factor: f32| ("scaling.factor", Meta::F32(factor));
    let old = |factor: f32| ("scale_linear", Meta::F32(factor));
    let linear = Some(RopeScaling::Linear { factor: 4.0 });
    for edits in [
        &[old(4.0)][..],
        &[factor(4.0)],
        &[kind("linear"), factor(4.0)],
        &[kind("linear"), old(4.0)],
        // The newer key goes first.
        &[factor(4.0), old(2.0)],
    ] {
        assert_eq!(scaling(edits), linear);
    }
    for edits in [
        &[old(1.0)][..],
        &[old(0.0)],
        &[kind("linear")],
        &[kind("none"), factor(4.0), old(4.0)],
    ] {
        assert_eq!(scaling(edits), None);
    }
}

#[test]
fn an_attention_factor_without_yarn_is_refused() {
    for kind in [None, Some("linear"), Some("none")] {
        for name in ["attn_factor", "yarn_attn_factor"] {
            let key = format!("llama.rope.scaling.{name}");
            let mut gguf = tiny_model("llama");
            gguf.set("llama.rope.scaling.factor", Meta::F32(4.0));
            if let Some(kind) = kind {
                gguf.set("llama.rope.scaling.type", Meta::Text(kind.into()));
            }
            gguf.set(&key, Meta::F32(1.0));
            imported(&gguf, &F32);
            gguf.set(&key, Meta::F32(2.0));
            let error = refused(&gguf);
            assert!(
                matches!(&error, GgufError::Unsupported { key: named, .. } if *named == key),
                "{error}"
            );
        }
    }
}

fn divisors(factor: f32, low: f32, high: f32, original: f32) -> Vec<f32> {
    let pairs = (0..HEAD / 2).map(|pair| {
        let frequency = 1.0 / THETA.powf(2.0 * pair as f32 / HEAD as f32);
        let wavelength = std::f32::consts::TAU / frequency;
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    });
    pairs.collect()
}

fn with_divisors(divisors: &[f32]) -> GgufBuilder {
    let mut gguf = tiny_model("llama");
    gguf.set("llama.rope.freq_base", Meta::F32(THETA));
    gguf.add("rope_freqs.weight", &[divisors.len() as u64], divisors);
    gguf
}

#[test]
fn divisors_of_llama_3_are_its_scaling() {
    for factor in [8.0, 32.0] {
        let own = divisors(factor, 1.0, 4.0, 8192.0);
        assert!(own.iter().any(|&divisor| divisor > 1.0 && divisor < factor));
        let (_dir, model) = imported(&with_divisors(&own), &F32);
        let expected = Llama3Scaling {
            factor: factor.into(),
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 8192,
        };
        let got = model.config().rope_scaling.clone();
        assert_eq!(got, Some(RopeScaling::Llama3(expected)));
    }
    let (_dir, model) = imported(&with_divisors(&[1.0; HEAD / 2]), &F32);
    assert_eq!(model.config().rope_scaling, None);
}

#[test]
fn other_divisors_are_refused() {
    let own = divisors(8.0, 1.0, 4.0, 8192.0);
    let mut one_off = own.clone();
    one_off[8] *= 1.001;
    for wrong in [
        vec![8.0; HEAD / 2],
        divisors(8.0, 1.0, 4.0, 4096.0),
        divisors(8.0, 1.0, 2.0, 8192.0),
        one_off,
        own[4..].to_vec(),
        vec![f32::NAN; HEAD / 2],
    ] {
        let error = refused(&with_divisors(&wrong));
        assert!(
            matches!(&error, GgufError::Unsupported { key, .. } if key == "rope_freqs.weight"),
            "{error}"
        );
        assert!(error.to_string().contains("Hugging Face"), "{error}");
    }
    let mut twice = with_divisors(&own);
    twice.set("llama.rope.scaling.factor", Meta::F32(4.0));
    assert!(matches!(refused(&twice), GgufError::Unsupported { .. }));
}
