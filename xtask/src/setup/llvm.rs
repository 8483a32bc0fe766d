//! LLVM for CUDA builds, from two Python packages of static libraries.
//!
//! The build script of `tracel-llvm-bundler` downloads an archive unless it finds a folder with a
//! marker file in the user's data folder. Two wheels unpacked over each other have the layout it
//! asks for: headers, static libraries of every backend, and an `llvm-config` (a Python script).
//! They go under our data folder, which `cargo xtask cuda` names as `XDG_DATA_HOME`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::pip::{self, Wheel};
use super::{State, Step, space};
use crate::layout::Layout;
use crate::run;

/// The bundler's folder; changes with its version in `Cargo.lock`.
const FOLDER: &str = "tracel/tracel-llvm-23.1.0-4";
const MARKER: &str = ".tracel-llvm-installed";
/// 397 MB unpacked, 92 MB of wheels.
const BYTES: u64 = 500_000_000;

const PLATFORM: Option<&str> = Some("manylinux_2_28_x86_64");
const WHEELS: [Wheel; 2] = [
    Wheel {
        package: "mlc-llvm-static",
        version: "23.1.1.post0",
        sha256: "dcfec888abfaa418be77d41af585805f31463584cf9c90582992c00f392c1ac5",
        platform: PLATFORM,
    },
    Wheel {
        package: "mlc-llvm-static-extra-targets",
        version: "23.1.1.post0",
        sha256: "c36e834d9a4e9cf9759f27fece65711ece7a2fc2b5a96dbb15d66f5e9e787929",
        platform: PLATFORM,
    },
];

/// The folder to name as `XDG_DATA_HOME`.
pub(crate) fn home(layout: &Layout) -> PathBuf {
    layout.data.join("llvm")
}

/// True if a data folder holds an LLVM that the bundler accepts.
pub(crate) fn installed(data_home: &Path) -> bool {
    data_home.join(FOLDER).join(MARKER).is_file()
}

/// True if the user's own data folder holds one, downloaded by an earlier build.
pub(crate) fn users_own() -> bool {
    let home = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(std::env::home_dir()?.join(".local/share")));
    cfg!(target_os = "linux") && home.is_some_and(|home| installed(&home))
}

/// The step behind `setup --cuda`.
#[derive(Debug)]
pub(crate) struct Llvm;

impl Step for Llvm {
    fn name(&self) -> &'static str {
        "LLVM for CUDA"
    }

    fn state(&self, layout: &Layout) -> Result<State> {
        if installed(&home(layout)) {
            return Ok(State::Ready(format!(
                "{}; build with `cargo xtask cuda build --features cuda`",
                layout.show(&home(layout))
            )));
        }
        if users_own() {
            return Ok(State::Ready("the bundle in your own data folder".into()));
        }
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Ok(State::ByHand(
                "the Python packages are for Linux x86-64 only; the build downloads its own".into(),
            ));
        }
        Ok(State::Missing(format!(
            "downloading the Python packages {} and {} (92 MB, Apache-2.0 with LLVM exception)",
            WHEELS[0].package, WHEELS[1].package
        )))
    }

    fn bring(&self, layout: &Layout) -> Result<State> {
        let partial = layout.data.join("llvm.partial");
        pip::clear(&partial)?;
        super::make_dir(&partial)?;
        space::require(&partial, BYTES, "LLVM")?;
        for wheel in &WHEELS {
            let file = wheel.download(&partial.join("wheel"))?;
            pip::extract_all(&file, &partial)?;
        }
        let unpacked = partial.join("mlc_llvm_static/static");
        try_out(&unpacked)?;
        let marker = unpacked.join(MARKER);
        File::create(&marker).with_context(|| format!("cannot make {}", marker.display()))?;
        let folder = home(layout).join(FOLDER);
        pip::clear(&folder)?;
        if let Some(parent) = folder.parent() {
            super::make_dir(parent)?;
        }
        fs::rename(&unpacked, &folder)
            .with_context(|| format!("cannot move LLVM to {}", folder.display()))?;
        pip::clear(&partial)?;
        self.state(layout)
    }
}

/// The questions the bundler will ask, asked once before the marker says all is well.
fn try_out(folder: &Path) -> Result<()> {
    let config = folder.join("bin/llvm-config");
    let ask = |args: &[&str]| run::read(Command::new(&config).args(args));
    let version = ask(&["--version"])?;
    let libraries = ask(&["--link-static", "--libs"])?;
    for backend in ["LLVMNVPTXCodeGen", "LLVMX86CodeGen"] {
        if !libraries.contains(backend) {
            bail!("LLVM {} has no {backend}", version.trim());
        }
    }
    for args in [
        ["--system-libs"],
        ["--libdir"],
        ["--includedir"],
        ["--cxxflags"],
    ] {
        ask(&args)?;
    }
    println!(
        "{:<14} llvm-config answers: {}",
        Llvm.name(),
        version.trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marker_makes_an_installation() {
        let home = std::env::temp_dir().join(format!("xtask-llvm-{}", std::process::id()));
        let folder = home.join(FOLDER);
        fs::create_dir_all(&folder).unwrap();
        assert!(
            !installed(&home),
            "a folder an interrupted run left is not an installation"
        );
        File::create(folder.join(MARKER)).unwrap();
        assert!(installed(&home));
        fs::remove_dir_all(home).unwrap();
    }
}
