//! A plan as one layer uses it.

use crate::{
    pattern::Pattern,
    plan::AttentionPlan,
    select::LayerSelection,
    settings::{Decision, Path, Reason},
};

/// The part of an [`AttentionPlan`] that one layer needs; [`AttentionPlan::layer`] makes it.
///
/// It borrows the plan: rules, bands and tables are on the device already and are shared by all layers that
/// have the same.
#[derive(Debug, Clone, Copy)]
pub struct LayerPlan<'a> {
    plan: &'a AttentionPlan,
    layer: usize,
    selection: Option<&'a LayerSelection>,
}

impl<'a> LayerPlan<'a> {
    pub(crate) fn new(
        plan: &'a AttentionPlan,
        layer: usize,
        selection: Option<&'a LayerSelection>,
    ) -> Self {
        Self {
            plan,
            layer,
            selection,
        }
    }

    /// The plan of the chunk.
    pub fn plan(&self) -> &'a AttentionPlan {
        self.plan
    }

    /// The number of the layer, from 0.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// Tells whether the heads of this layer, or a selector, choose its keys. Heads do not in the first layers
    /// that are dense by setting.
    pub fn selects(&self) -> bool {
        self.selection.is_some() || self.plan.selector().is_some()
    }

    /// The decision for this layer: that of the chunk, or dense where the layer is so by setting.
    pub fn decision(&self) -> Decision {
        let decision = *self.plan.decision();
        let chosen = self.plan.selection().filter(|_| !self.selects());
        match (chosen, self.plan.index()) {
            // Imposed blocks are read in dense layers too.
            (Some(_), Some(_)) => Decision {
                path: Path::Sparse,
                ..decision
            },
            (Some(selection), None) => Decision {
                path: Path::Dense,
                pattern: Pattern::Dense,
                density: Some(1.0),
                reason: Reason::DenseLayer {
                    layer: self.layer,
                    dense_layers: selection.dense_layers(),
                },
                ..decision
            },
            (None, _) => decision,
        }
    }

    pub(crate) fn selection(&self) -> Option<&'a LayerSelection> {
        self.selection
    }

    /// Heads that have a record in this layer: those that would choose, if it is dense by setting.
    pub(crate) fn recorded_heads(&self) -> usize {
        let selection = self.plan.selection();
        selection.map_or(self.plan.heads().kv, |s| s.index_heads(self.layer))
    }
}
