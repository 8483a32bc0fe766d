//! Stages of a model, one after the other, are the model: the same operations, bit for bit.

use burn::tensor::Device;
use sparse_accelerate::{AttentionSettings, KvCache, Pattern, Triangular};
use sparse_accelerate_models::{
    CausalLm, LoadOptions, ModelError, Placement, StageInput, StagePart, Watch,
};

use crate::tiny::{Tiny, cache};

fn four_layers(tied: bool, tiny: Tiny) -> Tiny {
    Tiny {
        layers: 4,
        tied,
        ..tiny
    }
}

fn settings() -> AttentionSettings {
    AttentionSettings::sparse(Pattern::Triangular(Triangular {
        sink: 16,
        window: 16,
        last: 4,
    }))
}

/// Chunks of a batch through the stages; logits after the last, and every stage's cache.
fn through(
    stages: &[CausalLm],
    chunks: &[Vec<&[u32]>],
    totals: &[usize],
) -> (Vec<f32>, Vec<KvCache>) {
    let batch = totals.len();
    let capacity = totals.iter().copied().max().expect("a sequence");
    let caches = stages
        .iter()
        .map(|stage| stage.cache(batch, capacity).expect("a cache"));
    let mut caches: Vec<_> = caches.collect();
    let mut logits = Vec::new();
    for ids in chunks {
        let lens: Vec<usize> = ids.iter().map(|ids| ids.len()).collect();
        let mut states = None;
        for (stage, cache) in stages.iter().zip(&mut caches) {
            let input = match states.take() {
                None => StageInput::Tokens(ids),
                Some(states) => StageInput::Hidden {
                    states,
                    lens: &lens,
                },
            };
            let output = stage
                .forward_stage(input, totals, cache, &settings(), Watch::default())
                .expect("a stage");
            states = Some(output.hidden);
        }
        let last = stages.last().expect("a stage");
        let hidden = states.expect("hidden states");
        let made = last.logits(hidden).expect("logits");
        logits = made.try_into_vec_as::<f32>().expect("logits");
    }
    (logits, caches)
}

fn load(tiny: &Tiny, part: &StagePart) -> CausalLm {
    tiny.try_load_with(&tiny.tensors(), |options| options.part = Some(part.clone()))
        .expect("a stage")
}

#[test]
fn stages_compute_what_the_whole_model_does() {
    let models = [
        four_layers(true, Tiny::llama()),
        four_layers(false, Tiny::llama()),
        four_layers(true, Tiny::qwen2()),
        four_layers(true, Tiny::qwen3()),
        four_layers(false, Tiny::mistral()),
        four_layers(false, Tiny::ministral()),
        four_layers(false, Tiny::smollm3()),
        four_layers(true, Tiny::gemma3()),
    ];
    for tiny in models {
        let prompts = [tiny.prompt(100, 1), tiny.prompt(71, 2)];
        let chunks: Vec<Vec<&[u32]>> = vec![
            vec![&prompts[0][..33], &prompts[1][..1]],
            vec![&prompts[0][33..98], &prompts[1][1..70]],
            vec![&prompts[0][98..], &prompts[1][70..]],
        ];
        let totals = [100, 71];
        let whole = load(&tiny, &StagePart::whole(4));
        let (expected, held) = through(std::slice::from_ref(&whole), &chunks, &totals);
        assert!(expected.iter().all(|value| value.is_finite()));
        for counts in [&[2, 2][..], &[1, 2, 1], &[3, 1], &[1, 1, 1, 1]] {
            let placement = Placement::of_counts(counts).expect("a placement");
            let stages: Vec<_> = placement
                .parts()
                .iter()
                .map(|part| load(&tiny, part))
                .collect();
            let (got, caches) = through(&stages, &chunks, &totals);
            assert_eq!(got, expected, "{} {counts:?}", tiny.family);
            for (cache, part) in caches.iter().zip(placement.parts()) {
                for layer in part.layers.clone() {
                    let key = |cache: &KvCache| cache.key(layer).expect("layer").to_data();
                    assert_eq!(key(cache), key(&held[0]), "layer {layer} of {counts:?}");
                }
            }
            // Tied tables are held by both ends.
            let bytes: u64 = stages.iter().map(CausalLm::weight_bytes).sum();
            let table = if tiny.tied {
                tiny.vocab * tiny.hidden * 4
            } else {
                0
            };
            assert_eq!(bytes, whole.weight_bytes() + table as u64, "{counts:?}");
        }
    }
}

#[test]
fn a_seed_gives_stages_what_it_gives_the_model() {
    for tiny in [
        four_layers(false, Tiny::llama()),
        four_layers(true, Tiny::qwen2()),
        four_layers(false, Tiny::qwen3()),
        four_layers(true, Tiny::gemma3()),
    ] {
        let config = load(&tiny, &StagePart::whole(4)).config().clone();
        let options = |part: &StagePart| LoadOptions {
            part: Some(part.clone()),
            ..LoadOptions::new(Device::flex())
        };
        let prompt = tiny.prompt(20, 3);
        let chunks = [vec![prompt.as_slice()]];
        let placement = Placement::of_counts(&[1, 3]).expect("a placement");
        let host =
            |part: &StagePart| CausalLm::random(&config, 9, &options(part)).expect("a stage");
        let device = |part: &StagePart| {
            CausalLm::random_on_device(&config, 9, &options(part), &mut |_| {}).expect("a stage")
        };
        let draws: [&dyn Fn(&StagePart) -> CausalLm; 2] = [&host, &device];
        for draw in draws {
            let whole = [draw(&StagePart::whole(4))];
            let stages: Vec<_> = placement.parts().iter().map(draw).collect();
            let (expected, _) = through(&whole, &chunks, &[20]);
            assert_eq!(
                through(&stages, &chunks, &[20]).0,
                expected,
                "{}",
                tiny.family
            );
        }
    }
}

#[test]
fn a_stage_reads_its_own_weights_and_leaves_no_stranger() {
    let tiny = four_layers(false, Tiny::llama());
    let placement = Placement::of_counts(&[2, 2]).expect("a placement");
    let [first, second] = placement.parts() else {
        panic!("{placement:?}");
    };
    let try_part = |tensors: &crate::tiny::Tensors, part: &StagePart| {
        tiny.try_load_with(tensors, |options| options.part = Some(part.clone()))
    };
    // What another stage lacks is that stage's to refuse.
    let mut tensors = tiny.tensors();
    tensors.remove("model.layers.3.mlp.up_proj.weight");
    tensors.remove("lm_head.weight");
    assert!(try_part(&tensors, first).is_ok());
    let error = try_part(&tensors, second).expect_err("a missing tensor");
    assert!(
        error.to_string().contains("layers.3.mlp.up_proj"),
        "{error}"
    );
    // A tensor of no stage is refused by every stage.
    let mut tensors = tiny.tensors();
    tensors.insert(
        "model.layers.4.mlp.up_proj.weight".into(),
        (vec![2], vec![1.0; 2]),
    );
    for part in [first, second] {
        let error = try_part(&tensors, part).expect_err("a stranger");
        assert!(error.to_string().contains("layers.4"), "{error}");
    }
}

#[test]
fn what_a_stage_cannot_do_is_refused_by_name() {
    let tiny = four_layers(false, Tiny::llama());
    for (layers, input, output) in [
        (0..0, false, false),
        (2..5, false, true),
        (1..3, true, false),
        (0..3, true, true),
    ] {
        let part = StagePart {
            layers,
            input,
            output,
        };
        let error = tiny
            .try_load_with(&tiny.tensors(), |options| options.part = Some(part.clone()))
            .expect_err("no such stage");
        assert!(
            matches!(error, ModelError::StageOutOfRange { .. }),
            "{part:?}: {error}"
        );
    }
    let placement = Placement::of_counts(&[2, 2]).expect("a placement");
    let stages: Vec<_> = placement
        .parts()
        .iter()
        .map(|part| load(&tiny, part))
        .collect();
    let dense = AttentionSettings::dense();
    let mut first = stages[0].cache(1, 8).expect("a cache");
    let mut second = stages[1].cache(1, 8).expect("a cache");
    let device = Device::flex();
    let hidden = |rows| burn::tensor::Tensor::<2>::zeros([rows, tiny.hidden], &device);
    let states = |rows| StageInput::Hidden {
        states: hidden(rows),
        lens: &[2],
    };
    let tokens = || StageInput::Tokens(&[&[1, 2]]);
    let watch = Watch::default;
    let refused = [
        stages[0]
            .forward_stage(states(2), &[2], &mut first, &dense, watch())
            .err(),
        stages[1]
            .forward_stage(tokens(), &[2], &mut second, &dense, watch())
            .err(),
        stages[0]
            .forward(&[&[1, 2]], &[2], &mut first, &dense)
            .err(),
        stages[0].logits(hidden(1)).err(),
        // A cache of other layers.
        stages[1]
            .forward_stage(states(2), &[2], &mut first, &dense, watch())
            .err(),
        stages[1]
            .forward_stage(states(3), &[2], &mut second, &dense, watch())
            .err(),
    ];
    let lacks = |error: &Option<ModelError>| matches!(error, Some(ModelError::StageLacks { .. }));
    assert!(refused[..4].iter().all(lacks), "{refused:?}");
    let wrong_cache = refused[4].as_ref().expect("a refusal").to_string();
    assert!(
        wrong_cache.contains("from layer 0 on, not layer 2"),
        "{wrong_cache}"
    );
    assert!(
        matches!(refused[5], Some(ModelError::HiddenStates { .. })),
        "{refused:?}"
    );
    assert_eq!((first.lens(), second.lens()), (&[0][..], &[0][..]));
    // The model as one stage takes its own cache helper as before.
    let whole = tiny.load();
    assert_eq!(
        cache(&whole, 1, 8).shape(),
        whole.cache(1, 8).expect("a cache").shape()
    );
}
