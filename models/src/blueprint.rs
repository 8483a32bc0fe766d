//! Blueprint of a decoder: sizes, weights of a layer and rotation, free of the family.
//!
//! The decoder and the loader see this and never the family: a configuration says all that sets one apart. Sizes that no family
//! may break are checked here, once.

use sparse_accelerate::Heads;
use sparse_accelerate_checkpoint::{
    Activation, LayerAttention, LayerPart, LayerRotation, LayerWeight, ModelConfig,
};

use crate::{error::ModelError, kinds::Kinds, placement::StagePart, rotation::Rotation};

/// Projections of the layer's input, stacked into one parameter.
pub(crate) const QKV: [LayerPart; 3] = [LayerPart::Query, LayerPart::Key, LayerPart::Value];
/// Projections of the MLP's input, stacked into one parameter.
pub(crate) const GATE_UP: [LayerPart; 2] = [LayerPart::Gate, LayerPart::Up];

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
    /// Attention of every layer.
    pub(crate) attention: Kinds,
    /// Rotation of layers that have the model's own.
    pub(crate) rotation: Rotation,
    /// Rotation of layers that have another.
    pub(crate) local_rotation: Rotation,
    /// Factor of queries: scores are divided by the square root of the head dimension, whatever a model divides them by.
    pub(crate) query_factor: f64,
    /// Factor of embeddings.
    pub(crate) embedding_scale: f64,
    pub(crate) activation: Activation,
    /// Weights of a layer, from the table in the checkpoint crate.
    pub(crate) weights: Vec<LayerWeight>,
}

impl Blueprint {
    /// The blueprint of a configuration.
    pub(crate) fn new(config: &ModelConfig) -> Result<Self, ModelError> {
        let blueprint = Self {
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
            attention: Kinds::new(&config.attention),
            rotation: Rotation::new(config),
            local_rotation: Rotation::local(config),
            query_factor: (config.head_dim as f64 / config.query_scalar).sqrt(),
            embedding_scale: config.embedding_scale,
            activation: config.activation,
            weights: config.layer_weights().collect(),
        };
        blueprint.check()?;
        Ok(blueprint)
    }

    fn check(&self) -> Result<(), ModelError> {
        let refuse =
            |field, got: String, limit| Err(ModelError::UnsupportedConfig { field, got, limit });
        if self.attention.layers() != self.layers {
            let got = self.attention.layers().to_string();
            return refuse("attention", got, "it must have an entry for every layer");
        }
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
        for (field, got) in [
            ("query_scalar", self.query_factor),
            ("embedding_scale", self.embedding_scale),
        ] {
            if !(got.is_finite() && got > 0.0) {
                return refuse(field, got.to_string(), "it must be above 0");
            }
        }
        if self.query_factor != 1.0 && !self.has(LayerPart::QueryNorm) {
            let got = format!(
                "one that makes queries {} times as large",
                self.query_factor
            );
            let limit = "it must be the head dimension where query heads are not normalised";
            return refuse("query_scalar", got, limit);
        }
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            return refuse("norm_eps", self.norm_eps.to_string(), "it must be above 0");
        }
        Ok(())
    }

    /// The heads of layers of a kind.
    pub(crate) fn heads_of(&self, kind: LayerAttention) -> Heads {
        let heads = Heads::new(self.heads, self.kv_heads, self.head_dim);
        let base = match kind.rotation {
            LayerRotation::Main => self.rotation.base_of_whole_heads(),
            LayerRotation::Local => self.local_rotation.base_of_whole_heads(),
            LayerRotation::None => None,
        };
        match base {
            Some(base) => heads.with_rotary_base(base),
            None => heads,
        }
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

    fn has(&self, part: LayerPart) -> bool {
        self.weights.iter().any(|weight| weight.part == part)
    }

    /// Tells whether a stage holds the table of embeddings: to look ids up, or as a tied head.
    pub(crate) fn has_table(&self, part: &StagePart) -> bool {
        part.input || (part.output && self.tied_embeddings)
    }

    /// Number of one layer's tensors in a checkpoint, and of the parameters they are stacked into.
    pub(crate) fn layer_tensors(&self) -> (u64, u64) {
        let first = |part| part == QKV[0] || part == GATE_UP[0];
        let stacked = |part| QKV.contains(&part) || GATE_UP.contains(&part);
        let parts = self.weights.iter();
        parts.fold((0, 0), |(tensors, parameters), weight| {
            let count = weight.tensors() as u64;
            let own = first(weight.part) || !stacked(weight.part);
            (tensors + count, parameters + if own { count } else { 0 })
        })
    }

    /// Number of a stage's tensors, and their bytes with weights of `element` bytes (gains of norms are
    /// f32).
    pub(crate) fn count(&self, part: &StagePart, element: usize) -> (usize, u64) {
        let head = part.output && !self.tied_embeddings;
        let tables = usize::from(self.has_table(part)) + usize::from(head);
        let (layers, norms) = (part.layers.len(), usize::from(part.output));
        let tensors = layers * self.layer_tensors().0 as usize + norms + tables;
        let layer = self.weights.iter().map(|weight| match weight.columns {
            Some(columns) => weight.rows * (columns + usize::from(weight.bias)) * element,
            None => weight.rows * size_of::<f32>(),
        });
        let ends =
            tables * self.vocab * self.hidden * element + norms * self.hidden * size_of::<f32>();
        (tensors, (layers * layer.sum::<usize>() + ends) as u64)
    }
}
