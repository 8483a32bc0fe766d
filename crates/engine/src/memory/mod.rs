//! Memory of a run: planned before loading, measured after.
//!
//! The plan counts weights, KV cache and the largest moment of one prefill chunk; it is an estimate
//! of the device's use and leaves out the program itself. Measured is the peak of the whole
//! process on the CPU, or of CubeCL's pools on a GPU.

mod measure;
mod plan;

pub use measure::{MeasuredMemory, measure, reset_peak, system_available};
pub use plan::{MemoryPlan, Workload};

use std::fmt;

/// A number of bytes, shown as MiB or GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 as f64 / f64::from(1u32 << 20);
        match mib {
            m if m >= 1024.0 => write!(f, "{:.2} GiB", m / 1024.0),
            m if m >= 10.0 => write!(f, "{m:.0} MiB"),
            m => write!(f, "{m:.1} MiB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn bytes_read_well() {
        let shown: Vec<_> = [0u64, 1 << 19, 300 << 20, 5 << 30]
            .map(|b| Bytes(b).to_string())
            .into();
        assert_eq!(shown, ["0.0 MiB", "0.5 MiB", "300 MiB", "5.00 GiB"]);
    }
}
