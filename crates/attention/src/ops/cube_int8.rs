//! Int8 caches on every CubeCL runtime.

use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use sparse_accelerate_kernels::{append, int8, rope_append};

use super::{
    AttendOptions, CachePart, Int8CacheOps,
    cube::{self, aligned, empty_queries, owned, readable},
    query_dims,
};

/// Words are read two at a time.
pub(super) fn words(tensor: CubeTensor) -> CubeTensor {
    aligned(tensor, 2)
}

impl Int8CacheOps for CubeBackend {
    fn rope_append_int8(
        qkv: CubeTensor,
        rotation: CubeTensor,
        key: CubeTensor,
        value: CubeTensor,
        scales: CubeTensor,
        table: CubeTensor,
    ) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        let (qkv, rotation) = (rows(qkv), rows(rotation));
        let (key, value, scales) = (words(owned(key)), words(owned(value)), owned(scales));
        let shape = key.meta.shape();
        let kv_heads = shape[1];
        let cache = [shape[0], kv_heads, shape[2], shape[3] * int8::PER_WORD];
        let [batch, heads, rows, head_dim] = query_dims(qkv.meta.shape(), &cache);
        let mut query = empty_queries(&qkv, [batch, rows, heads, head_dim]);
        let shape = rope_append::Shape {
            batch,
            rows,
            heads,
            kv_heads,
            head_dim,
        };
        let all = [&qkv, &rotation, &key, &value, &scales, &query];
        let address = all.map(CubeTensor::required_address_type);
        let client = qkv.client.clone();
        let elem = dtype_to_storage_type(qkv.dtype);
        let tensors = rope_append::Tensors {
            strides: vec![qkv.meta.strides()[0], rotation.meta.strides()[0]],
            qkv: qkv.into_tensor_arg(),
            rotation: rotation.into_tensor_arg(),
            table: table.into_buffer_arg(),
            query: query.clone().into_buffer_arg(),
            key: key.clone().into_tensor_arg(),
            value: value.clone().into_tensor_arg(),
            scales: Some(scales.clone().into_tensor_arg()),
            address: address.into_iter().max().unwrap_or_default(),
        };
        rope_append::launch(&client, &shape, elem, tensors);
        query.meta.swap(1, 2);
        (query, key, value, scales)
    }

    fn append_int8(
        cache: CubeTensor,
        scales: CubeTensor,
        new: CubeTensor,
        table: CubeTensor,
        of: CachePart,
    ) -> (CubeTensor, CubeTensor) {
        let (cache, scales, new) = (words(owned(cache)), owned(scales), readable(new));
        let shape = new.meta.shape();
        let shape = [shape[0], shape[1], shape[2], shape[3]];
        let address = [&cache, &scales, &new].map(CubeTensor::required_address_type);
        let client = cache.client.clone();
        let elem = dtype_to_storage_type(new.dtype);
        let tensors = append::Tensors {
            cache: cache.clone().into_tensor_arg(),
            new: new.into_tensor_arg(),
            table: table.into_buffer_arg(),
            scales: Some((scales.clone().into_tensor_arg(), of)),
            address: address.into_iter().max().unwrap_or_default(),
        };
        append::launch(&client, shape, elem, tensors);
        (cache, scales)
    }

    fn dequantize_cache(
        out: CubeTensor,
        cache: CubeTensor,
        scales: CubeTensor,
        table: CubeTensor,
        of: CachePart,
        rows: usize,
    ) -> CubeTensor {
        let (out, cache) = (readable(owned(out)), words(cache));
        let shape = out.meta.shape();
        let shape = [shape[0], shape[1], rows, shape[3]];
        let address = [&out, &cache, &scales].map(CubeTensor::required_address_type);
        let client = out.client.clone();
        let elem = dtype_to_storage_type(out.dtype);
        let tensors = int8::Tensors {
            words: cache.into_tensor_arg(),
            scales: scales.into_tensor_arg(),
            table: table.into_buffer_arg(),
            out: out.clone().into_tensor_arg(),
            address: address.into_iter().max().unwrap_or_default(),
        };
        int8::launch(&client, shape, of, elem, tensors);
        out
    }

    fn attend_int8(
        query: CubeTensor,
        key: CubeTensor,
        value: CubeTensor,
        scales: CubeTensor,
        table: CubeTensor,
        options: AttendOptions,
    ) -> CubeTensor {
        cube::attend(query, key, value, Some(scales), table, &options, false).0
    }
}

/// The tensor, its rows contiguous and so far apart that vectors of 8 begin them.
fn rows(tensor: CubeTensor) -> CubeTensor {
    let strides = tensor.meta.strides();
    match strides[1] == 1 && strides[0].is_multiple_of(8) {
        true => tensor,
        false => into_contiguous(tensor),
    }
}
