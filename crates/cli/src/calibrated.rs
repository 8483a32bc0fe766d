//! Calibrations of a device and records of a model, brought into attention settings.

use anyhow::Result;
use sparse_accelerate::AttentionSettings;
use sparse_accelerate_checkpoint::{ModelConfig, ModelDir, WeightDtype};
use sparse_accelerate_engine::{
    EngineError,
    calibration::{Calibration, CalibrationKey, Store},
    device::DeviceInfo,
};
use sparse_accelerate_eval::model_outline;

use crate::load::RunTarget;

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

    /// The key of what is kept of these layers on a device.
    pub(crate) fn key(self, info: &DeviceInfo) -> CalibrationKey {
        CalibrationKey::new(info, self.dtype, self.head_dim, self.group)
    }
}

/// The calibration of a device for a layer, its file named on standard error; `None` where there is none.
pub(crate) fn load(info: &DeviceInfo, layer: Layer) -> Result<Option<Calibration>> {
    let Some(store) = Store::user() else {
        return Ok(None);
    };
    let key = layer.key(info);
    let found = store.load(&key).map_err(EngineError::from)?;
    if found.is_some() {
        eprintln!("calibration: {}", store.path(&key).display());
    }
    Ok(found)
}

/// Takes what is known of this device and this model into settings whose heads choose their keys: prices and the least
/// sparse length of the device, then that of the model's own record. A record is of one device: stages have none.
pub(crate) fn apply(
    settings: &mut AttentionSettings,
    target: &RunTarget,
    config: &ModelConfig,
    dir: Option<&ModelDir>,
) -> Result<()> {
    if !settings.selects() {
        return Ok(());
    }
    let (info, layer) = (
        &target.devices.first().info,
        Layer::of(config, target.dtype),
    );
    if let Some(found) = load(info, layer)? {
        found.apply(settings);
    }
    if let (Some(dir), Some(store), false) = (dir, Store::user(), target.devices.is_staged()) {
        let (key, outline) = (layer.key(info), model_outline(dir.path())?);
        if let Some(found) = store.record(&key, &outline).map_err(EngineError::from)? {
            eprintln!("record: {}", store.record_path(&key, &outline).display());
            found.apply(settings);
        }
    }
    Ok(())
}
