//! The opening of a kernel: what every cube of a call is told, and which rows this one works on.
//!
//! A cube owns *packed* rows of one query tile of one sequence: packed row `r` of a tile is query head
//! `group * packed_heads + r % packed_heads` at tile position `r / packed_heads`, so that the heads which
//! share a KV head share every key that is loaded. Neighbouring cubes split a tile's packed rows.
//!
//! *Gates* say which of two launches serves a head. A selection on the device may find that a head is
//! better off dense. The host does not know, so it launches both kernels, the sparse one over the table's
//! rows and the dense one; each serves the heads whose gate says so, and the cubes of the others leave
//! before they write anything.

// A comptime condition is an `if` of its own: it decides what is compiled.
#![allow(clippy::collapsible_if)]

use cubecl::prelude::*;
use sparse_accelerate_contract::{
    QUERY_TILE, ROW_WORDS, SPAN_WORDS,
    table::{DENSE, SPARSE},
};

use super::{Span, gate_at};

/// The scalars of a call, the same for every cube.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(crate) struct Call {
    /// Sequences.
    pub(crate) batch: u32,
    /// Groups of query heads that are packed into the rows of one cube.
    pub(crate) groups: u32,
    /// Query heads of a group: `heads_per_kv`, or 1 where the index tells a group's heads apart.
    pub(crate) packed_heads: u32,
    /// Query heads that share a KV head.
    pub(crate) heads_per_kv: u32,
    /// Query rows of the longest sequence.
    pub(crate) rows: u32,
    /// Query tiles per sequence.
    pub(crate) tiles: u32,
    /// Cubes that split one tile of one group, by its rows or by its keys.
    pub(crate) splits: u32,
    /// Index heads.
    pub(crate) index_heads: u32,
    /// Softmax scale.
    pub(crate) scale: f32,
}

/// The heads that a launch serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Serves {
    /// All of them; there may be no gates.
    All,
    /// Those whose gate is 0, over an index.
    Sparse,
    /// Those whose gate is 1, without one.
    Dense,
}

impl Serves {
    /// Gives the heads of a launch over an index or without one.
    pub(crate) fn of(gated: bool, indexed: bool) -> Self {
        match (gated, indexed) {
            (false, _) => Self::All,
            (true, true) => Self::Sparse,
            (true, false) => Self::Dense,
        }
    }
}

/// The part of a blueprint that places its cubes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tiling {
    /// Packed rows of a cube.
    pub(crate) rows: usize,
    /// Query positions per tile.
    pub(crate) tile_tokens: usize,
    /// The heads it serves.
    pub(crate) serves: Serves,
}

/// The rows of a cube.
#[derive(CubeType)]
pub(crate) struct Place {
    /// The scalars that every cube is told.
    pub(crate) call: Call,
    /// Sequence.
    pub(crate) b: u32,
    /// Group of query heads.
    pub(crate) group: u32,
    /// Which of the cubes that split the tile.
    pub(crate) split: u32,
    /// KV head of the group.
    pub(crate) kv_head: u32,
    /// The group's index head among those of all sequences.
    pub(crate) index_head: u32,
    /// The sequence's span.
    pub(crate) span: Span,
    /// Absolute position of the sequence's first query row.
    pub(crate) offset: u32,
    /// Query tile.
    pub(crate) tile: u32,
    /// The tile's first query row.
    pub(crate) tile_first: u32,
    /// Packed rows of the tile.
    pub(crate) tile_rows: u32,
    /// The cube's first packed row.
    pub(crate) first_packed: u32,
}

#[cube]
impl Place {
    /// Places a cube of a kernel that walks query tiles. Cubes past the last one, and of heads that the
    /// launch does not serve, end here.
    pub(crate) fn new(table: &[u32], call: Call, #[comptime] tiling: Tiling) -> Place {
        let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
        if cube >= call.batch * call.groups * call.tiles * call.splits {
            terminate!();
        }
        let split = cube % call.splits;
        // The last tiles, which see most, come first.
        let tile = call.tiles - 1 - (cube / call.splits) % call.tiles;
        let group = (cube / (call.splits * call.tiles)) % call.groups;
        let b = cube / (call.splits * call.tiles * call.groups);
        let index_head = index_head(&call, b, group);
        if comptime!(tiling.serves != Serves::All) {
            if gate(table, &call, index_head, tiling) != comptime!(wanted(tiling)) {
                terminate!();
            }
        }
        let kv_head = group * call.packed_heads / call.heads_per_kv;
        let span = Span::of(table, b);
        let offset = span.offset();
        let tile_rows = comptime!(tiling.tile_tokens as u32) * call.packed_heads;
        Place {
            call,
            b,
            group,
            split,
            kv_head,
            index_head,
            span,
            offset,
            tile,
            tile_first: tile * comptime!(tiling.tile_tokens as u32),
            tile_rows,
            first_packed: split * comptime!(tiling.rows as u32),
        }
    }

    /// Places a cube of a kernel whose cubes own all rows of a sequence and split its keys. Cubes past the
    /// last one end here.
    pub(crate) fn of_split_keys(table: &[u32], call: Call) -> Place {
        let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
        if cube >= call.batch * call.groups * call.splits {
            terminate!();
        }
        let split = cube % call.splits;
        let group = (cube / call.splits) % call.groups;
        let b = cube / (call.splits * call.groups);
        let index_head = index_head(&call, b, group);
        let kv_head = group * call.packed_heads / call.heads_per_kv;
        let span = Span::of(table, b);
        let offset = span.offset();
        let tile_rows = call.rows * call.packed_heads;
        Place {
            call,
            b,
            group,
            split,
            kv_head,
            index_head,
            span,
            offset,
            tile: 0u32.runtime(),
            tile_first: 0u32.runtime(),
            tile_rows,
            first_packed: 0u32.runtime(),
        }
    }

    /// Gives the query row of a packed row of the tile.
    pub(crate) fn row(&self, packed: u32) -> u32 {
        self.tile_first + packed / self.call.packed_heads
    }

    /// Gives the query head of a packed row of the tile.
    pub(crate) fn head(&self, packed: u32) -> u32 {
        self.group * self.call.packed_heads + packed % self.call.packed_heads
    }

    /// Gives the absolute position of the cube's first row.
    pub(crate) fn first_position(&self) -> u32 {
        self.offset + self.row(self.first_packed)
    }

    /// Gives the position past the cube's last row, and so past the keys that any of its rows sees.
    pub(crate) fn end_position(&self, #[comptime] rows: usize) -> u32 {
        let last = min(self.first_packed + comptime!(rows as u32), self.tile_rows) - 1;
        self.offset + min(self.row(last) + 1, self.span.query_len)
    }

    /// Tells whether the cube has a row of the sequence; other cubes write what padding is.
    pub(crate) fn has_rows(&self) -> bool {
        self.row(self.first_packed) < self.span.query_len
    }

    /// Gives the word of the table at which the tile's index row begins.
    pub(crate) fn index_row(&self) -> u32 {
        let row = self.index_head * self.call.tiles + self.tile;
        self.call.batch * comptime!(SPAN_WORDS as u32) + row * comptime!(ROW_WORDS as u32)
    }

    /// Gives the sequence's first element in `[B, Hq, N, d]`.
    pub(crate) fn sequence_at<T: CubePrimitive>(&self, tensor: &Tensor<T>) -> usize {
        self.b as usize * tensor.stride(0)
    }

    /// Gives the first element of a packed row in `[B, Hq, N, d]`, whose sequence begins at `first`.
    pub(crate) fn row_from<T: CubePrimitive>(
        &self,
        first: usize,
        tensor: &Tensor<T>,
        packed: u32,
    ) -> usize {
        first
            + self.head(packed) as usize * tensor.stride(1)
            + self.row(packed) as usize * tensor.stride(2)
    }

    /// Gives the first element of a packed row in `[B, Hq, N, d]`.
    pub(crate) fn row_at<T: CubePrimitive>(&self, tensor: &Tensor<T>, packed: u32) -> usize {
        self.row_from(self.sequence_at(tensor), tensor, packed)
    }

    /// Gives the first element of the KV head's rows in `[B, Hk, S, d]`.
    pub(crate) fn kv_at<T: CubePrimitive>(&self, tensor: &Tensor<T>) -> usize {
        self.b as usize * tensor.stride(0) + self.kv_head as usize * tensor.stride(1)
    }

    /// Gives the place of a packed row in `[B, Hq, N]`, contiguous.
    pub(crate) fn lse_at(&self, packed: u32) -> usize {
        let heads = self.call.groups * self.call.packed_heads;
        ((self.b * heads + self.head(packed)) * self.call.rows + self.row(packed)) as usize
    }
}

/// The rows of the cube's KV head in a cache: first vector, vectors from row to row.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct KvRows {
    pub(crate) first: usize,
    pub(crate) stride: usize,
}

#[cube]
impl KvRows {
    /// Finds the rows of keys or values that are read in vectors of `width` of the tensor's elements.
    pub(crate) fn new<T: CubePrimitive>(
        from: &Tensor<T>,
        place: &Place,
        #[comptime] width: usize,
    ) -> KvRows {
        KvRows {
            first: place.kv_at(from) / width,
            stride: from.stride(2) / width,
        }
    }
}

/// The group's index head among those of all sequences.
#[cube]
fn index_head(call: &Call, b: u32, group: u32) -> u32 {
    b * call.index_heads + group * call.index_heads / call.groups
}

/// The gate of an index head. Gates follow the table's rows; where there is no index, the rows are still
/// counted, in tiles of [`QUERY_TILE`].
#[cube]
fn gate(table: &[u32], call: &Call, index_head: u32, #[comptime] tiling: Tiling) -> u32 {
    let tiles = if comptime!(tiling.serves == Serves::Sparse) {
        call.tiles
    } else {
        call.rows.div_ceil(comptime!(QUERY_TILE as u32))
    };
    let rows = call.batch * call.index_heads * tiles;
    table[gate_at(call.batch, rows, index_head)]
}

/// The gate of the heads that a launch serves.
fn wanted(tiling: Tiling) -> u32 {
    match tiling.serves {
        Serves::Dense => DENSE,
        Serves::All | Serves::Sparse => SPARSE,
    }
}
