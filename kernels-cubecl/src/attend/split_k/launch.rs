//! Launches the two kernels of the tier.

use cubecl::{client::Client, ir::ElemType, prelude::*};

use super::{SplitKBlueprint, kernel::attend_split, merge::merge_splits};
use crate::{
    attend::{
        Plan, Problem, Tensors,
        launch::{call, limits},
        plan::fold,
    },
    int8::WORD,
};

/// Runs a plan of this tier: partial outputs, then their merge.
///
/// # Panics
/// Without the scratch buffer that the plan asks for, or without the scales of bytes.
#[allow(unsafe_code)]
pub(in crate::attend) fn launch(
    client: &Client,
    problem: &Problem,
    plan: &Plan,
    bp: SplitKBlueprint,
    elem: ElemType,
    tensors: Tensors,
) {
    let Some(scratch) = tensors.scratch else {
        panic!("attend: this plan needs {} floats of scratch", plan.scratch);
    };
    // SAFETY: `prepare` sized the scratch.
    let scratch = || unsafe { BufferArg::from_raw_parts(scratch.clone(), plan.scratch) };
    let stored = if bp.words || bp.int8 { WORD } else { elem };
    assert_eq!(
        bp.int8,
        tensors.scales.is_some(),
        "attend: bytes have scales"
    );
    // SAFETY: keys and values are read below each sequence's length, which the caller checked against
    // their shape.
    unsafe {
        attend_split::launch_unchecked(
            client,
            CubeCount::Static(plan.grid.0, plan.grid.1, 1),
            CubeDim::new_1d(bp.units() as u32),
            tensors.address,
            bp.width,
            bp.stored_width(),
            tensors.query,
            tensors.key,
            tensors.value,
            tensors.scales.into(),
            tensors.table,
            scratch(),
            call(problem, plan),
            limits(problem),
            bp,
            elem,
            stored,
        );
    }
    let rows = problem.batch * problem.heads * problem.rows;
    let (x, y) = fold(rows, client.properties()).unwrap_or((rows as u32, 1));
    // SAFETY: a cube per row of the output, whose strides are the tensor's own.
    unsafe {
        merge_splits::launch_unchecked(
            client,
            CubeCount::Static(x, y, 1),
            CubeDim::new_2d((bp.head_dim / 4) as u32, bp.slots() as u32),
            tensors.address,
            scratch(),
            tensors.out,
            tensors.lse,
            call(problem, plan),
            tensors.with_lse,
            bp,
            elem,
        );
    }
}
