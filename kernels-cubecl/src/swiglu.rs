//! The gate of a gated MLP.
//!
//! `out[r, i] = silu(x[r, i]) x[r, w + i]`, `silu(g) = g / (1 + exp(-g))`: `x` holds gate and up side by
//! side. In f32, rounded once. The exponential is of `-|g|`, since WGSL leaves open what one that
//! overflows is. One unit makes one vector.

use cubecl::{
    client::Client,
    ir::{AddressType, ElemType},
    prelude::*,
};

use crate::layout;

#[cube(launch_unchecked, address_type = "dynamic")]
fn swiglu_rows<E: Float, N: Size>(
    x: &Tensor<Vector<E, N>>,
    out: &mut [Vector<E, N>],
    total: usize,
    vectors: usize,
    #[comptime] width: usize,
    #[define(E)] _elem: ElemType,
) {
    if ABSOLUTE_POS < total {
        let at = ABSOLUTE_POS / vectors * (x.stride(0) / width) + ABSOLUTE_POS % vectors;
        let gate = Vector::<f32, N>::cast_from(x[at]);
        let up = Vector::<f32, N>::cast_from(x[at + vectors]);
        let mut made = Vector::<f32, N>::empty();
        #[unroll]
        for i in 0..width {
            made.insert(i, silu(gate.extract(i)) * up.extract(i));
        }
        out[ABSOLUTE_POS] = Vector::cast_from(made);
    }
}

#[cube]
fn silu(x: f32) -> f32 {
    let small = (-x.abs()).exp();
    let numerator = select(x < 0.0, small, f32::new(1.0));
    x * numerator / (1.0 + small)
}

/// Launches on `x` `[rows, 2 * width]`, whose rows are contiguous and `stride` elements apart, into a
/// contiguous `out` `[rows, width]`; `shape` is that of `out`.
#[allow(unsafe_code)]
pub fn launch(
    client: &Client,
    shape: [usize; 2],
    stride: usize,
    elem: ElemType,
    address: AddressType,
    x: TensorArg,
    out: BufferArg,
) {
    let width = layout::width(client.properties(), elem, &[shape[1], stride]);
    let vectors = shape[1] / width;
    let total = shape[0] * vectors;
    let (count, dim) = layout::alone(client, total);
    // SAFETY: a unit below `total` reads two vectors of one row and writes one, all inside the shapes.
    unsafe {
        swiglu_rows::launch_unchecked(
            client, count, dim, address, width, x, out, total, vectors, width, elem,
        );
    }
}
