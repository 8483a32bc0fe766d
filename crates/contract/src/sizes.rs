//! Sizes in tokens.

/// Query rows of an index row. One tile of 64 serves every kernel tier, which may split it.
pub const QUERY_TILE: usize = 64;
/// Alignment of range starts, so that vector loads of a tile stay aligned.
pub const RANGE_ALIGN: usize = 16;
/// Key block and query block of a selection.
pub const BLOCK: usize = 128;
/// Granule of a selection: its ranges are whole granules, its slashes are as many offsets wide.
pub const GRANULE: usize = RANGE_ALIGN;
/// Fewest new rows of a chunk that selects. Shorter chunks are dense.
pub const LEAST_ROWS: usize = BLOCK;
/// Probe rows of a sequence, in two groups: its last rows, and rows spread over the chunk.
pub const PROBES: usize = 128;
/// Probe rows of a group.
pub const PROBE_GROUP: usize = PROBES / 2;
