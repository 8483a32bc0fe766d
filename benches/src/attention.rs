//! Attention alone on burn-flex: rate over the work actually done.

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Distribution, Tensor};
use serde_json::{Value, json};
use sparse_accelerate::{
    AttentionError, AttentionPlan, AttentionSettings, Heads, Pattern, Span, Triangular, Visible,
    attend,
};

use crate::stats::alternate;

/// Query heads, KV heads, head dimension.
pub(crate) type Shape = [usize; 3];

pub(crate) fn run(tokens: usize, shape: Shape, pattern: Triangular, runs: usize) -> Result<Value> {
    let [heads, kv_heads, head_dim] = shape;
    let device = Device::flex();
    let random = |heads| {
        let dims = [1, heads, tokens, head_dim];
        Tensor::<4>::random(dims, Distribution::Normal(0.0, 1.0), &device)
    };
    let (query, key, value) = (random(heads), random(kv_heads), random(kv_heads));
    let (spans, model) = ([Span::whole(tokens)], Heads::new(heads, kv_heads, head_dim));
    let plan = |settings| AttentionPlan::new(&settings, &spans, model, Visible::Causal, &device);
    let dense = plan(AttentionSettings::dense())?;
    let sparse = plan(AttentionSettings::sparse(Pattern::Triangular(pattern)))?;
    let out = |plan: &AttentionPlan| attend(query.clone(), &key, &value, &plan.layer(0)?);
    // The last rows see every key on both paths.
    ensure!(
        pattern.last > 0,
        "--last is 0, but must be at least 1: those rows are the check"
    );
    let last = tokens.saturating_sub(pattern.last)..tokens;
    let rows = |plan| Ok::<_, AttentionError>(out(plan)?.slice_dim(2, last.clone()));
    let apart = (rows(&dense)? - rows(&sparse)?)
        .abs()
        .max()
        .into_scalar::<f32>();
    ensure!(
        apart <= 1e-5,
        "dense and sparse are {apart} apart in rows {last:?}: not timed"
    );
    let call = |plan: &AttentionPlan| Ok(out(plan).map(drop)?);
    let times = alternate(runs, [&mut || call(&dense), &mut || call(&sparse)])?;
    println!(
        "attention of one layer, {heads}/{kv_heads} heads of {head_dim}, {tokens} tokens, f32"
    );
    let mut rows = Vec::new();
    for (name, plan, time) in [("dense ", &dense, times[0]), ("sparse", &sparse, times[1])] {
        let decision = plan.decision();
        let density = decision
            .density
            .context("dense and Triangular have a density")?;
        let pairs = density * decision.causal_pairs as f64 * heads as f64;
        let rate = 4.0 * pairs * head_dim as f64 / time.median / 1e9;
        println!("  {name}  {time}  density {density:.3}  {rate:6.1} GFLOP/s");
        rows.push(
            json!({ "path": name.trim(), "density": density, "time": time,
            "gflop_per_s": rate }),
        );
    }
    Ok(
        json!({ "bench": "attention", "tokens": tokens, "heads": heads, "kv_heads": kv_heads,
        "head_dim": head_dim, "max_difference": apart, "rows": rows }),
    )
}
