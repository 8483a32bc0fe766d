//! Runs: rows are finished, kept and not run again; dense against dense changes nothing.

#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, ops::ControlFlow, path::Path};

use serde_json::Value;
use sparse_accelerate_checkpoint::ModelDir;
use sparse_accelerate_engine::attention::parse_attentions;
use sparse_accelerate_engine::{Cancel, EngineError, Loaded, Sequence};
use sparse_accelerate_eval::{
    AnswersPlan, Corpus, EvalError, FidelityPlan, NEEDLE, OnProgress, PerplexityPlan, Prompts,
    RULER, RunProgress, Subject, parse_tasks, run_answers, run_fidelity, run_perplexity,
};
use sparse_accelerate_report::record::{FidelityRow, HeadRow, Line, RunFile, read};
use support::{corpus, directory, directory_of_dynamic_ntk, header, model, sources};

struct Bench {
    _folder: tempfile::TempDir,
    dir: ModelDir,
    model: Loaded,
    corpus: Corpus,
    cancel: Cancel,
}

impl Bench {
    fn new() -> Self {
        Self::of(directory(false))
    }

    fn of((folder, dir): (tempfile::TempDir, ModelDir)) -> Self {
        let (model, corpus) = (model(&dir), corpus(&dir, 100));
        Self {
            _folder: folder,
            dir,
            model,
            corpus,
            cancel: Cancel::default(),
        }
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            dir: &self.dir,
            model: &self.model,
            chunk: 256,
            warm_up: false,
            cancel: &self.cancel,
        }
    }

    /// Opens `path`, runs until `stop` rows were finished by this call, and closes it.
    fn run(&self, what: &What, path: &Path, stop: usize) -> Result<(), EvalError> {
        let mut begun = None;
        self.run_until(what, path, &mut |progress: &RunProgress<'_>| {
            let first = *begun.get_or_insert(progress.rows);
            match progress.rows - first >= stop {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
    }

    /// Opens `path`, runs until `report` breaks, and closes it.
    fn run_until(&self, what: &What, path: &Path, report: OnProgress<'_>) -> Result<(), EvalError> {
        let (mut file, finished) = RunFile::create_or_resume(path, &header(self.dir.path()))?;
        let subject = self.subject();
        match what {
            What::Answers(plan) => {
                let sources = sources(&self.corpus, &self.dir);
                run_answers(&subject, plan, &sources, &mut file, &finished, report)
            }
            What::Perplexity(plan) => {
                run_perplexity(&subject, plan, &self.corpus, &mut file, &finished, report)
            }
            What::Fidelity(plan) => {
                let prompts = Prompts::Slices {
                    corpus: &self.corpus,
                    lengths: &[300, 700],
                    samples: 1,
                };
                run_fidelity(&subject, plan, &prompts, &mut file, &finished, report)
            }
        }
    }
}

enum What {
    Answers(AnswersPlan),
    Perplexity(PerplexityPlan),
    Fidelity(FidelityPlan),
}

const SPARSE: &str = "dense,triangular:sink=16:window=64:last=8";

fn all() -> [What; 3] {
    let attentions = parse_attentions(SPARSE).unwrap();
    let mut tasks = parse_tasks("vt,qa", &RULER).unwrap();
    tasks.push(NEEDLE[0]);
    [
        What::Answers(AnswersPlan {
            attentions: attentions.clone(),
            tasks,
            lengths: vec![1800, 2100],
            depths: vec![0.0, 1.0],
            samples: 1,
            seed: 7,
        }),
        What::Perplexity(PerplexityPlan {
            attentions: attentions.clone(),
            lengths: vec![400, 900],
            scored: None,
            keep_last: false,
            samples: 2,
        }),
        What::Fidelity(FidelityPlan {
            attentions,
            rows: 8,
        }),
    ]
}

/// Rows without their times.
fn timeless(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let row = line.as_object_mut().unwrap();
        for time in ["ttft_s", "seconds", "dense_seconds"] {
            row.remove(time);
        }
        line
    });
    lines.collect()
}

/// A flag that is set in the midst of a prompt: the row in hand is not written, and the same command goes on.
#[test]
fn a_cancelled_run_keeps_its_rows_and_goes_on() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    for (index, what) in all().iter().enumerate() {
        let path = |name: &str| folder.path().join(format!("{index}-{name}.jsonl"));
        let (whole, broken) = (path("whole"), path("broken"));
        bench.run(what, &whole, usize::MAX).unwrap();
        let error = bench.run_until(what, &broken, &mut |progress| {
            // Rows that are finished do not count as work of a prompt.
            if progress.rows == 1 && progress.done > 0 {
                bench.cancel.cancel();
            }
            ControlFlow::Continue(())
        });
        bench.cancel.reset();
        let cancelled = matches!(error, Err(EvalError::Engine(EngineError::Cancelled { .. })));
        assert!(cancelled, "{error:?}");
        assert!(timeless(&broken).len() < timeless(&whole).len());
        bench.run(what, &broken, usize::MAX).unwrap();
        assert_eq!(timeless(&whole), timeless(&broken));
    }
}

#[test]
fn an_interrupted_run_ends_as_an_uninterrupted_one() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    for (index, what) in all().iter().enumerate() {
        let path = |name: &str| folder.path().join(format!("{index}-{name}.jsonl"));
        let (whole, broken) = (path("whole"), path("broken"));
        bench.run(what, &whole, usize::MAX).unwrap();
        // Ends after two rows, and the next one is torn.
        bench.run(what, &broken, 2).unwrap();
        let begun = fs::read(&broken).unwrap();
        assert!(begun.len() < fs::metadata(&whole).unwrap().len() as usize);
        fs::write(&broken, &begun[..begun.len() - 20]).unwrap();
        bench.run(what, &broken, usize::MAX).unwrap();
        assert_eq!(timeless(&whole), timeless(&broken));
        // A finished file is not touched.
        let finished = fs::read(&broken).unwrap();
        bench.run(what, &broken, usize::MAX).unwrap();
        assert_eq!(fs::read(&broken).unwrap(), finished);
    }
}

/// A row that was planned for another row's length would show, as frequencies follow the planned length.
#[test]
fn a_row_does_not_depend_on_the_other_lengths_of_its_run() {
    let bench = Bench::of(directory_of_dynamic_ntk());
    let folder = tempfile::tempdir().unwrap();
    let rows = |lengths: &[usize]| -> Vec<Value> {
        let plan = PerplexityPlan {
            attentions: parse_attentions("dense").unwrap(),
            lengths: lengths.to_vec(),
            scored: None,
            keep_last: false,
            samples: 1,
        };
        let path = folder.path().join(format!("{}.jsonl", lengths.len()));
        bench
            .run(&What::Perplexity(plan), &path, usize::MAX)
            .unwrap();
        let rows = timeless(&path).into_iter();
        rows.filter(|row| row["length"] == 400).collect()
    };
    let alone = rows(&[400]);
    assert_eq!(alone.len(), 1);
    assert_eq!(alone, rows(&[400, 900]));
}

#[test]
fn a_task_without_its_source_is_skipped_with_a_reason() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let [what, ..] = all();
    bench.run(&what, &path, usize::MAX).unwrap();
    let (_, rows) = read(&path).unwrap();
    let skipped: Vec<_> = rows
        .iter()
        .filter_map(|row| match row {
            Line::Skipped(row) => Some(row.what.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(skipped, ["qa at 1800", "qa at 2100"]);
    let answers = rows.iter().filter(|row| matches!(row, Line::Answer(_)));
    // Two lengths, two attentions: vt once, the needle at two depths.
    assert_eq!(answers.count(), 12);
}

fn fidelity(path: &Path) -> (Vec<FidelityRow>, Vec<HeadRow>) {
    let (mut prompts, mut heads) = (Vec::new(), Vec::new());
    for row in read(path).unwrap().1 {
        match row {
            Line::Fidelity(row) => prompts.push(row),
            Line::Head(row) => heads.push(row),
            other => panic!("{other:?}"),
        }
    }
    (prompts, heads)
}

#[test]
fn dense_against_dense_changes_nothing_and_sparse_does() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let [.., what] = all();
    bench.run(&what, &path, usize::MAX).unwrap();
    let (prompts, heads) = fidelity(&path);
    assert_eq!((prompts.len(), heads.len()), (4, 4 * 2 * 2));
    for row in prompts.iter().filter(|row| row.attention == "dense") {
        assert_eq!((row.kl, row.hidden_error, row.top1), (0.0, 0.0, true));
        assert_eq!(row.density, 1.0);
    }
    for row in heads.iter().filter(|row| row.attention == "dense") {
        assert_eq!((row.recall, row.recall_min, row.error), (1.0, 1.0, 0.0));
    }
    for row in prompts.iter().filter(|row| row.attention != "dense") {
        assert!(
            row.kl > 0.0 && row.hidden_error > 0.0 && row.density < 0.6,
            "{row:?}"
        );
    }
    for row in heads.iter().filter(|row| row.attention != "dense") {
        assert!(
            row.recall < 0.95 && row.recall_min < row.recall && row.error > 0.0,
            "{row:?}"
        );
        assert!(row.recall_min > 0.0);
    }
}

#[test]
fn chunks_do_not_change_what_is_measured() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let ids = &bench.corpus.ids()[..500];
    let measure = |name: &str, chunk: usize| {
        let path = folder.path().join(name);
        let (mut file, rows) = RunFile::create_or_resume(&path, &header(&path)).unwrap();
        let plan = FidelityPlan {
            attentions: parse_attentions("triangular:sink=16:window=64:last=8").unwrap(),
            rows: 16,
        };
        let subject = Subject {
            chunk,
            ..bench.subject()
        };
        let go = &mut |_: &RunProgress<'_>| ControlFlow::Continue(());
        run_fidelity(&subject, &plan, &Prompts::One(ids), &mut file, &rows, go).unwrap();
        drop(file);
        fidelity(&path)
    };
    let ((whole, whole_heads), (pieces, pieces_heads)) =
        (measure("whole", 500), measure("pieces", 77));
    let near = |a: f64, b: f64| (a - b).abs() < 1e-3 * a.abs().max(1e-3);
    assert!(near(whole[0].kl, pieces[0].kl), "{whole:?} {pieces:?}");
    assert!(near(whole[0].density, pieces[0].density));
    for (a, b) in whole_heads.iter().zip(&pieces_heads) {
        assert!(
            near(a.recall, b.recall) && near(a.error, b.error),
            "{a:?} {b:?}"
        );
    }
}

#[test]
fn perplexity_is_that_of_the_logits_of_each_prefix() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let [_, what, _] = all();
    bench.run(&what, &path, usize::MAX).unwrap();
    let (_, rows) = read(&path).unwrap();
    let rows: Vec<_> = rows
        .into_iter()
        .filter_map(|row| match row {
            Line::Perplexity(row) => Some(row),
            _ => None,
        })
        .collect();
    assert_eq!(rows.len(), 8);
    for row in &rows {
        assert_eq!(row.scored, row.length / 4);
        // A token is a byte, and a character counts where it ends: at most one is cut at the border.
        assert!(row.bytes.abs_diff(row.scored) <= 3, "{row:?}");
    }
    let [row, sparse] = [&rows[0], &rows[1]];
    assert_eq!((row.attention.as_str(), row.length), ("dense", 400));
    assert_eq!((sparse.length, sparse.sample), (row.length, row.sample));
    assert_eq!((row.kl, row.top1), (None, None));
    let ids = &bench.corpus.ids()[row.start..row.start + row.length];
    let whole = bench.model.whole().expect("one device");
    let mut session = Sequence::new(whole, row.length).expect("a session");
    let dense = sparse_accelerate::AttentionSettings::dense();
    let mut settings = parse_attentions(SPARSE).unwrap().remove(1).settings;
    if let sparse_accelerate::Pattern::Triangular(triangular) = &mut settings.pattern {
        triangular.last = 0;
    }
    let (mut nll, mut kl, mut same) = (0.0, 0.0, 0);
    for end in row.length - row.scored..row.length {
        let mut log = |settings: &sparse_accelerate::AttentionSettings| -> Vec<f64> {
            let prefill = session.prefill(&ids[..end], 256.into(), settings, &mut |_| {});
            let logits = prefill.unwrap().logits;
            let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
            logits.iter().map(|l| f64::from(*l) - sum.ln()).collect()
        };
        let (p, q) = (log(&dense), log(&settings));
        nll -= p[ids[end] as usize];
        kl += p
            .iter()
            .zip(&q)
            .map(|(p, q)| p.exp() * (p - q))
            .sum::<f64>();
        let first = |of: &[f64]| (0..of.len()).max_by(|a, b| of[*a].total_cmp(&of[*b]));
        same += usize::from(first(&p) == first(&q));
    }
    assert!((nll - row.nll).abs() < 1e-3 * nll, "{nll} {}", row.nll);
    let of = |sum: f64| sum / row.scored as f64;
    let (got, want) = (sparse.kl.expect("beside dense"), of(kl));
    assert!(
        want > 1e-6 && (got - want).abs() < 1e-2 * want,
        "{got} for {want}"
    );
    let top1 = sparse.top1.expect("beside dense");
    assert!(
        (top1 - of(same as f64)).abs() < 1.5 / row.scored as f64,
        "{top1}"
    );
}

#[test]
fn dense_last_rows_are_off_unless_kept() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let density = |name: &str, keep_last: bool| {
        let path = folder.path().join(name);
        let plan = PerplexityPlan {
            attentions: parse_attentions("triangular:sink=16:window=64:last=200").unwrap(),
            lengths: vec![400],
            scored: Some(100),
            keep_last,
            samples: 1,
        };
        bench
            .run(&What::Perplexity(plan), &path, usize::MAX)
            .unwrap();
        match &read(&path).unwrap().1[0] {
            Line::Perplexity(row) => row.density,
            other => panic!("{other:?}"),
        }
    };
    assert!(density("off", false) < 0.5);
    assert!(density("kept", true) > 0.75);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_the_run_with_what_is_safe() {
    let bench = Bench::new();
    let [_, what, _] = all();
    let error = bench
        .run(&what, Path::new("/dev/full"), usize::MAX)
        .unwrap_err();
    assert!(error.to_string().contains("are safe"), "{error}");
}
