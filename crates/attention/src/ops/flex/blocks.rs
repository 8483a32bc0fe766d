//! Cutting a row of the index into key blocks for matrix products.

/// Largest number of keys per block: scores of a block stay in the second-level cache.
pub(super) const KEY_BLOCK: usize = 256;

/// Ranges at least this long are multiplied where they lie; shorter ones are gathered together, so
/// that no matrix product is tiny.
const DIRECT: usize = 128;

/// The keys of one block, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keys {
    /// Consecutive positions, read in place.
    Direct { start: usize, len: usize },
    /// Positions to be copied together first.
    Gathered(Vec<u32>),
}

/// One block, and whether the index's band applies to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) keys: Keys,
    pub(super) banded: bool,
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        match self {
            Keys::Direct { len, .. } => *len,
            Keys::Gathered(list) => list.len(),
        }
    }

    /// Number of keys at positions below `bound`.
    pub(super) fn below(&self, bound: usize) -> usize {
        match self {
            Keys::Direct { start, len } => bound.saturating_sub(*start).min(*len),
            Keys::Gathered(list) => list.partition_point(|&p| (p as usize) < bound),
        }
    }
}

/// Blocks of a row: its ranges, clipped to `end`, then its columns.
pub(super) fn blocks(ranges: &[u32], columns: &[u32], end: usize, banded: bool) -> Vec<Block> {
    let mut out = Vec::new();
    let mut pending: Vec<u32> = Vec::new();
    let flush = |pending: &mut Vec<u32>, banded, out: &mut Vec<Block>| {
        if !pending.is_empty() {
            let keys = Keys::Gathered(std::mem::take(pending));
            out.push(Block { keys, banded });
        }
    };
    for range in ranges.chunks_exact(2) {
        let (mut start, stop) = (range[0] as usize, (range[1] as usize).min(end));
        while start < stop {
            let len = (stop - start).min(KEY_BLOCK);
            if len >= DIRECT {
                let keys = Keys::Direct { start, len };
                out.push(Block { keys, banded });
                start += len;
                continue;
            }
            let room = len.min(KEY_BLOCK - pending.len());
            pending.extend(start as u32..(start + room) as u32);
            start += room;
            if pending.len() == KEY_BLOCK {
                flush(&mut pending, banded, &mut out);
            }
        }
    }
    flush(&mut pending, banded, &mut out);
    for chunk in columns.chunks(KEY_BLOCK) {
        let keys = Keys::Gathered(chunk.to_vec());
        out.push(Block {
            keys,
            banded: false,
        });
    }
    out
}
