//! The model steps' checks, on an empty folder and on one that looks complete.

use super::*;

fn layout(name: &str) -> Layout {
    let root = std::env::temp_dir().join(format!("xtask-model-{}-{name}", std::process::id()));
    pip::clear(&root).unwrap();
    super::super::make_dir(&root).unwrap();
    Layout {
        data: root.join(".data"),
        root,
    }
}

#[test]
fn an_empty_folder_misses_both() {
    let layout = layout("empty");
    assert!(matches!(
        DemoGguf.state(&layout).unwrap(),
        State::Missing(_)
    ));
    let State::Missing(what) = DemoModel(Build::Cpu).state(&layout).unwrap() else {
        panic!("nothing is there, so nothing can be ready");
    };
    assert!(what.contains("model.safetensors"), "{what}");
    pip::clear(&layout.root).unwrap();
}

#[test]
fn a_complete_model_is_ready_and_needs_no_download() {
    let layout = layout("complete");
    let directory = directory(&layout);
    super::super::make_dir(&directory).unwrap();
    for name in MODEL_FILES {
        fs::write(directory.join(name), "x").unwrap();
    }
    assert!(matches!(DemoGguf.state(&layout).unwrap(), State::Ready(_)));
    assert!(matches!(
        DemoModel(Build::Cpu).state(&layout).unwrap(),
        State::Ready(_)
    ));
    fs::write(directory.join("model.safetensors"), "").unwrap();
    assert_eq!(missing_files(&directory), ["model.safetensors"]);
    pip::clear(&layout.root).unwrap();
}

#[test]
fn a_file_of_the_wrong_size_is_not_the_download() {
    let layout = layout("short");
    super::super::make_dir(&layout.downloads()).unwrap();
    fs::write(layout.downloads().join(FILE), "short").unwrap();
    assert!(matches!(
        DemoGguf.state(&layout).unwrap(),
        State::Missing(_)
    ));
    pip::clear(&layout.root).unwrap();
}

#[test]
fn the_importer_is_called_with_file_folder_and_dtype() {
    let layout = layout("command");
    let line = run::line(&import(Path::new("sparse-accelerate"), &layout));
    assert!(line.starts_with("sparse-accelerate import "), "{line}");
    assert!(
        line.ends_with("smollm2-135m-instruct-f32 --dtype f32"),
        "{line}"
    );
    pip::clear(&layout.root).unwrap();
}
