//! One layer's inputs on a device, its dense attention, and the rows on which results are judged.

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::bf16;
use sparse_accelerate::{AttentionPlan, AttentionSettings, Heads, Span, Visible, attend_with_lse};
use sparse_accelerate_checkpoint::WeightDtype;
use sparse_accelerate_engine::{EngineError, contained};
use sparse_accelerate_inputs::{Family, InputError, Shape, key, query, value};

use super::choose::spread;
use crate::speed::{SpeedError, element};

/// Rows of a sampled query block.
pub(super) const BLOCK: usize = 128;

/// Sizes of the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontierShape {
    /// Query heads.
    pub heads: usize,
    /// KV heads, a divisor of the query heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Prompt tokens.
    pub length: usize,
}

impl FrontierShape {
    pub(super) fn heads(&self) -> Heads {
        Heads::new(self.heads, self.kv_heads, self.head_dim)
    }
}

/// Which inputs, judged and timed how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontierSettings {
    /// How queries and keys are made.
    pub family: Family,
    /// Seed of the inputs.
    pub seed: u32,
    /// Element type.
    pub dtype: WeightDtype,
    /// Query blocks of 128 rows on which results are judged, at least 1.
    pub tiles: usize,
    /// Timed runs, at least 1.
    pub runs: usize,
}

/// Inputs and dense attention of one layer.
#[derive(Debug)]
pub struct Frontier {
    pub(super) shape: FrontierShape,
    pub(super) runs: usize,
    pub(super) device: Device,
    pub(super) query: Tensor<4>,
    pub(super) key: Tensor<4>,
    pub(super) value: Tensor<4>,
    pub(super) plan: AttentionPlan,
    /// Dense output, `[1, Hq, S, d]`.
    pub(super) output: Tensor<4>,
    /// Natural log-sum-exp of the dense rows, `[1, Hq, S]` in f32.
    pub(super) lse: Tensor<3>,
    /// Sampled query blocks.
    pub(super) blocks: Vec<usize>,
}

impl Frontier {
    /// Makes the inputs and their dense attention.
    ///
    /// # Errors
    /// No runs or tiles, inputs that are not defined, a device that gave up.
    pub fn new(
        device: &Device,
        shape: FrontierShape,
        settings: FrontierSettings,
    ) -> Result<Self, SpeedError> {
        for (field, count) in [("runs", settings.runs), ("tiles", settings.tiles)] {
            if count == 0 {
                return Err(SpeedError::Nothing { field });
            }
        }
        contained("inputs and dense attention", || {
            let sizes =
                Shape::new(shape.heads, shape.kv_heads, shape.length).with_head_dim(shape.head_dim);
            type Make = fn(u32, Family, Shape) -> Result<Vec<bf16>, InputError>;
            let tensor = |make: Make, heads| {
                let values = make(settings.seed, settings.family, sizes)?;
                let data = TensorData::new(values, [1, heads, shape.length, shape.head_dim]);
                let data = data.convert_dtype(element(settings.dtype));
                Ok::<_, InputError>(Tensor::<4>::from_data(
                    data,
                    (device, element(settings.dtype)),
                ))
            };
            let query = tensor(query, shape.heads)?;
            let key = tensor(key, shape.kv_heads)?;
            let value = tensor(value, shape.kv_heads)?;
            Self::of([query, key, value], settings.tiles, settings.runs)
        })
    }

    /// Takes queries `[1, Hq, S, d]`, keys and values `[1, Hk, S, d]` as they are, with `tiles` and `runs` of
    /// [`FrontierSettings`], and computes their dense attention.
    pub(super) fn of(
        [query, key, value]: [Tensor<4>; 3],
        tiles: usize,
        runs: usize,
    ) -> Result<Self, SpeedError> {
        let [_, heads, length, head_dim] = query.dims();
        let shape = FrontierShape {
            heads,
            kv_heads: key.dims()[1],
            head_dim,
            length,
        };
        let device = query.device();
        let plan = AttentionPlan::new(
            &AttentionSettings::dense(),
            &[Span::whole(length)],
            shape.heads(),
            Visible::Causal,
            &device,
        )?;
        let (output, lse) = attend_with_lse(query.clone(), &key, &value, &plan.layer(0)?)?;
        Ok(Self {
            shape,
            runs,
            device,
            query,
            key,
            value,
            plan,
            output,
            lse,
            blocks: spread(length.div_ceil(BLOCK), tiles),
        })
    }

    /// Relative L2 error of an output `[1, Hq, S, d]` against dense, over the sampled rows of all heads.
    pub(super) fn error(&self, output: &Tensor<4>) -> Result<f64, SpeedError> {
        let [distance, size] = self.squares(output)?;
        Ok((distance / size).sqrt())
    }

    /// Squares of the difference to dense and of dense, over the sampled rows of all heads.
    pub(super) fn squares(&self, output: &Tensor<4>) -> Result<[f64; 2], SpeedError> {
        let (mut distance, mut size) = (0.0, 0.0);
        for block in &self.blocks {
            let end = (BLOCK * (block + 1)).min(self.shape.length);
            let part = |tensor: &Tensor<4>| {
                let ranges = [
                    0..1,
                    0..self.shape.heads,
                    BLOCK * block..end,
                    0..self.shape.head_dim,
                ];
                tensor.clone().slice(ranges).cast(DType::F32)
            };
            let dense = part(&self.output);
            let difference = (part(output) - dense.clone()).square().sum();
            let sums = Tensor::cat(vec![difference, dense.square().sum()], 0);
            let sums = read(sums)?;
            distance += f64::from(sums[0]);
            size += f64::from(sums[1]);
        }
        Ok([distance, size])
    }
}

/// A tensor's values; waits for the device.
pub(super) fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, EngineError> {
    let failed = |reason: String| EngineError::Execution {
        op: "read back",
        reason,
    };
    let data = tensor
        .try_into_data()
        .map_err(|error| failed(error.to_string()))?;
    data.try_to_vec()
        .map_err(|error| failed(format!("{error:?}")))
}
