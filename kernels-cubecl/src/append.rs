//! Writing new keys or values into a cache, in place.
//!
//! `cache[b, h, kv_len - query_len + i] = new[b, h, i]` for the `query_len` rows of each sequence;
//! nothing else of the cache is touched. One unit copies one vector of 4 elements.

use cubecl::{
    client::Client,
    ir::{AddressType, ElemType},
    prelude::*,
};

type Vec4<E> = Vector<E, Const<4>>;

#[cube(launch, address_type = "dynamic")]
fn append_rows<E: Numeric>(
    cache: &mut Tensor<Vec4<E>>,
    new: &Tensor<Vec4<E>>,
    table: &[u32],
    total: usize,
    heads: usize,
    rows: usize,
    vectors: usize,
    #[define(E)] _elem: ElemType,
) {
    if ABSOLUTE_POS < total {
        let vector = ABSOLUTE_POS % vectors;
        let row = (ABSOLUTE_POS / vectors) % rows;
        let head = (ABSOLUTE_POS / (vectors * rows)) % heads;
        let b = ABSOLUTE_POS / (vectors * rows * heads);
        let q_len = table[b * 4] as usize;
        let kv_len = table[b * 4 + 1] as usize;
        if row < q_len {
            let to = b * cache.stride(0)
                + head * cache.stride(1)
                + (kv_len - q_len + row) * cache.stride(2);
            let from = b * new.stride(0) + head * new.stride(1) + row * new.stride(2);
            cache[to / 4 + vector] = new[from / 4 + vector];
        }
    }
}

/// Launches the copy of `new` `[B, H, N, d]` into `cache` `[B, H, S, d]`; both have a contiguous last
/// dimension and strides that are multiples of 4. `shape` is that of `new`; `table` begins with the
/// spans `[B, 4]`.
pub fn launch(
    client: &Client,
    shape: [usize; 4],
    elem: ElemType,
    address: AddressType,
    cache: TensorArg,
    new: TensorArg,
    table: BufferArg,
) {
    let vectors = shape[3] / 4;
    let total = shape[0] * shape[1] * shape[2] * vectors;
    let dim = CubeDim::new(client, total);
    append_rows::launch(
        client,
        cubecl::calculate_cube_count_elemwise(client, total, dim),
        dim,
        address,
        cache,
        new,
        table,
        total,
        shape[1],
        shape[2],
        vectors,
        elem,
    );
}
