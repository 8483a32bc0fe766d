//! Two devices that work as one: pairs of what this machine has, a software driver opened twice where there
//! is no second GPU.
//!
//! Results equal one device's bit for bit if both run the same kernels. Burn tunes its products for
//! every device it opens, so that two devices on one adapter may round differently; two stages on one device
//! do not, nor do two CUDA cards of a kind. SmolLM2 answers as recorded on two devices.

use std::ops::ControlFlow;

use sparse_accelerate::{AttentionSettings, Dynamic, Pattern};
use sparse_accelerate_engine::{
    EngineError, GenerateSettings, SamplingSettings, Sequence, Transport, generate,
    testing::{Fault, inject},
};
use sparse_accelerate_tests::{
    models::{Recorded, TINY, distance},
    pairs::{alike, apart, start},
};

/// Tokens of a chunk: prompts have several.
const CHUNK: usize = 48;

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
            let mut one = Sequence::new(&whole, len).expect("a sequence");
            for transport in [Transport::Peer, Transport::Host] {
                let pipeline = start(&recorded, pair, transport);
                let mut two = pipeline.sequence(len).expect("a sequence");
                for (kind, settings) in [
                    ("dense", AttentionSettings::dense()),
                    ("triangular", recorded.triangular()),
                    ("dynamic", dynamic.clone()),
                ] {
                    let name = format!("{name} on {}, {kind}, {transport:?}", pair.name);
                    let run = |sequence: &mut Sequence<'_>| {
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
            let mut session = pipeline.sequence(capacity).expect(&name);
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

/// A stage killed in the middle of a prompt: an error at once, and nothing left behind.
#[test]
fn a_killed_stage_ends_the_run_and_gives_its_memory_back() {
    let recorded = Recorded::tiny(TINY[0]);
    let vocab = recorded.dir.config().vocab_size;
    let ids: Vec<u32> = (0..240).map(|i| (i * 7 % vocab) as u32).collect();
    let dense = AttentionSettings::dense();
    for pair in &apart() {
        for (stage, fault) in [(0, Fault::Exit), (1, Fault::Exit), (1, Fault::Panic)] {
            let name = format!("{fault:?} in stage {stage} of {}", pair.name);
            let pipeline = start(&recorded, pair, Transport::Peer);
            let mut session = pipeline.sequence(256).expect(&name);
            let error = session
                .prefill(&ids, 32.into(), &dense, &mut |progress| {
                    if progress.done == 64 {
                        inject(&pipeline, stage, fault);
                    }
                })
                .expect_err(&name);
            match fault {
                Fault::Panic => {
                    assert!(
                        matches!(error, EngineError::Stage { .. }),
                        "{name}: {error}"
                    );
                    // The process, the stage and the sequence stay usable.
                    let again = session.prefill(&ids, 32.into(), &dense, &mut |_| {});
                    assert_eq!(again.expect(&name).tokens, ids.len());
                }
                _ => {
                    let lost =
                        matches!(error, EngineError::StageLost { stage: at, .. } if at == stage);
                    assert!(lost, "{name}: {error}");
                }
            }
        }
    }
}
