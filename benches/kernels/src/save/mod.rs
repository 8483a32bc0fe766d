//! A run's folder, `<runs>/<date>-<device>`: `env.json`, `rows.ndjson`, `summary.md`.
//!
//! Commands of one session land in one folder: same day, device, program, commit. Another session of the
//! day gets `-2` and so on. Rows are saved as they are measured; each file is written beside itself and
//! renamed, so a full disk or a killed program leaves the old file, never half of one. Peers append to
//! `rows.ndjson` too (`benches/peers`); only what `rows.ndjson` has is in the summary.

mod environment;
mod summary;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

#[cfg(any(feature = "cuda-runtime", feature = "wgpu"))]
pub(crate) use environment::Driver;
pub(crate) use environment::{Environment, Gpu};

/// Folder of the run folders, from the repository's root.
pub(crate) const RUNS: &str = "benches/runs";
const ENVIRONMENT: &str = "env.json";
const ROWS: &str = "rows.ndjson";
const SUMMARY: &str = "summary.md";

/// One line of `rows.ndjson`. What a peer does not know is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The command that made the row, without the program and without where it saves.
    pub(crate) command: String,
    /// The program.
    pub(crate) by: String,
    /// Name of the measured case.
    pub(crate) case: String,
    /// Prompt length.
    pub(crate) len: usize,
    /// Share of the causal blocks kept.
    pub(crate) density: f64,
    /// The kernel in short.
    pub(crate) kernel: String,
    /// The whole plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<String>,
    /// Origin of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) choice: Option<String>,
    /// Device milliseconds, median of the runs.
    pub(crate) median_ms: f64,
    /// Least of the runs.
    pub(crate) min_ms: f64,
    /// Useful operations, `4 d` per kept causal pair, over the median time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tflops: Option<f64>,
    /// Relative L2 error on sampled rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<f64>,
    /// Seconds until the first result, compiling included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_s: Option<f64>,
}

/// The folder of a session.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder of this environment under `runs`: made, or gone on with.
    pub(crate) fn open(runs: &Path, environment: &Environment) -> Result<Self> {
        if runs == Path::new(RUNS) && !runs.is_dir() {
            bail!("no folder {RUNS} here: run from the repository's root, or say --save=DIR");
        }
        let name = format!("{}-{}", environment.date, slug(&environment.gpu.name));
        for n in 1.. {
            let folder = runs.join(match n {
                1 => name.clone(),
                _ => format!("{name}-{n}"),
            });
            let file = folder.join(ENVIRONMENT);
            if file.is_file() {
                let found: Environment = serde_json::from_str(&read(&file)?)
                    .with_context(|| format!("{} is not an environment", file.display()))?;
                if found == *environment {
                    return Ok(Self(folder));
                }
            } else if !folder.exists() {
                fs::create_dir_all(&folder)
                    .with_context(|| format!("cannot make {}", folder.display()))?;
                write_whole(&file, &(serde_json::to_string_pretty(environment)? + "\n"))?;
                return Ok(Self(folder));
            }
        }
        bail!("no free name like {name} in {}", runs.display())
    }

    /// A folder that was made before.
    pub(crate) fn existing(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Adds a row, and makes the summary anew.
    pub(crate) fn append(&self, row: &Row) -> Result<()> {
        let file = self.0.join(ROWS);
        let mut text = match file.exists() {
            true => read(&file)?,
            false => String::new(),
        };
        // A line that somebody else left unfinished must not swallow ours.
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text += &serde_json::to_string(row)?;
        text.push('\n');
        write_whole(&file, &text)?;
        self.summarise()
    }

    /// Makes the summary of whatever is in the folder.
    pub(crate) fn summarise(&self) -> Result<()> {
        let environment = serde_json::from_str(&read(&self.0.join(ENVIRONMENT))?)
            .with_context(|| format!("{ENVIRONMENT} is not an environment"))?;
        let rows = parse(&read(&self.0.join(ROWS))?)?;
        let text = summary::render(&environment, &rows);
        write_whole(&self.0.join(SUMMARY), &text)
    }
}

fn parse(text: &str) -> Result<Vec<Row>> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(i, line)| {
            serde_json::from_str(line).with_context(|| {
                format!("{ROWS}, line {} is not a row; repair or delete it", i + 1)
            })
        })
        .collect()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file so that it is the old one or the new one, whatever happens.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<()> {
    replace(path, |file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}; it is as it was", path.display()))
}

fn replace(path: &Path, fill: impl FnOnce(&mut fs::File) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    // Removed when dropped, unless it takes the place of the old file.
    let mut new = tempfile::Builder::new()
        .suffix(".partial")
        .tempfile_in(folder.unwrap_or(Path::new(".")))?;
    readable_by_all(new.as_file())?;
    fill(new.as_file_mut())?;
    new.as_file().sync_all()?;
    new.persist(path).map(drop).map_err(|error| error.error)
}

/// Temporary files are private; a run is to be read.
fn readable_by_all(file: &fs::File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    let _ = file;
    Ok(())
}

/// A device's name for a folder: `NVIDIA RTX A5000` is `rtx-a5000`, `NVIDIA H100 80GB HBM3` is `h100`.
fn slug(name: &str) -> String {
    let is_size = |word: &&str| {
        let digits = word.strip_suffix("GB");
        digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
    };
    let words = name.split_whitespace();
    let kept: Vec<&str> = words
        .take_while(|word| !word.starts_with('(') && !is_size(word))
        .filter(|word| !word.eq_ignore_ascii_case("nvidia"))
        .collect();
    let dashed = kept.join(" ").to_lowercase();
    let parts = dashed.split(|c: char| !c.is_ascii_alphanumeric());
    let slug = parts
        .filter(|p| !p.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    match slug.is_empty() {
        true => "device".into(),
        false => slug,
    }
}

#[cfg(test)]
mod tests;
