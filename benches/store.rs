//! What does an operation cost in the store, by the number of items, and how much does prefetching in groups save?
//!
//! The bench executes operations as a worker does (`serve.rs`, `execute_group`). It hashes the keys of a group and
//! prefetches their buckets; then it executes, and prefetches the items that the buckets name some operations ahead. A
//! second column has the same groups without prefetching: if the columns are equal, prefetching is not worth its code.
//!
//! While the store fills, the bench times groups of 64 insertions, with the pages that they take from the system. The
//! longest group shows how long a growing index can delay a request.
//!
//! Keys are 25 bytes, values 32. The bench picks keys at random from all in the store. It leaves out parsing and
//! sockets. It makes keys and expected replies between the groups, untimed, and compares every reply with the expected
//! one.
//!
//! The largest store has 10 million items and takes 1 GiB; `cargo bench --bench store -- 1000000` stops at a million.

#![allow(clippy::print_stdout, reason = "what a bench finds out is its product")]

mod common;

use common::{KEY_LEN, Random, SEED, Samples, Verdict, write_key, write_value};
use corecached::clock::Clock;
use corecached::command::{self, Reply, Request, Shard};
use corecached::hash::KeyHasher;
use corecached::protocol::{Operation, Span, Verb};
use corecached::store::arena::ItemId;
use corecached::worker::execute::PREFETCH_AHEAD;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const SIZES: [usize; 4] = [10_000, 100_000, 1_000_000, 10_000_000];
/// Bytes per item that a store, its index and the bench itself need.
const BYTES_PER_ITEM: usize = 120;

const VALUE_LEN: usize = 32;
/// Chunk size of an item with such a key and value.
const CHUNK_SIZE: usize = 88;
/// `Config::group_len`'s default.
const GROUP: usize = 64;
/// Groups per run.
const GROUPS: usize = 512;
const RUNS: usize = 9;

fn main() -> ExitCode {
    let items_max = match common::argument().map(|argument| argument.parse()) {
        None => usize::MAX,
        Some(Ok(count)) => count,
        Some(Err(error)) => {
            eprintln!("The argument is the largest number of items: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut verdict = Verdict::default();
    println!("best ns per operation (median), in groups of {GROUP}: prefetched | without prefetching");
    println!(
        "{:>9}  {:^25} {:^25} {:^25} {:^25} {:^25} {:^25}",
        "items", "get, hit", "get, miss", "overwrite", "insert, evicting", "insert, growing", "longest group, µs"
    );
    for items in SIZES.into_iter().filter(|&items| items <= items_max) {
        if items * BYTES_PER_ITEM > memory_available() {
            println!("{items:>9}  skipped: too little free memory");
            continue;
        }
        let [with, without] = [true, false].map(|prefetch| Bench::new(items, prefetch, &mut verdict).measure());
        print!("{items:>9} ");
        for (with, without) in with.0.iter().zip(&without.0) {
            let cell = |samples: &Samples| format!("{:.0} ({:.0})", samples.best(), samples.median());
            print!(" {:>11} | {:<11}", cell(with), cell(without));
        }
        println!(" {:>11} | {:<11}", with.1.as_micros(), without.1.as_micros());
    }
    verdict.exit()
}

/// Bytes that the system could provide without swapping; `usize::MAX` if it does not say.
fn memory_available() -> usize {
    let available = |text: String| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<usize>().ok()
    };
    std::fs::read_to_string("/proc/meminfo").ok().and_then(available).map_or(usize::MAX, |kibibytes| kibibytes << 10)
}

/// A store under measurement, and a group of operations for it.
struct Bench<'a> {
    shard: Shard,
    items: usize,
    prefetch: bool,
    verdict: &'a mut Verdict,
    clock: Clock,
    hasher: KeyHasher,
    random: Random,
    input: Vec<u8>,
    group: Vec<Operation>,
    /// The items that the operations of the group probably find.
    hints: Vec<Option<ItemId>>,
    reply: Reply,
    expected: Vec<u8>,
    /// The longest time of a group.
    longest: Duration,
}

impl<'a> Bench<'a> {
    fn new(items: usize, prefetch: bool, verdict: &'a mut Verdict) -> Bench<'a> {
        Bench {
            // Just as many pages as the items need: later items evict.
            shard: common::shard(common::pages_for(items, CHUNK_SIZE)),
            items,
            prefetch,
            verdict,
            clock: Clock::start(),
            hasher: common::hasher(),
            random: Random(SEED),
            input: Vec::with_capacity(GROUP * (KEY_LEN + VALUE_LEN)),
            group: Vec::with_capacity(GROUP),
            hints: Vec::with_capacity(GROUP),
            reply: Reply::with_capacity(64 << 10),
            expected: Vec::with_capacity(64 << 10),
            longest: Duration::ZERO,
        }
    }

    /// Measures hit, miss, overwrite, insertion with eviction, and insertion into free memory. Also returns the longest
    /// group of the last.
    fn measure(mut self) -> ([Samples; 5], Duration) {
        let items = self.items as u64;
        let mut next = 0;
        let mut growing = Samples::default();
        while next < items {
            growing.add(self.run(GROUPS.min((items - next).div_ceil(GROUP as u64) as usize), Verb::Set, |_| {
                next += 1;
                (next - 1, 0)
            }));
        }
        self.expect_items(next);
        let longest = self.longest;

        let hit = self.runs(Verb::Get, |random| (random.below(items), 0));
        let miss = self.runs(Verb::Get, |random| (next + random.below(items), 0));
        let overwrite = self.runs(Verb::Set, |random| (random.below(items), 1));
        self.expect_items(next);
        self.expect_overwritten();

        // Use up the free chunks of the last page first.
        while self.evicted() == 0 {
            self.run(1, Verb::Set, |_| {
                next += 1;
                (next - 1, 0)
            });
        }
        let (evicted, inserted) = (self.evicted(), next);
        let live = self.shard.store.snapshot().curr_items;
        let evicting = self.runs(Verb::Set, |_| {
            next += 1;
            (next - 1, 0)
        });
        self.expect_items(live);
        let evicted = self.evicted() - evicted;
        self.verdict.expect(evicted == next - inserted, || {
            format!("{items} items: {evicted} evictions for {} insertions", next - inserted)
        });
        ([hit, miss, overwrite, evicting, growing], longest)
    }

    fn runs(&mut self, verb: Verb, mut pick: impl FnMut(&mut Random) -> (u64, u8)) -> Samples {
        let mut samples = Samples::default();
        for _ in 0..RUNS {
            samples.add(self.run(GROUPS, verb, &mut pick));
        }
        samples
    }

    /// Executes groups of one verb on keys and versions from `pick`. Returns the time per operation.
    fn run(&mut self, groups: usize, verb: Verb, mut pick: impl FnMut(&mut Random) -> (u64, u8)) -> f64 {
        let mut time = Duration::ZERO;
        for _ in 0..groups {
            self.prepare(verb, &mut pick);
            let started = Instant::now();
            self.execute();
            let elapsed = started.elapsed();
            time += elapsed;
            self.longest = self.longest.max(elapsed);
            let (reply, expected) = (self.reply.out.bytes(), &self.expected[..]);
            self.verdict.expect(reply == expected, || {
                let (reply, expected) = (String::from_utf8_lossy(reply), String::from_utf8_lossy(expected));
                format!("{verb:?}: the reply was {reply:?}, not {expected:?}")
            });
        }
        time.as_nanos() as f64 / (groups * GROUP) as f64
    }

    fn prepare(&mut self, verb: Verb, mut pick: impl FnMut(&mut Random) -> (u64, u8)) {
        self.input.clear();
        self.group.clear();
        self.expected.clear();
        self.reply.out.clear();
        for _ in 0..GROUP {
            let (number, version) = pick(&mut self.random);
            let start = self.input.len();
            write_key(number, &mut self.input);
            let end = self.input.len();
            let mut operation = Operation { verb, key: Span::new(start, end), ..Operation::default() };
            if verb == Verb::Set {
                write_value(number, version, VALUE_LEN, &mut self.input);
                operation.value = Span::new(end, self.input.len());
                self.expected.extend_from_slice(b"STORED\r\n");
            } else if number < self.items as u64 {
                self.expected.extend_from_slice(b"VALUE ");
                self.expected.extend_from_slice(&self.input[start..end]);
                self.expected.extend_from_slice(b" 0 32\r\n");
                write_value(number, version, VALUE_LEN, &mut self.expected);
                self.expected.extend_from_slice(b"\r\n");
            }
            self.group.push(operation);
        }
    }

    /// The measured part. `black_box` hides the input from the optimizer.
    fn execute(&mut self) {
        let input = black_box(&self.input[..]);
        for operation in &mut self.group {
            operation.hash = self.hasher.hash(operation.key.of(input));
            if self.prefetch {
                self.shard.store.prefetch_bucket(operation.hash);
            }
        }
        self.hints.clear();
        self.hints.resize(GROUP, None);
        if self.prefetch {
            self.shard.store.begin_group();
            (0..PREFETCH_AHEAD).for_each(|at| self.hints[at] = self.shard.store.prefetch_item(self.group[at].hash));
        }
        for at in 0..GROUP {
            if self.prefetch && at + PREFETCH_AHEAD < GROUP {
                let ahead = at + PREFETCH_AHEAD;
                self.hints[ahead] = self.shard.store.prefetch_item(self.group[ahead].hash);
            }
            let (operation, hint) = (&self.group[at], self.hints[at]);
            let request = Request { hint, ..Request::new(operation, input, &self.clock) };
            command::execute(&mut self.shard, &request, &mut self.reply);
        }
    }

    /// Sets some keys once more, and expects the new values.
    fn expect_overwritten(&mut self) {
        let first = self.random.below(self.items as u64 - GROUP as u64);
        for verb in [Verb::Set, Verb::Get] {
            let mut next = first;
            self.run(1, verb, |_| {
                next += 1;
                (next - 1, 2)
            });
        }
    }

    fn expect_items(&mut self, expected: u64) {
        let found = self.shard.store.snapshot().curr_items;
        self.verdict.expect(found == expected, || format!("there are {found} items, not {expected}"));
    }

    fn evicted(&self) -> u64 {
        self.shard.store.snapshot().classes.iter().map(|class| class.counters.evicted).sum()
    }
}
