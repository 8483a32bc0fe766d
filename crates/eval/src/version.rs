//! Which program made a run file.

/// Version of the workspace.
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// The commit named by `SPARSE_ACCELERATE_COMMIT` when this was compiled; a repository found at run
/// time may have moved on since.
pub fn commit() -> Option<String> {
    option_env!("SPARSE_ACCELERATE_COMMIT").map(str::to_owned)
}
