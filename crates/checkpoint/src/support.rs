//! Models that are supported, told from the registry of families: the page `docs/families.md` is made of this.
//!
//! Defaults of a family are those that a config.json of sizes alone is read with, and GGUF architectures those that the importer takes.

use crate::config::{KEYS, SCALINGS, WindowRule, refused};
use crate::{Architecture, CheckpointError, ModelConfig, gguf};

/// Everything that is supported.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Support {
    /// Every family.
    pub families: Vec<FamilySupport>,
    /// Keys of config.json that are read.
    pub keys: Vec<KeySupport>,
    /// Keys of config.json that are refused unless they do nothing.
    pub refused: Vec<RefusedKey>,
    /// Scalings of rotary positions.
    pub scalings: Vec<ScalingSupport>,
    /// Element formats that are widened on import from GGUF.
    pub gguf_formats: String,
    /// Rules of splitting text that a byte-level tokenizer in GGUF may name.
    pub gguf_rules: &'static str,
}

/// A family of models.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FamilySupport {
    /// The family.
    pub family: Architecture,
    /// Class names in config.json, each with its `model_type`.
    pub names: &'static [(&'static str, &'static str)],
    /// Releases that are of this family.
    pub releases: &'static str,
    /// The architecture in GGUF, if files of it are imported.
    pub gguf: Option<&'static str>,
    /// A model of [`SIZES`] whose config.json says nothing else.
    pub defaults: ModelConfig,
    /// Layers that have a window.
    pub windows: &'static str,
    /// Keys of a window where `sliding_window` is left out.
    pub default_window: Option<usize>,
    /// Every so many layers one has no positions.
    pub unrotated_interval: Option<usize>,
    /// The number whose square root divides scores where `query_pre_attn_scalar` is left out; `None` in families without that key.
    pub query_scalar: Option<f64>,
    /// True if elements per head do not follow from the width where config.json does not say.
    pub own_head_dim: bool,
}

/// A key of config.json that is read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeySupport {
    /// Name of the key.
    pub name: &'static str,
    /// Families that read it; empty for all.
    pub families: Vec<Architecture>,
    /// Meaning of its value.
    pub meaning: &'static str,
}

/// A key of config.json that no code honours.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RefusedKey {
    /// Name of the key.
    pub name: &'static str,
    /// Values that do nothing, which alone are taken.
    pub neutral: &'static str,
    /// Reason, or what there is instead.
    pub way_out: &'static str,
    /// Families that honour it all the same.
    pub honoured_by: Vec<Architecture>,
}

/// A scaling of rotary positions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScalingSupport {
    /// Values of `rope_type` or `type`.
    pub names: &'static [&'static str],
    /// Publication that it follows.
    pub source: &'static str,
    /// Keys beside its type.
    pub keys: &'static [&'static str],
}

/// Sizes of the model that shows the defaults of a family: hidden size, heads, layers.
pub const SIZES: (usize, usize, usize) = (1280, 20, 12);

/// Everything that is supported.
///
/// # Errors
/// [`CheckpointError::Config`] for a family that cannot be described by sizes alone.
pub fn support() -> Result<Support, CheckpointError> {
    let families = Architecture::ALL.into_iter().map(family);
    let of = |reads: &dyn Fn(Architecture) -> bool| {
        let families = Architecture::ALL.into_iter();
        families.filter(|family| reads(*family)).collect::<Vec<_>>()
    };
    Ok(Support {
        families: families.collect::<Result<_, _>>()?,
        keys: KEYS
            .iter()
            .map(|key| {
                let mut families = of(&key.read_by);
                if families.len() == Architecture::ALL.len() {
                    families.clear();
                }
                KeySupport {
                    name: key.name,
                    families,
                    meaning: key.meaning,
                }
            })
            .collect(),
        refused: refused()
            .map(|(name, neutral, way_out)| RefusedKey {
                name,
                neutral,
                way_out,
                honoured_by: of(&|family| family.honours(name)),
            })
            .collect(),
        scalings: SCALINGS
            .iter()
            .map(|scaling| ScalingSupport {
                names: scaling.names,
                source: scaling.source,
                keys: scaling.keys,
            })
            .collect(),
        gguf_formats: gguf::readable_formats(),
        gguf_rules: gguf::rules(),
    })
}

fn family(family: Architecture) -> Result<FamilySupport, CheckpointError> {
    let (hidden, heads, layers) = SIZES;
    let config = serde_json::json!({
        "architectures": [family.class_name()], "hidden_size": hidden, "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": 32000, "max_position_embeddings": 8192,
    });
    let name = family.gguf_name();
    Ok(FamilySupport {
        family,
        names: family.names(),
        releases: family.releases(),
        gguf: gguf::takes(name).then_some(name),
        defaults: ModelConfig::from_json(&config.to_string())?,
        windows: windows(family.window_rule()),
        default_window: match family.window_rule() {
            WindowRule::Never => None,
            _ => family.default_window(),
        },
        unrotated_interval: family.unrotated_interval(),
        query_scalar: family.query_scalar(),
        own_head_dim: family.head_dim().is_some(),
    })
}

fn windows(rule: WindowRule) -> &'static str {
    match rule {
        WindowRule::Never => "no layer has one",
        WindowRule::Size => "every layer, wherever `sliding_window` is a number",
        WindowRule::From => "with `use_sliding_window`, layers from `max_window_layers` on",
        WindowRule::Unrotated => "with `use_sliding_window`, layers without positions",
        WindowRule::Pattern => "all layers but every `sliding_window_pattern`-th (6th)",
    }
}
