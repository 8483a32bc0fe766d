//! The forward pass from its formulae: f64, loops, no cache, every row, one sequence.
//!
//! Written without a look at the crate: heads are repeated by index, the mask is the loop's bound,
//! the rotation is the complex product of each pair `(x[i], x[i + h])` of what is rotated, in the order of the checkpoint.

use std::{f64::consts::PI, ops::Range};

use crate::tiny::{Tensors, Tiny};

type Row = Vec<f64>;

struct Reference<'a> {
    tiny: &'a Tiny,
    tensors: &'a Tensors,
    /// Tokens that the sequence is planned for.
    planned: usize,
}

/// Logits of the last token.
pub(crate) fn logits(tiny: &Tiny, tensors: &Tensors, ids: &[u32]) -> Vec<f32> {
    planned(tiny, tensors, ids, ids.len())
}

/// Logits of the last token of a sequence that is to reach a length.
pub(crate) fn planned(tiny: &Tiny, tensors: &Tensors, ids: &[u32], planned: usize) -> Vec<f32> {
    let last = ids.len() - 1;
    rows(tiny, tensors, ids, planned, last..ids.len()).remove(0)
}

/// Logits of every token.
pub(crate) fn every(tiny: &Tiny, tensors: &Tensors, ids: &[u32]) -> Vec<Vec<f32>> {
    rows(tiny, tensors, ids, ids.len(), 0..ids.len())
}

fn rows(
    tiny: &Tiny,
    tensors: &Tensors,
    ids: &[u32],
    planned: usize,
    wanted: Range<usize>,
) -> Vec<Vec<f32>> {
    let model = Reference {
        tiny,
        tensors,
        planned,
    };
    let mut rows: Vec<Row> = ids
        .iter()
        .map(|&id| {
            let row = model.row_of("model.embed_tokens.weight", id as usize);
            row.iter().map(|v| v * tiny.embedding_scale()).collect()
        })
        .collect();
    for layer in 0..tiny.layers {
        model.layer(layer, &mut rows);
    }
    let head = if tiny.tied {
        "model.embed_tokens"
    } else {
        "lm_head"
    };
    let logits = |row: &Row| {
        let row = model.linear(head, &model.norm("model.norm.weight", row));
        row.iter().map(|&v| v as f32).collect()
    };
    rows[wanted].iter().map(logits).collect()
}

impl Reference<'_> {
    fn row_of(&self, name: &str, row: usize) -> Row {
        let (shape, values) = &self.tensors[name];
        let width = shape[1];
        values[row * width..(row + 1) * width]
            .iter()
            .map(|&v| f64::from(v))
            .collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Row {
        let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let (_, gamma) = &self.tensors[name];
        let scale = 1.0 / (mean + self.tiny.eps).sqrt();
        x.iter()
            .zip(gamma)
            .map(|(v, &g)| v * scale * (f64::from(g) + self.tiny.gain_offset()))
            .collect()
    }

    fn linear(&self, name: &str, x: &[f64]) -> Row {
        let (shape, _) = &self.tensors[&format!("{name}.weight")];
        let bias = self.tensors.get(&format!("{name}.bias"));
        (0..shape[0])
            .map(|out| {
                let weight = self.row_of(&format!("{name}.weight"), out);
                let bias = bias.map_or(0.0, |(_, values)| f64::from(values[out]));
                bias + weight.iter().zip(x).map(|(w, v)| w * v).sum::<f64>()
            })
            .collect()
    }

    fn frequency(&self, pair: usize, local: bool) -> f64 {
        let rotated = self.tiny.rotated() as f64;
        if local {
            return 1.0 / self.tiny.local_theta.powf((2 * pair) as f64 / rotated);
        }
        let mut theta = self.tiny.theta;
        if let Some(factor) = self.tiny.dynamic {
            let times = self.planned as f64 / self.tiny.positions as f64;
            theta *= (factor * times.max(1.0) - factor + 1.0).powf(rotated / (rotated - 2.0));
        }
        let base = 1.0 / theta.powf((2 * pair) as f64 / rotated);
        if let Some((short, long, original)) = &self.tiny.longrope {
            let divisors = if self.planned > *original {
                long
            } else {
                short
            };
            return base / divisors[pair];
        }
        if let Some((factor, original)) = self.tiny.yarn {
            // Turns of the pair over the original length, by pairs: 32 keep it, 1 stretches it in full.
            let (dim, turn) = (rotated, 2.0 * PI);
            let at = |turns: f64| {
                dim * (original as f64 / (turns * turn)).ln() / (2.0 * self.tiny.theta.ln())
            };
            let (first, last) = (at(32.0).floor().max(0.0), at(1.0).ceil().min(dim - 1.0));
            let ramp = ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
            return base * (1.0 - ramp) + base / factor * ramp;
        }
        let Some((factor, low, high, original)) = self.tiny.scaling else {
            return base / self.tiny.linear.unwrap_or(1.0);
        };
        let (wavelength, original) = (2.0 * PI / base, original as f64);
        if wavelength < original / high {
            base
        } else if wavelength > original / low {
            base / factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 - smooth) * base / factor + smooth * base
        }
    }

    fn rotated(&self, layer: usize, x: &[f64], position: usize) -> Row {
        if self.tiny.no_rope.has(layer) {
            return x.to_vec();
        }
        let dim = self.tiny.head_dim;
        let half = self.tiny.rotated() / 2;
        let local = self.tiny.local(layer);
        let gain = match (self.tiny.yarn, &self.tiny.longrope) {
            _ if local => 1.0,
            (Some((factor, _)), _) => 0.1 * factor.ln() + 1.0,
            (_, Some((_, _, original))) => {
                let factor = (self.tiny.positions as f64 / *original as f64).max(1.0);
                (1.0 + factor.ln() / (*original as f64).ln()).sqrt()
            }
            _ => 1.0,
        };
        let mut out = x.to_vec();
        for head in 0..x.len() / dim {
            for pair in 0..half {
                let (sin, cos) = (position as f64 * self.frequency(pair, local)).sin_cos();
                let (re, im) = (x[head * dim + pair], x[head * dim + half + pair]);
                out[head * dim + pair] = gain * (re * cos - im * sin);
                out[head * dim + half + pair] = gain * (re * sin + im * cos);
            }
        }
        out
    }

    fn layer(&self, layer: usize, rows: &mut [Row]) {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let normed: Vec<Row> = rows
            .iter()
            .map(|row| self.norm(&name("input_layernorm.weight"), row))
            .collect();
        let [query, key, value] = self.query_key_value(layer, &normed);
        // Norms of a model that has them after attention and MLP too.
        let (after_attention, before_mlp, after_mlp) = match self.tiny.norms_after() {
            true => (
                Some("post_attention_layernorm.weight"),
                "pre_feedforward_layernorm.weight",
                Some("post_feedforward_layernorm.weight"),
            ),
            false => (None, "post_attention_layernorm.weight", None),
        };
        let after = |norm: Option<&str>, out: Row| match norm {
            Some(norm) => self.norm(&name(norm), &out),
            None => out,
        };
        for (position, row) in rows.iter_mut().enumerate() {
            let first = self
                .tiny
                .window_of(layer)
                .map_or(0, |keys| (position + 1).saturating_sub(keys));
            let seen = first..=position;
            let context = self.attend(&query[position], &key[seen.clone()], &value[seen]);
            let out = self.linear(&name("self_attn.o_proj"), &context);
            add(row, &after(after_attention, out));
            let out = self.mlp(layer, &self.norm(&name(before_mlp), row));
            add(row, &after(after_mlp, out));
        }
    }

    /// Rows of query, key and value, normalised and rotated.
    fn query_key_value(&self, layer: usize, normed: &[Row]) -> [Vec<Row>; 3] {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let project = |part: &str| -> Vec<Row> {
            normed
                .iter()
                .map(|row| self.linear(&name(part), row))
                .collect()
        };
        let turn = |rows: Vec<Row>| -> Vec<Row> {
            rows.iter()
                .enumerate()
                .map(|(position, row)| self.rotated(layer, row, position))
                .collect()
        };
        let by_head = |rows: Vec<Row>, part: &str| -> Vec<Row> {
            if !self.tiny.head_norms() {
                return rows;
            }
            let each = |head: &[f64]| self.norm(&name(part), head);
            let heads = |row: Row| row.chunks(self.tiny.head_dim).flat_map(each).collect();
            rows.into_iter().map(heads).collect()
        };
        let (query, key, value) = match self.tiny.fused() {
            true => {
                let qkv = project("self_attn.qkv_proj");
                let q = self.tiny.heads * self.tiny.head_dim;
                let k = q + self.tiny.kv_heads * self.tiny.head_dim;
                let part = |from: usize, to: usize| -> Vec<Row> {
                    qkv.iter().map(|row| row[from..to].to_vec()).collect()
                };
                let all = qkv[0].len();
                (part(0, q), part(q, k), part(k, all))
            }
            false => (
                project("self_attn.q_proj"),
                project("self_attn.k_proj"),
                project("self_attn.v_proj"),
            ),
        };
        let query = turn(by_head(query, "self_attn.q_norm.weight"));
        let key = turn(by_head(key, "self_attn.k_norm.weight"));
        [query, key, value]
    }

    fn mlp(&self, layer: usize, x: &[f64]) -> Row {
        let name = |part: &str| format!("model.layers.{layer}.mlp.{part}");
        let (gate, up) = match self.tiny.fused() {
            true => {
                let mut gate = self.linear(&name("gate_up_proj"), x);
                let up = gate.split_off(self.tiny.intermediate);
                (gate, up)
            }
            false => (
                self.linear(&name("gate_proj"), x),
                self.linear(&name("up_proj"), x),
            ),
        };
        let act = |g: f64| match self.tiny.gelu() {
            true => {
                let inner = (2.0 / PI).sqrt() * (g + 0.044715 * g.powi(3));
                0.5 * g * (1.0 + inner.tanh())
            }
            false => g / (1.0 + (-g).exp()),
        };
        let gated: Row = gate.iter().zip(&up).map(|(g, u)| act(*g) * u).collect();
        self.linear(&name("down_proj"), &gated)
    }

    fn attend(&self, query: &[f64], keys: &[Row], values: &[Row]) -> Row {
        let (dim, group) = (self.tiny.head_dim, self.tiny.heads / self.tiny.kv_heads);
        let divisor = (self.tiny.query_scalar.unwrap_or(dim) as f64).sqrt();
        let mut out = vec![0.0; query.len()];
        for head in 0..self.tiny.heads {
            let own = head * dim..(head + 1) * dim;
            let shared = (head / group) * dim..(head / group + 1) * dim;
            let dot = |key: &Row| {
                let products = query[own.clone()].iter().zip(&key[shared.clone()]);
                products.map(|(q, k)| q * k).sum::<f64>() / divisor
            };
            let scores: Vec<f64> = keys.iter().map(dot).collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (weight, value) in weights.iter().zip(values) {
                let value = &value[shared.clone()];
                for (slot, v) in out[own.clone()].iter_mut().zip(value) {
                    *slot += weight / total * v;
                }
            }
        }
        out
    }
}

fn add(row: &mut [f64], other: &[f64]) {
    for (slot, value) in row.iter_mut().zip(other) {
        *slot += value;
    }
}
