//! The check as a program; `cargo xtask ptx` brings the toolkit and runs it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use sparse_accelerate_ptx_check::{
    check::{Check, Outcome},
    plans,
    table::{self, Row, Table},
};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/kernels.txt");
const PLANS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/plans.txt");
const HEADER: &str = "\
# What every kernel takes, by `ptxas`: registers, bytes of spills and stack per unit, bytes of static
# and dynamic shared memory per cube. Made by `cargo xtask ptx --write`.
";

#[derive(Debug, Parser)]
#[command(about = "Compiles the CUDA kernels without a GPU and compares what they take")]
struct Args {
    /// Folder with lib/libnvrtc.so.13, bin/ptxas and include/
    #[arg(long)]
    toolkit: PathBuf,
    /// Write the tables of kernels and of plans, or with --only the rows of these cases; spills and excesses still fail
    #[arg(long)]
    write: bool,
    /// Keep CUDA C++, PTX and the assembler's words in this folder
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Only cases whose `device/case` contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print every row
    #[arg(long)]
    rows: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let check = Check::new(args.toolkit, args.dump)?;
    let outcomes = check.run(args.only.as_deref().unwrap_or(""));
    let ran: BTreeSet<(String, String)> = outcomes
        .iter()
        .map(|o| (o.gpu.name.to_owned(), o.case.clone()))
        .collect();
    let rows: Vec<Row> = outcomes
        .iter()
        .flat_map(|o| o.rows.iter().flatten().cloned())
        .collect();
    if args.rows {
        print!("{}", Table::new(&rows));
    }
    if args.write {
        let mut table = Table::new(&rows);
        if args.only.is_some() {
            let text = fs::read_to_string(TABLE).context("cannot read the table")?;
            table = Table::read(&text).renewed(table, &ran);
        }
        fs::write(TABLE, format!("{HEADER}{table}")).context("cannot write the table")?;
        fs::write(PLANS, plans::text()).context("cannot write the plans")?;
    }
    let text = fs::read_to_string(TABLE).context("cannot read the table")?;
    let part = args.only.is_some().then_some(&ran);
    let (passed, complaints) = judge(&outcomes, &text, part);
    for complaint in &complaints {
        println!("ptx check: {complaint}");
    }
    println!("ptx check: {passed} passed, {} failed", complaints.len());
    Ok(match complaints.is_empty() && passed > 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The number of rows that are as the table says, and a line for everything else; of the rows that are
/// listed and were not launched, those of the cases in `part`, or all.
fn judge(
    outcomes: &[Outcome],
    table: &str,
    part: Option<&BTreeSet<(String, String)>>,
) -> (usize, Vec<String>) {
    let mut listed = table::parse(table);
    if let Some(part) = part {
        listed.retain(|(device, case, _), _| part.contains(&(device.clone(), case.clone())));
    }
    let (mut passed, mut complaints) = (0, Vec::new());
    for outcome in outcomes {
        let place = format!("{} {}", outcome.gpu.name, outcome.case);
        let rows = match &outcome.rows {
            Ok(rows) => rows,
            Err(error) => {
                complaints.push(format!("{place}: {error:#}"));
                continue;
            }
        };
        for row in rows {
            let line = listed.remove(&row.key);
            let wrong = row
                .excess(outcome.gpu)
                .into_iter()
                .chain(table::difference(row, line.as_ref()))
                .collect::<Vec<_>>();
            match wrong.is_empty() {
                true => passed += 1,
                false => complaints.push(format!("{place} {}: {}", row.key.2, wrong.join("; "))),
            }
        }
    }
    let gone = |(device, case, kernel)| format!("{device} {case} {kernel}: listed, not launched");
    complaints.extend(listed.into_keys().map(gone));
    (passed, complaints)
}
