//! Ctrl-C: the first asks the run to end, the second ends the process.

use std::io;

use anyhow::{Context, Result};
use signal_hook::{consts::SIGINT, flag};
use sparse_accelerate_engine::Cancel;

/// Exit code of a process that was interrupted, as shells have it.
pub(crate) const CODE: u8 = 130;

/// Ends what `cancel` belongs to at the next chunk or token when the user asks.
pub(crate) fn ends(cancel: &Cancel) -> Result<()> {
    let listen = || -> io::Result<()> {
        // In this order: the first one finds the flag not yet set.
        flag::register_conditional_shutdown(SIGINT, i32::from(CODE), cancel.flag())?;
        flag::register(SIGINT, cancel.flag())?;
        Ok(())
    };
    listen().context("cannot listen for Ctrl-C")
}
