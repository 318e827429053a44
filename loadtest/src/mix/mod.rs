//! Cache-aside clients whose values have many sizes, and the share of requests that miss.
//!
//! A client asks for a batch of keys in one `get`, and sets those that are missing. All of it follows from the seed: the
//! same keys in the same order for every server, and for each key one size. Reading order: [`sizes`], [`traffic`], and
//! then [`Mix::run`].

pub mod sizes;
pub mod traffic;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::replay::Connection;
use crate::server::Server;
use sizes::Sizes;
use traffic::Traffic;

/// Keys of a `get`.
const BATCH: usize = 64;

/// Bytes that a server needs for an item besides its value, about: they only serve to count what fits.
const OVERHEAD: f64 = 60.0;

/// The first requests, which show how a cache fills.
const FIRST: u64 = 500_000;

/// The seed of all random numbers.
const SEED: u64 = 1;

/// A client's requests.
#[derive(Clone, Debug)]
pub struct Mix {
    pub sizes: Sizes,
    pub traffic: Traffic,
    /// MiB of memory that the server may use.
    pub memory: u64,
    pub requests: u64,
}

/// What a server answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    /// The share of the first requests that missed.
    pub missed_first: f64,
    /// The share of the last quarter that missed.
    pub missed_last: f64,
    /// Pages that moved in the last quarter, per thousand sets; `None` if the server does not tell.
    pub moves: Option<f64>,
    /// Sets that the server refused.
    pub refused: u64,
}

impl Mix {
    /// Sends the requests to a server.
    pub fn run(&self, server: &Server, stop: &AtomicBool) -> Result<Answers, String> {
        let mut connection = Connection::new(server.connect(0).map_err(|error| format!("connection: {error}"))?);
        let sizes = self.sizes.drawn(SEED);
        let fits = (self.memory << 20) as f64 / (sizes.mean() + OVERHEAD);
        let mut keys = self.traffic.keys(fits as u64, SEED);
        let (mut batch, mut found, mut met) = (Vec::new(), Vec::new(), HashSet::new());
        let (mut sent, mut sent_first, mut sent_last, mut refused) = (0, 0, 0, 0);
        let (mut missed_first, mut missed_last) = (0, 0);
        let last = self.requests / 4 * 3;
        let first = FIRST.min(self.requests);
        let mut moved_before = None;
        while sent < self.requests && !stop.load(Relaxed) {
            batch.clear();
            batch.extend((0..BATCH).map(|_| {
                let id = keys.next();
                (id, sizes.of(id))
            }));
            found.clear();
            connection.get_together(batch.iter().map(|(id, _)| *id), &mut found)?;
            // A key that comes twice in a batch would not miss twice: the client has set it by then.
            met.clear();
            let missing = batch.iter().zip(&found).filter(|&((id, _), &found)| !found && met.insert(*id));
            let missing: Vec<(u64, usize)> = missing.map(|(request, _)| *request).collect();
            refused += connection.set_numbered(&missing)?;
            let is_last = sent >= last;
            if is_last && moved_before.is_none() {
                moved_before = server.stat("slabs_moved");
            }
            let (asked, missed) = (batch.len() as u64, missing.len() as u64);
            if sent < first {
                sent_first += asked;
                missed_first += missed;
            }
            if is_last {
                sent_last += asked;
                missed_last += missed;
            }
            sent += asked;
        }
        let moved = server.stat("slabs_moved").zip(moved_before).map(|(after, before)| after.saturating_sub(before));
        Ok(Answers {
            missed_first: missed_first as f64 / sent_first.max(1) as f64,
            missed_last: missed_last as f64 / sent_last.max(1) as f64,
            moves: moved.map(|pages| pages as f64 * 1000.0 / missed_last.max(1) as f64),
            refused,
        })
    }
}
