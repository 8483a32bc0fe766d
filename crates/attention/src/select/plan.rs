//! A chunk's selection, ready for a layer: rules and bands on the device, scalars.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use sparse_accelerate_contract::{RULE_WORDS, SPAN_WORDS, Sequence, Thresholds};

use super::{Granularity, HeadPatterns, LayerRules, SelectOptions, Selection, bands};
use crate::{
    error::AttentionError,
    pattern::Pattern,
    span::{self, Span},
};

/// Least share of a row's mass, averaged over probe rows, of a column that is kept.
const LEAST_COLUMN_SHARE: f32 = 2.5e-4;

/// The part of a plan that belongs to a selection.
#[derive(Debug, Clone)]
pub(crate) struct SelectionPlan {
    pattern: Pattern,
    selection: Selection,
    heads: Option<HeadPatterns>,
    /// Base of the rotary frequencies, if the heads are rotated.
    rotary_base: Option<f64>,
    keys: usize,
    causal_pairs: u64,
    /// Spans of the probe rows.
    probes: Vec<u32>,
    /// Made once for all layers that have the same rules.
    made: Arc<Mutex<HashMap<Key, LayerSelection>>>,
}

/// Layer (0 where all are alike), index heads, head dimension.
type Key = (usize, usize, usize);

/// What one layer needs.
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
    pub(crate) fn new(
        pattern: Pattern,
        selection: &Selection,
        heads: Option<&HeadPatterns>,
        spans: &[Span],
    ) -> Self {
        Self {
            pattern,
            selection: *selection,
            heads: heads.cloned(),
            rotary_base: None,
            keys: spans.iter().map(|s| s.kv_len).max().unwrap_or(0),
            causal_pairs: span::causal_pairs(spans),
            probes: spans.iter().flat_map(|s| probes(selection, s)).collect(),
            made: Arc::default(),
        }
    }

    pub(crate) fn set_rotary_base(&mut self, base: f64) {
        self.rotary_base = Some(base);
        self.made = Arc::default();
    }

    /// First position whose rows see everything.
    pub(crate) fn dense_from(selection: &Selection, span: &Span) -> usize {
        span.prompt_len.saturating_sub(selection.last)
    }

    /// Whether a layer is not dense by setting.
    pub(crate) fn selects_in(&self, layer: usize) -> bool {
        layer >= self.selection.dense_layers
    }

    /// Heads that choose in a layer.
    pub(crate) fn index_heads(&self, layer: usize, [heads, kv_heads]: [usize; 2]) -> usize {
        match (self.selection.granularity, &self.heads) {
            (_, Some(list)) => match list.layers().get(layer).map(Vec::len) {
                Some(listed) if listed == heads => heads,
                _ => kv_heads,
            },
            (Granularity::PerKvHead, None) => kv_heads,
            (Granularity::PerQueryHead, None) => heads,
        }
    }

    /// The selection of a layer; `None` if it is dense by setting.
    pub(crate) fn layer(
        &self,
        layer: usize,
        [heads, kv_heads, head_dim]: [usize; 3],
        device: &Device,
    ) -> Result<Option<LayerSelection>, AttentionError> {
        if !self.selects_in(layer) {
            return Ok(None);
        }
        let index_heads = self.index_heads(layer, [heads, kv_heads]);
        let key = match self.heads {
            Some(_) => (layer, index_heads, head_dim),
            None => (0, index_heads, head_dim),
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = made.get(&key) {
            return Ok(Some(ready.clone()));
        }
        let heads = self.heads.as_ref();
        let rules = LayerRules::new(&self.pattern, heads, &self.selection, layer, index_heads)?;
        let options = SelectOptions {
            scale: 0.0,
            index_heads,
            keys: self.keys,
            columns: rules.columns,
            slashes: rules.slashes,
            thresholds: Thresholds {
                column: (self.selection.column_share).max(LEAST_COLUMN_SHARE * self.keys as f32),
                slash: self.selection.slash_share,
            },
            prices: self.selection.costs,
            correction: self.selection.correction,
            causal_pairs: self.causal_pairs,
            imposed: false,
        };
        let words = TensorData::new(rules.words, [index_heads * RULE_WORDS]);
        // Columns and slashes of the other patterns see what the second band is for.
        let rotary_base = match self.pattern {
            Pattern::BlockCluster(_) => self.rotary_base,
            _ => None,
        };
        let weights = bands::weights(head_dim, rotary_base);
        let count = weights.len() / head_dim;
        let probes = TensorData::new(self.probes.clone(), [self.probes.len()]);
        let ready = LayerSelection {
            options,
            probes: Tensor::from_data(probes, (device, DType::U32)),
            rules: Tensor::from_data(words, (device, DType::U32)),
            bands: Tensor::from_data(
                TensorData::new(weights, [count, head_dim]),
                (device, DType::F32),
            ),
        };
        made.insert(key, ready.clone());
        Ok(Some(ready))
    }
}

/// The span of which probe rows are taken: without the rows that see everything, if there are others.
/// Those would hide what the others miss, and need no columns.
fn probes(selection: &Selection, span: &Span) -> [u32; SPAN_WORDS] {
    let before = SelectionPlan::dense_from(selection, span).saturating_sub(span.offset());
    let rows = match before {
        0 => span.query_len,
        n => n.min(span.query_len),
    };
    Sequence::new(rows, span.offset() + rows).words()
}
