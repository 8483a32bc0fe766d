//! NVRTC, `ptxas` and CUDA's headers, from NVIDIA's Python packages: they compile CUDA kernels on a
//! machine without a GPU, a driver or a CUDA installation.
//!
//! Of 128 MB of wheels only what a compilation opens is unpacked.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::pip::{self, Wheel};
use super::{State, Step, space};
use crate::layout::Layout;

/// 170 MB unpacked, and the largest wheel beside it.
const BYTES: u64 = 280_000_000;
/// The folder that all the packages share.
const INSIDE: &str = "nvidia/cu13";

/// A wheel, and the beginnings of the names that are wanted of it, inside the shared folder.
struct Part(Wheel, &'static [&'static str]);

const PARTS: [Part; 5] = [
    Part(
        wheel(
            "nvidia-cuda-nvrtc",
            "13.0.88",
            "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
            "manylinux2010_x86_64",
        ),
        &["lib/libnvrtc.so.13", "lib/libnvrtc-builtins.so.13.0"],
    ),
    Part(
        wheel(
            "nvidia-cuda-nvcc",
            "13.0.88",
            "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03",
            PLATFORM,
        ),
        &["bin/ptxas"],
    ),
    Part(
        wheel(
            "nvidia-cuda-crt",
            "13.0.88",
            "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4",
            PLATFORM,
        ),
        &["include/"],
    ),
    Part(
        wheel(
            "nvidia-cuda-cccl",
            "13.0.85",
            "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649",
            PLATFORM,
        ),
        &["include/"],
    ),
    Part(
        wheel(
            "nvidia-cuda-runtime",
            "13.0.96",
            "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
            PLATFORM,
        ),
        &["include/"],
    ),
];

const PLATFORM: &str = "manylinux2014_x86_64";

const fn wheel(
    package: &'static str,
    version: &'static str,
    sha256: &'static str,
    platform: &'static str,
) -> Wheel {
    Wheel {
        package,
        version,
        sha256,
        platform: Some(platform),
    }
}

/// Folder of the tools once they are there: `bin/`, `lib/`, `include/`. The versions are part of
/// the name, since the check's table holds for these.
pub(crate) fn home(layout: &Layout) -> PathBuf {
    layout.data.join("cuda-tools-13.0")
}

/// True if the packages hold programs for this system; the check of CUDA kernels needs them.
pub(crate) const SUPPORTED: bool = cfg!(all(target_os = "linux", target_arch = "x86_64"));
/// Said where they do not.
pub(crate) const UNSUPPORTED: &str = "CUDA kernels are checked on Linux x86-64 only";

/// The step behind the check of CUDA kernels.
#[derive(Debug)]
pub(crate) struct CudaTools;

impl Step for CudaTools {
    fn name(&self) -> &'static str {
        "CUDA tools"
    }

    fn state(&self, layout: &Layout) -> Result<State> {
        if home(layout).join("bin/ptxas").is_file() {
            return Ok(State::Ready(layout.show(&home(layout))));
        }
        if !SUPPORTED {
            return Ok(State::Ready(format!("not needed: {UNSUPPORTED}")));
        }
        Ok(State::Missing(
            "downloading NVRTC, ptxas and headers as Python packages of NVIDIA (128 MB, under the \
             CUDA toolkit's licence)"
                .into(),
        ))
    }

    fn bring(&self, layout: &Layout) -> Result<State> {
        let partial = layout.data.join("cuda-tools.partial");
        pip::clear(&partial)?;
        super::make_dir(&partial)?;
        space::require(&partial, BYTES, "the CUDA tools")?;
        let download = partial.join("wheel");
        for Part(wheel, wanted) in &PARTS {
            let file = wheel.download(&download)?;
            let members: Vec<String> = wanted.iter().map(|w| format!("{INSIDE}/{w}")).collect();
            let members: Vec<&str> = members.iter().map(String::as_str).collect();
            pip::extract(&file, &partial, &members)?;
        }
        let home = home(layout);
        pip::clear(&home)?;
        fs::rename(partial.join(INSIDE), &home)
            .with_context(|| format!("cannot move the CUDA tools to {}", home.display()))?;
        pip::clear(&partial)?;
        self.state(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_are_there_when_the_assembler_is() {
        let root = std::env::temp_dir().join(format!("xtask-cuda-tools-{}", std::process::id()));
        let layout = Layout {
            data: root.join(".data"),
            root,
        };
        let bin = home(&layout).join("bin");
        fs::create_dir_all(&bin).unwrap();
        let state = CudaTools.state(&layout).unwrap();
        assert_eq!(matches!(state, State::Missing(_)), SUPPORTED);
        fs::write(bin.join("ptxas"), "x").unwrap();
        assert!(matches!(CudaTools.state(&layout).unwrap(), State::Ready(_)));
        pip::clear(&layout.root).unwrap();
    }
}
