//! Writing new keys or values into a cache, in place.
//!
//! `cache[b, h, kv_len - query_len + i] = new[b, h, i]` for the `query_len` rows of each sequence;
//! nothing else of the cache is touched. One unit copies one vector of 4 elements, or makes one word of
//! bytes of them ([`crate::int8`]); the units of a row then share a cube.

use cubecl::{
    client::Client,
    ir::{AddressType, ElemType},
    prelude::*,
};

use crate::{
    int8::{self, CachePart, WORD},
    layout,
    table::Span,
};

/// Elements of a unit.
const WIDTH: usize = 4;

/// Compile-time parameters of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Blueprint {
    /// Vectors of a row.
    vectors: usize,
    /// Which scales, where rows are stored as bytes.
    int8: Option<CachePart>,
}

impl Blueprint {
    /// Place of the scales in their third dimension.
    fn part(&self) -> usize {
        self.int8.map_or(0, CachePart::index)
    }

    /// Elements of a vector of the cache.
    fn stored(&self) -> usize {
        match self.int8 {
            Some(_) => WIDTH / int8::PER_WORD,
            None => WIDTH,
        }
    }
}

#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn append_rows<E: Float, N: Size, T: Numeric, M: Size>(
    cache: &mut Tensor<Vector<T, M>>,
    new: &Tensor<Vector<E, N>>,
    table: &[u32],
    scales: ComptimeOption<&mut Tensor<f32>>,
    total: usize,
    heads: usize,
    rows: usize,
    #[comptime] bp: Blueprint,
    #[define(E)] _elem: ElemType,
    #[define(T)] _stored: ElemType,
) {
    let vectors = comptime!(bp.vectors);
    let mut at = ABSOLUTE_POS;
    let mut live = at < total;
    if comptime!(bp.int8.is_some()) {
        let units = comptime!(int8::units_of_rows(bp.vectors));
        at = CUBE_POS * units + UNIT_POS as usize;
        live = at < total && (UNIT_POS as usize) < units;
    }
    let vector = at % vectors;
    let row = (at / vectors) % rows;
    let head = (at / (vectors * rows)) % heads;
    let b = at / (vectors * rows * heads);
    let mut position = 0usize;
    let mut loaded = Vector::<E, N>::new(E::from_int(0));
    if live {
        let span = Span::of(table, b as u32);
        let (q_len, kv_len) = (span.query_len as usize, span.kv_len as usize);
        live = row < q_len;
        if live {
            position = kv_len - q_len + row;
            let from = b * new.stride(0) + head * new.stride(1) + row * new.stride(2);
            loaded = new[from / WIDTH + vector];
        }
    }
    let to = b * cache.stride(0) + head * cache.stride(1) + position * cache.stride(2);
    let to = to / comptime!(bp.stored()) + vector;
    #[comptime]
    match scales {
        ComptimeOption::Some(scales) => {
            let wide = Vector::<f32, N>::cast_from(loaded);
            let largest = int8::row_magnitude(
                int8::magnitude(wide, WIDTH),
                vector,
                vectors,
                comptime!(layout::UNITS as usize),
            );
            if live {
                let words = int8::pack::<N, M>(wide, largest, WIDTH);
                cache[to] = Vector::cast_from(words);
                if vector == 0 {
                    let at = b * scales.stride(0)
                        + head * scales.stride(1)
                        + comptime!(bp.part()) * scales.stride(2)
                        + position;
                    scales[at] = int8::scale(largest);
                }
            }
        }
        ComptimeOption::None => {
            if live {
                cache[to] = Vector::cast_from(loaded);
            }
        }
    }
}

/// The buffers of a call; the last dimension of every tensor is contiguous, other strides of `cache` and
/// `new` are multiples of 4 where they hold elements.
#[allow(missing_debug_implementations)] // launch arguments have none
pub struct Tensors {
    /// Written at each sequence's new positions: `[B, H, S, d]`, or words `[B, H, S, d / 4]`.
    pub cache: TensorArg,
    /// `[B, H, N, d]`.
    pub new: TensorArg,
    /// Begins with the spans `[B, 4]`.
    pub table: BufferArg,
    /// Scales of an int8 cache `[B, H, 2, S]`, and which of them.
    pub scales: Option<(TensorArg, CachePart)>,
    /// Index width.
    pub address: AddressType,
}

/// Launches the copy; `shape` is that of `new`, whose elements are of type `elem`.
pub fn launch(client: &Client, shape: [usize; 4], elem: ElemType, tensors: Tensors) {
    let (scales, part) = tensors.scales.unzip();
    let blueprint = Blueprint {
        vectors: shape[3] / WIDTH,
        int8: part,
    };
    let total = shape[0] * shape[1] * shape[2] * blueprint.vectors;
    let (count, dim) = match part {
        Some(_) => int8::row_cubes(client, total, blueprint.vectors),
        None => {
            let dim = CubeDim::new(client, total);
            (
                cubecl::calculate_cube_count_elemwise(client, total, dim),
                dim,
            )
        }
    };
    append_rows::launch(
        client,
        count,
        dim,
        tensors.address,
        WIDTH,
        blueprint.stored(),
        tensors.cache,
        tensors.new,
        tensors.table,
        scales.into(),
        total,
        shape[1],
        shape[2],
        blueprint,
        elem,
        if part.is_some() { WORD } else { elem },
    );
}
