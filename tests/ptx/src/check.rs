//! Every case on every CUDA device: launch, compile, assemble. As many at a time as there are cores.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};
use std::thread;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{
    cases::{self, Case},
    fixtures::{CUDA, Compiler, Gpu},
    nvrtc::Nvrtc,
    ptxas::{self, Usage},
    recorder::{Kernel, Known, Recorder, lock},
    table::Row,
};

/// A check of all kernels: the tools, the devices and the cases.
#[derive(Debug)]
pub struct Check {
    toolkit: PathBuf,
    nvrtc: Nvrtc,
    dump: Option<PathBuf>,
    scratch: TempDir,
    known: HashMap<u32, Known>,
    assembled: Mutex<HashMap<(u32, Kernel), Usage>>,
}

/// A case on a device: its rows, or why there are none.
#[derive(Debug)]
pub struct Outcome {
    /// The device.
    pub gpu: &'static Gpu,
    /// The case.
    pub case: String,
    /// A row per kernel.
    pub rows: Result<Vec<Row>>,
}

impl Check {
    /// Loads the compiler of `toolkit`; sources, PTX and the assembler's words go to `dump`.
    ///
    /// # Errors
    /// When the compiler does not load.
    pub fn new(toolkit: PathBuf, dump: Option<PathBuf>) -> Result<Self> {
        Ok(Self {
            nvrtc: Nvrtc::load(&toolkit)?,
            toolkit,
            dump,
            scratch: TempDir::new().context("cannot make a temporary folder")?,
            known: CUDA
                .iter()
                .map(|gpu| (gpu.capability, Known::default()))
                .collect(),
            assembled: Mutex::default(),
        })
    }

    /// Runs the cases whose `device/name` contains `only`. A device of the LLVM compiler has rows
    /// only where its kernels differ from those of the same GPU under the C++ compiler.
    pub fn run(&self, only: &str) -> Vec<Outcome> {
        let cases = cases::all();
        let jobs: Vec<(usize, &Case)> = (0..CUDA.len())
            .flat_map(|gpu| cases.iter().map(move |case| (gpu, case)))
            .filter(|(gpu, case)| format!("{}/{}", CUDA[*gpu].name, case.name).contains(only))
            .collect();
        let workers = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(16);
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for worker in 0..workers {
                let (jobs, next, done) = (&jobs, &next, &done);
                scope.spawn(move || {
                    let recorders: Vec<Recorder> = CUDA
                        .iter()
                        .enumerate()
                        .map(|(i, gpu)| {
                            let index = (worker * CUDA.len() + i) as u16;
                            Recorder::new(index, gpu, self.known[&gpu.capability].clone())
                        })
                        .collect();
                    while let Some(&(gpu, case)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome = self.case(&CUDA[gpu], &recorders[gpu], case);
                        lock(done).push((gpu, outcome));
                    }
                });
            }
        });
        let mut done = std::mem::take(&mut *lock(&done));
        let place = |case: &str| cases.iter().position(|c| c.name == case);
        done.sort_by_key(|(gpu, outcome)| (*gpu, place(&outcome.case)));
        without_repeats(done.into_iter().map(|(_, outcome)| outcome).collect())
    }

    fn case(&self, gpu: &'static Gpu, recorder: &Recorder, case: &Case) -> Outcome {
        let launched = (case.launch)(recorder.client()).context("refused");
        let kernels = recorder.take();
        let rows = launched.and_then(|()| {
            let mut rows: Vec<Row> = Vec::new();
            for kernel in kernels {
                let kernel = kernel.map_err(anyhow::Error::msg)?;
                let name = plain(&kernel.name);
                let same = |row: &&Row| row.key.2.split('#').next() == Some(name);
                let key = match rows.iter().filter(same).count() {
                    0 => name.to_owned(),
                    n => format!("{name}#{}", n + 1),
                };
                rows.push(Row {
                    usage: self.assemble(gpu, &case.name, &key, &kernel)?,
                    key: (gpu.name.to_owned(), case.name.clone(), key),
                    cube: kernel.cube,
                    dynamic_shared: kernel.dynamic_shared,
                });
            }
            Ok(rows)
        });
        Outcome {
            gpu,
            case: case.name.clone(),
            rows,
        }
    }

    fn assemble(&self, gpu: &Gpu, case: &str, key: &str, kernel: &Kernel) -> Result<Usage> {
        let known = (gpu.capability, kernel.clone());
        if self.dump.is_none()
            && let Some(usage) = lock(&self.assembled).get(&known)
        {
            return Ok(*usage);
        }
        let folder = self.dump.as_deref().unwrap_or(self.scratch.path());
        let file = format!(
            "{}.{}.{}",
            gpu.name,
            case.replace('/', "-"),
            key.replace('#', "-")
        );
        let path = |end: &str| folder.join(format!("{file}.{end}"));
        if self.dump.is_some() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            write(&path("cu"), &kernel.source)?;
        }
        let arch = gpu.arch();
        write(&path("ptx"), &self.nvrtc.compile(&kernel.source, &arch)?)?;
        let cubin = self.scratch.path().join(format!("{file}.cubin"));
        let (usage, log) = ptxas::assemble(&self.toolkit, &arch, &path("ptx"), &cubin)?;
        if self.dump.is_some() {
            write(&path("log"), &log)?;
        }
        lock(&self.assembled).insert(known, usage);
        Ok(usage)
    }
}

/// Drops the rows of devices of the LLVM compiler that repeat those of the C++ compiler.
fn without_repeats(outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let usage = |row: &Row| {
        (
            row.key.1.clone(),
            row.key.2.clone(),
            row.cube,
            row.usage,
            row.dynamic_shared,
        )
    };
    let seen: Vec<_> = outcomes
        .iter()
        .filter(|o| o.gpu.compiler == Compiler::Cpp)
        .flat_map(|o| {
            o.rows
                .iter()
                .flatten()
                .map(|row| (o.gpu.capability, usage(row)))
        })
        .collect();
    let repeats = |gpu: &Gpu, row: &Row| {
        gpu.compiler == Compiler::Llvm && seen.contains(&(gpu.capability, usage(row)))
    };
    outcomes
        .into_iter()
        .map(|mut outcome| {
            let gpu = outcome.gpu;
            if let Ok(rows) = &mut outcome.rows {
                rows.retain(|row| !repeats(gpu, row));
            }
            outcome
        })
        .collect()
}

/// The kernel's name without the hash at its end, which changes with every comptime argument.
fn plain(name: &str) -> &str {
    match name.rsplit_once('_') {
        Some((start, hash)) if hash.len() == 8 && hash.chars().all(|c| c.is_ascii_hexdigit()) => {
            start
        }
        _ => name,
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
