//! Due times of requests at a fixed rate: the open loop.
//!
//! Latency counts from the time a request was due, not from the time the client could send it. If a server stalls for a
//! second, all requests due in that second show the stall, instead of one request ("coordinated omission", G. Tene). A
//! due time follows from the number of its request alone, so nothing drifts and the client needs no queue.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;
use std::{io, ptr};

/// Due times of one thread. Several threads share a rate. Times are nanoseconds since the start.
pub struct Pace {
    per_second: f64,
    /// Number of this thread's next request, counted over all threads.
    next: u64,
    step: u64,
}

impl Pace {
    /// The due times of thread `index`. All `threads` together send `per_second` requests from time 0 on.
    pub fn new(per_second: f64, index: usize, threads: usize) -> Pace {
        Pace { per_second, next: index as u64, step: threads as u64 }
    }

    /// When the next request is due.
    pub fn due(&self) -> u64 {
        (self.next as f64 * (1e9 / self.per_second)) as u64
    }

    /// Returns the due time of the next request if it has come, and then steps to the request after it.
    pub fn take(&mut self, now: u64) -> Option<u64> {
        let due = self.due();
        (due <= now).then(|| {
            self.next += self.step;
            due
        })
    }

    /// Requests that were due before `now` and have not been taken.
    pub fn backlog(&self, now: u64) -> u64 {
        let due_before = (now as f64 * self.per_second / 1e9).ceil() as u64;
        due_before.saturating_sub(self.next).div_ceil(self.step)
    }
}

/// Wakes a poll with a precision of nanoseconds; epoll's own timeout counts milliseconds.
pub struct Timer(OwnedFd);

impl Timer {
    pub fn new() -> io::Result<Timer> {
        // SAFETY: takes flags only and gives a new descriptor or -1.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and has no other owner.
        Ok(Timer(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Fires once after `wait`, and drops an earlier setting. The poll is edge-triggered, so the caller need not read
    /// expiries.
    pub fn set(&self, wait: Duration) {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().max(1).into() };
        let setting = libc::itimerspec { it_interval: zero, it_value: value };
        // SAFETY: the descriptor is a timer, the setting is valid, and the old one is not asked for.
        let result = unsafe { libc::timerfd_settime(self.fd(), 0, &setting, ptr::null_mut()) };
        assert_eq!(result, 0, "a valid setting of a valid timer");
    }

    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_turns() {
        let mut paces = [Pace::new(1000.0, 0, 2), Pace::new(1000.0, 1, 2)];
        let mut taken = Vec::new();
        for now in (0..=6_000_000).step_by(500_000) {
            for pace in &mut paces {
                taken.extend(pace.take(now));
            }
        }
        assert_eq!(taken, [0, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000, 6_000_000]);
    }

    #[test]
    fn a_stall_is_caught_up_with_the_times_that_were_due() {
        let mut pace = Pace::new(1e6, 0, 1);
        assert_eq!(pace.take(0), Some(0));
        assert_eq!(pace.take(999), None);
        assert_eq!(pace.backlog(5_000), 4);
        let taken: Vec<u64> = std::iter::from_fn(|| pace.take(5_000)).collect();
        assert_eq!(taken, [1_000, 2_000, 3_000, 4_000, 5_000]);
        assert_eq!(pace.backlog(5_001), 0);
        assert_eq!(pace.backlog(6_001), 1);
    }

    #[test]
    fn no_drift_over_a_day() {
        let mut pace = Pace::new(333.0, 0, 1);
        pace.next = 333 * 86_400;
        assert!(pace.due().abs_diff(86_400 * 1_000_000_000) < 100);
    }
}
