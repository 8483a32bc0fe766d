//! Appending to a cache on the CPU: row copies into the tensor's own storage.

use burn_flex::FlexTensor;

use sparse_accelerate_contract::{SPAN_WORDS, Sequence};
use sparse_accelerate_cpu::FlexFloat;

use crate::diagnostics;

pub(super) fn append<E: FlexFloat>(
    mut cache: FlexTensor,
    new: FlexTensor,
    table: FlexTensor,
) -> FlexTensor {
    if !cache.is_unique() {
        diagnostics::count_append_copy();
    }
    if !cache.is_contiguous() {
        cache = cache.to_contiguous();
    }
    let (to, to_offset) = (
        cache.layout().strides().to_vec(),
        cache.layout().start_offset(),
    );
    let (from, from_offset) = (new.layout().strides().to_vec(), new.layout().start_offset());
    let shape = new.layout().shape();
    let [batch, heads, head_dim] = [shape[0], shape[1], shape[3]];
    let spans: &[u32] = &table.storage()[..batch * SPAN_WORDS];
    let source: &[E] = new.storage();
    let target: &mut [E] = cache.storage_mut();

    for b in 0..batch {
        let sequence = Sequence::of(spans, b);
        let (query_len, kv_len) = (sequence.query_len, sequence.kv_len);
        for h in 0..heads {
            for i in 0..query_len {
                let at =
                    |s: &[isize], row| b as isize * s[0] + h as isize * s[1] + row as isize * s[2];
                let t = to_offset + at(&to, kv_len - query_len + i) as usize;
                let f = from_offset as isize + at(&from, i);
                let row = &mut target[t..t + head_dim];
                if from[3] == 1 {
                    row.copy_from_slice(&source[f as usize..f as usize + head_dim]);
                } else {
                    for (d, x) in row.iter_mut().enumerate() {
                        *x = source[(f + d as isize * from[3]) as usize];
                    }
                }
            }
        }
    }
    cache
}
