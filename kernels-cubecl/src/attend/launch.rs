//! Hands a checked plan and its buffers to the kernel of its tier.

use cubecl::{
    client::Client,
    ir::{AddressType, ElemType},
    prelude::*,
    server::Handle,
};

use super::{
    Plan, Problem, Tier,
    cmma::attend_cmma,
    mma::{VECTOR, attend_mma},
    split_k,
    unit::attend_unit,
};
use crate::table::{CallLaunch, LimitsLaunch};

/// The buffers of one call. `query`, `key`, `value` and `out` share one element type, have a
/// contiguous last dimension and strides that are multiples of 8 (4 are enough for [`Tier::Unit`]).
#[allow(missing_debug_implementations)] // CubeCL's arguments have none
pub struct Tensors {
    /// `[B, Hq, N, d]`.
    pub query: TensorArg,
    /// `[B, Hk, S, d]`, or words of bytes `[B, Hk, S, d / 4]`.
    pub key: TensorArg,
    /// As `key`.
    pub value: TensorArg,
    /// The scales `[B, Hk, 2, S]` of keys and values that are int8.
    pub scales: Option<TensorArg>,
    /// `u32`: spans, index rows, gates if there are any, ranges, columns in one table.
    pub table: BufferArg,
    /// `[B, Hq, N, d]`, written everywhere.
    pub out: TensorArg,
    /// `[B, Hq, N]` f32 log-sum-exp, contiguous, or any one f32 when not wanted.
    pub lse: BufferArg,
    /// `lse` is written.
    pub with_lse: bool,
    /// At least [`Plan::scratch`] floats, if the plan needs any.
    pub scratch: Option<Handle>,
    /// Index width that reaches every element of the largest buffer.
    pub address: AddressType,
}

/// Runs a plan made by [`super::prepare`] for the same problem.
///
/// # Panics
/// Without the scratch that the plan needs, or without the scales of bytes.
pub fn launch(client: &Client, problem: &Problem, plan: &Plan, elem: ElemType, tensors: Tensors) {
    let count = CubeCount::Static(plan.grid.0, plan.grid.1, 1);
    // One list of arguments for every tier: they differ in cube, vector width and blueprint.
    macro_rules! run {
        ($kernel:path, $dim:expr, [$($width:expr)?], $blueprint:expr) => {
            $kernel(
                client,
                count,
                $dim,
                tensors.address,
                $($width,)?
                tensors.query,
                tensors.key,
                tensors.value,
                tensors.table,
                tensors.out,
                tensors.lse,
                call(problem, plan),
                limits(problem),
                tensors.with_lse,
                $blueprint,
                elem,
            )
        };
    }
    match plan.tier {
        Tier::Mma(blueprint) => {
            let dim = CubeDim::new_2d(32, blueprint.planes as u32);
            // SAFETY: every index of the kernel follows from the problem that the plan was checked for
            // and from an index whose invariants were.
            #[allow(unsafe_code)]
            unsafe {
                run!(attend_mma::launch_unchecked, dim, [VECTOR], blueprint)
            }
        }
        Tier::Cmma(blueprint) => {
            let dim = CubeDim::new_2d(blueprint.plane as u32, blueprint.planes as u32);
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe {
                run!(
                    attend_cmma::launch_unchecked,
                    dim,
                    [blueprint.width],
                    blueprint
                )
            }
        }
        Tier::SplitK(blueprint) => {
            split_k::launch(client, problem, plan, blueprint, elem, tensors);
        }
        Tier::Unit(blueprint) => {
            let dim = CubeDim::new_2d(blueprint.units_x() as u32, blueprint.units_y as u32);
            run!(attend_unit::launch, dim, [], blueprint)
        }
    }
}

/// The scalars of a call.
pub(super) fn call(problem: &Problem, plan: &Plan) -> CallLaunch {
    CallLaunch::new(
        problem.batch as u32,
        (problem.heads / problem.packed_heads()) as u32,
        problem.packed_heads() as u32,
        problem.heads_per_kv() as u32,
        problem.rows as u32,
        plan.tiles as u32,
        plan.splits as u32,
        problem.index_heads().unwrap_or(1) as u32,
        problem.scale,
    )
}

/// The scalars of its rule of visibility.
pub(super) fn limits(problem: &Problem) -> LimitsLaunch {
    let (sink, band) = problem.index.and_then(|i| i.band).unwrap_or((0, 0));
    LimitsLaunch::new(sink, band, problem.window().into())
}
