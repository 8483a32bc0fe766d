//! Sequences many windows long: whatever a cache lets go of, logits are those of the whole sequence.
//!
//! Every chunk and every new token is compared with the reference, at most 1e-4 apart.

use sparse_accelerate::KvType;
use sparse_accelerate_models::CausalLm;

use crate::{
    reference,
    tiny::{Chosen, Tiny, distance, feed},
};

/// Positions of a sequence, 14 windows of 9.
const POSITIONS: usize = 128;
/// Tokens of the prompt; those that follow come one by one.
const PROMPT: usize = 80;
const TOLERANCE: f32 = 1e-4;
/// Half a scale of 1/127 an element; logits reach about 3.
const TOLERANCE_INT8: f32 = 0.1;

/// Models with a window of 9 keys in every layer, in some, and chosen in every way that a configuration has.
fn windowed() -> Vec<Tiny> {
    let some = |tiny: Tiny, full: Chosen| Tiny {
        window: Some(9),
        layers: 3,
        full,
        ..tiny
    };
    vec![
        Tiny::mistral(),
        Tiny::ministral(),
        some(Tiny::phi3(), Chosen::None),
        some(Tiny::qwen2(), Chosen::Before(1)),
        some(Tiny::qwen2(), Chosen::Listed(vec![0, 2])),
        some(Tiny::qwen3(), Chosen::Before(2)),
        some(Tiny::qwen3(), Chosen::None),
        some(Tiny::gemma3(), Chosen::Every(3)),
        some(Tiny::gemma3(), Chosen::Listed(vec![0])),
    ]
}

/// Feeds a prompt in chunks, then single tokens, and compares the logits after each.
fn assert_every_step(tiny: &Tiny, model: &CausalLm, chunk: usize, tolerance: f32) {
    let ids = tiny.prompt(POSITIONS, 3);
    let expected = reference::every(tiny, &tiny.tensors(), &ids);
    let mut cache = model.cache(1, POSITIONS).expect("a cache");
    let ends = (chunk..PROMPT).step_by(chunk).chain(PROMPT..=POSITIONS);
    let mut from = 0;
    for end in ends {
        let got = feed(model, &mut cache, &[&ids[from..end]], &[end.max(PROMPT)]).remove(0);
        let apart = distance(&expected[end - 1], &got);
        assert!(
            apart <= tolerance,
            "{tiny:?}, chunks of {chunk}, at {end}: {apart}"
        );
        assert_eq!(cache.lens(), [end]);
        from = end;
    }
}

#[test]
fn chunks_shorter_and_longer_than_the_window_then_single_tokens() {
    for tiny in windowed() {
        let model = tiny.load();
        for chunk in [1, 5, 9, 10, 40] {
            assert_every_step(&tiny, &model, chunk, TOLERANCE);
        }
    }
}

#[test]
fn in_a_cache_of_bytes() {
    for tiny in [Tiny::mistral(), Tiny::ministral(), Tiny::gemma3()] {
        let int8 = tiny.try_load_with(&tiny.tensors(), |options| options.model.kv = KvType::Int8);
        let int8 = int8.expect("a sound checkpoint");
        for chunk in [1, 10, 40] {
            assert_every_step(&tiny, &int8, chunk, TOLERANCE_INT8);
        }
    }
}

/// Sequences of a batch pass their windows at different steps, and one starts when the other is done with several.
#[test]
fn sequences_of_different_lengths() {
    for tiny in windowed() {
        let model = tiny.load();
        let ids = [tiny.prompt(POSITIONS, 1), tiny.prompt(POSITIONS, 2)];
        let expected = ids
            .each_ref()
            .map(|ids| reference::every(&tiny, &tiny.tensors(), ids));
        let mut cache = model.cache(2, POSITIONS).expect("a cache");
        let mut at = [0, 0];
        let steps = [[40, 1], [3, 7], [1, 1], [20, 9], [1, 30], [11, 2]];
        for step in steps.into_iter().chain([[1, 1]; 30]) {
            let to = [at[0] + step[0], at[1] + step[1]];
            let chunk = [0, 1].map(|b| &ids[b][at[b]..to[b]]);
            let got = feed(&model, &mut cache, &chunk, &to);
            for (b, got) in got.iter().enumerate() {
                let apart = distance(&expected[b][to[b] - 1], got);
                assert!(apart <= TOLERANCE, "{tiny:?}, {b} at {}: {apart}", to[b]);
            }
            at = to;
        }
    }
}
