//! Rotary positions, rotate-half order.
//!
//!   y[..h] = x[..h] cos - x[h..] sin
//!   y[h..] = x[h..] cos + x[..h] sin      h = head_dim / 2, angle = position * frequency
//!
//! Angles are f64 on the host, their cosine and sine f32 in a table of `[positions, h]` that grows
//! to the longest cache seen. A chunk slices it when its sequences stand at one offset and gathers
//! rows otherwise. Padded rows of a ragged chunk get some position of the table: nothing reads them.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use sparse_accelerate::Span;

/// Table rows are made this many at a time.
const GRAIN: usize = 1024;

/// The tables of a model, shared by its layers and its clones.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    frequencies: Arc<[f64]>,
    device: Device,
    table: Arc<Mutex<Option<Table>>>,
}

#[derive(Debug, Clone)]
struct Table {
    positions: usize,
    cos: Tensor<2>,
    sin: Tensor<2>,
}

/// Cosine and sine for the rows of one chunk, `[B or 1, N, 1, head_dim / 2]`, f32.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotary {
    pub(crate) fn new(frequencies: &[f64], device: &Device) -> Self {
        Self {
            frequencies: frequencies.into(),
            device: device.clone(),
            table: Arc::default(),
        }
    }

    /// The rotation of a chunk: row `i` of sequence `b` stands at `spans[b].offset() + i`.
    ///
    /// `capacity` is the longest position the caller's cache can reach; the table grows to it at
    /// once rather than at every chunk.
    pub(crate) fn rotation(&self, spans: &[Span], capacity: usize) -> Rotation {
        let rows = spans.iter().map(|span| span.query_len).max().unwrap_or(0);
        let reached = spans.iter().map(|span| span.kv_len).max().unwrap_or(0);
        let table = self.table(reached.max(capacity));
        let offset = spans.first().map_or(0, Span::offset);
        if spans.iter().all(|span| span.offset() == offset) {
            let positions = offset..offset + rows;
            let rows_of = |table: Tensor<2>| {
                let rows = table.slice_dim(0, positions.clone());
                rows.unsqueeze_dims::<4>(&[0, 2])
            };
            return Rotation {
                cos: rows_of(table.cos),
                sin: rows_of(table.sin),
            };
        }
        let last = table.positions - 1;
        let positions: Vec<i32> = spans
            .iter()
            .flat_map(|span| (0..rows).map(|row| (span.offset() + row).min(last) as i32))
            .collect();
        let count = positions.len();
        let positions =
            Tensor::<1, Int>::from_data(TensorData::new(positions, [count]), &self.device);
        let half = self.frequencies.len();
        let gather = |table: Tensor<2>, positions| {
            let rows_of = table.select(0, positions);
            rows_of.reshape([spans.len(), rows, 1, half])
        };
        Rotation {
            cos: gather(table.cos, positions.clone()),
            sin: gather(table.sin, positions),
        }
    }

    /// The table, grown to at least `positions` rows.
    fn table(&self, positions: usize) -> Table {
        let mut held = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some(table) if table.positions >= positions => table.clone(),
            _ => {
                let table = self.build(positions.next_multiple_of(GRAIN));
                held.insert(table).clone()
            }
        }
    }

    fn build(&self, positions: usize) -> Table {
        let half = self.frequencies.len();
        let mut cos = Vec::with_capacity(positions * half);
        let mut sin = Vec::with_capacity(positions * half);
        for position in 0..positions {
            for frequency in self.frequencies.iter() {
                let (s, c) = (position as f64 * frequency).sin_cos();
                cos.push(c as f32);
                sin.push(s as f32);
            }
        }
        let tensor = |values| {
            let data = TensorData::new(values, [positions, half]);
            Tensor::from_data(data, (&self.device, DType::F32))
        };
        Table {
            positions,
            cos: tensor(cos),
            sin: tensor(sin),
        }
    }
}

/// Rotates every head of `[B, N, heads, head_dim]`, in f32, rounded once to the type of `x`.
pub(crate) fn rotate(x: Tensor<4>, rotation: &Rotation) -> Tensor<4> {
    let dtype = x.dtype();
    let dim = x.dims()[3];
    let x = x.cast(DType::F32);
    let first = x.clone().slice_dim(3, 0..dim / 2);
    let second = x.slice_dim(3, dim / 2..dim);
    let (cos, sin) = (&rotation.cos, &rotation.sin);
    let turned_first = first.clone() * cos.clone() - second.clone() * sin.clone();
    let turned_second = second * cos.clone() + first * sin.clone();
    Tensor::cat(vec![turned_first, turned_second], 3).cast(dtype)
}
