//! The f64 oracle, and the plain computation in the problem's own precision that bounds the error.
//!
//! `out[i] = sum_j w_j v_j / sum_j w_j`, `w_j = exp(q_i . k_j / sqrt(d))` over the keys that row `i`
//! sees; `lse = ln sum_j w_j`; query head `h` reads KV head `h / (Hq / Hk)`. Padded rows are zeros
//! with `lse = -inf`.

use crate::problem::{Inputs, Problem, round};

/// Visibility of (sequence, query head, query row, key): true if the row sees the key.
pub type Sees<'a> = dyn Fn(usize, usize, usize, usize) -> bool + 'a;

/// Results in `[B, Hq, N, d]` and `[B, Hq, N]` order.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Attention output.
    pub out: Vec<f64>,
    /// Log-sum-exp.
    pub lse: Vec<f64>,
}

/// Dense causal visibility.
pub fn causal(problem: &Problem) -> impl Fn(usize, usize, usize, usize) -> bool + '_ {
    |b, _, i, j| j <= problem.spans[b].offset() + i
}

/// The formula, in f64.
pub fn exact(problem: &Problem, inputs: &Inputs, sees: &Sees<'_>) -> Expected {
    run(problem, inputs, sees, |x| x, |x| x)
}

/// The formula as one would write it in the problem's type: products and sums in f32, every stored
/// intermediate (scores, probabilities, output) rounded to that type.
pub fn plain(problem: &Problem, inputs: &Inputs, sees: &Sees<'_>) -> Expected {
    let store = |x: f64| f64::from(round(x as f32, problem.dtype));
    run(problem, inputs, sees, store, |x| f64::from(x as f32))
}

fn run(
    problem: &Problem,
    inputs: &Inputs,
    sees: &Sees<'_>,
    store: impl Fn(f64) -> f64,
    sum: impl Fn(f64) -> f64,
) -> Expected {
    let [batch, heads, rows, d] = problem.query_dims();
    let keys = problem.keys();
    let group = heads / problem.kv_heads;
    let scale = 1.0 / (d as f64).sqrt();
    let mut out = vec![0.0; batch * heads * rows * d];
    let mut lse = vec![f64::NEG_INFINITY; batch * heads * rows];
    for b in 0..batch {
        for h in 0..heads {
            let kv = (b * problem.kv_heads + h / group) * keys;
            for i in 0..problem.spans[b].query_len {
                let row = (b * heads + h) * rows + i;
                let q = &inputs.query[row * d..(row + 1) * d];
                let visible: Vec<usize> = (0..problem.spans[b].kv_len)
                    .filter(|&j| sees(b, h, i, j))
                    .collect();
                if visible.is_empty() {
                    continue;
                }
                let score = |&j: &usize| {
                    let k = &inputs.key[(kv + j) * d..(kv + j + 1) * d];
                    let dot = q.iter().zip(k).fold(0.0, |acc, (&a, &b)| {
                        sum(acc + sum(f64::from(a) * f64::from(b)))
                    });
                    store(sum(dot * scale))
                };
                let scores: Vec<f64> = visible.iter().map(score).collect();
                let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| sum((s - maximum).exp())).collect();
                let total = weights.iter().fold(0.0, |acc, w| sum(acc + w));
                lse[row] = maximum + total.ln();
                for (&j, w) in visible.iter().zip(&weights) {
                    let p = store(sum(w / total));
                    let v = &inputs.value[(kv + j) * d..(kv + j + 1) * d];
                    for (o, &x) in out[row * d..(row + 1) * d].iter_mut().zip(v) {
                        *o = sum(*o + sum(p * f64::from(x)));
                    }
                }
                for o in &mut out[row * d..(row + 1) * d] {
                    *o = store(*o);
                }
            }
        }
    }
    Expected { out, lse }
}
