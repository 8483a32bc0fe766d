//! Whole tensors, made row by row in parallel. No row depends on another.

use half::bf16;
use half::slice::HalfBitsSliceExt;
use half::vec::HalfBitsVecExt;
use rayon::prelude::*;

use crate::error::InputError;
use crate::shape::{Family, HEAD_DIM, Shape};
use crate::structured::{Keys, Queries};
use crate::tables::Noise;

/// Streams of the noise.
pub(crate) const QUERY: u32 = 0;
pub(crate) const KEY: u32 = 1;
const VALUE: u32 = 2;
/// Offset of the random stream for a row's elements from 128 on.
const BEYOND: u32 = 8;

/// Queries, `[heads, len, head_dim]`.
///
/// # Errors
///
/// If the shape is outside the limits of [`Shape`] or of the family.
pub fn query(seed: u32, family: Family, shape: Shape) -> Result<Vec<bf16>, InputError> {
    shape.check_for(family)?;
    Ok(match family {
        Family::Random => noise(seed, QUERY, shape.heads, shape),
        Family::Structured => {
            let rows = Queries::new(seed, shape);
            fill(shape.heads, shape, |h, s, out| rows.row(h, s, out))
        }
    })
}

/// Keys, `[kv_heads, len, head_dim]`.
///
/// # Errors
///
/// As [`query`].
pub fn key(seed: u32, family: Family, shape: Shape) -> Result<Vec<bf16>, InputError> {
    shape.check_for(family)?;
    Ok(match family {
        Family::Random => noise(seed, KEY, shape.kv_heads, shape),
        Family::Structured => {
            let rows = Keys::new(seed);
            fill(shape.kv_heads, shape, |h, s, out| rows.row(h, s, out))
        }
    })
}

/// Values, `[kv_heads, len, head_dim]`; the same in both families.
///
/// # Errors
///
/// As [`query`].
pub fn value(seed: u32, family: Family, shape: Shape) -> Result<Vec<bf16>, InputError> {
    shape.check_for(family)?;
    Ok(noise(seed, VALUE, shape.kv_heads, shape))
}

fn noise(seed: u32, stream: u32, heads: usize, shape: Shape) -> Vec<bf16> {
    let [low, high] = [0, BEYOND].map(|more| Noise::new(seed, stream + more));
    fill(heads, shape, |h, s, out| {
        let (first, rest) = out.split_at_mut(shape.head_dim.min(HEAD_DIM));
        low.row(h, s, first);
        high.row(h, s, rest);
    })
}

/// Calls `row(head, position, out)` for every row.
fn fill(heads: usize, shape: Shape, row: impl Fn(usize, usize, &mut [bf16]) + Sync) -> Vec<bf16> {
    // Zeroed integers come from the allocator untouched: pages are first written in parallel.
    let mut bits = vec![0_u16; shape.elements(heads)];
    bits.par_chunks_exact_mut(shape.head_dim)
        .enumerate()
        .for_each(|(index, out)| {
            row(
                index / shape.len,
                index % shape.len,
                out.reinterpret_cast_mut(),
            );
        });
    bits.reinterpret_into()
}
