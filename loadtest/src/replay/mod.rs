//! Cache-aside replay: the client sends a get for every request of a [`trace`], and sets every missing key.
//!
//! The result must depend on the server's evictions alone, so that it is the same each time. The replay therefore uses
//! one connection, and keeps the order of the trace: it sends gets in batches, and after all replies it sets the
//! missing keys in the same order. A batch ends before a key that it already contains; otherwise that key would miss
//! twice, because its set has not been sent yet. Batches of one request follow the trace exactly.

mod connection;
mod generate;
mod trace;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use connection::Connection;
pub use generate::{Generated, ZipfScan};
pub use trace::{Column, Requests, arc, csv, open};

/// The parameters of a replay.
pub struct Replay {
    /// `host:port`
    pub server: String,
    pub requests: Requests,
    /// Bytes of values whose size the trace does not tell.
    pub value_size: usize,
    /// Maximum number of gets in a batch.
    pub pipeline: usize,
}

/// The result of a replay.
#[derive(Debug, Default, PartialEq)]
pub struct Misses {
    requests: u64,
    misses: u64,
    /// Requests of scans. Every cache misses their keys.
    scanned: u64,
    scan_misses: u64,
    /// Sets that the server refused.
    refused: u64,
    elapsed: Duration,
}

impl Replay {
    /// Replays to the end, or until `stop` is set.
    pub fn run(self, stop: &AtomicBool) -> Result<Misses, String> {
        let mut connection = Connection::open(&self.server)?;
        self.over(&mut connection, stop)
    }

    fn over<S: Read + Write>(self, connection: &mut Connection<S>, stop: &AtomicBool) -> Result<Misses, String> {
        let begun = Instant::now();
        let (mut result, mut batch, mut found) = (Misses::default(), Vec::with_capacity(self.pipeline), Vec::new());
        let mut requests = self.requests;
        let mut next = requests.next().transpose()?;
        while let Some(request) = next {
            batch.push(request);
            next = requests.next().transpose()?;
            let goes_on = next
                .as_ref()
                .is_some_and(|next| batch.len() < self.pipeline && batch.iter().all(|request| request.key != next.key));
            if goes_on {
                continue;
            }
            connection.get(&batch, &mut found)?;
            let missing = batch.iter().zip(&found).filter(|(_, found)| !**found).map(|(request, _)| request);
            result.refused += connection.set(missing.clone(), self.value_size)?;
            result.requests += batch.len() as u64;
            result.misses += missing.clone().count() as u64;
            result.scanned += batch.iter().filter(|request| request.scan).count() as u64;
            result.scan_misses += missing.filter(|request| request.scan).count() as u64;
            batch.clear();
            found.clear();
            if stop.load(Relaxed) {
                break;
            }
        }
        result.elapsed = begun.elapsed();
        Ok(result)
    }
}

impl Misses {
    fn ratio(&self) -> f64 {
        self.misses as f64 / self.requests.max(1) as f64
    }

    /// The miss ratio of requests outside scans.
    fn ratio_outside_scans(&self) -> f64 {
        (self.misses - self.scan_misses) as f64 / (self.requests - self.scanned).max(1) as f64
    }

    fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The result as text.
    pub fn text(&self) -> String {
        let Misses { requests, misses, scanned, refused, .. } = self;
        let seconds = self.elapsed.as_secs_f64();
        let mut out = format!("requests     {requests} in {seconds:.2} s, {:.0}/s\n", self.per_second());
        out += &format!("misses       {misses}\nmiss ratio   {:.4}\n", self.ratio());
        if *scanned > 0 {
            out += &format!("scanned      {scanned}\nmiss ratio   {:.4} outside scans\n", self.ratio_outside_scans());
        }
        if *refused > 0 {
            out += &format!("sets refused {refused}\n");
        }
        out
    }

    /// The result as one JSON object.
    pub fn json(&self) -> Value {
        json!({
            "requests": self.requests,
            "misses": self.misses,
            "miss_ratio": self.ratio(),
            "requests_of_scans": self.scanned,
            "miss_ratio_outside_scans": self.ratio_outside_scans(),
            "sets_refused": self.refused,
            "seconds": self.elapsed.as_secs_f64(),
            "requests_per_second": self.per_second(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replays ARC pages against known replies.
    fn replay(pages: &'static str, pipeline: usize, replies: &str) -> Misses {
        let requests = arc(Box::new(pages.as_bytes()), 0);
        let replay = Replay { server: String::new(), requests, value_size: 1, pipeline };
        let result = replay.over(&mut connection::tests::script(replies), &AtomicBool::new(false));
        Misses { elapsed: Duration::ZERO, ..result.expect("known replies") }
    }

    #[test]
    fn a_key_that_repeats_starts_a_batch() {
        let replies = "END\r\nEND\r\nSTORED\r\nSTORED\r\nVALUE 1 0 1\r\nv\r\nEND\r\nEND\r\nSTORED\r\n";
        let expected = Misses { requests: 4, misses: 3, ..Misses::default() };
        assert_eq!(replay("1 2 0 0\n1 1 0 1\n3 1 0 2\n", 8, replies), expected);
    }

    #[test]
    fn one_at_a_time_is_the_trace_to_the_letter() {
        let replies = "END\r\nSTORED\r\nEND\r\nSERVER_ERROR out of memory\r\nVALUE 1 0 1\r\nv\r\nEND\r\n";
        let expected = Misses { requests: 3, misses: 2, refused: 1, ..Misses::default() };
        assert_eq!(replay("1 2 0 0\n1 1 0 1\n", 1, replies), expected);
        assert!(expected.text().contains("miss ratio   0.6667"));
    }
}
