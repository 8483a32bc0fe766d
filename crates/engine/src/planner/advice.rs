//! Changes of a request that does not fit, so that it does.

use serde::Serialize;
use sparse_accelerate::KvType;

use super::{PlanRequest, longest, plan};
use crate::placement::Split;

/// The smallest chunk that is worth advising: below it a GPU is not kept busy.
const LEAST_CHUNK: usize = 1024;
/// Devices that may be added.
const MOST_ADDED: usize = 8;
/// A shorter context is rounded down to this many tokens.
const ROUND: usize = 1024;

/// One change of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The cache in 8-bit integers.
    Int8Cache,
    /// Chunks of so many tokens.
    Chunk(usize),
    /// Another split.
    Split(Split),
    /// A context of so many tokens.
    Context(usize),
    /// So many more devices of this name.
    Devices {
        /// Number of devices added.
        added: usize,
        /// Name of the last device of the list, which they are like.
        name: String,
    },
}

/// Changes that together make a request fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// The changes.
    pub changes: Vec<Change>,
    /// The request with the changes made, which fits.
    pub request: PlanRequest,
}

/// Finds changes that make a request fit, nearest first: an int8 cache, smaller chunks, another split, these together;
/// then a shorter context, more devices. Everything given back has been planned.
pub fn advise(request: &PlanRequest) -> Vec<Advice> {
    let fits = |changes: &[Change]| {
        let changed = changes.iter().fold(request.clone(), apply);
        plan(&changed).is_ok().then(|| Advice {
            changes: changes.to_vec(),
            request: changed,
        })
    };
    let int8 = (request.footprint.kv != KvType::Int8).then_some(Change::Int8Cache);
    let halves = std::iter::successors(Some(request.chunk / 2), |chunk| Some(chunk / 2));
    let chunks: Vec<_> = halves.take_while(|chunk| *chunk >= LEAST_CHUNK).collect();
    let splits = [Split::Auto, Split::ByMemory];
    let splits = splits.into_iter().filter(|split| *split != request.split);
    let splits: Vec<_> = match request.devices.len() {
        1 => Vec::new(),
        _ => splits.collect(),
    };

    let mut found = Vec::new();
    found.extend(
        int8.iter()
            .find_map(|int8| fits(std::slice::from_ref(int8))),
    );
    found.extend(
        chunks
            .iter()
            .find_map(|chunk| fits(&[Change::Chunk(*chunk)])),
    );
    let split = |split: &Split| fits(&[Change::Split(split.clone())]);
    found.extend(splits.iter().find_map(split));
    if found.is_empty() {
        let all = int8.into_iter();
        let all = all.chain(chunks.last().map(|chunk| Change::Chunk(*chunk)));
        let all: Vec<_> = all
            .chain(splits.first().cloned().map(Change::Split))
            .collect();
        found.extend(fits(&all));
    }
    let short = longest(request).map(|tokens| match tokens / ROUND * ROUND {
        rounded if rounded > request.max_tokens => rounded,
        _ => tokens,
    });
    found.extend(short.and_then(|tokens| fits(&[Change::Context(tokens)])));
    let name = request.devices.last().map(|device| device.name.clone());
    found.extend(name.and_then(|name| {
        (1..=MOST_ADDED).find_map(|added| {
            let name = name.clone();
            fits(&[Change::Devices { added, name }])
        })
    }));
    found
}

fn apply(mut request: PlanRequest, change: &Change) -> PlanRequest {
    match change {
        Change::Int8Cache => request.footprint.kv = KvType::Int8,
        Change::Chunk(tokens) => request.chunk = *tokens,
        Change::Split(split) => request.split = split.clone(),
        Change::Context(tokens) => request.context = *tokens,
        Change::Devices { added, .. } => {
            let last = request.devices.last().cloned();
            let more = last.into_iter().cycle().take(*added);
            request.devices.extend(more);
            // Counts are for the devices there were.
            if let Split::Counts(_) = request.split {
                request.split = Split::Auto;
            }
        }
    }
    request
}
