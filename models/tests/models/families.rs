//! SmolLM3 and Gemma 3, and windows of some layers: every setting and every gain counts, and fields that are left out have the values
//! that the Hugging Face classes give them.

use sparse_accelerate_checkpoint::WeightDtype;

use crate::{
    parity::assert_parity,
    reference,
    tiny::{Chosen, Tiny, distance, whole},
};

/// Two models of the same weights, and the least difference of a logit between their references.
fn assert_shows(left: &Tiny, right: &Tiny, least: f32) {
    let prompt = left.prompt(37, 0);
    let [left_logits, right_logits] =
        [left, right].map(|tiny| reference::logits(tiny, &tiny.tensors(), &prompt));
    let apart = distance(&left_logits, &right_logits);
    assert!(apart > least, "{left:?} and {right:?}: {apart}");
}

fn smollm3(no_rope: Chosen) -> Tiny {
    Tiny {
        layers: 4,
        no_rope,
        ..Tiny::smollm3()
    }
}

fn gemma3(full: Chosen) -> Tiny {
    Tiny {
        layers: 4,
        full,
        ..Tiny::gemma3()
    }
}

#[test]
fn layers_without_rotary_positions() {
    let with_all = smollm3(Chosen::Listed(vec![]));
    assert_parity(&with_all, 37);
    for no_rope in [
        Chosen::Listed(vec![3]),
        Chosen::Listed(vec![0, 2]),
        Chosen::Listed(vec![0, 1, 2, 3]),
        Chosen::Every(2),
        Chosen::Every(3),
    ] {
        let tiny = smollm3(no_rope);
        assert_shows(&with_all, &tiny, 1e-2);
        assert_parity(&tiny, 37);
    }
}

#[test]
fn layers_without_the_window() {
    let windowed = |tiny: Tiny, full: Chosen| Tiny {
        layers: 4,
        window: Some(9),
        full,
        ..tiny
    };
    for family in [Tiny::ministral(), Tiny::qwen2(), Tiny::qwen3()] {
        let all = windowed(family.clone(), Chosen::Listed(vec![]));
        assert_parity(&all, 37);
        for full in [
            Chosen::Listed(vec![0]),
            Chosen::Listed(vec![1, 3]),
            Chosen::Every(2),
        ] {
            let tiny = windowed(family.clone(), full);
            assert_shows(&all, &tiny, 1e-3);
            assert_parity(&tiny, 37);
        }
        let none = windowed(family.clone(), Chosen::Listed(vec![0, 1, 2, 3]));
        let plain = Tiny {
            window: None,
            full: Chosen::None,
            ..none
        };
        assert_parity(&plain, 37);
    }
    // The first layers of a Qwen by their number.
    for family in [Tiny::qwen2(), Tiny::qwen3()] {
        for layers in [1, 3] {
            assert_parity(&windowed(family.clone(), Chosen::Before(layers)), 37);
        }
    }
}

#[test]
fn kinds_of_a_gemmas_layers() {
    let all = gemma3(Chosen::Listed(vec![]));
    assert_parity(&all, 37);
    for full in [
        Chosen::Listed(vec![0]),
        Chosen::Listed(vec![1, 2]),
        Chosen::Listed(vec![0, 1, 2, 3]),
        Chosen::Every(1),
        Chosen::Every(3),
        Chosen::Every(5),
    ] {
        let tiny = gemma3(full);
        if (0..4).any(|layer| tiny.full.has(layer)) {
            assert_shows(&all, &tiny, 1e-2);
        }
        assert_parity(&tiny, 37);
    }
}

#[test]
fn numbers_of_a_gemma() {
    let plain = gemma3(Chosen::Every(3));
    let changes: [fn(&mut Tiny); 6] = [
        |tiny| tiny.theta = 100.0,
        |tiny| tiny.local_theta = 100.0,
        |tiny| tiny.query_scalar = Some(32),
        |tiny| tiny.query_scalar = Some(168),
        |tiny| tiny.window = Some(4),
        |tiny| tiny.tied = false,
    ];
    for change in changes {
        let mut tiny = plain.clone();
        change(&mut tiny);
        assert_shows(&plain, &tiny, 1e-3);
        assert_parity(&tiny, 37);
    }
    for (heads, kv_heads) in [(4, 4), (4, 2), (4, 1), (8, 2)] {
        let tiny = Tiny {
            heads,
            kv_heads,
            ..plain.clone()
        };
        assert_parity(&tiny, 37);
    }
}

#[test]
fn linear_scaling() {
    for family in Tiny::families() {
        let tiny = Tiny {
            linear: Some(8.0),
            ..family.clone()
        };
        assert_shows(&family, &tiny, 1e-3);
        assert_parity(&tiny, 37);
    }
    // Not of a Gemma's layers with a window.
    let local = gemma3(Chosen::Listed(vec![]));
    let scaled = Tiny {
        linear: Some(8.0),
        ..local.clone()
    };
    let prompt = local.prompt(37, 0);
    assert_eq!(
        whole(&local.load(), &prompt),
        whole(&scaled.load(), &prompt)
    );
}

#[test]
fn every_gain_of_a_gemma_counts() {
    let tiny = gemma3(Chosen::Every(3));
    let prompt = tiny.prompt(37, 0);
    let plain = reference::logits(&tiny, &tiny.tensors(), &prompt);
    let mut names = vec!["model.norm.weight".to_owned()];
    for part in [
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
        "self_attn.q_norm",
        "self_attn.k_norm",
    ] {
        names.push(format!("model.layers.1.{part}.weight"));
    }
    for name in names {
        let mut tensors = tiny.tensors();
        let (_, gain) = tensors.get_mut(&name).expect("a gain");
        gain.reverse();
        let expected = reference::logits(&tiny, &tensors, &prompt);
        assert!(distance(&plain, &expected) > 1e-2, "{name} must show");
        let changed = tiny.try_load(&tensors, 2048).expect("a sound checkpoint");
        let apart = distance(&expected, &whole(&changed, &prompt));
        assert!(apart <= 1e-4, "{name}: {apart}");
    }
}

#[test]
fn fields_that_are_left_out() {
    let smollm3 = Tiny {
        theta: 2_000_000.0,
        left_out: &[
            "no_rope_layer_interval",
            "rope_theta",
            "tie_word_embeddings",
        ],
        ..smollm3(Chosen::Every(4))
    };
    assert_parity(&smollm3, 37);
    let gemma3 = Tiny {
        layers: 7,
        query_scalar: Some(256),
        left_out: &[
            "hidden_activation",
            "query_pre_attn_scalar",
            "rope_local_base_freq",
            "rope_theta",
            "sliding_window_pattern",
            "tie_word_embeddings",
        ],
        ..gemma3(Chosen::Every(6))
    };
    assert_parity(&gemma3, 37);
}

#[test]
fn a_gemma_in_f16_is_refused() {
    let tiny = Tiny::gemma3();
    let refused = tiny.try_load_with(&tiny.tensors(), |options| {
        options.model.dtype = Some(WeightDtype::F16);
    });
    let error = refused.expect_err("it outgrows f16").to_string();
    for part in ["Gemma3ForCausalLM", "65,504", "bf16"] {
        assert!(error.contains(part), "{error}");
    }
}
