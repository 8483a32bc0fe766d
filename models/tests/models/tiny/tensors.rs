//! Weights of tiny models and the folders that hold them.

use std::{collections::BTreeMap, path::Path};

use half::bf16;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;

use super::Tiny;

/// Tensors by name: shape and values.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

impl Tiny {
    /// The weights, the same at every call, rounded to the type of the model.
    pub(crate) fn tensors(&self) -> Tensors {
        let mut state = 7u64;
        let mut values = |name: &str, shape: &[usize]| {
            let (center, scale) = match shape {
                [_, fan_in] => (0.0, 1.5 / (*fan_in as f32).sqrt()),
                _ if name.ends_with("bias") => (0.0, 0.5),
                // Gains of about 1.
                _ => (1.0 - self.gain_offset() as f32, 0.3),
            };
            let next = |_| {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                let value = center + scale * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0);
                match self.bf16 {
                    true => bf16::from_f32(value).to_f32(),
                    false => value,
                }
            };
            (0..shape.iter().product()).map(next).collect::<Vec<_>>()
        };
        let entry = |(name, shape): (String, Vec<usize>)| {
            let values = values(&name, &shape);
            (name, (shape, values))
        };
        self.shapes().into_iter().map(entry).collect()
    }

    /// Names and shapes in the order in which their values are made.
    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (h, f) = (self.hidden, self.intermediate);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut shapes: Vec<(String, Vec<usize>)> = vec![
            ("model.embed_tokens.weight".into(), vec![self.vocab, h]),
            ("model.norm.weight".into(), vec![h]),
        ];
        if !self.tied {
            shapes.push(("lm_head.weight".into(), vec![self.vocab, h]));
        }
        for layer in 0..self.layers {
            let mut push = |name: &str, shape: &[usize]| {
                shapes.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
            };
            push("input_layernorm.weight", &[h]);
            push("post_attention_layernorm.weight", &[h]);
            if self.norms_after() {
                push("pre_feedforward_layernorm.weight", &[h]);
                push("post_feedforward_layernorm.weight", &[h]);
            }
            let separate = [("q", q), ("k", kv), ("v", kv), ("qkv", q + 2 * kv)];
            let projections = match self.fused() {
                true => &separate[3..],
                false => &separate[..3],
            };
            for &(name, rows) in projections {
                push(&format!("self_attn.{name}_proj.weight"), &[rows, h]);
                if self.qkv_bias() {
                    push(&format!("self_attn.{name}_proj.bias"), &[rows]);
                }
            }
            if self.head_norms() {
                push("self_attn.q_norm.weight", &[self.head_dim]);
                push("self_attn.k_norm.weight", &[self.head_dim]);
            }
            push("self_attn.o_proj.weight", &[h, q]);
            if self.biased {
                push("self_attn.o_proj.bias", &[h]);
            }
            if self.fused() {
                push("mlp.gate_up_proj.weight", &[2 * f, h]);
            } else {
                push("mlp.gate_proj.weight", &[f, h]);
                push("mlp.up_proj.weight", &[f, h]);
            }
            push("mlp.down_proj.weight", &[h, f]);
        }
        shapes
    }

    /// Writes a model folder.
    pub(crate) fn write(&self, dir: &Path, tensors: &Tensors) {
        let write = |name: &str, text: String| std::fs::write(dir.join(name), text).expect(name);
        write("config.json", self.config_json().to_string());
        let vocab: BTreeMap<String, usize> =
            (0..self.vocab).map(|id| (format!("t{id}"), id)).collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
            "decoder": null, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
        });
        write("tokenizer.json", tokenizer.to_string());
        let bytes: BTreeMap<&String, (Vec<usize>, Vec<u8>)> = tensors
            .iter()
            .map(|(name, (shape, values))| {
                let bytes = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                (name, (shape.clone(), bytes))
            })
            .collect();
        let views = bytes.iter().map(|(name, (shape, bytes))| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a valid view");
            (name.as_str(), view)
        });
        let file = dir.join("model.safetensors");
        safetensors::serialize_to_file(views, None, &file).expect("model.safetensors");
    }
}
