//! `ptxas`, CUDA's assembler: what a kernel takes of a multiprocessor.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Resources of one kernel, per unit except shared memory, which is per cube.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Registers.
    pub registers: u32,
    /// Bytes of registers written to local memory and read back: the larger of the two.
    pub spills: u32,
    /// Bytes of stack frame: arrays indexed at run time, and spills.
    pub stack: u32,
    /// Bytes of static shared memory.
    pub static_shared: u32,
}

/// Assembles the file `ptx` for `arch` into `cubin`; the usage and the assembler's own words.
///
/// # Errors
/// When `ptxas` does not start, refuses the text, or says something else than it used to.
pub fn assemble(toolkit: &Path, arch: &str, ptx: &Path, cubin: &Path) -> Result<(Usage, String)> {
    let output = Command::new(toolkit.join("bin/ptxas"))
        .arg(format!("-arch={arch}"))
        .args(["-v", "-lineinfo", "-o"])
        .args([cubin, ptx])
        .output()
        .context("cannot start ptxas")?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("ptxas: {}\n{}", output.status, log.trim_end());
    }
    let usage = parse(&log).with_context(|| format!("not understood: ptxas said\n{log}"))?;
    Ok((usage, log))
}

fn parse(log: &str) -> Option<Usage> {
    let before = |what: &str| -> Option<u32> {
        let (left, _) = log.split_once(what)?;
        left.rsplit(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    };
    Some(Usage {
        registers: before(" registers")?,
        spills: before(" bytes spill stores")?.max(before(" bytes spill loads")?),
        stack: before(" bytes stack frame")?,
        static_shared: before(" bytes smem").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assemblers_words_are_read() {
        let log = "ptxas info    : 0 bytes gmem\n\
                   ptxas info    : Compiling entry function 'attend' for 'sm_90a'\n\
                   ptxas info    : Function properties for attend\n    \
                   24 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n\
                   ptxas info    : Used 168 registers, used 1 barriers, 24 bytes cumulative stack \
                   size, 1040 bytes smem\n";
        let usage = Usage {
            registers: 168,
            spills: 12,
            stack: 24,
            static_shared: 1040,
        };
        assert_eq!(parse(log), Some(usage));
        assert_eq!(
            parse(&log.replace(", 1040 bytes smem", "")).map(|u| u.static_shared),
            Some(0)
        );
        assert_eq!(parse("ptxas info    : 0 bytes gmem\n"), None);
    }
}
