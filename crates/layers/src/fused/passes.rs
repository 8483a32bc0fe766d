//! The checked entries.

use burn::{
    backend::Dispatch,
    tensor::{DType, Tensor},
};

use super::{
    error::FusedError,
    ops::{self, Activation, FusedOps},
};

/// Most rows of one call: on a GPU each is a cube of the grid.
const MOST_ROWS: usize = u32::MAX as usize;

/// Root-mean-square norm of rows (Zhang and Sennrich 2019): `x / sqrt(mean(x^2) + eps) * gamma`.
///
/// The pass computes in f32 and rounds once to the type of `x`. A NaN stays in its row.
///
/// # Shapes
/// `x` `[rows, width]` of f32, f16 or bf16; `gamma` `[width]` of f32; result `[rows, width]` of the type
/// of `x`, contiguous.
///
/// # Errors
/// Shapes, types or devices that do not fit, an `eps` below 0, a type the device does not compute in.
pub fn rms_norm(x: Tensor<2>, gamma: &Tensor<1>, eps: f64) -> Result<Tensor<2>, FusedError> {
    let op = "rms_norm";
    let width = check(op, &x)?;
    if gamma.dims() != [width] {
        return Err(FusedError::Shape {
            op,
            what: "the length of gamma",
            got: gamma.dims()[0],
            limit: format!("the width of x, {width}"),
        });
    }
    if gamma.dtype() != DType::F32 {
        return Err(FusedError::DType {
            op,
            what: "gamma",
            got: gamma.dtype(),
            limit: "F32",
        });
    }
    if !eps.is_finite() || eps < 0.0 {
        return Err(FusedError::Epsilon { got: eps });
    }
    let (device, gamma_device) = (x.device(), gamma.device());
    if device != gamma_device {
        return Err(FusedError::Device {
            x: format!("{device:?}"),
            gamma: format!("{gamma_device:?}"),
        });
    }
    let gamma = gamma.clone().into_dispatch();
    let normed = Dispatch::rms_norm(x.into_dispatch(), gamma, eps as f32);
    Ok(Tensor::from_dispatch(normed))
}

/// The gate of a gated MLP (Shazeer 2020): `silu(gate) * up`, `silu(g) = g / (1 + exp(-g))`.
///
/// The pass computes in f32 and rounds once to the type of `gate_up`.
///
/// # Shapes
/// `gate_up` `[rows, 2 * width]` of f32, f16 or bf16, in each row gate, then up; result `[rows, width]`
/// of the same type, contiguous.
///
/// # Errors
/// An odd number of columns, an empty tensor, a type the device does not compute in.
pub fn swiglu(gate_up: Tensor<2>) -> Result<Tensor<2>, FusedError> {
    glu("swiglu", gate_up, Activation::Silu)
}

/// The same with GELU by its tanh formula: `gelu(gate) * up`,
/// `gelu(g) = g / 2 (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3)))`.
///
/// # Shapes
/// As [`swiglu`].
///
/// # Errors
/// As [`swiglu`].
pub fn geglu(gate_up: Tensor<2>) -> Result<Tensor<2>, FusedError> {
    glu("geglu", gate_up, Activation::GeluTanh)
}

fn glu(
    op: &'static str,
    gate_up: Tensor<2>,
    activation: Activation,
) -> Result<Tensor<2>, FusedError> {
    let width = check(op, &gate_up)?;
    if !width.is_multiple_of(2) {
        return Err(FusedError::Shape {
            op,
            what: "the width of gate and up",
            got: width,
            limit: "even: gate and up side by side".to_owned(),
        });
    }
    let gated = Dispatch::glu(gate_up.into_dispatch(), activation);
    Ok(Tensor::from_dispatch(gated))
}

/// The width of an operand that is neither empty nor of a type that is not computed in.
fn check(op: &'static str, x: &Tensor<2>) -> Result<usize, FusedError> {
    let [rows, width] = x.dims();
    for (what, got, most) in [
        ("the number of rows", rows, MOST_ROWS),
        ("the width of a row", width, usize::MAX),
    ] {
        if got == 0 || got > most {
            let limit = format!("1 to {most}");
            return Err(FusedError::Shape {
                op,
                what,
                got,
                limit,
            });
        }
    }
    if !matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16) {
        return Err(FusedError::DType {
            op,
            what: "the input",
            got: x.dtype(),
            limit: "F32, F16 or BF16",
        });
    }
    ops::check_type(op, &x.device(), x.dtype())?;
    Ok(width)
}
