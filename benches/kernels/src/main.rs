//! Kernels of sparse-accelerate on fixed inputs, every row checked before it is timed.
//!
//! Times are the device's own. The inputs are those of `sparse-accelerate-inputs`, so a peer that
//! follows the same rules sees the same bits.
#![allow(clippy::print_stdout)] // a program that prints a table

mod args;
mod attend;
mod decode;
mod device;
mod measure;
mod report;
mod save;
mod select;
mod table;

use anyhow::Result;
use clap::Parser;

use crate::{
    args::{Cli, Command},
    save::{Environment, Folder},
};

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Command::Summary { folder } = &cli.command {
        return Folder::existing(folder).summarise();
    }
    let device = device::Bench::open()?;
    println!("{}", device.describe());
    let folder = match &cli.save {
        Some(runs) => Some(Folder::open(runs, &Environment::new(device.gpu().clone()))?),
        None => None,
    };
    let mut report = report::Report::new(device.describe(), folder);
    match &cli.command {
        Command::Dense(args) => attend::dense(&device, args, &mut report)?,
        Command::Blocks(args) => attend::blocks(&device, args, &mut report)?,
        Command::Decode(args) => decode::run(&device, args, &mut report)?,
        Command::Select(args) => select::stages(&device, args)?,
        Command::Summary { .. } => {} // before a device is opened
    }
    report.write(cli.out.as_deref())
}
