//! model.safetensors.index.json: which shard holds which tensor.
//!
//! Shard names must be plain file names beside the index, so that an index cannot reach outside its directory. Map and shards
//! must agree both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::Shard;
use crate::{CheckpointError, IndexError, files};

/// File name of the index.
pub(super) const INDEX: &str = "model.safetensors.index.json";
const MAX_SHARDS: usize = 4096;

/// Opens every shard that the index text names and checks map and shards against each other.
pub(super) fn open_shards(dir: &Path, text: &str) -> Result<Vec<Shard>, CheckpointError> {
    let path = dir.join(INDEX);
    let fault = |source| CheckpointError::Index {
        path: path.clone(),
        source,
    };
    let index: Index = serde_json::from_str(text).map_err(|source| CheckpointError::Json {
        path: path.clone(),
        source,
    })?;
    let map = weight_map(index).map_err(fault)?;
    let names: BTreeSet<&str> = map.values().map(String::as_str).collect();
    if names.len() > MAX_SHARDS {
        return Err(fault(IndexError::TooManyShards {
            got: names.len(),
            limit: MAX_SHARDS,
        }));
    }
    if let Some(name) = names.iter().find(|name| !is_plain(name)) {
        return Err(fault(IndexError::ShardName {
            shard: (*name).to_owned(),
        }));
    }

    let mut shards = Vec::with_capacity(names.len());
    for name in names {
        let file = dir.join(name);
        if !file.is_file() {
            return Err(fault(IndexError::MissingShard {
                shard: name.to_owned(),
            }));
        }
        let shard = Shard::open(&file)?;
        if let Some(stray) = shard
            .tensors
            .iter()
            .find(|tensor| map.get(&tensor.name).is_none_or(|at| at != name))
        {
            return Err(fault(IndexError::NotInMap {
                name: stray.name.clone(),
                shard: name.to_owned(),
            }));
        }
        let held: BTreeSet<&str> = shard
            .tensors
            .iter()
            .map(|tensor| tensor.name.as_str())
            .collect();
        if let Some((absent, _)) = map
            .iter()
            .find(|(tensor, at)| *at == name && !held.contains(tensor.as_str()))
        {
            return Err(fault(IndexError::NotInShard {
                name: absent.clone(),
                shard: name.to_owned(),
            }));
        }
        shards.push(shard);
    }
    Ok(shards)
}

fn weight_map(index: Index) -> Result<BTreeMap<String, String>, IndexError> {
    let Some(Entries(entries)) = index.weight_map else {
        return Err(IndexError::WeightMap {
            reason: "absent".to_owned(),
        });
    };
    let mut map = BTreeMap::new();
    for (name, shard) in entries {
        if map.insert(name.clone(), shard).is_some() {
            return Err(IndexError::DuplicateName { name });
        }
    }
    if map.is_empty() {
        Err(IndexError::WeightMap {
            reason: "empty".to_owned(),
        })
    } else {
        Ok(map)
    }
}

fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let single = matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    );
    single && name.ends_with(".safetensors") && !name.contains(['/', '\\', ':', '\0'])
}

#[derive(Deserialize)]
struct Index {
    weight_map: Option<Entries>,
}

/// A JSON object of strings in file order, duplicates kept.
struct Entries(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensor name to file name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Reads the index of a directory, if it has one.
pub(super) fn read(dir: &Path) -> Result<Option<String>, CheckpointError> {
    files::read_optional(&dir.join(INDEX), files::LARGE_FILE)
}
