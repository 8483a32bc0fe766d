//! Keys and values of one layer in a cache: elements, or int8 with its scales.

use std::ops::Range;

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, Int, Tensor, TensorData, kind::Basic},
};

use crate::{
    attend::{append_unchecked, check_append, check_append_into, check_over},
    error::AttentionError,
    ops::{self, AttendOptions, CachePart, Int8CacheOps, Stored},
    plan::AttentionPlan,
    rope,
};

/// Keys and values of one layer.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // one per layer, and all of a cache are alike
pub(super) enum Layer {
    /// `[B, Hk, capacity, d]`.
    Elements(Tensor<4>, Tensor<4>),
    /// The same as int8.
    Int8(Int8),
}

/// Signed bytes with one f32 scale per token and KV head.
#[derive(Debug)]
pub(super) struct Int8 {
    /// `[B, Hk, capacity, d / 4]` in `u32`: four bytes a word.
    key: Tensor<4, Int>,
    value: Tensor<4, Int>,
    /// `[B, Hk, 2, capacity]`: of keys, of values.
    scales: Tensor<4>,
    /// The type that goes in and comes out.
    dtype: DType,
}

/// Tokens of a layer on their way to the front of one: sequences, number of tokens, tensors.
#[derive(Debug)]
pub(super) struct Rows(Vec<(Range<usize>, usize, Parts)>);

/// Tensors of a layer, or tokens of them.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // a few, on their way
enum Parts {
    /// Keys and values.
    Elements([Tensor<4>; 2]),
    /// Words of keys and values, their scales.
    Int8([Tensor<4, Int>; 2], Tensor<4>),
}

impl Layer {
    pub(super) fn elements(dims: [usize; 4], dtype: DType, device: &Device) -> Self {
        let zeros = || Tensor::<4>::zeros(dims, (device, dtype));
        Self::Elements(zeros(), zeros())
    }

    /// `dims` are those of the elements.
    pub(super) fn int8(dims: [usize; 4], dtype: DType, device: &Device) -> Self {
        let [batch, kv_heads, capacity, head_dim] = dims;
        let words = [batch, kv_heads, capacity, head_dim / 4];
        let zeros = || Tensor::<4, Int>::zeros(words, (device, DType::U32));
        Self::Int8(Int8 {
            key: zeros(),
            value: zeros(),
            scales: Tensor::zeros([batch, kv_heads, 2, capacity], (device, DType::F32)),
            dtype,
        })
    }

    /// Tokens that it has room for.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Elements(key, _) => key.dims()[2],
            Self::Int8(int8) => int8.dims()[2],
        }
    }

    /// An empty layer of the same type with room for `rows` tokens: for the life of a cache, or for one call.
    pub(super) fn empty(&self, rows: usize, lasting: bool) -> Self {
        let device = match self {
            Self::Elements(key, _) => key.device(),
            Self::Int8(int8) => int8.key.device(),
        };
        match lasting {
            true => device.memory_persistent_allocations(rows, |rows| self.sized(rows)),
            false => self.sized(rows),
        }
    }

    fn sized(&self, rows: usize) -> Self {
        let sized = |[batch, kv_heads, _, dim]: [usize; 4]| [batch, kv_heads, rows, dim];
        match self {
            Self::Elements(key, _) => Self::elements(sized(key.dims()), key.dtype(), &key.device()),
            Self::Int8(int8) => Self::int8(sized(int8.dims()), int8.dtype, &int8.key.device()),
        }
    }

    /// Copies tokens of every sequence: where they begin, and how many.
    pub(super) fn copy_rows(&self, from: &[(usize, usize)]) -> Rows {
        let alike = from.iter().all(|other| *other == from[0]);
        let each: Vec<(Range<usize>, (usize, usize))> = match alike {
            true => vec![(0..from.len(), from[0])],
            false => (0..from.len()).map(|b| (b..b + 1, from[b])).collect(),
        };
        let some = each.into_iter().filter(|(_, (_, count))| *count > 0);
        let rows = some.map(|(batch, (first, count))| {
            let at = |dim| [(0, batch.clone()), (dim, first..first + count)];
            let parts = match self {
                Self::Elements(key, value) => {
                    Parts::Elements([key, value].map(|t| slice(t.clone(), at(2))))
                }
                Self::Int8(int8) => Parts::Int8(
                    [&int8.key, &int8.value].map(|t| slice(t.clone(), at(2))),
                    slice(int8.scales.clone(), at(3)),
                ),
            };
            (batch, count, parts)
        });
        Rows(rows.collect())
    }

    /// Puts tokens at the front of every sequence.
    pub(super) fn put_rows(&mut self, rows: Rows) {
        for (batch, count, parts) in rows.0 {
            let at = |dim| [(0, batch.clone()), (dim, 0..count)];
            match (&mut *self, parts) {
                (Self::Elements(key, value), Parts::Elements([keys, values])) => {
                    key.inplace(|to| assign(to, at(2), keys));
                    value.inplace(|to| assign(to, at(2), values));
                }
                (Self::Int8(int8), Parts::Int8([keys, values], scales)) => {
                    int8.key.inplace(|to| assign(to, at(2), keys));
                    int8.value.inplace(|to| assign(to, at(2), values));
                    int8.scales.inplace(|to| assign(to, at(3), scales));
                }
                // Layers of one cache have one type.
                _ => {}
            }
        }
    }

    /// See [`super::KvCache::append`].
    pub(super) fn append(
        &mut self,
        key: Tensor<4>,
        value: Tensor<4>,
        plan: &AttentionPlan,
    ) -> Result<(), AttentionError> {
        // Both are checked before either is written; a handle kept for undoing would force a copy.
        match self {
            Self::Elements(keys, values) => {
                check_append(keys, &key, plan)?;
                check_append(values, &value, plan)?;
                keys.inplace(|cache| append_unchecked(cache, key, plan));
                values.inplace(|cache| append_unchecked(cache, value, plan));
                Ok(())
            }
            Self::Int8(int8) => int8.append(key, value, plan),
        }
    }

    /// See [`super::KvCache::append_rotated`].
    pub(super) fn append_rotated(
        &mut self,
        qkv: Tensor<2>,
        rotation: &Tensor<2>,
        plan: &AttentionPlan,
    ) -> Result<Tensor<4>, AttentionError> {
        match self {
            Self::Elements(keys, values) => {
                rope::check(&qkv, rotation, keys, values, plan)?;
                let caches = (keys.extract(), values.extract());
                let (query, key, value) = rope::unchecked(qkv, rotation, caches, plan);
                (*keys, *values) = (key, value);
                Ok(query)
            }
            Self::Int8(int8) => int8.append_rotated(qkv, rotation, plan),
        }
    }
}

/// Ranges of two dimensions, all of the others.
type Ranges = [(usize, Range<usize>); 2];

/// `dims` with two ranges in place of their own.
fn ranges(dims: [usize; 4], at: Ranges) -> [Range<usize>; 4] {
    let mut all = dims.map(|dim| 0..dim);
    for (dim, range) in at {
        all[dim] = range;
    }
    all
}

fn slice<K: Basic>(from: Tensor<4, K>, at: Ranges) -> Tensor<4, K> {
    let at = ranges(from.dims(), at);
    from.slice(at)
}

fn assign<K: Basic>(to: Tensor<4, K>, at: Ranges, values: Tensor<4, K>) -> Tensor<4, K> {
    let at = ranges(to.dims(), at);
    to.slice_assign(at, values)
}

impl Int8 {
    /// `[B, Hk, capacity, d]` of the elements.
    fn dims(&self) -> [usize; 4] {
        let [batch, kv_heads, capacity, words] = self.key.dims();
        [batch, kv_heads, capacity, 4 * words]
    }

    fn append(
        &mut self,
        key: Tensor<4>,
        value: Tensor<4>,
        plan: &AttentionPlan,
    ) -> Result<(), AttentionError> {
        for new in [&key, &value] {
            check_append_into(self.dims(), self.dtype, new, plan)?;
        }
        for (part, new) in [(CachePart::Key, key), (CachePart::Value, value)] {
            let words = match part {
                CachePart::Key => &mut self.key,
                CachePart::Value => &mut self.value,
            };
            let (cache, scales) = Dispatch::append_int8(
                words.extract().into_dispatch(),
                self.scales.extract().into_dispatch(),
                new.into_dispatch(),
                plan.table().into_dispatch(),
                part,
            );
            *words = Tensor::from_dispatch(cache);
            self.scales = Tensor::from_dispatch(scales);
        }
        Ok(())
    }

    fn append_rotated(
        &mut self,
        qkv: Tensor<2>,
        rotation: &Tensor<2>,
        plan: &AttentionPlan,
    ) -> Result<Tensor<4>, AttentionError> {
        let caches = [&self.key, &self.value].map(|c| (self.dtype, c.device()));
        rope::check_into(&qkv, rotation, self.dims(), caches, plan)?;
        let (query, key, value, scales) = Dispatch::rope_append_int8(
            qkv.into_dispatch(),
            rotation.clone().into_dispatch(),
            self.key.extract().into_dispatch(),
            self.value.extract().into_dispatch(),
            self.scales.extract().into_dispatch(),
            plan.table().into_dispatch(),
        );
        self.key = Tensor::from_dispatch(key);
        self.value = Tensor::from_dispatch(value);
        self.scales = Tensor::from_dispatch(scales);
        Ok(Tensor::from_dispatch(query))
    }

    /// Checks a call of attention over this layer.
    pub(super) fn check(
        &self,
        query: &Tensor<4>,
        plan: &AttentionPlan,
    ) -> Result<(), AttentionError> {
        check_over(query, self.dims(), [self.dtype; 2], plan)
    }

    /// The options with which [`Self::attend`] serves a checked call; `None` where its elements must be
    /// [written out](Self::write), which attention over them may still refuse.
    pub(super) fn options(&self, query: &Tensor<4>, plan: &AttentionPlan) -> Option<AttendOptions> {
        match plan.selects() {
            true => None,
            false => ops::prepare(query, self.dims(), Stored::Int8, plan).ok(),
        }
    }

    /// Attention that reads int8.
    pub(super) fn attend(
        &self,
        query: Tensor<4>,
        plan: &AttentionPlan,
        options: AttendOptions,
    ) -> Tensor<4> {
        Tensor::from_dispatch(Dispatch::attend_int8(
            query.into_dispatch(),
            self.key.clone().into_dispatch(),
            self.value.clone().into_dispatch(),
            self.scales.clone().into_dispatch(),
            plan.table().into_dispatch(),
            options,
        ))
    }

    /// Room for the elements of keys and values, all zeros: for the life of a cache, or for one call.
    pub(super) fn elements(&self, lasting: bool) -> [Tensor<4>; 2] {
        let device = self.key.device();
        let zeros = |dims: [usize; 4]| [(); 2].map(|()| Tensor::zeros(dims, (&device, self.dtype)));
        match lasting {
            true => device.memory_persistent_allocations(self.dims(), zeros),
            false => zeros(self.dims()),
        }
    }

    /// Writes the elements of the plan's sequences to keys and values of [`Self::elements`]; what lies
    /// behind a sequence stays.
    pub(super) fn write(&self, to: [&mut Tensor<4>; 2], plan: &AttentionPlan) {
        let rows = plan.spans().iter().map(|s| s.kv_len).max().unwrap_or(0);
        for (part, out) in [CachePart::Key, CachePart::Value].into_iter().zip(to) {
            out.inplace(|out| self.write_part(part, out, plan.table(), rows));
        }
    }

    /// A copy of one part as elements, whole.
    pub(super) fn copy(&self, part: CachePart) -> Tensor<4> {
        let device = self.key.device();
        let [batch, _, capacity, _] = self.dims();
        let words = [0, capacity as u32, 0, 0].repeat(batch);
        let data = TensorData::new(words, [4 * batch]);
        let table = Tensor::from_data(data, (&device, DType::U32));
        let out = Tensor::empty(self.dims(), (&device, self.dtype));
        self.write_part(part, out, table, capacity)
    }

    /// The first `rows` tokens at most of every sequence; `table` begins with the spans.
    fn write_part(
        &self,
        part: CachePart,
        out: Tensor<4>,
        table: Tensor<1, Int>,
        rows: usize,
    ) -> Tensor<4> {
        let words = match part {
            CachePart::Key => &self.key,
            CachePart::Value => &self.value,
        };
        Tensor::from_dispatch(Dispatch::dequantize_cache(
            out.into_dispatch(),
            words.clone().into_dispatch(),
            self.scales.clone().into_dispatch(),
            table.into_dispatch(),
            part,
            rows,
        ))
    }
}
