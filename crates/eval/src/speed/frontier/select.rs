//! One selection of a layer: what it kept, its error on the sampled rows, its time beside dense.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor};
use sparse_accelerate::{
    AttentionPlan, Choice, HeadRecord, IndexSelector, Path, SelectionRecord, Span, Visible, attend,
    attend_selected,
    index::TileIndex,
    select::{Prices, Why},
};
use sparse_accelerate_baselines::{self as baselines, BaselineOutput};
use sparse_accelerate_engine::{EngineError, contained};
use sparse_accelerate_report::{mean, record::FrontierRow};

use super::{Frontier, Selector};
use crate::speed::{SpeedError, median, timing::Batches};

/// The layer that baselines are asked about: past all that some of them keep dense.
const LAYER: usize = usize::MAX;

/// Choices of the heads, and the index that was built of it.
type Chosen = (SelectionRecord, Option<Tensor<1, Int>>);

impl Frontier {
    /// Judges and times a selector at a recall floor, with the prices of the device and the prompt
    /// length from which `auto` is sparse. Dense is timed by turns with it; keys are pooled anew in every
    /// run. The selection's part is what the call takes more than attention over the index that it built,
    /// so correction and check count as selection.
    ///
    /// # Errors
    /// Settings that attention refuses, a device that gave up.
    pub fn select(
        &self,
        selector: &Selector,
        floor: Option<f64>,
        costs: Prices,
        min_sparse_len: Option<usize>,
    ) -> Result<FrontierRow, SpeedError> {
        if let Some(baseline) = selector.published() {
            return contained("selection", || self.baseline(selector.name(), baseline));
        }
        contained("selection", || {
            let settings = selector.settings(floor, costs, min_sparse_len);
            let spans = [Span::whole(self.shape.length)];
            let heads = self.shape.heads();
            let plan = AttentionPlan::new(&settings, &spans, heads, Visible::Causal, &self.device)?;
            let (output, choice) = self.call(&plan)?;
            let error = self.error(&output)?;
            drop(output);
            let (heads, table) = match choice {
                Some((record, table)) => (record.read()?, table),
                None => (Vec::new(), None),
            };
            let (total_ms, dense_ms) = self.times(|| self.call(&plan))?;
            let attend_ms = match table {
                Some(table) => Some(self.attend_ms(table, heads.len())?),
                None => None,
            };
            let row = FrontierRow {
                length: self.shape.length,
                selector: selector.name().into(),
                floor,
                // Heads that choose tell their own.
                density: plan.decision().density.unwrap_or(f64::NAN),
                error,
                total_ms,
                selection_ms: attend_ms.map(|ms| (total_ms - ms).max(0.0)),
                dense_ms,
                predicted_recall: None,
                recall: None,
                least_recall: None,
                heads: self.shape.kv_heads,
                shared: heads.is_empty() || heads.len() < self.shape.heads,
                dense_heads: if plan.decision().path == Path::Dense {
                    self.shape.kv_heads
                } else {
                    0
                },
                mix: BTreeMap::new(),
            };
            Ok(match plan.selects() {
                true => chosen(row, &heads),
                false => row,
            })
        })
    }

    fn call(&self, plan: &AttentionPlan) -> Result<(Tensor<4>, Option<Chosen>), SpeedError> {
        let query = self.query.clone();
        let layer = plan.layer(0)?;
        if !plan.selects() {
            return Ok((attend(query, &self.key, &self.value, &layer)?, None));
        }
        let got = attend_selected(query, &self.key, &self.value, None, &layer)?;
        Ok((got.output, Some((got.record, got.table))))
    }

    /// Median milliseconds of attention alone over the index that a selection built.
    fn attend_ms(&self, table: Tensor<1, Int>, heads: usize) -> Result<f64, SpeedError> {
        let failed = |reason: String| EngineError::Execution {
            op: "read the index",
            reason,
        };
        let data = table.try_into_data().map_err(|e| failed(e.to_string()))?;
        let words = data.convert::<u32>().try_to_vec::<u32>();
        let words = words.map_err(|e| failed(format!("{e:?}")))?;
        let spans = [Span::whole(self.shape.length)];
        let index = TileIndex::from_table(&spans, heads, &words)?;
        let plan = AttentionPlan::with_index(index, self.shape.heads(), &self.device)?;
        let call = || self.call(&plan);
        Ok(median(
            &Batches::new(&self.device, call)?.all_ms(self.runs)?,
        ))
    }

    /// A baseline's selection, on the kernels of this library.
    fn baseline(
        &self,
        name: &str,
        baseline: &dyn IndexSelector,
    ) -> Result<FrontierRow, SpeedError> {
        let spans = [Span::whole(self.shape.length)];
        let call = || -> Result<BaselineOutput, SpeedError> {
            let query = self.query.clone();
            let (key, value) = (&self.key, &self.value);
            Ok(baselines::attend(
                baseline, LAYER, query, key, value, &spans,
            )?)
        };
        let BaselineOutput { output, index, .. } = call()?;
        let error = self.error(&output)?;
        drop(output);
        let mut selection_ms = Vec::new();
        let (total_ms, dense_ms) = self.times(|| {
            let got = call()?;
            selection_ms.push(1e3 * got.selection_seconds);
            Ok(got.output)
        })?;
        let heads = index.as_ref().map_or(self.shape.heads, TileIndex::heads);
        // The first two calls compile, and tell how many make a batch.
        let selection_ms = median(&selection_ms[2..]);
        Ok(FrontierRow {
            length: self.shape.length,
            selector: name.into(),
            floor: None,
            density: index.as_ref().map_or(1.0, TileIndex::density),
            error,
            total_ms,
            selection_ms: Some(selection_ms),
            dense_ms,
            predicted_recall: None,
            recall: None,
            least_recall: None,
            heads,
            shared: heads < self.shape.heads,
            dense_heads: if index.is_none() { heads } else { 0 },
            mix: BTreeMap::new(),
        })
    }

    /// Median milliseconds of a call and of dense.
    fn times<T>(
        &self,
        call: impl FnMut() -> Result<T, SpeedError>,
    ) -> Result<(f64, f64), SpeedError> {
        let mut own = Batches::new(&self.device, call)?;
        let mut dense = Batches::new(&self.device, || self.call(&self.plan))?;
        let (mut own_ms, mut dense_ms) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            own_ms.push(own.next_ms()?);
            dense_ms.push(dense.next_ms()?);
        }
        Ok((median(&own_ms), median(&dense_ms)))
    }
}

/// A row with what its heads chose.
fn chosen(mut row: FrontierRow, heads: &[HeadRecord]) -> FrontierRow {
    // A head that was computed again reports what it had kept before.
    let dense =
        |head: &HeadRecord| head.choice == Choice::Dense || head.why == Why::MeasuredBelowFloor;
    let of = |value: fn(&HeadRecord) -> f32| {
        let value = move |head: &HeadRecord| match dense(head) || !value(head).is_finite() {
            true => 1.0,
            false => f64::from(value(head)),
        };
        heads.iter().map(value).collect::<Vec<f64>>()
    };
    let recall = of(|head| head.recall);
    row.density = mean(of(|head| head.density));
    row.predicted_recall = Some(mean(of(|head| head.predicted_recall)));
    row.least_recall = recall.iter().copied().reduce(f64::min);
    row.recall = Some(mean(recall));
    row.heads = heads.len();
    row.dense_heads = heads.iter().filter(|head| dense(head)).count();
    for head in heads {
        let name = match dense(head) {
            true => Choice::Dense.name(),
            false => head.choice.name(),
        };
        *row.mix.entry(name.into()).or_default() += 1;
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(choice: Choice, why: Why, recall: f32, density: f32) -> HeadRecord {
        HeadRecord {
            layer: 0,
            sequence: 0,
            head: 0,
            choice,
            why,
            predicted_recall: recall + 0.01,
            recall,
            error: 0.0,
            density,
            columns: 0,
            slashes: 0,
            blocks: 0,
            costs: [f32::INFINITY; 5],
        }
    }

    #[test]
    fn a_head_that_was_computed_again_counts_as_dense() {
        let heads = [
            head(Choice::Hybrid, Why::Cheapest, 0.9, 0.25),
            head(Choice::Hybrid, Why::MeasuredBelowFloor, 0.5, 0.25),
            head(Choice::Dense, Why::DenseIsCheapest, f32::NAN, 1.0),
            head(Choice::Triangular, Why::Cheapest, 0.98, 0.5),
        ];
        let row = FrontierRow {
            length: 1024,
            selector: "dynamic".into(),
            floor: Some(0.9),
            density: f64::NAN,
            error: 0.1,
            total_ms: 1.0,
            selection_ms: None,
            dense_ms: 2.0,
            predicted_recall: None,
            recall: None,
            least_recall: None,
            heads: 0,
            shared: true,
            dense_heads: 0,
            mix: BTreeMap::new(),
        };
        let row = chosen(row, &heads);
        assert_eq!(row.density, (0.25 + 1.0 + 1.0 + 0.5) / 4.0);
        assert_eq!((row.heads, row.dense_heads), (4, 2));
        assert!((row.recall.unwrap() - 0.97).abs() < 1e-6);
        assert!((row.least_recall.unwrap() - 0.9).abs() < 1e-6);
        let mix: Vec<(&str, usize)> = row
            .mix
            .iter()
            .map(|(name, n)| (name.as_str(), *n))
            .collect();
        assert_eq!(mix, [("dense", 2), ("hybrid", 1), ("triangular", 1)]);
    }
}
