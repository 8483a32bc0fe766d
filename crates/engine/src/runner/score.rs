//! Log-likelihoods of tokens and divergences of their distributions, from the hidden states of the rows before them.
//!
//! Logits are made a few rows at a time, widened to f32 and reduced to one number a row on the device, so
//! `[rows, vocab]` is never whole.

use burn::tensor::{DType, Int, Tensor, TensorData, activation::log_softmax};
use sparse_accelerate_models::CausalLm;

use crate::error::EngineError;

/// Logits on the device at a time, elements: 64 MiB in f32.
const LOGITS: usize = 1 << 24;

/// Hidden states of the rows that predict a text's scored tokens, kept on the device: `scored * hidden` elements.
#[derive(Debug, Clone, Default)]
pub struct States(Vec<Tensor<2>>);

/// Next-token distributions of a run beside those of a reference, token by token.
#[derive(Debug, Clone, PartialEq)]
pub struct Divergence {
    /// Kullback-Leibler divergence from the reference, nats: `sum_v p(v) ln(p(v) / q(v))`, `p` the reference.
    pub kl: Vec<f32>,
    /// Both name the same token first.
    pub top1: Vec<bool>,
}

impl States {
    pub(crate) fn extend(&mut self, rows: Option<Tensor<2>>) {
        self.0.extend(rows);
    }

    fn rows(&self) -> usize {
        self.0.iter().map(|rows| rows.dims()[0]).sum()
    }

    /// All rows, `[scored, hidden]`.
    fn whole(&self) -> Tensor<2> {
        Tensor::cat(self.0.clone(), 0)
    }
}

/// Compares the distributions that follow from two runs' states, row by row.
///
/// # Errors
/// [`EngineError::Execution`] for runs of different numbers of rows, and failures of the device.
pub(super) fn diverge(
    model: &CausalLm,
    reference: &States,
    other: &States,
) -> Result<Divergence, EngineError> {
    let rows = reference.rows();
    if rows != other.rows() || rows == 0 {
        let got = format!(
            "{rows} scored rows cannot be compared with {}: score the same text with the same number of tokens",
            other.rows()
        );
        return Err(EngineError::execution("divergence", got));
    }
    let (mut kl, mut top1) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let both = [reference.whole(), other.whole()];
    let at_once = (LOGITS / model.config().vocab_size.max(1)).max(1);
    for at in (0..rows).step_by(at_once) {
        let end = (at + at_once).min(rows);
        let log = |hidden: &Tensor<2>| -> Result<Tensor<2>, EngineError> {
            let logits = model.logits(hidden.clone().slice_dim(0, at..end))?;
            Ok(log_softmax(logits.cast(DType::F32), 1))
        };
        let (p, q) = (log(&both[0])?, log(&both[1])?);
        let same = p.clone().argmax(1).equal(q.clone().argmax(1));
        let sum = (p.clone().exp() * (p - q)).sum_dim(1);
        let failed = |e: String| EngineError::execution("divergence", e);
        let data = sum.try_into_data().map_err(|e| failed(e.to_string()))?;
        // Rounding may leave a little below nothing.
        let values = data.try_to_vec::<f32>();
        let values = values.map_err(|e| failed(format!("{e:?}")))?;
        kl.extend(values.iter().map(|x| if *x < 0.0 { 0.0 } else { *x }));
        let data = same.int().try_into_data();
        let data = data.map_err(|e| failed(e.to_string()))?.convert::<i64>();
        let values = data.try_to_vec::<i64>();
        top1.extend(
            values
                .map_err(|e| failed(format!("{e:?}")))?
                .iter()
                .map(|x| *x == 1),
        );
    }
    Ok(Divergence { kl, top1 })
}

/// Gives the negative log-likelihood of each target, nats: row `i` of `hidden` `[n, hidden]` predicts
/// `targets[i]`.
pub(super) fn negative_log_likelihoods(
    model: &CausalLm,
    hidden: Tensor<2>,
    targets: &[u32],
) -> Result<Vec<f32>, EngineError> {
    let mut nll = Vec::with_capacity(targets.len());
    let rows = (LOGITS / model.config().vocab_size.max(1)).max(1);
    for (index, targets) in targets.chunks(rows).enumerate() {
        let at = index * rows;
        let hidden = hidden.clone().slice_dim(0, at..at + targets.len());
        let logits = model.logits(hidden)?.cast(DType::F32);
        let ids: Vec<i32> = targets.iter().map(|id| *id as i32).collect();
        let ids = TensorData::new(ids, [targets.len(), 1]);
        let ids = Tensor::<2, Int>::from_data(ids, model.device());
        let chosen = logits.clone().gather(1, ids);
        // log sum exp(l - chosen), its largest term taken out: no difference of large sums.
        let top = logits.clone().max_dim(1);
        let sum = (logits - top.clone()).exp().sum_dim(1).log();
        let data = (sum + top - chosen)
            .try_into_data()
            .map_err(|e| EngineError::execution("score", e))?;
        let values: Vec<f32> = data
            .try_to_vec()
            .map_err(|e| EngineError::execution("score", format!("{e:?}")))?;
        nll.extend(values);
    }
    Ok(nll)
}
