//! Refusals of loading and running, by name.

use burn::tensor::Device;
use sparse_accelerate::AttentionSettings;
use sparse_accelerate_checkpoint::ModelDir;
use sparse_accelerate_models::{CausalLm, LoadOptions, ModelError};

use crate::tiny::{Tensors, Tiny, cache, distance, whole};

const KEY: &str = "model.layers.1.self_attn.k_proj.weight";

/// The error of loading Llama's tensors after `change`.
fn refused(change: impl FnOnce(&mut Tensors)) -> ModelError {
    let tiny = Tiny::llama();
    let mut tensors = tiny.tensors();
    change(&mut tensors);
    tiny.try_load(&tensors, 8).expect_err("a broken checkpoint")
}

fn assert_names(error: &ModelError, tensor: &str) {
    assert!(matches!(error, ModelError::Checkpoint(_)), "{error:?}");
    assert!(error.to_string().contains(tensor), "{error}");
}

#[test]
fn a_missing_tensor_is_named() {
    let error = refused(|tensors| drop(tensors.remove(KEY)));
    assert_names(&error, KEY);
}

#[test]
fn an_unused_tensor_is_named() {
    let name = "model.layers.2.input_layernorm.weight";
    let error = refused(|tensors| {
        tensors.insert(name.into(), (vec![48], vec![1.0; 48]));
    });
    assert_names(&error, name);
}

#[test]
fn a_wrong_shape_is_named() {
    let error = refused(|tensors| {
        let (shape, _) = tensors.get_mut(KEY).expect("the key projection");
        shape.reverse();
    });
    assert_names(&error, KEY);
}

#[test]
fn a_nan_is_named() {
    for value in [f32::NAN, f32::INFINITY] {
        let error = refused(|tensors| {
            let (_, values) = tensors.get_mut(KEY).expect("the key projection");
            values[11] = value;
        });
        let named = matches!(&error, ModelError::NonFiniteWeight { tensor } if tensor == KEY);
        assert!(named, "{error:?}");
    }
}

#[test]
fn a_tied_head_that_was_written_is_ignored() {
    let tiny = Tiny::llama();
    let mut tensors = tiny.tensors();
    let embedding = tensors["model.embed_tokens.weight"].clone();
    tensors.insert("lm_head.weight".into(), embedding);
    let model = tiny
        .try_load(&tensors, 8)
        .expect("a tied head to be ignored");
    let prompt = tiny.prompt(6, 0);
    assert_eq!(
        distance(&whole(&tiny.load(), &prompt), &whole(&model, &prompt)),
        0.0
    );
}

#[test]
fn progress_counts_every_tensor_once() {
    for tiny in Tiny::families() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tensors = tiny.tensors();
        tiny.write(dir.path(), &tensors);
        let dir = ModelDir::open(dir.path()).expect("a model folder");
        let options = LoadOptions::new(Device::flex());
        let mut seen = Vec::new();
        let model = CausalLm::load(&dir, &options, &mut |progress| {
            assert_eq!(progress.index, seen.len());
            assert_eq!(progress.total, tensors.len());
            assert!(progress.bytes <= progress.total_bytes);
            seen.push((
                progress.tensor.to_owned(),
                progress.bytes,
                progress.total_bytes,
            ));
        })
        .expect("a sound checkpoint");
        let values: usize = tensors.values().map(|(_, values)| values.len()).sum();
        let (_, bytes, total) = seen.last().expect("progress").clone();
        assert_eq!((bytes, total), (4 * values as u64, 4 * values as u64));
        assert_eq!(model.weight_bytes(), bytes);
        let mut names: Vec<_> = seen.into_iter().map(|(name, ..)| name).collect();
        names.sort();
        assert_eq!(names, tensors.into_keys().collect::<Vec<_>>());
    }
}

#[test]
fn forward_refuses_bad_input_and_leaves_the_cache() {
    let tiny = Tiny::llama();
    let model = tiny.load();
    let mut cache = cache(&model, 1, 8);
    let settings = AttentionSettings::dense();
    let mut refused = |ids: &[&[u32]], lens: &[usize]| {
        let error = model
            .forward(ids, lens, &mut cache, &settings)
            .expect_err("bad input");
        assert_eq!(cache.lens(), [0]);
        error
    };
    assert!(matches!(refused(&[], &[]), ModelError::EmptyInput));
    assert!(matches!(refused(&[&[]], &[1]), ModelError::EmptyInput));
    let error = refused(&[&[3, 61]], &[2]);
    assert!(matches!(
        error,
        ModelError::TokenOutOfRange { id: 61, vocab: 61 }
    ));
    let error = refused(&[&[1]], &[129]);
    assert!(matches!(
        error,
        ModelError::PromptTooLong {
            got: 129,
            limit: 128
        }
    ));
    assert!(matches!(
        refused(&[&[1]], &[1, 1]),
        ModelError::BatchMismatch { .. }
    ));
    assert!(
        matches!(refused(&[&[1; 9]], &[9]), ModelError::Attention(_)),
        "a full cache"
    );
    assert!(
        matches!(refused(&[&[1], &[1]], &[1, 1]), ModelError::Attention(_)),
        "the batch"
    );
}

#[test]
fn a_head_dimension_off_the_grid_is_refused() {
    let tiny = Tiny {
        head_dim: 12,
        ..Tiny::llama()
    };
    let error = tiny.try_load(&tiny.tensors(), 8).expect_err("head_dim 12");
    assert!(matches!(
        error,
        ModelError::UnsupportedConfig {
            field: "head_dim",
            ..
        } | ModelError::Checkpoint(_)
    ));
}
