//! Wall clock around synchronised batches of calls, a batch long enough that starting and waiting do not
//! count.

use std::time::Instant;

use burn::tensor::Device;
use sparse_accelerate_engine::EngineError;

use super::SpeedError;

/// Seconds that a batch of calls should take.
const BATCH_S: f64 = 0.02;
const MOST_CALLS: usize = 64;

/// One call, measured batch by batch.
pub(super) struct Batches<'a, T> {
    device: &'a Device,
    call: Box<dyn FnMut() -> Result<T, SpeedError> + 'a>,
    calls: usize,
}

impl<'a, T> Batches<'a, T> {
    /// Runs the call once, untimed (it compiles and tunes), and once to see how many make a batch.
    pub(super) fn new(
        device: &'a Device,
        mut call: impl FnMut() -> Result<T, SpeedError> + 'a,
    ) -> Result<Self, SpeedError> {
        call()?;
        let mut batches = Self {
            device,
            call: Box::new(call),
            calls: 1,
        };
        let once = batches.next_ms()? / 1e3;
        batches.calls = ((BATCH_S / once).ceil() as usize).clamp(1, MOST_CALLS);
        Ok(batches)
    }

    /// Milliseconds a call of the next batch.
    pub(super) fn next_ms(&mut self) -> Result<f64, SpeedError> {
        sync(self.device)?;
        let start = Instant::now();
        // Kept until the end, so that no call is dropped before it ran.
        let mut kept = Vec::with_capacity(self.calls);
        for _ in 0..self.calls {
            kept.push((self.call)()?);
        }
        sync(self.device)?;
        Ok(1e3 * start.elapsed().as_secs_f64() / self.calls as f64)
    }

    /// Milliseconds a call of so many batches.
    pub(super) fn all_ms(&mut self, runs: usize) -> Result<Vec<f64>, SpeedError> {
        (0..runs).map(|_| self.next_ms()).collect()
    }
}

fn sync(device: &Device) -> Result<(), EngineError> {
    device.sync().map_err(|error| EngineError::Execution {
        op: "attend",
        reason: error.to_string(),
    })
}
