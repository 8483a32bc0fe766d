//! config.json of tiny models, written and read in the words of the Hugging Face classes.

use serde_json::{Value, json};

use super::{Chosen, Tiny};

/// `model_type` and class of every family, and of Mistral's other class.
const FAMILIES: [(&str, &str); 8] = [
    ("gemma3_text", "Gemma3ForCausalLM"),
    ("llama", "LlamaForCausalLM"),
    ("ministral", "MinistralForCausalLM"),
    ("mistral", "MistralForCausalLM"),
    ("phi3", "Phi3ForCausalLM"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
    ("smollm3", "SmolLM3ForCausalLM"),
];

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// Layers that a list has at `value`, or every `interval`-th; none without either.
fn chosen(config: &Value, list: &str, value: &Value, interval: &str) -> Chosen {
    let Some(list) = config[list].as_array() else {
        let interval = config[interval].as_u64();
        return interval.map_or(Chosen::None, |n| Chosen::Every(n as usize));
    };
    let layers = (0..list.len()).filter(|layer| list[*layer] == *value);
    Chosen::Listed(layers.collect())
}

impl Tiny {
    /// The model of a configuration that [`Tiny::config_json`] could have written.
    pub(crate) fn from_config(config: &Value) -> Self {
        let size = |field: &str| config[field].as_u64().expect(field) as usize;
        let number = |field: &str| config[field].as_f64().expect(field);
        let mut families = FAMILIES.into_iter();
        let family = families.find(|(name, _)| config["model_type"] == *name);
        let scaling = &config["rope_scaling"];
        let list = |field: &str| {
            let list = scaling[field].as_array().expect(field).iter();
            list.map(|v| v.as_f64().expect(field)).collect()
        };
        let linear = scaling["rope_type"] == "linear";
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
            local_theta: config["rope_local_base_freq"].as_f64().unwrap_or(10_000.0),
            eps: number("rms_norm_eps"),
            linear: linear.then(|| scaling["factor"].as_f64().expect("a factor")),
            window: config["sliding_window"].as_u64().map(|keys| keys as usize),
            full: chosen(
                config,
                "layer_types",
                &FULL.into(),
                "sliding_window_pattern",
            ),
            no_rope: chosen(
                config,
                "no_rope_layers",
                &0.into(),
                "no_rope_layer_interval",
            ),
            query_scalar: config["query_pre_attn_scalar"].as_u64().map(|n| n as usize),
            longrope: original.map(|n| (list("short_factor"), list("long_factor"), n as usize)),
            rotary: config["partial_rotary_factor"].as_f64().unwrap_or(1.0),
            tied: config["tie_word_embeddings"] == true,
            bf16: config["torch_dtype"] == "bfloat16",
            ..Self::llama()
        }
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
            "tie_word_embeddings": self.tied,
            "torch_dtype": if self.bf16 { "bfloat16" } else { "float32" },
            "bos_token_id": 0,
            "eos_token_id": 1,
        });
        match self.family {
            "gemma3_text" => {
                config["hidden_activation"] = json!("gelu_pytorch_tanh");
                config["rope_local_base_freq"] = json!(self.local_theta);
                config["query_pre_attn_scalar"] = json!(self.query_scalar.unwrap_or(self.head_dim));
            }
            _ => config["hidden_act"] = json!("silu"),
        }
        if self.biased {
            config["attention_bias"] = json!(true);
        }
        if self.rotary != 1.0 {
            config["partial_rotary_factor"] = json!(self.rotary);
        }
        self.write_layers(&mut config);
        self.write_scaling(&mut config);
        let fields = config.as_object_mut().expect("an object");
        fields.retain(|field, _| !self.left_out.contains(&field.as_str()));
        config
    }

    /// Windows of layers, and layers without rotary positions.
    fn write_layers(&self, config: &mut Value) {
        match (self.family, self.window) {
            ("gemma3_text" | "ministral" | "mistral" | "phi3", window) => {
                config["sliding_window"] = json!(window);
            }
            ("qwen2" | "qwen3", Some(keys)) => {
                config["sliding_window"] = json!(keys);
                config["use_sliding_window"] = json!(true);
                let first = match self.full {
                    Chosen::Before(layers) => layers,
                    _ => 0,
                };
                config["max_window_layers"] = json!(first);
            }
            _ => {}
        }
        match (&self.full, self.family) {
            (Chosen::None | Chosen::Before(_), _) => {}
            (Chosen::Every(layers), "gemma3_text") => {
                config["sliding_window_pattern"] = json!(layers);
            }
            _ => {
                let kind = |layer| [SLIDING, FULL][usize::from(self.full.has(layer))];
                let kinds: Vec<_> = (0..self.layers).map(kind).collect();
                config["layer_types"] = json!(kinds);
            }
        }
        match (&self.no_rope, self.family) {
            (Chosen::Every(layers), "smollm3") => config["no_rope_layer_interval"] = json!(layers),
            // Left out, it is every fourth.
            (_, "smollm3") => {
                let rotated = |layer| u8::from(!self.no_rope.has(layer));
                let list: Vec<u8> = (0..self.layers).map(rotated).collect();
                config["no_rope_layers"] = json!(list);
            }
            _ => {}
        }
    }

    /// Scaling of rotary positions.
    fn write_scaling(&self, config: &mut Value) {
        if let Some((short, long, original)) = &self.longrope {
            config["original_max_position_embeddings"] = json!(original);
            config["rope_scaling"] = json!({
                "type": "longrope",
                "short_factor": short,
                "long_factor": long,
            });
        }
        if let Some(factor) = self.linear {
            config["rope_scaling"] = json!({"rope_type": "linear", "factor": factor});
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
    }
}
