//! Waiting for a server to do something that no event announces.

use std::time::{Duration, Instant};

/// Longest wait. It ends a test that hangs, and is many times what a busy machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two checks.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Checks again and again until `is_so` returns true.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it took too long until {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}
