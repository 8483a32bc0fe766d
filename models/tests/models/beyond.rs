//! Sequences many windows long: whatever a cache lets go of, logits are those of the whole sequence.
//!
//! Every chunk and every new token is compared with the reference, at most 1e-4 apart.

use sparse_accelerate::{KvCache, KvType};
use sparse_accelerate_models::CausalLm;

use crate::{
    reference,
    tiny::{Chosen, Tiny, distance, feed},
};

/// Positions of a sequence: 66 windows of 9, and more than twice what a cache keeps of a layer with such a window.
const POSITIONS: usize = 600;
/// Tokens of the prompt; those that follow come one by one.
const PROMPT: usize = 420;
const TOLERANCE: f32 = 1e-4;
/// Half a scale of 1/127 an element; logits reach about 3.
const TOLERANCE_INT8: f32 = 0.1;

/// Models with a window of 9 keys in every layer, in some, and chosen in every way that a configuration has.
fn windowed() -> Vec<Tiny> {
    let some = |tiny: Tiny, full: Chosen| Tiny {
        window: Some(9),
        layers: 3,
        full,
        ..long(tiny)
    };
    vec![
        long(Tiny::mistral()),
        long(Tiny::ministral()),
        some(Tiny::phi3(), Chosen::None),
        some(Tiny::qwen2(), Chosen::Before(1)),
        some(Tiny::qwen2(), Chosen::Listed(vec![0, 2])),
        some(Tiny::qwen3(), Chosen::Before(2)),
        some(Tiny::qwen3(), Chosen::None),
        some(Tiny::gemma3(), Chosen::Every(3)),
        some(Tiny::gemma3(), Chosen::Listed(vec![0])),
    ]
}

fn long(tiny: Tiny) -> Tiny {
    Tiny {
        positions: POSITIONS,
        ..tiny
    }
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
        // Shorter than the window, as long, beyond the room beside it, and longer than all that a layer keeps.
        for chunk in [5, 9, 10, 140, 300] {
            assert_every_step(&tiny, &model, chunk, TOLERANCE);
        }
    }
}

#[test]
fn a_cache_keeps_the_window_and_little_more() {
    let tiny = Tiny {
        window: Some(9),
        ..long(Tiny::gemma3())
    };
    let (model, ids) = (tiny.load(), tiny.prompt(POSITIONS, 3));
    let mut cache = model.cache(1, POSITIONS).expect("a cache");
    let rows = |cache: &KvCache, layer: usize| cache.key(layer).expect("a layer").dims()[2];
    for end in [300, 301, 420, 600] {
        let from = cache.lens()[0];
        feed(&model, &mut cache, &[&ids[from..end]], &[end]);
        let kept: Vec<_> = (0..tiny.layers).map(|layer| rows(&cache, layer)).collect();
        let expected = (0..tiny.layers).map(|layer| match tiny.full.has(layer) {
            true => POSITIONS,
            false => 9 + 256,
        });
        assert_eq!(kept, expected.collect::<Vec<_>>());
        assert!(kept.contains(&POSITIONS) && kept.contains(&265));
    }
    // The last tokens can be taken back, and no more than those.
    assert!(cache.truncate(POSITIONS - 128));
    let again = feed(&model, &mut cache, &[&ids[POSITIONS - 128..]], &[POSITIONS]).remove(0);
    let expected = reference::every(&tiny, &tiny.tensors(), &ids);
    assert!(distance(&expected[POSITIONS - 1], &again) <= TOLERANCE);
    assert!(!cache.truncate(POSITIONS - 300));
    assert_eq!(cache.lens(), [0]);
}

#[test]
fn in_a_cache_of_bytes() {
    for tiny in [Tiny::mistral(), Tiny::ministral(), Tiny::gemma3()].map(long) {
        let int8 = tiny.try_load_with(&tiny.tensors(), |options| options.model.kv = KvType::Int8);
        let int8 = int8.expect("a sound checkpoint");
        for chunk in [1, 140, 300] {
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
        let steps = [[300, 1], [3, 270], [1, 1], [140, 9], [1, 130], [11, 2]];
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
