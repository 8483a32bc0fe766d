//! Measured memory.
//!
//! CPU: the process's peak resident set (Linux `VmHWM`, which includes mapped weight files while
//! they are read). GPU: pages CubeCL ever held times their size, which excludes the driver's own.
//! Other systems give no measurement.

use burn::tensor::Device;
use serde::Serialize;

/// A measured peak and its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MeasuredMemory {
    /// Peak bytes; `None` where the system does not measure it.
    pub bytes: Option<u64>,
    /// The source, in words.
    pub source: &'static str,
}

/// Measures the peak so far: of the device's pools where the device has pools, else of the process.
pub fn measure(device: &Device) -> MeasuredMemory {
    if let Some(pools) = device.memory_pool_report() {
        let pages = pools.iter().map(|p| p.pages_peak * p.page_size).sum();
        let reserved = device.memory_pool_usage().map_or(0, |u| u.bytes_reserved);
        return MeasuredMemory {
            bytes: Some(reserved.max(pages)),
            source: "device memory pools, peak pages",
        };
    }
    MeasuredMemory {
        bytes: peak_resident(),
        source: "process peak, mapped weight files included",
    }
}

/// Gives unused memory of a device's pools back, after the work that is still queued.
pub fn give_back(device: &Device) {
    // A device that failed says so where it is used.
    let _ = device.sync();
    device.memory_cleanup();
}

/// True where the device's memory is in CubeCL's pools: on every GPU, not on the CPU.
pub fn is_pooled(device: &Device) -> bool {
    device.memory_pool_report().is_some()
}

/// Starts a new peak for [`measure`] on the CPU. False where the system has no such thing (then
/// the peak covers the whole life of the process); device pools always cover all of it.
pub fn reset_peak() -> bool {
    cfg!(target_os = "linux") && std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Bytes the system could still give to this process; `None` where it does not say.
pub fn system_available() -> Option<u64> {
    kib_field("/proc/meminfo", "MemAvailable:")
}

fn peak_resident() -> Option<u64> {
    kib_field("/proc/self/status", "VmHWM:")
}

/// A `Name:  123 kB` line of a Linux status file, in bytes.
fn kib_field(file: &str, name: &str) -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn linux_tells_peak_and_available() {
        assert!(peak_resident().expect("VmHWM") > 1 << 20);
        assert!(system_available().expect("MemAvailable") > 1 << 20);
        assert_eq!(kib_field("/proc/self/status", "NoSuchField:"), None);
        assert_eq!(kib_field("/no/such/file", "VmHWM:"), None);
    }

    #[cfg(feature = "flex")]
    #[test]
    fn the_cpu_backend_is_measured_by_the_process() {
        let measured = measure(&Device::flex());
        assert!(measured.bytes.is_some(), "{measured:?}");
        assert!(measured.source.starts_with("process"));
        assert!(!is_pooled(&Device::flex()));
    }
}
