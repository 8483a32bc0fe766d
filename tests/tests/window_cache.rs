//! A cache whose layers let go of what their window hides, beside one that keeps every key: the same rows, rotated to the same
//! positions, on every backend of this build; and what such a cache refuses.

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sparse_accelerate::{
    AttentionError, AttentionPlan, AttentionSettings, CacheShape, Heads, KvCache, KvType, Visible,
    rotation_table,
};
use sparse_accelerate_tests::{
    backends,
    problem::{floats, round},
};

const WINDOW: usize = 40;
/// Rows that a layer keeps of it.
const ROWS: usize = WINDOW + 256;
const CAPACITY: usize = 900;
const HEADS: Heads = Heads::new(4, 2, 64);
/// Elements of a row of query, key and value.
const WIDTH: usize = 8 * 64;
const SHAPE: CacheShape = CacheShape {
    layers: 2,
    batch: 2,
    kv_heads: 2,
    capacity: CAPACITY,
    head_dim: 64,
};
/// New tokens of the two sequences: within the room, past it by one, longer than all that is kept, and each where the other is not.
const STEPS: [[usize; 2]; 9] = [
    [250, 1],
    [46, 1],
    [1, 290],
    [1, 1],
    [128, 3],
    [300, 130],
    [2, 1],
    [1, 310],
    [1, 1],
];

/// Layer 0 sees everything, layer 1 a window; `bounded` lets go of what that hides.
fn cache(bounded: bool, kv: KvType, dtype: DType, device: &Device) -> KvCache {
    let windows = [None, bounded.then_some(WINDOW)];
    KvCache::with_windows(&SHAPE, &windows, kv, dtype, device).expect("a cache")
}

fn plan(cache: &KvCache, visible: Visible, new: [usize; 2]) -> AttentionPlan {
    let prompts = [0, 1].map(|b| cache.lens()[b] + new[b]);
    let dense = AttentionSettings::dense();
    let plan = cache.plan(&dense, HEADS, visible, &new, &prompts);
    plan.expect("a plan")
}

fn rows(seed: u64, new: [usize; 2], at: (&Device, DType)) -> Tensor<2> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let count = 2 * new[0].max(new[1]);
    let mut next = || round(random.random_range(-1.0f32..1.0), at.1);
    let values: Vec<f32> = (0..count * WIDTH).map(|_| next()).collect();
    Tensor::from_data(TensorData::new(values, [count, WIDTH]), at)
}

fn rotation(device: &Device) -> Tensor<2> {
    let frequencies: Vec<f64> = (0..32).map(|i| 1e4f64.powf(-f64::from(i) / 32.0)).collect();
    rotation_table(&frequencies, CAPACITY, device)
}

/// Runs a chunk through both layers; what they give.
fn step(cache: &mut KvCache, seed: u64, new: [usize; 2], at: (&Device, DType)) -> [Vec<f32>; 2] {
    let rotation = rotation(at.0);
    let plans = [Visible::Causal, Visible::Window(WINDOW)].map(|v| plan(cache, v, new));
    let out = [0, 1].map(|layer| {
        let (qkv, plan) = (rows(seed + layer as u64, new, at), &plans[layer]);
        let query = cache.append_rotated(layer, qkv, &rotation, plan);
        let (out, _) = cache
            .attend(layer, query.expect("appended"), plan)
            .expect("attended");
        floats(out)
    });
    cache.advance(&plans[0]).expect("advanced");
    out
}

#[test]
fn rows_are_those_of_a_cache_that_keeps_every_key() {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            // Tiles begin elsewhere, so sums are taken in another order; then one rounding.
            let limit = match dtype {
                DType::F16 => 2f32.powi(-10),
                DType::BF16 => 2f32.powi(-7),
                _ => 4e-6,
            };
            for kv in [KvType::Model, KvType::Int8] {
                let at = (&backend.device, dtype);
                let [mut whole, mut bounded] =
                    [false, true].map(|bounded| cache(bounded, kv, dtype, at.0));
                for (seed, new) in (10u64..).step_by(10).zip(STEPS) {
                    let name = format!("{} {dtype:?} {kv:?} {new:?}", backend.name);
                    let expected = step(&mut whole, seed, new, at);
                    let got = step(&mut bounded, seed, new, at);
                    assert_eq!(expected[0], got[0], "{name}: the layer without a window");
                    for (i, (e, g)) in expected[1].iter().zip(&got[1]).enumerate() {
                        assert!((e - g).abs() <= limit, "{name}: {i} is {g}, expected {e}");
                    }
                    assert_eq!(whole.lens(), bounded.lens());
                    let kept = |layer| bounded.key(layer).expect("a layer").dims()[2];
                    assert_eq!([kept(0), kept(1)], [CAPACITY, ROWS], "{name}");
                }
                assert_eq!(bounded.lens(), [730, 738]);
            }
        }
    }
}

#[test]
fn a_plan_of_other_keys_is_refused() {
    let at = (&backends::all()[0].device, DType::F32);
    let mut cache = cache(true, KvType::Model, DType::F32, at.0);
    let query = |plan: &AttentionPlan| {
        let [n, d] = [plan.spans()[0].query_len, HEADS.dim];
        Tensor::<4>::zeros([2, HEADS.query, n, d], at)
    };
    step(&mut cache, 1, [400, 400], at);
    let (causal, own) = (
        plan(&cache, Visible::Causal, [1, 1]),
        plan(&cache, Visible::Window(WINDOW), [1, 1]),
    );
    assert_eq!(
        (causal.firsts(), own.firsts()),
        (&[0; 2][..], &[233; 2][..])
    );
    let table = rotation(at.0);
    let refused = |result: Result<Tensor<4>, AttentionError>, op, held, planned| {
        let expected = AttentionError::CacheWindow {
            op,
            layer: 1,
            sequence: 0,
            held,
            planned,
        };
        let error = result.expect_err("other keys");
        assert_eq!(error, expected);
        assert!(error.to_string().contains("window"), "{error}");
    };
    let append = |cache: &mut KvCache, layer, plan: &AttentionPlan| {
        cache.append_rotated(layer, rows(3, [1, 1], at), &table, plan)
    };
    refused(append(&mut cache, 1, &causal), "append", 233, 0);
    let full = append(&mut cache, 0, &own).expect_err("a layer without a window");
    assert!(
        matches!(full, AttentionError::CacheWindow { layer: 0, .. }),
        "{full}"
    );
    // Rows of another number: nothing is appended, and the chunk can be planned again.
    let long = plan(&cache, Visible::Window(WINDOW), [300, 300]);
    let wrong = cache.append_rotated(1, rows(4, [299, 299], at), &table, &long);
    assert!(matches!(wrong, Err(AttentionError::Shape { .. })));
    // A chunk that was let go of cannot be attended to again.
    let long = plan(&cache, Visible::Window(WINDOW), [300, 300]);
    let appended = cache.append_rotated(1, rows(4, [300, 300], at), &table, &long);
    cache
        .attend(1, appended.expect("appended"), &long)
        .expect("attended");
    let again = cache.attend(1, query(&long), &long).map(|(out, _)| out);
    refused(again, "attend", 533, 233);
}

#[test]
fn the_last_tokens_can_be_taken_back() {
    let at = (&backends::all()[0].device, DType::F32);
    let mut cache = cache(true, KvType::Model, DType::F32, at.0);
    step(&mut cache, 1, [400, 400], at);
    assert!(cache.truncate(272));
    assert_eq!(cache.lens(), [272; 2]);
    step(&mut cache, 2, [5, 5], at);
    assert!(cache.truncate(272));
    // One more is gone.
    assert!(!cache.truncate(271));
    assert_eq!(cache.lens(), [0; 2]);
    // Keys that the plan's rows see and the layer's do not, before any was let go of.
    let seen = plan(&cache, Visible::Causal, [WINDOW + 1, 1]);
    let appended = cache.append_rotated(1, rows(3, [WINDOW + 1, 1], at), &rotation(at.0), &seen);
    assert!(matches!(appended, Err(AttentionError::CacheWindow { .. })));
    // It begins anew, as an empty one does.
    let mut fresh = self::cache(true, KvType::Model, DType::F32, at.0);
    assert_eq!(
        step(&mut cache, 5, [310, 7], at),
        step(&mut fresh, 5, [310, 7], at)
    );
    // A chunk that failed after a layer had let go of the keys before it.
    let long = plan(&cache, Visible::Window(WINDOW), [300, 300]);
    let appended = cache.append_rotated(1, rows(4, [300, 300], at), &rotation(at.0), &long);
    appended.expect("appended");
    assert!(!cache.truncate(310));
    assert_eq!(cache.lens(), [0; 2]);
}

#[test]
fn windows_that_a_cache_cannot_have() {
    let device = &backends::all()[0].device;
    for windows in [&[None][..], &[None; 3], &[None, Some(0)]] {
        let made = KvCache::with_windows(&SHAPE, windows, KvType::Model, DType::F32, device);
        let error = made.expect_err("windows").to_string();
        assert!(error.contains("windows"), "{error}");
    }
    // Room for every token: the layer lets go of none.
    let windows = [None, Some(CAPACITY - 256)];
    let cache = KvCache::with_windows(&SHAPE, &windows, KvType::Model, DType::F32, device);
    let cache = cache.expect("a cache");
    assert_eq!(cache.key(1).expect("a layer").dims()[2], CAPACITY);
    assert_eq!(SHAPE.within(Some(WINDOW)).capacity, ROWS);
    assert_eq!(SHAPE.within(Some(CAPACITY)).capacity, CAPACITY);
    assert_eq!(SHAPE.beside(Some(WINDOW), 129), None);
    let beside = SHAPE.beside(Some(WINDOW), 130).expect("no room");
    assert_eq!(
        (beside.layers, beside.capacity),
        (1, WINDOW - 1 + 128 + 130)
    );
}
