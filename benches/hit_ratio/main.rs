//! What share of requests does the cache miss, and what share do textbook policies with as many items miss?
//!
//! The bench replays requests cache-aside: a get, and a set after a miss. The clock advances by a second after a fixed
//! number of requests, and housekeeping runs its steps as in a worker. The bench checks the value of each hit.
//!
//! The requests are generated ([`traffic`]), the same in each run, or those of a trace in the format of the ARC paper
//! (Megiddo & Modha 2003). A line `first-page count 0 sequence` means `count` requests for consecutive pages. The first
//! argument or the environment variable `CORECACHED_TRACE` gives the path. If the path ends in `.zst`, the bench reads
//! the trace through the program `zstd`. On the paper's OLTP trace with values of 500 bytes, memcached 1.6.45 misses
//! 0.296 with `-m 16` and 0.256 with `-m 32`.
//!
//! On generated requests the cache must not miss more often than an exact LRU, beyond [`WORSE_MAX`].

#![allow(clippy::print_stdout, reason = "what a bench finds out is its product")]

#[path = "../common/mod.rs"]
mod common;
mod policies;
mod traffic;

use common::Verdict;
use corecached::clock::{NEVER, Now};
use corecached::hash::KeyHasher;
use corecached::store::{Store, StoreOptions};
use policies::POLICIES;
use std::process::ExitCode;

/// Requests per second of the replay's clock. This rate determines the ages that the store sees.
const REQUESTS_PER_SECOND: u64 = 20_000;
/// Steps of a worker's housekeeping per second, and chunks per step (`Config`'s defaults).
const HOUSEKEEPING_STEPS: u64 = 256;
const HOUSEKEEPING_CHUNKS: u32 = 256;

/// Bytes of each value, and MiB of memory, for a trace.
const SIZES: [(usize, usize); 4] = [(500, 16), (500, 32), (32, 4), (32, 8)];

/// The same for generated requests, and the number of items that fit.
const SMALL: (usize, usize, usize) = (500, 12, 22_000);

/// The part of an exact LRU's misses that may come on top.
const WORSE_MAX: f64 = 0.06;
/// The same where the working set changes as a whole, which the policy must find out first: times as many.
const WORSE_AFTER_CHANGE: f64 = 3.0;

fn main() -> ExitCode {
    let mut verdict = Verdict::default();
    print!("{:<38}{:>6}{:>5}{:>9}{:>9}", "miss ratio", "bytes", "MiB", "items", "ours");
    POLICIES.iter().for_each(|(name, _)| print!("{name:>9}"));
    println!("{:>9}", "of LRU");
    match common::argument().or_else(|| std::env::var("CORECACHED_TRACE").ok()) {
        None => println!(
            "trace: skipped. Give one in ARC's format: CORECACHED_TRACE=<path> cargo bench --bench hit_ratio, or \
             cargo bench --bench hit_ratio -- <path>"
        ),
        Some(path) => match traffic::read_trace(&path) {
            Ok(keys) => {
                for (value_len, mebibytes) in SIZES {
                    compare("trace", &keys, value_len, mebibytes, &mut verdict);
                }
            }
            Err(error) => verdict.expect(false, || format!("the trace {path} cannot be read: {error}")),
        },
    }
    let (value_len, mebibytes, items) = SMALL;
    for (name, keys) in traffic::generated(items) {
        let (ours, lru) = compare(&name, &keys, value_len, mebibytes, &mut verdict);
        let worse_max = if name.starts_with("new") { WORSE_AFTER_CHANGE } else { WORSE_MAX };
        verdict.expect(ours <= lru * (1.0 + worse_max), || format!("{name}: misses {ours:.4}, an exact LRU {lru:.4}"));
    }
    verdict.exit()
}

/// Replays keys on a store, and on each policy with as many items, and prints a line. Gives the miss ratios of the store
/// and of the exact LRU.
fn compare(name: &str, keys: &[u64], value_len: usize, mebibytes: usize, verdict: &mut Verdict) -> (f64, f64) {
    let mut replay = Replay::new(value_len, mebibytes);
    let ratio = |misses: usize| misses as f64 / keys.len() as f64;
    let ours = ratio(keys.iter().filter(|&&key| !replay.request(key)).count());
    verdict.expect(replay.wrong == 0, || format!("{name}: {} values were another key's", replay.wrong));
    print!("{name:<38}{value_len:>6}{mebibytes:>5}{:>9}{ours:>9.4}", replay.items_max);
    let missed = POLICIES.map(|(_, policy)| {
        let mut policy = policy(replay.items_max);
        let missed = ratio(keys.iter().filter(|&&key| !policy.request(key)).count());
        print!("{missed:>9.4}");
        missed
    });
    println!("{:>8.1}%", 100.0 * ours / missed[0]);
    (ours, missed[0])
}

/// A store on which the bench replays requests.
struct Replay {
    store: Store,
    hasher: KeyHasher,
    value_len: usize,
    requests: u64,
    /// The largest number of items that the store has held.
    items_max: usize,
    /// Hits with a value that was not stored under this key.
    wrong: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Replay {
    fn new(value_len: usize, mebibytes: usize) -> Replay {
        Replay {
            store: common::store(mebibytes, StoreOptions::default()),
            hasher: common::hasher(),
            value_len,
            requests: 0,
            items_max: 0,
            wrong: 0,
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Gets a key, and sets it after a miss. Returns whether it was a hit.
    fn request(&mut self, number: u64) -> bool {
        self.pass_time();
        self.key.clear();
        self.key.extend_from_slice(number.to_string().as_bytes());
        self.value.clear();
        common::write_value(number, 0, self.value_len, &mut self.value);
        let hash = self.hasher.hash(&self.key);
        match self.store.find(hash, &self.key) {
            Ok(entry) => {
                self.wrong += u64::from(self.store.item(entry.id).value() != Some(&self.value[..]));
                self.store.hit(entry.id);
                true
            }
            Err(_) => {
                self.store.put(hash, &self.key, 0, NEVER, &self.value, None).expect("a cache that evicts has room");
                false
            }
        }
    }

    /// Advances the clock and runs housekeeping, as a worker does.
    fn pass_time(&mut self) {
        self.requests += 1;
        if self.requests.is_multiple_of(REQUESTS_PER_SECOND / HOUSEKEEPING_STEPS) {
            self.store.set_now(Now(2 + (self.requests / REQUESTS_PER_SECOND) as u32));
            self.store.housekeep(HOUSEKEEPING_CHUNKS, true);
            self.items_max = self.items_max.max(self.store.snapshot().curr_items as usize);
        }
    }
}
