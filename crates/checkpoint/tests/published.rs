//! Directories as people publish and fetch them: pointers in place of files, padding tokens past the table, marked descriptions.
//!
//! Each is the sound directory with one file changed.

mod support;

use std::fs;

use serde_json::{Value, json};
use sparse_accelerate_checkpoint::{
    CheckpointError, ImportOptions, ModelDir, WeightDtype, import_gguf, inspect,
};
use support::{byte_tokenizer, llama_config, model_dir, put, safetensors_bytes};

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:abababababababababababababababababababababababababababababababab\nsize 4976698672\n";

fn assert_pointer<T: std::fmt::Debug>(result: Result<T, CheckpointError>, file: &str) {
    let error = result.expect_err("a pointer is not the file");
    assert!(
        matches!(&error, CheckpointError::LfsPointer { path, bytes: Some(4_976_698_672) } if path.ends_with(file)),
        "{file}: {error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("this is a Git LFS pointer: fetch the file"),
        "{text}"
    );
}

#[test]
fn a_pointer_in_place_of_a_file_is_named() {
    for file in [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        let dir = model_dir();
        put(dir.path(), file, POINTER.as_bytes());
        assert_pointer(ModelDir::open(dir.path()), file);
    }
    let dir = model_dir();
    put(dir.path(), "chat_template.jinja", POINTER.as_bytes());
    let opened = ModelDir::open(dir.path()).expect("a template is an error only where it is used");
    let refused = opened
        .chat_template()
        .expect_err("a pointer is no template");
    assert!(
        refused.to_string().contains("this is a Git LFS pointer"),
        "{refused}"
    );
    let dir = model_dir();
    let path = dir.path().join("model.safetensors");
    put(dir.path(), "model.safetensors", POINTER.as_bytes());
    let weights = || {
        ModelDir::open(dir.path())
            .expect("the rest is sound")
            .weights()
    };
    assert_pointer(weights(), "model.safetensors");
    assert_pointer(inspect(dir.path()), "model.safetensors");
    assert_pointer(inspect(&path), "model.safetensors");

    fs::remove_file(path).expect("it is there");
    let index = "model.safetensors.index.json";
    put(dir.path(), index, POINTER.as_bytes());
    assert_pointer(weights(), index);
    put(
        dir.path(),
        index,
        br#"{"weight_map":{"a":"one.safetensors"}}"#,
    );
    put(dir.path(), "one.safetensors", POINTER.as_bytes());
    assert_pointer(weights(), "one.safetensors");

    put(dir.path(), "x.gguf", POINTER.as_bytes());
    let (gguf, out) = (dir.path().join("x.gguf"), dir.path().join("out"));
    let options = ImportOptions {
        dtype: WeightDtype::F32,
        tie: false,
    };
    assert_pointer(inspect(&gguf), "x.gguf");
    assert_pointer(import_gguf(&gguf, &out, &options, &mut |_| {}), "x.gguf");
}

/// The sound directory with a table of `rows`, where its tokenizer has 258, and an edit of that.
fn with_tokens(rows: usize, edit: impl FnOnce(&mut Value)) -> Result<ModelDir, CheckpointError> {
    let dir = model_dir();
    let mut config = llama_config();
    config["vocab_size"] = json!(rows);
    (config["bos_token_id"], config["eos_token_id"]) = (Value::Null, Value::Null);
    put(dir.path(), "config.json", config.to_string().as_bytes());
    let mut tokenizer = byte_tokenizer();
    edit(&mut tokenizer);
    put(
        dir.path(),
        "tokenizer.json",
        tokenizer.to_string().as_bytes(),
    );
    ModelDir::open(dir.path())
}

fn add(tokenizer: &mut Value, id: u32, content: &str, special: bool) {
    let list = tokenizer["added_tokens"].as_array_mut().expect("a list");
    list.push(json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": special }));
}

#[test]
fn tokens_past_the_table_that_no_text_gives_are_noted() {
    assert!(with_tokens(258, |_| {}).expect("sound").notes().is_empty());
    for special in [true, false] {
        let model = with_tokens(258, |tokenizer| add(tokenizer, 258, "[PAD]", special));
        let model = model.expect("nothing gives it");
        let [note] = model.notes() else {
            panic!("{:?}", model.notes());
        };
        assert!(note.contains("[PAD]") && note.contains("258"), "{note}");
        assert_eq!(model.tokenizer().encode("a", true).expect("encodes"), [97]);
    }
    // In the vocabulary itself, but no merge makes it.
    let model = with_tokens(256, |tokenizer| {
        tokenizer["model"]["vocab"]["unmade"] = json!(256)
    });
    let model = model.expect("nothing gives it");
    assert!(model.notes()[0].contains("unmade"), "{:?}", model.notes());
}

#[test]
fn tokens_past_the_table_that_text_gives_are_of_another_model() {
    let made = |tokenizer: &mut Value| {
        tokenizer["model"]["vocab"]["ab"] = json!(256);
        tokenizer["model"]["merges"] = json!([["a", "b"]]);
    };
    let far = |tokenizer: &mut Value| tokenizer["model"]["vocab"]["unmade"] = json!(1 << 20);
    for (model, last) in [
        (with_tokens(256, made), 258),
        (with_tokens(256, far), 1 << 20),
        (with_tokens(200, |_| {}), 257),
    ] {
        assert!(
            matches!(model, Err(CheckpointError::VocabMismatch { tokenizer_max, .. }) if tokenizer_max == last),
            "{model:?}"
        );
    }
}

#[test]
fn a_description_marks_what_cannot_be_run() {
    let dir = model_dir();
    let sound = inspect(dir.path()).expect("sound files");
    assert!(sound.notes.is_empty() && sound.tensors.iter().all(|tensor| tensor.supported));
    put(
        dir.path(),
        "config.json",
        br#"{"architectures": ["PhiForCausalLM"], "window": Infinity}"#,
    );
    let header = r#"{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}}"#;
    let weights = safetensors_bytes(header, &[0; 4]);
    put(dir.path(), "model.safetensors", &weights);
    let seen = inspect(dir.path()).expect("sound files");
    assert_eq!(seen.metadata["window"], "Infinity");
    let marks: Vec<bool> = seen.tensors.iter().map(|tensor| tensor.supported).collect();
    assert_eq!(marks, [false, true]);
    let notes = seen.notes.concat();
    assert!(
        notes.contains("PhiForCausalLM") && notes.contains("F8_E4M3"),
        "{notes}"
    );
}
