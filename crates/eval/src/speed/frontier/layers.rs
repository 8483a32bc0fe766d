//! The frontier of a model's own heads: one dense pass of a text, every layer judged before its attention.
//!
//! Densities and recalls of the layers are averaged, squares of differences added up, times added up.

use burn::tensor::Tensor;
use sparse_accelerate::{AttentionSettings, select::Prices};
use sparse_accelerate_models::{LayerObserver, LayerView, ModelError};
use sparse_accelerate_report::record::{FrontierRow, Line};

use super::{Frontier, Selector, oracle, sets::Sums};
use crate::{
    error::EvalError,
    recall::failed,
    run::{Subject, at_least_one, check_lengths},
    speed::SpeedError,
};

/// Judgements of every layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayersSettings {
    /// Query blocks of 128 rows on which results are judged, at least 1.
    pub tiles: usize,
    /// Timed runs, at least 1.
    pub runs: usize,
    /// The oracle is wanted.
    pub oracle: bool,
    /// Selectors, each at a recall floor of its own where it has one.
    pub cases: Vec<(Selector, Option<f64>)>,
    /// Prices of the device.
    pub costs: Prices,
    /// Prompt tokens from which `auto` is sparse.
    pub min_sparse_len: Option<usize>,
}

/// Judges all layers of a model on the tokens of a text, which pass as one chunk. `progress` is told the
/// layers done, of all.
///
/// # Errors
/// Nothing to judge, a text over the model's positions, and failures of the device.
pub fn layers(
    subject: &Subject<'_>,
    ids: &[u32],
    settings: &LayersSettings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Line>, EvalError> {
    for (field, count) in [
        ("runs", settings.runs),
        ("tiles", settings.tiles),
        ("tokens", ids.len()),
    ] {
        at_least_one(field, count)?;
    }
    let config = subject.model.config();
    check_lengths(&[ids.len()], config)?;
    let mut observer = Layers {
        settings,
        sums: Sums::default(),
        found: vec![Vec::new(); settings.cases.len()],
        layers: config.layers,
        progress,
    };
    let mut sequence = subject.sequence(ids.len())?;
    sequence.prefill_observed(
        ids,
        ids.len().into(),
        &AttentionSettings::dense(),
        Some(&mut observer),
        &mut |_| {},
    )?;
    let Layers { sums, found, .. } = observer;
    let mut lines = Vec::new();
    if settings.oracle {
        let rows = oracle::rows(ids.len(), &sums);
        lines.extend(rows.into_iter().map(Line::Oracle));
    }
    let rows = found.iter().filter_map(|layers| together(layers));
    lines.extend(rows.map(Line::Frontier));
    Ok(lines)
}

struct Layers<'a> {
    settings: &'a LayersSettings,
    sums: Sums,
    /// By case and layer, the row and the squares of dense outputs.
    found: Vec<Vec<(FrontierRow, f64)>>,
    layers: usize,
    progress: &'a mut dyn FnMut(usize, usize),
}

impl LayerObserver for Layers<'_> {
    fn layer(&mut self, view: &LayerView<'_>) -> Result<(), ModelError> {
        self.judge(view).map_err(failed)?;
        (self.progress)(view.layer + 1, self.layers);
        Ok(())
    }
}

impl Layers<'_> {
    fn judge(&mut self, view: &LayerView<'_>) -> Result<(), SpeedError> {
        let settings = self.settings;
        let [_, _, rows, head_dim] = view.query.dims();
        let (key, value) = (view.cache.key(view.layer)?, view.cache.value(view.layer)?);
        let kv_heads = key.dims()[1];
        let held = |tensor: Tensor<4>| tensor.slice([0..1, 0..kv_heads, 0..rows, 0..head_dim]);
        let layer = Frontier::of(
            [view.query.clone(), held(key), held(value)],
            settings.tiles,
            settings.runs,
        )?;
        if settings.oracle {
            layer.add_oracle(&mut self.sums, &mut |_, _| {})?;
        }
        let [_, size] = layer.squares(&layer.output)?;
        for ((selector, floor), found) in settings.cases.iter().zip(&mut self.found) {
            let row = layer.select(selector, *floor, settings.costs, settings.min_sparse_len)?;
            found.push((row, size));
        }
        Ok(())
    }
}

/// One row of all layers; `None` of nothing.
fn together(layers: &[(FrontierRow, f64)]) -> Option<FrontierRow> {
    let (first, _) = layers.first()?;
    let rows = || layers.iter().map(|(row, _)| row);
    let size: f64 = layers.iter().map(|(_, size)| size).sum();
    let distance: f64 = layers
        .iter()
        .map(|(row, size)| row.error.powi(2) * size)
        .sum();
    let mean = |of: fn(&FrontierRow) -> Option<f64>| {
        let values: Option<Vec<f64>> = rows().map(of).collect();
        values.map(sparse_accelerate_report::mean)
    };
    let sum = |of: fn(&FrontierRow) -> Option<f64>| -> Option<f64> { rows().map(of).sum() };
    let mut mix = first.mix.clone();
    for (name, heads) in rows().skip(1).flat_map(|row| &row.mix) {
        *mix.entry(name.clone()).or_default() += heads;
    }
    Some(FrontierRow {
        density: mean(|row| Some(row.density)).unwrap_or(f64::NAN),
        error: (distance / size).sqrt(),
        total_ms: rows().map(|row| row.total_ms).sum(),
        selection_ms: sum(|row| row.selection_ms),
        dense_ms: rows().map(|row| row.dense_ms).sum(),
        predicted_recall: mean(|row| row.predicted_recall),
        recall: mean(|row| row.recall),
        least_recall: rows().filter_map(|row| row.least_recall).reduce(f64::min),
        heads: rows().map(|row| row.heads).sum(),
        dense_heads: rows().map(|row| row.dense_heads).sum(),
        mix,
        ..first.clone()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn layers_are_averaged_and_added_up() {
        let row = |density, error, recall, least, chosen: &str| FrontierRow {
            length: 1024,
            selector: "balanced".into(),
            floor: Some(0.9),
            density,
            error,
            total_ms: 2.0,
            selection_ms: Some(0.5),
            dense_ms: 3.0,
            predicted_recall: Some(0.95),
            recall: Some(recall),
            least_recall: Some(least),
            heads: 2,
            shared: false,
            dense_heads: usize::from(chosen == "dense"),
            mix: BTreeMap::from([(chosen.to_owned(), 2)]),
        };
        let one = row(0.2, 0.1, 0.9, 0.8, "group-blocks");
        let two = row(0.4, 0.3, 1.0, 0.9, "dense");
        let all = together(&[(one, 3.0), (two, 1.0)]).unwrap();
        assert!((all.density - 0.3).abs() < 1e-12);
        // (3 * 0.01 + 0.09) / 4
        assert!((all.error - 0.03f64.sqrt()).abs() < 1e-12);
        assert_eq!((all.total_ms, all.dense_ms), (4.0, 6.0));
        assert_eq!((all.selection_ms, all.recall), (Some(1.0), Some(0.95)));
        assert_eq!(
            (all.least_recall, all.heads, all.dense_heads),
            (Some(0.8), 4, 1)
        );
        assert_eq!(all.mix.len(), 2);
        assert!(together(&[]).is_none());
    }
}
