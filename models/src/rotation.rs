//! Rotary frequencies of a model, with the scalings that its configuration can ask for.
//!
//! Linear interpolation divides positions, which is to divide every frequency: `f' = f / factor`.
//!
//! Llama 3.1:
//!
//!   wavelength = 2 pi / f
//!   f'  = f                        where wavelength < original / high_freq_factor
//!   f'  = f / factor               where wavelength > original / low_freq_factor
//!   f'  = (1 - s) f / factor + s f between, s = (original / wavelength - low) / (high - low)
//!
//! YaRN (arXiv 2309.00071, section 3), pair `i` of a head of `d`:
//!
//!   c(turns) = d ln(original / (2 pi turns)) / (2 ln theta)
//!   r   = (i - c(beta_fast)) / (c(beta_slow) - c(beta_fast)), in 0 to 1, the bounds whole numbers if truncated
//!   f'  = (1 - r) f + r f / factor
//!
//! and cosines and sines times the attention factor, which stands for a temperature of the softmax.
//!
//! All in f64. `transformers` computes them in f32, which moves an angle at position 100,000 by up
//! to a hundredth of a radian; compare long prompts with that in mind.

use std::f64::consts::TAU;

use sparse_accelerate_checkpoint::{Llama3Scaling, ModelConfig, RopeScaling, YarnScaling};

/// The rotation of positions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rotation {
    /// Radians a position for each pair of the head, `[head_dim / 2]`.
    pub(crate) frequencies: Vec<f64>,
    /// Factor of cosines and sines.
    pub(crate) factor: f64,
}

impl Rotation {
    /// The rotation of a configuration.
    pub(crate) fn new(config: &ModelConfig) -> Self {
        let base = base_frequencies(config.rope_theta, config.head_dim);
        let frequencies = match &config.rope_scaling {
            Some(RopeScaling::Linear { factor }) => base.into_iter().map(|f| f / factor).collect(),
            Some(RopeScaling::Llama3(scaling)) => {
                base.into_iter().map(|f| llama3(f, scaling)).collect()
            }
            Some(RopeScaling::Yarn(scaling)) => yarn(&base, config.rope_theta, scaling),
            // Whoever adds a scaling to the configuration adds it here.
            _ => base,
        };
        let factor = match &config.rope_scaling {
            Some(RopeScaling::Yarn(scaling)) => scaling.attention_factor,
            _ => 1.0,
        };
        Self {
            frequencies,
            factor,
        }
    }
}

/// Frequencies without scaling: `theta^(-2 i / d)`.
fn base_frequencies(theta: f64, head_dim: usize) -> Vec<f64> {
    let pair = |i: usize| theta.powf(-2.0 * i as f64 / head_dim as f64);
    (0..head_dim / 2).map(pair).collect()
}

fn yarn(base: &[f64], theta: f64, scaling: &YarnScaling) -> Vec<f64> {
    let dim = 2.0 * base.len() as f64;
    let original = scaling.original_max_positions as f64;
    let pair = |turns: f64| dim * (original / (TAU * turns)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (pair(scaling.beta_fast), pair(scaling.beta_slow));
    if scaling.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    let frequency = |(i, f): (usize, &f64)| {
        let stretched = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 - stretched) * f + stretched * f / scaling.factor
    };
    base.iter().enumerate().map(frequency).collect()
}

fn llama3(frequency: f64, scaling: &Llama3Scaling) -> f64 {
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
    fn linear_interpolation_divides_every_frequency() {
        for family in ["LlamaForCausalLM", "Qwen2ForCausalLM"] {
            let rotation = |scaling: &str| {
                let text = format!(
                    r#"{{"architectures": ["{family}"], "hidden_size": 64, "intermediate_size": 96,
                        "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 16,
                        "max_position_embeddings": 512, "rope_scaling": {scaling}}}"#
                );
                Rotation::new(&ModelConfig::from_json(&text).expect("sound"))
            };
            let plain = rotation("null");
            let scaled = rotation(r#"{"type": "linear", "factor": 4.0}"#);
            assert_eq!((scaled.frequencies.len(), scaled.factor), (16, 1.0));
            for (got, before) in scaled.frequencies.iter().zip(&plain.frequencies) {
                assert_eq!(got * 4.0, *before);
            }
        }
    }

    #[test]
    fn short_wavelengths_stay_and_long_ones_are_divided() {
        assert_eq!(llama3(1.0, &SCALING), 1.0);
        let slow = TAU / 10_000.0;
        assert!((llama3(slow, &SCALING) - slow / 8.0).abs() < 1e-18);
    }

    #[test]
    fn between_the_thresholds_the_two_are_mixed() {
        // original / wavelength = 2.5 lies half way between the factors 1 and 4.
        let frequency = TAU * 2.5 / 8192.0;
        let expected = 0.5 * frequency / 8.0 + 0.5 * frequency;
        assert!((llama3(frequency, &SCALING) - expected).abs() < 1e-15);
    }

    #[test]
    fn the_map_is_continuous_at_both_thresholds() {
        for threshold in [1.0, 4.0] {
            let at = |ratio: f64| llama3(TAU * ratio / 8192.0, &SCALING);
            assert!((at(threshold - 1e-9) - at(threshold + 1e-9)).abs() < 1e-11);
        }
    }

    /// Computed in f64 by the formulas of transformers 5.24.0 (`_compute_yarn_parameters`), two in three left out.
    #[test]
    fn yarn_agrees_with_an_independent_implementation() {
        let defaults = YarnScaling {
            factor: 4.0,
            original_max_positions: 32768,
            attention_factor: 1.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
        };
        let other = YarnScaling {
            factor: 16.0,
            original_max_positions: 4096,
            beta_fast: 16.0,
            beta_slow: 2.0,
            truncate: false,
            ..defaults
        };
        let cases: [(usize, f64, YarnScaling, &[f64]); 2] =
            [(64, 1e6, defaults, &QWEN), (128, 1e4, other, &OTHER)];
        for (head_dim, theta, scaling, wanted) in cases {
            let got = yarn(&base_frequencies(theta, head_dim), theta, &scaling);
            assert_eq!(got.len(), head_dim / 2);
            for (got, wanted) in got.iter().step_by(3).zip(wanted) {
                assert!((got / wanted - 1.0).abs() < 1e-12, "{got} for {wanted}");
            }
        }
    }

    const QWEN: [f64; 11] = [
        1.0,
        0.2738419634264361,
        0.07498942093324558,
        0.02053525026457146,
        0.005154795480911533,
        0.001026617684039661,
        0.000175706876428576,
        2.886954961723646e-05,
        7.905694150420949e-06,
        2.164910808400163e-06,
        5.928434264154139e-07,
    ];
    const OTHER: [f64; 22] = [
        1.0,
        0.6493816315762113,
        0.4216965034285823,
        0.2738419634264361,
        0.1778279410038923,
        0.1154781984689458,
        0.07498942093324558,
        0.04869675251658631,
        0.03162277660168379,
        0.01888441001149759,
        0.009667566536981118,
        0.004592390591152518,
        0.001887649184527624,
        0.0005150143599167686,
        0.0001482108566038535,
        9.624540787871824e-05,
        6.25e-05,
        4.05863519735132e-05,
        2.635603146428639e-05,
        1.711512271415226e-05,
        1.111424631274327e-05,
        7.217387404309114e-06,
    ];
}
