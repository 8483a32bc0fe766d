//! Device tables: spans, index rows, ranges; as the attention kernels read them.

use sparse_accelerate_inputs::BlockMask;

/// The table of one whole prompt with no index.
pub(crate) fn dense(len: usize) -> Vec<u32> {
    vec![len as u32, len as u32, u32::MAX, 0]
}

/// The table of one whole prompt over a mask's blocks; neighbouring blocks become one range.
pub(crate) fn blocks(len: usize, mask: &BlockMask) -> Vec<u32> {
    let mut table = dense(len);
    let rows = mask.heads() * mask.rows();
    let mut ranges: Vec<u32> = Vec::new();
    let ranges_at = (table.len() + 4 * rows) as u32;
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
            table.extend([ranges_at + first, (ranges.len() as u32 - first) / 2, 0, 0]);
        }
    }
    table.extend_from_slice(&ranges);
    table
}
