//! Prices of the attention kernels on a device, and the prompt length from which a selection pays.
//!
//! Dense attention, random blocks at several densities and gathered columns are timed at several lengths;
//! least squares gives the price of a tile, of columns and of an index row. Then the selection of preset
//! `balanced`, with attention over blocks of a trained model's density, is timed against dense, length by length.

mod break_even;
mod fit;
mod samples;

use sparse_accelerate::select::Prices;
use sparse_accelerate_checkpoint::WeightDtype;
use sparse_accelerate_engine::{
    Selected,
    calibration::{Calibration, CalibrationKey, SCHEMA},
    contained,
};

use super::SpeedError;

/// Shapes and lengths to measure, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrateSettings {
    /// Query heads.
    pub heads: usize,
    /// KV heads, a divisor of the query heads.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Element type.
    pub dtype: WeightDtype,
    /// Timed batches of each sample, at least 1.
    pub runs: usize,
    /// Prompt lengths of the samples that prices come from.
    pub lengths: Vec<usize>,
    /// Prompt lengths at which a selection is timed against dense, ascending.
    pub break_even: Vec<usize>,
}

/// Measures a device; `progress` is told every measurement in words.
///
/// # Errors
/// Nothing to measure, a shape or type that attention refuses, times that no prices explain, a device
/// that gave up. A selection that cannot run is no error: the break-even length is then unknown.
pub fn calibrate(
    selected: &Selected,
    settings: &CalibrateSettings,
    progress: &mut dyn FnMut(&str),
) -> Result<Calibration, SpeedError> {
    for (field, count) in [
        ("runs", settings.runs),
        ("heads", settings.heads),
        ("kv_heads", settings.kv_heads),
        ("head_dim", settings.head_dim),
        ("lengths", settings.lengths.len()),
    ] {
        if count == 0 {
            return Err(SpeedError::Nothing { field });
        }
    }
    let samples = contained("calibration", || {
        samples::measure(&selected.device, settings, progress)
    })?;
    let prices = fit::fit(&samples)?;
    let [dense_tile, tile, column, row] = prices.ms.map(|ms| (ms / prices.ms[0]) as f32);
    let costs = Prices {
        dense_tile,
        tile,
        column,
        row,
    };
    let group = settings.heads / settings.kv_heads;
    Ok(Calibration {
        schema: SCHEMA,
        key: CalibrationKey::new(&selected.info, settings.dtype, settings.head_dim, group),
        version: crate::version(),
        heads: [settings.heads, settings.kv_heads],
        costs,
        dense_tile_ns: 1e6 * prices.ms[0],
        misfit: prices.misfit,
        break_even: break_even::measure(&selected.device, settings, costs, progress),
    })
}
