//! Rotary positions on the way into the cache: one pass from the product of queries, keys and values to
//! attention's operands.
//!
//! Rotate-half order (Su et al. 2021, in the layout of Hugging Face checkpoints):
//!
//!   y[..h] = x[..h] cos - x[h..] sin
//!   y[h..] = x[h..] cos + x[..h] sin      h = d / 2, angle = position * frequency
//!
//! Scaled variants (Llama 3.1's among them) differ in the frequencies alone.

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, Tensor, TensorData},
};

use crate::{
    attend::{fits, same, types},
    error::AttentionError,
    ops::{self, SparseAttentionOps},
    plan::AttentionPlan,
};

const OP: &str = "rope append";

/// Cosines and sines of the first `positions` positions, `[positions, 2 * frequencies]` in f32: in each
/// row the cosines of all frequencies, then the sines. Angles are f64.
pub fn rotation_table(frequencies: &[f64], positions: usize, device: &Device) -> Tensor<2> {
    let width = 2 * frequencies.len();
    let mut rows = Vec::with_capacity(positions * width);
    for position in 0..positions {
        let angles = frequencies.iter().map(|f| position as f64 * f);
        rows.extend(angles.clone().map(|angle| angle.cos() as f32));
        rows.extend(angles.map(|angle| angle.sin() as f32));
    }
    let data = TensorData::new(rows, [positions, width]);
    Tensor::from_data(data, (device, DType::F32))
}

/// Rotates queries and keys, and writes keys and values into their caches, in place where a cache has
/// no other owner.
///
/// Row `i` of sequence `b` stands at position `kv_len - query_len + i` of its span, which is where its key and value land; it is rotated
/// to that position counted from the sequence's beginning ([`AttentionPlan::firsts`]). Rotation in f32, rounded once; values are moved bit for bit.
///
/// # Shapes
/// `qkv` `[B * N, (Hq + 2 Hk) * d]`, in each row the heads of query, key and value, right-padded to
/// the longest span; `rotation` `[positions, d]` as [`rotation_table`] makes it, `positions` at least
/// the longest sequence; `key`, `value` `[B, Hk, S, d]`. The results are the queries `[B, Hq, N, d]`, in
/// `[B, N, Hq, d]` memory order, padded rows zero, and the two caches, padded rows not written.
///
/// # Errors
/// Shapes, types or devices that do not fit, or a span past a cache's or the table's end.
pub fn rope_append(
    qkv: Tensor<2>,
    rotation: &Tensor<2>,
    key: Tensor<4>,
    value: Tensor<4>,
    plan: &AttentionPlan,
) -> Result<(Tensor<4>, Tensor<4>, Tensor<4>), AttentionError> {
    check(&qkv, rotation, &key, &value, plan)?;
    Ok(unchecked(qkv, rotation, (key, value), plan))
}

/// The checks of [`rope_append`].
pub(crate) fn check(
    qkv: &Tensor<2>,
    rotation: &Tensor<2>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    plan: &AttentionPlan,
) -> Result<(), AttentionError> {
    same(OP, "the value cache's shape", value.dims(), key.dims())?;
    let caches = [key, value].map(|c| (c.dtype(), c.device()));
    check_into(qkv, rotation, key.dims(), caches, plan)
}

/// The same for caches of one shape that take elements of a type.
pub(crate) fn check_into(
    qkv: &Tensor<2>,
    rotation: &Tensor<2>,
    cache: [usize; 4],
    caches: [(DType, Device); 2],
    plan: &AttentionPlan,
) -> Result<(), AttentionError> {
    let [rows, width] = qkv.dims();
    let [batch, kv_heads, capacity, head_dim] = cache;
    let spans = plan.spans();
    same(OP, "the batch of the caches", [batch], [spans.len()])?;
    same(
        OP,
        "the number of rows of query, key and value",
        [rows],
        [batch * plan.rows()],
    )?;
    let setting = |field, got: usize, limit: String, hint| AttentionError::Setting {
        op: OP,
        field,
        got: got.to_string(),
        limit,
        hint,
    };
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        let hint = "rotation turns the two halves of a head; pad the head dimension with zeros";
        return Err(setting("head_dim", head_dim, "even".to_owned(), hint));
    }
    let least = (2 * kv_heads + 1) * head_dim;
    if width < least || !width.is_multiple_of(head_dim) {
        let limit = format!("a multiple of the head dimension {head_dim}, at least {least}");
        let hint = "rows hold the heads of query, key and value side by side";
        return Err(setting("width of a row", width, limit, hint));
    }
    fits(capacity, plan)?;
    let [positions, angles] = rotation.dims();
    same(OP, "the width of the rotation", [angles], [head_dim])?;
    let reached = plan.lens().max().unwrap_or(0);
    if positions < reached {
        let hint = "make a longer table with `rotation_table`";
        let limit = format!("at least {reached}, the longest span");
        return Err(setting("positions of the rotation", positions, limit, hint));
    }
    for (other, _) in &caches {
        if *other != qkv.dtype() {
            return Err(types(OP, qkv.dtype(), *other));
        }
    }
    if rotation.dtype() != DType::F32 {
        return Err(types(OP, DType::F32, rotation.dtype()));
    }
    let heads = plan.heads();
    let query_heads = width / head_dim - 2 * kv_heads;
    same(
        OP,
        "query heads, KV heads and head dim",
        [query_heads, kv_heads, head_dim],
        [heads.query, heads.kv, heads.dim],
    )?;
    let device = qkv.device();
    let devices = caches.map(|(_, device)| device);
    for other in devices.into_iter().chain([rotation.device()]) {
        if other != device {
            return Err(AttentionError::Shape {
                op: OP,
                what: "a device",
                got: format!("{other:?}"),
                expected: format!("{device:?}"),
                hint: "move it with `to_device`",
            });
        }
    }
    ops::check_type(OP, &device, qkv.dtype())
}

/// [`rope_append`] after its checks.
pub(crate) fn unchecked(
    qkv: Tensor<2>,
    rotation: &Tensor<2>,
    (key, value): (Tensor<4>, Tensor<4>),
    plan: &AttentionPlan,
) -> (Tensor<4>, Tensor<4>, Tensor<4>) {
    let (query, key, value) = Dispatch::rope_append(
        qkv.into_dispatch(),
        rotation.clone().into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        plan.table().into_dispatch(),
    );
    (
        Tensor::from_dispatch(query),
        Tensor::from_dispatch(key),
        Tensor::from_dispatch(value),
    )
}
