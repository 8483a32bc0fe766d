//! The user's cache directory.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Environment variable that moves the cache directory.
pub const CACHE_ENV: &str = "SPARSE_ACCELERATE_CACHE";

/// The folder of calibrations; `None` where neither [`CACHE_ENV`] nor a home directory is set.
pub fn cache_dir() -> Option<PathBuf> {
    resolve(|name| env::var_os(name).filter(|value| !value.is_empty()))
}

fn resolve(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(own) = variable(CACHE_ENV) {
        return Some(own.into());
    }
    let below = |name: &str, path: &str| Some(Path::new(&variable(name)?).join(path));
    let caches = if cfg!(windows) {
        below("LOCALAPPDATA", "")
    } else if cfg!(target_os = "macos") {
        below("HOME", "Library/Caches")
    } else {
        // The XDG specification ignores paths that are not absolute.
        let xdg = below("XDG_CACHE_HOME", "").filter(|path| path.is_absolute());
        xdg.or_else(|| below("HOME", ".cache"))
    };
    caches.map(|path| path.join("sparse-accelerate"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'a>(set: &'a [(&'a str, &'a str)]) -> Option<PathBuf> {
        resolve(|name| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_variable_comes_first() {
        let set = [(CACHE_ENV, "/mine"), ("HOME", "/mine/home")];
        assert_eq!(with(&set), Some("/mine".into()));
        assert_eq!(with(&[]), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_platform_comes_next() {
        let expected = |path: &str| Some(PathBuf::from(path));
        let home = ("HOME", "/mine/home");
        assert_eq!(
            with(&[home]),
            expected("/mine/home/.cache/sparse-accelerate")
        );
        let xdg = [("XDG_CACHE_HOME", "/caches"), home];
        assert_eq!(with(&xdg), expected("/caches/sparse-accelerate"));
        let relative = [("XDG_CACHE_HOME", "caches"), home];
        assert_eq!(
            with(&relative),
            expected("/mine/home/.cache/sparse-accelerate")
        );
    }
}
