//! One row of online softmax, vectorised for whatever the processor has.

use pulp::Arch;

use crate::exp;

/// Running maximum of a row that has seen nothing; finite, so that differences stay defined.
pub const UNSEEN: f32 = -1.0e30;

const LANES: usize = 16;

/// Turns a row of scores into probabilities relative to the new maximum, `exp(s - m')`.
/// Returns `(m', sum of the row)`. NaN scores give NaN sums.
pub fn row(arch: Arch, scores: &mut [f32], maximum: f32) -> (f32, f32) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
