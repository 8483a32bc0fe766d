//! Moving rows of Q, K and V into shared memory, 16 bytes a unit.

use cubecl::prelude::*;

use super::{MmaBlueprint, VECTOR, hopper};
use crate::table::{KvRows, Place, Step};

/// Copies the cube's query rows to the beginning of shared memory; rows that do not exist are zeros.
#[cube]
pub(crate) fn stage_query<E: Float, N: Size>(
    query: &Tensor<Vector<E, N>>,
    memory: &mut Shared<[Vector<E, N>]>,
    place: &Place,
    #[comptime] bp: MmaBlueprint,
) {
    let units = comptime!(bp.units());
    let vectors = comptime!(bp.vectors());
    let total = comptime!(bp.rows() * bp.vectors());
    let first = place.sequence_at(query);
    #[unroll]
    for i in 0..comptime!(total.div_ceil(units)) {
        let slot = UNIT_POS as usize + i * units;
        let (row, vector) = (slot / vectors, slot % vectors);
        if comptime!((i + 1) * units <= total) || slot < total {
            let packed = place.first_packed + row as u32;
            let token = place.row(packed);
            let mut loaded = Vector::<E, N>::new(E::from_int(0));
            if packed < place.tile_rows && token < place.span.query_len {
                let from = place.row_from(first, query, packed);
                loaded = query[from / comptime!(VECTOR) + vector];
            }
            if comptime!(bp.wgmma()) {
                memory[hopper::swizzled(row, vector, comptime!(bp.rows()), bp)] = loaded;
            } else {
                memory[row * comptime!(bp.pitch()) + vector] = loaded;
            }
        }
    }
}

/// Copies the keys or values of a step's slots to `tile[tile_at..]`; slots past the step's end
/// become zeros, since what lies past a sequence may be anything.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn stage<E: Float, N: Size>(
    from: &Tensor<Vector<E, N>>,
    source: &KvRows,
    tile: &mut Shared<[Vector<E, N>]>,
    base: u32,
    tile_at: usize,
    positions: &Shared<[u32]>,
    positions_at: usize,
    step: &Step,
    #[comptime] bp: MmaBlueprint,
) {
    let unit = UNIT_POS as usize;
    let units = comptime!(bp.units());
    let vectors = comptime!(bp.vectors());
    let total = comptime!(bp.keys * bp.vectors());
    let whole = step.at + u32::cast_from(comptime!(bp.keys)) <= step.end;
    #[unroll]
    for i in 0..comptime!(total.div_ceil(units)) {
        let slot = unit + i * units;
        let (row, vector) = (slot / vectors, slot % vectors);
        if comptime!((i + 1) * units <= total) || slot < total {
            let mut position = step.at + u32::cast_from(row);
            let seen = whole || position < step.end;
            if comptime!(bp.columns) {
                if step.gathered && seen {
                    position = positions[positions_at + row];
                }
            }
            let source = source.first + position as usize * source.stride + vector;
            let mut target = tile_at;
            if comptime!(bp.wgmma()) {
                target += hopper::swizzled(row, vector, comptime!(bp.keys), bp);
            } else {
                target += row * comptime!(bp.pitch()) + vector;
            }
            if comptime!(bp.asynchronous) {
                // Of 0 bytes nothing is read, and zeros are written.
                let bytes = u32::cast_from(seen) * 16;
                copy_16(from, source, base + (target * 16) as u32, bytes);
            } else {
                let mut loaded = Vector::<E, N>::new(E::from_int(0));
                if seen {
                    loaded = from[source];
                }
                tile[target] = loaded;
            }
        }
    }
}

/// Zeros the vector that pads a row to the depth of the matrix instruction, in every staged K row and
/// in Q; copies never touch it.
#[cube]
pub(crate) fn pad<E: Float, N: Size>(
    tile: &mut Shared<[Vector<E, N>]>,
    first: usize,
    #[comptime] rows: usize,
    #[comptime] bp: MmaBlueprint,
) {
    if comptime!(bp.vectors() < bp.padded()) {
        let units = comptime!(bp.units());
        #[unroll]
        for i in 0..comptime!(rows.div_ceil(units)) {
            let row = UNIT_POS as usize + i * units;
            if row < rows {
                tile[first + row * comptime!(bp.pitch()) + comptime!(bp.vectors())] =
                    Vector::new(E::from_int(0));
            }
        }
    }
}

/// Address of `memory[0]` in shared memory, in bytes.
#[cube]
#[allow(unsafe_code)]
pub(crate) fn address<E: Float, N: Size>(memory: &Shared<[Vector<E, N>]>) -> u32 {
    let slice = &memory[0..1];
    // SAFETY: only used for addresses inside the allocation.
    let pointer = unsafe { slice.as_ptr_unchecked() };
    let address: u32;
    gpu_asm!(
        "{{ .reg .u64 t; cvta.to.shared.u64 t, {p}; cvt.u32.u64 {a}, t; }}",
        a = out(_) address, p = in(_) pointer, options(pure, nomem)
    );
    address
}

/// Copies the first `bytes` of the 16-byte vector `from[source]` to an address in shared memory and
/// fills the rest of it with zeros, asynchronously.
#[cube]
pub(crate) fn copy_16<E: Float, N: Size>(
    from: &Tensor<Vector<E, N>>,
    source: usize,
    target: u32,
    bytes: u32,
) {
    copy_vector(&from[source..source + 1], target, bytes);
}

/// The same of the only vector of `from`.
#[cube]
#[allow(unsafe_code)]
pub(crate) fn copy_vector<E: Float, N: Size>(from: &[Vector<E, N>], target: u32, bytes: u32) {
    // SAFETY: what is read lies inside the buffer; an address past it is never read from.
    let pointer = unsafe { from.as_ptr_unchecked() };
    gpu_asm!(
        "cp.async.cg.shared.global [{t}], [{s}], 16, {n};",
        t = in(_) target, s = in(_) pointer, n = in(_) bytes
    );
}

/// Ends this unit's group of asynchronous copies.
#[cube]
pub(crate) fn commit() {
    gpu_asm!("cp.async.commit_group;");
}

/// Waits until all of this unit's copies but those of the newest `newer` groups have landed.
#[cube]
pub(crate) fn wait(#[comptime] newer: u32) {
    gpu_asm!("cp.async.wait_group {newer};");
}

/// Waits until all of the cube's copies but those of the newest `newer` groups have landed, and until
/// every unit has come this far.
#[cube]
pub(crate) fn land(#[comptime] newer: u32, #[comptime] bp: MmaBlueprint) {
    wait(newer);
    if comptime!(bp.wgmma()) {
        hopper::publish();
    }
    sync_cube();
}
