//! Where the parts of a device-built index stand: `u32` words, spans first, as the attention kernels
//! read them. Row words hold absolute offsets into the table, so the fixed strides of ranges and columns
//! concern its builder alone.

use super::{GRANULE, ListLayout, Shape};

/// Offsets in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TableLayout {
    /// `[B * Hi * tiles, 4]`: first range, ranges, first column, columns.
    pub rows_at: usize,
    /// `[B * Hi]`: 1 where the head is dense.
    pub gates_at: usize,
    /// `[B * Hi * tiles, range_stride]`: pairs of start and end.
    pub ranges_at: usize,
    /// Words of a row's ranges.
    pub range_stride: usize,
    /// `[B * Hi * tiles, column_stride]`.
    pub columns_at: usize,
    /// Words of a row's columns.
    pub column_stride: usize,
    /// Words in all.
    pub words: usize,
}

impl TableLayout {
    /// The layout for a shape. The runs of a row are at most its slashes, every other key block, sinks
    /// and window, and never more than every other granule.
    pub fn new(shape: &Shape, lists: &ListLayout) -> Self {
        let heads = shape.batch * shape.index_heads;
        let rows = heads * shape.tiles();
        let runs = (shape.key_blocks().div_ceil(2) + lists.slashes + 2)
            .min(shape.keys.div_ceil(GRANULE).div_ceil(2));
        let rows_at = 4 * shape.batch;
        let gates_at = rows_at + 4 * rows;
        let ranges_at = gates_at + heads;
        let range_stride = 2 * runs;
        let columns_at = ranges_at + rows * range_stride;
        Self {
            rows_at,
            gates_at,
            ranges_at,
            range_stride,
            columns_at,
            column_stride: lists.columns,
            words: columns_at + rows * lists.columns,
        }
    }
}
