//! INT and TERM end a transfer between two batches. A second one ends the program at once.

use crate::tool::failure::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a signal has come.
#[derive(Clone, Debug, Default)]
pub(in crate::tool) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Begins to watch for signals.
    pub(in crate::tool) fn watch() -> Result<Interrupt, Failure> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order the first signal finds the flag unset.
            flag::register_conditional_default(signal, Arc::clone(&interrupt.0))?;
            flag::register(signal, Arc::clone(&interrupt.0))?;
        }
        Ok(interrupt)
    }

    pub(in crate::tool) fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
