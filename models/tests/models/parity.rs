//! Logits of the last token against the f64 reference: at most 1e-4 apart.

use sparse_accelerate_checkpoint::WeightDtype;
use sparse_accelerate_models::{CausalLm, LoadOptions};

use crate::{
    reference,
    tiny::{Tiny, distance, whole},
};

pub(crate) fn assert_parity(tiny: &Tiny, len: usize) {
    let prompt = tiny.prompt(len, 0);
    let expected = reference::logits(tiny, &tiny.tensors(), &prompt);
    let got = whole(&tiny.load(), &prompt);
    let distance = distance(&expected, &got);
    assert!(distance <= 1e-4, "{tiny:?} at {len} tokens: {distance}");
    let spread = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert!(spread > 0.1, "logits near zero prove nothing: {spread}");
}

#[test]
fn llama_tied() {
    assert_parity(&Tiny::llama(), 37);
}

#[test]
fn llama_untied() {
    let tiny = Tiny {
        tied: false,
        ..Tiny::llama()
    };
    assert_parity(&tiny, 37);
}

#[test]
fn llama_3_scaling_in_all_three_bands() {
    // Wavelengths below 16, from 16 to 64 and above 64 tokens.
    let tiny = Tiny {
        scaling: Some((8.0, 1.0, 4.0, 64)),
        ..Tiny::llama()
    };
    assert_parity(&tiny, 90);
    let plain = whole(&Tiny::llama().load(), &tiny.prompt(90, 0));
    let scaled = whole(&tiny.load(), &tiny.prompt(90, 0));
    assert!(distance(&plain, &scaled) > 1e-3, "the scaling must show");
}

#[test]
fn yarn_below_and_beyond_the_original_length() {
    // Of every family; 20 and 90 tokens of 32 stretched to 128.
    for tiny in Tiny::families() {
        let yarn = Tiny {
            positions: 32,
            yarn: Some((4.0, 32)),
            theta: 100.0,
            ..tiny.clone()
        };
        assert_parity(&yarn, 20);
        assert_parity(&yarn, 90);
        let plain = Tiny {
            theta: 100.0,
            ..tiny
        };
        let plain = whole(&plain.load(), &yarn.prompt(90, 0));
        let scaled = whole(&yarn.load(), &yarn.prompt(90, 0));
        assert!(distance(&plain, &scaled) > 1e-3, "the scaling must show");
    }
}

#[test]
fn qwen2_with_biases() {
    assert_parity(&Tiny::qwen2(), 37);
}

#[test]
fn groups_of_1_2_and_7_in_every_family() {
    for family in Tiny::families() {
        for (heads, kv_heads, tied) in [(3, 3, false), (4, 2, true), (7, 1, false), (14, 2, true)] {
            let tiny = Tiny {
                heads,
                kv_heads,
                tied,
                ..family.clone()
            };
            assert_parity(&tiny, 20);
        }
    }
}

#[test]
fn biases_on_all_four_projections() {
    for family in [Tiny::llama(), Tiny::qwen3()] {
        let biased = Tiny {
            biased: true,
            ..family
        };
        assert_parity(&biased, 20);
    }
}

#[test]
fn norms_of_heads_show() {
    let tiny = Tiny::qwen3();
    let prompt = tiny.prompt(37, 0);
    let normed = whole(&tiny.load(), &prompt);
    // The same weights without them.
    let mut tensors = tiny.tensors();
    tensors.retain(|name, _| !name.contains("q_norm") && !name.contains("k_norm"));
    let plain = Tiny {
        family: "llama",
        ..tiny.clone()
    };
    let plain = plain.try_load(&tensors, 2048).expect("a Llama");
    assert!(distance(&normed, &whole(&plain, &prompt)) > 1e-2);
    // Either gain counts, and which is which.
    for part in ["q_norm", "k_norm"] {
        let mut tensors = tiny.tensors();
        let name = format!("model.layers.0.self_attn.{part}.weight");
        let (_, gain) = tensors.get_mut(&name).expect("a gain");
        gain.reverse();
        let expected = reference::logits(&tiny, &tensors, &prompt);
        let changed = tiny.try_load(&tensors, 2048).expect("a sound checkpoint");
        let changed = whole(&changed, &prompt);
        assert!(distance(&expected, &changed) <= 1e-4, "{part}");
        assert!(distance(&normed, &changed) > 1e-3, "{part} must show");
    }
}

#[test]
fn one_token() {
    assert_parity(&Tiny::llama(), 1);
}

#[test]
fn half_types_stay_near_f32() {
    // Rounding of 2^-11 and 2^-8 through two layers; logits reach about 3.
    for (dtype, tolerance) in [(WeightDtype::F16, 0.02), (WeightDtype::Bf16, 0.15)] {
        let (tiny, prompt) = (Tiny::qwen2(), Tiny::qwen2().prompt(30, 0));
        let half = tiny.try_load_with(&tiny.tensors(), |options| options.model.dtype = Some(dtype));
        let half = half.expect("a sound checkpoint");
        assert_eq!(half.dtype(), dtype);
        let distance = distance(&whole(&tiny.load(), &prompt), &whole(&half, &prompt));
        assert!(
            distance > 0.0 && distance <= tolerance,
            "{dtype:?}: {distance}"
        );
    }
}

#[test]
fn random_models_repeat_by_seed() {
    let tiny = Tiny::qwen2();
    let loaded = tiny.load();
    let options = LoadOptions::new(loaded.device().clone());
    let make = |seed| CausalLm::random(loaded.config(), seed, &options).expect("a model");
    let prompt = tiny.prompt(9, 0);
    let (first, again, other) = (make(1), make(1), make(2));
    assert_eq!(whole(&first, &prompt), whole(&again, &prompt));
    assert!(distance(&whole(&first, &prompt), &whole(&other, &prompt)) > 1e-2);
    assert_eq!(first.weight_bytes(), loaded.weight_bytes());
}

#[test]
fn random_models_can_be_drawn_on_the_device() {
    let tiny = Tiny::qwen2();
    let loaded = tiny.load();
    let options = LoadOptions::new(loaded.device().clone());
    let mut seen = Vec::new();
    let drawn = CausalLm::random_on_device(loaded.config(), 1, &options, &mut |progress| {
        seen.push((progress.index, progress.bytes == progress.total_bytes));
    })
    .expect("a model");
    assert_eq!(drawn.weight_bytes(), loaded.weight_bytes());
    assert!(seen.iter().enumerate().all(|(at, (index, _))| at == *index));
    assert_eq!(seen.last().map(|(_, all)| *all), Some(true));
    // Of the scale that the host's generator has.
    let host = CausalLm::random(loaded.config(), 1, &options).expect("a model");
    let prompt = tiny.prompt(9, 0);
    let size = |model: &CausalLm| {
        let hidden = whole(model, &prompt);
        hidden.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / hidden.len() as f64
    };
    let (drawn, host) = (size(&drawn), size(&host));
    assert!(
        drawn.is_finite() && (0.3..3.0).contains(&(drawn / host)),
        "{drawn} {host}"
    );
}
