//! How to load, what loading reports, and which types a device takes.
//!
//! The type is checked before anything is allocated: Burn creates tensors of a type its device can
//! only store, and computing with them gives garbage or a panic.

use burn::tensor::{DType, Device};
use sparse_accelerate::KvType;
use sparse_accelerate_checkpoint::{ModelConfig, WeightDtype};

use crate::{error::ModelError, placement::StagePart};

/// Default of [`ModelOptions::mlp_rows`].
pub const MLP_ROWS: usize = 2048;

/// Options of a model that do not depend on its devices: all its stages share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelOptions {
    /// Type of the weights on the device; `None` keeps the checkpoint's.
    pub dtype: Option<WeightDtype>,
    /// Type of the keys and values in its caches; see [`CausalLm::cache`](crate::CausalLm::cache).
    pub kv: KvType,
    /// Refuse weights that hold a NaN or an infinity; reads every weight once more.
    pub check_finite: bool,
    /// Rows the MLP takes at a time (0 counts as 1). The widest temporary of a forward pass is
    /// `[mlp_rows, 2 * intermediate_size]`; results do not depend on it.
    pub mlp_rows: usize,
}

impl Default for ModelOptions {
    /// The checkpoint's type for weights and cache, weights checked, 2,048 MLP rows.
    fn default() -> Self {
        Self {
            dtype: None,
            kv: KvType::Model,
            check_finite: true,
            mlp_rows: MLP_ROWS,
        }
    }
}

/// Options of loading a model, or a stage of one, onto a device.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Options of the model itself.
    pub model: ModelOptions,
    /// Device that holds the weights.
    pub device: Device,
    /// The part of the model to load; `None` is all of it. Other parts' weights are not read.
    pub part: Option<StagePart>,
}

impl LoadOptions {
    /// The whole model with default options.
    pub fn new(device: Device) -> Self {
        Self {
            model: ModelOptions::default(),
            device,
            part: None,
        }
    }
}

/// Reported after each tensor of the checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct LoadProgress<'a> {
    /// The tensor's name.
    pub tensor: &'a str,
    /// Its position in the order of loading, from 0.
    pub index: usize,
    /// Number of tensors.
    pub total: usize,
    /// Bytes read so far, this tensor included, counted in the type they have on the device.
    pub bytes: u64,
    /// Bytes of all tensors, counted the same way.
    pub total_bytes: u64,
}

/// Burn's name for a weight type.
pub(crate) fn dtype_of(dtype: WeightDtype) -> DType {
    match dtype {
        WeightDtype::F32 => DType::F32,
        WeightDtype::F16 => DType::F16,
        WeightDtype::Bf16 => DType::BF16,
    }
}

/// The type to load in, or an error when the device does not compute in it.
pub(crate) fn refuse_unsupported(
    config: &ModelConfig,
    options: &LoadOptions,
) -> Result<WeightDtype, ModelError> {
    let dtype = options.model.dtype.unwrap_or(config.dtype);
    if dtype == WeightDtype::F16 && config.architecture.outgrows_f16() {
        return Err(ModelError::Outgrown {
            class: config.architecture.class_name(),
        });
    }
    let takes = |dtype: &WeightDtype| options.device.supports_dtype(dtype_of(*dtype));
    if takes(&dtype) {
        return Ok(dtype);
    }
    let all = [WeightDtype::F32, WeightDtype::F16, WeightDtype::Bf16];
    Err(ModelError::UnsupportedDtype {
        dtype,
        device: format!("{:?}", options.device),
        supported: all.into_iter().filter(takes).collect(),
    })
}
