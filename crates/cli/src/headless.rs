//! Quiet Vulkan on machines without a desktop session.
//!
//! Mesa's drivers look for a Wayland display when adapters are listed, and complain on standard error where
//! `XDG_RUNTIME_DIR` is not set. Any folder without a display in it keeps them quiet.

/// Gives the process a runtime folder where the session has none. Must run before any thread starts.
#[allow(unsafe_code)]
pub(crate) fn settle() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: `main` calls this first, when there is no other thread that could read the environment.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
}
