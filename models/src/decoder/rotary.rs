//! The rotation of a model's positions, a table that grows to the longest cache seen.
//!
//! Where frequencies follow the planned length of a sequence, there is a table for each length; those of the two used last are kept.
//!
//! Angle = position * frequency; scaled rotary positions are frequencies of their own, and some of them multiply
//! queries and keys. The table `[positions, head_dim]` holds cosines, then sines; which rows a chunk reads is said
//! by its spans.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Device, Tensor, TensorData};
use sparse_accelerate::rotation_table;
use sparse_accelerate_checkpoint::LayerRotation;

use crate::{
    blueprint::Blueprint,
    rotation::{Angles, Reach, Rotation},
};

/// Table rows are made this many at a time.
const GRAIN: usize = 1024;
/// Tables that are kept: sequences of two lengths may take turns.
const KEPT: usize = 2;

/// The rotations of a model's layers.
#[derive(Debug, Clone)]
pub(crate) struct Rotaries {
    main: Rotary,
    local: Rotary,
    still: Rotary,
}

impl Rotaries {
    pub(crate) fn new(blueprint: &Blueprint, device: &Device) -> Self {
        let rotary = |rotation: &Rotation| Rotary::new(rotation, device);
        Self {
            main: rotary(&blueprint.rotation),
            local: rotary(&blueprint.local_rotation),
            still: rotary(&blueprint.rotation.still()),
        }
    }

    /// The table of layers of one rotation; see [`Rotary::table`].
    pub(crate) fn table(&self, of: LayerRotation, positions: usize, tokens: usize) -> Tensor<2> {
        let rotary = match of {
            LayerRotation::Main => &self.main,
            LayerRotation::Local => &self.local,
            LayerRotation::None => &self.still,
        };
        rotary.table(positions, tokens)
    }
}

/// The tables of one rotation, shared by its layers and the model's clones. None is made before a layer asks.
#[derive(Debug, Clone)]
struct Rotary {
    rotation: Arc<Rotation>,
    device: Device,
    /// The one used last at the end.
    tables: Arc<Mutex<Vec<(Reach, Tensor<2>)>>>,
}

impl Rotary {
    fn new(rotation: &Rotation, device: &Device) -> Self {
        Self {
            rotation: Arc::new(rotation.clone()),
            device: device.clone(),
            tables: Arc::default(),
        }
    }

    /// The table of sequences planned for `tokens`, grown to at least `positions` rows.
    fn table(&self, positions: usize, tokens: usize) -> Tensor<2> {
        let reach = self.rotation.reach(tokens);
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let held = tables.iter().position(|(of, _)| *of == reach);
        let held = held.map(|at| tables.remove(at).1);
        let table = match held {
            Some(table) if table.dims()[0] >= positions => table,
            _ => {
                if tables.len() == KEPT {
                    tables.remove(0);
                }
                self.make(reach, positions.next_multiple_of(GRAIN))
            }
        };
        tables.push((reach, table.clone()));
        table
    }

    fn make(&self, reach: Reach, positions: usize) -> Tensor<2> {
        let Angles {
            frequencies,
            factor,
            rotated,
        } = self.rotation.angles(reach);
        let table = rotation_table(&frequencies, positions, &self.device);
        if factor == 1.0 {
            return table;
        }
        let half = frequencies.len();
        let factors = (0..2 * half).map(|i| match i % half < rotated {
            true => factor as f32,
            false => 1.0,
        });
        let factors = TensorData::new(factors.collect::<Vec<_>>(), [1, 2 * half]);
        table * Tensor::from_data(factors, (&self.device, DType::F32))
    }
}
