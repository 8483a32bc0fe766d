//! Ctrl-C: the first asks the run to end, the second ends the process.

use anyhow::{Context, Result};
use sparse_accelerate_engine::Cancel;

/// Exit code of a process that was interrupted, as shells have it.
pub(crate) const CODE: u8 = 130;

/// Ends what `cancel` belongs to at the next chunk or token when the user asks.
pub(crate) fn ends(cancel: Cancel) -> Result<()> {
    ctrlc::set_handler(move || {
        if cancel.is_cancelled() {
            std::process::exit(i32::from(CODE));
        }
        cancel.cancel();
        eprintln!("\nending after this chunk; once more to end at once");
    })
    .context("cannot listen for Ctrl-C")
}
