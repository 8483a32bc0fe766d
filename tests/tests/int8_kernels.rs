//! The kernels of int8 caches, launched by hand: outputs are filled with what no kernel writes and longer
//! than needed. Words and scales are compared bit for bit with the formula, attention with the f64 oracle
//! over what the int8 stands for.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use burn::tensor::DType;
use cubecl::{
    client::Client,
    features::Plane,
    ir::{AddressType, DeviceProperties},
    server::Handle,
};
use sparse_accelerate::{Triangular, index, index::TileIndex};
use sparse_accelerate_kernels::{
    Refusal, append,
    attend::{self, Stored, Tier},
    int8::{self, CachePart},
    rope_append,
};
use sparse_accelerate_tests::{
    int8_rows,
    launches::{self, BEYOND, buffer, read, tensor, upload, upload_as},
    problem::{Problem, round},
};

/// Written by no kernel: no byte is -128.
const UNTOUCHED: u32 = 0x8080_8080;

fn each_type(run: impl Fn(&str, &Client, DType)) {
    launches::each_device(|name, client, dtype| run(&format!("{name}/{dtype:?}"), client, dtype));
}

fn words_of(client: &Client, handle: Handle) -> Vec<u32> {
    let bytes = client.read_one(handle).expect("the launch failed");
    bytemuck::cast_slice(&bytes).to_vec()
}

/// Rows of `d` elements that hurt: random ones, zeros, tiny and huge ones, halves, one that is not finite.
fn rows(count: usize, d: usize, dtype: DType) -> Vec<f32> {
    let mut seed = 12345u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count * d)
        .map(|i| {
            let (row, e) = (i / d, i % d);
            let x = match row % 11 {
                1 => 0.0,
                2 => next() * 1e-37,
                3 => next() * 6e4,
                // A scale of 1, and halves.
                4 if e == d / 2 => -127.0,
                4 => (e % 250) as f32 / 2.0 - 62.0,
                5 if e == d - 1 => f32::NAN,
                6 if e == 3 => f32::INFINITY,
                7 if e == 0 => 1e4,
                8 => -0.25,
                _ => next(),
            };
            round(x, dtype)
        })
        .collect()
}

/// Query rows and keys of ragged sequences.
const SPANS: [(usize, usize); 4] = [(5, 12), (0, 3), (2, 2), (5, 5)];
const CAPACITY: usize = 13;
const HEADS: usize = 3;

fn spans() -> Vec<u32> {
    launches::span_table(&SPANS)
}

/// New row of a place in the cache, if one lands there.
fn landed(b: usize, position: usize) -> Option<usize> {
    let (q, kv) = SPANS[b];
    (kv - q..kv).contains(&position).then(|| position + q - kv)
}

/// Compares what was written with the int8 of the new rows, `row(b, head, i)`.
fn compare(
    name: &str,
    d: usize,
    (words, scales): (&[u32], &[f32]),
    part: usize,
    row: impl Fn(usize, usize, usize) -> Vec<f32>,
) {
    let width = d / 4;
    for b in 0..SPANS.len() {
        for head in 0..HEADS {
            for position in 0..CAPACITY {
                let at = (b * HEADS + head) * CAPACITY + position;
                let got = &words[at * width..][..width];
                let scale = scales[((b * HEADS + head) * 2 + part) * CAPACITY + position];
                let name = format!("{name}: d {d}, sequence {b}, head {head}, {position}");
                let Some(i) = landed(b, position) else {
                    assert!(got.iter().all(|w| *w == UNTOUCHED), "{name}: touched");
                    assert_eq!(scale, -1.0, "{name}: touched a scale");
                    continue;
                };
                let (expected, scales) = int8_rows::quantize(&row(b, head, i), d);
                let same = scale.to_bits() == scales[0].to_bits()
                    || (scale.is_nan() && scales[0].is_nan());
                assert!(same, "{name}: scale {scale}, expected {}", scales[0]);
                assert_eq!(got, expected, "{name}");
            }
        }
    }
    let clean = words[SPANS.len() * HEADS * CAPACITY * width..].iter();
    assert!(
        clean.copied().all(|w| w == UNTOUCHED),
        "{name}: past the words"
    );
    let clean = scales[SPANS.len() * HEADS * CAPACITY * 2..].iter();
    assert!(clean.copied().all(|x| x == -1.0), "{name}: past the scales");
}

fn empty(client: &Client, d: usize) -> (Handle, Handle) {
    let places = SPANS.len() * HEADS * CAPACITY;
    let words = upload(client, &vec![UNTOUCHED; places * d / 4 + BEYOND]);
    (words, upload(client, &vec![-1.0f32; 2 * places + BEYOND]))
}

const SHAPES: [usize; 9] = [8, 32, 40, 64, 72, 80, 128, 136, 256];

#[test]
fn append_writes_the_words_and_scales_of_the_formula() {
    each_type(|name, client, dtype| {
        for d in SHAPES {
            for part in [CachePart::Key, CachePart::Value] {
                let shape = [SPANS.len(), HEADS, 5, d];
                let new = rows(SPANS.len() * HEADS * 5, d, dtype);
                let (words, scales) = empty(client, d);
                let table = spans();
                let cache = [SPANS.len(), HEADS, CAPACITY, d / 4];
                let tensors = append::Tensors {
                    cache: tensor(&words, cache),
                    new: tensor(&upload_as(client, &new, dtype), shape),
                    table: buffer(&upload(client, &table), table.len()),
                    scales: Some((tensor(&scales, [SPANS.len(), HEADS, 2, CAPACITY]), part)),
                    address: AddressType::U32,
                };
                append::launch(client, shape, launches::elem(dtype), tensors);
                let words = words_of(client, words);
                let scales = read(client, scales, DType::F32);
                let row = |b: usize, head: usize, i: usize| {
                    new[((b * HEADS + head) * 5 + i) * d..][..d].to_vec()
                };
                // The other part's scales are not touched.
                let other = |i: usize| i / CAPACITY % 2 != part as usize;
                let untouched = scales.iter().enumerate().filter(|(i, _)| other(*i));
                assert!(untouched.into_iter().all(|(_, x)| *x == -1.0), "{name}");
                compare(name, d, (&words, &scales), part as usize, row);
            }
        }
    });
}

#[test]
fn rope_append_writes_the_words_and_scales_of_the_formula() {
    each_type(|name, client, dtype| {
        for d in SHAPES {
            let (batch, heads, n) = (SPANS.len(), 2 * HEADS, 5);
            let all = heads + 2 * HEADS;
            let qkv = rows(batch * n * all, d, dtype);
            // Cosine 1 and sine 0: nothing turns, so that every number can be told from where it came.
            let turn = (0..CAPACITY * d).map(|i| f32::from(i % d < d / 2));
            let rotation: Vec<f32> = turn.collect();
            let ((key, scales), (value, _)) = (empty(client, d), empty(client, d));
            let query = upload_as(
                client,
                &vec![f32::NAN; batch * n * heads * d + BEYOND],
                dtype,
            );
            let table = spans();
            let cache = [batch, HEADS, CAPACITY, d / 4];
            let tensors = rope_append::Tensors {
                qkv: tensor(&upload_as(client, &qkv, dtype), [batch * n, 1, 1, all * d]),
                rotation: tensor(&upload(client, &rotation), [CAPACITY, 1, 1, d]),
                table: buffer(&upload(client, &table), table.len()),
                query: buffer(&query, batch * n * heads * d),
                key: tensor(&key, cache),
                value: tensor(&value, cache),
                scales: Some(tensor(&scales, [batch, HEADS, 2, CAPACITY])),
                strides: vec![all * d, d],
                address: AddressType::U32,
            };
            let shape = rope_append::Shape {
                batch,
                rows: n,
                heads,
                kv_heads: HEADS,
                head_dim: d,
            };
            rope_append::launch(client, &shape, launches::elem(dtype), tensors);
            let scales = read(client, scales, DType::F32);
            for (part, words, first) in [(0, key, heads), (1, value, heads + HEADS)] {
                let words = words_of(client, words);
                let row = |b: usize, head: usize, i: usize| {
                    qkv[((b * n + i) * all + first + head) * d..][..d].to_vec()
                };
                let turned = |b: usize, head: usize, i: usize| {
                    let row = row(b, head, i);
                    // An infinite partner makes NaN of 0 times it.
                    let finite = row.iter().all(|x| x.is_finite());
                    if part == 0 && !finite {
                        vec![f32::NAN; d]
                    } else {
                        row
                    }
                };
                compare(
                    &format!("{name}/{part}"),
                    d,
                    (&words, &scales),
                    part,
                    turned,
                );
            }
            let query = read(client, query, dtype);
            for row in 0..batch * n {
                let live = row % n < SPANS[row / n].0;
                for e in 0..heads * d {
                    let (got, from) = (query[row * heads * d + e], qkv[row * all * d + e]);
                    let partner = row * all * d + e / d * d + (e % d + d / 2) % d;
                    let expected = match (live, qkv[partner].is_finite()) {
                        (false, _) => 0.0,
                        (true, true) => from,
                        (true, false) => f32::NAN,
                    };
                    let same = got == expected || (got.is_nan() && expected.is_nan());
                    assert!(
                        same,
                        "{name}: d {d}, query {row}, {e}: {got}, not {expected}"
                    );
                }
            }
            assert!(query[batch * n * heads * d..].iter().all(|x| x.is_nan()));
        }
    });
}

#[test]
fn dequantizing_writes_every_token_and_nothing_else() {
    each_type(|name, client, dtype| {
        for d in SHAPES {
            let dims = [SPANS.len(), HEADS, CAPACITY, d];
            let len: usize = dims.iter().product();
            let rows = rows(len / d, d, DType::F32);
            let (words, scales) = int8_rows::quantize(&rows, d);
            let expected = int8_rows::dequantize(&words, &scales);
            let none = vec![-1.0; scales.len()];
            for part in [CachePart::Key, CachePart::Value] {
                let both = match part {
                    CachePart::Key => int8_rows::interleave(&scales, &none, CAPACITY),
                    CachePart::Value => int8_rows::interleave(&none, &scales, CAPACITY),
                };
                let out = upload_as(client, &vec![-7.0; len + BEYOND], dtype);
                let table = spans();
                let width = [dims[0], dims[1], dims[2], d / 4];
                let tensors = int8::Tensors {
                    words: tensor(&upload(client, &words), width),
                    scales: tensor(&upload(client, &both), [dims[0], HEADS, 2, CAPACITY]),
                    table: buffer(&upload(client, &table), table.len()),
                    out: tensor(&out, dims),
                    address: AddressType::U32,
                };
                let shape = [dims[0], HEADS, 12, d];
                int8::launch(client, shape, part, launches::elem(dtype), tensors);
                let got = read(client, out, dtype);
                for (at, x) in got.iter().enumerate() {
                    let (b, position) = (at / (HEADS * CAPACITY * d), at / d % CAPACITY);
                    let written = at < len && position < SPANS[b].1;
                    let expected = if written {
                        round(expected[at], dtype)
                    } else {
                        -7.0
                    };
                    let same = *x == expected || (x.is_nan() && expected.is_nan());
                    assert!(same, "{name}: d {d}, {at} is {x}, not {expected}");
                }
            }
        }
    });
}

fn request(problem: &Problem, index: Option<&TileIndex>) -> attend::Problem {
    attend::Problem {
        stored: Stored::Int8,
        ..launches::request(problem, index)
    }
}

/// As it is, twice, and as if the device had no plane operations.
fn decode(name: &str, client: &Client, problem: &Problem, index: Option<&TileIndex>, last: usize) {
    let inputs = problem.inputs(11);
    let stored = int8_rows::stored(problem, &inputs);
    let name = format!("{name}/{:?}/{:?}", problem.query_dims(), problem.spans);
    let (request, elem) = (request(problem, index), launches::elem(problem.dtype));
    let mut device = client.properties().clone();
    let run = |device: &DeviceProperties| {
        let plan = attend::prepare(&request, elem, device).expect("something reads int8");
        let Tier::SplitK(blueprint) = plan.tier else {
            panic!("{name}: {plan:?}")
        };
        assert!(blueprint.int8, "{name}: {plan:?}");
        let written = launches::run_int8(&name, client, &plan, problem, &inputs, index, last);
        launches::compare(&name, problem, &stored, index, &written);
        (written, blueprint.planes)
    };
    let (first, planes) = run(&device);
    let (again, _) = run(&device);
    let first = (first.out, first.lse);
    assert_eq!(first, (again.out, again.lse), "{name}: two runs");
    if planes {
        device.features.plane.remove(Plane::Ops);
        run(&device);
    }
}

#[test]
fn decoding_reads_int8_of_every_head_dim() {
    each_type(|name, client, dtype| {
        for (d, longest) in [
            (32, 4097),
            (40, 600),
            (64, 1000),
            (72, 1000),
            (80, 129),
            (128, 2049),
        ] {
            let spans = [(1, 1), (1, 63), (0, 65), (1, 127), (1, longest.max(300))];
            decode(
                name,
                client,
                &Problem::decoding(dtype, [4, 1, d], &spans),
                None,
                0,
            );
        }
        decode(
            name,
            client,
            &Problem::decoding(dtype, [2, 2, 256], &[(1, 700)]),
            None,
            0,
        );
    });
}

#[test]
fn decoding_reads_int8_of_every_group() {
    each_type(|name, client, dtype| {
        for group in [1, 2, 3, 4, 7, 16] {
            let spans = [(1, 1), (1, 700), (1, 300)];
            decode(
                name,
                client,
                &Problem::decoding(dtype, [2 * group, 2, 64], &spans),
                None,
                0,
            );
        }
        let spans = [(4, 700), (1, 1), (3, 300), (2, 2)];
        for heads in [[2, 2, 40], [6, 2, 40], [8, 1, 40]] {
            decode(
                name,
                client,
                &Problem::decoding(dtype, heads, &spans),
                None,
                0,
            );
        }
    });
}

#[test]
fn decoding_reads_int8_under_bands_and_columns() {
    for (name, client) in &launches::clients() {
        let dtype = DType::F32;
        let spans = [(1, 1), (3, 1500), (1, 600)];
        for (heads, last) in [([8, 2, 32], 0), ([2, 2, 72], 22), ([4, 2, 32], 19)] {
            let problem = Problem::decoding(dtype, heads, &spans);
            let pattern = Triangular {
                sink: 19,
                window: 401,
                last,
            };
            let index = index::triangular(&problem.spans, &pattern).expect("index");
            decode(name, client, &problem, Some(&index), last);
        }
        for heads in [1, 2, 6] {
            let problem = Problem::decoding(dtype, [6, 2, 48], &[(1, 3), (2, 1400), (1, 500)]);
            let columns: Vec<Vec<usize>> = (0..heads)
                .map(|h| (0..1300).step_by(5 + h).collect())
                .collect();
            let offsets: Vec<Vec<usize>> =
                (0..heads).map(|h| vec![0, 90 + 11 * h, 400, 401]).collect();
            let index = index::interval_slash(&problem.spans, &columns, &offsets).expect("index");
            decode(name, client, &problem, Some(&index), 0);
        }
    }
}

#[test]
fn large_logits_over_int8() {
    each_type(|name, client, dtype| {
        let problem = Problem {
            magnitude: 8.0,
            ..Problem::decoding(dtype, [8, 2, 64], &[(1, 900), (2, 300)])
        };
        decode(name, client, &problem, None, 0);
    });
}

#[test]
fn a_key_or_a_value_that_is_no_number_reaches_the_output() {
    each_type(|name, client, dtype| {
        let problem = Problem::decoding(dtype, [4, 2, 64], &[(1, 500), (1, 400)]);
        for (of_key, bad) in [(true, f32::NAN), (false, f32::NAN), (true, f32::INFINITY)] {
            let mut inputs = problem.inputs(3);
            // Sequence 0, KV head 1, token 77.
            let at = (problem.keys() + 77) * 64 + 5;
            match of_key {
                true => inputs.key[at] = bad,
                false => inputs.value[at] = bad,
            }
            let request = request(&problem, None);
            let elem = launches::elem(dtype);
            let plan = attend::prepare(&request, elem, client.properties()).expect("plan");
            let got = launches::run_int8(name, client, &plan, &problem, &inputs, None, 0);
            for (at, x) in got.out.iter().enumerate() {
                let (b, head) = (at / 256, at / 64 % 4);
                let expected = b == 0 && head >= 2;
                assert_eq!(x.is_nan(), expected, "{name}: {b}, {head}: {x}");
            }
        }
    });
}

#[test]
fn many_rows_over_int8_are_refused() {
    for (_, client) in launches::clients() {
        let request = |heads, spans: &[(usize, usize)]| {
            let problem = Problem::decoding(DType::F32, heads, spans);
            let elem = launches::elem(DType::F32);
            attend::prepare(&request(&problem, None), elem, client.properties())
        };
        assert!(request([8, 1, 64], &[(4, 1000)]).is_ok());
        for (heads, spans) in [([8, 1, 64], (5, 1000)), ([9, 1, 64], (4, 1000))] {
            let refusal = request(heads, &[spans]).expect_err("refused");
            assert_eq!(refusal, Refusal::Int8 { rows: spans.0 });
            assert!(refusal.to_string().contains("dequantize"), "{refusal}");
        }
    }
}
