//! How the work is cut must not show: chunk sizes, batches, MLP rows. At most 1e-5 apart.

use crate::tiny::{Tiny, cache, distance, feed, whole};

const TOLERANCE: f32 = 1e-5;

/// One of every family, and one with a window in some layers.
fn models() -> impl Iterator<Item = Tiny> {
    Tiny::families().into_iter().chain([Tiny::ministral()])
}

#[test]
fn chunked_prefill_equals_whole() {
    for tiny in models() {
        let (model, prompt) = (tiny.load(), tiny.prompt(40, 1));
        let expected = whole(&model, &prompt);
        for size in [1, 3, 7, 40] {
            let mut cache = cache(&model, 1, 48);
            let mut got = Vec::new();
            for chunk in prompt.chunks(size) {
                got = feed(&model, &mut cache, &[chunk], &[prompt.len()]).remove(0);
            }
            assert_eq!(cache.lens(), [prompt.len()]);
            let distance = distance(&expected, &got);
            assert!(
                distance <= TOLERANCE,
                "{} by {size}: {distance}",
                tiny.family
            );
        }
    }
}

#[test]
fn ragged_batch_equals_each_alone() {
    for tiny in models() {
        ragged(&tiny);
    }
}

fn ragged(tiny: &Tiny) {
    let model = tiny.load();
    let prompts = [tiny.prompt(23, 1), tiny.prompt(5, 2), tiny.prompt(17, 3)];
    let alone: Vec<_> = prompts.iter().map(|prompt| whole(&model, prompt)).collect();
    let lens = prompts.each_ref().map(Vec::len);

    let mut at_once = cache(&model, 3, 32);
    let ids = prompts.each_ref().map(Vec::as_slice);
    let got = feed(&model, &mut at_once, &ids, &lens);
    for (alone, got) in alone.iter().zip(&got) {
        assert!(distance(alone, got) <= TOLERANCE);
    }

    // Two chunks that leave the sequences at different offsets.
    let cuts = [20, 1, 9];
    let mut twice = cache(&model, 3, 32);
    let head = [0, 1, 2].map(|b| &ids[b][..cuts[b]]);
    let tail = [0, 1, 2].map(|b| &ids[b][cuts[b]..]);
    feed(&model, &mut twice, &head, &lens);
    assert_eq!(twice.lens(), cuts);
    let got = feed(&model, &mut twice, &tail, &lens);
    for (alone, got) in alone.iter().zip(&got) {
        assert!(distance(alone, got) <= TOLERANCE);
    }
}

#[test]
fn mlp_rows_do_not_change_results() {
    let tiny = Tiny::llama();
    let prompt = tiny.prompt(21, 4);
    let expected = whole(&tiny.load(), &prompt);
    for rows in [0, 1, 5, 20, 21] {
        let model = tiny
            .try_load(&tiny.tensors(), rows)
            .expect("a sound checkpoint");
        assert!(
            distance(&expected, &whole(&model, &prompt)) <= TOLERANCE,
            "{rows} rows"
        );
    }
}

#[test]
fn decoding_goes_on_where_prefill_stopped() {
    for tiny in models() {
        let (model, prompt) = (tiny.load(), tiny.prompt(12, 5));
        let mut cache = cache(&model, 1, 16);
        feed(&model, &mut cache, &[&prompt], &[12]);
        let extended: Vec<u32> = prompt.iter().copied().chain([4, 9]).collect();
        feed(&model, &mut cache, &[&[4]], &[12]);
        let got = feed(&model, &mut cache, &[&[9]], &[12]).remove(0);
        let distance = distance(&whole(&model, &extended), &got);
        assert!(distance <= TOLERANCE, "{}: {distance}", tiny.family);
    }
}
