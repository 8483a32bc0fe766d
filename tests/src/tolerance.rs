//! Tolerance: at most twice the error of a plain computation in the same precision, plus a
//! few units in the last place of the largest value.

use burn::tensor::DType;

/// Unit roundoff of an element type.
fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => 2f64.powi(-24),
    }
}

/// Compares a result with the oracle; `plain` is the same computation in the problem's precision.
///
/// # Panics
/// With the first entry outside the tolerance, and the tolerance.
pub fn check(name: &str, dtype: DType, got: &[f32], exact: &[f64], plain: &[f64]) {
    assert_eq!(got.len(), exact.len(), "{name}: length");
    let finite = |x: &&f64| x.is_finite();
    let largest = exact
        .iter()
        .filter(finite)
        .fold(0f64, |m, x| m.max(x.abs()));
    let pairs = exact.iter().zip(plain).filter(|(e, _)| e.is_finite());
    let reference = pairs.fold(0f64, |m, (e, p)| m.max((e - p).abs()));
    let tolerance = 2.0 * reference + 4.0 * epsilon(dtype) * largest.max(1e-3);
    for (i, (&g, &e)) in got.iter().zip(exact).enumerate() {
        let g = f64::from(g);
        let close = if e.is_finite() {
            (g - e).abs() <= tolerance
        } else {
            g == e
        };
        assert!(
            close,
            "{name}: entry {i} is {g}, expected {e} within {tolerance:e}"
        );
    }
}
