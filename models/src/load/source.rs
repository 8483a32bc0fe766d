//! Sources of weights, and the checkpoint as one.
//!
//! A source is asked once for every tensor of the stage, in the order of the layers, with the shape
//! the configuration implies, and passes over those that it is not asked for in between.

use sparse_accelerate_checkpoint::Weights;

use super::host::HostTensor;
use crate::error::ModelError;

/// Reads named tensors into host memory.
pub(crate) trait WeightSource {
    /// Appends the tensor `name` of `shape` to `into`, in the type of `into`.
    fn read(
        &mut self,
        name: &str,
        shape: &[usize],
        into: &mut HostTensor,
    ) -> Result<(), ModelError>;

    /// Passes over `tensors` that another stage reads.
    fn skip(&mut self, _tensors: u64) {}
}

/// Tensors of a checkpoint.
#[derive(Debug)]
pub(crate) struct Checkpoint<'a> {
    pub(crate) weights: &'a mut Weights,
    pub(crate) check_finite: bool,
    /// Gains of norms are stored less one.
    pub(crate) gains_less_one: bool,
}

impl WeightSource for Checkpoint<'_> {
    fn read(
        &mut self,
        name: &str,
        shape: &[usize],
        into: &mut HostTensor,
    ) -> Result<(), ModelError> {
        let view = self.weights.take(name, shape)?;
        if self.check_finite && view.has_non_finite() {
            return Err(ModelError::NonFiniteWeight {
                tensor: name.to_owned(),
            });
        }
        if view.dtype == into.dtype() && cfg!(target_endian = "little") {
            into.push_bytes(view.bytes);
        } else {
            into.push_f32(&view.to_f32());
        }
        if self.gains_less_one && shape.len() == 1 && !name.ends_with(".bias") {
            into.add_one_to_last(shape[0]);
        }
        Ok(())
    }
}
