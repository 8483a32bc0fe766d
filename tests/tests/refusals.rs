//! Refusals of attention, the cache and the kernels: each with the value got, the limit, the way out,
//! and before anything is launched or written.

use burn::tensor::{DType, Device, Tensor};
use sparse_accelerate::{
    AttentionError, AttentionPlan, AttentionSettings, CacheShape, KvCache, Pattern, Span,
    append_kv, attend, index,
};

fn zeros(dims: [usize; 4], dtype: DType) -> Tensor<4> {
    Tensor::zeros(dims, (&Device::flex(), dtype))
}

fn plan(spans: &[Span]) -> AttentionPlan {
    AttentionPlan::new(&AttentionSettings::dense(), spans, &Device::flex()).expect("plan")
}

/// The message of a call with query `[1, heads, rows, dim]` and keys `[1, kv_heads, keys, dim]`.
fn message(
    [heads, rows, dim]: [usize; 3],
    [kv_heads, keys]: [usize; 2],
    plan: &AttentionPlan,
) -> String {
    let key = zeros([1, kv_heads, keys, dim], DType::F32);
    let query = zeros([1, heads, rows, dim], DType::F32);
    attend(query, &key, &key, plan)
        .expect_err("refused")
        .to_string()
}

#[test]
fn head_dims_outside_the_range_or_step() {
    let plan = plan(&[Span::whole(4)]);
    for dim in [8, 24, 36, 100, 264] {
        let text = message([2, 4, dim], [2, 4], &plan);
        assert!(text.contains(&format!("head_dim is {dim}")), "{text}");
        assert!(text.contains("32 to 256 in steps of 8"), "{text}");
    }
}

#[test]
fn head_counts_that_do_not_divide() {
    let text = message([5, 4, 32], [2, 4], &plan(&[Span::whole(4)]));
    assert!(text.contains("query heads is 5") && text.contains("multiple of the KV heads (2)"));
}

#[test]
fn spans_that_do_not_fit_the_tensors() {
    let text = message([2, 5, 32], [2, 5], &plan(&[Span::whole(4)]));
    assert!(
        text.contains("number of query rows is [5], expected [4]"),
        "{text}"
    );
    let text = message([2, 4, 32], [2, 3], &plan(&[Span::whole(4)]));
    assert!(
        text.contains("kv_len is 4, expected at most the 3 keys given"),
        "{text}"
    );
    let text = message([2, 4, 32], [2, 4], &plan(&[Span::whole(4); 2]));
    assert!(
        text.contains("number of spans in the plan is [2], expected [1]"),
        "{text}"
    );
}

#[test]
fn an_index_for_other_heads() {
    let lists = vec![Vec::new(); 3];
    let index = index::interval_slash(&[Span::whole(4)], &lists, &lists).expect("index");
    let plan = AttentionPlan::with_index(index, Pattern::Dense, &Device::flex()).expect("plan");
    let text = message([4, 4, 32], [2, 4], &plan);
    assert!(text.contains("index heads is 3"), "{text}");
}

#[test]
fn shapes_and_types_that_differ() {
    let plan = plan(&[Span::whole(4)]);
    let key = zeros([1, 2, 4, 32], DType::F32);
    let refuse = |query: Tensor<4>, value: &Tensor<4>| {
        attend(query, &key, value, &plan).expect_err("refused")
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
    let wide = attend(double.clone(), &double, &double, &plan).expect_err("refused");
    assert!(wide.to_string().contains("f32, f16 or bf16"), "{wide}");
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
    let plan = AttentionPlan::new(&AttentionSettings::dense(), &spans, &Device::flex());
    let plan = plan.expect("plan");
    let rows = || zeros([2, 1, 6, 32], DType::F32);
    assert!(
        cache.append(1, rows(), rows(), &plan).is_err(),
        "no such layer"
    );
    cache.append(0, rows(), rows(), &plan).expect("append");
    cache.advance(&plan);
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

#[cfg(any(feature = "wgpu", feature = "cuda-runtime"))]
mod kernels {
    use burn::backend::DispatchDevice;
    use cubecl::ir::{DeviceProperties, ElemType, FloatKind};
    use sparse_accelerate_kernels::{
        Refusal,
        attend::{Problem, Stored, prepare},
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
