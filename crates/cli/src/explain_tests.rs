//! Tables, JSON and plots of choices made up here.

use sparse_accelerate::{Path, Pattern, Reason};

use super::*;

fn record(layer: usize, head: usize, choice: Choice, why: Why) -> HeadRecord {
    HeadRecord {
        layer,
        sequence: 0,
        head,
        choice,
        why,
        predicted_recall: 0.96,
        recall: 0.5,
        error: 0.0,
        density: 0.25,
        columns: 41,
        slashes: 7,
        blocks: 3,
        costs: [1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY, 0.5],
    }
}

fn chunks() -> Vec<ChunkSelection> {
    let dense = |head| HeadRecord {
        density: 1.0,
        recall: 1.0,
        ..record(0, head, Choice::Dense, Why::DenseIsCheapest)
    };
    vec![
        ChunkSelection {
            tokens: 0..256,
            heads: vec![dense(0), dense(1)],
        },
        ChunkSelection {
            tokens: 256..512,
            heads: vec![
                record(0, 0, Choice::Hybrid, Why::Cheapest),
                record(0, 1, Choice::BlockCluster, Why::MeasuredBelowFloor),
            ],
        },
    ]
}

fn decision() -> Decision {
    Decision {
        path: Path::Dense,
        pattern: Pattern::Dense,
        density: Some(1.0),
        causal_pairs: 10,
        reason: Reason::DenseRequested,
    }
}

#[test]
fn the_table_has_every_head_of_every_chunk_and_its_reason() {
    let text = text(&chunks(), &[decision()]);
    for words in [
        "tokens 0 to 256: 2 dense\n",
        "tokens 256 to 512: 1 block-cluster, 1 hybrid\n",
        "layer, head",
        "cheapest that keeps the recall floor",
        "measured recall was below the floor",
    ] {
        assert!(text.contains(words), "{words} in\n{text}");
    }
    assert_eq!(
        text.lines().filter(|line| line.starts_with("0, ")).count(),
        4
    );
}

#[test]
fn a_selector_of_the_caller_promises_and_measures_nothing() {
    let index = |head| HeadRecord {
        predicted_recall: f32::NAN,
        recall: f32::NAN,
        costs: [f32::INFINITY; 5],
        ..record(0, head, Choice::Index, Why::IndexSelector)
    };
    let chunks = [ChunkSelection {
        tokens: 0..256,
        heads: vec![index(0), index(1)],
    }];
    let text = text(&chunks, &[decision()]);
    assert!(text.contains("tokens 0 to 256: 2 index\n"), "{text}");
    let row = text.lines().find(|line| line.starts_with("0, 1"));
    let row = row.expect("a row");
    assert_eq!(
        row.split_whitespace().filter(|word| *word == "-").count(),
        4
    );
    assert!(row.contains("0.250") && row.ends_with("chosen by a selector of the caller"));
    let heads = over_chunks(&chunks);
    assert!(
        heads
            .iter()
            .all(|head| head.recall.is_nan() && head.density == 0.25)
    );
}

#[test]
fn nothing_chosen_says_why() {
    let text = text(&[], &[decision()]);
    assert!(
        text.contains("no head chose") && text.contains("dense was asked for"),
        "{text}"
    );
}

#[test]
fn chunks_weigh_by_their_pairs_and_dense_after_all_keeps_all() {
    let heads = over_chunks(&chunks());
    assert_eq!(heads.len(), 2);
    let (first, second) = (pairs(&chunks()[0]), pairs(&chunks()[1]));
    assert_eq!((first, second), (256.0 * 257.0 / 2.0, 256.0 * 769.0 / 2.0));
    assert_eq!(heads[0].choice, "hybrid");
    let density = (first + 0.25 * second) / (first + second);
    assert!((heads[0].density - density).abs() < 1e-9);
    let recall = (first + 0.5 * second) / (first + second);
    assert!((heads[0].recall - recall).abs() < 1e-9);
    assert_eq!(heads[1].recall, 1.0);
}

#[test]
fn a_file_has_the_schema_and_its_plots() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("why.json");
    let args = ExplainArgs {
        explain: Some(Some(path.clone())),
    };
    args.check().expect("a good name");
    args.show(&chunks(), &[decision()], "a model")
        .expect("written");
    let text = std::fs::read_to_string(&path).expect("json");
    let value: serde_json::Value = serde_json::from_str(&text).expect("json");
    assert_eq!(value[1]["tokens"]["start"], 256);
    let head = &value[1]["heads"][0];
    assert_eq!(head["choice"], "hybrid");
    assert_eq!(head["why"], "cheapest");
    assert_eq!(head["columns"], 41);
    assert!(head["costs"][1].is_null());
    let svg = std::fs::read_to_string(path.with_extension("svg")).expect("svg");
    assert!(svg.contains("block-cluster") && svg.contains("a model"));
    assert!(
        std::fs::read(path.with_extension("png"))
            .expect("png")
            .starts_with(b"\x89PNG")
    );
    // Nothing half-written is left beside them.
    assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 3);
}

#[test]
fn names_that_cannot_be_written_are_refused() {
    for (path, words) in [
        ("why.txt", ".json"),
        ("no/such/why.json", "no folder no/such"),
    ] {
        let args = ExplainArgs {
            explain: Some(Some(path.into())),
        };
        let error = args.check().expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
    }
}
