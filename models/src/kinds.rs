//! Kinds of attention that a model's layers have, and one chunk as each of them runs it.
//!
//! Layers of a kind see the same keys and rotate positions alike. The keys that layers with
//! a window see beside layers without one are few, so nothing is chosen among them.

use std::ops::Range;

use burn::tensor::Tensor;
use sparse_accelerate::{AttentionPlan, AttentionSettings, KvCache, Pattern, Visible};
use sparse_accelerate_checkpoint::LayerAttention;

use crate::{blueprint::Blueprint, decoder::Rotaries, error::ModelError};

/// The kinds of a model.
#[derive(Debug, Clone)]
pub(crate) struct Kinds {
    /// Each once; the first is that of which the model's decision is reported: without a window, if there is one.
    kinds: Vec<LayerAttention>,
    /// The kind of every layer of the model.
    of_layer: Vec<usize>,
}

impl Kinds {
    pub(crate) fn new(layers: &[LayerAttention]) -> Self {
        let order = |kind: &LayerAttention| (kind.window.is_some(), kind.rotation);
        let mut kinds = layers.to_vec();
        kinds.sort_by_key(order);
        kinds.dedup();
        let of = |layer: &LayerAttention| kinds.iter().position(|kind| kind == layer);
        let of_layer = layers.iter().map(|layer| of(layer).unwrap_or(0)).collect();
        Self { kinds, of_layer }
    }

    /// Layers of the model.
    pub(crate) fn layers(&self) -> usize {
        self.of_layer.len()
    }

    /// The kind whose decision is the model's.
    pub(crate) fn lead(&self) -> LayerAttention {
        // A model without layers has no pass.
        self.kinds.first().copied().unwrap_or(LayerAttention::FULL)
    }

    pub(crate) fn of(&self, layer: usize) -> LayerAttention {
        self.kinds[self.of_layer[layer]]
    }

    /// Tells whether layers of a kind are computed as the settings say, rather than densely.
    fn follows_settings(&self, kind: LayerAttention) -> bool {
        chooses(&self.kinds, kind)
    }
}

/// Tells whether a layer, one of `layers`, is computed as the settings of attention say, rather than densely: one with a window
/// beside some without is not.
#[must_use]
pub fn chooses(layers: &[LayerAttention], layer: LayerAttention) -> bool {
    layer.window.is_none() || layers.iter().all(|other| other.window.is_some())
}

/// A chunk as one layer runs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerPass<'a> {
    pub(crate) plan: &'a AttentionPlan,
    /// Cosines and sines by position, at least up to the chunk's last.
    pub(crate) rotation: &'a Tensor<2>,
}

/// A chunk for the layers of a stage: layers that see the same keys share a plan, and layers that rotate alike a table.
#[derive(Debug)]
pub(crate) struct KindPasses {
    plans: Vec<AttentionPlan>,
    rotations: Vec<Tensor<2>>,
    /// The plan and the rotation of each layer of the stage.
    of_layer: Vec<(usize, usize)>,
    /// The first layer.
    start: usize,
    /// The plan whose decision is the model's.
    lead: usize,
}

/// The tokens of a chunk, and how far positions reach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached<'a> {
    /// New tokens of each sequence.
    pub(crate) lens: &'a [usize],
    /// Tokens of the whole prompt of each.
    pub(crate) prompt_lens: &'a [usize],
    /// Tokens of the longest sequence after the chunk.
    pub(crate) tokens: usize,
    /// Tokens that a sequence is planned for.
    pub(crate) planned: usize,
}

impl KindPasses {
    /// The chunk of `reached` for `layers` of a model.
    pub(crate) fn new(
        blueprint: &Blueprint,
        layers: Range<usize>,
        cache: &KvCache,
        settings: &AttentionSettings,
        rotaries: &Rotaries,
        reached: Reached<'_>,
    ) -> Result<Self, ModelError> {
        let kinds = &blueprint.attention;
        let dense = AttentionSettings::dense();
        let plan = |kind: LayerAttention| {
            let settings = match kinds.follows_settings(kind) {
                true => settings,
                false => &dense,
            };
            let (heads, visible) = (blueprint.heads_of(kind), Visible::of(kind.window));
            cache.plan(settings, heads, visible, reached.lens, reached.prompt_lens)
        };
        // No other pattern asks for the base of the rotation.
        let by_base = matches!(settings.pattern, Pattern::BlockCluster(_));
        let key = |kind: LayerAttention| (kind.window, by_base.then_some(kind.rotation));
        // The table grows to what the cache can hold at once rather than at every chunk.
        let positions = reached.tokens.max(reached.planned);
        let (mut plan_keys, mut plans) = (Vec::new(), Vec::new());
        let (mut rotation_keys, mut rotations) = (Vec::new(), Vec::new());
        let mut of_layer = Vec::new();
        for layer in layers.clone() {
            let kind = kinds.of(layer);
            let planned = match plan_keys.iter().position(|other| *other == key(kind)) {
                Some(at) => at,
                None => {
                    plan_keys.push(key(kind));
                    plans.push(plan(kind)?);
                    plans.len() - 1
                }
            };
            let rotated = match rotation_keys
                .iter()
                .position(|other| *other == kind.rotation)
            {
                Some(at) => at,
                None => {
                    rotation_keys.push(kind.rotation);
                    rotations.push(rotaries.table(kind.rotation, positions, reached.planned));
                    rotations.len() - 1
                }
            };
            of_layer.push((planned, rotated));
        }
        let lead = kinds.lead();
        let lead = match plan_keys.iter().position(|other| *other == key(lead)) {
            Some(at) => at,
            None => {
                plans.push(plan(lead)?);
                plans.len() - 1
            }
        };
        Ok(Self {
            plans,
            rotations,
            of_layer,
            start: layers.start,
            lead,
        })
    }

    /// The chunk as a layer of the stage runs it.
    pub(crate) fn of(&self, layer: usize) -> LayerPass<'_> {
        let (plan, rotation) = self.of_layer[layer - self.start];
        LayerPass {
            plan: &self.plans[plan],
            rotation: &self.rotations[rotation],
        }
    }

    /// The plan whose decision is the model's.
    pub(crate) fn lead(&self) -> &AttentionPlan {
        &self.plans[self.lead]
    }
}

#[cfg(test)]
mod tests {
    use sparse_accelerate_checkpoint::LayerRotation;

    use super::*;

    #[test]
    fn a_kind_without_a_window_leads() {
        let local = LayerAttention {
            window: Some(8),
            rotation: LayerRotation::Local,
        };
        let still = LayerAttention {
            window: None,
            rotation: LayerRotation::None,
        };
        let kinds = Kinds::new(&[local, local, still, LayerAttention::FULL, local]);
        assert_eq!(kinds.lead(), LayerAttention::FULL);
        let of: Vec<_> = (0..5).map(|layer| kinds.of(layer)).collect();
        assert_eq!(of, [local, local, still, LayerAttention::FULL, local]);
        assert!(!kinds.follows_settings(local) && kinds.follows_settings(still));
        // Beside no other layers, those with a window are as the settings say.
        let alike = Kinds::new(&[local; 3]);
        assert!(alike.follows_settings(alike.lead()));
    }
}
