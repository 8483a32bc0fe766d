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
    break_even(&ratios)
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

/// The first of ascending lengths from which on no ratio is above 1.
fn break_even(ratios: &[(usize, f64)]) -> BreakEven {
    let Some((longest, _)) = ratios.last() else {
        return BreakEven::Unknown {
            reason: "no length was measured".into(),
        };
    };
    let slow = ratios
        .iter()
        .rposition(|(_, ratio)| ratio.is_nan() || *ratio > 1.0);
    match ratios.get(slow.map_or(0, |at| at + 1)) {
        Some((tokens, _)) => BreakEven::From { tokens: *tokens },
        None => BreakEven::Beyond { longest: *longest },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_longer_prompt_must_be_as_fast() {
        let of = |ratios: &[f64]| {
            let lengths = [1024, 2048, 4096, 8192];
            let pairs: Vec<_> = lengths.into_iter().zip(ratios.iter().copied()).collect();
            break_even(&pairs)
        };
        assert_eq!(of(&[0.9, 1.1, 1.0, 0.5]), BreakEven::From { tokens: 4096 });
        assert_eq!(of(&[0.9, 0.8, 0.7, 0.6]), BreakEven::From { tokens: 1024 });
        assert_eq!(
            of(&[0.9, 0.8, 0.7, 1.2]),
            BreakEven::Beyond { longest: 8192 }
        );
        assert_eq!(of(&[f64::NAN]), BreakEven::Beyond { longest: 1024 });
        assert!(matches!(of(&[]), BreakEven::Unknown { .. }));
    }
}
