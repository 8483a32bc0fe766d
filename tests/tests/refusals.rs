//! Refusals of attention, the cache and the kernels: each with the value got, the limit, the way out,
//! and before anything is launched or written.

use burn::tensor::{DType, Device, Tensor};
use sparse_accelerate::{
    AttentionError, AttentionPlan, AttentionSettings, CacheShape, Heads, KvCache, Span, Visible,
    append_kv, attend, index,
};

fn zeros(dims: [usize; 4], dtype: DType) -> Tensor<4> {
    Tensor::zeros(dims, (&Device::flex(), dtype))
}

fn made(spans: &[Span], heads: Heads) -> Result<AttentionPlan, AttentionError> {
    let dense = AttentionSettings::dense();
    AttentionPlan::new(&dense, spans, heads, Visible::Causal, &Device::flex())
}

fn plan(spans: &[Span]) -> AttentionPlan {
    made(spans, Heads::new(2, 2, 32)).expect("plan")
}

fn attend_first(
    query: Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    plan: &AttentionPlan,
) -> Result<Tensor<4>, AttentionError> {
    attend(query, key, value, &plan.layer(0)?)
}

/// The message of a call with query `[1, heads, rows, dim]` and keys `[1, kv_heads, keys, dim]`, over a plan
/// of these heads.
fn message([heads, rows, dim]: [usize; 3], [kv_heads, keys]: [usize; 2], spans: &[Span]) -> String {
    let key = zeros([1, kv_heads, keys, dim], DType::F32);
    let query = zeros([1, heads, rows, dim], DType::F32);
    made(spans, Heads::new(heads, kv_heads, dim))
        .and_then(|plan| attend_first(query, &key, &key, &plan))
        .expect_err("refused")
        .to_string()
}

#[test]
fn head_dims_outside_the_range_or_step() {
    for dim in [8, 24, 36, 100, 264] {
        let text = message([2, 4, dim], [2, 4], &[Span::whole(4)]);
        assert!(text.contains(&format!("head_dim is {dim}")), "{text}");
        assert!(text.contains("32 to 256 in steps of 8"), "{text}");
    }
}

#[test]
fn head_counts_that_do_not_divide() {
    let text = message([5, 4, 32], [2, 4], &[Span::whole(4)]);
    assert!(text.contains("query heads is 5") && text.contains("multiple of the KV heads (2)"));
}

#[test]
fn spans_that_do_not_fit_the_tensors() {
    let text = message([2, 5, 32], [2, 5], &[Span::whole(4)]);
    assert!(
        text.contains("number of query rows is [5], expected [4]"),
        "{text}"
    );
    let text = message([2, 4, 32], [2, 3], &[Span::whole(4)]);
    assert!(
        text.contains("kv_len is 4, expected at most the 3 keys given"),
        "{text}"
    );
    let text = message([2, 4, 32], [2, 4], &[Span::whole(4); 2]);
    assert!(
        text.contains("number of spans in the plan is [2], expected [1]"),
        "{text}"
    );
}

#[test]
fn an_index_for_other_heads() {
    let lists = vec![Vec::new(); 3];
    let index = index::interval_slash(&[Span::whole(4)], &lists, &lists).expect("index");
    let heads = Heads::new(4, 2, 32);
    let refused = AttentionPlan::with_index(index, heads, &Device::flex()).expect_err("refused");
    let text = refused.to_string();
    assert!(text.contains("index heads is 3"), "{text}");
}

#[test]
fn shapes_and_types_that_differ() {
    let plan = plan(&[Span::whole(4)]);
    let key = zeros([1, 2, 4, 32], DType::F32);
    let refuse = |query: Tensor<4>, value: &Tensor<4>| {
        attend_first(query, &key, value, &plan).expect_err("refused")
    };
    let query = zeros([1, 2, 4, 32], DType::F32);
    let short = refuse(query.clone(), &zeros([1, 2, 3, 32], DType::F32));
    assert!(
        matches!(
            short,
            AttentionError::Shape {
                what: "the value's shape",
                ..
            }
        ),
        "{short}"
    );
    let mixed = refuse(query, &zeros([1, 2, 4, 32], DType::F16));
    assert!(
        mixed
            .to_string()
            .contains("element type is F16, expected F32"),
        "{mixed}"
    );
    let double = zeros([1, 2, 4, 32], DType::F64);
    let wide = attend_first(double.clone(), &double, &double, &plan).expect_err("refused");
    assert!(wide.to_string().contains("f32, f16 or bf16"), "{wide}");
}

#[test]
fn a_plan_of_other_heads() {
    let plan = plan(&[Span::whole(4)]);
    for (heads, kv_heads, dim) in [(4, 2, 32), (2, 1, 32), (2, 2, 64)] {
        let key = zeros([1, kv_heads, 4, dim], DType::F32);
        let query = zeros([1, heads, 4, dim], DType::F32);
        let error = attend_first(query, &key, &key, &plan).expect_err("refused");
        let text = error.to_string();
        assert!(text.contains("expected [2, 2, 32]"), "{text}");
    }
}

#[test]
fn appending_past_the_cache_or_of_another_shape() {
    let chunk = plan(&[Span {
        query_len: 2,
        kv_len: 9,
        prompt_len: 9,
    }]);
    let cache = || zeros([1, 2, 8, 32], DType::F32);
    let full = append_kv(cache(), zeros([1, 2, 2, 32], DType::F32), &chunk).expect_err("refused");
    assert_eq!(
        full,
        AttentionError::CacheFull {
            sequence: 0,
            needed: 9,
            capacity: 8
        }
    );
    let other = append_kv(cache(), zeros([1, 1, 2, 32], DType::F32), &chunk).expect_err("refused");
    assert!(matches!(other, AttentionError::Shape { .. }), "{other}");
}

#[test]
fn a_cache_says_what_does_not_fit_and_stays_usable() {
    let shape = CacheShape {
        layers: 1,
        batch: 2,
        kv_heads: 1,
        capacity: 6,
        head_dim: 32,
    };
    let mut cache = KvCache::new(&shape, DType::F32, &Device::flex()).expect("cache");
    let full = cache.spans(&[3, 7], &[3, 7]).expect_err("refused");
    assert_eq!(
        full,
        AttentionError::CacheFull {
            sequence: 1,
            needed: 7,
            capacity: 6
        }
    );
    assert!(cache.spans(&[1], &[1]).is_err(), "a batch of another size");
    let spans = cache.spans(&[3, 6], &[3, 6]).expect("fits");
    let plan = made(&spans, Heads::new(1, 1, 32)).expect("plan");
    let rows = || zeros([2, 1, 6, 32], DType::F32);
    assert!(
        cache.append(1, rows(), rows(), &plan).is_err(),
        "no such layer"
    );
    cache.append(0, rows(), rows(), &plan).expect("append");
    cache.advance(&plan).expect("advance");
    assert_eq!(cache.lens(), [3, 6]);
    for bad in [
        CacheShape {
            capacity: 0,
            ..shape
        },
        CacheShape { layers: 0, ..shape },
    ] {
        assert!(KvCache::new(&bad, DType::F32, &Device::flex()).is_err());
    }
}

/// A cache of one layer and one sequence, and rows for it.
fn small_cache(capacity: usize) -> KvCache {
    let shape = CacheShape {
        layers: 1,
        batch: 1,
        kv_heads: 2,
        capacity,
        head_dim: 32,
    };
    KvCache::new(&shape, DType::F32, &Device::flex()).expect("cache")
}

fn next_plan(cache: &KvCache, rows: usize) -> AttentionPlan {
    let heads = Heads::new(2, 2, 32);
    cache
        .plan(
            &AttentionSettings::dense(),
            heads,
            Visible::Causal,
            &[rows],
            &[rows],
        )
        .expect("plan")
}

fn out_of_order<T: std::fmt::Debug>(
    result: Result<T, AttentionError>,
    call: &'static str,
    tokens: [usize; 2],
) {
    let error = result.expect_err("out of order");
    let AttentionError::CacheOrder {
        op, held, expected, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*op, [*held, *expected]), (call, tokens), "{error}");
}

#[test]
fn calls_on_a_cache_out_of_order() {
    let rows = |n| zeros([1, 2, n, 32], DType::F32);
    let mut cache = small_cache(100);
    let first = next_plan(&cache, 40);
    out_of_order(cache.attend(0, rows(40), &first), "attend", [0, 40]);
    out_of_order(cache.advance(&first), "advance", [0, 40]);
    let late = plan(&[Span {
        query_len: 40,
        kv_len: 100,
        prompt_len: 100,
    }]);
    out_of_order(
        cache.append(0, rows(40), rows(40), &late),
        "append",
        [0, 60],
    );
    out_of_order(cache.advance(&late), "advance", [0, 60]);
    cache
        .step(0, rows(40), rows(40), rows(40), &first)
        .expect("step");
    // `advance` forgotten: a plan that begins anew, or the first once more.
    let second = next_plan(&cache, 40);
    for plan in [&first, &second] {
        let step = cache.step(0, rows(40), rows(40), rows(40), plan);
        out_of_order(step, "append", [40, 0]);
    }
    let two = plan(&[Span::whole(40); 2]);
    let error = cache.advance(&two).expect_err("two sequences");
    assert!(
        error.to_string().contains("batch of the plan is [2]"),
        "{error}"
    );
    cache.advance(&first).expect("advance");
    out_of_order(cache.advance(&first), "advance", [40, 0]);
    // The plan of the chunk before.
    let step = cache.step(0, rows(40), rows(40), rows(40), &first);
    out_of_order(step, "append", [40, 0]);
    assert_eq!(cache.lens(), [40]);
    // A chunk that was begun is forgotten by a truncation, and may be done again.
    for _ in 0..2 {
        let plan = next_plan(&cache, 20);
        cache.append(0, rows(20), rows(20), &plan).expect("append");
        assert!(cache.truncate(40));
    }
}

#[test]
fn layers_heads_and_types_that_a_cache_does_not_have() {
    let cache = small_cache(8).with_first_layer(3);
    for layer in [0, 2, 4] {
        let expected = AttentionError::NoLayer {
            layer,
            first: 3,
            layers: 1,
        };
        assert_eq!(cache.key(layer).expect_err("no layer"), expected);
        assert_eq!(cache.value(layer).expect_err("no layer"), expected);
    }
    cache.key(3).expect("held");
    let heads = Heads::new(4, 1, 32);
    let dense = AttentionSettings::dense();
    let error = cache.plan(&dense, heads, Visible::Causal, &[4], &[4]);
    let text = error.expect_err("other heads").to_string();
    assert!(text.contains("[1, 32], expected [2, 32]"), "{text}");
    let shape = cache.shape();
    for dtype in [DType::I32, DType::F64] {
        let error = KvCache::new(&shape, dtype, &Device::flex()).expect_err("type");
        assert!(error.to_string().contains("f32, f16 or bf16"), "{error}");
    }
}

#[test]
fn heads_that_contradict_themselves() {
    for (heads, text) in [
        (Heads::new(4, 0, 64), "KV heads is 0"),
        (Heads::new(0, 2, 64), "query heads is 0"),
        (Heads::new(3, 2, 64), "multiple of the KV heads (2)"),
        (Heads::new(4, 2, 0), "head_dim is 0"),
        (
            Heads::new(4, 2, 64).with_rotary_base(0.5),
            "rotary base is 0.5",
        ),
    ] {
        let error = made(&[Span::whole(4)], heads).expect_err("refused");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda-runtime"))]
mod kernels {
    use burn::backend::DispatchDevice;
    use cubecl::ir::{DeviceProperties, ElemType, FloatKind};
    use sparse_accelerate_contract::{Shape, group as contract};
    use sparse_accelerate_kernels::{
        Refusal,
        attend::{Problem, Stored, prepare},
        select::group,
    };
    use sparse_accelerate_tests::backends;

    use super::*;

    const F32: ElemType = ElemType::Float(FloatKind::F32);
    const BF16: ElemType = ElemType::Float(FloatKind::BF16);

    /// The devices under test, and what each can do.
    fn devices() -> Vec<(Device, DeviceProperties)> {
        let properties = |device: &Device| match device.as_dispatch() {
            DispatchDevice::Cube(cube) => cube.client().properties().clone(),
            #[allow(unreachable_patterns)]
            other => panic!("{other:?} is no CubeCL device"),
        };
        let found = backends::with_kernels().into_iter().map(|b| b.device);
        found.map(|d| (d.clone(), properties(&d))).collect()
    }

    fn problem() -> Problem {
        Problem {
            visible: sparse_accelerate_kernels::attend::Visible::Causal,
            batch: 1,
            heads: 8,
            kv_heads: 2,
            rows: 1000,
            keys: 1000,
            head_dim: 128,
            scale: 1.0,
            index: None,
            gated_heads: None,
            stored: Stored::Elements,
        }
    }

    #[test]
    fn every_webgpu_device_can_run_the_unit_tier() {
        for (_, mut device) in devices() {
            // The limits that WebGPU guarantees.
            device.hardware.max_shared_memory_size = 16 << 10;
            device.hardware.max_units_per_cube = 256;
            device.hardware.max_cube_count = (65_535, 65_535, 65_535);
            let plan = prepare(&problem(), F32, &device).expect("plan");
            assert_eq!((plan.cubes, plan.grid), (2 * 16 * 8, (256, 1)));
            let long = Problem {
                rows: 1 << 20,
                ..problem()
            };
            let plan = prepare(&long, F32, &device).expect("plan");
            assert_eq!(plan.grid, (65_535, 5), "folded into a second axis");
        }
    }

    #[test]
    fn groups_choose_by_fewer_mean_queries_where_memory_is_small() {
        for (_, mut device) in devices() {
            let mut parts = |heads, head_dim, shared| {
                let shape = Shape {
                    batch: 1,
                    heads,
                    kv_heads: 1,
                    index_heads: 1,
                    rows: 256,
                    keys: 4096,
                    head_dim,
                    scale: 1.0,
                    visible: sparse_accelerate_contract::Visible::Causal,
                };
                device.hardware.max_shared_memory_size = shared;
                let plan = group::prepare(&shape, F32, &device).expect("plan");
                (plan.parts(), contract::parts(&shape))
            };
            assert_eq!(parts(7, 64, 64 << 10), (8, 8));
            assert_eq!(parts(7, 128, 32 << 10), (4, 8));
            assert_eq!(parts(16, 128, 32 << 10), (2, 4));
            assert_eq!(parts(7, 128, 16 << 10), (2, 8));
        }
    }

    #[test]
    fn small_devices_are_refused_with_numbers() {
        for (_, device) in devices() {
            let refuse = |change: &dyn Fn(&mut DeviceProperties)| {
                let mut small = device.clone();
                change(&mut small);
                prepare(&problem(), F32, &small).expect_err("refused")
            };
            let shared = refuse(&|d| d.hardware.max_shared_memory_size = 8 << 10);
            assert!(
                matches!(shared, Refusal::Resource { limit: 8192, .. }),
                "{shared}"
            );
            let units = refuse(&|d| d.hardware.max_units_per_cube = 2).to_string();
            assert!(
                units.contains("units per cube is 2 on this device, 64"),
                "{units}"
            );
            let cubes = refuse(&|d| d.hardware.max_cube_count = (10, 1, 1));
            assert!(
                matches!(cubes, Refusal::TooLarge { limit: 10, .. }),
                "{cubes}"
            );
        }
    }

    #[test]
    fn a_type_the_device_lacks_is_an_error_and_not_a_launch() {
        for (device, properties) in devices() {
            if properties.supports_type(BF16) {
                println!("skipped: this device computes in bf16");
                continue;
            }
            // Nothing of type bf16 is created on the device: the check is on metadata.
            let refusal = prepare(&problem(), BF16, &properties);
            assert!(matches!(refusal, Err(Refusal::ElementType { .. })));
            let alive = Tensor::<1>::ones([4], &device).sum().into_scalar::<f32>();
            assert_eq!(alive, 4.0);
        }
    }
}
