//! Calibrations of a device, brought into attention settings.

use anyhow::Result;
use sparse_accelerate::AttentionSettings;
use sparse_accelerate_checkpoint::{ModelConfig, WeightDtype};
use sparse_accelerate_engine::{
    EngineError,
    calibration::{self, Calibration, CalibrationKey, Store},
    device::DeviceInfo,
};

/// Element type and heads that a calibration holds for, beside the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) dtype: WeightDtype,
    pub(crate) head_dim: usize,
    /// Query heads of a KV head.
    pub(crate) group: usize,
}

impl Layer {
    /// The layers of a model.
    pub(crate) fn of(config: &ModelConfig, dtype: WeightDtype) -> Self {
        Self {
            dtype,
            head_dim: config.head_dim,
            group: config.heads / config.kv_heads,
        }
    }
}

/// The calibration of a device for a layer, its file named on standard error; `None` where there is none.
pub(crate) fn load(info: &DeviceInfo, layer: Layer) -> Result<Option<Calibration>> {
    let Layer {
        dtype,
        head_dim,
        group,
    } = layer;
    let found = calibration::load(info, dtype, head_dim, group).map_err(EngineError::from)?;
    if let (Some(_), Some(store)) = (&found, Store::user()) {
        let path = store.path(&CalibrationKey::new(info, dtype, head_dim, group));
        eprintln!("calibration: {}", path.display());
    }
    Ok(found)
}

/// Takes the prices and the least sparse length of this device into settings whose heads choose their
/// keys; nothing where they do not, or nothing was measured.
pub(crate) fn apply(
    settings: &mut AttentionSettings,
    info: &DeviceInfo,
    layer: Layer,
) -> Result<()> {
    if settings.selects()
        && let Some(found) = load(info, layer)?
    {
        found.apply(settings);
    }
    Ok(())
}
