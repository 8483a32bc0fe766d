//! Rotary frequencies of Llama, with the scaling published with Llama 3.1.
//!
//!   wavelength = 2 pi / f
//!   f'  = f                        where wavelength < original / high_freq_factor
//!   f'  = f / factor               where wavelength > original / low_freq_factor
//!   f'  = (1 - s) f / factor + s f between, s = (original / wavelength - low) / (high - low)
//!
//! All in f64. `transformers` computes them in f32, which moves an angle at position 100,000 by up
//! to a hundredth of a radian; compare long prompts with that in mind.

use std::f64::consts::TAU;

use sparse_accelerate_checkpoint::{Llama3Scaling, ModelConfig};

use crate::blueprint::base_frequencies;

/// Radians a position for each pair of the head, `[head_dim / 2]`.
pub(crate) fn frequencies(config: &ModelConfig) -> Vec<f64> {
    let base = base_frequencies(config.rope_theta, config.head_dim);
    match &config.rope_scaling {
        None => base,
        Some(scaling) => base.into_iter().map(|f| scaled(f, scaling)).collect(),
    }
}

fn scaled(frequency: f64, scaling: &Llama3Scaling) -> f64 {
    let original = scaling.original_max_positions as f64;
    let wavelength = TAU / frequency;
    let (low, high) = (scaling.low_freq_factor, scaling.high_freq_factor);
    if wavelength < original / high {
        frequency
    } else if wavelength > original / low {
        frequency / scaling.factor
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / scaling.factor + smooth * frequency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALING: Llama3Scaling = Llama3Scaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 8192,
    };

    #[test]
    fn short_wavelengths_stay_and_long_ones_are_divided() {
        assert_eq!(scaled(1.0, &SCALING), 1.0);
        let slow = TAU / 10_000.0;
        assert!((scaled(slow, &SCALING) - slow / 8.0).abs() < 1e-18);
    }

    #[test]
    fn between_the_thresholds_the_two_are_mixed() {
        // original / wavelength = 2.5 lies half way between the factors 1 and 4.
        let frequency = TAU * 2.5 / 8192.0;
        let expected = 0.5 * frequency / 8.0 + 0.5 * frequency;
        assert!((scaled(frequency, &SCALING) - expected).abs() < 1e-15);
    }

    #[test]
    fn the_map_is_continuous_at_both_thresholds() {
        for threshold in [1.0, 4.0] {
            let at = |ratio: f64| scaled(TAU * ratio / 8192.0, &SCALING);
            assert!((at(threshold - 1e-9) - at(threshold + 1e-9)).abs() < 1e-11);
        }
    }
}
