//! Plans that `prepare` chooses for every attention case on every device, as text.

use cubecl::ir::DeviceProperties;

use crate::{
    cases::{self, Attend},
    fixtures::{self, CUDA, Compiler},
};

const HEADER: &str = "\
# What every device runs for every attention case, or why it refuses. Made by
# `cargo xtask ptx --write`.
";

/// The plans, a line each under the name of the device.
pub fn text() -> String {
    let mut cases = cases::attends();
    // Log-sum-exps and index widths are no part of a plan.
    let mut seen = Vec::new();
    cases.retain(|case| {
        let new = !seen.contains(&(case.problem, case.elem));
        seen.push((case.problem, case.elem));
        new
    });
    let mut text = HEADER.to_owned();
    let mut cpp = ("", Vec::new());
    for gpu in &CUDA {
        let lines = lines(&gpu.properties(), &cases);
        text += &format!("\n{}\n", gpu.name);
        if gpu.compiler == Compiler::Cpp {
            cpp = (gpu.name, lines.clone());
            text.extend(lines);
        } else {
            text += &format!("  as {}, but for what follows\n", cpp.0);
            text.extend(lines.into_iter().filter(|line| !cpp.1.contains(line)));
        }
    }
    let portable = [
        (fixtures::WEBGPU, fixtures::webgpu()),
        (fixtures::METAL, fixtures::metal()),
    ];
    for (name, device) in portable {
        text += &format!("\n{name}\n");
        text.extend(lines(&device, &cases));
    }
    text
}

fn lines(device: &DeviceProperties, cases: &[Attend]) -> Vec<String> {
    let width = cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
    cases
        .iter()
        .map(|case| {
            let plan = match case.plan(device) {
                Ok(plan) => format!("{plan:?}"),
                Err(refusal) => format!("refused: {refusal}"),
            };
            format!("  {:<width$}  {plan}\n", case.name)
        })
        .collect()
}
