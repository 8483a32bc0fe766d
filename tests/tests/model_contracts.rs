//! Contracts of any model on any backend: how a prompt is cut must not show, the cache is updated
//! in place, runs repeat bit for bit, decisions are reported, damaged weights are refused by name.
//!
//! On the tiny recorded models; that their logits are right is `parity`'s to say.

use std::fs;

use safetensors::SafeTensors;
use sparse_accelerate::{
    AttentionSettings, Decision, Path, Pattern, Reason, Triangular, diagnostics::append_copies,
};
use sparse_accelerate_checkpoint::ModelDir;
use sparse_accelerate_engine::Sequence;
use sparse_accelerate_models::{CausalLm, LoadOptions, ModelError};
use sparse_accelerate_tests::{
    backends,
    models::{ROWS, Recorded, Running, TINY, distance},
};

/// Between two ways of cutting the same f32 work; logits are of order 10.
const TOLERANCE: f32 = 1e-4;

const TRIANGULAR: Triangular = Triangular {
    sink: 4,
    window: 8,
    last: 4,
};

fn settings() -> [(&'static str, AttentionSettings); 2] {
    let sparse = AttentionSettings::sparse(Pattern::Triangular(TRIANGULAR));
    [
        ("dense", AttentionSettings::dense()),
        ("triangular", sparse),
    ]
}

/// Runs `check` with every tiny model on every backend; the name is for messages.
fn on_every_model(check: impl Fn(&str, &Recorded, &CausalLm)) {
    for backend in backends::all() {
        for recorded in TINY.map(Recorded::tiny) {
            let name = format!("{} on {}", recorded.name, backend.name);
            check(&name, &recorded, &recorded.load(&backend.device));
        }
    }
}

fn assert_close(name: &str, expected: &[f32], got: &[f32]) {
    let apart = distance(expected, got);
    println!("{name}: {apart:.2e}");
    assert!(apart <= TOLERANCE, "{name}: {apart} apart");
}

#[test]
fn chunked_prefill_equals_whole() {
    on_every_model(|name, recorded, model| {
        let ids = recorded.ids(ROWS);
        for (kind, settings) in settings() {
            let mut session = Sequence::new(model, ids.len()).expect("a session");
            let mut prefill = |size: usize| {
                session
                    .prefill(ids, size.into(), &settings, &mut |_| {})
                    .expect("a prefill")
            };
            let whole = prefill(ids.len());
            for size in [1, 5, 16, 64] {
                let name = format!("{name}, {kind} by {size}");
                let chunked = prefill(size);
                assert_close(&name, &whole.logits, &chunked.logits);
                assert_eq!(chunked.decisions.len(), ids.len().div_ceil(size), "{name}");
                assert!(
                    (chunked.density - whole.density).abs() < 1e-9,
                    "{name}: density"
                );
            }
        }
    });
}

#[test]
fn ragged_batch_equals_each_alone() {
    on_every_model(|name, recorded, model| {
        let ids = recorded.ids(ROWS);
        let prompts = [&ids[..37], ids, &ids[29..93]];
        let lens = prompts.map(<[u32]>::len);
        // One piece, and pieces that leave the sequences at different offsets.
        for cuts in [
            &[[37, 100, 64]][..],
            &[[1, 40, 20], [30, 1, 9], [6, 59, 35]],
        ] {
            for (kind, settings) in settings() {
                let mut batch = Running::new(model, 3, 100);
                let mut got = Vec::new();
                for piece in cuts {
                    let at = batch.cache.lens().to_vec();
                    let ids = [0, 1, 2].map(|b| &prompts[b][at[b]..at[b] + piece[b]]);
                    got = batch.feed(&ids, &lens, &settings);
                }
                assert_eq!(batch.cache.lens(), lens);
                for (b, prompt) in prompts.iter().enumerate() {
                    let alone = Running::new(model, 1, 100).chunks(prompt, 100, &settings);
                    let name = format!("{name}, {kind}, {} pieces, sequence {b}", cuts.len());
                    assert_close(&name, &alone[0], &got[b]);
                }
            }
        }
    });
}

#[test]
fn two_runs_are_bitwise_equal() {
    on_every_model(|name, recorded, model| {
        let ids = recorded.ids(ROWS);
        let bits = |rows: Vec<Vec<f32>>| -> Vec<u32> {
            rows.iter().flatten().map(|value| value.to_bits()).collect()
        };
        for (kind, settings) in settings() {
            let run = || bits(Running::new(model, 1, ids.len()).chunks(ids, 33, &settings));
            let first = run();
            for _ in 0..3 {
                assert!(
                    first == run(),
                    "{name}, {kind}: another run gave other bits"
                );
            }
        }
    });
}

/// The counter serves the whole program: of all tests in this file only this one holds a handle.
#[test]
fn the_cache_is_updated_in_place_unless_a_handle_is_held() {
    on_every_model(|name, recorded, model| {
        let ids = recorded.ids(ROWS);
        let dense = AttentionSettings::dense();
        let before = append_copies();
        for (_, settings) in settings() {
            let mut running = Running::new(model, 1, ids.len() + 8);
            running.chunks(ids, 16, &settings);
            for step in 0..8 {
                running.feed(&[&[7]], &[ids.len() + step + 1], &dense);
            }
            assert_eq!(
                append_copies(),
                before,
                "{name}: prefill or decode copied the cache"
            );
        }

        let mut running = Running::new(model, 1, ids.len());
        running.feed(&[&ids[..50]], &[ids.len()], &dense);
        let held = running.cache.key(1).expect("layer");
        let kept = held.clone().into_data();
        running.feed(&[&ids[50..]], &[ids.len()], &dense);
        assert_eq!(
            append_copies(),
            before + 1,
            "{name}: one handle to one tensor was held"
        );
        assert!(
            held.into_data() == kept,
            "{name}: the handle's view changed under it"
        );
    });
}

/// Kept pairs and all that a model lets the rows of a prompt see, counted from the definition.
fn pairs(len: usize, window: Option<usize>) -> (u64, u64) {
    let all = (0..len).flat_map(|row| (0..=row).map(move |key| (row, key)));
    let all = all.filter(|(row, key)| window.is_none_or(|window| row - key < window));
    let near = |row, key| key < TRIANGULAR.sink || row - key < TRIANGULAR.window;
    let kept = all.clone();
    let kept = kept.filter(|&(row, key)| near(row, key) || row + TRIANGULAR.last >= len);
    (kept.count() as u64, all.count() as u64)
}

#[test]
fn decisions_tell_path_density_and_reason() {
    on_every_model(|name, recorded, model| {
        let ids = recorded.ids(ROWS);
        // The decision of a model is that of its layers without a window, where it has both.
        let (kept, causal) = pairs(ids.len(), model.config().common_window());
        let [(_, dense), (_, sparse)] = settings();
        let decide = |settings: &AttentionSettings| -> Decision {
            let mut running = Running::new(model, 1, ids.len());
            running.chunks(ids, ids.len(), settings);
            running.decisions[0]
        };
        let auto = |min_sparse_len| AttentionSettings {
            min_sparse_len,
            pattern: sparse.pattern,
            ..AttentionSettings::default()
        };
        let prompt = ids.len();
        let expected = [
            (dense, Path::Dense, Reason::DenseRequested),
            (sparse.clone(), Path::Sparse, Reason::SparseRequested),
            (
                auto(prompt),
                Path::Sparse,
                Reason::AtOrAboveThreshold {
                    prompt,
                    threshold: prompt,
                },
            ),
            (
                auto(101),
                Path::Dense,
                Reason::BelowThreshold {
                    prompt,
                    threshold: 101,
                },
            ),
        ];
        for (settings, path, reason) in expected {
            let decision = decide(&settings);
            assert_eq!((decision.path, decision.reason), (path, reason), "{name}");
            assert_eq!(decision.causal_pairs, causal, "{name}");
            let (density, pattern) = match path {
                Path::Sparse => (kept as f64 / causal as f64, sparse.pattern),
                Path::Dense => (1.0, Pattern::Dense),
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(decision.pattern, pattern, "{name}");
            let apart = (decision.density.expect("known") - density).abs();
            assert!(apart < 1e-12, "{name}: {decision}");
        }
        let mut chunked = Running::new(model, 1, ids.len());
        chunked.chunks(ids, 5, &sparse);
        let [first, .., last] = chunked.decisions.as_slice() else {
            panic!("{name}: one decision a chunk");
        };
        let first = (first.path, first.reason);
        assert_eq!(first, (Path::Dense, Reason::PatternKeepsAll), "{name}");
        assert_eq!(last.reason, Reason::SparseRequested, "{name}");
        assert!(last.density < Some(1.0), "{name}: {last}");
        assert!(
            kept < causal * 2 / 3,
            "the pattern must leave something out: {kept} of {causal}"
        );
    });
}

#[test]
fn non_finite_weights_are_named() {
    const TENSOR: &str = "model.layers.1.mlp.down_proj.weight";
    for backend in backends::all() {
        for recorded in TINY.map(Recorded::tiny) {
            let folder = tempfile::tempdir().expect("a temporary folder");
            for file in ["config.json", "tokenizer.json", "model.safetensors"] {
                fs::copy(recorded.dir.path().join(file), folder.path().join(file)).expect(file);
            }
            let file = folder.path().join("model.safetensors");
            let mut bytes = fs::read(&file).expect("the weights");
            let weights = SafeTensors::deserialize(&bytes).expect("the weights");
            let tensor = weights.tensor(TENSOR).expect(TENSOR).data();
            let last = tensor.as_ptr_range().end as usize - bytes.as_ptr() as usize - 4;
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                bytes[last..last + 4].copy_from_slice(&value.to_le_bytes());
                fs::write(&file, &bytes).expect("writable");
                let dir = ModelDir::open(folder.path()).expect("a sound folder");
                let options = LoadOptions::new(backend.device.clone());
                let error = CausalLm::load(&dir, &options, &mut |_| {}).expect_err("damaged");
                let named =
                    matches!(&error, ModelError::NonFiniteWeight { tensor } if tensor == TENSOR);
                assert!(named, "{value} on {}: {error}", backend.name);
            }
        }
    }
}
