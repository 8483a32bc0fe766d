//! The launches that are checked: a representative set of attention problems, the cache append, and the
//! passes between attention and linear layers in the shapes of Llama-3.1-8B.
//!
//! A case calls the crate's own `prepare` and `launch`, so what is compiled for a device is what
//! that device would run, every kernel of it. A new tier needs no line here unless it asks for a
//! problem that no case has.

use std::num::NonZeroU32;

use cubecl::{
    client::Client,
    ir::{AddressType, DeviceProperties, ElemType, FloatKind},
    prelude::*,
};
use sparse_accelerate_kernels::{
    Refusal, append,
    attend::{self, IndexShape, Plan, Problem, QUERY_TILE, Stored, Tensors, Tier, Visible},
    glu::{self, Activation},
    int8::{self, CachePart},
    rms_norm, rope_append,
};

use crate::selections;

type Launch = Box<dyn Fn(&Client) -> Result<(), Refusal> + Send + Sync>;

/// A call that launches one or more kernels.
#[allow(missing_debug_implementations)] // holds a closure
pub struct Case {
    /// Name in tables and on the command line; no spaces.
    pub name: String,
    /// Launches on any client.
    pub launch: Launch,
}

impl Case {
    /// A named launch.
    pub fn new(
        name: impl Into<String>,
        launch: impl Fn(&Client) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            launch: Box::new(launch),
        }
    }
}

/// An attention call in numbers.
#[derive(Debug, Clone)]
pub struct Attend {
    /// Name in tables and on the command line.
    pub name: String,
    /// The call.
    pub problem: Problem,
    /// Element type of queries, keys, values and output.
    pub elem: ElemType,
    /// True if log-sum-exps are written.
    pub with_lse: bool,
    /// Index width.
    pub address: AddressType,
}

pub(crate) const F32: (&str, ElemType) = ("f32", ElemType::Float(FloatKind::F32));
pub(crate) const F16: (&str, ElemType) = ("f16", ElemType::Float(FloatKind::F16));
pub(crate) const BF16: (&str, ElemType) = ("bf16", ElemType::Float(FloatKind::BF16));

/// Every case.
pub fn all() -> Vec<Case> {
    let attends = attends().into_iter().map(|attend| {
        let name = format!("attend/{}", attend.name);
        Case::new(name, move |client| attend.launch(client))
    });
    attends
        .chain(cooperative())
        .chain(appends())
        .chain(dequantizations())
        .chain(passes())
        .chain(selections::all())
        .collect()
}

/// The cooperative-matrix tier on devices that have a better one, where they have it: every plan of it.
fn cooperative() -> impl Iterator<Item = Case> {
    let problems = [(F16, 64), (F16, 128), (BF16, 128), (F16, 256)];
    problems.into_iter().map(|(elem, head_dim)| {
        let attend = attend("prefill", 2048, head_dim, elem, INDEXES[1]);
        let name = format!("cmma/{}", attend.name);
        Case::new(name, move |client| {
            let plans = attend::candidates(&attend.problem, attend.elem, client.properties())?;
            for plan in plans {
                if matches!(plan.tier, Tier::Cmma(_)) {
                    attend.launch_plan(client, &plan);
                }
            }
            Ok(())
        })
    })
}

impl Attend {
    /// Returns the plan that would run on a device.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn plan(&self, device: &DeviceProperties) -> Result<Plan, Refusal> {
        attend::prepare(&self.problem, self.elem, device)
    }

    fn launch(&self, client: &Client) -> Result<(), Refusal> {
        let plan = self.plan(client.properties())?;
        self.launch_plan(client, &plan);
        Ok(())
    }

    fn launch_plan(&self, client: &Client, plan: &Plan) {
        let Problem {
            batch,
            heads,
            kv_heads,
            rows,
            head_dim,
            ..
        } = self.problem;
        let kv = [batch, kv_heads, self.problem.keys, head_dim];
        let int8 = self.problem.stored == Stored::Int8;
        let (key, scales) = cache(client, kv, self.elem, int8);
        let (value, _) = cache(client, kv, self.elem, int8);
        let tensors = Tensors {
            query: tensor(client, [batch, heads, rows, head_dim], self.elem),
            key,
            value,
            scales,
            table: buffer(client, 1024),
            out: tensor(client, [batch, heads, rows, head_dim], self.elem),
            lse: buffer(client, batch * heads * rows),
            with_lse: self.with_lse,
            scratch: (plan.scratch > 0).then(|| client.empty(plan.scratch * 4)),
            address: self.address,
        };
        attend::launch(client, &self.problem, plan, self.elem, tensors);
    }
}

/// Kinds of index: none, ranges and columns, ranges with Triangular's element rule.
const INDEXES: [(&str, Option<IndexShape>); 3] = [
    ("dense", None),
    ("indexed", Some(index(true, None))),
    ("banded", Some(index(false, Some((64, 1024))))),
];

const fn index(columns: bool, band: Option<(u32, u32)>) -> IndexShape {
    IndexShape {
        heads: 2,
        tiles: 0,
        tile_tokens: QUERY_TILE,
        columns,
        band,
    }
}

/// Rows of a prefill chunk, and of a decoding step.
const PHASES: [(&str, usize); 2] = [("prefill", 2048), ("decode", 1)];

/// The attention calls.
pub fn attends() -> Vec<Attend> {
    let mut all = Vec::new();
    for (phase, rows) in PHASES {
        // The common head dimension in every type and with every index.
        for elem in [F32, F16, BF16] {
            for index in INDEXES {
                all.push(attend(phase, rows, 128, elem, index));
            }
        }
        // The other dimensions.
        for head_dim in [32, 40, 64, 80, 96, 256] {
            all.push(attend(phase, rows, head_dim, F16, INDEXES[2]));
        }
        all.push(attend(phase, rows, 256, F32, INDEXES[2]));
        // Log-sum-exps, and buffers beyond 2^32 elements.
        let lse = attend(phase, rows, 128, F16, INDEXES[1]);
        all.push(Attend {
            name: format!("{}/lse", lse.name),
            with_lse: true,
            ..lse.clone()
        });
        all.push(Attend {
            name: format!("{}/u64", lse.name),
            address: AddressType::U64,
            ..lse
        });
    }
    // Decoding over bytes.
    for (elem, head_dim) in [(F32, 128), (F16, 64), (F16, 128), (BF16, 128), (BF16, 256)] {
        for index in [INDEXES[0], INDEXES[1]] {
            let elements = attend("decode", 1, head_dim, elem, index);
            all.push(Attend {
                name: format!("{}/int8", elements.name),
                problem: Problem {
                    stored: Stored::Int8,
                    ..elements.problem
                },
                ..elements
            });
        }
    }
    // A sparse and a dense launch that share heads by gates.
    for index in &INDEXES[..2] {
        let ungated = attend("prefill", 2048, 128, BF16, *index);
        let gated_heads = Some(2);
        all.push(Attend {
            name: format!("{}/gated", ungated.name),
            problem: Problem {
                gated_heads,
                ..ungated.problem
            },
            ..ungated
        });
    }
    // Windows.
    for (phase, rows) in PHASES {
        for (elem, index) in [(F32, 0), (F16, 0), (F16, 1), (F16, 2), (BF16, 1)] {
            all.push(windowed(attend(phase, rows, 128, elem, INDEXES[index])));
        }
    }
    let bytes = attend("decode", 1, 128, F16, INDEXES[1]);
    all.push(windowed(Attend {
        name: format!("{}/int8", bytes.name),
        problem: Problem {
            stored: Stored::Int8,
            ..bytes.problem
        },
        ..bytes
    }));
    // Long prompts take larger tiles.
    for elem in [F16, BF16] {
        all.push(attend("long", 1 << 15, 128, elem, INDEXES[0]));
    }
    all
}

/// Keys of a window.
const WINDOW: NonZeroU32 = NonZeroU32::new(1024).unwrap();

/// A call whose rows see a window of keys.
fn windowed(attend: Attend) -> Attend {
    Attend {
        name: format!("{}/window", attend.name),
        problem: Problem {
            visible: Visible::Window(WINDOW),
            ..attend.problem
        },
        ..attend
    }
}

/// Cached keys of a decoding step.
const DECODE_KEYS: usize = 1 << 17;

fn attend(
    phase: &str,
    rows: usize,
    head_dim: usize,
    (elem_name, elem): (&str, ElemType),
    (index_name, index): (&str, Option<IndexShape>),
) -> Attend {
    let problem = Problem {
        batch: 1,
        heads: 8,
        kv_heads: 2,
        rows,
        keys: if rows == 1 { DECODE_KEYS } else { rows },
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        index: index.map(|index| IndexShape {
            tiles: rows.div_ceil(index.tile_tokens),
            ..index
        }),
        gated_heads: None,
        stored: Stored::Elements,
        visible: Visible::Causal,
    };
    Attend {
        name: format!("{phase}/{index_name}/{elem_name}/d{head_dim}"),
        problem,
        elem,
        with_lse: false,
        address: AddressType::U32,
    }
}

fn appends() -> impl Iterator<Item = Case> {
    let bytes = [F32, F16, BF16].map(|elem| (elem, true));
    let elements = [F32, F16, BF16].map(|elem| (elem, false));
    elements
        .into_iter()
        .chain(bytes)
        .map(|((name, elem), int8)| {
            let suffix = if int8 { "/int8" } else { "" };
            Case::new(format!("append/{name}{suffix}"), move |client| {
                let (shape, address) = ([1, 2, 2048, 128], AddressType::U32);
                let (cache, scales) = cache(client, [1, 2, 4096, 128], elem, int8);
                let tensors = append::Tensors {
                    cache,
                    new: tensor(client, shape, elem),
                    table: buffer(client, 4),
                    scales: scales.map(|scales| (scales, CachePart::Value)),
                    address,
                };
                append::launch(client, shape, elem, tensors);
                Ok(())
            })
        })
}

/// Keys or values of a type, or as bytes with their scales.
fn cache(
    client: &Client,
    shape: [usize; 4],
    elem: ElemType,
    int8: bool,
) -> (TensorArg, Option<TensorArg>) {
    let [batch, heads, capacity, head_dim] = shape;
    match int8 {
        true => (
            tensor(client, [batch, heads, capacity, head_dim / 4], F32.1),
            Some(tensor(client, [batch, heads, 2, capacity], F32.1)),
        ),
        false => (tensor(client, shape, elem), None),
    }
}

/// Bytes back to elements.
fn dequantizations() -> impl Iterator<Item = Case> {
    let named = [
        (F32, AddressType::U32, ""),
        (F16, AddressType::U32, ""),
        (BF16, AddressType::U32, ""),
        (BF16, AddressType::U64, "/u64"),
    ];
    named.into_iter().map(|((name, elem), address, suffix)| {
        Case::new(format!("dequantize/{name}{suffix}"), move |client| {
            let shape = [1, 2, 4096, 128];
            let (words, scales) = cache(client, shape, elem, true);
            let tensors = int8::Tensors {
                words,
                scales: scales.expect("bytes have scales"),
                table: buffer(client, 4),
                out: tensor(client, shape, elem),
                address,
            };
            int8::launch(client, shape, CachePart::Key, elem, tensors);
            Ok(())
        })
    })
}

/// Rows of the passes.
const ROWS: usize = 2048;

fn passes() -> impl Iterator<Item = Case> {
    let named = [
        (F32, AddressType::U32, ""),
        (F16, AddressType::U32, ""),
        (BF16, AddressType::U32, ""),
        (BF16, AddressType::U64, "/u64"),
    ];
    named
        .into_iter()
        .flat_map(|((name, elem), address, suffix)| {
            let case = |pass: &str, launch: fn(&Client, ElemType, AddressType)| {
                Case::new(format!("{pass}/{name}{suffix}"), move |client| {
                    launch(client, elem, address);
                    Ok(())
                })
            };
            [
                case("rms-norm", |client, elem, address| {
                    norm(client, elem, address, 4096);
                }),
                // Rows that no unit holds, and no vector divides.
                case("rms-norm-odd", |client, elem, address| {
                    norm(client, elem, address, 4097);
                }),
                case("swiglu", |client, elem, address| {
                    gate(client, elem, address, Activation::Silu);
                }),
                case("geglu", |client, elem, address| {
                    gate(client, elem, address, Activation::GeluTanh);
                }),
                case("rope-append", |client, elem, address| {
                    rotate(client, elem, address, false);
                }),
                case("rope-append-int8", |client, elem, address| {
                    rotate(client, elem, address, true);
                }),
            ]
        })
}

fn norm(client: &Client, elem: ElemType, address: AddressType, width: usize) {
    rms_norm::launch(
        client,
        [ROWS, width],
        width,
        elem,
        1e-5,
        address,
        tensor(client, [ROWS, 1, 1, width], elem),
        buffer(client, width),
        buffer(client, ROWS * width),
    );
}

fn gate(client: &Client, elem: ElemType, address: AddressType, activation: Activation) {
    let width = 14336;
    glu::launch(
        client,
        activation,
        [ROWS, width],
        2 * width,
        elem,
        address,
        tensor(client, [ROWS, 1, 1, 2 * width], elem),
        buffer(client, ROWS * width),
    );
}

fn rotate(client: &Client, elem: ElemType, address: AddressType, int8: bool) {
    let shape = rope_append::Shape {
        batch: 1,
        rows: ROWS,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
    };
    let (key, scales) = cache(client, [1, 8, 2 * ROWS, 128], elem, int8);
    let (value, _) = cache(client, [1, 8, 2 * ROWS, 128], elem, int8);
    let tensors = rope_append::Tensors {
        qkv: tensor(client, [ROWS, 1, 1, 48 * 128], elem),
        rotation: tensor(client, [2 * ROWS, 1, 1, 128], F32.1),
        table: buffer(client, 4),
        query: buffer(client, ROWS * 32 * 128),
        key,
        value,
        scales,
        strides: vec![128],
        address,
    };
    rope_append::launch(client, &shape, elem, tensors);
}

/// A contiguous tensor without memory.
pub fn tensor(client: &Client, shape: [usize; 4], elem: ElemType) -> TensorArg {
    let [_, b, c, d] = shape;
    let handle = client.empty(shape.iter().product::<usize>() * elem.size());
    // SAFETY: the handle holds the product of the shape, contiguous in this order.
    #[allow(unsafe_code)]
    unsafe {
        TensorArg::from_raw_parts(handle, [b * c * d, c * d, d, 1].into(), shape.into())
    }
}

/// A buffer of 4-byte elements without memory.
pub fn buffer(client: &Client, len: usize) -> BufferArg {
    // SAFETY: the handle holds `len` elements.
    #[allow(unsafe_code)]
    unsafe {
        BufferArg::from_raw_parts(client.empty(len * 4), len)
    }
}
