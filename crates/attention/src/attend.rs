//! The calls a model makes: attention over a plan, and appending keys and values to a cache.
//!
//! All shape and type checks stand here, before any launch.

use burn::{
    backend::Dispatch,
    tensor::{DType, Tensor},
};

use crate::{
    error::AttentionError,
    layer_plan::LayerPlan,
    ops::{self, SparseAttentionOps, Stored},
    plan::AttentionPlan,
    select::attend_selected_checked,
};

/// Smallest, largest and step of supported head dimensions.
pub const HEAD_DIMS: (usize, usize, usize) = (32, 256, 8);

/// Attention of new query rows over cached keys and values.
///
/// `out[b,h,i] = softmax_j(q[b,h,i] . k[b,h/g,j] / sqrt(d)) v[b,h/g,j]` over the keys `j` that the
/// plan lets row `i` see (renormalised over those), `g = Hq / Hk`. Softmax and sums run in f32.
///
/// # Shapes
/// `query` `[B, Hq, N, d]`, right-padded to the longest span; `key`, `value` `[B, Hk, S, d]` with
/// `S >= kv_len` of every span, read through their strides (a longer cache is not copied); result
/// `[B, Hq, N, d]` of the query's type, in `[B, N, Hq, d]` memory order, so that
/// `swap_dims(1, 2).reshape([B, N, Hq * d])` is free. Padded rows are zeros.
///
/// `layer` is the plan as the layer uses it, `&plan.layer(n)?`. Where its heads choose their keys this is
/// [`crate::attend_selected`] without its record, all keys pooled anew; a [`crate::KvCache`] keeps them.
///
/// # Errors
/// Shapes, types or a device that the operation does not support, or that are not the plan's.
pub fn attend(
    query: Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    layer: &LayerPlan<'_>,
) -> Result<Tensor<4>, AttentionError> {
    check(&query, key, value, layer.plan())?;
    if layer.selects() {
        return Ok(attend_selected_checked(query, key, value, None, layer)?.output);
    }
    let options = ops::prepare(&query, key.dims(), Stored::Elements, layer.plan())?;
    Ok(Tensor::from_dispatch(Dispatch::attend(
        query.into_dispatch(),
        key.clone().into_dispatch(),
        value.clone().into_dispatch(),
        layer.plan().table().into_dispatch(),
        options,
    )))
}

/// Attends as [`attend`] and also gives the natural logarithm of each row's softmax denominator: over the
/// keys that the row sees, and what a selection's correction adds for those it leaves out.
///
/// # Shapes
/// As [`attend`]; the second result is `[B, Hq, N]` in f32, `-inf` for padded rows.
///
/// # Errors
/// As [`attend`].
pub fn attend_with_lse(
    query: Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    layer: &LayerPlan<'_>,
) -> Result<(Tensor<4>, Tensor<3>), AttentionError> {
    check(&query, key, value, layer.plan())?;
    if layer.selects() {
        let selected = attend_selected_checked(query, key, value, None, layer)?;
        return Ok((selected.output, selected.lse));
    }
    attend_with_lse_checked(query, key, value, layer.plan())
}

/// [`attend_with_lse`] without a selection, after the check of its shapes.
pub(crate) fn attend_with_lse_checked(
    query: Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    plan: &AttentionPlan,
) -> Result<(Tensor<4>, Tensor<3>), AttentionError> {
    let options = ops::prepare(&query, key.dims(), Stored::Elements, plan)?;
    let (out, lse) = Dispatch::attend_with_lse(
        query.into_dispatch(),
        key.clone().into_dispatch(),
        value.clone().into_dispatch(),
        plan.table().into_dispatch(),
        options,
    );
    Ok((Tensor::from_dispatch(out), Tensor::from_dispatch(lse)))
}

/// Writes the new rows of every sequence into its cache, in place when `cache` is the only owner.
///
/// Row `i` of sequence `b` lands at `kv_len - query_len + i`; padded rows are not written.
///
/// # Shapes
/// `cache` `[B, Hk, S, d]`, `new` `[B, Hk, N, d]`, both of one type; the result is the cache.
///
/// # Errors
/// Shapes or types that differ, or a span past the cache's end.
pub fn append_kv(
    cache: Tensor<4>,
    new: Tensor<4>,
    plan: &AttentionPlan,
) -> Result<Tensor<4>, AttentionError> {
    check_append(&cache, &new, plan)?;
    Ok(append_unchecked(cache, new, plan))
}

/// The checks of [`append_kv`].
pub(crate) fn check_append(
    cache: &Tensor<4>,
    new: &Tensor<4>,
    plan: &AttentionPlan,
) -> Result<(), AttentionError> {
    check_append_into(cache.dims(), cache.dtype(), new, plan)
}

/// The same for a cache of dimensions `c` that takes elements of a type.
pub(crate) fn check_append_into(
    c: [usize; 4],
    dtype: DType,
    new: &Tensor<4>,
    plan: &AttentionPlan,
) -> Result<(), AttentionError> {
    let n = new.dims();
    same(
        "append",
        "the new rows' shape",
        [n[0], n[1], n[3]],
        [c[0], c[1], c[3]],
    )?;
    same("append", "the batch", [n[0]], [plan.spans().len()])?;
    same("append", "the number of new rows", [n[2]], [plan.rows()])?;
    if dtype != new.dtype() {
        return Err(types("append", dtype, new.dtype()));
    }
    let heads = plan.heads();
    same(
        "append",
        "the cache's KV heads and head dim",
        [c[1], c[3]],
        [heads.kv, heads.dim],
    )?;
    fits(c[2], plan)
}

/// Checks that every sequence's tokens fit a cache of `capacity`.
pub(crate) fn fits(capacity: usize, plan: &AttentionPlan) -> Result<(), AttentionError> {
    let mut spans = plan.spans().iter().enumerate();
    match spans.find(|(_, span)| span.kv_len > capacity) {
        Some((sequence, span)) => Err(AttentionError::CacheFull {
            sequence,
            needed: span.kv_len,
            capacity,
        }),
        None => Ok(()),
    }
}

/// [`append_kv`] after its checks.
pub(crate) fn append_unchecked(
    cache: Tensor<4>,
    new: Tensor<4>,
    plan: &AttentionPlan,
) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::append_kv(
        cache.into_dispatch(),
        new.into_dispatch(),
        plan.table().into_dispatch(),
    ))
}

/// Checks shapes and types of one call.
pub(crate) fn check(
    query: &Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    plan: &AttentionPlan,
) -> Result<(), AttentionError> {
    same("attend", "the value's shape", value.dims(), key.dims())?;
    check_over(query, key.dims(), [key.dtype(), value.dtype()], plan)
}

/// The same for keys and values of one shape that give elements of these types.
pub(crate) fn check_over(
    query: &Tensor<4>,
    key: [usize; 4],
    dtypes: [DType; 2],
    plan: &AttentionPlan,
) -> Result<(), AttentionError> {
    let op = "attend";
    let ([batch, heads, rows, dim], [kb, kv_heads, keys, kd]) = (query.dims(), key);
    let spans = plan.spans();
    same(op, "the key's batch and head dim", [kb, kd], [batch, dim])?;
    same(
        op,
        "the number of spans in the plan",
        [spans.len()],
        [batch],
    )?;
    same(op, "the number of query rows", [rows], [plan.rows()])?;
    let (min, max, step) = HEAD_DIMS;
    let setting = |field, got: String, limit: String, hint| AttentionError::Setting {
        op,
        field,
        got,
        limit,
        hint,
    };
    if !(min..=max).contains(&dim) || !dim.is_multiple_of(step) {
        let limit = format!("{min} to {max} in steps of {step}");
        let hint = "pad the head dimension with zeros and scale the query to match";
        return Err(setting("head_dim", dim.to_string(), limit, hint));
    }
    let planned = plan.heads();
    same(
        op,
        "query heads, KV heads and head dim",
        [heads, kv_heads, dim],
        [planned.query, planned.kv, planned.dim],
    )?;
    if let Some(s) = spans.iter().find(|s| s.kv_len > keys) {
        return Err(AttentionError::Shape {
            op,
            what: "a span's kv_len",
            got: s.kv_len.to_string(),
            expected: format!("at most the {keys} keys given"),
            hint: "append the new keys before attending",
        });
    }
    for other in dtypes {
        if other != query.dtype() {
            return Err(types(op, query.dtype(), other));
        }
    }
    if !matches!(query.dtype(), DType::F32 | DType::F16 | DType::BF16) {
        let hint = "cast to a supported type";
        let limit = "f32, f16 or bf16".to_string();
        return Err(setting(
            "element type",
            format!("{:?}", query.dtype()),
            limit,
            hint,
        ));
    }
    Ok(())
}

pub(crate) fn same<const N: usize>(
    op: &'static str,
    what: &'static str,
    got: [usize; N],
    expected: [usize; N],
) -> Result<(), AttentionError> {
    if got == expected {
        return Ok(());
    }
    Err(AttentionError::Shape {
        op,
        what,
        got: format!("{got:?}"),
        expected: format!("{expected:?}"),
        hint: "query is [B, Hq, N, d], key and value are [B, Hk, S, d]",
    })
}

pub(crate) fn types(op: &'static str, left: DType, right: DType) -> AttentionError {
    AttentionError::Shape {
        op,
        what: "an element type",
        got: format!("{right:?}"),
        expected: format!("{left:?}"),
        hint: "cast query, key, value and cache to one type",
    }
}
