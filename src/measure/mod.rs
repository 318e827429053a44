//! What a worker measures beside its counters: how long requests take, which of them were slow, and what a sample of them
//! is about. One worker writes a [`Measures`]; `stats` and the observer read those of all workers.

pub mod hot_keys;
pub mod latency;
pub mod prefixes;
pub mod sample;
pub mod samples;
pub mod slow;

use latency::Latency;
use parking_lot::Mutex;
use samples::{SampleOptions, Samples};
use slow::SlowLog;
use std::time::Instant;

/// The measures of one worker.
#[derive(Debug)]
pub struct Measures {
    /// How long requests took.
    pub latency: Latency,
    /// The requests that took too long. The worker takes the lock only for such a request.
    pub slow: Mutex<SlowLog>,
    /// What the sampled requests were about. The worker never waits for the lock: while a reader has it, samples are lost.
    pub samples: Mutex<Samples>,
}

impl Measures {
    /// Measures of a worker that starts at `now`.
    pub fn new(options: SampleOptions, now: Instant) -> Measures {
        Measures {
            latency: Latency::default(),
            slow: Mutex::new(SlowLog::default()),
            samples: Mutex::new(Samples::new(options, now)),
        }
    }

    /// `stats reset`.
    pub fn reset(&self, now: Instant) {
        self.latency.reset();
        self.slow.lock().clear();
        self.samples.lock().clear(now);
    }
}
