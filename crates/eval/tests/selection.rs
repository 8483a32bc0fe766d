//! Attentions whose heads choose their keys, inside a dense pass: what the measures say must agree with what
//! is known of the patterns.

#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, ops::ControlFlow, path::Path};

use sparse_accelerate::{HeadPatterns, Pattern, Selection};
use sparse_accelerate_checkpoint::ModelDir;
use sparse_accelerate_engine::attention::{parse_attentions, read_heads};
use sparse_accelerate_engine::{Cancel, Loaded};
use sparse_accelerate_eval::{
    FidelityPlan, Prompts, RunProgress, Subject, run_fidelity,
    search::{Search, SearchPlan, search},
};
use sparse_accelerate_report::record::{FidelityRow, HeadRow, Line, RunFile, read};
use support::{corpus, directory, header, model, prose};

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
        let corpus = corpus(&self.dir, 100);
        let plan = FidelityPlan {
            attentions: parse_attentions(attentions).unwrap(),
            rows: 16,
        };
        let prompts = Prompts::Slices {
            corpus: &corpus,
            lengths: &[LENGTH],
            samples: 1,
        };
        let path = self.folder.path().join("rows.jsonl");
        let _ = fs::remove_file(&path);
        let (mut file, finished) =
            RunFile::create_or_resume(&path, &header(self.dir.path())).unwrap();
        let mut go = |_: &RunProgress<'_>| ControlFlow::Continue(());
        let subject = self.subject(512);
        run_fidelity(&subject, &plan, &prompts, &mut file, &finished, &mut go).unwrap();
        drop(file);
        rows(&path)
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

fn rows(path: &Path) -> (Vec<HeadRow>, Vec<FidelityRow>) {
    let (mut heads, mut prompts) = (Vec::new(), Vec::new());
    for line in read(path).unwrap().1 {
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
