//! A pipeline gives back the memory that it takes. The test is alone in its program, because other tests
//! would share its devices.

use sparse_accelerate_engine::Transport;
use sparse_accelerate_tests::{
    models::{Recorded, TINY},
    pairs::{apart, start},
};

/// Sequences give their caches back, a pipeline its weights.
#[test]
fn memory_returns() {
    let recorded = Recorded::tiny(TINY[0]);
    for pair in &apart() {
        let in_use = || {
            pair.devices.each_ref().map(|device| {
                device.sync().expect("a device");
                device.memory_pool_usage().map(|usage| usage.bytes_in_use)
            })
        };
        let before = in_use();
        let pipeline = start(&recorded, pair, Transport::Peer);
        let sequence = |capacity| pipeline.sequence(capacity).expect("a sequence");
        drop(sequence(8));
        let loaded = settled(&in_use);
        let held = sequence(256);
        let bytes = recorded.dir.config();
        let cache = 2 * bytes.layers * bytes.kv_heads * bytes.head_dim * 256 * 4;
        for (stage, (with, without)) in in_use().iter().zip(&loaded).enumerate() {
            let grown = with.zip(*without).map(|(with, without)| with - without);
            // Half of the layers; all of them where both stages are on one device.
            assert!(
                grown.is_none_or(|grown| grown >= cache as u64 / 2),
                "stage {stage} of {}: {grown:?}",
                pair.name
            );
        }
        drop(held);
        drop(sequence(8));
        assert_eq!(settled(&in_use), loaded, "{}", pair.name);
        drop(pipeline);
        let after = settled(&in_use);
        for (after, before) in after.iter().zip(&before) {
            assert!(
                after <= before,
                "{}: {after:?} after, {before:?} before",
                pair.name
            );
        }
    }
}

/// A number that no longer falls: closing is not waited for.
fn settled<T: PartialEq + Copy>(read: &dyn Fn() -> T) -> T {
    let mut last = read();
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let now = read();
        if now == last {
            break;
        }
        last = now;
    }
    last
}
