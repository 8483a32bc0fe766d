//! Formulae of rotary frequencies: what each scaling makes of `theta^(-2 i / r)`, `r` the rotated elements of a head.
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
//! YaRN (arXiv 2309.00071, section 3), pair `i`:
//!
//!   c(turns) = r ln(original / (2 pi turns)) / (2 ln theta)
//!   p   = (i - c(beta_fast)) / (c(beta_slow) - c(beta_fast)), in 0 to 1, the bounds whole numbers if truncated
//!   f'  = (1 - p) f + p f / factor
//!
//! LongRoPE (arXiv 2402.13753), pair `i`: `f' = f / short[i]` in sequences of up to the original length, `f / long[i]` in longer ones.
//!
//! Dynamic NTK, sequences of `n` tokens, `n` at least the original length:
//!
//!   theta' = theta (factor n / original - (factor - 1))^(r / (r - 2))
//!
//! All in f64. `transformers` computes them in f32, which moves an angle at position 100,000 by up
//! to a hundredth of a radian; compare long prompts with that in mind.

use std::f64::consts::TAU;

use sparse_accelerate_checkpoint::{DynamicScaling, Llama3Scaling, YarnScaling};

/// Frequencies without scaling.
pub(crate) fn base(theta: f64, rotary_dim: usize) -> Vec<f64> {
    let pair = |i: usize| theta.powf(-2.0 * i as f64 / rotary_dim as f64);
    (0..rotary_dim / 2).map(pair).collect()
}

/// Each frequency over its own divisor.
pub(crate) fn divided(base: Vec<f64>, divisors: &[f64]) -> Vec<f64> {
    let pairs = base.into_iter().zip(divisors);
    pairs.map(|(f, divisor)| f / divisor).collect()
}

/// Dynamic NTK in a sequence of `tokens`.
pub(crate) fn dynamic(
    theta: f64,
    rotary_dim: usize,
    scaling: &DynamicScaling,
    tokens: usize,
) -> Vec<f64> {
    let original = scaling.original_max_positions;
    let length = tokens.max(original) as f64 / original as f64;
    let dim = rotary_dim as f64;
    let growth = scaling.factor * length - (scaling.factor - 1.0);
    base(theta * growth.powf(dim / (dim - 2.0)), rotary_dim)
}

/// YaRN over unscaled frequencies.
pub(crate) fn yarn(base: &[f64], theta: f64, scaling: &YarnScaling) -> Vec<f64> {
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

/// One frequency the Llama 3.1 way.
pub(crate) fn llama3(frequency: f64, scaling: &Llama3Scaling) -> f64 {
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
            let got = yarn(&base(theta, head_dim), theta, &scaling);
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

    /// Computed by the source of transformers 5.24.0 (`_compute_longrope_parameters`) over f64, six pairs of seven left out.
    #[test]
    fn longrope_agrees_with_an_independent_implementation() {
        let divisors =
            |count: usize, of: fn(f64) -> f64| (0..count).map(|i| of(i as f64)).collect();
        for (rotary_dim, theta, short, long) in [
            (96, 1e4, &SHORT[..], &LONG[..]),
            (32, 1e6, &SHORT_32, &LONG_32),
        ] {
            let pairs = rotary_dim / 2;
            let lists: [(Vec<f64>, _); 2] = [
                (divisors(pairs, |i| 1.0 + 0.03125 * i), short),
                (divisors(pairs, |i| 1.0 + 0.0625 * i * i), long),
            ];
            for (divisors, wanted) in lists {
                agree(&divided(base(theta, rotary_dim), &divisors), wanted);
            }
        }
    }

    /// The same for `_compute_dynamic_ntk_parameters`, at the original length, one token beyond and at three times as many.
    #[test]
    fn dynamic_ntk_agrees_with_an_independent_implementation() {
        for (rotary_dim, theta, factor, original, wanted) in [
            (128, 1e4, 4.0, 4096, &DYNAMIC),
            (48, 1e6, 2.0, 2048, &DYNAMIC_48),
        ] {
            let scaling = DynamicScaling {
                factor,
                original_max_positions: original,
            };
            let lengths = [original, original + 1, 3 * original];
            for (tokens, wanted) in lengths.into_iter().zip(wanted) {
                agree(&dynamic(theta, rotary_dim, &scaling, tokens), wanted);
            }
            let unscaled = base(theta, rotary_dim);
            assert_eq!(dynamic(theta, rotary_dim, &scaling, 1), unscaled);
        }
    }

    fn agree(got: &[f64], wanted: &[f64]) {
        assert_eq!(got.len().div_ceil(7), wanted.len());
        for (got, wanted) in got.iter().step_by(7).zip(wanted) {
            assert!((got / wanted - 1.0).abs() < 1e-12, "{got} for {wanted}");
        }
    }

    const SHORT: [f64; 7] = [
        1.0,
        0.21416674590215687,
        0.0473942308909886,
        0.010736781343631232,
        0.002475514044593481,
        0.000578640075762908,
        0.00013674714206133532,
    ];
    const LONG: [f64; 7] = [
        1.0,
        0.06425002377064705,
        0.005141826936286499,
        0.0006225923536241305,
        9.283177667225555e-05,
        1.5620018161206625e-05,
        2.84249677318506e-06,
    ];
    const SHORT_32: [f64; 3] = [1.0, 0.001945742527722384, 3.91193965349808e-06];
    const LONG_32: [f64; 3] = [1.0, 0.0005837227583167151, 4.2440854731347096e-07];
    const DYNAMIC: [&[f64]; 3] = [
        &[
            1.0,
            0.36517412725483767,
            0.1333521432163324,
            0.04869675251658631,
            0.01778279410038923,
            0.006493816315762114,
            0.0023713737056616554,
            0.0008659643233600654,
            0.00031622776601683794,
            0.00011547819846894582,
        ],
        &[
            1.0,
            0.3651345248086943,
            0.133323221207271,
            0.048680911021481324,
            0.017775081313082912,
            0.00649029586868843,
            0.002369831097881382,
            0.0008653071518017847,
            0.0003159535156867093,
            0.00011536553681190297,
        ],
        &[
            1.0,
            0.2860704864715582,
            0.08183632323007396,
            0.02341095679747094,
            0.006697183799817145,
            0.0019158666276031292,
            0.0005480728981730508,
            0.00015678748060224144,
            4.48522708485332e-05,
            1.283091094099398e-05,
        ],
    ];
    const DYNAMIC_48: [&[f64]; 3] = [
        &[
            1.0,
            0.017782794100389222,
            0.0003162277660168378,
            5.623413251903491e-06,
        ],
        &[
            1.0,
            0.017777512156668385,
            0.00031603993848049216,
            5.618403848329682e-06,
        ],
        &[
            1.0,
            0.010896072861405015,
            0.00011872440380104686,
            1.293629754243078e-06,
        ],
    ];
}
