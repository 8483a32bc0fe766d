//! Which problems share a measurement: the key, and the classes in it.
//!
//! Lengths fall into powers of two, density into bands; whatever changes the kernel is in the key as it
//! is. The device is not in it: the table of measurements has that beside the key.

use std::fmt;

use cubecl::ir::ElemType;

use super::Work;
use crate::attend::{Plan, Problem, Tier};

/// A number up to a power of two: 1, 2, 3 to 4, 5 to 8, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(u32);

impl Class {
    /// The class of a number; 0 counts as 1.
    pub fn of(n: u64) -> Self {
        Self(match n {
            0 | 1 => 0,
            _ => (n - 1).ilog2() + 1,
        })
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<= {}", 1u128 << self.0)
    }
}

/// The share of the causal pairs that an index keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Density {
    /// The index was built on the device; the host has not read it.
    Unknown,
    /// At most 1 / 16.
    Sixteenth,
    /// At most 1 / 8.
    Eighth,
    /// At most 1 / 4.
    Quarter,
    /// At most 1 / 2.
    Half,
    /// More than 1 / 2; dense too.
    Most,
}

impl Density {
    /// The band of a share from 0 to 1.
    pub fn of(share: Option<f32>) -> Self {
        let bands = [
            (1.0 / 16.0, Self::Sixteenth),
            (1.0 / 8.0, Self::Eighth),
            (1.0 / 4.0, Self::Quarter),
            (1.0 / 2.0, Self::Half),
        ];
        match share {
            None => Self::Unknown,
            Some(share) => bands
                .into_iter()
                .find(|(most, _)| share <= *most)
                .map_or(Self::Most, |(_, band)| band),
        }
    }
}

impl fmt::Display for Density {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Sixteenth => "<= 1/16",
            Self::Eighth => "<= 1/8",
            Self::Quarter => "<= 1/4",
            Self::Half => "<= 1/2",
            Self::Most => "> 1/2",
        })
    }
}

/// The problems that one measurement answers for, on one device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Element type of queries, keys and values.
    pub elem: ElemType,
    /// Head dimension.
    pub head_dim: usize,
    /// Query heads packed into the rows of one cube.
    pub packed_heads: usize,
    /// Packed groups of heads of all sequences: how many cubes there are beside the rows.
    pub groups: Class,
    /// Query rows of the longest sequence.
    pub rows: Class,
    /// Keys that a row may see, averaged over the rows: half of a whole prompt without a window. Not the length
    /// of the cache, which says nothing of how far it is filled.
    pub keys: Class,
    /// Share of them that the index keeps.
    pub density: Density,
    /// Query positions per row of the index; `None` for dense.
    pub tile_tokens: Option<usize>,
    /// The index may have columns.
    pub columns: bool,
    /// Triangular's element rule applies.
    pub banded: bool,
    /// Keys of the window that rows see; `None` for all up to their own.
    pub window: Option<Class>,
    /// The tiers to choose from, in the static order: problems of one class can differ in what fits them.
    pub tiers: Vec<Tier>,
}

impl Key {
    /// The key of a call that could run under `plans`.
    pub fn new(problem: &Problem, elem: ElemType, work: &Work, plans: &[Plan]) -> Self {
        let (packed_heads, index) = (problem.packed_heads(), problem.index);
        let rows = (problem.batch * problem.rows).max(1) as u64;
        Self {
            elem,
            head_dim: problem.head_dim,
            packed_heads,
            groups: Class::of((problem.batch * problem.heads / packed_heads) as u64),
            rows: Class::of(problem.rows as u64),
            keys: Class::of(work.causal_pairs / rows),
            density: Density::of(work.density),
            tile_tokens: index.map(|i| i.tile_tokens),
            columns: index.is_some_and(|i| i.columns),
            banded: index.is_some_and(|i| i.band.is_some()),
            window: problem.window().map(|keys| Class::of(u64::from(keys))),
            tiers: plans.iter().map(|plan| plan.tier).collect(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, head_dim {}, packed heads {}, groups {}, rows {}, keys {}, ",
            self.elem, self.head_dim, self.packed_heads, self.groups, self.rows, self.keys
        )?;
        if let Some(window) = self.window {
            write!(f, "window {window}, ")?;
        }
        match self.tile_tokens {
            None => write!(f, "dense"),
            Some(tokens) => write!(
                f,
                "index of {tokens} rows, density {}{}{}",
                self.density,
                if self.columns { ", columns" } else { "" },
                if self.banded { ", band" } else { "" },
            ),
        }
    }
}

#[cfg(test)]
mod tests;
