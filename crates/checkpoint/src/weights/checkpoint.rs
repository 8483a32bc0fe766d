//! The weights of a model directory as one set of names.
//!
//! The contract is that a load accounts for every tensor: [`Weights::take`] gives each name once, [`Weights::finish`] refuses
//! to end while a name is left. So neither a forgotten projection nor a checkpoint of another model goes unseen. Names are those
//! of the Hugging Face classes, whatever a program that saved the files put before them.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Shard, ShardTensor, WeightView, index, names, near};
use crate::config::{EMBEDDING, HEAD};
use crate::{CheckpointError, WeightDtype};

/// File name of weights that lie in one file.
const SINGLE: &str = "model.safetensors";
/// Buffers that some exporters write and that follow from the config.
const HARMLESS_SUFFIX: &str = "rotary_emb.inv_freq";
/// Names listed when a load leaves some over.
const NAMES_SHOWN: usize = 8;

/// The mapped weights of a model directory. The files must not change while this lives.
#[derive(Debug)]
pub struct Weights {
    shards: Vec<Shard>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    shard: usize,
    tensor: usize,
    done: bool,
}

impl Weights {
    /// Maps model.safetensors, or the shards of model.safetensors.index.json.
    pub(crate) fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let single = dir.join(SINGLE);
        let shards = if single.is_file() {
            vec![Shard::open(&single)?]
        } else if let Some(text) = index::read(dir)? {
            index::open_shards(dir, &text)?
        } else {
            return Err(CheckpointError::MissingFile {
                dir: dir.to_path_buf(),
                file: SINGLE,
                hint: "weights are read from it or from the shards of model.safetensors.index.json; pickled (*.bin) weights are \
                       not read, a GGUF file has to be imported first",
            });
        };
        let stored = shards.iter().flat_map(|shard| &shard.tensors);
        let names = names::canonical(stored.map(|tensor| tensor.name.as_str()));
        let places = shards.iter().enumerate().flat_map(|(shard, file)| {
            (0..file.tensors.len()).map(move |tensor| Entry {
                shard,
                tensor,
                done: false,
            })
        });
        let entries = names.into_iter().zip(places).collect();
        Ok(Self { shards, entries })
    }

    /// Makes the embedding table and the output projection one, as a config that ties them says: a file that holds the
    /// projection alone has the table under that name.
    pub(crate) fn tie(&mut self) {
        if !self.entries.contains_key(EMBEDDING)
            && let Some(head) = self.entries.remove(HEAD)
        {
            self.entries.insert(EMBEDDING.to_owned(), head);
        }
    }

    /// Names of all tensors, taken ones included, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Bytes of all tensors, taken ones included.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.shards
            .iter()
            .flat_map(|shard| &shard.tensors)
            .map(|tensor| tensor.range.len() as u64)
            .sum()
    }

    /// Takes the tensor for good, without copying it.
    ///
    /// # Errors
    /// [`CheckpointError::MissingTensor`], [`CheckpointError::TensorTwice`], [`CheckpointError::TensorShape`] when it is not of
    /// `shape` (slowest dimension first), or [`CheckpointError::TensorDtype`] when it is no plain float.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<WeightView<'_>, CheckpointError> {
        let Some(entry) = self.entries.get_mut(name) else {
            let near = near::near(name, self.entries.keys().map(String::as_str));
            return Err(CheckpointError::MissingTensor {
                name: name.to_owned(),
                near,
            });
        };
        if entry.done {
            return Err(CheckpointError::TensorTwice {
                name: name.to_owned(),
            });
        }
        let shard = &self.shards[entry.shard];
        let tensor = &shard.tensors[entry.tensor];
        if tensor.shape != shape {
            return Err(CheckpointError::TensorShape {
                name: name.to_owned(),
                got: tensor.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        let dtype = WeightDtype::from_safetensors(tensor.dtype).ok_or_else(|| {
            CheckpointError::TensorDtype {
                name: name.to_owned(),
                got: tensor.dtype.to_string(),
            }
        })?;
        entry.done = true;
        Ok(WeightView {
            dtype,
            shape: tensor.shape.clone(),
            bytes: shard.bytes(&tensor.range),
        })
    }

    /// Counts a tensor as used. A name that is not there is no error.
    pub fn ignore(&mut self, name: &str) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.done = true;
        }
    }

    /// Ends the load. Names that end in `rotary_emb.inv_freq` are not asked for.
    ///
    /// # Errors
    /// [`CheckpointError::TensorsUnused`] when tensors were neither taken nor ignored.
    pub fn finish(self) -> Result<(), CheckpointError> {
        let left: Vec<String> = self
            .entries
            .into_iter()
            .filter(|(name, entry)| !entry.done && !name.ends_with(HARMLESS_SUFFIX))
            .map(|(name, _)| name)
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        let count = left.len();
        Err(CheckpointError::TensorsUnused {
            names: left.into_iter().take(NAMES_SHOWN).collect(),
            count,
        })
    }

    /// Every tensor as the files have it, sorted by its name there.
    pub(crate) fn stored(&self) -> Vec<&ShardTensor> {
        let mut stored: Vec<_> = self
            .shards
            .iter()
            .flat_map(|shard| &shard.tensors)
            .collect();
        stored.sort_by(|a, b| a.name.cmp(&b.name));
        stored
    }
}
