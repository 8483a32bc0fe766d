//! Logits of the last token against the f64 reference: at most 1e-4 apart.

use sparse_accelerate::KvType;
use sparse_accelerate_checkpoint::WeightDtype;
use sparse_accelerate_models::{CausalLm, LoadOptions};

use crate::{
    reference,
    tiny::{Tiny, cache, distance, feed, whole},
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

/// Families but Gemma, whose classes rotate whole heads.
fn rotated_in_part() -> impl Iterator<Item = Tiny> {
    let families = Tiny::families().into_iter();
    families.filter(|tiny| tiny.family != "gemma3_text")
}

/// Shares of a head that are rotated, of those that a family has.
fn shares(family: &Tiny) -> &'static [f64] {
    match family.family {
        "gemma3_text" => &[1.0],
        _ => &[0.75, 1.0],
    }
}

#[test]
fn a_part_of_a_head_is_rotated_in_every_family() {
    for family in rotated_in_part() {
        let prompt = family.prompt(37, 0);
        let whole_head = Tiny {
            rotary: 1.0,
            ..family.clone()
        };
        let whole_head = whole(&whole_head.load(), &prompt);
        // Of 32 and 40 elements: 6 to 38 of them.
        for rotary in [0.2, 0.5, 0.75, 0.95] {
            let tiny = Tiny {
                rotary,
                biased: family.family == "llama",
                ..family.clone()
            };
            assert_parity(&tiny, 37);
            let part = whole(&tiny.load(), &prompt);
            assert!(distance(&part, &whole_head) > 1e-3, "the part must show");
        }
    }
}

#[test]
fn longrope_below_and_beyond_the_original_length() {
    for family in Tiny::families() {
        for &rotary in shares(&family) {
            let tiny = Tiny {
                rotary,
                ..family.clone()
            };
            let tiny = tiny.with_longrope(32);
            assert_parity(&tiny, 20);
            assert_parity(&tiny, 32);
            assert_parity(&tiny, 33);
            assert_parity(&tiny, 90);
        }
    }
}

#[test]
fn dynamic_ntk_below_and_beyond_the_original_length() {
    for family in Tiny::families() {
        for &rotary in shares(&family) {
            let tiny = Tiny {
                positions: 32,
                dynamic: Some(4.0),
                rotary,
                theta: 100.0,
                ..family.clone()
            };
            assert_parity(&tiny, 20);
            assert_parity(&tiny, 33);
            assert_parity(&tiny, 90);
            let plain = Tiny {
                positions: 128,
                dynamic: None,
                ..tiny.clone()
            };
            let prompt = tiny.prompt(90, 0);
            let (plain, scaled) = (whole(&plain.load(), &prompt), whole(&tiny.load(), &prompt));
            assert!(distance(&plain, &scaled) > 1e-3, "the scaling must show");
        }
    }
}

/// A prompt below the original length that is to grow beyond it: every chunk and every new token of the sequence has the frequencies
/// of the length that it is planned for, in a cache of the model's type and of bytes.
#[test]
fn the_planned_length_decides_for_a_whole_sequence() {
    let longrope = Tiny::phi3().with_longrope(32);
    let dynamic = Tiny {
        positions: 32,
        dynamic: Some(4.0),
        theta: 100.0,
        ..Tiny::qwen3()
    };
    for tiny in [longrope, dynamic] {
        let (model, tensors) = (tiny.load(), tiny.tensors());
        let ids = tiny.prompt(50, 3);
        for planned in [32, 48, 50, 90] {
            let reached = planned.min(50);
            let mut cache = cache(&model, 1, planned);
            let mut got = Vec::new();
            // A prompt of 20 in chunks, then tokens one by one.
            for (from, to) in [(0, 7), (7, 20)] {
                got = feed(&model, &mut cache, &[&ids[from..to]], &[20]).remove(0);
            }
            let first = reference::planned(&tiny, &tensors, &ids[..20], planned);
            assert!(distance(&first, &got) <= 1e-4, "{planned}");
            for at in 20..reached {
                got = feed(&model, &mut cache, &[&ids[at..=at]], &[at + 1]).remove(0);
            }
            let last = reference::planned(&tiny, &tensors, &ids[..reached], planned);
            assert!(distance(&last, &got) <= 1e-4, "{planned}");
        }
        // Sequences of three lengths take turns.
        let prompt = &ids[..20];
        let logits = |planned: usize| {
            let mut cache = cache(&model, 1, planned);
            feed(&model, &mut cache, &[prompt], &[20]).remove(0)
        };
        let first: Vec<_> = [20, 40, 90].map(logits).into();
        assert!(distance(&first[0], &first[1]) > 1e-3);
        for _ in 0..2 {
            assert_eq!([20, 40, 90].map(logits).to_vec(), first);
        }
    }
}

#[test]
fn an_int8_cache_holds_heads_of_which_a_part_is_rotated() {
    let tiny = Tiny::phi3().with_longrope(32);
    let prompt = tiny.prompt(60, 0);
    let int8 = tiny.try_load_with(&tiny.tensors(), |options| options.model.kv = KvType::Int8);
    let int8 = int8.expect("a sound checkpoint");
    let mut cache = int8.cache(1, prompt.len()).expect("a cache");
    let mut got = Vec::new();
    for chunk in prompt.chunks(25) {
        got = feed(&int8, &mut cache, &[chunk], &[prompt.len()]).remove(0);
    }
    let expected = reference::logits(&tiny, &tiny.tensors(), &prompt);
    let apart = distance(&expected, &got);
    // Half a scale of 1/127 an element; logits reach about 3.
    assert!(apart > 1e-6 && apart <= 0.1, "{apart}");
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
    for family in [
        Tiny::llama(),
        Tiny::qwen3(),
        Tiny::smollm3(),
        Tiny::gemma3(),
    ] {
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
