//! Sequences over a tiny random model on the CPU: chunks, decode, lengths, generation.
//!
//! The weights are random but seeded, so greedy text is fixed within one build; what is asserted
//! holds for any weights.
#![cfg(feature = "flex")]

use std::ops::ControlFlow;

use burn::tensor::Device;
use sparse_accelerate::{AttentionSettings, Pattern, Triangular};
use sparse_accelerate_checkpoint::{ModelConfig, Tokenizer};
use sparse_accelerate_engine::{
    Cancel, EngineError, FinishReason, GenerateSettings, Generation, SamplingSettings, Sequence,
    generate,
};
use sparse_accelerate_models::{CausalLm, LoadOptions};

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
    "vocab_size": 16, "max_position_embeddings": 128, "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "torch_dtype": "float32",
    "bos_token_id": 0, "eos_token_id": 1
}"#;

fn model() -> CausalLm {
    let config = ModelConfig::from_json(CONFIG).expect("config");
    CausalLm::random(&config, 3, &LoadOptions::new(Device::flex())).expect("model")
}

/// Sixteen one-letter words, `a` to `p`.
fn tokenizer() -> Tokenizer {
    let vocab: Vec<_> = (0..16u8)
        .map(|id| format!("\"{}\": {id}", char::from(b'a' + id)))
        .collect();
    let text = format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {{"type": "Whitespace"}},
            "post_processor": null, "decoder": {{"type": "Fuse"}},
            "model": {{"type": "WordLevel", "vocab": {{{}}}, "unk_token": "a"}}}}"#,
        vocab.join(", ")
    );
    Tokenizer::from_json(&text).expect("tokenizer")
}

fn prompt(len: usize) -> Vec<u32> {
    (0..len).map(|i| (i * 7 % 16) as u32).collect()
}

fn settings(max_tokens: usize) -> GenerateSettings {
    GenerateSettings {
        max_tokens,
        chunking: 16.into(),
        reuse: false,
        attention: AttentionSettings::dense(),
        sampling: SamplingSettings::default(),
        stop: Vec::new(),
        eos: Vec::new(),
    }
}

fn generated(model: &CausalLm, settings: &GenerateSettings) -> Result<Generation, EngineError> {
    let mut sequence = Sequence::new(model, 64)?;
    let mut go_on = |_: &str| ControlFlow::Continue(());
    generate(
        &mut sequence,
        &tokenizer(),
        &prompt(40),
        settings,
        &mut |_| (),
        &mut go_on,
    )
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3)
}

#[test]
fn chunk_size_does_not_change_the_prefill() {
    let model = model();
    let ids = prompt(50);
    let mut sequence = Sequence::new(&model, 64).expect("sequence");
    let pattern = Pattern::Triangular(Triangular {
        sink: 4,
        window: 8,
        last: 4,
    });
    for attention in [
        AttentionSettings::dense(),
        AttentionSettings::sparse(pattern),
    ] {
        let whole = sequence
            .prefill(&ids, 50.into(), &attention, &mut |_| ())
            .expect("whole");
        for chunk in [1, 7, 16, 49, 1000] {
            let mut seen = Vec::new();
            let parts = sequence
                .prefill(&ids, chunk.into(), &attention, &mut |p| seen.push(p.done))
                .expect("chunks");
            assert!(close(&whole.logits, &parts.logits), "chunk {chunk}");
            assert!(
                close(&whole.last_hidden, &parts.last_hidden),
                "chunk {chunk}"
            );
            assert!(
                (whole.density - parts.density).abs() < 1e-9,
                "chunk {chunk}"
            );
            assert_eq!(parts.decisions.len(), 50usize.div_ceil(chunk));
            assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&50)));
            assert_eq!(sequence.tokens().len(), 50);
        }
    }
}

#[test]
fn sparse_prefill_computes_less() {
    let model = model();
    let mut sequence = Sequence::new(&model, 128).expect("sequence");
    let pattern = Pattern::Triangular(Triangular {
        sink: 4,
        window: 8,
        last: 0,
    });
    let sparse = sequence
        .prefill(
            &prompt(120),
            32.into(),
            &AttentionSettings::sparse(pattern),
            &mut |_| (),
        )
        .expect("sparse");
    assert!(sparse.density < 0.5, "{}", sparse.density);
}

#[test]
fn decode_continues_the_prefill() {
    let model = model();
    let ids = prompt(30);
    let dense = AttentionSettings::dense();
    let mut sequence = Sequence::new(&model, 64).expect("sequence");
    let whole = sequence
        .prefill(&ids, 64.into(), &dense, &mut |_| ())
        .expect("whole");
    sequence
        .prefill(&ids[..29], 64.into(), &dense, &mut |_| ())
        .expect("head");
    let last = sequence.decode(ids[29]).expect("decode");
    assert!(close(&whole.logits, &last));
}

#[test]
fn a_cancelled_score_ends_at_the_next_chunk() {
    let model = model();
    let mut sequence = Sequence::new(&model, 64).expect("sequence");
    let dense = AttentionSettings::dense();
    let ids = prompt(60);
    let cancel = sequence.cancel();
    let mut score = |cancelled_at: Option<usize>| {
        let mut seen = Vec::new();
        let scored = sequence.score(&ids, 40, 8.into(), &dense, &mut |progress| {
            seen.push(progress.done);
            if cancelled_at == Some(progress.done) {
                cancel.cancel();
            }
        });
        assert!(sequence.tokens().is_empty());
        (scored, seen)
    };
    let (whole, seen) = score(None);
    assert_eq!(seen, [0, 8, 16, 24, 32, 40, 48, 56, 60]);
    let whole = whole.expect("scores").nll;
    assert_eq!(whole.len(), 40);
    // In the chunks before the scored tokens, and among them.
    for at in [0, 16, 32] {
        let (scored, seen) = score(Some(at));
        let error = scored.expect_err("cancelled");
        let EngineError::Cancelled { done, total } = error else {
            panic!("{error}");
        };
        assert_eq!((done, total, seen.last()), (at, 60, Some(&at)));
        cancel.reset();
    }
    // One that ended is whole, whatever is asked after its last chunk.
    assert_eq!(score(Some(60)).0.expect("scores").nll, whole);
    cancel.reset();
    assert_eq!(score(None).0.expect("scores").nll, whole);
}

#[test]
fn a_shared_flag_ends_every_sequence() {
    let model = model();
    let cancel = Cancel::default();
    let dense = AttentionSettings::dense();
    let open = || Sequence::new(&model, 64).expect("sequence");
    let mut two = [open(), open()].map(|one| one.with_cancel(cancel.clone()));
    cancel.cancel();
    for sequence in &mut two {
        let refused = sequence.prefill(&prompt(20), 8.into(), &dense, &mut |_| ());
        let cancelled = matches!(refused, Err(EngineError::Cancelled { done: 0, total: 20 }));
        assert!(cancelled, "{refused:?}");
    }
}

#[test]
fn lengths_are_refused_with_both_numbers() {
    let model = model();
    assert!(matches!(
        Sequence::new(&model, 129),
        Err(EngineError::TooLong { limit: 128, .. })
    ));
    let mut sequence = Sequence::new(&model, 8).expect("sequence");
    let dense = AttentionSettings::dense();
    let empty = sequence.prefill(&[], 4.into(), &dense, &mut |_| ());
    assert!(matches!(empty, Err(EngineError::EmptyPrompt)));
    let no_chunk = sequence.prefill(&prompt(4), 0.into(), &dense, &mut |_| ());
    assert!(matches!(no_chunk, Err(EngineError::EmptyChunk)));
    let long = sequence
        .prefill(&prompt(9), 4.into(), &dense, &mut |_| ())
        .expect_err("too long");
    assert!(long.is_usage() && long.to_string().contains('9') && long.to_string().contains('8'));
    sequence
        .prefill(&prompt(8), 4.into(), &dense, &mut |_| ())
        .expect("fits");
    assert!(matches!(
        sequence.decode(1),
        Err(EngineError::TooLong {
            prompt: 8,
            limit: 8,
            ..
        })
    ));
    let error = sequence
        .check(100, 50)
        .expect_err("over the positions")
        .to_string();
    assert!(error.contains("150") && error.contains("128"), "{error}");
}

#[test]
fn generation_ends_for_each_reason() {
    let model = model();
    let long = generated(&model, &settings(8)).expect("length");
    assert_eq!((long.ids.len(), &long.finish), (8, &FinishReason::Length));
    assert_eq!(
        long.text,
        tokenizer().decode(&long.ids, true).expect("decode")
    );
    assert!(long.timings.decode_tokens_per_s.is_some());
    assert!(long.timings.ttft_s >= long.timings.prefill_s);

    let mut eos = settings(8);
    eos.eos = vec![long.ids[0]];
    let ended = generated(&model, &eos).expect("eos");
    assert_eq!((ended.ids.len(), ended.finish), (0, FinishReason::Eos));

    let mut stop = settings(8);
    let first: String = long.text.chars().take(1).collect();
    stop.stop = vec![first.clone()];
    let stopped = generated(&model, &stop).expect("stop");
    assert_eq!(
        (stopped.text.as_str(), stopped.finish),
        ("", FinishReason::Stop(first))
    );

    let nothing = generated(&model, &settings(0)).expect("prefill only");
    assert_eq!(
        (nothing.ids.len(), nothing.finish),
        (0, FinishReason::Length)
    );
}

#[test]
fn the_caller_may_end_it_and_pieces_make_the_text() {
    let model = model();
    let mut sequence = Sequence::new(&model, 64).expect("sequence");
    let mut pieces = Vec::new();
    let generation = generate(
        &mut sequence,
        &tokenizer(),
        &prompt(40),
        &settings(8),
        &mut |_| (),
        &mut |piece| {
            pieces.push(piece.to_string());
            if pieces.len() == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    )
    .expect("generation");
    assert_eq!(generation.finish, FinishReason::Cancelled);
    assert_eq!(generation.text, pieces.concat());
}

#[test]
fn sampled_text_repeats_with_its_seed() {
    let model = model();
    let with_seed = |seed| {
        let mut warm = settings(16);
        warm.sampling = SamplingSettings {
            temperature: 1.5,
            seed,
            ..SamplingSettings::default()
        };
        generated(&model, &warm).expect("generation").ids
    };
    assert_eq!(with_seed(1), with_seed(1));
    assert_ne!(with_seed(1), with_seed(2));
}

#[test]
fn a_generation_serialises_with_its_memory() {
    let model = model();
    let generation = generated(&model, &settings(2)).expect("generation");
    let value = serde_json::to_value(&generation).expect("json");
    for path in [
        "/text",
        "/finish",
        "/timings/ttft_s",
        "/density",
        "/decisions/0/reason",
        "/memory/planned/total",
        "/memory/measured/source",
    ] {
        assert!(value.pointer(path).is_some(), "{path} in {value}");
    }
    let planned = generation.memory.planned;
    assert_eq!(planned.weights, model.weight_bytes());
    assert_eq!(planned.cache, model.cache_shape(1, 64).bytes(4));
}
