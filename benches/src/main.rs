//! Prefill benchmarks on the CPU: against candle on the same folder, and sparse against dense.
//!
//! Every row is checked before it is timed: logits of the two programs, the hidden state of sparse
//! against dense, or the rows that both patterns see whole. Contestants take turns, so that a drifting clock hits both; the table shows minimum
//! and median. `cargo run -p ...` builds this with the workspace's one profile; see README.md here.

mod attention;
mod candle;
mod ours;
mod stats;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use sparse_accelerate::{AttentionSettings, Pattern, Triangular};
use stats::{Timing, alternate};

/// Times prefill of a Llama-family model directory on the CPU.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Model directory (f32), e.g. the demo model that `cargo xtask setup` brings.
    #[arg(
        long,
        global = true,
        default_value = ".data/models/smollm2-135m-instruct-f32"
    )]
    model: PathBuf,
    /// Timed runs of each contestant, after one that warms up.
    #[arg(long, global = true, default_value_t = 3)]
    runs: usize,
    /// Also write the rows as JSON.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Dense prefill, ours and candle-transformers'.
    Candle {
        /// Prompt tokens.
        #[arg(long, default_value_t = 2048)]
        tokens: usize,
    },
    /// Attention of one layer alone, dense and Triangular.
    Attention {
        /// Prompt tokens.
        #[arg(long, default_value_t = 4096)]
        tokens: usize,
        /// Query heads.
        #[arg(long, default_value_t = 9)]
        heads: usize,
        /// KV heads.
        #[arg(long, default_value_t = 3)]
        kv_heads: usize,
        /// Head dimension.
        #[arg(long, default_value_t = 64)]
        head_dim: usize,
        #[command(flatten)]
        pattern: PatternArgs,
    },
    /// Triangular against dense, ours, per prompt length.
    Sparse {
        /// Prompt tokens.
        #[arg(long, value_delimiter = ',', default_values_t = [2048, 4096, 8192])]
        tokens: Vec<usize>,
        #[command(flatten)]
        pattern: PatternArgs,
    },
}

/// Triangular.
#[derive(Debug, Clone, Copy, clap::Args)]
struct PatternArgs {
    /// Sinks.
    #[arg(long, default_value_t = 64)]
    sink: usize,
    /// Window.
    #[arg(long, default_value_t = 1024)]
    window: usize,
    /// Dense last rows.
    #[arg(long, default_value_t = 128)]
    last: usize,
}

impl From<PatternArgs> for Triangular {
    fn from(PatternArgs { sink, window, last }: PatternArgs) -> Self {
        Self { sink, window, last }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.runs > 0, "--runs is 0, but must be at least 1");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    eprintln!("threads: {threads} (RAYON_NUM_THREADS narrows both programs)");
    let load = || ours::Model::load(&args.model);
    let rows = match &args.command {
        Command::Candle { tokens } => vec![against_candle(&args, &load()?, *tokens)?],
        Command::Attention {
            tokens,
            heads,
            kv_heads,
            head_dim,
            pattern,
        } => {
            let shape = [*heads, *kv_heads, *head_dim];
            vec![attention::run(
                *tokens,
                shape,
                (*pattern).into(),
                args.runs,
            )?]
        }
        Command::Sparse { tokens, pattern } => {
            let model = load()?;
            let row = |&n| sparse_against_dense(&args, &model, n, (*pattern).into());
            tokens.iter().map(row).collect::<Result<_>>()?
        }
    };
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&json!({ "threads": threads, "rows": rows }))?;
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn against_candle(args: &Args, model: &ours::Model, tokens: usize) -> Result<Value> {
    let theirs = candle::Model::load(&args.model)?;
    let ids = model.prompt(tokens)?;
    let dense = AttentionSettings::dense();
    let difference = model
        .prefill(&ids, &dense)?
        .logits
        .iter()
        .zip(theirs.prefill(&ids)?)
        .fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    ensure!(
        difference <= 2e-3,
        "logits differ by {difference}, more than 2e-3: not timed"
    );
    let [ours, candle] = alternate(
        args.runs,
        [&mut || model.prefill(&ids, &dense).map(drop), &mut || {
            theirs.prefill(&ids).map(drop)
        }],
    )?;
    println!("dense prefill of {tokens} tokens, f32; logits differ by at most {difference:.2e}");
    println!(
        "  ours    {ours}  {:7.1} tokens/s",
        tokens as f64 / ours.median
    );
    println!(
        "  candle  {candle}  {:7.1} tokens/s",
        tokens as f64 / candle.median
    );
    println!("  ours / candle, time: {:.3}", ours.median / candle.median);
    Ok(json!({
        "bench": "candle", "tokens": tokens, "max_logit_difference": difference,
        "ours": ours, "candle": candle,
    }))
}

fn sparse_against_dense(
    args: &Args,
    model: &ours::Model,
    tokens: usize,
    pattern: Triangular,
) -> Result<Value> {
    let ids = model.prompt(tokens)?;
    let settings = [
        AttentionSettings::dense(),
        AttentionSettings::sparse(Pattern::Triangular(pattern)),
    ];
    let [reference, sparse] = [
        model.prefill(&ids, &settings[0])?,
        model.prefill(&ids, &settings[1])?,
    ];
    let error = relative_l2(&sparse.last_hidden, &reference.last_hidden);
    let run = |s: &AttentionSettings| model.prefill(&ids, s).map(drop);
    let [dense_time, sparse_time] = alternate(
        args.runs,
        [&mut || run(&settings[0]), &mut || run(&settings[1])],
    )?;
    let ratio = |t: &Timing| dense_time.median / t.median;
    println!("prefill of {tokens} tokens, f32, {pattern:?}");
    println!("  dense   {dense_time}  density 1.000");
    println!(
        "  sparse  {sparse_time}  density {:.3}  {:.2}x  last hidden state off by {error:.3} (relative L2)",
        sparse.density,
        ratio(&sparse_time),
    );
    Ok(json!({
        "bench": "sparse", "tokens": tokens, "sink": pattern.sink, "window": pattern.window,
        "last": pattern.last, "density": sparse.density, "hidden_relative_l2": error,
        "dense": dense_time, "sparse": sparse_time,
    }))
}

fn relative_l2(got: &[f32], expected: &[f32]) -> f64 {
    let sum = |f: &dyn Fn(usize) -> f64| (0..got.len()).map(f).sum::<f64>();
    let square = |x: f32| f64::from(x) * f64::from(x);
    (sum(&|i| square(got[i] - expected[i])) / sum(&|i| square(expected[i]))).sqrt()
}
