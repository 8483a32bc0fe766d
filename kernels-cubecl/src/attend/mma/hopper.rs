//! The two products of a step by `wgmma`, which only compute capability 9.0 has: four planes multiply
//! 64 rows at once and read K and V from shared memory themselves, at twice the rate of `mma`.
//!
//! Accumulators and left operands have the layout of `mma` m16n8k16, plane by plane, so softmax and
//! masks are shared. Staged tiles lie in panels of 64 elements (128 bytes) a row with the 128-byte
//! swizzle. Each product is one block of inline PTX that ends with a wait: other cubes on the same
//! multiprocessor compute their softmax meanwhile.

use cubecl::prelude::*;

use super::{
    MmaBlueprint,
    tile::{Fragments, Pair},
};

/// Where the 16-byte vector `vector` of row `row` lies in a staged tile of `rows` rows, in vectors.
#[cube]
pub(super) fn swizzled(row: usize, vector: usize, #[comptime] rows: usize) -> usize {
    vector / 8 * comptime!(rows * 8) + row * 8 + ((vector % 8) ^ (row % 8))
}

/// Makes generic writes to shared memory visible to `wgmma`; a barrier must follow.
#[cube]
pub(super) fn publish() {
    gpu_asm!("fence.proxy.async.shared::cta;");
}

/// High word of a matrix descriptor: groups of 8 rows 1,024 bytes apart, 128-byte swizzle.
const DESCRIPTOR: u32 = (1 << 30) | 64;

/// What every product begins with; `zero` and `add` tell an instruction to ignore or keep what its
/// accumulators hold.
const BEGIN: &str = "{ .reg .pred zero, add; .reg .b64 a, b; .reg .b32 l; \
    setp.ne.b32 zero, 0, 0; setp.eq.b32 add, 0, 0; wgmma.fence.sync.aligned; ";
const END: &str = "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0; }";

/// Scores: `$0` accumulators (out), `$1` and `$2` low descriptor words of Q and K. A depth step is 16
/// elements, 2 vectors; after 4 comes the next panel. Q is not held in registers: a left operand in
/// registers that lives across the loop is overwritten by ptxas 13.0.
fn score_program(bp: &MmaBlueprint) -> String {
    let kind = bp.kind();
    let mut text = String::from(BEGIN);
    for k in 0..bp.depth() {
        let (query, key) = (
            k / 4 * bp.rows() * 8 + k % 4 * 2,
            k / 4 * bp.keys * 8 + k % 4 * 2,
        );
        let keep = if k > 0 { "add" } else { "zero" };
        text += &format!(
            "add.u32 l, $1, {query}; mov.b64 a, {{l, {DESCRIPTOR}}}; \
             add.u32 l, $2, {key}; mov.b64 b, {{l, {DESCRIPTOR}}}; \
             wgmma.mma_async.sync.aligned.m64n{}k16.f32.{kind}.{kind} $0, a, b, {keep}, 1, 1, 0, 0; ",
            bp.keys,
        );
    }
    text + END
}

/// Output: `$0` accumulators (out), `$1..` left fragments, then the low descriptor word of V, then the
/// accumulators going in. A depth step is 16 keys, 16 rows of 8 vectors.
fn weigh_program(bp: &MmaBlueprint) -> String {
    let kind = bp.kind();
    let (steps, registers) = (bp.keys / 16, bp.head_dim / 2);
    let mut text = String::from(BEGIN);
    // Registers are numbered through all operands: out, 4 per fragment, descriptor, in.
    for i in 0..registers {
        text += &format!("mov.b32 %{i}, %{}; ", registers + 4 * steps + 1 + i);
    }
    for t in 0..steps {
        text += &format!(
            "add.u32 l, ${}, {}; mov.b64 b, {{l, {DESCRIPTOR}}}; \
             wgmma.mma_async.sync.aligned.m64n{}k16.f32.{kind}.{kind} $0, ${}, b, add, 1, 1, 1; ",
            steps + 1,
            t * 128,
            bp.head_dim,
            t + 1,
        );
    }
    text + END
}

/// A left fragment as the four registers that it is.
#[cube]
fn registers<E: Float>(a: &Array<Pair<E>>) -> Vector<i32, Const<4>> {
    let mut out = Vector::<u32, Const<4>>::empty();
    #[unroll]
    for i in 0..4usize {
        out.insert(i, u32::reinterpret(a[i]));
    }
    // A value, where inline PTX would take the address of a variable.
    Vector::<i32, Const<4>>::reinterpret(out)
}

/// As [`super::tile::scores`], for the 64 rows of this unit's four planes.
#[cube]
pub(super) fn scores(base: u32, key_at: usize, #[comptime] bp: MmaBlueprint) -> Fragments<f32> {
    let size!(R) = comptime!(bp.keys / 2);
    let query = (base / 16 + UNIT_POS_Y / 4 * 512) | comptime!(1u32 << 16);
    let key = (base / 16 + key_at as u32) | comptime!(1u32 << 16);
    let text = comptime!(score_program(&bp));
    let s: Vector<f32, R>;
    gpu_asm!("{text} /* {s} {q} {k} */", s = out(_) s, q = in(_) query, k = in(_) key);
    let mut out = Sequence::<Array<Pair<f32>>>::new();
    #[unroll]
    for j in 0..comptime!(bp.key_tiles()) {
        let mut a = Array::<Pair<f32>>::new(2usize);
        #[unroll]
        for h in 0..2usize {
            let mut pair = Pair::<f32>::empty();
            pair.insert(0usize, s.extract(comptime!(j * 4 + h * 2)));
            pair.insert(1usize, s.extract(comptime!(j * 4 + h * 2 + 1)));
            a[h] = pair;
        }
        out.push(a);
    }
    out
}

/// As [`super::tile::weigh`].
#[cube]
pub(super) fn weigh<E: Float>(
    base: u32,
    value_at: usize,
    p: &Fragments<E>,
    o: &mut Fragments<f32>,
    #[comptime] bp: MmaBlueprint,
) {
    let size!(R) = comptime!(bp.head_dim / 2);
    let low = (base / 16 + value_at as u32) | comptime!(((bp.keys * 8) as u32) << 16);
    let text = comptime!(weigh_program(&bp));
    let mut before = Vector::<f32, R>::empty();
    #[unroll]
    for n in 0..comptime!(bp.head_dim / 8) {
        let a = o.index(n);
        #[unroll]
        for h in 0..2usize {
            before.insert(comptime!(n * 4 + h * 2), a[h].extract(0usize));
            before.insert(comptime!(n * 4 + h * 2 + 1), a[h].extract(1usize));
        }
    }
    let after: Vector<f32, R>;
    // Four fragments: 64 keys.
    gpu_asm!(
        "{text} /* {o} {a0} {a1} {a2} {a3} {low} {i} */",
        o = out(_) after,
        a0 = in(_) registers(p.index(0usize)), a1 = in(_) registers(p.index(1usize)),
        a2 = in(_) registers(p.index(2usize)), a3 = in(_) registers(p.index(3usize)),
        low = in(_) low, i = in(_) Vector::<u32, R>::reinterpret(before)
    );
    #[unroll]
    for n in 0..comptime!(bp.head_dim / 8) {
        let a = o.index_mut(n);
        #[unroll]
        for h in 0..2usize {
            let mut pair = Pair::<f32>::empty();
            pair.insert(0usize, after.extract(comptime!(n * 4 + h * 2)));
            pair.insert(1usize, after.extract(comptime!(n * 4 + h * 2 + 1)));
            a[h] = pair;
        }
    }
}
