//! The known GPU models, by generation.
//!
//! Peaks are those of dense bf16 products with f32 sums; data sheets often print twice as much, for sparse
//! ones. `memory` is what the driver reports (`nvidia-smi`, MiB): GDDR6 with error correction on, the default
//! of data-centre and workstation GPUs, loses a sixteenth.
//!
//! Sources: GA102 = NVIDIA Ampere GA102 GPU Architecture whitepaper v2, tables 2 and 9; AD102 = NVIDIA Ada GPU
//! Architecture whitepaper v2, table 2 and appendix; GB202 = NVIDIA RTX Blackwell GPU Architecture whitepaper,
//! appendix; data sheets by their names.

use super::{GpuModel, Shares, Source};
use crate::estimate::{H100_ATTENTION, H100_LINEAR};

const fn mib(n: u64) -> u64 {
    n << 20
}

/// Peak of dense bf16 products of an H100 SXM and an H200 SXM, FLOP/s.
const HOPPER_PEAK: f64 = 989.4e12;
/// Shares measured on one H100.
const H100: Shares = Shares {
    linear: H100_LINEAR / HOPPER_PEAK,
    attention: H100_ATTENTION / HOPPER_PEAK,
    source: Source::Measured("benches/runs/2026-11-25-h100-models"),
};
/// Measured on one H200: Llama-3.1-8B with random weights takes 0.2134 s for 8,192 tokens dense and 12.74 s for
/// 131,072, so attention runs at 453 TFLOP/s and all the rest at 637.
const H200: Shares = Shares {
    linear: 0.64,
    attention: 0.46,
    source: Source::Measured("benches/runs/2026-11-26-h200-two-devices"),
};
/// Linear: dense 128K prefill of Llama-3.1-8B on one A100 takes 34.5 s as MInference publishes (arXiv
/// 2407.02490), 184 TFLOP/s of 312. Attention: half of the peak, an assumption that nothing here has
/// measured.
const AMPERE: Shares = Shares {
    linear: 0.59,
    attention: 0.50,
    source: Source::Stated("linear 59 % as published for one A100, attention 50 %; not run here"),
};

/// Every known GPU model.
pub const GPU_MODELS: &[GpuModel] = &[
    // GA102 table 9; data sheet: 24 GB GDDR6 with ECC, 768 GB/s, 222.2 TFLOPS sparse.
    GpuModel {
        name: "rtx-a5000",
        title: "rtx a5000",
        memory: mib(23_028),
        bandwidth: 768e9,
        peak: 111.1e12,
        shares: AMPERE,
    },
    // GA102 table 9; data sheet: 48 GB GDDR6 with ECC, 768 GB/s, 309.7 TFLOPS sparse.
    GpuModel {
        name: "rtx-a6000",
        title: "rtx a6000",
        memory: mib(46_068),
        bandwidth: 768e9,
        peak: 154.8e12,
        shares: AMPERE,
    },
    // GA102 table 2: 24 GB GDDR6X, 936 GB/s, 71 TFLOPS of bf16 with f32 sums.
    GpuModel {
        name: "rtx-3090",
        title: "rtx 3090",
        memory: mib(24_576),
        bandwidth: 936e9,
        peak: 71.0e12,
        shares: AMPERE,
    },
    // A10 data sheet: 24 GB GDDR6, 600 GB/s, 125 TFLOPS of bf16.
    GpuModel {
        name: "a10",
        title: "nvidia a10",
        memory: mib(23_028),
        bandwidth: 600e9,
        peak: 125.0e12,
        shares: AMPERE,
    },
    // A100 data sheet: 40 GB HBM2, 1,555 GB/s, 312 TFLOPS of bf16.
    GpuModel {
        name: "a100-40g",
        title: "a100",
        memory: mib(40_960),
        bandwidth: 1555e9,
        peak: 312.0e12,
        shares: AMPERE,
    },
    // A100 data sheet: 80 GB HBM2e, 1,935 (PCIe) to 2,039 GB/s (SXM), 312 TFLOPS of bf16.
    GpuModel {
        name: "a100-80g",
        title: "a100",
        memory: mib(81_920),
        bandwidth: 1935e9,
        peak: 312.0e12,
        shares: AMPERE,
    },
    // AD102 table 2: 24 GB GDDR6X, 1,008 GB/s, 165.2 TFLOPS of bf16 with f32 sums.
    GpuModel {
        name: "rtx-4090",
        title: "rtx 4090",
        memory: mib(24_564),
        bandwidth: 1008e9,
        peak: 165.2e12,
        shares: AMPERE,
    },
    // AD102 appendix: 48 GB GDDR6 with ECC, 960 GB/s, 364.2 TFLOPS of bf16.
    GpuModel {
        name: "rtx-6000-ada",
        title: "rtx 6000 ada",
        memory: mib(46_068),
        bandwidth: 960e9,
        peak: 364.2e12,
        shares: AMPERE,
    },
    // L4 data sheet: 24 GB GDDR6, 300 GB/s, 242 TFLOPS sparse. Its 72 W hold it well below that peak.
    GpuModel {
        name: "l4",
        title: "nvidia l4",
        memory: mib(23_034),
        bandwidth: 300e9,
        peak: 121.0e12,
        shares: AMPERE,
    },
    // L40S data sheet: 48 GB GDDR6 with ECC, 864 GB/s, 362.05 TFLOPS of bf16.
    GpuModel {
        name: "l40s",
        title: "nvidia l40s",
        memory: mib(46_068),
        bandwidth: 864e9,
        peak: 362.05e12,
        shares: AMPERE,
    },
    // H100 SXM data sheet: 80 GB HBM3, 3.35 TB/s, 1,979 TFLOPS sparse.
    GpuModel {
        name: "h100",
        title: "h100",
        memory: mib(81_559),
        bandwidth: 3350e9,
        peak: HOPPER_PEAK,
        shares: H100,
    },
    // H200 SXM data sheet: 141 GB HBM3e, 4.8 TB/s, 1,979 TFLOPS sparse.
    GpuModel {
        name: "h200",
        title: "h200",
        memory: mib(143_771),
        bandwidth: 4800e9,
        peak: HOPPER_PEAK,
        shares: H200,
    },
    // GB202 appendix: 32 GB GDDR7, 1,792 GB/s, 209.5 TFLOPS of bf16 with f32 sums.
    GpuModel {
        name: "rtx-5090",
        title: "rtx 5090",
        memory: mib(32_607),
        bandwidth: 1792e9,
        peak: 209.5e12,
        shares: AMPERE,
    },
];
