//! The rotation of a model's positions, a table that grows to the longest cache seen.
//!
//! Angle = position * frequency; scaled rotary positions are frequencies of their own, and some of them multiply
//! queries and keys. The table `[positions, head_dim]` holds cosines, then sines; which rows a chunk reads is said
//! by its spans.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor};
use sparse_accelerate::rotation_table;

use crate::rotation::Rotation;

/// Table rows are made this many at a time.
const GRAIN: usize = 1024;

/// The table of a model, shared by its layers and its clones.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    rotation: Arc<Rotation>,
    device: Device,
    table: Arc<Mutex<Option<Tensor<2>>>>,
}

impl Rotary {
    pub(crate) fn new(rotation: &Rotation, device: &Device) -> Self {
        Self {
            rotation: Arc::new(rotation.clone()),
            device: device.clone(),
            table: Arc::default(),
        }
    }

    /// The table, grown to at least `positions` rows.
    pub(crate) fn table(&self, positions: usize) -> Tensor<2> {
        let mut held = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some(table) if table.dims()[0] >= positions => table.clone(),
            _ => {
                let positions = positions.next_multiple_of(GRAIN);
                let Rotation {
                    frequencies,
                    factor,
                } = &*self.rotation;
                let mut table = rotation_table(frequencies, positions, &self.device);
                if *factor != 1.0 {
                    table = table * *factor as f32;
                }
                held.insert(table).clone()
            }
        }
    }
}
