//! Taking tensors: each once, of the right shape and dtype, and none forgotten.
//!
//! Also the shard index, whose map and shards must agree both ways.

mod support;

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use sparse_accelerate_checkpoint::{
    CheckpointError, IndexError, ModelDir, WeightDtype, Weights, inspect,
};
use support::{llama_config, model_dir, put, safetensors_bytes, safetensors_f32};
use tempfile::TempDir;

const INDEX: &str = "model.safetensors.index.json";

fn weights(dir: &Path) -> Result<Weights, CheckpointError> {
    ModelDir::open(dir).expect("a sound directory").weights()
}

/// A directory with two shards and the index given as text.
fn sharded(index: &str) -> TempDir {
    let dir = model_dir();
    fs::remove_file(dir.path().join("model.safetensors")).expect("it is there");
    put(
        dir.path(),
        "one.safetensors",
        &safetensors_f32(&[("a", &[1], &[1.0])]),
    );
    put(
        dir.path(),
        "two.safetensors",
        &safetensors_f32(&[("b", &[1], &[2.0]), ("c", &[1], &[3.0])]),
    );
    put(dir.path(), INDEX, index.as_bytes());
    dir
}

fn index_fault(index: &str) -> IndexError {
    match weights(sharded(index).path()) {
        Err(CheckpointError::Index { source, .. }) => source,
        other => panic!("expected a fault of the index, got {other:?}"),
    }
}

#[test]
fn a_tensor_is_taken_once() {
    let dir = model_dir();
    let mut weights = weights(dir.path()).expect("sound");
    assert_eq!(
        weights.names().collect::<Vec<_>>(),
        ["a.weight", "b.weight"]
    );
    assert_eq!(weights.total_bytes(), 20);
    let view = weights.take("a.weight", &[2, 2]).expect("there");
    assert_eq!(
        (view.dtype, view.shape.as_slice(), view.bytes.len()),
        (WeightDtype::F32, &[2, 2][..], 16)
    );
    assert_eq!(view.to_f32(), [1.0, 2.0, 3.0, 4.0]);
    let again = weights.take("a.weight", &[2, 2]).expect_err("taken");
    assert!(
        matches!(again, CheckpointError::TensorTwice { .. }),
        "{again}"
    );
}

#[test]
fn a_missing_tensor_comes_with_near_names() {
    let dir = model_dir();
    let mut weights = weights(dir.path()).expect("sound");
    match weights.take("a.weigth", &[2, 2]) {
        Err(CheckpointError::MissingTensor { near, .. }) => assert_eq!(near[0], "a.weight"),
        other => panic!("{other:?}"),
    }
    let message = weights
        .take("lm_head.weight", &[1])
        .expect_err("missing")
        .to_string();
    assert!(message.contains("lm_head.weight"), "{message}");
}

#[test]
fn a_wrong_shape_does_not_use_the_tensor_up() {
    let dir = model_dir();
    let mut weights = weights(dir.path()).expect("sound");
    for shape in [&[4][..], &[2, 3], &[2, 2, 1], &[]] {
        let error = weights.take("a.weight", shape).expect_err("another shape");
        assert!(
            matches!(error, CheckpointError::TensorShape { .. }),
            "{error}"
        );
    }
    assert!(weights.take("a.weight", &[2, 2]).is_ok());
}

#[test]
fn only_plain_floats_are_taken() {
    let dir = model_dir();
    let header = r#"{"i":{"dtype":"I32","shape":[1],"data_offsets":[0,4]},"q":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[4,6]}}"#;
    put(
        dir.path(),
        "model.safetensors",
        &safetensors_bytes(header, &[0; 6]),
    );
    let mut weights = weights(dir.path()).expect("sound");
    assert!(
        matches!(weights.take("i", &[1]), Err(CheckpointError::TensorDtype { got, .. }) if got == "I32")
    );
    assert!(matches!(
        weights.take("q", &[2]),
        Err(CheckpointError::TensorDtype { .. })
    ));
}

#[test]
fn half_types_are_read_unaligned() {
    let values = [1.5f32, -2.0, 0.0];
    let mut data = vec![7];
    data.extend(values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()));
    data.extend(values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
    // The leading byte puts everything after it at odd addresses.
    let header = r#"{"pad":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
        "b":{"dtype":"BF16","shape":[3],"data_offsets":[1,7]},"h":{"dtype":"F16","shape":[3],"data_offsets":[7,13]}}"#;
    let dir = model_dir();
    put(
        dir.path(),
        "model.safetensors",
        &safetensors_bytes(header, &data),
    );
    let mut weights = weights(dir.path()).expect("sound");
    for (name, dtype) in [("b", WeightDtype::Bf16), ("h", WeightDtype::F16)] {
        let view = weights.take(name, &[3]).expect("there");
        assert_eq!((view.dtype, view.to_f32()), (dtype, values.to_vec()));
        assert!(!view.has_non_finite());
    }
}

#[test]
fn non_finite_weights_are_seen_in_every_type() {
    let dir = model_dir();
    let mut sound = weights(dir.path()).expect("sound");
    assert!(
        !sound
            .take("a.weight", &[2, 2])
            .expect("there")
            .has_non_finite()
    );
    assert!(
        sound
            .take("b.weight", &[1])
            .expect("there")
            .has_non_finite()
    );

    let header = r#"{"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"h":{"dtype":"F16","shape":[2],"data_offsets":[4,8]}}"#;
    let mut data = [bf16::ONE, bf16::INFINITY].map(bf16::to_le_bytes).concat();
    data.extend([f16::NAN, f16::ONE].map(f16::to_le_bytes).concat());
    put(
        dir.path(),
        "model.safetensors",
        &safetensors_bytes(header, &data),
    );
    let mut weights = weights(dir.path()).expect("sound");
    assert!(weights.take("b", &[2]).expect("there").has_non_finite());
    assert!(weights.take("h", &[2]).expect("there").has_non_finite());
}

#[test]
fn a_load_accounts_for_every_tensor() {
    let dir = model_dir();
    let file = safetensors_f32(&[
        ("a", &[1], &[0.0]),
        ("b", &[1], &[0.0]),
        ("x.rotary_emb.inv_freq", &[1], &[0.0]),
    ]);
    put(dir.path(), "model.safetensors", &file);
    let mut whole = weights(dir.path()).expect("sound");
    whole.take("a", &[1]).expect("there");
    whole.ignore("b");
    whole.ignore("not there");
    whole.finish().expect("all accounted for");

    match weights(dir.path()).expect("sound").finish() {
        Err(CheckpointError::TensorsUnused { names, count }) => {
            assert_eq!((names, count), (vec!["a".into(), "b".into()], 2))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tied_model_may_hold_its_table_as_the_head() {
    let dir = model_dir();
    let file = |names: &[&str]| {
        let table = vec![2.0; 300 * 64];
        let tensors: Vec<_> = names
            .iter()
            .map(|name| (*name, &[300, 64][..], &table[..]))
            .collect();
        put(dir.path(), "model.safetensors", &safetensors_f32(&tensors));
    };
    let (table, head) = ("model.embed_tokens.weight", "lm_head.weight");
    file(&[head]);
    let mut tied = weights(dir.path()).expect("sound");
    assert_eq!(
        tied.take(table, &[300, 64]).expect("the head").to_f32()[0],
        2.0
    );
    tied.finish().expect("nothing more");
    file(&[head, table]);
    let both = weights(dir.path()).expect("sound");
    assert_eq!(both.names().collect::<Vec<_>>(), [head, table]);

    // Without the tie each is a table of its own.
    let mut config = llama_config();
    config["tie_word_embeddings"] = false.into();
    put(dir.path(), "config.json", config.to_string().as_bytes());
    file(&[head]);
    let mut untied = weights(dir.path()).expect("sound");
    let error = untied.take(table, &[300, 64]).expect_err("no such table");
    assert!(
        matches!(error, CheckpointError::MissingTensor { .. }),
        "{error}"
    );
}

#[test]
fn names_with_another_prefix_are_those_of_the_classes() {
    for prefix in [
        "",
        "module.model.",
        "_orig_mod.model.",
        "language_model.model.",
    ] {
        let dir = model_dir();
        let config = ModelDir::open(dir.path()).expect("sound").config().clone();
        let expected = config.expected_tensors();
        let stored = expected.iter().map(|(name, shape)| {
            let rest = name.strip_prefix("model.").expect("it is tied");
            let values = vec![0.5; shape.iter().product()];
            (format!("{prefix}{rest}"), shape.as_slice(), values)
        });
        let stored: Vec<_> = stored.collect();
        let tensors: Vec<_> = stored
            .iter()
            .map(|(name, shape, values)| (name.as_str(), *shape, values.as_slice()))
            .collect();
        put(dir.path(), "model.safetensors", &safetensors_f32(&tensors));
        let mut weights = weights(dir.path()).expect("sound");
        for (name, shape) in &expected {
            weights.take(name, shape).expect("there under its own name");
        }
        weights.finish().expect("nothing more");
        // A description has the names of the file.
        let seen = inspect(dir.path()).expect("sound");
        let listed: Vec<_> = seen.tensors.iter().map(|tensor| &tensor.name).collect();
        assert!(
            listed.contains(&&format!("{prefix}norm.weight")),
            "{listed:?}"
        );
        assert!(listed.is_sorted());
    }
}

#[test]
fn shards_are_one_set_of_names() {
    let dir = sharded(
        r#"{"metadata":{"total_size":12},"weight_map":{"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"}}"#,
    );
    let mut weights = weights(dir.path()).expect("sound");
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(weights.total_bytes(), 12);
    assert_eq!(weights.take("c", &[1]).expect("there").to_f32(), [3.0]);
    assert_eq!(weights.take("a", &[1]).expect("there").to_f32(), [1.0]);
}

#[test]
fn a_missing_shard() {
    let fault = index_fault(r#"{"weight_map":{"a":"one.safetensors","z":"zzz.safetensors"}}"#);
    assert!(matches!(fault, IndexError::MissingShard { shard } if shard == "zzz.safetensors"));
}

#[test]
fn a_tensor_that_is_not_in_its_shard() {
    let map = r#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors","d":"one.safetensors"}}"#;
    assert!(matches!(index_fault(map), IndexError::NotInShard { name, .. } if name == "d"));
}

#[test]
fn a_tensor_in_a_shard_but_not_in_the_map() {
    let map = r#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#;
    assert!(matches!(index_fault(map), IndexError::NotInMap { name, .. } if name == "c"));
}

#[test]
fn shard_names_stay_in_the_directory() {
    for name in [
        "../one.safetensors",
        "/one.safetensors",
        "./one.safetensors",
        "x/one.safetensors",
        r"..\\one.safetensors",
        "",
        "..",
        "config.json",
    ] {
        let fault = index_fault(&format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#));
        assert!(
            matches!(fault, IndexError::ShardName { .. }),
            "{name}: {fault}"
        );
    }
}

#[test]
fn a_map_that_is_no_map() {
    for text in ["{}", r#"{"weight_map":{}}"#] {
        assert!(matches!(index_fault(text), IndexError::WeightMap { .. }));
    }
    assert!(matches!(
        index_fault(r#"{"weight_map":{"a":"one.safetensors","a":"one.safetensors"}}"#),
        IndexError::DuplicateName { .. }
    ));
    for text in [
        "",
        "[]",
        r#"{"weight_map":[]}"#,
        r#"{"weight_map":{"a":1}}"#,
    ] {
        assert!(
            matches!(
                weights(sharded(text).path()),
                Err(CheckpointError::Json { .. })
            ),
            "{text}"
        );
    }
}

#[test]
fn no_weights_at_all() {
    let dir = model_dir();
    fs::remove_file(dir.path().join("model.safetensors")).expect("it is there");
    assert!(matches!(
        weights(dir.path()),
        Err(CheckpointError::MissingFile {
            file: "model.safetensors",
            ..
        })
    ));
}
