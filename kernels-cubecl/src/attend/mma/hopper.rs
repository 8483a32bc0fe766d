//! The two products of a step by `wgmma`, which only compute capability 9.0 has: four planes multiply
//! 64 rows at once and read K and V from shared memory themselves, at twice the rate of `mma`.
//!
//! Accumulators and left operands have the layout of `mma` m16n8k16, plane by plane, so softmax and
//! masks are shared. Staged tiles lie in panels of 64, 32 or 16 elements a row, the widest that divides
//! the head dimension, with the swizzle of that width. Each product is one block of inline PTX that ends
//! with a wait: other cubes on the same multiprocessor compute their softmax meanwhile.

use cubecl::prelude::*;

use super::{
    MmaBlueprint,
    tile::{Fragments, Pair},
};

/// The place of the 16-byte vector `vector` of row `row` in a staged tile of `rows` rows, in vectors:
/// panel by panel, a vector's place in its row mixed with the row's place in its 1,024, 512 or 256 bytes.
#[cube]
pub(super) fn swizzled(
    row: usize,
    vector: usize,
    #[comptime] rows: usize,
    #[comptime] bp: MmaBlueprint,
) -> usize {
    let panel = comptime!(bp.panel());
    vector / panel * comptime!(rows * panel)
        + row * panel
        + ((vector % panel) ^ (row / comptime!(8 / panel) % panel))
}

/// Makes generic writes to shared memory visible to `wgmma`; a barrier must follow.
#[cube]
pub(super) fn publish() {
    gpu_asm!("fence.proxy.async.shared::cta;");
}

/// High word of a matrix descriptor: vectors from one group of 8 rows to the next, and the swizzle, 1 to 3
/// for 128, 64 and 32 bytes.
fn descriptor(bp: &MmaBlueprint) -> u32 {
    let swizzle = match bp.panel() {
        8 => 1,
        4 => 2,
        _ => 3,
    };
    (swizzle << 30) | (8 * bp.panel() as u32)
}

/// The beginning of every product; `zero` and `add` tell an instruction to ignore or keep what its
/// accumulators hold.
const BEGIN: &str = "{ .reg .pred zero, add; .reg .b64 a, b; .reg .b32 l; \
    setp.ne.b32 zero, 0, 0; setp.eq.b32 add, 0, 0; wgmma.fence.sync.aligned; ";
const END: &str = "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0; }";

/// Scores: `$0` accumulators (out), `$1` and `$2` low descriptor words of Q and K. A depth step is 16
/// elements, 2 vectors; at a panel's end comes the next one. Q is not held in registers: a left operand in
/// registers that lives across the loop is overwritten by ptxas 13.0.
fn score_program(bp: &MmaBlueprint) -> String {
    let (kind, panel, high) = (bp.kind(), bp.panel(), descriptor(bp));
    let mut text = String::from(BEGIN);
    for k in 0..bp.depth() {
        let at = |rows: usize| 2 * k / panel * panel * rows + 2 * k % panel;
        let (query, key) = (at(bp.rows()), at(bp.keys));
        let keep = if k > 0 { "add" } else { "zero" };
        text += &format!(
            "add.u32 l, $1, {query}; mov.b64 a, {{l, {high}}}; \
             add.u32 l, $2, {key}; mov.b64 b, {{l, {high}}}; \
             wgmma.mma_async.sync.aligned.m64n{}k16.f32.{kind}.{kind} $0, a, b, {keep}, 1, 1, 0, 0; ",
            bp.keys,
        );
    }
    text + END
}

/// Elements of the vectors that carry the accumulators in and out: CubeCL has powers of two alone. What
/// no instruction names costs no register.
fn out_width(bp: &MmaBlueprint) -> usize {
    (bp.head_dim / 2).next_power_of_two()
}

/// Output: `$0` accumulators (out), `$1..` left fragments, then the low descriptor word of V, then the
/// accumulators going in. A depth step is 16 keys, 16 rows of a panel.
fn weigh_program(bp: &MmaBlueprint) -> String {
    let (kind, high) = (bp.kind(), descriptor(bp));
    let (steps, width) = (bp.keys / 16, out_width(bp));
    let mut text = String::from(BEGIN);
    // Registers are numbered through all operands: out, 4 per fragment, descriptor, in.
    for i in 0..bp.head_dim / 2 {
        text += &format!("mov.b32 %{i}, %{}; ", width + 4 * steps + 1 + i);
    }
    let out: Vec<String> = (0..bp.head_dim / 2).map(|i| format!("%{i}")).collect();
    let out = out.join(", ");
    for t in 0..steps {
        text += &format!(
            "add.u32 l, ${}, {}; mov.b64 b, {{l, {high}}}; \
             wgmma.mma_async.sync.aligned.m64n{}k16.f32.{kind}.{kind} {{{out}}}, ${}, b, add, 1, 1, 1; ",
            steps + 1,
            t * 16 * bp.panel(),
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
    let query =
        (base / 16 + UNIT_POS_Y / 4 * comptime!((64 * bp.panel()) as u32)) | comptime!(1u32 << 16);
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
    let size!(R) = comptime!(out_width(&bp));
    let low = (base / 16 + value_at as u32) | comptime!(((bp.keys * bp.panel()) as u32) << 16);
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
