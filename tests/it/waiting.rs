//! Waiting for something that a server does in its own time, and that no event announces.

use std::time::{Duration, Instant};

/// How long anything may take. It ends what hangs, and is many times what a busy machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The time between two looks.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Looks until it is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it took too long until {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}
