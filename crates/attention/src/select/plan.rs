//! A chunk's selection, ready for every layer: rules and bands on the device, scalars.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use sparse_accelerate_contract::{Correction, RULE_WORDS, SPAN_WORDS, Sequence, Thresholds};

use super::{HeadPatterns, LayerRules, SelectOptions, Selection, bands};
use crate::{
    attend::same,
    error::AttentionError,
    heads::Heads,
    pattern::Pattern,
    settings::AttentionSettings,
    span::Span,
    visible::{self, Visible},
};

/// Least share of a row's mass, averaged over probe rows, of a column that is kept.
const LEAST_COLUMN_SHARE: f32 = 2.5e-4;

/// The part of a plan that belongs to a selection.
#[derive(Debug, Clone)]
pub(crate) struct SelectionPlan {
    dense_layers: usize,
    kv_heads: usize,
    layers: Layers,
}

/// Selections of the layers that are not dense by setting.
#[derive(Debug, Clone)]
enum Layers {
    /// The same in every layer.
    Alike(Box<LayerSelection>),
    /// By layer, as head patterns list them, with the heads that choose.
    Each(Vec<(usize, Option<LayerSelection>)>),
}

/// The part of a selection that one layer needs.
#[derive(Debug, Clone)]
pub(crate) struct LayerSelection {
    pub(crate) options: SelectOptions,
    /// `[index heads * 8]`.
    pub(crate) rules: Tensor<1, Int>,
    /// `[bands, d]`.
    pub(crate) bands: Tensor<2>,
    /// Spans of the probe rows, `[4 B]`.
    pub(crate) probes: Tensor<1, Int>,
}

impl SelectionPlan {
    /// `imposed` are the heads of the index that is read in place of what is selected.
    pub(crate) fn new(
        settings: &AttentionSettings,
        spans: &[Span],
        heads: Heads,
        visible: Visible,
        imposed: Option<usize>,
        device: &Device,
    ) -> Result<Self, AttentionError> {
        let shared = Shared::new(settings, spans, heads, visible, imposed, device);
        let dense_layers = settings.selection.dense_layers;
        let layers = match &settings.heads {
            None => {
                let index_heads = settings.choices(heads.query, heads.kv);
                let layer = shared.layer(&vec![settings.pattern; index_heads])?;
                Layers::Alike(Box::new(layer))
            }
            Some(listed) => Layers::Each(shared.each(listed, dense_layers)?),
        };
        Ok(Self {
            dense_layers,
            kv_heads: heads.kv,
            layers,
        })
    }

    /// Layers from the first that are dense by setting.
    pub(crate) fn dense_layers(&self) -> usize {
        self.dense_layers
    }

    /// Heads that choose in a layer, or would if it were not dense by setting.
    pub(crate) fn index_heads(&self, layer: usize) -> usize {
        match &self.layers {
            Layers::Alike(selection) => selection.options.index_heads,
            Layers::Each(layers) => layers.get(layer).map_or(self.kv_heads, |(heads, _)| *heads),
        }
    }

    /// The selection of a layer; `None` if it is dense by setting.
    pub(crate) fn layer(&self, layer: usize) -> Result<Option<&LayerSelection>, AttentionError> {
        if layer < self.dense_layers {
            return Ok(None);
        }
        match &self.layers {
            Layers::Alike(selection) => Ok(Some(selection.as_ref())),
            Layers::Each(layers) => match layers.get(layer) {
                Some((_, selection)) => Ok(selection.as_ref()),
                None => Err(HeadPatterns::missing(layer, layers.len())),
            },
        }
    }
}

/// The part that all layers share.
struct Shared<'a> {
    selection: &'a Selection,
    heads: Heads,
    imposed: Option<usize>,
    keys: usize,
    window: Option<u32>,
    causal_pairs: u64,
    probes: Tensor<1, Int>,
    bands: Tensor<2>,
    device: &'a Device,
}

impl<'a> Shared<'a> {
    fn new(
        settings: &'a AttentionSettings,
        spans: &[Span],
        heads: Heads,
        visible: Visible,
        imposed: Option<usize>,
        device: &'a Device,
    ) -> Self {
        let selection = &settings.selection;
        let probes: Vec<u32> = spans.iter().flat_map(|s| probes(selection, s)).collect();
        let probes = TensorData::new(probes, [SPAN_WORDS * spans.len()]);
        // Columns and slashes of the other patterns see what the second band is for.
        let rotary_base = match settings.pattern {
            Pattern::BlockCluster(_) => heads.rotary_base,
            _ => None,
        };
        let weights = bands::weights(heads.dim, rotary_base);
        let count = weights.len() / heads.dim;
        let weights = TensorData::new(weights, [count, heads.dim]);
        Self {
            selection,
            heads,
            imposed,
            keys: spans.iter().map(|s| s.kv_len).max().unwrap_or(0),
            window: visible.window().and_then(|keys| u32::try_from(keys).ok()),
            causal_pairs: visible::pairs(visible, spans),
            probes: Tensor::from_data(probes, (device, DType::U32)),
            bands: Tensor::from_data(weights, (device, DType::F32)),
            device,
        }
    }

    /// The layers of head patterns; those with the same patterns share their rules on the device.
    fn each(
        &self,
        listed: &HeadPatterns,
        dense_layers: usize,
    ) -> Result<Vec<(usize, Option<LayerSelection>)>, AttentionError> {
        let rows = listed.layers();
        let mut made: Vec<(usize, Option<LayerSelection>)> = Vec::with_capacity(rows.len());
        for (layer, row) in rows.iter().enumerate() {
            let selection = match layer < dense_layers {
                true => None,
                false => {
                    listed.check(layer, self.heads)?;
                    let known = (dense_layers..layer).find(|&at| rows[at] == *row);
                    match known.and_then(|at| made[at].1.clone()) {
                        Some(same) => Some(same),
                        None => Some(self.layer(row)?),
                    }
                }
            };
            made.push((row.len(), selection));
        }
        Ok(made)
    }

    /// A layer with these patterns by index head.
    fn layer(&self, patterns: &[Pattern]) -> Result<LayerSelection, AttentionError> {
        let index_heads = patterns.len();
        if let Some(imposed) = self.imposed {
            let what = "the imposed index's heads";
            same("attention plan", what, [imposed], [index_heads])?;
        }
        let selection = self.selection;
        let group = patterns.contains(&Pattern::GroupBlocks);
        let rules = LayerRules::new(patterns, selection);
        // The most keys that a row sees.
        let most = sparse_accelerate_contract::Visible::of(self.window).most(self.keys);
        let options = SelectOptions {
            scale: self.heads.scale(),
            index_heads,
            keys: self.keys,
            columns: rules.columns,
            slashes: rules.slashes,
            thresholds: Thresholds {
                column: selection.column_share.max(LEAST_COLUMN_SHARE * most as f32),
                slash: selection.slash_share,
            },
            prices: selection.costs,
            correction: match group {
                true => Correction::None,
                false => selection.correction,
            },
            causal_pairs: self.causal_pairs,
            window: self.window,
            imposed: self.imposed.is_some(),
            group,
            launch: None,
        };
        let words = TensorData::new(rules.words, [index_heads * RULE_WORDS]);
        Ok(LayerSelection {
            options,
            rules: Tensor::from_data(words, (self.device, DType::U32)),
            bands: self.bands.clone(),
            probes: self.probes.clone(),
        })
    }
}

impl Selection {
    /// First position of a sequence whose rows see everything.
    pub(crate) fn dense_from(&self, span: &Span) -> usize {
        span.prompt_len.saturating_sub(self.last)
    }
}

/// The span of which probe rows are taken: without the rows that see everything, if there are others.
/// Those would hide what the others miss, and need no columns.
fn probes(selection: &Selection, span: &Span) -> [u32; SPAN_WORDS] {
    let before = selection.dense_from(span).saturating_sub(span.offset());
    let rows = match before {
        0 => span.query_len,
        n => n.min(span.query_len),
    };
    Sequence::new(rows, span.offset() + rows).words()
}
