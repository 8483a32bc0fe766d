//! Keys of config.json that are read, for the page of supported families; a test holds the table to what the parser looks up.
//!
//! Keys that are refused unless they do nothing are in `unsupported`.

use super::Architecture;
use super::family::WindowRule;

/// A key, the families that read it, and its meaning.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) read_by: fn(Architecture) -> bool,
    pub(crate) meaning: &'static str,
}

const fn all(name: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        read_by: |_| true,
        meaning,
    }
}

const fn some(name: &'static str, meaning: &'static str, read_by: fn(Architecture) -> bool) -> Key {
    Key {
        name,
        read_by,
        meaning,
    }
}

/// Every key outside of the objects of a position scaling.
pub(crate) const KEYS: &[Key] = &[
    all("architectures", "the class, which says the family"),
    all("model_type", "the family; must agree with the class"),
    all("hidden_size", "width of the residual stream"),
    all("intermediate_size", "width inside the MLP"),
    all("num_hidden_layers", "layers"),
    all("num_attention_heads", "query heads"),
    all(
        "num_key_value_heads",
        "KV heads; left out, as many as query heads",
    ),
    all("head_dim", "elements per head, 32 to 256 in steps of 8"),
    all("vocab_size", "rows of the embedding table"),
    all("max_position_embeddings", "longest sequence in tokens"),
    all("max_sequence_length", "the same in the first Llama files"),
    all("rms_norm_eps", "epsilon of the norms, 1e-6 if left out"),
    all(
        "tie_word_embeddings",
        "the output projection is the embedding table",
    ),
    all("attention_bias", "biases of the attention's projections"),
    some(
        "mlp_bias",
        "biases of the MLP's projections",
        Architecture::biased_throughout,
    ),
    all("hidden_act", "refused unless it is the family's gate"),
    all("hidden_activation", "the same; goes before `hidden_act`"),
    all("rope_theta", "base of the rotary frequencies"),
    all("rope_local_base_freq", "base in layers with a window"),
    all("partial_rotary_factor", "share of a head that is rotated"),
    all("rope_scaling", "position scaling, see below"),
    all(
        "rope_parameters",
        "the same in newer files, with the two keys above inside",
    ),
    all(
        "original_max_position_embeddings",
        "length before the stretch, for `longrope`",
    ),
    all(
        "layer_types",
        "`full_attention` or `sliding_attention`, one per layer",
    ),
    some(
        "sliding_window",
        "keys that a row of a layer with a window sees",
        |family| family.window_rule() != WindowRule::Never,
    ),
    some(
        "use_sliding_window",
        "switches windows on; false beside a window that a family has by its size alone is refused",
        |family| family.window_rule() != WindowRule::Pattern,
    ),
    some(
        "max_window_layers",
        "first layer with a window; in a SmolLM3 positions decide",
        |family| {
            let rule = family.window_rule();
            !matches!(rule, WindowRule::Pattern | WindowRule::Size)
        },
    ),
    some(
        "sliding_window_pattern",
        "every so many layers one has no window",
        patterned,
    ),
    some("_sliding_window_pattern", "the same", patterned),
    some(
        "no_rope_layers",
        "1 for each layer with positions, 0 for each without",
        unrotated,
    ),
    some(
        "no_rope_layer_interval",
        "every so many layers one has no positions",
        unrotated,
    ),
    some(
        "query_pre_attn_scalar",
        "the number whose square root divides scores",
        |family| family.query_scalar().is_some(),
    ),
    all("dtype", "type of the weights: float32, float16, bfloat16"),
    all("torch_dtype", "the same in older files"),
    all("bos_token_id", "beginning token"),
    all("eos_token_id", "tokens that end a text"),
];

fn patterned(family: Architecture) -> bool {
    family.window_rule() == WindowRule::Pattern
}

fn unrotated(family: Architecture) -> bool {
    family.unrotated_interval().is_some()
}

/// A scaling of rotary positions, as config.json has it.
pub(crate) struct Scaling {
    /// Values of `rope_type` (`type` in older files).
    pub(crate) names: &'static [&'static str],
    pub(crate) source: &'static str,
    /// Keys of the object beside its type.
    pub(crate) keys: &'static [&'static str],
}

const ORIGINAL: &str = "original_max_position_embeddings";

/// Every scaling.
pub(crate) const SCALINGS: &[Scaling] = &[
    Scaling {
        names: &["default"],
        source: "none",
        keys: &[],
    },
    Scaling {
        names: &["linear"],
        source: "position interpolation, arXiv 2306.15595",
        keys: &["factor"],
    },
    Scaling {
        names: &["llama3"],
        source: "as published with Llama 3.1",
        keys: &["factor", "low_freq_factor", "high_freq_factor", ORIGINAL],
    },
    Scaling {
        names: &["yarn"],
        source: "YaRN, arXiv 2309.00071",
        keys: &[
            "factor",
            ORIGINAL,
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        ],
    },
    Scaling {
        names: &["longrope", "su"],
        source: "LongRoPE, arXiv 2402.13753, as published with Phi-3",
        keys: &[
            "short_factor",
            "long_factor",
            "factor",
            ORIGINAL,
            "attention_factor",
            "short_mscale",
            "long_mscale",
        ],
    },
    Scaling {
        names: &["dynamic"],
        source: "dynamic NTK, as `transformers` computes it",
        keys: &["factor", ORIGINAL],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::ModelConfig;
    use crate::config::{READ, refused};

    /// Keys that any scaling's object is asked for.
    const OF_ANY: [&str; 9] = [
        "rope_type",
        "type",
        "rope_theta",
        "partial_rotary_factor",
        "full_attention",
        "sliding_attention",
        "llama_4_scaling_beta",
        "alpha",
        // Tells the first Phi-3 files from YaRN.
        "long_factor",
    ];

    fn config(family: Architecture, edits: &Value) -> Value {
        let mut config = json!({
            "architectures": [family.class_name()], "hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 8,
            "num_attention_heads": 4, "head_dim": 32, "vocab_size": 300, "max_position_embeddings": 128,
        });
        let edits = edits.as_object().expect("an object").clone();
        config.as_object_mut().expect("an object").extend(edits);
        config
    }

    /// Keys that the parser looks up.
    fn read(config: &Value) -> BTreeSet<String> {
        READ.with_borrow_mut(BTreeSet::clear);
        ModelConfig::from_json(&config.to_string()).expect("sound");
        READ.take()
    }

    #[test]
    fn the_table_has_what_the_parser_looks_up() {
        let refused: Vec<&str> = refused().map(|(name, ..)| name).collect();
        for family in Architecture::ALL {
            let mut found = BTreeSet::new();
            let factors = vec![1.0; 16];
            let longrope =
                json!({ "type": "longrope", "short_factor": factors, "long_factor": factors });
            for edits in [
                json!({}),
                json!({ "sliding_window": null, "use_sliding_window": false, "layer_types": [] }),
                match family.window_rule() {
                    WindowRule::Size | WindowRule::Pattern => json!({}),
                    WindowRule::Never => {
                        json!({ "use_sliding_window": true, "max_window_layers": 8 })
                    }
                    WindowRule::From | WindowRule::Unrotated => {
                        json!({ "use_sliding_window": true, "max_window_layers": 4, "sliding_window": 8 })
                    }
                },
                json!({ "rope_scaling": longrope, "original_max_position_embeddings": 64 }),
            ] {
                found.append(&mut read(&config(family, &edits)));
            }
            let of_scaling = |name: &&String| {
                let keys = SCALINGS.iter().flat_map(|scaling| scaling.keys);
                let mut keys = keys.chain(&OF_ANY);
                keys.any(|key| key == name) && !KEYS.iter().any(|key| key.name == **name)
            };
            let of_refused =
                |name: &&String| refused.contains(&name.as_str()) && !family.honours(name);
            let found: Vec<&String> = found
                .iter()
                .filter(|name| !of_scaling(name) && !of_refused(name))
                .collect();
            let mut table: Vec<&str> = KEYS
                .iter()
                .filter(|key| (key.read_by)(family))
                .map(|key| key.name)
                .collect();
            table.sort_unstable();
            assert_eq!(found, table, "{family:?}");
        }
    }

    #[test]
    fn the_table_has_every_scaling() {
        for scaling in SCALINGS {
            for name in scaling.names {
                let mut object = json!({ "rope_type": name });
                for key in scaling.keys {
                    object[key] = match *key {
                        "short_factor" | "long_factor" => json!(vec![1.0; 16]),
                        "truncate" => json!(true),
                        ORIGINAL if *name != "dynamic" => json!(64),
                        ORIGINAL => json!(128),
                        "high_freq_factor" => json!(4.0),
                        "beta_fast" => json!(32.0),
                        _ => json!(2.0),
                    };
                }
                let plain = read(&config(Architecture::Llama, &json!({})));
                let with = config(Architecture::Llama, &json!({ "rope_scaling": object }));
                let found: BTreeSet<String> = read(&with).difference(&plain).cloned().collect();
                let found: BTreeSet<&str> = found
                    .iter()
                    .map(String::as_str)
                    .filter(|key| !OF_ANY.contains(key))
                    .collect();
                let keys = scaling.keys.iter().copied();
                let keys: BTreeSet<&str> = keys.filter(|key| !OF_ANY.contains(key)).collect();
                assert_eq!(found, keys, "{name}");
            }
        }
        let other = config(
            Architecture::Llama,
            &json!({ "rope_scaling": { "rope_type": "ntk", "factor": 2.0 } }),
        );
        ModelConfig::from_json(&other.to_string()).expect_err("no such scaling");
    }
}
