//! Linear layers against the formula in f64, on every backend of this build; views of every kind, order
//! on the device's streams, and what is refused.

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sparse_accelerate_layers::{LinearError, Route, diagnostics, linear, route};
use sparse_accelerate_tests::{
    backends::{self, Backend},
    problem::round,
    tolerance,
};

/// Rows, in, out: a row alone, odd sizes, nothing a multiple of 8, and one plain one.
const SHAPES: [[usize; 3]; 7] = [
    [1, 24, 16],
    [3, 17, 5],
    [65, 33, 70],
    [1, 129, 3],
    [65, 64, 1],
    [7, 1, 9],
    [128, 256, 192],
];

/// Memory layout of an operand.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lies {
    Plain,
    /// Columns contiguous.
    Turned,
    /// Rows `8..` of a longer matrix: 512 bytes in, where CUDA slices without a copy.
    LaterRows,
    /// Columns `1..` of a wider matrix: rows apart.
    LaterColumns,
    /// Every other column: neither rows nor columns contiguous.
    EveryOther,
}

const LIES: [Lies; 5] = [
    Lies::Plain,
    Lies::Turned,
    Lies::LaterRows,
    Lies::LaterColumns,
    Lies::EveryOther,
];

fn values(seed: u64, count: usize, dtype: DType) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut next = || round(random.random_range(-1.0f32..1.0), dtype);
    (0..count).map(|_| next()).collect()
}

fn upload(values: Vec<f32>, shape: [usize; 2], backend: &Backend, dtype: DType) -> Tensor<2> {
    let data = TensorData::new(values, shape);
    Tensor::from_data(data, (&backend.device, dtype))
}

/// The matrix as a view of a larger one whose other elements are NaN.
fn view(m: &[f32], [r, c]: [usize; 2], lies: Lies, backend: &Backend, dtype: DType) -> Tensor<2> {
    let embed = |shape: [usize; 2], at: &dyn Fn(usize, usize) -> usize| {
        let mut all = vec![f32::NAN; shape[0] * shape[1]];
        for (i, &x) in m.iter().enumerate() {
            all[at(i / c, i % c)] = x;
        }
        upload(all, shape, backend, dtype)
    };
    match lies {
        Lies::Plain => embed([r, c], &|i, j| i * c + j),
        Lies::Turned => embed([c, r], &|i, j| j * r + i).swap_dims(0, 1),
        Lies::LaterRows => embed([r + 16, c], &|i, j| (i + 8) * c + j).slice([8..8 + r, 0..c]),
        Lies::LaterColumns => {
            embed([r, c + 3], &|i, j| i * (c + 3) + j + 1).slice([0..r, 1..1 + c])
        }
        Lies::EveryOther => embed([r, 2 * c], &|i, j| (2 * i) * c + 2 * j)
            .reshape([r, c, 2])
            .slice([0..r, 0..c, 0..1])
            .squeeze_dim(2),
    }
}

/// `sum_i x[r, i] w[o, i]` with every sum passed through `sum`.
fn product(x: &[f32], w: &[f32], inputs: usize, sum: impl Fn(f64) -> f64) -> Vec<f64> {
    let dot = |x: &[f32], w: &[f32]| {
        let terms = x.iter().zip(w);
        terms.fold(0.0, |acc, (&x, &w)| sum(acc + f64::from(x) * f64::from(w)))
    };
    x.chunks(inputs)
        .flat_map(|x| w.chunks(inputs).map(move |w| dot(x, w)))
        .collect()
}

fn read(tensor: Tensor<2>) -> Vec<f32> {
    tensor.try_into_vec_as().expect("the product failed")
}

fn check(backend: &Backend, dtype: DType, shape: [usize; 3], x_lies: Lies, w_lies: Lies) {
    let [rows, inputs, outputs] = shape;
    let (x, w) = (
        values(1, rows * inputs, dtype),
        values(2, outputs * inputs, dtype),
    );
    let got = linear(
        view(&x, [rows, inputs], x_lies, backend, dtype),
        &view(&w, [outputs, inputs], w_lies, backend, dtype),
    )
    .expect("a product");
    assert_eq!((got.dims(), got.dtype()), ([rows, outputs], dtype));
    let exact = product(&x, &w, inputs, |s| s);
    let plain = product(&x, &w, inputs, |s| f64::from(s as f32));
    let plain: Vec<f64> = plain
        .iter()
        .map(|&s| f64::from(round(s as f32, dtype)))
        .collect();
    let name = format!("{} {dtype:?} {shape:?} {x_lies:?} {w_lies:?}", backend.name);
    tolerance::check(&name, dtype, &read(got), &exact, &plain);
}

/// Returns true if the product is ours and tested in full. Burn's own tunes itself for every shape and
/// layout, which takes seconds each on a software driver; there a few must do.
fn thorough(backend: &Backend) -> bool {
    backend.name != "wgpu"
}

#[test]
fn shapes() {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            let all = thorough(&backend) || dtype == DType::F32;
            for shape in SHAPES.into_iter().take(if all { SHAPES.len() } else { 2 }) {
                check(&backend, dtype, shape, Lies::Plain, Lies::Plain);
            }
        }
    }
}

#[test]
fn views() {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            for (i, x_lies) in LIES.into_iter().enumerate() {
                for (j, w_lies) in LIES.into_iter().enumerate() {
                    if thorough(&backend) || (i + j == 4 && dtype == DType::F32) {
                        check(&backend, dtype, [19, 40, 24], x_lies, w_lies);
                    }
                }
                if thorough(&backend) {
                    check(&backend, dtype, [1, 24, 17], x_lies, Lies::Plain);
                }
            }
        }
    }
}

#[test]
fn flex_is_what_it_was() {
    let keep = |backend: &Backend| backend.name == "flex";
    for backend in backends::all().into_iter().filter(keep) {
        for &dtype in &backend.dtypes {
            let x = upload(values(3, 65 * 70, dtype), [65, 70], &backend, dtype);
            let w = upload(values(4, 33 * 70, dtype), [33, 70], &backend, dtype);
            let old = x.clone().matmul(w.clone().swap_dims(0, 1));
            let new = linear(x, &w).expect("a product");
            assert_eq!(read(new), read(old), "{dtype:?}");
        }
    }
}

/// Adds a number, multiplies by a permutation, takes the number off: exact in every type, and wrong
/// from the first product on that ran before its input or after its output was read.
fn rounds(backend: &Backend, dtype: DType, weight: &Tensor<2>, rounds: usize, seed: u64) {
    let [size, _] = weight.dims();
    let rows = 33;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let start: Vec<f32> = (0..rows * size)
        .map(|_| random.random_range(-60i32..60) as f32)
        .collect();
    let mut x = upload(start.clone(), [rows, size], backend, dtype);
    for round in 0..rounds {
        let add = (round % 59) as f32;
        x = linear(x + add, weight).expect("a product") - add;
    }
    let got = read(x);
    let expected = |r: usize, c: usize| start[r * size + (c + rounds) % size];
    for (i, got) in got.iter().enumerate() {
        let (r, c) = (i / size, i % size);
        assert_eq!(
            *got,
            expected(r, c),
            "{} {dtype:?} at {r}, {c}",
            backend.name
        );
    }
}

/// `out[o] = in[o + 1]`.
fn turn(size: usize, backend: &Backend, dtype: DType) -> Tensor<2> {
    let mut weight = vec![0.0; size * size];
    for o in 0..size {
        weight[o * size + (o + 1) % size] = 1.0;
    }
    upload(weight, [size, size], backend, dtype)
}

/// Large enough on a GPU that a product is still running when the next operation is submitted.
fn size(backend: &Backend) -> usize {
    if backend.name == "cuda" { 2048 } else { 64 }
}

#[test]
fn order_with_kernels_before_and_after() {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            let weight = turn(size(&backend), &backend, dtype);
            rounds(&backend, dtype, &weight, 200, 5);
        }
    }
}

#[test]
fn order_across_threads() {
    for backend in backends::all() {
        let dtype = backend.dtypes[backend.dtypes.len() - 1];
        let weight = turn(size(&backend), &backend, dtype);
        // Each thread has a stream of its own and reads the weight of this one's.
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (backend, weight) = (&backend, &weight);
                scope.spawn(move || rounds(backend, dtype, weight, 60, seed));
            }
        });
    }
}

#[test]
fn routes_have_reasons() {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            let routing = route(&backend.device, dtype);
            println!("{} {dtype:?}: {routing}", backend.name);
            assert!(!routing.reason.is_empty());
            assert!(backend.name == "cuda" || routing.route == Route::Burn);
            let before = (diagnostics::launches(), diagnostics::refused());
            check(&backend, dtype, [8, 64, 32], Lies::Plain, Lies::Plain);
            if routing.route == Route::CublasLt {
                assert!(diagnostics::launches() > before.0, "{dtype:?}: no launch");
            }
        }
        assert_eq!(route(&backend.device, DType::F64).route, Route::Burn);
    }
}

#[test]
fn refusals() {
    let device = &Device::flex();
    let zeros = |shape: [usize; 2]| Tensor::<2>::zeros(shape, device);
    assert_eq!(
        linear(zeros([2, 3]), &zeros([3, 4])).expect_err("shape"),
        LinearError::Shape {
            x: [2, 3],
            weight: [3, 4]
        }
    );
    assert_eq!(
        linear(zeros([0, 3]), &zeros([4, 3])).expect_err("no rows"),
        LinearError::Empty {
            x: [0, 3],
            weight: [4, 3]
        }
    );
    assert_eq!(
        linear(zeros([2, 3]), &zeros([4, 3]).cast(DType::F16)).expect_err("types"),
        LinearError::DType {
            x: DType::F32,
            weight: DType::F16
        }
    );
    for backend in backends::with_kernels() {
        let elsewhere = Tensor::<2>::zeros([4, 3], &backend.device);
        let error = linear(zeros([2, 3]), &elsewhere).expect_err("devices");
        assert!(matches!(error, LinearError::Device { .. }), "{error}");
        assert!(error.to_string().contains("to_device"), "{error}");
    }
}
