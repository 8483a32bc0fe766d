//! Where the parts of a device-built index lie in its table.

use super::{BLOCK, SelectOptions};
use crate::index::{QUERY_TILE, RANGE_ALIGN};

/// Words of the table: spans, rows, gates, then ranges and columns with room for every row.
pub(crate) fn table_words(batch: usize, rows: usize, options: &SelectOptions) -> usize {
    let index_rows = batch * options.index_heads * rows.div_ceil(QUERY_TILE);
    let granules = options.keys.div_ceil(RANGE_ALIGN);
    let runs = granules.div_ceil(2) + 1;
    let ranges = runs.min(2 * options.keys.div_ceil(BLOCK) + options.slashes + 4);
    4 * batch
        + 4 * index_rows
        + batch * options.index_heads
        + index_rows * (2 * ranges + options.columns)
}
