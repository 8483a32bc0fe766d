//! RMSNorm, SwiGLU, GeGLU and rotation with append against their formulas in f64, on every backend of this
//! build: odd widths, many rows, extreme values, ragged batches; and what must stay as it was.

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sparse_accelerate::{
    AttentionError, AttentionPlan, AttentionSettings, Heads, Span, Visible,
    diagnostics::append_copies, rope_append, rotation_table,
};
use sparse_accelerate_layers::{FusedError, geglu, rms_norm, swiglu};
use sparse_accelerate_tests::{
    backends::{self, Backend},
    problem::round,
};

const WIDTHS: [usize; 6] = [1, 63, 64, 576, 4096, 4097];
const ROWS: [usize; 3] = [1, 3, 1000];
const EPS: f64 = 1e-5;
/// Error of the f32 arithmetic inside, relative.
const INSIDE: f64 = 4e-6;

/// The error of one rounding, relative, and where numbers become too small for it.
fn rounding(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F16 => (2f64.powi(-11), 2f64.powi(-24)),
        DType::BF16 => (2f64.powi(-8), 1e-35),
        _ => (2f64.powi(-24), 1e-35),
    }
}

fn random(seed: u64, count: usize, dtype: DType) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut next = || round(random.random_range(-1.0f32..1.0), dtype);
    (0..count).map(|_| next()).collect()
}

fn upload<const D: usize>(x: &[f32], shape: [usize; D], at: (&Device, DType)) -> Tensor<D> {
    Tensor::from_data(TensorData::new(x.to_vec(), shape), at)
}

fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as().expect("the launch failed")
}

/// `inside` is the error allowed before rounding, absolute, for each entry.
fn close(name: &str, dtype: DType, got: &[f32], exact: &[f64], inside: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), exact.len(), "{name}: length");
    let (unit, least) = rounding(dtype);
    for (i, (&g, &e)) in got.iter().zip(exact).enumerate() {
        let limit = inside(i) + unit * (e.abs() + inside(i)) + least;
        let right = match e.is_nan() {
            true => g.is_nan(),
            false => (f64::from(g) - e).abs() <= limit,
        };
        assert!(
            right,
            "{name}: entry {i} is {g}, expected {e} within {limit:e}"
        );
    }
}

fn on_all(check: impl Fn(&Backend, DType)) {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            check(&backend, dtype);
        }
    }
}

fn norm_of(x: &[f32], gamma: &[f32]) -> Vec<f64> {
    let row = |row: &[f32]| -> Vec<f64> {
        let squares: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
        let root = (squares / row.len() as f64 + EPS).sqrt();
        let pairs = row.iter().zip(gamma);
        let each = pairs.map(|(&x, &g)| f64::from(x) / root * f64::from(g));
        each.collect()
    };
    x.chunks(gamma.len()).flat_map(row).collect()
}

fn check_norm(name: &str, backend: &Backend, dtype: DType, x: &[f32], width: usize) {
    let gamma = random(2, width, DType::F32);
    let shape = [x.len() / width, width];
    let name = format!("{} {dtype:?} {name} {shape:?}", backend.name);
    let got = rms_norm(
        upload(x, shape, (&backend.device, dtype)),
        &upload(&gamma, [width], (&backend.device, DType::F32)),
        EPS,
    );
    let got = got.expect(&name);
    assert_eq!((got.dims(), got.dtype()), (shape, dtype), "{name}");
    let exact = norm_of(x, &gamma);
    close(&name, dtype, &read(got), &exact, |i| {
        INSIDE * exact[i].abs()
    });
}

#[test]
fn norms_of_every_width() {
    on_all(|backend, dtype| {
        for width in WIDTHS {
            for rows in ROWS {
                // Rows of different magnitude; at the small end `eps` rules.
                let mut x = random(1, rows * width, dtype);
                for (row, x) in x.chunks_mut(width).enumerate() {
                    let scale = 10f32.powi(row as i32 % 7 - 3);
                    x.iter_mut().for_each(|x| *x = round(*x * scale, dtype));
                }
                check_norm("norm", backend, dtype, &x, width);
            }
        }
        // More rows than a WebGPU grid has in one dimension.
        if dtype == DType::F32 {
            check_norm("norm", backend, dtype, &random(1, 70_000 * 4, dtype), 4);
        }
    });
}

#[test]
fn norms_of_extreme_rows() {
    on_all(|backend, dtype| {
        for width in [63, 576, 4097] {
            let mut x = random(3, 5 * width, dtype);
            x[..width].fill(65504.0);
            x[width..2 * width].fill(0.0);
            x[2 * width + width / 2] = f32::NAN;
            x[3 * width..4 * width].fill(-65504.0);
            x.iter_mut().for_each(|x| *x = round(*x, dtype));
            check_norm("extreme", backend, dtype, &x, width);
        }
    });
}

fn check_gate(name: &str, backend: &Backend, dtype: DType, x: &[f32], width: usize) {
    let shape = [x.len() / (2 * width), width];
    let name = format!("{} {dtype:?} {name} {shape:?}", backend.name);
    let tensor = upload(x, [shape[0], 2 * width], (&backend.device, dtype));
    let got = swiglu(tensor.clone()).expect(&name);
    assert_eq!((got.dims(), got.dtype()), (shape, dtype), "{name}");
    let at = |i: usize| {
        let row = i / width * 2 * width + i % width;
        (f64::from(x[row]), f64::from(x[row + width]))
    };
    let exact: Vec<f64> = (0..shape[0] * width)
        .map(|i| match at(i) {
            (gate, up) if gate < -700.0 => gate * gate.exp() * up,
            (gate, up) => gate / (1.0 + (-gate).exp()) * up,
        })
        .collect();
    // WGSL lets an exponential be off by its argument in units of the last place.
    let inside = |i: usize| exact[i].abs() * (INSIDE + at(i).0.abs() * 5e-7);
    close(&name, dtype, &read(got), &exact, inside);

    let (name, got) = (format!("{name} gelu"), geglu(tensor).expect(&name));
    assert_eq!((got.dims(), got.dtype()), (shape, dtype), "{name}");
    let slope = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let reached = |gate: f64| slope * (gate + 0.044715 * gate.powi(3));
    let exact: Vec<f64> = (0..shape[0] * width)
        .map(|i| match at(i) {
            (gate, _) if reached(gate) < -700.0 => 0.0,
            (gate, up) => gate / (1.0 + (-reached(gate)).exp()) * up,
        })
        .collect();
    // The argument of the exponential is rounded three times, its cube once more.
    let inside = |i: usize| exact[i].abs() * (INSIDE + reached(at(i).0).abs() * 1e-6);
    close(&name, dtype, &read(got), &exact, inside);
}

#[test]
fn gates_of_every_width() {
    on_all(|backend, dtype| {
        for width in WIDTHS {
            for rows in ROWS {
                let mut x = random(4, rows * 2 * width, dtype);
                x.iter_mut().for_each(|x| *x = round(*x * 12.0, dtype));
                check_gate("gate", backend, dtype, &x, width);
            }
        }
    });
}

#[test]
fn gates_of_extreme_values() {
    let gates = [
        0.0,
        -0.0,
        1e-6,
        -1e-6,
        16.0,
        -16.0,
        60.0,
        -60.0,
        86.0,
        -86.0,
        88.5,
        -88.5,
        104.0,
        -104.0,
        700.0,
        -700.0,
        65504.0,
        -65504.0,
        f32::NAN,
    ];
    on_all(|backend, dtype| {
        let width = 3 * gates.len();
        let gates = gates.iter().cycle().take(width);
        let mut x: Vec<f32> = gates.map(|&gate| round(gate, dtype)).collect();
        x.extend(random(5, width, dtype));
        check_gate("extreme", backend, dtype, &x, width);
    });
}

/// A view's other elements are NaN: whoever reads them shows.
#[test]
fn views_are_read_through_their_strides() {
    on_all(|backend, dtype| {
        let at = (&backend.device, dtype);
        let (rows, width) = (37, 64);
        let x = random(6, rows * width, dtype);
        let gamma = vec![1.0; width / 2];
        let gain = upload(&gamma, [width / 2], (&backend.device, DType::F32));
        let name = |view: &str| format!("{} {dtype:?} {view}", backend.name);
        let mut views = vec![("plain", upload(&x, [rows, width], at))];
        let mut longer = vec![f32::NAN; (rows + 16) * width];
        longer[8 * width..(8 + rows) * width].copy_from_slice(&x);
        let longer = upload(&longer, [rows + 16, width], at);
        views.push(("later rows", longer.slice([8..8 + rows, 0..width])));
        for (what, before) in [("later columns", 64), ("columns after one", 1)] {
            let all = width + 2 * before;
            let mut wider = vec![f32::NAN; rows * all];
            for (row, x) in x.chunks(width).enumerate() {
                wider[row * all + before..][..width].copy_from_slice(x);
            }
            let wider = upload(&wider, [rows, all], at);
            views.push((what, wider.slice([0..rows, before..before + width])));
        }
        let mut turned = vec![0.0; x.len()];
        for (i, &x) in x.iter().enumerate() {
            turned[i % width * rows + i / width] = x;
        }
        let turned = upload(&turned, [width, rows], at);
        views.push(("turned", turned.swap_dims(0, 1)));
        let gate = read(swiglu(views[0].1.clone()).expect("a gate"));
        let half = |x: Tensor<2>| x.slice([0..rows, 0..width / 2]);
        let norm = |x: Tensor<2>| read(rms_norm(half(x), &gain, EPS).expect("a norm"));
        let normed = norm(views[0].1.clone());
        for (view, tensor) in views {
            assert_eq!(norm(tensor.clone()), normed, "{}", name(view));
            assert_eq!(
                read(swiglu(tensor).expect("a gate")),
                gate,
                "{}",
                name(view)
            );
        }
    });
}

/// One call of `rope_append`, and what it must give.
struct Rope {
    spans: Vec<Span>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Rope {
    fn rows(&self) -> usize {
        self.spans.iter().map(|s| s.query_len).max().unwrap_or(0)
    }

    fn capacity(&self) -> usize {
        self.spans.iter().map(|s| s.kv_len).max().unwrap_or(0) + 3
    }

    fn frequencies(&self) -> Vec<f64> {
        let half = self.head_dim / 2;
        let exponent = |i: usize| i as f64 / half as f64;
        (0..half).map(|i| 10000f64.powf(-exponent(i))).collect()
    }

    fn cache(&self) -> [usize; 4] {
        let [batch, capacity] = [self.spans.len(), self.capacity()];
        [batch, self.kv_heads, capacity, self.head_dim]
    }

    fn plan(&self, device: &Device) -> AttentionPlan {
        let heads = Heads::new(self.heads, self.kv_heads, self.head_dim);
        let dense = AttentionSettings::dense();
        AttentionPlan::new(&dense, &self.spans, heads, Visible::Causal, device).expect("a plan")
    }

    /// Row `row` of head `head` of all, rotated to `position`, and the error to allow inside.
    fn turned(&self, qkv: &[f32], row: usize, head: usize, position: usize) -> Vec<(f64, f64)> {
        let (d, half) = (self.head_dim, self.head_dim / 2);
        let width = (self.heads + 2 * self.kv_heads) * d;
        let x = &qkv[row * width + head * d..][..d];
        let frequencies = self.frequencies();
        let pair = |i: usize| (f64::from(x[i % half]), f64::from(x[i % half + half]));
        let turn = |i: usize| {
            let (sin, cos) = (position as f64 * frequencies[i % half]).sin_cos();
            let (a, b) = pair(i);
            match i < half {
                true => a * cos - b * sin,
                false => b * cos + a * sin,
            }
        };
        let inside = |i: usize| 3e-7 * (pair(i).0.abs() + pair(i).1.abs());
        (0..d).map(|i| (turn(i), inside(i))).collect()
    }

    fn check(&self, backend: &Backend, dtype: DType) {
        let (batch, rows, d) = (self.spans.len(), self.rows(), self.head_dim);
        let name = format!(
            "{} {dtype:?} d {d} {:?}",
            backend.name,
            self.spans
                .iter()
                .map(|s| (s.query_len, s.kv_len))
                .collect::<Vec<_>>()
        );
        let all = self.heads + 2 * self.kv_heads;
        let (width, cache) = (all * d, self.cache());
        let qkv = random(7, batch * rows * width, dtype);
        let held: Vec<f32> = random(8, cache.iter().product(), dtype);
        let at = (&backend.device, dtype);
        let capacity = self.capacity();
        let (query, key, value) = rope_append(
            upload(&qkv, [batch * rows, width], at),
            &rotation_table(&self.frequencies(), capacity, &backend.device),
            upload(&held, cache, at),
            upload(&held, cache, at),
            &self.plan(&backend.device),
        )
        .expect(&name);
        let dims = [batch, self.heads, rows, d];
        assert_eq!((query.dims(), query.dtype()), (dims, dtype), "{name}");
        let (query, key, value) = (read(query), read(key), read(value));
        for (b, span) in self.spans.iter().enumerate() {
            for i in 0..rows {
                let position = span.offset() + i;
                for head in 0..self.heads {
                    let got = &query[((b * self.heads + head) * rows + i) * d..][..d];
                    if i >= span.query_len {
                        assert!(got.iter().all(|&x| x == 0.0), "{name}: padded {b}, {i}");
                        continue;
                    }
                    let (exact, inside): (Vec<_>, Vec<_>) = self
                        .turned(&qkv, b * rows + i, head, position)
                        .into_iter()
                        .unzip();
                    close(&name, dtype, got, &exact, |i| inside[i]);
                }
            }
            for head in 0..self.kv_heads {
                for position in 0..capacity {
                    let from = ((b * self.kv_heads + head) * capacity + position) * d;
                    let (key, value) = (&key[from..from + d], &value[from..from + d]);
                    if !(span.offset()..span.kv_len).contains(&position) {
                        let same = [key, value].map(|x| x == &held[from..from + d]);
                        assert_eq!(same, [true; 2], "{name}: touched {b}, {head}, {position}");
                        continue;
                    }
                    let row = b * rows + position - span.offset();
                    let (exact, inside): (Vec<_>, Vec<_>) = self
                        .turned(&qkv, row, self.heads + head, position)
                        .into_iter()
                        .unzip();
                    close(&name, dtype, key, &exact, |i| inside[i]);
                    let at = row * width + (self.heads + self.kv_heads + head) * d;
                    assert_eq!(value, &qkv[at..at + d], "{name}: value {b}, {head}");
                }
            }
        }
    }
}

fn span(query_len: usize, kv_len: usize) -> Span {
    Span {
        query_len,
        kv_len,
        prompt_len: kv_len,
    }
}

#[test]
fn rotation_at_every_offset() {
    on_all(|backend, dtype| {
        for head_dim in [64, 80, 96, 128, 256] {
            for offset in [0, 1, 100, 8192] {
                // A long cache is slow to check, and its head dimension says nothing new.
                if offset > 1000 && ![64, 128].contains(&head_dim) {
                    continue;
                }
                let rope = Rope {
                    spans: vec![span(37, offset + 37)],
                    heads: 6,
                    kv_heads: 2,
                    head_dim,
                };
                rope.check(backend, dtype);
            }
        }
    });
}

#[test]
fn rotation_of_ragged_batches() {
    on_all(|backend, dtype| {
        for (heads, kv_heads, head_dim) in [(6, 2, 64), (3, 3, 40), (4, 1, 34)] {
            let spans = vec![span(5, 12), span(70, 70), span(1, 100)];
            let rope = Rope {
                spans,
                heads,
                kv_heads,
                head_dim,
            };
            rope.check(backend, dtype);
        }
    });
}

/// The counter serves the whole program: of all tests in this file only this one holds handles.
#[test]
fn caches_are_written_in_place_unless_a_handle_is_held() {
    let rope = Rope {
        spans: vec![span(9, 40)],
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
    };
    for backend in backends::all() {
        let at = (&backend.device, DType::F32);
        let table = rotation_table(&rope.frequencies(), rope.capacity(), at.0);
        let qkv = || upload(&random(9, 9 * 8 * 64, DType::F32), [9, 8 * 64], at);
        let held = random(10, rope.cache().iter().product(), DType::F32);
        let cache = || upload(&held, rope.cache(), at);
        let plan = rope.plan(at.0);
        let before = append_copies();
        let made = rope_append(qkv(), &table, cache(), cache(), &plan).expect("a call");
        let (query, key) = (read(made.0), read(made.1));
        assert_eq!(append_copies(), before, "{}: copied", backend.name);

        let (keys, values) = (cache(), cache());
        let handles = (keys.clone(), values.clone());
        let made = rope_append(qkv(), &table, keys, values, &plan).expect("a call");
        assert_eq!(
            (read(made.0), read(made.1)),
            (query, key),
            "{}",
            backend.name
        );
        assert_eq!(append_copies(), before + 2, "{}: copies", backend.name);
        for handle in [handles.0, handles.1] {
            assert_eq!(read(handle), held, "{}: a held handle", backend.name);
        }
    }
}

#[test]
fn refusals() {
    let device = &Device::flex();
    let zeros = |shape: [usize; 2]| Tensor::<2>::zeros(shape, (device, DType::F32));
    let gamma = Tensor::<1>::ones([4], (device, DType::F32));
    let message = |error: FusedError| error.to_string();
    let norm = |x: Tensor<2>, gamma: &Tensor<1>, eps: f64| {
        message(rms_norm(x, gamma, eps).expect_err("a refusal"))
    };
    assert!(norm(zeros([2, 5]), &gamma, EPS).contains("length of gamma is 4"));
    assert!(norm(zeros([0, 4]), &gamma, EPS).contains("rows is 0"));
    assert!(norm(zeros([2, 4]), &gamma, -1.0).contains("eps is -1"));
    assert!(norm(zeros([2, 4]), &gamma.clone().cast(DType::F16), EPS).contains("gamma is F16"));
    assert!(norm(zeros([2, 4]).cast(DType::F64), &gamma, EPS).contains("F64"));
    assert!(message(swiglu(zeros([2, 5])).expect_err("odd")).contains("even"));

    let rope = Rope {
        spans: vec![span(2, 5)],
        heads: 3,
        kv_heads: 1,
        head_dim: 8,
    };
    let plan = rope.plan(device);
    let table = |positions| rotation_table(&rope.frequencies(), positions, device);
    let call = |qkv: [usize; 2], table: &Tensor<2>, cache: [usize; 4]| -> AttentionError {
        let cache = || Tensor::<4>::zeros(cache, (device, DType::F32));
        rope_append(zeros(qkv), table, cache(), cache(), &plan).expect_err("a refusal")
    };
    let said = |error: AttentionError| error.to_string();
    assert!(said(call([3, 40], &table(8), [1, 1, 8, 8])).contains("number of rows"));
    assert!(said(call([2, 41], &table(8), [1, 1, 8, 8])).contains("width of a row"));
    assert!(said(call([2, 16], &table(8), [1, 1, 8, 8])).contains("at least 24"));
    assert!(said(call([2, 40], &table(4), [1, 1, 8, 8])).contains("at least 5"));
    assert!(said(call([2, 40], &table(8), [1, 1, 8, 10])).contains("width of the rotation"));
    let full = call([2, 40], &table(8), [1, 1, 4, 8]);
    assert!(matches!(
        full,
        AttentionError::CacheFull {
            needed: 5,
            capacity: 4,
            ..
        }
    ));
    for backend in backends::with_kernels() {
        if backend.dtypes.contains(&DType::BF16) {
            continue;
        }
        let x = Tensor::<2>::zeros([2, 4], (&backend.device, DType::BF16));
        let error = swiglu(x).expect_err("no bf16").to_string();
        assert!(error.contains("f16 or f32"), "{error}");
        let there = gamma.clone().to_device(&backend.device);
        assert!(norm(zeros([2, 4]), &there, EPS).contains("to_device"));
    }
}
