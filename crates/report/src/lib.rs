//! Run files of `eval` and `bench`: JSON lines that are written as they are measured, read back to go
//! on after an interruption, and turned into tables, plots and pages.
//!
//! [`record`] is what a file holds, [`Run`] a file read whole. [`tables()`] and [`plots()`] show a run,
//! [`html()`] and [`markdown()`] put several on one page. Knows nothing of models or devices: what is
//! here can be read without either.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
pub mod frontier;
pub mod growth;
pub mod page;
pub mod paired;
pub mod plot;
pub mod record;
mod run;
pub mod show;
pub mod table;
mod tables;

pub use error::ReportError;
pub use page::{html, markdown, results};
pub use plot::{HeadChoice, Plot, PlotError, choices, plots};
pub use run::{Run, distinct, mean, task_mean};
pub use table::Table;
pub use tables::{FORCED, tables};
