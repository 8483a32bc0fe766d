//! One chunk of a ragged batch, checked and padded.
//!
//! Sequences are padded on the right to the longest of the chunk with token 0. A padded row is
//! computed like any other up to attention, which writes zeros for it, and nothing of it reaches the
//! cache or the result.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{blueprint::Blueprint, decoder::LastRows, error::ModelError};

/// The ids of a chunk and where its sequences end.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// New tokens of each sequence.
    pub(crate) lens: Vec<usize>,
    /// New tokens of the longest sequence.
    pub(crate) rows: usize,
    /// Ids padded to `[B * N]`; none where hidden states came in their place.
    ids: Vec<i32>,
}

impl Chunk {
    /// Checks ids and lengths.
    pub(crate) fn new(
        ids: &[&[u32]],
        prompt_lens: &[usize],
        blueprint: &Blueprint,
    ) -> Result<Self, ModelError> {
        let lens: Vec<usize> = ids.iter().map(|sequence| sequence.len()).collect();
        let mut chunk = Self::without_ids(&lens, prompt_lens, blueprint)?;
        let vocab = blueprint.vocab;
        if let Some(&id) = ids
            .iter()
            .copied()
            .flatten()
            .find(|&&id| id as usize >= vocab)
        {
            return Err(ModelError::TokenOutOfRange { id, vocab });
        }
        let mut padded = vec![0; ids.len() * chunk.rows];
        for (sequence, row) in ids.iter().zip(padded.chunks_mut(chunk.rows)) {
            for (&id, slot) in sequence.iter().zip(row) {
                *slot = id as i32;
            }
        }
        chunk.ids = padded;
        Ok(chunk)
    }

    /// A chunk whose hidden states come from the stage before.
    pub(crate) fn without_ids(
        lens: &[usize],
        prompt_lens: &[usize],
        blueprint: &Blueprint,
    ) -> Result<Self, ModelError> {
        if lens.len() != prompt_lens.len() {
            return Err(ModelError::BatchMismatch {
                ids: lens.len(),
                prompt_lens: prompt_lens.len(),
            });
        }
        let rows = lens.iter().copied().max().unwrap_or(0);
        if lens.is_empty() || lens.contains(&0) {
            return Err(ModelError::EmptyInput);
        }
        let limit = blueprint.max_positions;
        if let Some(&got) = prompt_lens.iter().find(|&&len| len > limit) {
            return Err(ModelError::PromptTooLong { got, limit });
        }
        Ok(Self {
            lens: lens.to_vec(),
            rows,
            ids: Vec::new(),
        })
    }

    /// The padded ids, `[B * N]`.
    pub(crate) fn ids(&self, device: &Device) -> Tensor<1, Int> {
        index_tensor(self.ids.clone(), device)
    }

    /// Rows of the only sequence, checked.
    pub(crate) fn range(&self, rows: Range<usize>) -> Result<LastRows, ModelError> {
        match self.lens.as_slice() {
            [len] if rows.start < rows.end && rows.end <= *len => Ok(LastRows::Range(rows)),
            lens => Err(ModelError::RowsOutOfRange {
                start: rows.start,
                end: rows.end,
                lens: lens.to_vec(),
            }),
        }
    }

    /// The last row of each sequence in `[B * N, ..]`.
    pub(crate) fn last_rows(&self, device: &Device) -> LastRows {
        match self.lens.as_slice() {
            _ if self.rows == 1 => LastRows::All,
            [len] => LastRows::One(len - 1),
            lens => {
                let rows = lens.iter().enumerate();
                let rows = rows
                    .map(|(b, len)| (b * self.rows + len - 1) as i32)
                    .collect();
                LastRows::Each(index_tensor(rows, device))
            }
        }
    }
}

fn index_tensor(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
