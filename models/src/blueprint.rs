//! A family in numbers and names: sizes, biases, rotary frequencies and tensor names.
//!
//! The decoder and the loader see this and never the family. A family adds a function from
//! [`ModelConfig`] to [`Blueprint`]; sizes that no family may break are checked here, once.

use sparse_accelerate_checkpoint::{Architecture, ModelConfig};

use crate::{error::ModelError, placement::StagePart};

/// Names of a family's tensors, in Hugging Face checkpoints.
///
/// `embedding`, `final_norm` and `head` are whole names; the others are parts of
/// `{layers}.{index}.{part}.weight` (or `.bias`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyMap {
    pub(crate) embedding: &'static str,
    pub(crate) final_norm: &'static str,
    pub(crate) head: &'static str,
    pub(crate) layers: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) query: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) output: &'static str,
    pub(crate) mlp_norm: &'static str,
    pub(crate) gate: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
}

/// Which projections of a family carry a bias.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Biases {
    pub(crate) qkv: bool,
    pub(crate) output: bool,
    pub(crate) mlp: bool,
}

/// A decoder's description, free of its family.
#[derive(Debug, Clone)]
pub(crate) struct Blueprint {
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocab: usize,
    pub(crate) max_positions: usize,
    pub(crate) norm_eps: f64,
    pub(crate) tied_embeddings: bool,
    pub(crate) biases: Biases,
    /// Radians a position, `[head_dim / 2]`.
    pub(crate) frequencies: Vec<f64>,
    pub(crate) keys: KeyMap,
}

impl Blueprint {
    /// The blueprint of a configuration, by its architecture.
    pub(crate) fn new(config: &ModelConfig) -> Result<Self, ModelError> {
        let blueprint = match config.architecture {
            Architecture::Llama => crate::llama::blueprint(config),
            Architecture::Qwen2 => crate::qwen2::blueprint(config),
        };
        blueprint.check()?;
        Ok(blueprint)
    }

    /// The part every family shares: the sizes as they stand in the configuration.
    pub(crate) fn sized(
        config: &ModelConfig,
        biases: Biases,
        frequencies: Vec<f64>,
        keys: KeyMap,
    ) -> Self {
        Self {
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            layers: config.layers,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            vocab: config.vocab_size,
            max_positions: config.max_positions,
            norm_eps: config.norm_eps,
            tied_embeddings: config.tied_embeddings,
            biases,
            frequencies,
            keys,
        }
    }

    fn check(&self) -> Result<(), ModelError> {
        let refuse =
            |field, got: String, limit| Err(ModelError::UnsupportedConfig { field, got, limit });
        let sizes = [
            ("hidden_size", self.hidden),
            ("intermediate_size", self.intermediate),
            ("layers", self.layers),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("vocab_size", self.vocab),
            ("max_positions", self.max_positions),
        ];
        for (field, got) in sizes {
            if got == 0 {
                return refuse(field, got.to_string(), "it must be at least 1");
            }
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(8) {
            let limit = "it must be a multiple of 8";
            return refuse("head_dim", self.head_dim.to_string(), limit);
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let got = format!("{} for {} heads", self.kv_heads, self.heads);
            return refuse("kv_heads", got, "it must divide the number of heads");
        }
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            return refuse("norm_eps", self.norm_eps.to_string(), "it must be above 0");
        }
        Ok(())
    }

    /// The part of a model to hold, checked; `None` is all of it.
    pub(crate) fn part(&self, part: Option<&StagePart>) -> Result<StagePart, ModelError> {
        let Some(part) = part else {
            return Ok(StagePart::whole(self.layers));
        };
        let StagePart {
            layers,
            input,
            output,
        } = part;
        let ends = (*input && layers.start > 0) || (*output && layers.end < self.layers);
        if layers.is_empty() || layers.end > self.layers || ends {
            return Err(ModelError::StageOutOfRange {
                start: layers.start,
                end: layers.end,
                layers: self.layers,
            });
        }
        Ok(part.clone())
    }

    /// Tells whether a stage holds the table of embeddings: to look ids up, or as a tied head.
    pub(crate) fn has_table(&self, part: &StagePart) -> bool {
        part.input || (part.output && self.tied_embeddings)
    }

    /// Tensors of one layer in a checkpoint, and the parameters they are stacked into.
    pub(crate) fn layer_tensors(&self) -> (u64, u64) {
        let biases = [
            (self.biases.qkv, 3, 1),
            (self.biases.output, 1, 1),
            (self.biases.mlp, 3, 2),
        ];
        let some = biases.iter().filter(|(there, ..)| *there);
        some.fold((9, 6), |(tensors, parameters), (_, t, p)| {
            (tensors + t, parameters + p)
        })
    }

    /// Number of a stage's tensors, and their bytes with weights of `element` bytes (gains of norms are
    /// f32).
    pub(crate) fn census(&self, part: &StagePart, element: usize) -> (usize, u64) {
        let (q, kv, h, f) = (
            self.query_width(),
            self.kv_width(),
            self.hidden,
            self.intermediate,
        );
        let count = |yes: bool, values: usize| if yes { values } else { 0 };
        let biases = count(self.biases.qkv, q + 2 * kv)
            + count(self.biases.output, h)
            + count(self.biases.mlp, 2 * f + h);
        let matrices = (q + 2 * kv) * h + q * h + 3 * f * h;
        let head = part.output && !self.tied_embeddings;
        let tables = usize::from(self.has_table(part)) + usize::from(head);
        let (layers, norms) = (part.layers.len(), usize::from(part.output));
        let tensors = layers * self.layer_tensors().0 as usize + norms + tables;
        let values = layers * (matrices + biases) + tables * self.vocab * h;
        let gains = (2 * layers + norms) * h;
        (tensors, (values * element + gains * 4) as u64)
    }

    /// Width of the query rows of the fused projection, `heads * head_dim`.
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the key rows (and of the value rows), `kv_heads * head_dim`.
    pub(crate) fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// `theta^(-2 i / head_dim)` for `i` below `head_dim / 2`: rotary frequencies before any scaling.
pub(crate) fn base_frequencies(theta: f64, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2)
        .map(|index| theta.powf(-2.0 * index as f64 / head_dim as f64))
        .collect()
}
