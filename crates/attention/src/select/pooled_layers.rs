//! Pooled keys of the layers of a cache: as many as are worth their memory are kept between chunks.

use burn::tensor::{DType, Device};

use super::PooledKeys;

/// Most bytes that a cache keeps. They save a pass over the cached keys and values of their layers in
/// every later chunk: on one H100 0.4 ms a layer at 128K tokens of 8 KV heads of 128, where a layer's take
/// 12 MiB (`benches/runs/2026-11-26-h100-selection/stages.txt`, `pool`). So 32 layers of 128K tokens are
/// kept whole, and half of them at 256K.
const KEPT_BYTES: u64 = 384 << 20;

/// Pooled keys by layer, made when the first layer asks.
#[derive(Debug)]
pub(crate) struct PooledLayers {
    /// Of each layer: sequences, KV heads, tokens of capacity, head dimension.
    dims: [usize; 4],
    /// `None` where there are none yet.
    kept: Vec<Option<PooledKeys>>,
}

impl PooledLayers {
    /// Those of `layers` layers, none made yet.
    pub(crate) fn new(dims: [usize; 4], layers: usize) -> Self {
        Self {
            dims,
            kept: vec![None; kept(dims, layers)],
        }
    }

    /// Those of the layer at `at`; `None` if it is to pool all keys anew.
    ///
    /// Made at once for the layers that follow too, outside the pools of activations, where small tensors
    /// that stay would keep large ones off their pages: the way out and back waits for what is recorded.
    ///
    /// `means` is the element type of mean keys, where those alone are wanted. Keys that were pooled in the other
    /// way are let go.
    pub(crate) fn of(
        &mut self,
        at: usize,
        means: Option<DType>,
        device: &Device,
    ) -> Option<&mut PooledKeys> {
        let held = self.kept.get(at)?;
        let other = |held: &PooledKeys| held.means_alone() != means.is_some();
        if held.as_ref().is_some_and(other) {
            self.kept.iter_mut().for_each(|held| *held = None);
        }
        if self.kept[at].is_none() {
            let dims = self.dims;
            let missing = self.kept[at..].iter().filter(|held| held.is_none()).count();
            let one = |_| match means {
                Some(dtype) => PooledKeys::means(dims, dtype, device),
                None => PooledKeys::new(dims, device),
            };
            let made = device.memory_persistent_allocations(missing, |missing| {
                (0..missing).map(one).collect::<Vec<_>>()
            });
            let empty = self.kept[at..].iter_mut().filter(|held| held.is_none());
            for (held, pooled) in empty.zip(made) {
                *held = Some(pooled);
            }
        }
        self.kept[at].as_mut()
    }

    /// Forgets what comes after the first `len` tokens of every sequence.
    pub(crate) fn truncate(&mut self, len: usize) {
        for pooled in self.kept.iter_mut().flatten() {
            pooled.truncate(len);
        }
    }
}

/// Layers, from the first, that are kept.
fn kept(dims: [usize; 4], layers: usize) -> usize {
    let most = KEPT_BYTES / PooledKeys::bytes(dims).max(1);
    layers.min(usize::try_from(most).unwrap_or(layers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_caches_keep_fewer_layers() {
        let of = |capacity| kept([1, 8, capacity, 128], 32);
        let lengths = [1, 32 << 10, 128 << 10, 256 << 10, 512 << 10, 8 << 20];
        assert_eq!(lengths.map(of), [32, 32, 32, 16, 8, 0]);
    }

    #[cfg(feature = "flex")]
    #[test]
    fn layers_are_made_from_the_first_that_asks() {
        let device = Device::flex();
        let mut layers = PooledLayers::new([1, 1, 64 << 20, 128], 2);
        assert!(layers.of(0, None, &device).is_none());
        let mut layers = PooledLayers::new([1, 1, 256, 8], 3);
        assert!(layers.of(1, None, &device).is_some());
        let made: Vec<bool> = layers.kept.iter().map(Option::is_some).collect();
        assert_eq!(made, [false, true, true]);
        assert!(layers.of(0, None, &device).is_some() && layers.of(3, None, &device).is_none());
        let means = layers.of(1, Some(DType::F32), &device).expect("kept");
        assert_eq!(means.tensor().dims(), [1, 1, 4, 1, 8]);
        assert!(layers.kept[0].is_none());
    }
}
