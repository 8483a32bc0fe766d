//! Sequences of a model whose layers keep a window alone, on one device and in stages: prefixes, what can be taken back, memory.
#![cfg(feature = "flex")]

use burn::tensor::Device;
use sparse_accelerate::{AttentionSettings, Dynamic, Path, Pattern};
use sparse_accelerate_checkpoint::ModelConfig;
use sparse_accelerate_engine::{
    EngineError, MemoryPlan, Pipeline, PipelineOptions, Sequence, memory::Workload,
};
use sparse_accelerate_models::{
    CausalLm, LayerObserver, LayerView, LoadOptions, ModelError, Placement,
};

/// Layers 1 and 3 see everything, the others 32 keys: their room is 288 tokens.
const CONFIG: &str = r#"{
    "architectures": ["Gemma3ForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 97,
    "max_position_embeddings": 2048, "sliding_window": 32, "sliding_window_pattern": 2,
    "query_pre_attn_scalar": 32, "torch_dtype": "float32"
}"#;
const SEED: u64 = 5;
const CAPACITY: usize = 1000;

fn config() -> ModelConfig {
    ModelConfig::from_json(CONFIG).expect("config")
}

fn model() -> CausalLm {
    CausalLm::random(&config(), SEED, &LoadOptions::new(Device::flex())).expect("a model")
}

fn pipeline(counts: &[usize]) -> Pipeline {
    let devices = counts.iter().map(|_| Device::flex()).collect();
    let placement = Placement::of_counts(counts).expect("a placement");
    let options = PipelineOptions::new(devices, placement);
    Pipeline::random(&config(), SEED, false, &options, &mut |_, _| ()).expect("a pipeline")
}

fn prompt(len: usize, seed: usize) -> Vec<u32> {
    let token = |i: usize| ((i * i * 7 + i * 13 + seed * 29 + 3) % 97) as u32;
    (0..len).map(token).collect()
}

/// The logits after a prompt and after three tokens more.
fn everything(
    sequence: &mut Sequence<'_>,
    ids: &[u32],
    chunk: usize,
    settings: &AttentionSettings,
) -> Vec<Vec<f32>> {
    let prefill = sequence.prefill(ids, chunk.into(), settings, &mut |_| ());
    let decoded = |token| sequence.decode(token).expect("a token");
    let mut all = vec![prefill.expect("a prefill").logits];
    all.extend([3, 96, 0].map(decoded));
    all
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4)
}

#[test]
fn stages_equal_one_device_and_chunks_the_whole() {
    let (model, ids) = (model(), prompt(700, 1));
    let mut one = Sequence::new(&model, CAPACITY).expect("a sequence");
    let dense = AttentionSettings::dense();
    let dynamic = AttentionSettings::sparse(Pattern::Dynamic(Dynamic::default()));
    let whole = everything(&mut one, &ids, 700, &dense);
    // A stage of windows alone, and one without.
    for counts in [&[2, 2][..], &[1, 1, 1, 1], &[1, 3]] {
        let pipeline = pipeline(counts);
        let mut many = pipeline.sequence(CAPACITY).expect("a sequence");
        for settings in [&dense, &dynamic] {
            for chunk in [64, 256, 700] {
                let expected = everything(&mut one, &ids, chunk, settings);
                let got = everything(&mut many, &ids, chunk, settings);
                assert_eq!(got, expected, "{counts:?} {chunk}");
                if settings.selects() {
                    continue;
                }
                for (got, whole) in got.iter().zip(&whole) {
                    assert!(close(got, whole), "{counts:?} {chunk}");
                }
            }
        }
    }
}

#[test]
fn heads_choose_in_layers_without_a_window_alone() {
    let dynamic = AttentionSettings::sparse(Pattern::Dynamic(Dynamic::default()));
    let model = model();
    let mut one = Sequence::new(&model, CAPACITY).expect("a sequence");
    let prefill = one.prefill(&prompt(700, 2), 350.into(), &dynamic, &mut |_| ());
    let prefill = prefill.expect("a prefill");
    assert!(prefill.decisions.iter().all(|d| d.path == Path::Selected));
    for chunk in &prefill.selection {
        let mut layers: Vec<_> = chunk.heads.iter().map(|head| head.layer).collect();
        layers.dedup();
        assert_eq!(layers, [1, 3]);
    }
}

struct Nobody;

impl LayerObserver for Nobody {
    fn layer(&mut self, _: &LayerView<'_>) -> Result<(), ModelError> {
        Ok(())
    }
}

#[test]
fn hidden_keys_cannot_be_looked_at() {
    let (model, dense) = (model(), AttentionSettings::dense());
    let mut one = Sequence::new(&model, CAPACITY).expect("a sequence");
    let mut look = |len| {
        let mut nobody = Nobody;
        let ids = prompt(len, 1);
        one.prefill_observed(&ids, 64.into(), &dense, Some(&mut nobody), &mut |_| ())
            .map(drop)
    };
    look(32).expect("a window of 32 shows all");
    let error = look(33).expect_err("a window hides a key");
    assert!(
        error.is_usage() && error.to_string().contains("32 keys"),
        "{error}"
    );
}

/// A further turn reuses what is held as long as no window has let go of a key that it sees; else the whole prompt is computed anew.
#[test]
fn a_prefix_is_reused_or_computed_anew() {
    let (model, stages, dense) = (model(), pipeline(&[3, 1]), AttentionSettings::dense());
    let document = prompt(600, 4);
    let with = |question: &[u32]| [&document[..], question].concat();
    let mut one = Sequence::new(&model, CAPACITY).expect("a sequence");
    let mut many = stages.sequence(CAPACITY).expect("a sequence");
    for sequence in [&mut one, &mut many] {
        for (before, reused) in [(100, 600), (128, 600), (129, 0), (300, 0)] {
            let ids = with(&prompt(40, 7));
            let fresh = sequence.prefill(&ids, 256.into(), &dense, &mut |_| ());
            let fresh = fresh.expect("a prefill");
            let longer = with(&prompt(before, 5));
            let held = sequence.prefill(&longer, 256.into(), &dense, &mut |_| ());
            held.expect("a prefill");
            let again = sequence.resume(&ids, 256.into(), &dense, &mut |_| ());
            let again = again.expect("a prefill");
            assert_eq!(
                (again.reused, again.tokens),
                (reused, 640 - reused),
                "{before}"
            );
            assert!(close(&again.logits, &fresh.logits), "{before}");
            assert_eq!(sequence.tokens(), ids);
        }
        assert_eq!(sequence.rewind(600).expect("rewound"), 600);
        assert_eq!(sequence.rewind(100).expect("rewound"), 0);
        assert!(sequence.tokens().is_empty());
        // It goes on from nothing.
        let begun = sequence.prefill(&document, 256.into(), &dense, &mut |_| ());
        assert_eq!(begun.expect("a prefill").tokens, 600);
    }
}

#[test]
fn a_cancelled_prompt_leaves_what_can_be_kept() {
    let (model, stages, dense) = (model(), pipeline(&[2, 2]), AttentionSettings::dense());
    let mut one = Sequence::new(&model, CAPACITY).expect("a sequence");
    let mut many = stages.sequence(CAPACITY).expect("a sequence");
    let (first, second) = (prompt(100, 1), prompt(800, 2));
    let expected = everything(&mut one, &first, 64, &dense);
    for sequence in [&mut one, &mut many] {
        sequence.rewind(0).expect("rewound");
        sequence
            .prefill(&first, 64.into(), &dense, &mut |_| ())
            .expect("a prefill");
        let cancel = sequence.cancel();
        let asked = cancel.clone();
        let error = sequence.extend(&second, 32.into(), &dense, &mut |progress| {
            if progress.done >= 640 {
                asked.cancel();
            }
        });
        let error = error.expect_err("cancelled");
        assert!(matches!(error, EngineError::Cancelled { .. }), "{error}");
        cancel.reset();
        // Its windows had gone past the first prompt.
        assert!(sequence.tokens().is_empty());
        assert_eq!(everything(sequence, &first, 64, &dense), expected);
    }
}

#[test]
fn memory_is_that_of_the_windows() {
    let (config, load) = (config(), |capacity| Workload::new(4, capacity, 128));
    let cache = |capacity| MemoryPlan::new(&config, &load(capacity)).cache;
    let token = 2 * 2 * 32 * 4;
    assert_eq!(cache(200), 4 * 200 * token);
    assert_eq!(cache(1000), (2 * 1000 + 2 * 288) * token);
    // A longer chunk passes through tensors of its own: the window, 128 tokens before it, and the chunk. Norms of heads take more.
    let config = ModelConfig {
        head_norms: false,
        ..config
    };
    let full = ModelConfig {
        attention: vec![config.attention[1]; 4],
        ..config.clone()
    };
    let activations = |config: &ModelConfig, chunk| {
        let plan = MemoryPlan::new(config, &Workload::new(4, 1000, chunk));
        plan.stages[0].workspace.activations
    };
    for (chunk, spilled) in [(128, 0), (129, 0), (130, 289), (512, 671), (1000, 1000)] {
        let beside = activations(&config, chunk) - activations(&full, chunk);
        assert_eq!(beside, spilled * token, "{chunk}");
    }
}
