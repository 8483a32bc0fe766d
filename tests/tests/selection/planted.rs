//! Inputs whose attention is known: columns, one slash and a needle over random keys.
//!
//! Dimensions 0 to 47 hold the slash: a row's query is the key that stands `SLASH` tokens before it, one
//! of unit vectors that are otherwise unrelated. Dimension 48 holds columns, which every row sees alike,
//! dimension 49 a key that one row alone looks for. The rest is faint noise.

use burn::tensor::DType;
use sparse_accelerate::Span;
use sparse_accelerate_tests::problem::{Inputs, Layout, Problem, round};

/// Query heads, KV heads, head dimension.
pub(crate) const HEADS: [usize; 3] = [4, 2, 64];
/// Offset of the planted slash.
pub(crate) const SLASH: usize = 640;
/// Columns of each KV head.
pub(crate) const COLUMNS: [&[usize]; 2] = [&[40, 777, 1500], &[33, 1111]];
/// Key and row of the needle, in KV head 1.
pub(crate) const NEEDLE: usize = 1803;

/// Logits of columns, slash and needle.
const COLUMN: f32 = 11.0;
const OF_SLASH: f32 = 11.7;
const FOUND: f32 = 15.0;
const SLASH_DIMS: usize = 48;

/// A problem and its inputs.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) problem: Problem,
    pub(crate) inputs: Inputs,
}

/// Independent normals.
pub(crate) fn random(dtype: DType, spans: &[Span]) -> Case {
    let problem = Problem {
        spans: spans.to_vec(),
        slack: 5,
        layout: Layout::Swapped,
        ..Problem::whole(dtype, HEADS, 1)
    };
    let inputs = problem.inputs(23);
    Case { problem, inputs }
}

/// The planted lines in one prompt of `len` tokens; `needle_row` finds the needle.
pub(crate) fn planted(dtype: DType, len: usize, needle_row: usize) -> Case {
    let Case {
        problem,
        mut inputs,
    } = random(dtype, &[Span::whole(len)]);
    let [heads, kv_heads, d] = HEADS;
    let root = (d as f32).sqrt();
    let length = (OF_SLASH * root).sqrt();
    let stride = problem.keys();
    for (kv_head, columns) in COLUMNS.iter().enumerate() {
        for j in 0..len {
            let key = &mut inputs.key[(kv_head * stride + j) * d..][..d];
            let norm = key[..SLASH_DIMS].iter().map(|x| x * x).sum::<f32>().sqrt();
            key[..SLASH_DIMS]
                .iter_mut()
                .for_each(|x| *x *= length / norm);
            key[SLASH_DIMS..].iter_mut().for_each(|x| *x *= 0.3);
            let column = columns.contains(&j);
            key[SLASH_DIMS] = if column { COLUMN } else { 0.0 };
            let needle = kv_head == 1 && j == NEEDLE;
            key[SLASH_DIMS + 1] = if needle { FOUND } else { 0.0 };
        }
    }
    for head in 0..heads {
        let kv_head = head * kv_heads / heads;
        for p in 0..len {
            let query = &mut inputs.query[(head * len + p) * d..][..d];
            query.iter_mut().for_each(|x| *x *= 0.3);
            if let Some(j) = p.checked_sub(SLASH) {
                let from = (kv_head * stride + j) * d;
                query[..SLASH_DIMS].copy_from_slice(&inputs.key[from..from + SLASH_DIMS]);
            }
            query[SLASH_DIMS] = root;
            query[SLASH_DIMS + 1] = if p == needle_row { root } else { 0.0 };
        }
    }
    for x in inputs.query.iter_mut().chain(&mut inputs.key) {
        *x = round(*x, dtype);
    }
    Case { problem, inputs }
}

impl Case {
    /// The part of the inputs that belongs to new rows `from..to` of a prompt, as a case of its own.
    pub(crate) fn chunk(&self, from: usize, to: usize) -> Case {
        let (whole, d) = (&self.problem, self.problem.head_dim);
        let part = |values: &[f32], stride: usize| -> Vec<f32> {
            let heads = values.chunks_exact(stride * d);
            heads
                .flat_map(|head| head[from * d..to * d].to_vec())
                .collect()
        };
        let span = Span {
            query_len: to - from,
            kv_len: to,
            prompt_len: whole.spans[0].prompt_len,
        };
        Case {
            problem: Problem {
                spans: vec![span],
                ..whole.clone()
            },
            inputs: Inputs {
                query: part(&self.inputs.query, whole.rows()),
                key: part(&self.inputs.key, whole.keys()),
                value: part(&self.inputs.value, whole.keys()),
            },
        }
    }
}
