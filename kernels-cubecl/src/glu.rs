//! The gate of a gated MLP.
//!
//! `out[r, i] = act(x[r, i]) x[r, w + i]`: `x` holds gate and up side by side. With the logistic function
//! `s(t) = 1 / (1 + exp(-t))`, `act(g) = g s(g)` (SiLU) or `g s(2 sqrt(2 / pi) (g + 0.044715 g^3))`, which is GELU by its
//! tanh formula. In f32, rounded once. The exponential is of `-|t|`, and GELU's `t` is that of `g` within +-16, since WGSL leaves
//! open what an overflow is. One unit makes one vector.

use cubecl::{
    client::Client,
    ir::{AddressType, ElemType},
    prelude::*,
};

use crate::layout;

/// The function of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `g / (1 + exp(-g))`: SwiGLU.
    Silu,
    /// GELU by its tanh formula: GeGLU.
    GeluTanh,
}

/// `2 sqrt(2 / pi)`.
pub const GELU_SLOPE: f32 = 1.595_769_2;
/// Factor of the cube in GELU's tanh formula.
pub const GELU_CUBE: f32 = 0.044_715;
/// GELU is its argument or 0 beyond this magnitude, in f32.
pub const GELU_REACH: f32 = 16.0;

#[cube(launch_unchecked, address_type = "dynamic")]
fn glu_rows<E: Float, N: Size>(
    x: &Tensor<Vector<E, N>>,
    out: &mut [Vector<E, N>],
    total: usize,
    vectors: usize,
    #[comptime] width: usize,
    #[comptime] activation: Activation,
    #[define(E)] _elem: ElemType,
) {
    if ABSOLUTE_POS < total {
        let at = ABSOLUTE_POS / vectors * (x.stride(0) / width) + ABSOLUTE_POS % vectors;
        let gate = Vector::<f32, N>::cast_from(x[at]);
        let up = Vector::<f32, N>::cast_from(x[at + vectors]);
        let mut made = Vector::<f32, N>::empty();
        #[unroll]
        for i in 0..width {
            let gate = gate.extract(i);
            let mut reached = gate;
            if comptime!(activation == Activation::GeluTanh) {
                let near = clamp(gate, -GELU_REACH, GELU_REACH);
                reached = GELU_SLOPE * (near + GELU_CUBE * near * near * near);
            }
            made.insert(i, weighed(gate, reached) * up.extract(i));
        }
        out[ABSOLUTE_POS] = Vector::cast_from(made);
    }
}

/// `x s(t)`.
#[cube]
fn weighed(x: f32, t: f32) -> f32 {
    let small = (-t.abs()).exp();
    let numerator = select(t < 0.0, small, f32::new(1.0));
    x * numerator / (1.0 + small)
}

/// Launches on `x` `[rows, 2 * width]`, whose rows are contiguous and `stride` elements apart, into a
/// contiguous `out` `[rows, width]`; `shape` is that of `out`.
#[allow(unsafe_code, clippy::too_many_arguments)]
pub fn launch(
    client: &Client,
    activation: Activation,
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
        glu_rows::launch_unchecked(
            client, count, dim, address, width, x, out, total, vectors, width, activation, elem,
        );
    }
}
