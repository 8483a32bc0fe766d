//! Nothing is built here: cargo takes up `[build-dependencies]` only where there is a build script.

fn main() {}
