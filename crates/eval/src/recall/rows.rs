//! Sampled rows of a layer in a dense pass: which, what attention gives there, and how far two are apart.

use std::collections::BTreeSet;

use burn::tensor::{DType, Int, Tensor, TensorData};
use sparse_accelerate::{AttentionPlan, attend_with_lse};
use sparse_accelerate_models::{LayerView, ModelError};

/// The last rows that are always looked at.
const LAST: usize = 4;

/// Rows that are looked at: `count` spread evenly over a prompt of `length`, the last few among them.
pub(crate) fn sampled_rows(length: usize, count: usize) -> Vec<usize> {
    let last = LAST.min(count).min(length);
    let spread = (count - last) as u64;
    let rows = (0..spread).map(|i| ((2 * i + 1) * length as u64 / (2 * spread)) as usize);
    let rows: BTreeSet<usize> = rows.chain(length - last..length).collect();
    rows.into_iter().collect()
}

/// Attention of some rows on the host: `[heads, rows, dim]` and `[heads, rows]`.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) output: Vec<f32>,
    pub(crate) lse: Vec<f32>,
    /// Rows.
    pub(crate) rows: usize,
    /// Elements of a head.
    dim: usize,
}

impl Outcome {
    /// Rows by plans of their own; `from` is the position of the chunk's first row.
    pub(crate) fn by_row<'p>(
        view: &LayerView<'_>,
        from: usize,
        plans: impl Iterator<Item = (usize, &'p AttentionPlan)>,
    ) -> Result<Self, ModelError> {
        let (keys, values) = (view.cache.key(view.layer)?, view.cache.value(view.layer)?);
        let (mut outputs, mut lses) = (Vec::new(), Vec::new());
        for (at, plan) in plans {
            let query = view.query.clone().slice_dim(2, at - from..at - from + 1);
            let (output, lse) = attend_with_lse(query, &keys, &values, &plan.layer(view.layer)?)?;
            outputs.push(output);
            lses.push(lse);
        }
        Self::read(Tensor::cat(outputs, 2), Tensor::cat(lses, 2))
    }

    /// `rows` of the attention of a whole chunk, counted from its first.
    pub(crate) fn of_chunk(
        output: Tensor<4>,
        lse: Tensor<3>,
        rows: &[usize],
    ) -> Result<Self, ModelError> {
        let ids: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
        let ids = TensorData::new(ids, [rows.len()]);
        let ids = Tensor::<1, Int>::from_data(ids, &output.device());
        Self::read(output.select(2, ids.clone()), lse.select(2, ids))
    }

    /// `[1, heads, rows, dim]` and `[1, heads, rows]`.
    fn read(output: Tensor<4>, lse: Tensor<3>) -> Result<Self, ModelError> {
        let [_, _, rows, dim] = output.dims();
        Ok(Self {
            output: read(output)?,
            lse: read(lse)?,
            rows,
            dim,
        })
    }

    /// Squares of the difference from `dense` and of `dense`, of one row of one head.
    pub(crate) fn apart(&self, dense: &Self, head: usize, row: usize) -> (f64, f64) {
        let at = (head * self.rows + row) * self.dim;
        let pairs = self.output[at..at + self.dim].iter();
        let pairs = pairs.zip(&dense.output[at..at + self.dim]);
        pairs.fold((0.0, 0.0), |(difference, whole), (s, o)| {
            let (s, o) = (f64::from(*s), f64::from(*o));
            (difference + (s - o) * (s - o), whole + o * o)
        })
    }

    /// `LSE - LSE dense` of one row of one head.
    pub(crate) fn lse_apart(&self, dense: &Self, head: usize, row: usize) -> f64 {
        let at = head * self.rows + row;
        f64::from(self.lse[at]) - f64::from(dense.lse[at])
    }
}

fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    let data = tensor.cast(DType::F32).try_into_data().map_err(failed)?;
    data.try_to_vec()
        .map_err(|error| failed(format!("{error:?}")))
}

pub(crate) fn failed(reason: impl ToString) -> ModelError {
    ModelError::Observer {
        reason: reason.to_string(),
    }
}

/// Relative L2 error from the squares of a difference and of what it is relative to.
pub(crate) fn relative(difference: f64, whole: f64) -> f64 {
    match whole > 0.0 {
        true => (difference / whole).sqrt(),
        false => difference.sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn rows_are_spread_and_end_with_the_last() {
        assert_eq!(sampled_rows(100, 8), [12, 37, 62, 87, 96, 97, 98, 99]);
        assert_eq!(sampled_rows(3, 32), [0, 1, 2]);
        assert_eq!(sampled_rows(1000, 2), [998, 999]);
        assert_eq!(sampled_rows(1, 1), [0]);
    }

    #[test]
    fn rows_of_a_chunk_are_those_asked_for() {
        let device = Device::flex();
        let ramp = |count: usize| {
            let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
            Tensor::<1>::from_data(TensorData::new(values, [count]), &device)
        };
        // Two heads of five rows of two elements.
        let output = ramp(20).reshape([1, 2, 5, 2]);
        let lse = ramp(10).reshape([1, 2, 5]);
        let picked = Outcome::of_chunk(output.clone(), lse.clone(), &[1, 4]).unwrap();
        assert_eq!(picked.output, [2.0, 3.0, 8.0, 9.0, 12.0, 13.0, 18.0, 19.0]);
        assert_eq!(picked.lse, [1.0, 4.0, 6.0, 9.0]);
        let moved = Outcome::of_chunk(output + 2.0, lse - 1.0, &[1, 4]).unwrap();
        assert_eq!(moved.apart(&picked, 1, 0), (8.0, 144.0 + 169.0));
        assert_eq!(moved.lse_apart(&picked, 1, 1), -1.0);
        assert_eq!(relative(9.0, 36.0), 0.5);
        assert_eq!(relative(9.0, 0.0), 3.0);
    }
}
