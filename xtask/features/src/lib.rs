//! No code: the manifest of this crate gives common dependencies the features that the whole
//! workspace gives them.
//!
//! Cargo builds a dependency once for every set of features. `cargo xtask demo` builds one member
//! and this crate, `cargo xtask test` builds all members; without this crate they would share
//! nearly nothing, because the sets of `syn` and `serde` differ.
