//! The progress of a comparison, and the estimated time to its end, on standard error.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

pub struct Progress {
    begun: Instant,
    done: usize,
    total: usize,
    /// A terminal has one line that changes; a file has one line per row.
    terminal: bool,
    quiet: bool,
}

impl Progress {
    pub fn new(total: usize, quiet: bool) -> Progress {
        Progress { begun: Instant::now(), done: 0, total, terminal: stderr().is_terminal(), quiet }
    }

    /// Shows the next measurement. `first` says that it is the first of its row.
    pub fn show(&self, what: &str, first: bool) {
        let line = format!("{what}{}", remaining(self.begun.elapsed(), self.done, self.total));
        match (self.quiet, self.terminal) {
            (false, true) => drop(write!(stderr(), "\r\x1b[K{line}")),
            (false, false) if first => drop(writeln!(stderr(), "{line}")),
            _ => {}
        }
    }

    /// Counts measurements that are done or skipped.
    pub fn advance(&mut self, count: usize) {
        self.done += count;
        self.clear();
    }

    /// Clears the progress line, before the program prints a result.
    pub fn clear(&self) {
        if self.terminal && !self.quiet {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

/// Assumes that the other measurements take as long as those that are done.
fn remaining(elapsed: Duration, done: usize, total: usize) -> String {
    if done == 0 {
        return format!(", {} elapsed", clock(elapsed));
    }
    let left = elapsed.mul_f64(total.saturating_sub(done) as f64 / done as f64);
    format!(", {} elapsed, about {} to go", clock(elapsed), clock(left))
}

/// Minutes and seconds, and hours if there are any.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_as_slow_as_the_beginning() {
        let seconds = Duration::from_secs;
        assert_eq!(remaining(seconds(5), 0, 10), ", 0:05 elapsed");
        assert_eq!(remaining(seconds(100), 1, 61), ", 1:40 elapsed, about 1:40:00 to go");
        assert_eq!(remaining(seconds(100), 10, 10), ", 1:40 elapsed, about 0:00 to go");
    }
}
