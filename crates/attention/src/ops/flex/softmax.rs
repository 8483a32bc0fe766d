//! One row of online softmax, vectorised for whatever the processor has.

use pulp::Arch;

/// Running maximum of a row that has seen nothing; finite, so that differences stay defined.
pub(super) const UNSEEN: f32 = -1.0e30;

const LANES: usize = 16;

/// Turns a row of scores into probabilities relative to the new maximum, `exp(s - m')`.
/// Returns `(m', sum of the row)`. NaN scores give NaN sums.
pub(super) fn row(arch: Arch, scores: &mut [f32], maximum: f32) -> (f32, f32) {
    arch.dispatch(RowOp { scores, maximum })
}

struct RowOp<'a> {
    scores: &'a mut [f32],
    maximum: f32,
}

impl pulp::NullaryFnOnce for RowOp<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn call(self) -> (f32, f32) {
        let (body, tail) = self.scores.as_chunks_mut::<LANES>();
        let mut lanes = [self.maximum; LANES];
        for chunk in body.iter() {
            for (m, &s) in lanes.iter_mut().zip(chunk) {
                *m = if s > *m { s } else { *m };
            }
        }
        let mut maximum = self.maximum;
        for &s in lanes.iter().chain(tail.iter()) {
            maximum = if s > maximum { s } else { maximum };
        }
        let mut sums = [0.0f32; LANES];
        for chunk in body.iter_mut() {
            // Indexed loops over whole chunks: these become vector instructions, zipped ones did not.
            #[allow(clippy::needless_range_loop)]
            for i in 0..LANES {
                chunk[i] = exp(chunk[i] - maximum);
            }
            for i in 0..LANES {
                sums[i] += chunk[i];
            }
        }
        let mut sum: f32 = sums.iter().sum();
        for s in tail {
            *s = exp(*s - maximum);
            sum += *s;
        }
        (maximum, sum)
    }
}

/// `e^x` for `x <= 0` to 2 units in the last place; 0 below -87. Cody-Waite reduction by ln 2, then
/// the Taylor series to degree 7 on `|r| <= ln(2) / 2` (remainder below 6e-9). NaN stays NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let clamped = if x < -87.0 { -87.0 } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut series = 1.0 / 5040.0;
    series = series * r + 1.0 / 720.0;
    series = series * r + 1.0 / 120.0;
    series = series * r + 1.0 / 24.0;
    series = series * r + 1.0 / 6.0;
    series = series * r + 0.5;
    series = series * r + 1.0;
    series = series * r + 1.0;
    // The integer stands in the low bits of `shifted`; a conversion would not vectorise.
    let integer = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let power = f32::from_bits(integer.wrapping_add(127) << 23);
    let value = series * power;
    if x < -87.0 { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_range() {
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = (x as f64).exp();
            let error = (exp(x) as f64 - exact).abs();
            assert!(error <= 2.5e-7 * exact, "exp({x}): off by {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-88.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn row_matches_a_plain_loop() {
        for len in [1, 15, 16, 17, 100, 256] {
            let scores: Vec<f32> = (0..len)
                .map(|i| ((i * 37) % 101) as f32 * 0.3 - 9.0)
                .collect();
            let mut got = scores.clone();
            let (maximum, sum) = row(Arch::new(), &mut got, UNSEEN);
            let expected = scores.iter().copied().fold(UNSEEN, f32::max);
            let exact: f64 = scores.iter().map(|&s| f64::from(s - expected).exp()).sum();
            assert_eq!(maximum, expected);
            assert!((f64::from(sum) - exact).abs() <= 1e-6 * exact);
        }
    }
}
