//! Growth of time with the length of the prompt.
//!
//! The claim of SparseAccelerate (arXiv 2412.06198) is about the growth gradient of the time to first
//! token: 1 is linear growth, 2 is quadratic.

/// Least-squares slope of `log2 seconds` over `log2 length`: what a doubling of the length adds to the
/// logarithm of the time. `None` with fewer than two different lengths, or a time that is not positive.
pub fn gradient(points: &[(usize, f64)]) -> Option<f64> {
    if points
        .iter()
        .any(|(length, s)| *length == 0 || !(s.is_finite() && *s > 0.0))
    {
        return None;
    }
    let logs: Vec<(f64, f64)> = points
        .iter()
        .map(|(l, s)| ((*l as f64).log2(), s.log2()))
        .collect();
    let n = logs.len() as f64;
    let (mx, my) = logs
        .iter()
        .fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let (mut xy, mut xx) = (0.0, 0.0);
    for (x, y) in &logs {
        xy += (x - mx) * (y - my);
        xx += (x - mx).powi(2);
    }
    (xx > 0.0).then(|| xy / xx)
}

/// `(L, time(4 L) / time(L))` for every such pair, by length. 4 is linear growth, 16 is quadratic.
pub fn fourfold(points: &[(usize, f64)]) -> Vec<(usize, f64)> {
    let at = |length: usize| points.iter().find(|(l, _)| *l == length).map(|(_, s)| *s);
    let mut pairs: Vec<(usize, f64)> = points
        .iter()
        .filter_map(|(length, s)| Some((*length, at(4 * length)? / s)))
        .collect();
    pairs.sort_by_key(|(length, _)| *length);
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power(exponent: f64, lengths: &[usize]) -> Vec<(usize, f64)> {
        let time = |l: &usize| (*l, 3e-5 * (*l as f64).powf(exponent));
        lengths.iter().map(time).collect()
    }

    #[test]
    fn a_power_law_gives_its_exponent() {
        for exponent in [0.0, 0.5, 1.0, 1.37, 2.0] {
            for lengths in [&[2048, 8192][..], &[1000, 3000, 7777, 131_072]] {
                let got = gradient(&power(exponent, lengths)).expect("a gradient");
                assert!((got - exponent).abs() < 1e-9, "{got} {exponent}");
            }
        }
    }

    #[test]
    fn fourfold_lengths_give_powers_of_four() {
        let pairs = fourfold(&power(2.0, &[32_768, 2048, 8192, 12_000]));
        let lengths: Vec<usize> = pairs.iter().map(|(l, _)| *l).collect();
        assert_eq!(lengths, [2048, 8192]);
        assert!(pairs.iter().all(|(_, ratio)| (ratio - 16.0).abs() < 1e-9));
        assert!(fourfold(&power(1.0, &[100, 300])).is_empty());
    }

    #[test]
    fn what_has_no_gradient_gives_none() {
        assert_eq!(gradient(&[]), None);
        assert_eq!(gradient(&[(64, 1.0), (64, 2.0)]), None);
        assert_eq!(gradient(&[(64, 1.0), (128, 0.0)]), None);
        assert_eq!(gradient(&[(64, 1.0), (128, f64::NAN)]), None);
    }
}
