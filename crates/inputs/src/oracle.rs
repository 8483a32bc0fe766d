//! Attention from its formula, in f64, and the error of a result against it on sampled rows.
//!
//! The oracle is made for comparing: it computes single rows over all their keys, slowly.

use half::bf16;
use rayon::prelude::*;

use crate::error::{InputError, in_range};
use crate::shape::Shape;

/// `softmax(scale * q.k) v` over the visible ones of the first `len` keys, with the natural
/// logarithm of the sum of `exp(scale * q.k)`. A row that sees nothing is zeros, and minus infinity.
///
/// `keys` and `values` are `[len, query.len()]` or longer.
///
/// # Panics
///
/// If `keys` or `values` are shorter.
pub fn row(
    query: &[bf16],
    keys: &[bf16],
    values: &[bf16],
    scale: f64,
    len: usize,
    visible: impl Fn(usize) -> bool,
) -> (Vec<f64>, f64) {
    let dim = query.len();
    let query: Vec<f64> = query.iter().map(|q| q.to_f64()).collect();
    let scores: Vec<(usize, f64)> = (0..len)
        .filter(|&j| visible(j))
        .map(|j| {
            let key = &keys[j * dim..(j + 1) * dim];
            let dot: f64 = query.iter().zip(key).map(|(q, k)| q * k.to_f64()).sum();
            (j, scale * dot)
        })
        .collect();
    let mut out = vec![0.0; dim];
    if scores.is_empty() {
        return (out, f64::NEG_INFINITY);
    }
    let largest = scores.iter().map(|s| s.1).fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for (j, score) in scores {
        let weight = (score - largest).exp();
        sum += weight;
        for (out, value) in out.iter_mut().zip(&values[j * dim..(j + 1) * dim]) {
            *out += weight * value.to_f64();
        }
    }
    for out in &mut out {
        *out /= sum;
    }
    (out, largest + sum.ln())
}

/// Tensors of one attention problem.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    shape: Shape,
    query: &'a [bf16],
    key: &'a [bf16],
    value: &'a [bf16],
    scale: f64,
}

impl<'a> Problem<'a> {
    /// The tensors of a shape, with logits `q.k / sqrt(head_dim)`.
    ///
    /// # Errors
    ///
    /// If the shape is outside its limits or a tensor has not its elements.
    pub fn new(
        shape: Shape,
        query: &'a [bf16],
        key: &'a [bf16],
        value: &'a [bf16],
    ) -> Result<Self, InputError> {
        shape.check()?;
        elements("query", query.len(), shape.elements(shape.heads))?;
        elements("key", key.len(), shape.elements(shape.kv_heads))?;
        elements("value", value.len(), shape.elements(shape.kv_heads))?;
        Ok(Self {
            shape,
            query,
            key,
            value,
            scale: 1.0 / (shape.head_dim as f64).sqrt(),
        })
    }

    /// The same with other logits, `scale * q.k`.
    #[must_use]
    pub const fn with_scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// Row `i` of a query head over the keys for which `visible(j)`, and its log-sum-exp; see
    /// [`row`].
    ///
    /// # Panics
    ///
    /// If there is no such head or row.
    pub fn row(&self, head: usize, i: usize, visible: impl Fn(usize) -> bool) -> (Vec<f64>, f64) {
        let Shape { len, head_dim, .. } = self.shape;
        let first = (head * len + i) * head_dim;
        let first_key = head / self.shape.group() * len * head_dim;
        row(
            &self.query[first..first + head_dim],
            &self.key[first_key..],
            &self.value[first_key..],
            self.scale,
            len,
            visible,
        )
    }

    /// Relative L2 error `sqrt(sum |got - exact|^2 / sum |exact|^2)` over [`sampled_heads`] and
    /// `count` [`sampled_rows`]. `visible(head, i, j)` says what the pattern keeps, causality
    /// included; `got(head, i)` is the row to judge. A NaN in it makes the error NaN.
    ///
    /// # Errors
    ///
    /// If `count` is not 1 to `len`, or a row got has not `head_dim` elements.
    pub fn sampled_error(
        &self,
        count: usize,
        visible: impl Fn(usize, usize, usize) -> bool + Sync,
        got: impl Fn(usize, usize) -> Vec<f32> + Sync,
    ) -> Result<f64, InputError> {
        in_range("sampled rows", count, self.shape.len)?;
        let rows = sampled_rows(self.shape.len, count);
        let places: Vec<(usize, usize)> = sampled_heads(self.shape.heads)
            .flat_map(|head| rows.iter().map(move |&i| (head, i)))
            .collect();
        let sums = places
            .into_par_iter()
            .map(|(head, i)| {
                let got = got(head, i);
                elements("row", got.len(), self.shape.head_dim)?;
                let (exact, _) = self.row(head, i, |j| visible(head, i, j));
                let error = exact.iter().zip(&got);
                let error: f64 = error.map(|(e, &g)| (f64::from(g) - e).powi(2)).sum();
                Ok((error, exact.iter().map(|e| e * e).sum()))
            })
            .collect::<Result<Vec<(f64, f64)>, InputError>>()?;
        // In the order of the rows, so that a result is the same every time.
        let (error, exact) = sums
            .iter()
            .fold((0.0, 0.0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
        Ok((error / exact).sqrt())
    }
}

/// `count` rows spread evenly from the first to the last, rounded down.
///
/// The rows are computed in f32 from the nearer end: `step * k` in the lower half and
/// `last - step * (count - 1 - k)` in the upper one. Other programs choose rows so, and an exact
/// quotient would at times differ by one.
#[must_use]
pub fn sampled_rows(len: usize, count: usize) -> Vec<usize> {
    if count < 2 {
        return vec![0; count];
    }
    let last = len.saturating_sub(1) as f32;
    let step = last / (count - 1) as f32;
    (0..count)
        .map(|k| {
            if k < count / 2 {
                (step * k as f32) as usize
            } else {
                (last - step * (count - 1 - k) as f32) as usize
            }
        })
        .collect()
}

/// Every head, or where there are more than seven, at least four at even distances.
pub fn sampled_heads(heads: usize) -> impl Iterator<Item = usize> {
    (0..heads).step_by((heads / 4).max(1))
}

fn elements(what: &'static str, got: usize, expected: usize) -> Result<(), InputError> {
    if got == expected {
        Ok(())
    } else {
        Err(InputError::Elements {
            what,
            got,
            expected,
        })
    }
}

#[cfg(test)]
mod tests;
