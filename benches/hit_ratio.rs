//! What share of requests does the cache miss, and what share would an exact LRU with as many items miss?
//!
//! The bench replays requests cache-aside: a get, and a set after a miss. The clock advances by a second after a fixed
//! number of requests, and housekeeping runs its steps as in a worker. The requests come from two sources:
//!
//! - a trace in the format of the ARC paper (Megiddo & Modha 2003). A line `first-page count 0 sequence` means `count`
//!   requests for consecutive pages. The first argument or the environment variable `CORECACHED_TRACE` gives the path.
//!   If the path ends in `.zst`, the bench reads the trace through the program `zstd`. On the paper's OLTP trace with
//!   values of 500 bytes, memcached 1.6.45 misses 0.296 with `-m 16` and 0.256 with `-m 32`.
//! - a working set under a Zipf law (0.9), without and with long scans of keys that occur only once: does a scan evict
//!   items that are in use? Scans miss under every policy, so only requests for the working set count.
//!
//! The bench checks the value of each hit. The generated requests are the same in each run. They must not miss more
//! often than the exact LRU does by more than [`WORSE_MAX`].

#![allow(clippy::print_stdout, reason = "what a bench finds out is its product")]

mod common;

use common::{Random, SEED, Verdict};
use corecached::clock::{NEVER, Now};
use corecached::hash::KeyHasher;
use corecached::store::{Store, StoreOptions};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::process::{Command, ExitCode, Stdio};

/// Requests per second of the replay's clock. This rate determines the ages that the LRU compares.
const REQUESTS_PER_SECOND: u64 = 20_000;
/// Steps of a worker's housekeeping per second, and chunks per step (`Config`'s defaults).
const HOUSEKEEPING_STEPS: u64 = 256;
const HOUSEKEEPING_CHUNKS: u32 = 256;

/// Bytes of each value, and MiB of memory.
const SIZES: [(usize, usize); 4] = [(500, 16), (500, 32), (32, 4), (32, 8)];

const ZIPF_KEYS: usize = 200_000;
const ZIPF_EXPONENT: f64 = 0.9;
const ZIPF_REQUESTS: u64 = 1_000_000;
/// After this many requests for the working set follows a scan of this many keys.
const SCAN_EVERY: u64 = 50_000;
const SCAN_LEN: u64 = 50_000;

/// Maximum share of requests that the generated part may miss in excess of an exact LRU.
const WORSE_MAX: f64 = 0.01;

/// One request of a replay.
#[derive(Clone, Copy)]
struct Request {
    key: u64,
    /// Whether the request counts in the miss ratio.
    counts: bool,
}

fn main() -> ExitCode {
    let mut verdict = Verdict::default();
    println!(
        "{:<28}{:>12}{:>12}{:>10}{:>10}{:>10}{:>12}",
        "miss ratio", "value bytes", "memory MiB", "ours", "LRU", "of LRU", "items held"
    );
    match common::argument().or_else(|| std::env::var("CORECACHED_TRACE").ok()) {
        None => println!(
            "trace: skipped. Give one in ARC's format: CORECACHED_TRACE=<path> cargo bench --bench hit_ratio, or \
             cargo bench --bench hit_ratio -- <path>"
        ),
        Some(path) => match read_trace(&path) {
            Ok(requests) => {
                for (value_len, mebibytes) in SIZES {
                    compare("trace", &requests, value_len, mebibytes, None, &mut verdict);
                }
            }
            Err(error) => verdict.expect(false, || format!("the trace {path} cannot be read: {error}")),
        },
    }
    for (name, scans) in [("Zipf 0.9", false), ("Zipf 0.9 through scans", true)] {
        let requests = zipf(scans);
        for (value_len, mebibytes) in SIZES {
            compare(name, &requests, value_len, mebibytes, Some(WORSE_MAX), &mut verdict);
        }
    }
    verdict.exit()
}

/// Replays requests on a store and on an exact LRU of as many items, and prints a line.
fn compare(
    name: &str,
    requests: &[Request],
    value_len: usize,
    mebibytes: usize,
    worse_max: Option<f64>,
    verdict: &mut Verdict,
) {
    let mut replay = Replay::new(value_len, mebibytes);
    let counted = requests.iter().filter(|request| request.counts).count() as f64;
    let missed = requests.iter().filter(|request| !replay.request(request.key) && request.counts).count();
    verdict.expect(replay.wrong == 0, || format!("{name}: {} values were another key's", replay.wrong));
    let mut lru = ExactLru::new(replay.items_max);
    let missed_by_lru = requests.iter().filter(|request| !lru.request(request.key) && request.counts).count();

    let (ours, exact) = (missed as f64 / counted, missed_by_lru as f64 / counted);
    println!(
        "{name:<28}{value_len:>12}{mebibytes:>12}{ours:>10.4}{exact:>10.4}{:>9.1}%{:>12}",
        100.0 * ours / exact,
        replay.items_max
    );
    if let Some(worse_max) = worse_max {
        verdict.expect(ours <= exact + worse_max, || {
            format!("{name}, {value_len} bytes in {mebibytes} MiB: misses {ours:.4}, an exact LRU {exact:.4}")
        });
    }
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

/// The textbook LRU: a list of keys by last use. Entries refer to each other by their places in a vector.
struct ExactLru {
    capacity: usize,
    places: HashMap<u64, usize>,
    entries: Vec<LruEntry>,
    newest: usize,
    oldest: usize,
}

struct LruEntry {
    key: u64,
    newer: usize,
    older: usize,
}

/// The place of a neighbour that an entry lacks.
const NONE: usize = usize::MAX;

impl ExactLru {
    fn new(capacity: usize) -> ExactLru {
        ExactLru { capacity, places: HashMap::new(), entries: Vec::new(), newest: NONE, oldest: NONE }
    }

    /// Uses a key. A new key replaces the least recently used one. Returns whether the key was present.
    fn request(&mut self, key: u64) -> bool {
        if let Some(&place) = self.places.get(&key) {
            self.unlink(place);
            self.push(place);
            return true;
        }
        let place = if self.entries.len() < self.capacity {
            self.entries.push(LruEntry { key, newer: NONE, older: NONE });
            self.entries.len() - 1
        } else {
            let place = self.oldest;
            self.unlink(place);
            self.places.remove(&self.entries[place].key);
            self.entries[place].key = key;
            place
        };
        self.places.insert(key, place);
        self.push(place);
        false
    }

    fn unlink(&mut self, place: usize) {
        let LruEntry { newer, older, .. } = self.entries[place];
        if newer == NONE {
            self.newest = older;
        } else {
            self.entries[newer].older = older;
        }
        if older == NONE {
            self.oldest = newer;
        } else {
            self.entries[older].newer = newer;
        }
    }

    fn push(&mut self, place: usize) {
        let older = self.newest;
        self.entries[place].newer = NONE;
        self.entries[place].older = older;
        if older == NONE {
            self.oldest = place;
        } else {
            self.entries[older].newer = place;
        }
        self.newest = place;
    }
}

/// Requests for a working set whose popularity follows Zipf's law, with or without scans between them.
fn zipf(scans: bool) -> Vec<Request> {
    let mut sums = Vec::with_capacity(ZIPF_KEYS);
    let mut sum = 0.0;
    for rank in 1..=ZIPF_KEYS {
        sum += (rank as f64).powf(-ZIPF_EXPONENT);
        sums.push(sum);
    }
    let mut random = Random(SEED);
    let mut requests = Vec::new();
    let mut scanned = ZIPF_KEYS as u64;
    for number in 0..ZIPF_REQUESTS {
        let point = random.unit() * sum;
        requests.push(Request { key: sums.partition_point(|&sum| sum < point) as u64, counts: true });
        if scans && number % SCAN_EVERY == SCAN_EVERY - 1 {
            requests.extend((scanned..scanned + SCAN_LEN).map(|key| Request { key, counts: false }));
            scanned += SCAN_LEN;
        }
    }
    requests
}

/// The requests of a trace in ARC's format.
fn read_trace(path: &str) -> io::Result<Vec<Request>> {
    if !path.ends_with(".zst") {
        return parse_trace(File::open(path)?);
    }
    let mut zstd = Command::new("zstd").args(["-dc", path]).stdout(Stdio::piped()).spawn()?;
    let requests = parse_trace(zstd.stdout.take().expect("its output is piped"));
    if !zstd.wait()?.success() {
        return Err(io::Error::other("zstd failed"));
    }
    requests
}

fn parse_trace(input: impl Read) -> io::Result<Vec<Request>> {
    let mut requests = Vec::new();
    for line in BufReader::new(input).lines() {
        let line = line?;
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(count))) = (numbers.next(), numbers.next()) else {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("not a line of ARC's format: {line:?}")));
        };
        requests.extend((first..first + count).map(|key| Request { key, counts: true }));
    }
    Ok(requests)
}
