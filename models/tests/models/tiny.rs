//! Tiny models: a description, random weights, and a checkpoint folder of them.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::Device;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use sparse_accelerate::{AttentionSettings, KvCache};
use sparse_accelerate_checkpoint::ModelDir;
use sparse_accelerate_models::{CausalLm, LoadOptions, ModelError};

/// Settings that a test varies.
#[derive(Debug, Clone)]
pub(crate) struct Tiny {
    pub(crate) family: &'static str,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocab: usize,
    pub(crate) positions: usize,
    pub(crate) theta: f64,
    pub(crate) eps: f64,
    /// factor, low, high, original positions
    pub(crate) scaling: Option<(f64, f64, f64, usize)>,
    /// factor and original positions of YaRN
    pub(crate) yarn: Option<(f64, usize)>,
    /// divisors of sequences of up to the original length, divisors of longer ones, original positions
    pub(crate) longrope: Option<(Vec<f64>, Vec<f64>, usize)>,
    /// factor of dynamic NTK
    pub(crate) dynamic: Option<f64>,
    /// share of a head that is rotated
    pub(crate) rotary: f64,
    /// keys that a row sees, in every layer
    pub(crate) window: Option<usize>,
    pub(crate) tied: bool,
    /// `attention_bias` of the families that read it
    pub(crate) biased: bool,
}

/// `model_type` and class of every family.
const FAMILIES: [(&str, &str); 5] = [
    ("llama", "LlamaForCausalLM"),
    ("mistral", "MistralForCausalLM"),
    ("phi3", "Phi3ForCausalLM"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
];

/// Tensors by name: shape and values.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

impl Tiny {
    pub(crate) fn llama() -> Self {
        Self {
            family: "llama",
            hidden: 48,
            intermediate: 72,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 32,
            vocab: 61,
            positions: 128,
            theta: 10_000.0,
            eps: 1e-5,
            scaling: None,
            yarn: None,
            longrope: None,
            dynamic: None,
            rotary: 1.0,
            window: None,
            tied: true,
            biased: false,
        }
    }

    /// With a window shorter than most prompts.
    pub(crate) fn mistral() -> Self {
        Self {
            family: "mistral",
            window: Some(9),
            tied: false,
            ..Self::llama()
        }
    }

    /// With three quarters of each head rotated.
    pub(crate) fn phi3() -> Self {
        Self {
            family: "phi3",
            rotary: 0.75,
            ..Self::llama()
        }
    }

    /// Divisors of LongRoPE for what is rotated, mild below `original` positions and strong beyond.
    pub(crate) fn with_longrope(self, original: usize) -> Self {
        let pairs = 0..self.rotated() / 2;
        let divisors = |slope: f64| pairs.clone().map(|i| 1.0 + slope * i as f64).collect();
        Self {
            longrope: Some((divisors(0.125), divisors(0.75), original)),
            ..self
        }
    }

    /// Elements of a head that are rotated.
    pub(crate) fn rotated(&self) -> usize {
        (self.head_dim as f64 * self.rotary) as usize
    }

    pub(crate) fn qwen2() -> Self {
        Self {
            family: "qwen2",
            hidden: 120,
            heads: 3,
            kv_heads: 1,
            head_dim: 40,
            theta: 1_000_000.0,
            eps: 1e-6,
            ..Self::llama()
        }
    }

    pub(crate) fn qwen3() -> Self {
        Self {
            family: "qwen3",
            theta: 1_000_000.0,
            eps: 1e-6,
            ..Self::llama()
        }
    }

    /// One of every family.
    pub(crate) fn families() -> [Self; 5] {
        [
            Self::llama(),
            Self::mistral(),
            Self::phi3(),
            Self::qwen2(),
            Self::qwen3(),
        ]
    }

    /// The model of a configuration that [`Tiny::config_json`] could have written.
    pub(crate) fn from_config(config: &Value) -> Self {
        let size = |field: &str| config[field].as_u64().expect(field) as usize;
        let number = |field: &str| config[field].as_f64().expect(field);
        let mut families = FAMILIES.into_iter();
        let family = families.find(|(name, _)| config["model_type"] == *name);
        let list = |field: &str| {
            let list = config["rope_scaling"][field]
                .as_array()
                .expect(field)
                .iter();
            list.map(|v| v.as_f64().expect(field)).collect()
        };
        let original = config["original_max_position_embeddings"].as_u64();
        Self {
            family: family.expect("a family").0,
            hidden: size("hidden_size"),
            intermediate: size("intermediate_size"),
            layers: size("num_hidden_layers"),
            heads: size("num_attention_heads"),
            kv_heads: size("num_key_value_heads"),
            head_dim: size("head_dim"),
            vocab: size("vocab_size"),
            positions: size("max_position_embeddings"),
            theta: number("rope_theta"),
            eps: number("rms_norm_eps"),
            window: config["sliding_window"].as_u64().map(|keys| keys as usize),
            longrope: original.map(|n| (list("short_factor"), list("long_factor"), n as usize)),
            rotary: config["partial_rotary_factor"].as_f64().unwrap_or(1.0),
            tied: config["tie_word_embeddings"] == true,
            ..Self::llama()
        }
    }

    pub(crate) fn qkv_bias(&self) -> bool {
        self.family == "qwen2" || self.biased
    }

    pub(crate) fn fused(&self) -> bool {
        self.family == "phi3"
    }

    pub(crate) fn head_norms(&self) -> bool {
        self.family == "qwen3"
    }

    /// The weights, the same at every call.
    pub(crate) fn tensors(&self) -> Tensors {
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
        let mut state = 7u64;
        let mut values = |name: &str, shape: &[usize]| {
            let (center, scale) = match shape {
                [_, fan_in] => (0.0, 1.5 / (*fan_in as f32).sqrt()),
                _ if name.ends_with("bias") => (0.0, 0.5),
                _ => (1.0, 0.3),
            };
            let next = |_| {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                center + scale * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
            };
            (0..shape.iter().product()).map(next).collect::<Vec<_>>()
        };
        let entry = |(name, shape): (String, Vec<usize>)| {
            let values = values(&name, &shape);
            (name, (shape, values))
        };
        shapes.into_iter().map(entry).collect()
    }

    pub(crate) fn config_json(&self) -> Value {
        let mut families = FAMILIES.into_iter();
        let family = families.find(|(name, _)| *name == self.family);
        let architecture = family.expect("a family").1;
        let mut config = json!({
            "architectures": [architecture],
            "model_type": self.family,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab,
            "max_position_embeddings": self.positions,
            "rope_theta": self.theta,
            "rms_norm_eps": self.eps,
            "hidden_act": "silu",
            "tie_word_embeddings": self.tied,
            "torch_dtype": "float32",
            "bos_token_id": 0,
            "eos_token_id": 1,
        });
        if ["mistral", "phi3"].contains(&self.family) {
            config["sliding_window"] = json!(self.window);
        }
        if self.biased {
            config["attention_bias"] = json!(true);
        }
        if self.rotary != 1.0 {
            config["partial_rotary_factor"] = json!(self.rotary);
        }
        if let Some((short, long, original)) = &self.longrope {
            config["original_max_position_embeddings"] = json!(original);
            config["rope_scaling"] = json!({
                "type": "longrope",
                "short_factor": short,
                "long_factor": long,
            });
        }
        if let Some(factor) = self.dynamic {
            config["rope_scaling"] = json!({"rope_type": "dynamic", "factor": factor});
        }
        if let Some((factor, low, high, original)) = self.scaling {
            config["rope_scaling"] = json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            });
        }
        if let Some((factor, original)) = self.yarn {
            config["rope_scaling"] = json!({
                "type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original,
            });
        }
        config
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

    /// Writes `tensors` and loads them as `change` has it.
    pub(crate) fn try_load_with(
        &self,
        tensors: &Tensors,
        change: impl FnOnce(&mut LoadOptions),
    ) -> Result<CausalLm, ModelError> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        self.write(dir.path(), tensors);
        let mut options = LoadOptions::new(Device::flex());
        change(&mut options);
        CausalLm::load(&ModelDir::open(dir.path())?, &options, &mut |_| {})
    }

    /// Writes `tensors` and loads them, with MLP chunks of `mlp_rows`.
    pub(crate) fn try_load(
        &self,
        tensors: &Tensors,
        mlp_rows: usize,
    ) -> Result<CausalLm, ModelError> {
        self.try_load_with(tensors, |options| options.model.mlp_rows = mlp_rows)
    }

    /// The model with its own weights.
    pub(crate) fn load(&self) -> CausalLm {
        self.try_load(&self.tensors(), 2048)
            .expect("a sound checkpoint")
    }

    /// Some tokens.
    pub(crate) fn prompt(&self, len: usize, seed: usize) -> Vec<u32> {
        (0..len)
            .map(|i| ((i * i * 7 + i * 13 + seed * 29 + 3) % self.vocab) as u32)
            .collect()
    }
}

/// An empty cache for a model.
pub(crate) fn cache(model: &CausalLm, batch: usize, capacity: usize) -> KvCache {
    let shape = model.cache_shape(batch, capacity);
    KvCache::new(&shape, model.cache_dtype(), model.device()).expect("a cache")
}

/// Feeds one chunk a sequence and returns the logits after it.
pub(crate) fn feed(
    model: &CausalLm,
    cache: &mut KvCache,
    ids: &[&[u32]],
    prompt_lens: &[usize],
) -> Vec<Vec<f32>> {
    let settings = AttentionSettings::dense();
    let output = model
        .forward(ids, prompt_lens, cache, &settings)
        .expect("a forward pass");
    let logits = model.logits(output.last_hidden).expect("logits");
    let vocab = logits.dims()[1];
    let values = logits.try_into_vec_as::<f32>().expect("logits");
    values.chunks(vocab).map(<[f32]>::to_vec).collect()
}

/// Logits after a whole prompt in one chunk.
pub(crate) fn whole(model: &CausalLm, prompt: &[u32]) -> Vec<f32> {
    let mut cache = cache(model, 1, prompt.len());
    feed(model, &mut cache, &[prompt], &[prompt.len()]).remove(0)
}

/// The largest absolute difference; infinite when lengths differ or something is not finite.
pub(crate) fn distance(left: &[f32], right: &[f32]) -> f32 {
    if left.len() != right.len() || left.iter().chain(right).any(|v| !v.is_finite()) {
        return f32::INFINITY;
    }
    left.iter()
        .zip(right)
        .map(|(l, r)| (l - r).abs())
        .fold(0.0, f32::max)
}
