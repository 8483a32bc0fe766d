//! Finding the library: a file somebody names, the loader's search path, then CUDA's own folders.

use std::{env, error::Error as _, path::PathBuf, sync::OnceLock};

use libloading::Library;

use super::api::Api;

/// Names the library's file, in place of the search.
const FILE_ENV: &str = "SPARSE_ACCELERATE_CUBLASLT";
/// Variables that name a toolkit's folder.
const HOME_ENV: [&str; 2] = ["CUDA_PATH", "CUDA_HOME"];
/// First driver that runs the libraries of CUDA 13, as `cuDriverGetVersion` counts.
const DRIVER_13: i32 = 13_000;

/// The library and where it came from.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) api: Api,
    pub(super) path: String,
}

/// The process's library. Looked for once: every device of a machine has the same driver.
pub(super) fn library(driver: i32) -> Result<&'static Found, String> {
    static FOUND: OnceLock<Result<Found, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| open(driver))
        .as_ref()
        .map_err(Clone::clone)
}

fn open(driver: i32) -> Result<Found, String> {
    let paths = candidates(driver);
    let mut refusals = Vec::new();
    for path in &paths {
        // SAFETY: loading cuBLASLt runs its initialisers, which ask nothing of the caller.
        match unsafe { Library::new(path) }.and_then(Api::new) {
            Ok(api) => {
                let path = path.display().to_string();
                return Ok(Found { api, path });
            }
            // A path that does not exist is the usual case; the loader's words on the first and on
            // any file that is there say the most.
            Err(error) if refusals.is_empty() || path.is_file() => {
                // What the loader said is the error's source.
                let said = error.source().map(ToString::to_string);
                refusals.push(said.unwrap_or_else(|| error.to_string()));
            }
            Err(_) => {}
        }
    }
    Err(format!(
        "cuBLASLt could not be loaded ({}; {} places tried); put its folder on the loader's search \
         path, or its file into {FILE_ENV}",
        refusals.join("; "),
        paths.len()
    ))
}

fn candidates(driver: i32) -> Vec<PathBuf> {
    if let Some(file) = env::var_os(FILE_ENV) {
        return vec![file.into()];
    }
    let names = names(driver);
    let homes = HOME_ENV.iter().filter_map(env::var_os).map(PathBuf::from);
    let homes = homes.chain(["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from));
    let folders: Vec<PathBuf> = homes
        .flat_map(|home| ["lib64", "lib", "bin"].map(|folder| home.join(folder)))
        .collect();
    let searched = names.iter().map(PathBuf::from);
    let placed = folders
        .iter()
        .flat_map(|folder| names.iter().map(|name| folder.join(name)));
    searched.chain(placed).collect()
}

/// File names, the newest the driver runs first.
fn names(driver: i32) -> Vec<&'static str> {
    let newest = driver >= DRIVER_13;
    let all: [(bool, &str); 3] = match cfg!(windows) {
        true => [
            (true, "cublasLt64_13.dll"),
            (false, "cublasLt64_12.dll"),
            (false, "cublasLt.dll"),
        ],
        false => [
            (true, "libcublasLt.so.13"),
            (false, "libcublasLt.so.12"),
            (false, "libcublasLt.so"),
        ],
    };
    let runs = all.iter().filter(|(needs_13, _)| newest || !needs_13);
    runs.map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_driver_gets_no_new_library() {
        assert_eq!(names(12_080).len(), 2);
        assert!(names(13_000)[0].contains("13"));
    }

    #[test]
    fn a_missing_library_is_a_reason_with_a_way_out() {
        let reason = match open(0) {
            Err(reason) => reason,
            Ok(found) => {
                println!("skipped: this machine has {}", found.path);
                return;
            }
        };
        assert!(reason.contains(FILE_ENV), "{reason}");
    }
}
