//! The slow log: the requests that took longer than `--slow-log`.

use super::latency::Kind;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// The most requests that the log of a worker keeps. It forgets the oldest first.
pub const SLOW_MAX: usize = 128;
/// What a connection had a worker do in a turn that took too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// When it ended.
    pub time: SystemTime,
    /// From the read to the write.
    pub service: Duration,
    /// The time before, while the worker served others.
    pub wait: Duration,
    /// The kind of most of the operations.
    pub kind: Kind,
    /// The number of operations.
    pub operations: u32,
    /// The bytes of the replies that were written in this turn.
    pub bytes: u64,
    /// The descriptor of the connection.
    pub connection: i32,
    /// The word of the first command: `binary` of a packet; empty if the command began in an earlier turn, or is none of the
    /// protocol's, and so may be a part of a value.
    pub command: Vec<u8>,
    /// The first key of the command, or none.
    pub key: Vec<u8>,
    /// The hash of the key, which names it where the key itself may not be shown.
    pub hash: u64,
}

/// The last slow requests of a worker.
#[derive(Debug, Default)]
pub struct SlowLog(VecDeque<Slow>);

impl SlowLog {
    /// Adds a request.
    pub fn push(&mut self, slow: Slow) {
        if self.0.len() == SLOW_MAX {
            self.0.pop_front();
        }
        self.0.push_back(slow);
    }

    /// The requests, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Slow> {
        self.0.iter()
    }

    /// Forgets all requests.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
