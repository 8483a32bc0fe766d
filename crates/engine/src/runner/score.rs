//! Log-likelihoods of tokens, from the hidden states of the rows before them.
//!
//! Logits are made a few rows at a time, widened to f32 and reduced to one number a row on the device, so
//! `[rows, vocab]` is never whole.

use burn::tensor::{DType, Int, Tensor, TensorData};
use sparse_accelerate_models::CausalLm;

use crate::error::EngineError;

/// Logits on the device at a time, elements: 64 MiB in f32.
const LOGITS: usize = 1 << 24;

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
