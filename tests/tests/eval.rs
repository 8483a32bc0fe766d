//! The evaluations on a real model: what works passes, and what is broken is caught.
//!
//! A harness that gives every pattern good marks is worse than none, so a pattern that cannot work, a
//! short window without sinks and dense last rows, must fail where dense passes.

use std::{ops::ControlFlow, path::Path};

use burn::tensor::Device;
use sparse_accelerate_engine::attention::parse_attentions;
use sparse_accelerate_engine::{Cancel, Loaded};
use sparse_accelerate_eval::{
    AnswersPlan, Corpus, FidelityPlan, Format, NEEDLE, Prompts, RunProgress, Sources, Subject,
    run_answers, run_fidelity,
};
use sparse_accelerate_report::record::{
    AnswerRow, FidelityRow, HeadRow, Header, Line, RunFile, SCHEMA, read,
};
use sparse_accelerate_tests::models::Recorded;

const TEXT: &str = include_str!("../../demo/jargon.txt");
const BROKEN: &str = "triangular:sink=0:window=64:last=0";
/// Tokens of the prompts.
const LENGTH: usize = 1024;

fn header() -> Header {
    Header {
        schema: SCHEMA,
        command: "eval test".into(),
        arguments: Vec::new(),
        version: "0".into(),
        commit: None,
        started: "2026-11-25T21:00:00Z".into(),
        seed: 1,
        model: None,
        device: "flex".into(),
        dtype: "f32".into(),
        chunk: 512,
        settings: serde_json::Map::new(),
    }
}

fn rows(path: &Path) -> Vec<Line> {
    read(path).expect("a run file").1
}

#[test]
fn a_broken_pattern_fails_where_dense_passes() {
    let smollm2 = Recorded::smollm2();
    let model = Loaded::Whole(smollm2.load(&Device::flex()));
    let dir = &smollm2.dir;
    let corpus = Corpus::new("jargon.txt", TEXT, dir.tokenizer()).expect("a text");
    let folder = tempfile::tempdir().expect("a folder");
    let subject = Subject {
        dir,
        model: &model,
        chunk: 512,
        warm_up: false,
        cancel: &Cancel::default(),
    };
    let go = &mut |_: &RunProgress<'_>| ControlFlow::Continue(());

    let path = folder.path().join("needle.jsonl");
    let (mut file, finished) = RunFile::create_or_resume(&path, &header()).expect("a file");
    let plan = AnswersPlan {
        attentions: parse_attentions(&format!("dense,{BROKEN}")).expect("attentions"),
        tasks: vec![NEEDLE[0]],
        lengths: vec![LENGTH],
        depths: vec![0.25, 0.75],
        samples: 1,
        seed: 1,
    };
    let sources = Sources {
        corpus: &corpus,
        questions: None,
        format: Format::new(dir, false),
    };
    run_answers(&subject, &plan, &sources, &mut file, &finished, go).expect("answers");
    drop(file);
    let answers: Vec<AnswerRow> = rows(&path)
        .into_iter()
        .map(|line| match line {
            Line::Answer(row) => row,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(answers.len(), 4);
    for row in &answers {
        let expected = if row.attention == "dense" { 1.0 } else { 0.0 };
        assert_eq!(row.score, expected, "{row:?}");
        let room = LENGTH - NEEDLE[0].max_tokens;
        assert!(row.tokens <= room && row.tokens + 8 > room, "{row:?}");
    }

    let path = folder.path().join("fidelity.jsonl");
    let (mut file, finished) = RunFile::create_or_resume(&path, &header()).expect("a file");
    let plan = FidelityPlan {
        attentions: parse_attentions(&format!("dense,{BROKEN}")).expect("attentions"),
        rows: 8,
    };
    let prompts = Prompts::Slices {
        corpus: &corpus,
        lengths: &[LENGTH],
        samples: 1,
    };
    run_fidelity(&subject, &plan, &prompts, &mut file, &finished, go).expect("fidelity");
    drop(file);
    let (mut passes, mut heads): (Vec<FidelityRow>, Vec<HeadRow>) = Default::default();
    for line in rows(&path) {
        match line {
            Line::Fidelity(row) => passes.push(row),
            Line::Head(row) => heads.push(row),
            other => panic!("{other:?}"),
        }
    }
    let layers = dir.config().layers * dir.config().heads;
    assert_eq!((passes.len(), heads.len()), (2, 2 * layers));
    let (dense, broken) = (&passes[0], &passes[1]);
    assert_eq!((dense.kl, dense.hidden_error, dense.top1), (0.0, 0.0, true));
    assert!(broken.kl > 1.0 && broken.hidden_error > 0.3, "{broken:?}");
    let (dense, broken) = heads.split_at(layers);
    for row in dense {
        assert_eq!(
            (row.recall, row.recall_min, row.error),
            (1.0, 1.0, 0.0),
            "{row:?}"
        );
    }
    let mean = broken.iter().map(|row| row.recall).sum::<f64>() / layers as f64;
    assert!(mean < 0.6, "mean recall {mean}");
}
