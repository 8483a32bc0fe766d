//! Importing GGUF: the values, their order, and the tokenizer.
//!
//! The tiny model's values count up, so that a row in the wrong place shows.

mod support;

use sparse_accelerate_checkpoint::{
    Architecture, ChatDate, ImportOptions, ModelDir, WeightDtype, import_gguf,
};
use support::gguf_file::{Meta, tiny_model};
use support::import::{F32, import, imported, listing, values};
use support::put;

#[test]
fn a_llama_is_imported_whole() {
    let gguf = tiny_model("llama");
    let (dir, result) = import(&gguf, &F32);
    let summary = result.expect("sound");
    assert_eq!(
        (
            summary.architecture,
            summary.tensors,
            summary.tied_embeddings
        ),
        (Architecture::Llama, 11, true)
    );
    assert_eq!(listing(&dir.path().join("sub")), ["out"]);
    let model = ModelDir::open(&summary.path).expect("opens");
    assert_eq!(model.config().norm_eps, 1e-5);
    assert_eq!(
        (model.config().vocab_size, model.config().kv_heads),
        (260, 1)
    );
    assert_eq!(summary.parameters, model.config().parameter_count());
    assert_eq!(
        (model.generation().bos, model.generation().eos.as_slice()),
        (Some(256), &[257][..])
    );
    let mut weights = model.weights().expect("sound");
    assert_eq!(weights.total_bytes(), summary.weight_bytes);
    for (name, shape) in model.config().expected_tensors() {
        assert!(!weights.take(&name, &shape).expect("there").has_non_finite());
    }
    weights.finish().expect("nothing more");
}

#[test]
fn tensors_of_blocks_are_widened() {
    let mut gguf = tiny_model("llama");
    let tensors = gguf.tensors.iter_mut();
    let down = tensors
        .into_iter()
        .find(|t| t.name == "blk.0.ffn_down.weight");
    let down = down.expect("there");
    // IQ4_NL: a scale of 1 and the levels 0 and 15 in every byte, which stand for -127 and 113.
    let block = [&[0x00, 0x3c][..], &[0xf0; 16]].concat();
    (down.kind, down.data) = (20, block.repeat(96 * 64 / 32));
    let (_dir, model) = imported(&gguf, &F32);
    let mut weights = model.weights().expect("sound");
    let name = "model.layers.0.mlp.down_proj.weight";
    let got = weights.take(name, &[64, 96]).expect("there").to_f32();
    for run in got.chunks(32) {
        assert_eq!(run, [[-127.0; 16], [113.0; 16]].concat());
    }
}

#[test]
fn rows_of_queries_and_keys_are_put_back_in_order() {
    let gguf = tiny_model("llama");
    let (_dir, model) = imported(&gguf, &F32);
    let mut weights = model.weights().expect("sound");
    for (name, short, heads) in [("q_proj", "attn_q", 2), ("k_proj", "attn_k", 1)] {
        let source = values(&gguf, &format!("blk.0.{short}.weight"));
        let got = weights
            .take(
                &format!("model.layers.0.self_attn.{name}.weight"),
                &[32 * heads, 64],
            )
            .expect("there")
            .to_f32();
        for head in 0..heads {
            for pair in 0..16 {
                for part in 0..2 {
                    let (to, from) = (head * 32 + part * 16 + pair, head * 32 + 2 * pair + part);
                    assert_eq!(
                        got[to * 64..][..64],
                        source[from * 64..][..64],
                        "{name} row {to}"
                    );
                }
            }
        }
    }
    let source = values(&gguf, "blk.0.attn_v.weight");
    assert_eq!(
        weights
            .take("model.layers.0.self_attn.v_proj.weight", &[32, 64])
            .expect("there")
            .to_f32(),
        source
    );
}

#[test]
fn qwen2_rows_stay_as_they_are() {
    let gguf = tiny_model("qwen2");
    let (_dir, model) = imported(&gguf, &F32);
    assert_eq!(
        (model.config().architecture, model.config().qkv_bias),
        (Architecture::Qwen2, true)
    );
    let mut weights = model.weights().expect("sound");
    for (name, short, shape) in [
        ("q_proj.weight", "attn_q.weight", &[64, 64][..]),
        ("k_proj.bias", "attn_k.bias", &[32]),
    ] {
        let got = weights
            .take(&format!("model.layers.0.self_attn.{name}"), shape)
            .expect("there")
            .to_f32();
        assert_eq!(got, values(&gguf, &format!("blk.0.{short}")));
    }
}

#[test]
fn qwen3_comes_with_its_norms_and_its_own_head_size() {
    let mut gguf = tiny_model("qwen3");
    let (_dir, model) = imported(&gguf, &F32);
    let config = model.config();
    assert_eq!(
        (config.architecture, config.head_dim),
        (Architecture::Qwen3, 32)
    );
    assert!(config.head_norms && !config.qkv_bias && !config.output_bias);
    let mut weights = model.weights().expect("sound");
    for (name, short, shape) in [
        ("q_proj", "attn_q", &[64, 64][..]),
        ("q_norm", "attn_q_norm", &[32]),
        ("k_norm", "attn_k_norm", &[32]),
    ] {
        let got = weights
            .take(&format!("model.layers.0.self_attn.{name}.weight"), shape)
            .expect("there")
            .to_f32();
        let source = values(&gguf, &format!("blk.0.{short}.weight"));
        assert_eq!(got, source, "{name}: rows stay as they are");
    }

    // Two heads of 64 over a width of 64.
    gguf.set("qwen3.attention.key_length", Meta::U32(64));
    gguf.set("qwen3.attention.value_length", Meta::U32(64));
    gguf.tensors.retain(|tensor| {
        !tensor.name.contains(".attn_") || tensor.name.ends_with("attn_norm.weight")
    });
    for (part, dims) in [
        ("attn_q", &[64, 128][..]),
        ("attn_k", &[64, 64]),
        ("attn_v", &[64, 64]),
        ("attn_output", &[128, 64]),
        ("attn_q_norm", &[64]),
        ("attn_k_norm", &[64]),
    ] {
        let count = dims.iter().product::<u64>() as usize;
        gguf.add(&format!("blk.0.{part}.weight"), dims, &vec![1.0; count]);
    }
    let (_dir, model) = imported(&gguf, &F32);
    assert_eq!(model.config().head_dim, 64);
}

#[test]
fn a_llama_file_with_a_window_is_a_mistral() {
    let mut gguf = tiny_model("llama");
    gguf.set("llama.attention.sliding_window", Meta::U32(0));
    let (_dir, model) = imported(&gguf, &F32);
    let llama = model.config().clone();
    assert_eq!(
        (llama.architecture, llama.common_window()),
        (Architecture::Llama, None)
    );

    gguf.set("llama.attention.sliding_window", Meta::U32(48));
    let (_dir, model) = imported(&gguf, &F32);
    let config = model.config();
    assert_eq!(
        (config.architecture, config.common_window()),
        (Architecture::Mistral, Some(48))
    );
    // Rows are put back in order as a Llama's.
    let mut weights = model.weights().expect("sound");
    let got = weights
        .take("model.layers.0.self_attn.q_proj.weight", &[64, 64])
        .expect("there")
        .to_f32();
    let source = values(&gguf, "blk.0.attn_q.weight");
    assert_eq!(got[64..128], source[2 * 64..3 * 64]);
}

#[test]
fn a_llama_with_biases_has_them_reordered() {
    let mut gguf = tiny_model("llama");
    let ramp: Vec<f32> = (0..64).map(|n| n as f32).collect();
    for (part, width) in [
        ("attn_q", 64),
        ("attn_k", 32),
        ("attn_v", 32),
        ("attn_output", 64),
    ] {
        gguf.add(
            &format!("blk.0.{part}.bias"),
            &[width],
            &ramp[..width as usize],
        );
    }
    let (_dir, model) = imported(&gguf, &F32);
    assert!(model.config().qkv_bias && model.config().output_bias);
    let mut weights = model.weights().expect("sound");
    let got = weights
        .take("model.layers.0.self_attn.q_proj.bias", &[64])
        .expect("there")
        .to_f32();
    assert_eq!((got[0], got[1], got[16], got[33]), (0.0, 2.0, 1.0, 34.0));
}

#[test]
fn biases_that_no_layer_of_a_llama_has_are_zero() {
    let of = |present: &[(&str, u64)], absent: (&str, usize), target: WeightDtype| {
        let mut gguf = tiny_model("llama");
        for (part, width) in present {
            gguf.add(
                &format!("blk.0.{part}.bias"),
                &[*width],
                &vec![1.0; *width as usize],
            );
        }
        let options = ImportOptions {
            dtype: target,
            tie: false,
        };
        let (_dir, model) = imported(&gguf, &options);
        let mut weights = model.weights().expect("sound");
        let name = format!("model.layers.0.{}.bias", absent.0);
        let zeros = weights.take(&name, &[absent.1]).expect("there").to_f32();
        assert_eq!(zeros, vec![0.0; absent.1]);
        for (name, shape) in model.config().expected_tensors() {
            if !name.ends_with(absent.0) && !name.contains(&format!("{}.bias", absent.0)) {
                weights.take(&name, &shape).expect("there");
            }
        }
        (model.config().output_bias, model.config().mlp_bias)
    };
    let qkv = [("attn_q", 64), ("attn_k", 32), ("attn_v", 32)];
    for target in [WeightDtype::F32, WeightDtype::Bf16] {
        let seen = of(&qkv, ("self_attn.o_proj", 64), target);
        assert_eq!(seen, (true, false));
    }
    let seen = of(&[("ffn_down", 64)], ("mlp.gate_proj", 96), WeightDtype::F32);
    assert_eq!(seen, (false, true));
}

#[test]
fn a_second_table_is_kept_or_tied() {
    let mut gguf = tiny_model("llama");
    gguf.add("output.weight", &[64, 260], &vec![0.5; 64 * 260]);
    let (_dir, model) = imported(&gguf, &F32);
    assert!(!model.config().tied_embeddings);
    let mut weights = model.weights().expect("sound");
    assert_eq!(
        weights
            .take("lm_head.weight", &[260, 64])
            .expect("there")
            .to_f32()[0],
        0.5
    );
    assert_eq!(
        weights
            .take("model.embed_tokens.weight", &[260, 64])
            .expect("there")
            .to_f32()[1],
        1.0
    );

    let (_dir, model) = imported(&gguf, &ImportOptions { tie: true, ..F32 });
    assert!(model.config().tied_embeddings);
    let mut weights = model.weights().expect("sound");
    assert_eq!(
        weights
            .take("model.embed_tokens.weight", &[260, 64])
            .expect("there")
            .to_f32()[1],
        0.5
    );
    assert!(weights.take("lm_head.weight", &[260, 64]).is_err());
}

#[test]
fn the_target_type_is_written() {
    for dtype in [WeightDtype::F16, WeightDtype::Bf16] {
        let (_dir, model) = imported(&tiny_model("llama"), &ImportOptions { dtype, tie: false });
        assert_eq!(model.config().dtype, dtype);
        let mut weights = model.weights().expect("sound");
        let view = weights
            .take("model.embed_tokens.weight", &[260, 64])
            .expect("there");
        assert_eq!((view.dtype, view.to_f32()[200]), (dtype, 200.0));
    }
}

#[test]
fn the_tokenizer_is_rebuilt() {
    let (_dir, model) = imported(&tiny_model("llama"), &F32);
    let tokenizer = model.tokenizer();
    assert_eq!(tokenizer.vocab_size(), 259, "the padding row is no token");
    assert_eq!(
        tokenizer.encode("<|start|>a<tool>", true).expect("encodes"),
        [256, 97, 258]
    );
    assert_eq!(
        (tokenizer.is_special(256), tokenizer.is_special(258)),
        (true, false)
    );
    let prompt = model
        .chat_template()
        .expect("there")
        .render(&[], true, ChatDate::Fixed)
        .expect("renders");
    assert_eq!(prompt, "");

    let mut gguf = tiny_model("llama");
    gguf.set("tokenizer.ggml.add_bos_token", Meta::Bool(true));
    let (_dir, model) = imported(&gguf, &F32);
    assert_eq!(
        model.tokenizer().encode("a", true).expect("encodes"),
        [256, 97]
    );
    assert_eq!(model.tokenizer().encode("a", false).expect("encodes"), [97]);
}

#[test]
fn progress_counts_every_tensor() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    put(dir.path(), "x.gguf", &tiny_model("llama").bytes());
    let mut seen = Vec::new();
    import_gguf(
        &dir.path().join("x.gguf"),
        &dir.path().join("out"),
        &F32,
        &mut |step| {
            seen.push((step.tensor.to_owned(), step.index, step.total));
        },
    )
    .expect("sound");
    assert_eq!(seen.len(), 11);
    assert_eq!(seen[0], ("model.embed_tokens.weight".to_owned(), 0, 11));
}
