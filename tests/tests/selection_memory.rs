//! Memory on the device: a cache takes its own bytes, and what a selection takes beside it does not grow
//! with layers and chunks.
//!
//! One test, alone in its process, so that nothing else moves the device's pools.

use burn::tensor::{DType, Device, Distribution, Tensor};
use sparse_accelerate::{
    AttentionMode, AttentionSettings, CacheShape, Heads, KvCache, PooledKeys, Preset,
    SelectionRecord, Visible,
};
use sparse_accelerate_tests::backends;

const HEADS: usize = 8;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;
const CHUNK: usize = 1024;
/// Pages of the pools are whole MiB, and at least two.
const MIB: u64 = 1 << 20;
/// The pool of small tensors, a page of 8 MiB.
const SMALL: u64 = 8 * MIB;

fn shape(layers: usize, capacity: usize) -> CacheShape {
    CacheShape {
        layers,
        batch: 1,
        kv_heads: KV_HEADS,
        capacity,
        head_dim: HEAD_DIM,
    }
}

fn reserved(device: &Device) -> u64 {
    device.sync().expect("sync");
    device.memory_pool_usage().expect("pools").bytes_reserved
}

/// Gives back what nobody holds.
fn clean(device: &Device) -> u64 {
    device.sync().expect("sync");
    device.memory_cleanup();
    reserved(device)
}

fn random(heads: usize, device: &Device) -> Tensor<4> {
    let dims = [1, heads, CHUNK, HEAD_DIM];
    Tensor::random(dims, Distribution::Normal(0.0, 1.0), device)
}

/// Most bytes beside cache and pooled keys in a prompt of `chunks` that goes through `layers`; records are
/// held to the end, as a session holds them.
fn workspace(device: &Device, settings: &AttentionSettings, layers: usize, chunks: usize) -> u64 {
    let before = clean(device);
    let len = CHUNK * chunks;
    let shape = shape(layers, len);
    let mut cache = KvCache::new(&shape, DType::F32, device).expect("cache");
    let mut records: Vec<SelectionRecord> = Vec::new();
    let mut peak = 0;
    for _ in 0..chunks {
        let heads = Heads::new(HEADS, KV_HEADS, HEAD_DIM);
        let plan = cache
            .plan(settings, heads, Visible::Causal, &[CHUNK], &[len])
            .expect("plan");
        for layer in 0..layers {
            let [query, key, value] = [HEADS, KV_HEADS, KV_HEADS].map(|h| random(h, device));
            let step = cache.step(layer, query, key, value, &plan);
            let (out, record) = step.expect("attention");
            drop(out);
            records.extend(record);
        }
        cache.advance(&plan).expect("advance");
        peak = peak.max(reserved(device));
    }
    let selects = settings.mode == AttentionMode::Sparse;
    assert_eq!(records.len(), if selects { layers * chunks } else { 0 });
    let pooled = PooledKeys::bytes([1, KV_HEADS, len, HEAD_DIM]) * u64::from(selects);
    // The small pool's page may be there already.
    peak.saturating_sub(before + shape.bytes(4) + pooled * layers as u64)
}

fn a_cache_takes_its_own_bytes(name: &str, device: &Device) {
    // Pages become 9 MiB, of which tensors of 5 MiB waste 4 each.
    let large = Tensor::<1>::zeros([8 * MIB as usize / 4], device);
    let before = clean(device);
    // 5 MiB each.
    let shape = shape(3, 20 * 1024);
    let own = shape.bytes(4);
    let as_activations: Vec<_> = (0..6)
        .map(|_| Tensor::<4>::zeros([1, KV_HEADS, shape.capacity, HEAD_DIM], device))
        .collect();
    let taken = reserved(device) - before;
    assert!(
        taken > own + 16 * MIB,
        "{name}: the pages were to be wasted"
    );
    drop(as_activations);
    let before = clean(device);
    let cache = KvCache::new(&shape, DType::F32, device).expect("cache");
    let taken = reserved(device) - before;
    assert!(
        (own..=own + 2 * MIB).contains(&taken),
        "{name}: {taken} bytes reserved for a cache of {own}"
    );
    drop(cache);
    let left = clean(device);
    assert!(left <= before, "{name}: {left} bytes are left of {before}");
    drop(large);
}

#[test]
fn memory_is_bounded() {
    for backend in backends::with_kernels() {
        let (name, device) = (backend.name, &backend.device);
        let selected = AttentionSettings {
            mode: AttentionMode::Sparse,
            ..Preset::Balanced.settings()
        };
        let dense = AttentionSettings::dense();
        let few = workspace(device, &selected, 1, 2);
        let layers = workspace(device, &selected, 4, 2);
        let chunks = workspace(device, &selected, 1, 4);
        let without = workspace(device, &dense, 1, 4);
        println!("{name}: {few} {layers} {chunks} {without}");
        assert!(
            layers <= few + 2 * MIB,
            "{name}: {layers} bytes for 4 layers, {few} for one"
        );
        // Sums by column, tables and scores are longer where keys are more, by 0.6 MiB in all.
        assert!(
            chunks <= few + 2 * MIB,
            "{name}: {chunks} bytes for 4 chunks, {few} for two"
        );
        assert!(
            chunks <= without + SMALL,
            "{name}: {chunks} bytes with a selection, {without} without"
        );
        a_cache_takes_its_own_bytes(name, device);
    }
}
