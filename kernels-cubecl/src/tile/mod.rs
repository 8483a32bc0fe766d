//! Tiles that kernels share: their sizes, and the steps between memory and registers.

pub(crate) mod unit;
