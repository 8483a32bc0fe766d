//! Device tables: spans, index rows, ranges; as the attention kernels read them.

use sparse_accelerate_contract::{
    IndexRow, RANGE_WORDS, Sequence,
    table::{self, Packed},
};
use sparse_accelerate_inputs::BlockMask;

/// The table of one whole prompt with no index.
pub(crate) fn dense(len: usize) -> Vec<u32> {
    table::spans([Sequence::new(len, len)])
}

/// The table of one new token after `len - 1` others, with no index.
pub(crate) fn decode(len: usize) -> Vec<u32> {
    table::spans([Sequence::new(1, len)])
}

/// The table of one whole prompt over a mask's blocks; neighbouring blocks become one range.
pub(crate) fn blocks(len: usize, mask: &BlockMask) -> Vec<u32> {
    let (mut rows, mut ranges) = (Vec::new(), Vec::<u32>::new());
    for head in 0..mask.heads() {
        for row in 0..mask.rows() {
            let first = ranges.len() as u32;
            let last = ((row + 1) * mask.query_block()) as u32;
            let block = mask.key_block() as u32;
            for &column in mask.kept(head, row) {
                let (start, end) = (column * block, ((column + 1) * block).min(last));
                // The row's last range goes on where this block begins.
                let joins = ranges.len() as u32 > first && ranges.last() == Some(&start);
                if joins {
                    ranges.pop();
                    ranges.push(end);
                } else {
                    ranges.extend([start, end]);
                }
            }
            let row = IndexRow {
                ranges_at: first / RANGE_WORDS as u32,
                ranges: (ranges.len() as u32 - first) / RANGE_WORDS as u32,
                ..IndexRow::default()
            };
            rows.extend(row.words());
        }
    }
    let index = Packed {
        rows: &rows,
        ranges: &ranges,
        columns: &[],
    };
    table::write([Sequence::new(len, len)], index, &[])
}
