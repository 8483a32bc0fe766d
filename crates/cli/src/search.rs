//! `search`: a pattern for every head, found offline on a text.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use sparse_accelerate::{Pattern, Selection};
use sparse_accelerate_engine::Cancel;
use sparse_accelerate_eval::{
    Subject,
    search::{Given, Search, SearchPlan, search},
};
use sparse_accelerate_report::{distinct, mean};

use crate::{
    args::{ModelArgs, one_length},
    eval::{
        common::TextArgs,
        table::{head, table},
    },
    exit::usage,
    interrupt,
    load::Opened,
    output::{print_text, write_whole},
    progress::PromptMeter,
    run_file::name_of,
};

/// Tokens that are searched on where no length is given and the text has as many.
const DEFAULT_LENGTH: usize = 8192;

const HELP: &str = "\
One dense pass of the text; in every layer and KV head Triangular (three sizes), Interval-Slash (three),
Block-Cluster (three) and Hybrid are tried on the pass's own queries, keys and values. A candidate's error
is the relative L2 error of the head's output on --rows rows, its price the share of dense attention it
computes. Every head begins with its cheapest; then the step to another candidate, dense among them, that
takes away the most error for its price is made, until the mean price is --budget.

The file has a list of patterns, one a KV head, for every layer. --recall 0 takes them as they were found;
with a floor, a head whose pattern keeps too little of another text is dense there.

Examples:
  sparse-accelerate search --model DIR --text book.txt
  sparse-accelerate search --model DIR --text book.txt --length 32k --budget 0.15 --out heads.json
  sparse-accelerate run --model DIR --file long.txt --attention sparse --heads-file heads.json --recall 0
  sparse-accelerate eval fidelity --model DIR --attention heads:file=heads.json:recall=0,balanced";

/// Arguments of `search`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    text: TextArgs,

    /// Tokens of the text to search on, from its start; k is 1024 [default: 8k, less of a shorter text]
    #[arg(long, value_name = "N", help_heading = "Search")]
    length: Option<String>,

    /// Mean share of dense attention that the heads may compute, above 0 to 1
    #[arg(long, value_name = "X", default_value_t = 0.3, help_heading = "Search")]
    budget: f64,

    /// Rows whose outputs are compared: evenly spread, and the last four
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Search")]
    rows: usize,

    /// File to write [default: heads-MODEL.json in this folder]
    #[arg(long, value_name = "FILE.json", help_heading = "Output")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &SearchArgs) -> Result<()> {
    let opened = Opened::on_one_device(&args.model)?;
    let corpus = args.text.corpus(opened.dir.tokenizer())?;
    let start = opened.dir.tokenizer().encode("", true)?;
    let have = corpus.ids().len() + start.len();
    let limit = opened.dir.config().max_positions;
    let length = match &args.length {
        Some(text) => one_length("--length", text)?,
        None => DEFAULT_LENGTH.min(have).min(limit),
    };
    if length > have {
        return Err(usage(format!(
            "--length {length}: {} has {have} tokens with this model's tokenizer; give a longer text \
             or ask for fewer",
            corpus.name()
        )));
    }
    let plan = SearchPlan {
        rows: args.rows,
        budget: args.budget,
        selection: Selection::default(),
    };
    plan.check(length, opened.target.chunk)?;
    let out = args.out.clone().unwrap_or_else(|| {
        let folder = args.model.model.canonicalize();
        let name = name_of(folder.as_deref().unwrap_or(&args.model.model));
        PathBuf::from(format!("heads-{name}.json"))
    });
    if let Some(folder) = out.parent()
        && !folder.as_os_str().is_empty()
        && !folder.is_dir()
    {
        return Err(usage(format!(
            "--out {}: there is no folder {}; make it first",
            out.display(),
            folder.display()
        )));
    }
    let (placement, memory) = opened.check(length, 0, &[])?;
    eprintln!("device: {}", opened.describe());
    eprintln!(
        "text: {length} tokens of {}; planned memory {memory}",
        corpus.name()
    );
    let model = opened.load(&placement)?;
    let cancel = Cancel::default();
    interrupt::ends(&cancel)?;
    let subject = Subject {
        dir: &opened.dir,
        model: &model,
        chunk: opened.target.chunk,
        warm_up: false,
        cancel: &cancel,
    };
    let mut ids = start;
    ids.extend(corpus.ids());
    ids.truncate(length);
    let mut meter = PromptMeter::new("searching");
    let found = search(&subject, &ids, &plan, &mut |progress| {
        meter.update(progress)
    })?;
    let mut json = serde_json::to_vec(&found.patterns()).context("cannot write JSON")?;
    json.push(b'\n');
    write_whole(&out, &json)?;
    eprintln!("patterns: {}", out.display());
    if found.density() > args.budget + 1e-6 {
        eprintln!(
            "note: the cheapest candidates compute {:.3} of dense attention at {length} tokens, more than \
             --budget {}; search on a longer text",
            found.density(),
            args.budget
        );
    }
    print_text(&summary(&found))
}

/// Heads by what they were given, and all of them.
fn summary(found: &Search) -> String {
    let all: Vec<&Given> = found.given.iter().flatten().collect();
    let mut names = distinct(all.iter().map(|given| describe(&given.pattern)));
    names.sort();
    let line = |name: &str, given: &[&Given]| {
        vec![
            name.to_owned(),
            given.len().to_string(),
            format!("{:.3}", mean(given.iter().map(|g| g.density))),
            format!("{:.4}", mean(given.iter().map(|g| g.error))),
        ]
    };
    let mut rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| {
            let own = all
                .iter()
                .copied()
                .filter(|g| describe(&g.pattern) == *name);
            line(name, &own.collect::<Vec<_>>())
        })
        .collect();
    rows.push(line("all", &all));
    table(&head(&["pattern", "KV heads", "density", "error"]), &rows)
}

/// A candidate in a few words.
fn describe(pattern: &Pattern) -> String {
    let name = pattern.name();
    match pattern {
        Pattern::Triangular(t) => format!("{name} {} + {}", t.sink, t.window),
        Pattern::IntervalSlash(s) => format!("{name} {} + {}", s.columns, s.slashes),
        Pattern::BlockCluster(b) => format!("{name} {}", b.alpha),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use sparse_accelerate_eval::search::candidates;

    use super::*;

    #[test]
    fn the_table_counts_heads_by_candidate() {
        let given = |at: usize, density, error| Given {
            pattern: candidates()[at],
            density,
            error,
        };
        let found = Search {
            given: vec![
                vec![given(0, 0.1, 0.25), given(0, 0.3, 0.75)],
                vec![given(3, 0.2, 0.5), given(3, 0.2, 0.5)],
            ],
        };
        let text = summary(&found);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1],
            ["interval-slash", "256", "+", "32", "2", "0.200", "0.5000"]
        );
        assert_eq!(
            lines[2],
            ["triangular", "128", "+", "512", "2", "0.200", "0.5000"]
        );
        assert_eq!(lines[3], ["all", "4", "0.200", "0.5000"]);
    }
}
