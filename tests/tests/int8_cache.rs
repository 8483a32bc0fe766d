//! Int8 caches on every backend: what goes in comes out within half a scale, attention is that over what
//! the int8 stands for, and appending, truncating and selecting are as in a cache of elements.

use burn::tensor::{DType, Tensor, TensorData};
use sparse_accelerate::{
    AttentionError, AttentionPlan, AttentionSettings, CacheShape, Dynamic, Heads, KvCache, KvType,
    Pattern, Visible, diagnostics::append_copies, rotation_table,
};
use sparse_accelerate_tests::{
    backends::{self, Backend},
    int8_rows, oracle,
    problem::{Inputs, Layout, Problem, floats, round},
    tolerance,
};

fn same_bits(name: &str, left: &[f32], right: &[f32]) {
    assert_eq!(left.len(), right.len(), "{name}");
    for (i, (x, y)) in left.iter().zip(right).enumerate() {
        let same = x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
        assert!(same, "{name}: entry {i} is {x} and {y}");
    }
}

fn shape(problem: &Problem) -> CacheShape {
    CacheShape {
        layers: 2,
        batch: problem.spans.len(),
        kv_heads: problem.kv_heads,
        capacity: problem.keys(),
        head_dim: problem.head_dim,
    }
}

fn empty(problem: &Problem, kv: KvType, backend: &Backend) -> KvCache {
    KvCache::with_type(&shape(problem), kv, problem.dtype, &backend.device).expect("cache")
}

/// Rows `from..to` of every sequence and KV head, right-padded with NaN.
fn rows(problem: &Problem, values: &[f32], parts: &[(usize, usize)], on: &Backend) -> Tensor<4> {
    let [batch, heads, keys, d] = problem.key_dims();
    let longest = parts.iter().map(|(from, to)| to - from).max().unwrap_or(0);
    let mut new = Vec::with_capacity(batch * heads * longest * d);
    for (b, &(from, to)) in parts.iter().enumerate() {
        for head in 0..heads {
            let at = (b * heads + head) * keys * d;
            new.extend_from_slice(&values[at + from * d..at + to * d]);
            new.resize(new.len() + (longest - (to - from)) * d, f32::NAN);
        }
    }
    problem.tensor(
        &new,
        [batch, heads, longest, d],
        Layout::Contiguous,
        &on.device,
    )
}

/// Appends tokens `from..to` of every sequence to layer 1.
fn append(
    cache: &mut KvCache,
    problem: &Problem,
    inputs: &Inputs,
    parts: &[(usize, usize)],
    on: &Backend,
) -> AttentionPlan {
    let lens: Vec<usize> = parts.iter().map(|(from, to)| to - from).collect();
    let prompts: Vec<usize> = problem.spans.iter().map(|s| s.prompt_len).collect();
    let spans = cache.spans(&lens, &prompts).expect("spans");
    let (dense, heads) = (AttentionSettings::dense(), problem.model_heads());
    let plan =
        AttentionPlan::new(&dense, &spans, heads, Visible::Causal, &on.device).expect("plan");
    let [key, value] = [&inputs.key, &inputs.value].map(|x| rows(problem, x, parts, on));
    cache.append(1, key, value, &plan).expect("append");
    cache.advance(&plan).expect("advance");
    plan
}

/// Appends everything before the last chunk in one piece, then the last chunk.
fn fill(cache: &mut KvCache, problem: &Problem, inputs: &Inputs, on: &Backend) -> AttentionPlan {
    let before: Vec<_> = problem.spans.iter().map(|s| (0, s.offset())).collect();
    let last: Vec<_> = problem
        .spans
        .iter()
        .map(|s| (s.offset(), s.kv_len))
        .collect();
    // Spans have rows: what would begin with none is appended with the rest.
    if before.iter().all(|(from, to)| from < to) {
        append(cache, problem, inputs, &before, on);
        return append(cache, problem, inputs, &last, on);
    }
    let all: Vec<_> = problem.spans.iter().map(|s| (0, s.kv_len)).collect();
    append(cache, problem, inputs, &all, on);
    problem.plan(&AttentionSettings::dense(), &on.device)
}

/// Inputs after quantisation to int8 and back.
fn stored(problem: &Problem, inputs: &Inputs) -> Inputs {
    let back = |x: &[f32]| {
        let (words, scales) = int8_rows::quantize(x, problem.head_dim);
        int8_rows::dequantize(&words, &scales)
    };
    Inputs {
        query: inputs.query.clone(),
        key: back(&inputs.key),
        value: back(&inputs.value),
    }
}

fn query(problem: &Problem, inputs: &Inputs, on: &Backend) -> Tensor<4> {
    let dims = problem.query_dims();
    problem.tensor(&inputs.query, dims, problem.layout, &on.device)
}

fn each(heads: [usize; 3], spans: &[(usize, usize)], run: impl Fn(&str, &Backend, &Problem)) {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            let problem = Problem::ragged(dtype, heads, spans);
            let name = format!("{}/{dtype:?}/{heads:?}/{spans:?}", backend.name);
            run(&name, &backend, &problem);
        }
    }
}

/// One decoding step; a chunk of ragged rows; few rows and few keys.
const CHUNKS: [&[(usize, usize)]; 4] = [
    &[(1, 300), (1, 1), (1, 257)],
    &[(65, 129), (3, 300), (64, 64)],
    &[(2, 63), (1, 40)],
    &[(129, 129)],
];

#[test]
fn attention_is_that_over_what_int8_stands_for() {
    let heads = [[4, 2, 64], [3, 1, 40], [2, 2, 32], [7, 1, 128]];
    for (heads, spans) in heads.into_iter().zip(CHUNKS) {
        each(heads, spans, |name, backend, problem| {
            let inputs = problem.inputs(5);
            let stored = stored(problem, &inputs);
            let mut cache = empty(problem, KvType::Int8, backend);
            let plan = fill(&mut cache, problem, &inputs, backend);
            let (out, record) = cache
                .attend(1, query(problem, &inputs, backend), &plan)
                .expect("attend");
            assert!(record.is_none());
            let sees = oracle::causal(problem);
            let exact = oracle::exact(problem, &stored, &sees);
            let plain = oracle::plain(problem, &stored, &sees);
            tolerance::check(name, problem.dtype, &floats(out), &exact.out, &plain.out);
        });
    }
}

/// Scores move by at most `scale sum |q| max |dk|`, so weights by twice that in their exponent, and the
/// output by what the values move and by what the weights move over the largest value.
#[test]
fn the_error_against_elements_is_bounded() {
    for spans in [CHUNKS[0], CHUNKS[1]] {
        each([4, 2, 64], spans, |name, backend, problem| {
            let inputs = problem.inputs(5);
            let mut cache = empty(problem, KvType::Int8, backend);
            let plan = fill(&mut cache, problem, &inputs, backend);
            let query = query(problem, &inputs, backend);
            let out = floats(cache.attend(1, query, &plan).expect("attend").0);
            let sees = oracle::causal(problem);
            let exact = oracle::exact(problem, &inputs, &sees);
            let unit = match problem.dtype {
                DType::BF16 => 2f64.powi(-8),
                DType::F16 => 2f64.powi(-11),
                _ => 2f64.powi(-22),
            };
            let largest = |x: &[f32]| {
                let finite = x.iter().filter(|x| x.is_finite());
                finite.fold(0f64, |m, x| m.max(f64::from(x.abs())))
            };
            let (key, value) = (largest(&inputs.key), largest(&inputs.value));
            let d = problem.head_dim;
            for (row, q) in inputs.query.chunks_exact(d).enumerate() {
                let weight: f64 = q.iter().map(|x| f64::from(x.abs())).sum();
                if weight.is_nan() {
                    continue;
                }
                let moved = key * (0.5 / 127.0 + 2.0 * unit) * weight / (d as f64).sqrt();
                let bound = value * ((2.0 * moved).exp_m1() + 0.5 / 127.0 + 8.0 * unit);
                for e in 0..d {
                    let (got, exact) = (f64::from(out[row * d + e]), exact.out[row * d + e]);
                    let off = (got - exact).abs();
                    assert!(
                        off <= bound,
                        "{name}: row {row}: {got}, not {exact}: {bound}"
                    );
                }
            }
        });
    }
}

#[test]
fn elements_come_back_within_half_a_scale() {
    each([2, 2, 80], CHUNKS[1], |name, backend, problem| {
        let inputs = problem.inputs(9);
        let mut cache = empty(problem, KvType::Int8, backend);
        fill(&mut cache, problem, &inputs, backend);
        let unit = match problem.dtype {
            DType::BF16 => 2f32.powi(-8),
            DType::F16 => 2f32.powi(-11),
            _ => 0.0,
        };
        for (given, held) in [
            (&inputs.key, cache.key(1).expect("layer")),
            (&inputs.value, cache.value(1).expect("layer")),
        ] {
            let held = floats(held);
            let rows = given.chunks_exact(80).zip(held.chunks_exact(80));
            for (given, held) in rows.filter(|(given, _)| given[0].is_finite()) {
                let largest = given.iter().fold(0f32, |m, x| m.max(x.abs()));
                let limit = largest * (0.5 / 127.0 + 1e-6 + unit);
                for (x, y) in given.iter().zip(held) {
                    assert!((x - y).abs() <= limit, "{name}: {x} became {y}");
                }
            }
        }
    });
}

/// Equal elements become equal int8 values on every backend, to the bit.
#[test]
fn backends_hold_the_same_int8() {
    let problem = Problem::ragged(DType::F32, [4, 2, 72], CHUNKS[1]);
    let mut inputs = problem.inputs(17);
    // A zero row, a tiny one, one that is not finite, one of halves.
    inputs.key[..72].fill(0.0);
    inputs.key[72..144].fill(1e-36);
    inputs.key[150] = f32::INFINITY;
    for (i, x) in inputs.value[..72].iter_mut().enumerate() {
        *x = if i == 0 { 127.0 } else { i as f32 - 35.5 };
    }
    let stored = stored(&problem, &inputs);
    for backend in backends::all() {
        let mut cache = empty(&problem, KvType::Int8, &backend);
        fill(&mut cache, &problem, &inputs, &backend);
        for (expected, held) in [
            (&stored.key, cache.key(1).expect("layer")),
            (&stored.value, cache.value(1).expect("layer")),
        ] {
            let held = floats(held);
            let [_, heads, keys, d] = problem.key_dims();
            for (at, (x, y)) in expected.chunks(d).zip(held.chunks(d)).enumerate() {
                if at % keys < problem.spans[at / (keys * heads)].kv_len {
                    same_bits(&format!("{}/row {at}", backend.name), x, y);
                }
            }
        }
    }
}

#[test]
fn rotated_keys_are_rounded_once() {
    each([3, 1, 64], &[(65, 65), (7, 7)], |name, backend, problem| {
        let [batch, n, d] = [2, 65, 64];
        let inputs = Problem::whole(problem.dtype, [5, 5, d], batch * n).inputs(3);
        let qkv = Tensor::<2>::from_data(
            TensorData::new(inputs.query, [batch * n, 5 * d]).convert_dtype(problem.dtype),
            (&backend.device, problem.dtype),
        );
        let given = floats(qkv.clone());
        let frequencies: Vec<f64> = (0..d / 2)
            .map(|i| 1e4f64.powf(-2.0 * i as f64 / d as f64))
            .collect();
        let table = rotation_table(&frequencies, problem.keys(), &backend.device);
        let heads = Heads::new(3, 1, 64);
        let dense = AttentionSettings::dense();
        let (spans, device) = (&problem.spans, &backend.device);
        let plan = AttentionPlan::new(&dense, spans, heads, Visible::Causal, device).expect("plan");
        let mut cache = empty(problem, KvType::Int8, backend);
        let mut elements = empty(problem, KvType::Model, backend);
        let copies = append_copies();
        let query = cache
            .append_rotated(1, qkv.clone(), &table, &plan)
            .expect("append");
        let plain = elements
            .append_rotated(1, qkv, &table, &plan)
            .expect("append");
        same_bits(name, &floats(query), &floats(plain));
        assert_eq!(append_copies(), copies, "{name}: copied a cache");
        let (keys, values) = (
            floats(cache.key(1).expect("layer")),
            floats(cache.value(1).expect("layer")),
        );
        let unit = match problem.dtype {
            DType::BF16 => 2f64.powi(-8),
            DType::F16 => 2f64.powi(-11),
            _ => 2f64.powi(-22),
        };
        for (b, span) in problem.spans.iter().enumerate() {
            for i in 0..span.query_len {
                let from = |head: usize| &given[(b * n + i) * 5 * d + head * d..][..d];
                let (k, v) = (from(3), from(4));
                let turned: Vec<f64> = (0..d)
                    .map(|e| {
                        let (sin, cos) = (i as f64 * frequencies[e % (d / 2)]).sin_cos();
                        let partner = f64::from(k[(e + d / 2) % d]);
                        let sign = if e < d / 2 { -1.0 } else { 1.0 };
                        f64::from(k[e]) * cos + sign * partner * sin
                    })
                    .collect();
                let values_in: Vec<f64> = v.iter().map(|x| f64::from(*x)).collect();
                let at = (b * problem.keys() + i) * d;
                for (expected, held) in [(turned, &keys), (values_in, &values)] {
                    let largest = expected.iter().fold(0f64, |m, x| m.max(x.abs()));
                    let limit = largest * (0.5 / 127.0 + 1e-5 + unit);
                    for (x, y) in expected.iter().zip(&held[at..at + d]) {
                        let off = (x - f64::from(*y)).abs();
                        assert!(off <= limit, "{name}: {b}, {i}: {x} became {y}");
                    }
                }
            }
        }
    });
}

#[test]
fn truncated_and_filled_again() {
    each(
        [4, 2, 64],
        &[(29, 129), (3, 300), (64, 104)],
        |name, backend, problem| {
            let (first, second) = (problem.inputs(1), problem.inputs(2));
            let [_, heads, keys, d] = problem.key_dims();
            // The first 100 tokens of the one, then the other.
            let mix = |first: &[f32], second: &[f32]| {
                let rows = first.chunks(d).zip(second.chunks(d)).enumerate();
                let early =
                    |at: usize| at % keys < 100.min(problem.spans[at / (keys * heads)].kv_len);
                rows.flat_map(|(at, (x, y))| if early(at) { x } else { y }.to_vec())
                    .collect()
            };
            let mixed = Inputs {
                query: second.query.clone(),
                key: mix(&first.key, &second.key),
                value: mix(&first.value, &second.value),
            };
            let mut cache = empty(problem, KvType::Int8, backend);
            let plan = fill(&mut cache, problem, &first, backend);
            let query = query(problem, &second, backend);
            let _ = cache.attend(1, query.clone(), &plan).expect("attend");
            assert!(cache.truncate(100));
            let lens = cache.lens().iter().zip(&problem.spans);
            let parts: Vec<(usize, usize)> = lens.map(|(len, s)| (*len, s.kv_len)).collect();
            append(&mut cache, problem, &second, &parts, backend);
            let mut fresh = empty(problem, KvType::Int8, backend);
            let plan = fill(&mut fresh, problem, &mixed, backend);
            let (again, _) = cache.attend(1, query.clone(), &plan).expect("attend");
            let (fresh, _) = fresh.attend(1, query, &plan).expect("attend");
            same_bits(name, &floats(again), &floats(fresh));
        },
    );
}

fn selecting(problem: &Problem, on: &Backend) -> AttentionPlan {
    let settings = AttentionSettings::sparse(Pattern::Dynamic(Dynamic::default()));
    problem.plan(&settings, &on.device)
}

/// Selections read what the int8 stands for: as a cache of elements that holds just that.
#[test]
fn heads_choose_over_int8_as_over_elements() {
    each(
        [4, 2, 64],
        &[(600, 900), (513, 513)],
        |name, backend, problem| {
            let inputs = problem.inputs(21);
            let rounded = |x: Vec<f32>| x.into_iter().map(|x| round(x, problem.dtype)).collect();
            let stored = stored(problem, &inputs);
            let stored = Inputs {
                query: stored.query,
                key: rounded(stored.key),
                value: rounded(stored.value),
            };
            let mut run = Vec::new();
            for (kv, inputs) in [(KvType::Int8, &inputs), (KvType::Model, &stored)] {
                let mut cache = empty(problem, kv, backend);
                fill(&mut cache, problem, inputs, backend);
                let plan = selecting(problem, backend);
                assert!(plan.selects());
                let query = query(problem, inputs, backend);
                let (out, record) = cache.attend(1, query, &plan).expect("attend");
                let record = record.expect("a record").read();
                run.push((floats(out), format!("{record:?}")));
            }
            same_bits(name, &run[0].0, &run[1].0);
            assert_eq!(run[0].1, run[1].1, "{name}");
        },
    );
}

#[test]
fn a_value_that_is_no_number_reaches_the_output() {
    for spans in [CHUNKS[0], CHUNKS[1]] {
        each([4, 2, 64], spans, |name, backend, problem| {
            let mut inputs = problem.inputs(4);
            // Sequence 0, KV head 1, token 33.
            inputs.value[(problem.keys() + 33) * 64 + 1] = f32::INFINITY;
            let mut cache = empty(problem, KvType::Int8, backend);
            let plan = fill(&mut cache, problem, &inputs, backend);
            let query = query(problem, &inputs, backend);
            let out = floats(cache.attend(1, query, &plan).expect("attend").0);
            let rows = problem.rows();
            for (at, x) in out.iter().enumerate() {
                let (b, head, row) = (at / (4 * rows * 64), at / (rows * 64) % 4, at / 64 % rows);
                let span = problem.spans[b];
                let seen = row < span.query_len && span.offset() + row >= 33;
                let expected = b == 0 && head >= 2 && seen;
                assert_eq!(x.is_nan(), expected, "{name}: {b}, {head}, {row}: {x}");
            }
        });
    }
}

#[test]
fn the_bytes_of_int8_are_counted() {
    let shape = CacheShape {
        layers: 32,
        batch: 1,
        kv_heads: 8,
        capacity: 1 << 17,
        head_dim: 128,
    };
    let tokens = 8u64 << 17;
    assert_eq!(shape.bytes_as(KvType::Model, 2), shape.bytes(2));
    let words_and_scales = 32 * 2 * tokens * (128 + 4);
    let one_layer = 2 * tokens * 128 * 2;
    assert_eq!(
        shape.bytes_as(KvType::Int8, 2),
        words_and_scales + one_layer
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let backend = &backends::all()[0];
    let problem = Problem::ragged(DType::F32, [2, 2, 64], &[(3, 5)]);
    let odd = CacheShape {
        head_dim: 20,
        ..shape(&problem)
    };
    let refused = KvCache::new_int8(&odd, DType::F32, &backend.device).expect_err("refused");
    assert!(refused.to_string().contains("multiple of 8"), "{refused}");
    let mut cache = empty(&problem, KvType::Int8, backend);
    assert_eq!(cache.kv_type(), KvType::Int8);
    let inputs = problem.inputs(1);
    let plan = fill(&mut cache, &problem, &inputs, backend);
    let key = rows(&problem, &inputs.key, &[(0, 3)], backend);
    let half = key.clone().cast(DType::F16);
    let (dense, heads) = (AttentionSettings::dense(), problem.model_heads());
    let next = cache
        .plan(&dense, heads, Visible::Causal, &[3], &[8])
        .expect("plan");
    let refused = cache
        .append(1, key.clone(), half, &next)
        .expect_err("types");
    assert!(matches!(refused, AttentionError::Shape { .. }), "{refused}");
    let refused = cache.append(2, key.clone(), key, &next).expect_err("layer");
    assert!(refused.to_string().contains("layer"), "{refused}");
    let query = query(&problem, &inputs, backend).cast(DType::F16);
    let refused = cache.attend(1, query, &plan).expect_err("types");
    assert!(matches!(refused, AttentionError::Shape { .. }), "{refused}");
}
