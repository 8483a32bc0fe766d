//! Attentions whose keys are chosen from the input, by heads or by a published selector: what the measures say
//! must agree with what is known of the patterns.

#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, ops::ControlFlow, path::Path};

use sparse_accelerate::{HeadPatterns, Pattern, Selection};
use sparse_accelerate_checkpoint::ModelDir;
use sparse_accelerate_engine::attention::{baselines, parse_attentions, read_heads};
use sparse_accelerate_engine::{Cancel, Loaded};
use sparse_accelerate_eval::{
    AnswersPlan, EvalError, FidelityPlan, NEEDLE, OnProgress, PerplexityPlan, Prompts, RunProgress,
    Subject, run_answers, run_fidelity, run_perplexity,
    search::{Search, SearchPlan, search},
    speed::{Case, TtftSettings, random_ids, ttft},
};
use sparse_accelerate_report::record::{FidelityRow, HeadRow, Line, RunFile, read};
use support::{corpus, directory, header, model, prose, sources};

/// Tokens of a prompt, more than one chunk and no whole number of blocks.
const LENGTH: usize = 1000;

struct Bench {
    folder: tempfile::TempDir,
    dir: ModelDir,
    model: Loaded,
    cancel: Cancel,
}

impl Bench {
    fn new() -> Self {
        let (folder, dir) = directory(false);
        let model = model(&dir);
        Self {
            folder,
            dir,
            model,
            cancel: Cancel::default(),
        }
    }

    fn subject(&self, chunk: usize) -> Subject<'_> {
        Subject {
            dir: &self.dir,
            model: &self.model,
            chunk,
            warm_up: false,
            cancel: &self.cancel,
        }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn fidelity(&self, attentions: &str) -> (Vec<HeadRow>, Vec<FidelityRow>) {
        self.fidelity_of(LENGTH, 512, attentions)
    }

    fn fidelity_of(
        &self,
        length: usize,
        chunk: usize,
        attentions: &str,
    ) -> (Vec<HeadRow>, Vec<FidelityRow>) {
        let corpus = corpus(&self.dir, 100);
        let plan = FidelityPlan {
            attentions: parse_attentions(attentions).unwrap(),
            rows: 16,
        };
        let prompts = Prompts::Slices {
            corpus: &corpus,
            lengths: &[length],
            samples: 1,
        };
        let subject = self.subject(chunk);
        let lines = self.lines(|file, go| run_fidelity(&subject, &plan, &prompts, file, &[], go));
        rows(lines.unwrap())
    }

    /// The rows that a run writes into a new file.
    fn lines(
        &self,
        run: impl FnOnce(&mut RunFile, OnProgress<'_>) -> Result<(), EvalError>,
    ) -> Result<Vec<Line>, EvalError> {
        let path = self.folder.path().join("rows.jsonl");
        let _ = fs::remove_file(&path);
        let (mut file, _) = RunFile::create_or_resume(&path, &header(self.dir.path())).unwrap();
        run(&mut file, &mut |_: &RunProgress<'_>| {
            ControlFlow::Continue(())
        })?;
        drop(file);
        Ok(read(&path).unwrap().1)
    }

    fn search(&self, budget: f64) -> Search {
        let mut ids = self.dir.tokenizer().encode(&prose(100), false).unwrap();
        ids.truncate(LENGTH);
        let plan = SearchPlan {
            rows: 16,
            budget,
            selection: Selection {
                sink: 16,
                window: 64,
                last: 8,
                ..Selection::default()
            },
        };
        search(&self.subject(512), &ids, &plan, &mut |_| ()).unwrap()
    }
}

fn rows(lines: Vec<Line>) -> (Vec<HeadRow>, Vec<FidelityRow>) {
    let (mut heads, mut prompts) = (Vec::new(), Vec::new());
    for line in lines {
        match line {
            Line::Head(row) => heads.push(row),
            Line::Fidelity(row) => prompts.push(row),
            _ => {}
        }
    }
    (heads, prompts)
}

/// A file of one pattern for the one KV head of each of the two layers.
fn both_layers(pattern: &str) -> String {
    format!("[[{pattern}], [{pattern}]]")
}

#[test]
fn heads_that_choose_dense_lose_nothing() {
    let bench = Bench::new();
    let file = bench.file("dense.json", &both_layers(r#"{"kind": "dense"}"#));
    let (heads, prompts) = bench.fidelity(&format!("heads:file={file}"));
    assert_eq!((heads.len(), prompts.len()), (4, 1));
    for row in &heads {
        assert_eq!(row.choice.as_deref(), Some("dense"));
        assert_eq!((row.recall, row.recall_min, row.density), (1.0, 1.0, 1.0));
        assert!(row.error < 1e-5, "{row:?}");
        assert!(row.lse_error.unwrap() < 1e-4, "{row:?}");
    }
    assert!(prompts[0].hidden_error < 1e-5, "{:?}", prompts[0]);
}

#[test]
fn triangular_by_choice_is_triangular_by_name() {
    let bench = Bench::new();
    let pattern = r#"{"kind": "triangular", "sink": 16, "window": 64}"#;
    let file = bench.file("triangular.json", &both_layers(pattern));
    let chosen = format!("heads:file={file}:last=8:correction=none");
    let named = "triangular:sink=16:window=64:last=8";
    let (heads, prompts) = bench.fidelity(&format!("{named},{chosen}"));
    let of = |name: &str| -> Vec<&HeadRow> {
        heads
            .iter()
            .filter(|row| row.attention.starts_with(name))
            .collect()
    };
    let (named, chosen) = (of("triangular"), of("heads"));
    assert_eq!((named.len(), chosen.len()), (4, 4));
    let mean = |rows: &[&HeadRow], of: fn(&HeadRow) -> f64| {
        rows.iter().map(|row| of(row)).sum::<f64>() / rows.len() as f64
    };
    for row in &named {
        assert_eq!(
            (&row.choice, row.predicted_recall, row.lse_error),
            (&None, None, None)
        );
    }
    for row in &chosen {
        assert_eq!(row.choice.as_deref(), Some("triangular"));
        assert!(row.recall > 0.0 && row.recall < 1.0, "{row:?}");
        let predicted = row.predicted_recall.unwrap();
        // Predicted and measured on the same probe rows; ranges are widened to tiles, so more is kept.
        assert!(predicted <= row.recall + 0.02, "{row:?}");
        assert!(row.lse_error.unwrap() > 0.0, "{row:?}");
    }
    // The index keeps whole granules and tiles, a superset of what the element rule keeps.
    let (a, b) = (
        mean(&named, |row| row.error),
        mean(&chosen, |row| row.error),
    );
    assert!(b > 0.0 && b < 1.1 * a, "{a} {b}");
    let (a, b) = (prompts[0].density, prompts[1].density);
    assert!(b > a && b < 2.0 * a, "{a} {b}");
}

#[test]
fn a_correction_brings_the_softmax_nearer() {
    let bench = Bench::new();
    let pattern = r#"{"kind": "triangular", "sink": 16, "window": 64}"#;
    let file = bench.file("triangular.json", &both_layers(pattern));
    let with = |correction: &str| {
        let text = format!("heads:file={file}:last=8:correction={correction}");
        let (heads, _) = bench.fidelity(&text);
        let sum = |of: fn(&HeadRow) -> f64| heads.iter().map(of).sum::<f64>();
        (
            sum(|row| row.error),
            sum(|row| row.lse_error.unwrap()),
            sum(|row| row.recall),
        )
    };
    let [none, mean, gaussian] = ["none", "mean", "gaussian"].map(with);
    assert!(
        mean.0 < none.0 && gaussian.0 < none.0,
        "{none:?} {mean:?} {gaussian:?}"
    );
    assert!(
        mean.1 < none.1 && gaussian.1 < none.1,
        "{none:?} {mean:?} {gaussian:?}"
    );
    // Recall is that of the kept keys, whatever stands in for the others.
    assert!((none.2 - gaussian.2).abs() < 1e-3, "{none:?} {gaussian:?}");
}

#[test]
fn a_search_spends_its_budget_where_it_helps() {
    let bench = Bench::new();
    let (tight, wide, all) = (bench.search(0.45), bench.search(0.8), bench.search(1.0));
    for found in [&tight, &wide, &all] {
        assert_eq!(found.given.len(), 2);
        assert!(found.given.iter().all(|heads| heads.len() == 1));
        let given = found.given.iter().flatten();
        assert!(
            given.clone().all(|g| g.density > 0.0 && g.density <= 1.0),
            "{found:?}"
        );
        assert!(
            given
                .clone()
                .all(|g| g.pattern != Pattern::Dense || g.error == 0.0)
        );
    }
    assert!(tight.density() <= 0.45 + 1e-6, "{tight:?}");
    assert!(wide.density() <= 0.8 + 1e-6, "{wide:?}");
    assert!(
        tight.error() > 0.0 && tight.error() >= wide.error(),
        "{tight:?} {wide:?}"
    );
    assert!(wide.error() >= all.error(), "{wide:?} {all:?}");
    // Dense is offered, and costs no more than the budget.
    assert!(all.error() < 1e-5, "{all:?}");

    let text = serde_json::to_string(&tight.patterns()).unwrap();
    let file = bench.file("heads.json", &text);
    let back: HeadPatterns = read_heads(Path::new(&file)).unwrap();
    assert_eq!(back, tight.patterns());
    let (heads, _) = bench.fidelity(&format!(
        "heads:file={file}:recall=0:sink=16:window=64:last=8"
    ));
    for row in &heads {
        let given = tight.given[row.layer][0];
        let choice = row.choice.as_deref().unwrap();
        assert!(
            choice == given.pattern.name() || choice == "dense",
            "{row:?} {given:?}"
        );
    }
}

/// Tokens of a prompt in which every published selector of [`BASELINES`] leaves keys out.
const LONG: usize = 2000;
/// Every published selector.
const BASELINES: [&str; 9] = [
    "baseline:a-shape:sink=16:window=40",
    "baseline:tri-shape:sink=16:window=40:last=20",
    "baseline:trianglemix:first_layer=1:sink=16:window=40:last=0",
    "baseline:minference:vertical=40:slash=120",
    "baseline:flexprefill:min_budget=1:gamma=0.3",
    "baseline:xattention:threshold=0.2",
    "baseline:flashprefill-v1:alpha=1:last_blocks=1",
    "baseline:flashprefill-v2:alpha=1:last_blocks=1",
    "baseline:pooled:mass=0.3:sink=16:window=40",
];
/// Two that keep every key: a window longer than the prompt, and no sparse layer among the model's two.
const WHOLE: &str = "baseline:a-shape,baseline:trianglemix";

#[test]
fn a_baseline_is_told_by_what_it_leaves_out() {
    let listed = baselines();
    for text in &listed {
        let name = text.split(':').next().unwrap();
        let here = |baseline: &&&str| baseline.split(':').nth(1) == Some(name);
        assert_eq!(BASELINES.iter().filter(here).count(), 1, "{name}");
    }
    let bench = Bench::new();
    let (heads, prompts) =
        bench.fidelity_of(LONG, 512, &format!("{},{WHOLE}", BASELINES.join(",")));
    assert_eq!((heads.len(), prompts.len()), (4 * 11, 11));
    for row in &prompts {
        match WHOLE.split(',').any(|whole| whole == row.attention) {
            true => {
                assert_eq!(row.density, 1.0, "{row:?}");
                assert!(row.hidden_error < 1e-5 && row.kl < 1e-8, "{row:?}");
            }
            false => {
                assert!(row.density > 0.02 && row.density < 0.97, "{row:?}");
                assert!(row.hidden_error > 1e-4, "{row:?}");
            }
        }
    }
    for row in &heads {
        let dense = row.attention.contains("trianglemix")
            && (row.layer == 0 || WHOLE.contains(&row.attention));
        let expected = if dense { "dense" } else { "index" };
        assert_eq!(row.choice.as_deref(), Some(expected), "{row:?}");
        assert!(
            row.lse_error.unwrap() >= 0.0 && row.recall <= 1.0,
            "{row:?}"
        );
        match dense || WHOLE.contains(&row.attention) {
            true => assert!(row.density == 1.0 && row.error < 1e-5 && row.recall > 1.0 - 1e-5),
            // Nothing is predicted, and recall is what the sampled rows keep.
            false => {
                assert_eq!(row.predicted_recall, None, "{row:?}");
                assert!(row.density < 0.97, "{row:?}");
                assert!(row.recall > 0.0 && row.recall < 1.0 - 1e-4, "{row:?}");
                assert!(row.recall_min <= row.recall && row.error > 1e-3, "{row:?}");
            }
        }
    }
}

#[test]
fn chunks_change_nothing_for_baselines_whose_rows_stand_alone() {
    let bench = Bench::new();
    let alone: Vec<&str> = BASELINES
        .into_iter()
        .filter(|text| !text.contains("minference") && !text.contains("flexprefill"))
        .collect();
    let run = |chunk: usize| bench.fidelity_of(LONG, chunk, &alone.join(",")).1;
    let (whole, chunks) = (run(LONG), run(512));
    assert_eq!(whole.len(), alone.len());
    for (whole, chunks) in whole.iter().zip(&chunks) {
        assert_eq!(whole.attention, chunks.attention);
        let apart = (whole.hidden_error / chunks.hidden_error - 1.0).abs();
        assert!(apart < 1e-3, "{whole:?} {chunks:?}");
        let apart = (whole.density - chunks.density).abs();
        assert!(apart < 1e-3, "{whole:?} {chunks:?}");
    }
}

#[test]
fn chunks_off_the_grid_of_a_baseline_are_refused() {
    let bench = Bench::new();
    let corpus = corpus(&bench.dir, 100);
    let (subject, prompts) = (
        bench.subject(300),
        Prompts::Slices {
            corpus: &corpus,
            lengths: &[LENGTH],
            samples: 1,
        },
    );
    let plan = FidelityPlan {
        attentions: parse_attentions("baseline:xattention").unwrap(),
        rows: 16,
    };
    let refused = bench.lines(|file, go| run_fidelity(&subject, &plan, &prompts, file, &[], go));
    let error = refused.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("offset is 300"), "{text}");
    assert!(text.contains("multiple of 64"), "{text}");
}

#[test]
fn dense_last_rows_of_a_baseline_are_for_questions() {
    let bench = Bench::new();
    let corpus = corpus(&bench.dir, 100);
    let subject = bench.subject(512);
    let list = "dense,baseline:a-shape,baseline:tri-shape:sink=4:window=16:last=300,\
                baseline:flashprefill-v1:alpha=1:last_blocks=8";
    let densities = |keep_last: bool| {
        let plan = PerplexityPlan {
            attentions: parse_attentions(list).unwrap(),
            lengths: vec![LONG],
            scored: Some(200),
            keep_last,
            samples: 1,
        };
        let lines = bench.lines(|file, go| run_perplexity(&subject, &plan, &corpus, file, &[], go));
        let rows = lines.unwrap().into_iter().map(|line| match line {
            Line::Perplexity(row) => (row.density, row.nll),
            other => panic!("{other:?}"),
        });
        rows.collect::<Vec<(f64, f64)>>()
    };
    let (off, kept) = (densities(false), densities(true));
    for rows in [&off, &kept] {
        assert_eq!((rows[0].0, rows[1].0), (1.0, 1.0));
        assert!((rows[1].1 / rows[0].1 - 1.0).abs() < 1e-6, "{rows:?}");
        for row in &rows[2..] {
            assert!(row.0 < 1.0 && row.1 != rows[0].1, "{rows:?}");
        }
    }
    for (off, kept) in off[2..].iter().zip(&kept[2..]) {
        assert!(off.0 + 0.05 < kept.0, "{off:?} {kept:?}");
    }
}

#[test]
fn questions_and_times_take_baselines_too() {
    let bench = Bench::new();
    let corpus = corpus(&bench.dir, 100);
    let subject = bench.subject(512);
    let list = format!("dense,baseline:a-shape,{}", BASELINES[5]);
    let attentions = parse_attentions(&list).unwrap();
    let plan = AnswersPlan {
        attentions: attentions.clone(),
        tasks: vec![NEEDLE[0]],
        lengths: vec![LENGTH],
        depths: vec![0.5],
        samples: 1,
        seed: 7,
    };
    let sources = sources(&corpus, &bench.dir);
    let lines = bench.lines(|file, go| run_answers(&subject, &plan, &sources, file, &[], go));
    let rows = lines.unwrap().into_iter().map(|line| match line {
        Line::Answer(row) => (row.density, row.answer),
        other => panic!("{other:?}"),
    });
    let rows: Vec<(f64, String)> = rows.collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1], rows[0]);
    assert!(rows[2].0 < 0.9, "{rows:?}");

    let ids = random_ids(256, LENGTH, 3);
    let settings = TtftSettings {
        chunk: 512,
        runs: 1,
    };
    let mut dense: Option<Vec<f32>> = None;
    for named in attentions {
        let case = Case::from(named);
        let measured = ttft(
            &bench.model,
            &case,
            &ids,
            settings,
            dense.as_deref(),
            &mut |_, _| (),
        );
        let measured = measured.unwrap();
        let row = &measured.row;
        match case.name.as_str() {
            "dense" => assert_eq!((row.density, row.error), (1.0, None)),
            "baseline:a-shape" => {
                assert!(row.density == 1.0 && row.error < Some(1e-5), "{row:?}");
            }
            _ => assert!(row.density < 0.9 && row.error > Some(1e-4), "{row:?}"),
        }
        assert!(row.error.is_none_or(f64::is_finite) && row.chunks == 2);
        dense.get_or_insert(measured.last_hidden);
    }
}
