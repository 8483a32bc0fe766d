//! Pipelines over a tiny random model, all stages on the CPU: equality with one device, several sequences,
//! prefixes, and everything that can break.
#![cfg(feature = "flex")]

use std::{sync::mpsc, thread, time::Duration};

use burn::tensor::Device;
use sparse_accelerate::{AttentionSettings, Dynamic, HeadRecord, Pattern, Triangular};
use sparse_accelerate_baselines::Baseline;
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_engine::{
    Chunking, EngineError, EqualTime, Pipeline, PipelineOptions, Prefill, Sequence, Transport,
    testing::{Fault, inject},
};
use sparse_accelerate_models::{
    CausalLm, LayerObserver, LayerView, LoadOptions, ModelError, Placement,
};

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "vocab_size": 97, "max_position_embeddings": 2048, "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "torch_dtype": "float32",
    "bos_token_id": 0, "eos_token_id": 1
}"#;
const SEED: u64 = 5;
/// Far more than any test needs.
const PATIENCE: Duration = Duration::from_secs(120);

fn config() -> ModelConfig {
    ModelConfig::from_json(CONFIG).expect("config")
}

fn model() -> CausalLm {
    CausalLm::random(&config(), SEED, &LoadOptions::new(Device::flex())).expect("a model")
}

fn options(counts: &[usize]) -> PipelineOptions {
    let devices = counts.iter().map(|_| Device::flex()).collect();
    let placement = Placement::of_counts(counts).expect("a placement");
    PipelineOptions {
        stall: PATIENCE,
        ..PipelineOptions::new(devices, placement)
    }
}

fn pipeline(counts: &[usize]) -> Pipeline {
    start(&options(counts))
}

fn start(options: &PipelineOptions) -> Pipeline {
    Pipeline::random(&config(), SEED, false, options, &mut |_, _| ()).expect("a pipeline")
}

fn prompt(len: usize, seed: usize) -> Vec<u32> {
    (0..len)
        .map(|i| ((i * i * 7 + i * 13 + seed * 29 + 3) % 97) as u32)
        .collect()
}

fn settings() -> [(&'static str, AttentionSettings); 4] {
    let triangular = Triangular {
        sink: 16,
        window: 64,
        last: 16,
    };
    [
        ("dense", AttentionSettings::dense()),
        (
            "triangular",
            AttentionSettings::sparse(Pattern::Triangular(triangular)),
        ),
        (
            "dynamic",
            AttentionSettings::sparse(Pattern::Dynamic(Dynamic::default())),
        ),
        (
            "baseline",
            AttentionSettings::selected_by(Baseline::XAttention {
                stride: 16,
                threshold: 0.3,
            }),
        ),
    ]
}

fn prefill(
    sequence: &mut Sequence<'_>,
    ids: &[u32],
    chunking: Chunking,
    settings: &AttentionSettings,
) -> Prefill {
    sequence
        .prefill(ids, chunking, settings, &mut |_| ())
        .expect("a prefill")
}

/// A prompt, then tokens: everything a sequence gives.
fn everything(
    sequence: &mut Sequence<'_>,
    ids: &[u32],
    chunking: Chunking,
    settings: &AttentionSettings,
) -> Vec<Vec<f32>> {
    let prefill = prefill(sequence, ids, chunking, settings);
    let mut all = vec![prefill.last_hidden, prefill.logits];
    for token in [3, 96, 0] {
        all.push(sequence.decode(token).expect("a token"));
    }
    all
}

#[test]
fn stages_equal_one_device_bit_for_bit() {
    let model = model();
    let ids = prompt(700, 1);
    let equal = Chunking::EqualTime(EqualTime {
        chunks: 3,
        longest: 512,
        growth: 1e-3,
    });
    let mut one = Sequence::new(&model, 720).expect("a sequence");
    for counts in [&[2, 2][..], &[1, 3], &[1, 1, 1, 1], &[4]] {
        let pipeline = pipeline(counts);
        let mut many = pipeline.sequence(720).expect("a sequence");
        for (name, settings) in settings() {
            for chunking in [Chunking::Fixed(256), Chunking::Fixed(1000), equal] {
                let expected = everything(&mut one, &ids, chunking, &settings);
                let got = everything(&mut many, &ids, chunking, &settings);
                assert!(expected[1].iter().all(|logit| logit.is_finite()));
                assert_eq!(got, expected, "{counts:?} {name} {chunking:?}");
                assert_eq!(many.tokens(), one.tokens());
            }
        }
    }
}

#[test]
fn what_was_decided_is_told_for_every_layer() {
    let model = model();
    let ids = prompt(600, 2);
    let (_, dynamic) = &settings()[2];
    let mut one = Sequence::new(&model, 600).expect("a sequence");
    let expected = prefill(&mut one, &ids, 300.into(), dynamic);
    let pipeline = pipeline(&[3, 1]);
    let mut many = pipeline.sequence(600).expect("a sequence");
    let mut seen = Vec::new();
    let got = many
        .prefill(&ids, 300.into(), dynamic, &mut |p| {
            seen.push((p.done, p.total))
        })
        .expect("a prefill");
    assert_eq!(seen, [(0, 600), (300, 600), (600, 600)]);
    assert_eq!(got.decisions, expected.decisions);
    assert_eq!(got.selection, expected.selection);
    assert_eq!(got.density, expected.density);
    let layers: Vec<usize> = got.selection[0]
        .heads
        .iter()
        .map(|head| head.layer)
        .collect();
    assert_eq!((layers[0], layers.last()), (0, Some(&3)));
    assert_eq!(got.busy_s.len(), 2);
    assert!(
        got.busy_s
            .iter()
            .all(|&busy| busy > 0.0 && busy <= got.seconds),
        "{got:?}"
    );
    let memory = many.memory(300.into(), dynamic).expect("memory");
    assert_eq!(memory.stages.len(), 2);
    // Both stages are this process.
    assert!(memory.measured.bytes <= memory.stages.iter().map(|s| s.bytes).max().expect("two"));
}

#[test]
fn a_selector_is_asked_by_the_numbers_of_the_model() {
    let model = model();
    let ids = prompt(600, 2);
    // Its first layers are dense: a stage that counted its own layers from 0 would make others so.
    let settings = AttentionSettings::selected_by(Baseline::TriangleMix {
        first_layer: 3,
        sink: 8,
        window: 32,
        last: 16,
    });
    let mut one = Sequence::new(&model, 600).expect("a sequence");
    let expected = prefill(&mut one, &ids, 300.into(), &settings);
    let pipeline = pipeline(&[2, 2]);
    let mut many = pipeline.sequence(600).expect("a sequence");
    let got = prefill(&mut many, &ids, 300.into(), &settings);
    assert_eq!(got.last_hidden, expected.last_hidden);
    assert_eq!(got.decisions, expected.decisions);
    assert!(got.density > 0.75 && got.density < 1.0, "{}", got.density);
    for chunk in &got.selection {
        let sparse = |head: &HeadRecord| (head.layer, head.density < 1.0);
        let layers: Vec<(usize, bool)> = chunk.heads.iter().map(sparse).collect();
        assert_eq!(layers, [(0, false), (1, false), (2, false), (3, true)]);
    }
}

#[test]
fn several_sequences_share_the_stages() {
    let model = model();
    let pipeline = pipeline(&[2, 2]);
    let alone = |seed: usize| {
        let mut session = Sequence::new(&model, 300).expect("a sequence");
        everything(
            &mut session,
            &prompt(290 - 40 * seed, seed),
            64.into(),
            &settings()[seed % 3].1,
        )
    };
    let together: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..4)
            .map(|seed| {
                let pipeline = &pipeline;
                scope.spawn(move || {
                    let mut session = pipeline.sequence(300).expect("a sequence");
                    everything(
                        &mut session,
                        &prompt(290 - 40 * seed, seed),
                        64.into(),
                        &settings()[seed % 3].1,
                    )
                })
            })
            .collect();
        running
            .into_iter()
            .map(|one| one.join().expect("a sequence"))
            .collect()
    });
    for (seed, got) in together.iter().enumerate() {
        assert_eq!(*got, alone(seed), "sequence {seed}");
    }
}

#[test]
fn both_transports_move_the_same() {
    let ids = prompt(200, 3);
    let dense = AttentionSettings::dense();
    let [peer, host] = [Transport::Peer, Transport::Host].map(|transport| {
        let pipeline = start(&PipelineOptions {
            transport,
            ..options(&[2, 2])
        });
        let mut session = pipeline.sequence(220).expect("a sequence");
        everything(&mut session, &ids, 64.into(), &dense)
    });
    assert_eq!(peer, host);
}

/// A prefix that is held, then a text that begins with it, on one device and on stages.
#[test]
fn a_prefix_is_reused() {
    let model = model();
    let pipeline = pipeline(&[1, 3]);
    let (document, question, other) = (prompt(512, 4), prompt(40, 5), prompt(33, 6));
    let with = |question: &[u32]| [&document[..], question].concat();
    let dense = AttentionSettings::dense();
    let mut one = Sequence::new(&model, 600).expect("a sequence");
    let mut many = pipeline.sequence(600).expect("a sequence");
    let sequences: [&mut Sequence<'_>; 2] = [&mut one, &mut many];
    for sequence in sequences {
        let fresh = prefill(sequence, &with(&other), 256.into(), &dense);
        prefill(sequence, &with(&question), 256.into(), &dense);
        let mut resume = |ids: &[u32]| {
            sequence
                .resume(ids, 256.into(), &dense, &mut |_| ())
                .expect("a prefill")
        };
        let again = resume(&with(&other));
        assert_eq!((again.reused, again.tokens), (512, 33));
        // The same chunk boundaries, and dense: the same bits.
        assert_eq!(again.logits, fresh.logits);
        // Nothing new: the last token is computed again.
        let same = resume(&with(&other));
        assert_eq!((same.reused, same.tokens), (544, 1));
        // Nothing in common.
        let none = resume(&prompt(50, 9));
        assert_eq!((none.reused, none.tokens), (0, 50));
        assert_eq!(sequence.tokens(), prompt(50, 9));
    }
}

#[test]
fn refusals_leave_what_was_held() {
    let pipeline = pipeline(&[2, 2]);
    let mut session = pipeline.sequence(300).expect("a sequence");
    let ids = prompt(250, 1);
    let dense = AttentionSettings::dense();
    let before = prefill(&mut session, &ids, 100.into(), &dense);
    let bad = AttentionSettings::sparse(Pattern::Triangular(Triangular {
        sink: 0,
        window: 0,
        last: 0,
    }));
    let mut refuse = |ids: &[u32], chunk: usize, settings: &AttentionSettings| {
        let error = session
            .extend(ids, chunk.into(), settings, &mut |_| ())
            .expect_err("a refusal");
        assert_eq!(session.tokens().len(), 250);
        error
    };
    assert!(matches!(refuse(&[], 8, &dense), EngineError::EmptyPrompt));
    assert!(matches!(refuse(&[1], 0, &dense), EngineError::EmptyChunk));
    assert!(matches!(
        refuse(&prompt(51, 0), 8, &dense),
        EngineError::TooLong { .. }
    ));
    assert!(refuse(&[1, 97], 1, &dense).to_string().contains("97"));
    let error = refuse(&prompt(20, 0), 8, &bad);
    assert!(
        matches!(error, EngineError::Stage { stage: 0, .. }),
        "{error}"
    );
    assert!(error.is_usage(), "{error}");
    assert!(matches!(session.decode(97), Err(EngineError::Stage { .. })));
    session.rewind(249).expect("rewound");
    let again = session.decode(ids[249]).expect("a token");
    let apart = again.iter().zip(&before.logits).map(|(a, b)| (a - b).abs());
    assert!(apart.fold(0.0, f32::max) < 1e-4);
    assert!(matches!(
        pipeline.sequence(2049),
        Err(EngineError::TooLong { .. })
    ));
    assert!(pipeline.sequence(0).is_err());
}

/// Observers and scores need all layers in one place.
#[test]
fn work_for_one_device_is_refused_in_stages() {
    struct Sees(usize);
    impl LayerObserver for Sees {
        fn layer(&mut self, _view: &LayerView<'_>) -> Result<(), ModelError> {
            self.0 += 1;
            Ok(())
        }
    }
    let (model, pipeline) = (model(), pipeline(&[2, 2]));
    let (ids, dense) = (prompt(100, 1), AttentionSettings::dense());
    let mut many = pipeline.sequence(128).expect("a sequence");
    prefill(&mut many, &ids, 50.into(), &dense);
    let mut seen = Sees(0);
    let errors = [
        many.score(&ids, 20, 50.into(), &dense, &mut |_| ()).err(),
        many.prefill_observed(&ids, 50.into(), &dense, Some(&mut seen), &mut |_| ())
            .err(),
    ];
    for error in errors {
        let refused = matches!(error, Some(EngineError::Staged { stages: 2 }));
        assert!(refused, "{error:?}");
    }
    assert_eq!(many.tokens(), ids, "a refusal keeps what was held");
    let mut one = Sequence::new(&model, 128).expect("a sequence");
    let observed = one.prefill_observed(&ids, 50.into(), &dense, Some(&mut seen), &mut |_| ());
    assert_eq!(seen.0, 2 * 4);
    // The sequence in stages is as good as new.
    let got = prefill(&mut many, &ids, 50.into(), &dense);
    assert_eq!(got.logits, observed.expect("a prefill").logits);
}

#[test]
fn a_panic_fails_its_request_and_nothing_else() {
    let pipeline = pipeline(&[2, 2]);
    let ids = prompt(300, 1);
    let dense = AttentionSettings::dense();
    let mut other = pipeline.sequence(320).expect("a sequence");
    let expected = everything(&mut other, &ids, 64.into(), &dense);
    for stage in [0, 1] {
        let mut session = pipeline.sequence(320).expect("a sequence");
        inject(&pipeline, stage, Fault::Panic);
        let error = session
            .prefill(&ids, 64.into(), &dense, &mut |_| ())
            .expect_err("a fault");
        let text = error.to_string();
        assert!(
            matches!(error, EngineError::Stage { stage: at, .. } if at == stage),
            "{text}"
        );
        assert!(text.contains("a fault was injected"), "{text}");
        assert!(session.tokens().is_empty());
        // The other sequence still decodes, and this one begins anew.
        other.rewind(ids.len()).expect("rewound");
        assert_eq!(other.decode(3).expect("a token"), expected[2]);
        assert_eq!(everything(&mut session, &ids, 64.into(), &dense), expected);
    }
}

#[test]
fn a_stage_that_ends_is_an_error_and_not_a_hang() {
    let ids = prompt(300, 1);
    let dense = AttentionSettings::dense();
    for stage in 0..3 {
        let pipeline = pipeline(&[1, 2, 1]);
        let mut session = pipeline.sequence(320).expect("a sequence");
        let mut computed = 0;
        let error = session
            .prefill(&ids, 32.into(), &dense, &mut |progress| {
                computed = progress.done;
                if progress.done >= 64 {
                    inject(&pipeline, stage, Fault::Exit);
                }
            })
            .expect_err("a lost stage");
        assert!(computed >= 64);
        assert!(
            matches!(error, EngineError::StageLost { stage: at, .. } if at == stage),
            "{error}"
        );
        // Everything else says so too.
        for error in [session.decode(1).err(), pipeline.sequence(8).err()] {
            assert!(error.is_some(), "stage {stage}");
        }
    }
}

#[test]
fn a_stage_that_stands_still_ends_in_an_error() {
    for stage in [0, 1] {
        let pipeline = start(&PipelineOptions {
            stall: Duration::from_millis(400),
            ..options(&[2, 2])
        });
        let mut session = pipeline.sequence(320).expect("a sequence");
        inject(&pipeline, stage, Fault::Hang);
        let error = session
            .prefill(
                &prompt(300, 1),
                64.into(),
                &AttentionSettings::dense(),
                &mut |_| (),
            )
            .expect_err("a stall");
        let text = error.to_string();
        assert!(matches!(error, EngineError::Stalled { .. }), "{text}");
        assert!(
            text.contains(&format!("stage {stage} (")) && text.contains("64 tokens"),
            "{text}"
        );
    }
}

#[test]
fn cancelling_keeps_what_was_held() {
    let pipeline = pipeline(&[2, 2]);
    let model = model();
    let mut many = pipeline.sequence(900).expect("a sequence");
    let mut one = Sequence::new(&model, 900).expect("a sequence");
    let dense = AttentionSettings::dense();
    let sequences: [&mut Sequence<'_>; 2] = [&mut one, &mut many];
    let (first, second) = (prompt(100, 1), prompt(800, 2));
    let mut after = Vec::new();
    for sequence in sequences {
        prefill(sequence, &first, 64.into(), &dense);
        let cancel = sequence.cancel();
        let asked = cancel.clone();
        let error = sequence
            .extend(&second, 32.into(), &dense, &mut |progress| {
                if progress.done >= 64 {
                    asked.cancel();
                }
            })
            .expect_err("cancelled");
        let EngineError::Cancelled { done, total } = error else {
            panic!("{error}");
        };
        assert!((64..800).contains(&done) && total == 800, "{done}");
        assert_eq!(sequence.tokens(), first);
        cancel.reset();
        after.push(sequence.decode(5).expect("a token"));
    }
    assert_eq!(after[0], after[1]);
}

#[test]
fn dropping_in_the_middle_ends_quietly() {
    let (sent, done) = mpsc::channel();
    thread::spawn(move || {
        let pipeline = pipeline(&[2, 2]);
        let session = pipeline.sequence(64).expect("a sequence");
        drop(session);
        let _other = pipeline.sequence(64).expect("a sequence");
        drop(_other);
        drop(pipeline);
        sent.send(()).expect("somebody waits");
    });
    done.recv_timeout(PATIENCE).expect("the pipeline ended");
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_loaded() {
    for (counts, devices) in [(&[2, 2][..], 1), (&[2, 1], 2), (&[4, 4], 2)] {
        let options = PipelineOptions::new(
            (0..devices).map(|_| Device::flex()).collect(),
            Placement::of_counts(counts).expect("a placement"),
        );
        let error = Pipeline::random(&config(), SEED, false, &options, &mut |_, _| ())
            .expect_err("no such placement");
        assert!(matches!(error, EngineError::Placement { .. }), "{error}");
        assert!(error.is_usage());
    }
}

/// A question behind a document that is held: heads choose among old and new keys, and what they claim of
/// their recall is claimed of all of them.
#[test]
fn a_selection_over_a_prefix_claims_what_it_keeps() {
    let model = model();
    let pipeline = pipeline(&[2, 2]);
    let (document, question) = (prompt(512, 4), prompt(200, 5));
    let ids = [&document[..], &question].concat();
    let dense = AttentionSettings::dense();
    let (_, dynamic) = &settings()[2];
    let mut one = Sequence::new(&model, 712).expect("a sequence");
    let mut many = pipeline.sequence(712).expect("a sequence");
    let sequences: [&mut Sequence<'_>; 2] = [&mut one, &mut many];
    let mut both = Vec::new();
    for sequence in sequences {
        prefill(sequence, &document, 256.into(), &dense);
        let resumed = sequence
            .resume(&ids, 200.into(), dynamic, &mut |_| ())
            .expect("a prefill");
        assert_eq!((resumed.reused, resumed.tokens), (512, 200));
        let [chunk] = resumed.selection.as_slice() else {
            panic!("one chunk: {:?}", resumed.selection);
        };
        assert_eq!(chunk.tokens, 512..712);
        let floor = dynamic.selection.recall;
        for head in &chunk.heads {
            let held = head.density >= 1.0 || head.recall >= floor;
            assert!(held, "layer {} head {}: {head:?}", head.layer, head.head);
        }
        // A floor that no choice meets: every head ends dense, over the prefix too.
        let mut strict = dynamic.clone();
        strict.selection.recall = 1.0;
        sequence.rewind(512).expect("rewound");
        let again = sequence
            .resume(&ids[..711], 199.into(), &strict, &mut |_| ())
            .expect("a prefill");
        assert_eq!((again.reused, again.tokens), (512, 199));
        let strict = sequence.decode(ids[711]).expect("logits");
        prefill(sequence, &ids[..711], 256.into(), &dense);
        let exact = sequence.decode(ids[711]).expect("logits");
        let apart = strict.iter().zip(&exact).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f32::max) < 1e-4);
        both.push(resumed.logits);
    }
    assert_eq!(both[0], both[1]);
}
