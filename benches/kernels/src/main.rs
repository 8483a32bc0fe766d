//! Kernels of sparse-accelerate on fixed inputs, every row checked before it is timed.
//!
//! Times are the device's own. The inputs are those of `sparse-accelerate-bench-inputs`, so a peer that
//! follows the same rules sees the same bits.
#![allow(clippy::print_stdout)] // a program that prints a table

mod args;
mod attend;
mod decode;
mod device;
mod measure;
mod report;
mod table;

use anyhow::Result;
use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> Result<()> {
    let cli = Cli::parse();
    let device = device::Bench::open()?;
    println!("{}", device.describe());
    let mut report = report::Report::new(device.describe());
    match &cli.command {
        Command::Dense(args) => attend::dense(&device, args, &mut report)?,
        Command::Blocks(args) => attend::blocks(&device, args, &mut report)?,
        Command::Decode(args) => decode::run(&device, &args.sizes, &mut report)?,
    }
    report.write(cli.out.as_deref())
}
