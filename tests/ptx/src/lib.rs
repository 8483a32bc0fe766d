//! A check of the CUDA kernels on a machine without a GPU.
//!
//! Every launch of [`cases`] is made on devices that exist as data only ([`fixtures`]); a
//! [`recorder`] takes each kernel's CUDA C++, [`nvrtc`] compiles it, [`ptxas`] assembles it, and what
//! it takes is compared with a table that is checked in ([`table`]). So are the [`plans`] of all devices.

pub mod cases;
pub mod check;
pub mod fixtures;
pub mod nvrtc;
pub mod plans;
pub mod ptxas;
pub mod recorder;
mod selections;
pub mod table;
