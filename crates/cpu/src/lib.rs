//! Building blocks of sparse-accelerate's CPU loops: element types, a vectorised exponential, softmax rows,
//! matrix products on one thread, int8 rows, and output rows that threads write side by side.
//!
//! An implementation detail of the crates beside it: its API changes with them. `pulp` compiles the loops for
//! the instructions that the processor has.

pub mod int8;
mod product;
mod rows;
pub mod softmax;

pub use product::product;
pub use rows::Rows;

use burn::tensor::{DType, Element, bf16, f16};
use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;

/// Element types computed in on the CPU.
pub trait FlexFloat: Element + Pod + Send + Sync {
    /// Exact.
    fn widen(self) -> f32;
    /// Rounds to nearest even.
    fn narrow(value: f32) -> Self;
    /// The same slice, if it needs no widening.
    fn as_f32(slice: &[Self]) -> Option<&[f32]>;
    /// [`FlexFloat::widen`] of each.
    fn widen_all(from: &[Self], to: &mut [f32]);
    /// [`FlexFloat::narrow`] of each.
    fn narrow_all(from: &[f32], to: &mut [Self]);
}

impl FlexFloat for f32 {
    fn widen(self) -> f32 {
        self
    }
    fn narrow(value: f32) -> Self {
        value
    }
    fn as_f32(slice: &[Self]) -> Option<&[f32]> {
        Some(slice)
    }
    fn widen_all(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
    fn narrow_all(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
}

impl FlexFloat for f16 {
    fn widen(self) -> f32 {
        self.to_f32()
    }
    fn narrow(value: f32) -> Self {
        f16::from_f32(value)
    }
    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }
    fn widen_all(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
    fn narrow_all(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
}

impl FlexFloat for bf16 {
    fn widen(self) -> f32 {
        self.to_f32()
    }
    fn narrow(value: f32) -> Self {
        bf16::from_f32(value)
    }
    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }
    fn widen_all(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
    fn narrow_all(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
}

/// Buffers of one thread for [`in_f32`], reused from row to row.
#[derive(Debug, Default)]
pub struct Wide {
    from: Vec<f32>,
    to: Vec<f32>,
}

/// Runs `f` on `from` widened and writes what it made, rounded, to `to`; f32 needs no copies.
pub fn in_f32<E: FlexFloat>(
    from: &[E],
    to: &mut [E],
    wide: &mut Wide,
    f: impl FnOnce(&[f32], &mut [f32]),
) {
    if E::dtype() == DType::F32 {
        return f(bytemuck::cast_slice(from), bytemuck::cast_slice_mut(to));
    }
    wide.from.resize(from.len(), 0.0);
    wide.to.resize(to.len(), 0.0);
    E::widen_all(from, &mut wide.from);
    f(&wide.from, &mut wide.to);
    E::narrow_all(&wide.to, to);
}

/// `e^x` for `x <= 0` to 2 units in the last place; 0 below -87. Cody-Waite reduction by ln 2, then
/// the Taylor series to degree 7 on `|r| <= ln(2) / 2` (remainder below 6e-9). NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
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
}
