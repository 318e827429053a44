//! Shared by the benches: a store to measure, keys and values that can be checked, timing, and repeatable random
//! numbers.

#![allow(dead_code, reason = "each bench is a program of its own and uses a part of this")]

use corecached::command::Shard;
use corecached::hash::KeyHasher;
use corecached::protocol::Limits;
use corecached::store::arena::{Arena, PAGE_SIZE_MAX};
use corecached::store::budget::Budget;
use corecached::store::item::Items;
use corecached::store::slab::ClassUse;
use corecached::store::{Store, StoreOptions};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// The seed of all random numbers: two runs do the same work.
pub(crate) const SEED: u64 = 19;

/// Bytes of the keys that [`write_key`] makes.
pub(crate) const KEY_LEN: usize = 25;

/// The limits of a server without flags.
pub(crate) const LIMITS: Limits = Limits { item_size_max: 1 << 20, cas: true, inline_max: 8 << 10 };

/// The hash function of all stores that [`store`] makes.
pub(crate) fn hasher() -> KeyHasher {
    KeyHasher::seeded(SEED)
}

/// An empty store that has a budget of `pages` pages to itself.
pub(crate) fn store(pages: usize, options: StoreOptions) -> Store {
    let pages = u32::try_from(pages).expect("the pages of a bench are few");
    let arena = Arc::new(Arena::reserve(pages, PAGE_SIZE_MAX).expect("address space"));
    let budget = Arc::new(Budget::new(pages, 1, &arena));
    let items = Items::new(arena, options.cas);
    Store::new(0, options, items, budget, hasher()).expect("address space")
}

/// A shard with an empty store of default options.
pub(crate) fn shard(pages: usize) -> Shard {
    Shard::new(0, store(pages, StoreOptions::default()), LIMITS)
}

/// Number of pages that all classes of a store have taken.
pub(crate) fn pages_taken(store: &Store) -> usize {
    store.snapshot().classes.iter().map(|class| class.usage.total_pages as usize).sum()
}

/// Bytes of free chunks in the pages of a store.
pub(crate) fn bytes_free(store: &Store) -> usize {
    let free = |usage: ClassUse| usage.total_pages * u64::from(usage.chunks_per_page) - usage.used_chunks;
    let classes = store.snapshot().classes.into_iter();
    classes.map(|class| free(class.usage) as usize * class.usage.chunk_size as usize).sum()
}

/// Number of pages for `items` items of one chunk size.
pub(crate) fn pages_for(items: usize, chunk_size: usize) -> usize {
    items.div_ceil(PAGE_SIZE_MAX / chunk_size)
}

/// Appends the key of a number: `key:` and 21 digits.
pub(crate) fn write_key(number: u64, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(b"key:000000000000000000000");
    let mut rest = number;
    for digit in out[start + 4..].iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Appends the value of a number in one of its versions: `len` bytes.
pub(crate) fn write_value(number: u64, version: u8, len: usize, out: &mut Vec<u8>) {
    let word = (number << 8 | u64::from(version)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let end = out.len() + len;
    while out.len() + word.len() <= end {
        out.extend_from_slice(&word);
    }
    out.extend_from_slice(&word[..end - out.len()]);
}

/// Random numbers (SplitMix64), the same in each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// A number from 0 up to, and without, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Nanoseconds per operation, one for each run.
#[derive(Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Runs `work` `runs` times, after one run that does not count. Each run does `operations` operations.
    pub(crate) fn take(runs: usize, operations: usize, mut work: impl FnMut()) -> Samples {
        work();
        let mut samples = Samples::default();
        for _ in 0..runs {
            let started = Instant::now();
            work();
            samples.add(started.elapsed().as_nanos() as f64 / operations as f64);
        }
        samples
    }

    /// Adds the sample of a run.
    pub(crate) fn add(&mut self, nanoseconds: f64) {
        self.0.push(nanoseconds);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The shortest sample: the cost of the code on an undisturbed machine.
    pub(crate) fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The middle sample. If it is far from the best one, the machine was busy.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The sample that a share `share` of all samples do not exceed.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }
}

/// The mistakes that a bench has found.
#[derive(Default)]
pub(crate) struct Verdict(Vec<String>);

impl Verdict {
    /// Notes a mistake unless `holds` is true.
    pub(crate) fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }

    /// Prints the mistakes on standard error. Returns failure if the bench has found any.
    pub(crate) fn exit(self) -> ExitCode {
        for mistake in self.0.iter().take(10) {
            eprintln!("WRONG: {mistake}");
        }
        if self.0.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The first argument that does not come from cargo.
pub(crate) fn argument() -> Option<String> {
    std::env::args().skip(1).find(|argument| !argument.starts_with("--"))
}
