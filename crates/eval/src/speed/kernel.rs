//! Attention of one layer alone, through the public `attend`: checked, then timed.
//!
//! Query, key and value are drawn on the device. Sampled rows are compared with f64 attention over the
//! keys that the plan's index lets them see; a row that is wrong is not timed.
//! Building the index and sending it to the device are not part of the time.

use std::ops::Range;

use burn::tensor::{Device, Distribution, Tensor};
use sparse_accelerate::{AttentionPlan, Heads, Span, Visible, attend};
use sparse_accelerate_checkpoint::WeightDtype;
use sparse_accelerate_engine::{EngineError, contained};
use sparse_accelerate_report::record::KernelRow;

use super::{Case, SpeedError, element, median, oracle, timing::Batches};

/// Query positions that are checked, as shares of the prompt.
const CHECKED_ROWS: [f64; 6] = [0.0, 0.03, 0.31, 0.5, 0.77, 1.0];
/// Query heads that are checked.
const CHECKED_HEADS: usize = 4;

/// Sizes of the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelShape {
    /// Query heads.
    pub heads: usize,
    /// KV heads, a divisor of the query heads.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Prompt tokens.
    pub length: usize,
}

/// How often, in which type, from which seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelSettings {
    /// Element type.
    pub dtype: WeightDtype,
    /// Timed batches, at least 1.
    pub runs: usize,
    /// Seed of query, key and value.
    pub seed: u64,
}

/// Checks and times one attention on random inputs.
///
/// # Errors
/// No runs, a shape or type that attention refuses, a wrong result, a device that gave up.
pub fn kernel(
    device: &Device,
    shape: KernelShape,
    case: &Case,
    settings: KernelSettings,
) -> Result<KernelRow, SpeedError> {
    for (field, count) in [
        ("runs", settings.runs),
        ("heads", shape.heads),
        ("kv_heads", shape.kv_heads),
        ("head_dim", shape.head_dim),
    ] {
        if count == 0 {
            return Err(SpeedError::Nothing { field });
        }
    }
    contained("attention", || {
        let heads = Heads::new(shape.heads, shape.kv_heads, shape.head_dim);
        let spans = [Span::whole(shape.length)];
        let plan = AttentionPlan::new(&case.settings, &spans, heads, Visible::Causal, device)?;
        let layer = Layer::new(device, shape, settings, plan);
        let error = layer.error()?;
        let limit = limit(settings.dtype);
        if error.is_nan() || error > limit {
            return Err(SpeedError::Wrong {
                attention: case.name.clone(),
                length: shape.length,
                error,
                limit,
            });
        }
        let times = layer.time(settings.runs)?;
        let decision = layer.plan.decision();
        // No case of this bench has heads that choose.
        let density = decision.density.unwrap_or(1.0);
        let pairs = density * decision.causal_pairs as f64 * shape.heads as f64;
        let median_ms = median(&times);
        Ok(KernelRow {
            attention: case.name.clone(),
            length: shape.length,
            density,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            median_ms,
            min_ms: times.iter().copied().fold(f64::INFINITY, f64::min),
            tflops: 4.0 * shape.head_dim as f64 * pairs / (median_ms * 1e9),
            error,
        })
    })
}

/// The largest relative error that rounding in a type explains.
fn limit(dtype: WeightDtype) -> f64 {
    match dtype {
        WeightDtype::Bf16 => 8e-3,
        WeightDtype::F16 => 1e-3,
        WeightDtype::F32 => 2e-5,
    }
}

/// Inputs and plan of one layer.
struct Layer {
    shape: KernelShape,
    device: Device,
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    plan: AttentionPlan,
}

impl Layer {
    fn new(
        device: &Device,
        shape: KernelShape,
        settings: KernelSettings,
        plan: AttentionPlan,
    ) -> Self {
        device.seed(settings.seed);
        let normal = |heads| {
            let dims = [1, heads, shape.length, shape.head_dim];
            let standard = Distribution::Normal(0.0, 1.0);
            Tensor::<4>::random(dims, standard, (device, element(settings.dtype)))
        };
        Self {
            shape,
            device: device.clone(),
            query: normal(shape.heads),
            key: normal(shape.kv_heads),
            value: normal(shape.kv_heads),
            plan,
        }
    }

    /// Relative L2 error of the sampled rows of the sampled heads.
    fn error(&self) -> Result<f64, SpeedError> {
        let out = attend(
            self.query.clone(),
            &self.key,
            &self.value,
            &self.plan.layer(0)?,
        )?;
        let shape = self.shape;
        let last = shape.length - 1;
        let mut rows = CHECKED_ROWS
            .map(|share| (share * last as f64) as usize)
            .to_vec();
        rows.dedup();
        let mut heads: Vec<usize> = (0..CHECKED_HEADS)
            .map(|at| at * (shape.heads - 1) / (CHECKED_HEADS - 1))
            .collect();
        heads.dedup();
        let (mut distance, mut size) = (0.0, 0.0);
        for head in heads {
            let group = shape.heads / shape.kv_heads;
            let keys = read(&self.key, head / group, 0..shape.length)?;
            let values = read(&self.value, head / group, 0..shape.length)?;
            for &row in &rows {
                let query = read(&self.query, head, row..row + 1)?;
                let got = read(&out, head, row..row + 1)?;
                let exact = oracle::row(&query, &keys, &values, |j| self.sees(head, row, j));
                for (got, exact) in got.iter().zip(exact) {
                    distance += (f64::from(*got) - exact).powi(2);
                    size += exact.powi(2);
                }
            }
        }
        Ok((distance / size).sqrt())
    }

    fn sees(&self, head: usize, row: usize, key: usize) -> bool {
        match self.plan.index() {
            None => key <= row,
            Some(index) if index.heads() == self.shape.heads => index.sees(0, head, row, key),
            Some(index) => index.sees(0, head * index.heads() / self.shape.heads, row, key),
        }
    }

    /// Milliseconds a call of every batch.
    fn time(&self, runs: usize) -> Result<Vec<f64>, SpeedError> {
        let call = || {
            Ok(attend(
                self.query.clone(),
                &self.key,
                &self.value,
                &self.plan.layer(0)?,
            )?)
        };
        Batches::new(&self.device, call)?.all_ms(runs)
    }
}

/// Rows of one head as f32.
fn read(tensor: &Tensor<4>, head: usize, rows: Range<usize>) -> Result<Vec<f32>, EngineError> {
    let failed = |reason: String| EngineError::Execution {
        op: "read back",
        reason,
    };
    let dim = tensor.dims()[3];
    let part = tensor.clone().slice([0..1, head..head + 1, rows, 0..dim]);
    let data = part
        .try_into_data()
        .map_err(|error| failed(error.to_string()))?;
    let values = data.convert::<f32>().try_to_vec();
    values.map_err(|error| failed(format!("{error:?}")))
}
