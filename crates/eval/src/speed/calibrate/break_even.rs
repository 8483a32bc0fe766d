//! From which length preset `balanced` is no slower than dense, at the densities of a trained model.

use burn::tensor::Device;
use sparse_accelerate::{Preset, select::Prices};
use sparse_accelerate_engine::{calibration::BreakEven, estimate::Density};

use super::CalibrateSettings;
use crate::speed::{Family, Frontier, FrontierSettings, FrontierShape, Selector, SpeedError};

const SEED: u32 = 1;

/// Times it at every length; what fails is a reason, not an error.
pub(super) fn measure(
    device: &Device,
    settings: &CalibrateSettings,
    costs: Prices,
    progress: &mut dyn FnMut(&str),
) -> BreakEven {
    let mut ratios = Vec::new();
    for length in &settings.break_even {
        match ratio(device, settings, *length, costs) {
            Ok(ratio) => {
                let name = Preset::Balanced.name();
                progress(&format!("{name} at {length} tokens: {ratio:.3} of dense"));
                ratios.push((*length, ratio));
            }
            Err(error) => {
                let reason = format!("at {length} tokens: {error}");
                return BreakEven::Unknown { reason };
            }
        }
    }
    BreakEven::of(&ratios)
}

/// Time over dense at a length, whatever `auto` would do there.
fn ratio(
    device: &Device,
    settings: &CalibrateSettings,
    length: usize,
    costs: Prices,
) -> Result<f64, SpeedError> {
    let shape = FrontierShape {
        heads: settings.heads,
        kv_heads: settings.kv_heads,
        head_dim: settings.head_dim,
        length,
    };
    let inputs = FrontierSettings {
        // What they hold is not looked at: the blocks that attention reads are imposed.
        family: Family::Random,
        seed: SEED,
        dtype: settings.dtype,
        tiles: 1,
        runs: settings.runs,
    };
    let layer = Frontier::new(device, shape, inputs)?;
    let density = Density::ByLength.at(length);
    let selector = Selector::balanced_at(density, [settings.heads, settings.kv_heads]);
    let row = layer.select(&selector, None, costs, Some(0))?;
    Ok(row.total_ms / row.dense_ms)
}
