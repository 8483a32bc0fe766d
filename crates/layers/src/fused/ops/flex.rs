//! The extension on the CPU: loops over rows on all threads, vectorised for what the processor has;
//! f16 and bf16 are widened row by row.

use burn::{
    backend::Flex,
    tensor::{DType, Shape, bf16, f16},
};
use burn_flex::FlexTensor;
use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;
use sparse_accelerate_cpu::{FlexFloat, Wide, exp, in_f32};

use super::{Activation, FusedOps};

/// Elements of a work item: enough that starting it does not show.
const GRAIN: usize = 1 << 14;
const LANES: usize = 16;
/// `2 sqrt(2 / pi)`.
const GELU_SLOPE: f32 = 1.595_769_2;
/// Factor of the cube in GELU's tanh formula.
const GELU_CUBE: f32 = 0.044_715;
/// GELU is its argument or 0 beyond this magnitude, in f32.
const GELU_REACH: f32 = 16.0;

impl FusedOps for Flex {
    fn rms_norm(x: FlexTensor, gamma: FlexTensor, eps: f32) -> FlexTensor {
        let gamma = gamma.to_contiguous();
        let at = gamma.layout().start_offset();
        let gamma = &gamma.storage::<f32>()[at..at + gamma.layout().num_elements()];
        let width = gamma.len();
        let arch = Arch::new();
        let norm = |from: &[f32], to: &mut [f32]| {
            arch.dispatch(Norm {
                from,
                to,
                gamma,
                eps,
            });
        };
        rows(x, width, norm)
    }

    fn glu(gate_up: FlexTensor, activation: Activation) -> FlexTensor {
        match activation {
            Activation::Silu => gated(gate_up, |gate| gate),
            Activation::GeluTanh => gated(gate_up, |gate| {
                let near = gate.clamp(-GELU_REACH, GELU_REACH);
                GELU_SLOPE * (near + GELU_CUBE * near * near * near)
            }),
        }
    }
}

/// `f` of every row of `x`, in f32; the result has `width` columns.
fn rows(x: FlexTensor, width: usize, f: impl Fn(&[f32], &mut [f32]) + Sync) -> FlexTensor {
    match x.dtype() {
        DType::F32 => rows_of::<f32>(x, width, f),
        DType::F16 => rows_of::<f16>(x, width, f),
        DType::BF16 => rows_of::<bf16>(x, width, f),
        // The public functions check the type; only a direct call of the extension gets here.
        other => panic!("fused: element type {other:?} is not supported"),
    }
}

fn rows_of<E: FlexFloat>(
    x: FlexTensor,
    width: usize,
    f: impl Fn(&[f32], &mut [f32]) + Sync,
) -> FlexTensor {
    let x = match x.layout().strides()[1] == 1 && x.layout().has_positive_strides() {
        true => x,
        false => x.to_contiguous(),
    };
    let (rows, read) = (x.layout().shape()[0], x.layout().shape()[1]);
    let (start, stride) = (x.layout().start_offset(), x.layout().strides()[0] as usize);
    let source: &[E] = x.storage();
    let mut out = FlexTensor::empty(Shape::new([rows, width]), E::dtype());
    out.storage_mut::<E>()
        .par_chunks_mut(width)
        .enumerate()
        .with_min_len((GRAIN / read).max(1))
        .for_each_init(Wide::default, |wide, (row, to)| {
            let at = start + row * stride;
            in_f32(&source[at..at + read], to, wide, &f);
        });
    out
}

struct Norm<'a> {
    from: &'a [f32],
    to: &'a mut [f32],
    gamma: &'a [f32],
    eps: f32,
}

impl NullaryFnOnce for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (body, tail) = self.from.as_chunks::<LANES>();
        let mut lanes = [0.0f32; LANES];
        for chunk in body {
            // Indexed loops over whole chunks become vector instructions.
            for i in 0..LANES {
                lanes[i] += chunk[i] * chunk[i];
            }
        }
        for (lane, x) in lanes.iter_mut().zip(tail) {
            *lane += x * x;
        }
        let mean = lanes.iter().sum::<f32>() / self.from.len() as f32;
        let scale = 1.0 / (mean + self.eps).sqrt();
        let inputs = self.from.iter().zip(self.gamma);
        for (y, (x, gamma)) in self.to.iter_mut().zip(inputs) {
            *y = x * scale * gamma;
        }
    }
}

/// `gate / (1 + e^-reached(gate)) * up` of every row.
fn gated(gate_up: FlexTensor, reached: impl Fn(f32) -> f32 + Copy + Sync) -> FlexTensor {
    let width = gate_up.layout().shape()[1] / 2;
    let arch = Arch::new();
    let gate = |from: &[f32], to: &mut [f32]| arch.dispatch(Gate { from, to, reached });
    rows(gate_up, width, gate)
}

struct Gate<'a, F> {
    from: &'a [f32],
    to: &'a mut [f32],
    reached: F,
}

impl<F: Fn(f32) -> f32> NullaryFnOnce for Gate<'_, F> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (gate, up) = self.from.split_at(self.from.len() / 2);
        let (to, to_tail) = self.to.as_chunks_mut::<LANES>();
        let (gates, gate_tail) = gate.as_chunks::<LANES>();
        let (ups, up_tail) = up.as_chunks::<LANES>();
        for ((to, gate), up) in to.iter_mut().zip(gates).zip(ups) {
            #[allow(clippy::needless_range_loop)]
            for i in 0..LANES {
                to[i] = weighed(gate[i], (self.reached)(gate[i])) * up[i];
            }
        }
        for ((to, gate), up) in to_tail.iter_mut().zip(gate_tail).zip(up_tail) {
            *to = weighed(*gate, (self.reached)(*gate)) * up;
        }
    }
}

/// `x / (1 + e^-t)`, by an exponential that cannot overflow.
#[inline(always)]
fn weighed(x: f32, t: f32) -> f32 {
    let small = exp(-t.abs());
    let numerator = if t < 0.0 { small } else { 1.0 };
    x * numerator / (1.0 + small)
}
