//! The rows of a folder as Markdown: the environment, then a table for each command.

use std::fmt::Write;

use super::{Environment, Row};

/// The summary; commands in the order in which they first appear.
pub(super) fn render(environment: &Environment, rows: &[Row]) -> String {
    let gpu = &environment.gpu;
    let mut out = format!("# {}, kernels, {}\n\n", gpu.name, environment.date);
    let unknown = || "not known".to_string();
    let commit = environment.commit.clone().map(|commit| {
        let changed = environment.changed == Some(true);
        commit + if changed { ", with changes" } else { "" }
    });
    let metadata = [
        ("compute capability", gpu.compute_capability.clone()),
        ("driver", gpu.driver.clone()),
        ("CUDA of the driver", gpu.cuda.clone()),
        ("kernels through", Some(gpu.compiler.clone())),
        (
            "multiprocessors",
            gpu.multiprocessors.map(|n| n.to_string()),
        ),
        (
            "shared memory of a cube",
            Some(format!("{} KiB", gpu.shared_kib)),
        ),
        ("system", Some(environment.system.clone())),
        ("version", Some(environment.version.clone())),
        ("commit", commit),
    ];
    out += "| what | value |\n| --- | --- |\n";
    for (what, value) in metadata {
        line(&mut out, &[what.into(), value.unwrap_or_else(unknown)]);
    }
    out += "\nTimes are the device's. TFLOP/s are useful operations, `4 d` for each kept causal pair, over the \
            median. The error is relative L2 against f64 attention (peers: f32) on sampled rows.\n";
    let mut commands: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        let command = (row.by.as_str(), row.command.as_str());
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    for (by, command) in commands {
        let of_this: Vec<_> = rows
            .iter()
            .filter(|row| (row.by.as_str(), row.command.as_str()) == (by, command))
            .collect();
        let chosen = of_this.iter().any(|row| row.choice.is_some());
        let _ = write!(out, "\n## `{command}`\n\nBy {by}.\n\n");
        let mut header = vec!["case", "S", "density", "kernel"];
        if chosen {
            header.push("chosen by");
        }
        header.extend(["median ms", "min ms", "TFLOP/s", "error", "first s"]);
        line(
            &mut out,
            &header.iter().map(|h| h.to_string()).collect::<Vec<_>>(),
        );
        line(&mut out, &vec!["---".to_string(); header.len()]);
        for row in of_this {
            let number = |x: Option<f64>, digits: usize| {
                x.map_or_else(String::new, |x| format!("{x:.digits$}"))
            };
            let mut cells = vec![
                row.case.clone(),
                row.len.to_string(),
                format!("{:.3}", row.density),
                row.kernel.clone(),
            ];
            if chosen {
                cells.push(row.choice.clone().unwrap_or_default());
            }
            cells.extend([
                format!("{:.4}", row.median_ms),
                format!("{:.4}", row.min_ms),
                number(row.tflops, 1),
                number(row.error, 6),
                number(row.first_s, 2),
            ]);
            line(&mut out, &cells);
        }
    }
    out
}

fn line(out: &mut String, cells: &[String]) {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}
