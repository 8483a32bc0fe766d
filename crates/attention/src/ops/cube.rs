//! The extension on every CubeCL runtime: allocate, then launch what [`prepare`] chose.

use burn::{
    backend::cubecl::dtype_to_storage_type,
    tensor::{DType, Tensor},
};
use burn_cubecl::{
    CubeBackend, CubeDevice, kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype,
    tensor::CubeTensor,
};
use sparse_accelerate_kernels::{
    Refusal, append,
    attend::{
        self as kernels,
        tune::{self, Work},
    },
    rope_append, supports,
};

use super::{
    AttendOptions, SparseAttentionOps, Stored, cube_int8::words, query_dims, tuning::tuning,
};
use crate::{diagnostics, error::AttentionError};

fn problem(
    query: [usize; 4],
    [kv_heads, keys]: [usize; 2],
    stored: Stored,
    options: &AttendOptions,
) -> kernels::Problem {
    kernels::Problem {
        batch: query[0],
        heads: query[1],
        kv_heads,
        rows: query[2],
        keys,
        head_dim: query[3],
        scale: options.scale,
        index: (options.index_heads > 0).then_some(kernels::IndexShape {
            heads: options.index_heads,
            tiles: options.tiles,
            tile_tokens: kernels::QUERY_TILE,
            columns: options.columns,
            band: options.band,
        }),
        gated_heads: None,
        stored,
        visible: kernels::Visible::of(options.window),
    }
}

/// Asks the kernels how this device runs a call, and adds their answer to its options; `key` is the number
/// of KV heads and of keys.
pub(super) fn prepare(
    query: &Tensor<4>,
    key: [usize; 2],
    stored: Stored,
    options: &AttendOptions,
    device: &CubeDevice,
) -> Result<AttendOptions, AttentionError> {
    tuning()?;
    let client = device.client();
    let problem = problem(query.dims(), key, stored, options);
    let elem = dtype_to_storage_type(query.dtype());
    match kernels::prepare(&problem, elem, client.properties()) {
        Ok(launch) => Ok(AttendOptions {
            launch: Some(launch),
            ..*options
        }),
        Err(refusal) => Err(refused("attend", refusal)),
    }
}

/// Asks whether this device computes in an element type.
pub(super) fn check_type(
    op: &'static str,
    device: &CubeDevice,
    dtype: DType,
) -> Result<(), AttentionError> {
    let client = device.client();
    supports(dtype_to_storage_type(dtype), client.properties())
        .map_err(|refusal| refused(op, refusal))
}

/// The error of a call that the kernels refuse.
pub(super) fn refused(op: &'static str, refusal: Refusal) -> AttentionError {
    AttentionError::Refused { op, refusal }
}

/// The kernels read vectors of up to 8 through strides: the last dimension must be contiguous and
/// every other stride a multiple of 8. Caches and swapped projections are; anything else is copied.
pub(super) fn readable(tensor: CubeTensor) -> CubeTensor {
    aligned(tensor, 8)
}

/// The same for vectors of `width`.
pub(super) fn aligned(tensor: CubeTensor, width: usize) -> CubeTensor {
    let strides = tensor.meta.strides();
    match strides[3] == 1 && strides[..3].iter().all(|s| s.is_multiple_of(width)) {
        true => tensor,
        false => into_contiguous(tensor),
    }
}

/// Attention over elements, or over int8 where there are scales.
pub(super) fn attend(
    query: CubeTensor,
    key: CubeTensor,
    value: CubeTensor,
    scales: Option<CubeTensor>,
    table: CubeTensor,
    options: &AttendOptions,
    with_lse: bool,
) -> (CubeTensor, CubeTensor) {
    let shape = query.meta.shape();
    let dims = [shape[0], shape[1], shape[2], shape[3]];
    let cached = key.meta.shape();
    let stored = match scales {
        Some(_) => Stored::Int8,
        None => Stored::Elements,
    };
    let problem = problem(dims, [cached[1], cached[2]], stored, options);
    let elem = dtype_to_storage_type(query.dtype);
    let (client, device, dtype) = (query.client.clone(), query.device.clone(), query.dtype);
    let empty = |shape: &[usize], dtype| {
        empty_device_contiguous_dtype(client.clone(), device.clone(), shape.to_vec().into(), dtype)
    };
    let [batch, heads, rows, head_dim] = dims;
    let query = readable(query);
    let (key, value) = match scales {
        Some(_) => (words(key), words(value)),
        None => (readable(key), readable(value)),
    };
    // Written as [B, N, Hq, d], seen as [B, Hq, N, d]: the model's next reshape copies nothing.
    let mut out = empty(&[batch, rows, heads, head_dim], dtype);
    out.meta.swap(1, 2);
    let lse = match with_lse {
        true => empty(&[batch, heads, rows], DType::F32),
        false => empty(&[1, 1, 1], DType::F32),
    };
    let address = [&query, &key, &value, &out]
        .iter()
        .map(|t| t.required_address_type())
        .max()
        .unwrap_or_default();
    let tensors = || kernels::Tensors {
        query: query.clone().into_tensor_arg(),
        key: key.clone().into_tensor_arg(),
        value: value.clone().into_tensor_arg(),
        scales: scales.clone().map(CubeTensor::into_tensor_arg),
        table: table.clone().into_buffer_arg(),
        out: out.clone().into_tensor_arg(),
        lse: lse.clone().into_buffer_arg(),
        with_lse,
        scratch: None,
        address,
    };
    let work = Work {
        causal_pairs: options.causal_pairs,
        density: options.density,
    };
    // The public functions call `prepare`; only a direct call of the extension meets these panics.
    let tuning = tuning().unwrap_or_else(|error| panic!("{error}"));
    let Some(first) = options.launch else {
        panic!("attend: its options were made for another device");
    };
    let plan = tune::refine(&client, &problem, elem, &work, tuning, first, tensors);
    let scratch = (plan.scratch > 0).then(|| client.empty(plan.scratch * size_of::<f32>()));
    let tensors = kernels::Tensors {
        scratch,
        ..tensors()
    };
    kernels::launch(&client, &problem, &plan, elem, tensors);
    (out, lse)
}

/// A cache to write to: itself, or a counted copy where it has another owner.
pub(super) fn owned(cache: CubeTensor) -> CubeTensor {
    if cache.can_mut() {
        return cache;
    }
    diagnostics::count_append_copy();
    cache.copy()
}

/// The tensor, its rows contiguous.
fn rows_contiguous(tensor: CubeTensor) -> CubeTensor {
    match tensor.meta.strides().last() == Some(&1) {
        true => tensor,
        false => into_contiguous(tensor),
    }
}

/// Room for rotated queries of `qkv`: written as `[B, N, Hq, d]`, seen as `[B, Hq, N, d]` after a swap, as
/// the output of attention.
pub(super) fn empty_queries(qkv: &CubeTensor, dims: [usize; 4]) -> CubeTensor {
    empty_device_contiguous_dtype(
        qkv.client.clone(),
        qkv.device.clone(),
        dims.into(),
        qkv.dtype,
    )
}

impl SparseAttentionOps for CubeBackend {
    fn attend(
        query: CubeTensor,
        key: CubeTensor,
        value: CubeTensor,
        table: CubeTensor,
        options: AttendOptions,
    ) -> CubeTensor {
        attend(query, key, value, None, table, &options, false).0
    }

    fn attend_with_lse(
        query: CubeTensor,
        key: CubeTensor,
        value: CubeTensor,
        table: CubeTensor,
        options: AttendOptions,
    ) -> (CubeTensor, CubeTensor) {
        attend(query, key, value, None, table, &options, true)
    }

    fn append_kv(cache: CubeTensor, new: CubeTensor, table: CubeTensor) -> CubeTensor {
        let (cache, new) = (readable(owned(cache)), readable(new));
        let shape = new.meta.shape();
        let address = cache
            .required_address_type()
            .max(new.required_address_type());
        append::launch(
            &cache.client,
            [shape[0], shape[1], shape[2], shape[3]],
            dtype_to_storage_type(cache.dtype),
            append::Tensors {
                cache: cache.clone().into_tensor_arg(),
                new: new.into_tensor_arg(),
                table: table.into_buffer_arg(),
                scales: None,
                address,
            },
        );
        cache
    }
    fn rope_append(
        qkv: CubeTensor,
        rotation: CubeTensor,
        key: CubeTensor,
        value: CubeTensor,
        table: CubeTensor,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let (qkv, rotation) = (rows_contiguous(qkv), rows_contiguous(rotation));
        let key = rows_contiguous(owned(key));
        let value = rows_contiguous(owned(value));
        let [batch, heads, rows, head_dim] = query_dims(qkv.meta.shape(), key.meta.shape());
        let mut query = empty_queries(&qkv, [batch, rows, heads, head_dim]);
        let shape = rope_append::Shape {
            batch,
            rows,
            heads,
            kv_heads: key.meta.shape()[1],
            head_dim,
        };
        let read = [&qkv, &rotation, &key, &value];
        let address = read.into_iter().chain([&query]);
        let address = address.map(CubeTensor::required_address_type).max();
        let strides = read.map(|t| {
            let strides = t.meta.strides();
            strides[..strides.len() - 1].to_vec()
        });
        let client = qkv.client.clone();
        let elem = dtype_to_storage_type(qkv.dtype);
        let tensors = rope_append::Tensors {
            qkv: qkv.into_tensor_arg(),
            rotation: rotation.into_tensor_arg(),
            table: table.into_buffer_arg(),
            query: query.clone().into_buffer_arg(),
            key: key.clone().into_tensor_arg(),
            value: value.clone().into_tensor_arg(),
            scales: None,
            strides: strides.concat(),
            address: address.unwrap_or_default(),
        };
        rope_append::launch(&client, &shape, elem, tensors);
        query.meta.swap(1, 2);
        (query, key, value)
    }
}
