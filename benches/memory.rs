//! How many bytes does an item take beyond its key and its value?
//!
//! The bench fills stores with a million items of one shape. It counts the header, the unused end of each chunk, the
//! rest of each page, and the index: once by the store's own accounts (pages taken, bytes of the index), and once by
//! the growth of the process (resident set), which includes everything that the accounts might forget. Free chunks have
//! a column of their own: a shape of many sizes begins a page in many classes, whatever the number of items.
//!
//! Just before the index begins to grow, it takes 7.7 bytes per item; just after it has grown, 12.8. Overflow buckets
//! take 1.3 bytes of that. A million items are between these extremes. memcached's column is the memory that 1.6.45
//! takes for the same items with its default flags: a chunk for a header of 48 bytes, CAS value, key with a zero, and
//! value with its `\r\n`; and a hash table of 8-byte buckets, which doubles at 1.5 items per bucket.

#![allow(clippy::print_stdout, reason = "what a bench finds out is its product")]

mod common;

use common::{Random, SEED, Verdict, write_value};
use corecached::clock::NEVER;
use corecached::store::arena::PAGE_SIZE_MAX;
use corecached::store::{Store, StoreOptions};
use std::process::ExitCode;

const ITEMS: u64 = 1_000_000;
/// Maximum overhead of an item of up to [`SMALL_MAX`] bytes of key and value.
const OVERHEAD_MAX: f64 = 45.0;
const SMALL_MAX: f64 = 150.0;
/// Maximum growth of the process beyond the store's own accounts, per item. Neither includes page tables.
const UNACCOUNTED_MAX: f64 = 2.0;

/// The shape of the items of a store.
struct Shape {
    name: &'static str,
    key_len: usize,
    value_len: fn(&mut Random) -> usize,
    cas: bool,
}

fn main() -> ExitCode {
    let shapes = [
        Shape { name: "key 25, value 2", key_len: 25, value_len: |_| 2, cas: true },
        Shape { name: "key 25, value 2, -C", key_len: 25, value_len: |_| 2, cas: false },
        Shape { name: "key 25, value 32", key_len: 25, value_len: |_| 32, cas: true },
        Shape { name: "key 25, value 100", key_len: 25, value_len: |_| 100, cas: true },
        Shape { name: "key 25, value 500", key_len: 25, value_len: |_| 500, cas: true },
        Shape { name: "Twitter cluster 19", key_len: 42, value_len: around_101, cas: true },
    ];
    let mut verdict = Verdict::default();
    println!("bytes per item, {ITEMS} items      beyond key and value");
    println!(
        "{:<21}{:>11} |{:>7} ={:>7} +{:>6} |{:>7} |{:>7} |{:>10}",
        "", "key, value", "all", "chunk", "index", "by RSS", "free", "memcached"
    );
    for shape in &shapes {
        shape.measure(&mut verdict);
    }
    verdict.exit()
}

/// Lengths like those of Twitter's cluster 19 (2020): 101 on average. The trace's statistics give only the average.
/// Most lengths here are within a factor of two of it (log-normal, sigma 0.5).
fn around_101(random: &mut Random) -> usize {
    let sigma = 0.5;
    let normal: f64 = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
    (101_f64.ln() - sigma * sigma / 2.0 + sigma * normal).exp().round() as usize
}

impl Shape {
    fn measure(&self, verdict: &mut Verdict) {
        let resident_before = resident();
        // The store has more than enough pages for all items, so it evicts none.
        let options = StoreOptions { cas: self.cas, ..StoreOptions::default() };
        let mut store = common::store(common::pages_for(ITEMS as usize, 1024), options);
        let lengths = self.fill(&mut store);
        self.check(&mut store, verdict);
        let snapshot = store.snapshot();

        let per_item = |bytes: f64| bytes / ITEMS as f64;
        let pages = per_item((common::pages_taken(&store) * PAGE_SIZE_MAX) as f64);
        let free = per_item(common::bytes_free(&store) as f64);
        let index = per_item(snapshot.hash_bytes as f64);
        let payload = per_item(lengths.payload as f64);
        let chunks = pages - free - payload;
        let overhead = chunks + index;
        let grown = resident().zip(resident_before).map(|(after, before)| per_item(after as f64 - before as f64));
        let by_rss = grown.map_or_else(|| "unknown".to_owned(), |grown| format!("{:.1}", grown - payload));
        let memcached = per_item(lengths.memcached as f64) - payload + 8.0 * per_item(memcached_buckets(ITEMS) as f64);
        println!(
            "{:<21}{payload:>11.1} |{overhead:>7.1} ={chunks:>7.1} +{index:>6.1} |{by_rss:>7} |{free:>7.1} |{memcached:>10.1}",
            self.name,
        );
        if payload <= SMALL_MAX {
            verdict.expect(overhead <= OVERHEAD_MAX, || {
                format!("{}: {overhead:.1} bytes beyond key and value, more than {OVERHEAD_MAX}", self.name)
            });
        }
        if let Some(grown) = grown {
            let unaccounted = grown - pages - index;
            verdict.expect(unaccounted < UNACCOUNTED_MAX, || {
                format!("{}: {unaccounted:.1} bytes per item that the store does not account for", self.name)
            });
        }
    }

    fn fill(&self, store: &mut Store) -> Lengths {
        let (hasher, mut random) = (common::hasher(), Random(SEED));
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut lengths = Lengths::default();
        for number in 0..ITEMS {
            self.write(number, &mut random, &mut key, &mut value);
            lengths.payload += key.len() + value.len();
            lengths.memcached += memcached_chunk(48 + if self.cas { 8 } else { 0 } + key.len() + 1 + value.len() + 2);
            store.put(hasher.hash(&key), &key, 0, NEVER, &value, None).expect("there is room for all items");
        }
        lengths
    }

    /// Checks that the store has every item with its value.
    fn check(&self, store: &mut Store, verdict: &mut Verdict) {
        let (hasher, mut random) = (common::hasher(), Random(SEED));
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut wrong = 0_u64;
        for number in 0..ITEMS {
            self.write(number, &mut random, &mut key, &mut value);
            let found =
                store.find(hasher.hash(&key), &key).is_ok_and(|entry| store.item(entry.id).value() == Some(&value[..]));
            wrong += u64::from(!found);
        }
        verdict.expect(wrong == 0, || format!("{}: {wrong} items are missing or wrong", self.name));
    }

    fn write(&self, number: u64, random: &mut Random, key: &mut Vec<u8>, value: &mut Vec<u8>) {
        key.clear();
        common::write_key(number, key);
        key.resize(self.key_len, b'.');
        value.clear();
        write_value(number, 0, (self.value_len)(random), value);
    }
}

#[derive(Default)]
struct Lengths {
    /// Bytes of keys and values.
    payload: usize,
    /// Bytes of the chunks that memcached takes for them.
    memcached: usize,
}

/// The chunk of memcached 1.6 for an item of `size` bytes. Chunks grow from 96 bytes by 1.25, in multiples of 8.
fn memcached_chunk(size: usize) -> usize {
    let mut chunk = 96;
    while chunk < size {
        chunk = ((chunk as f64 * 1.25) as usize).next_multiple_of(8);
    }
    chunk
}

/// Number of buckets in memcached's hash table.
fn memcached_buckets(items: u64) -> u64 {
    let mut buckets = 1 << 16;
    while items * 2 > buckets * 3 {
        buckets *= 2;
    }
    buckets
}

/// Resident bytes of the process, if the system reports them.
fn resident() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse::<usize>().ok()?;
    // All systems with this file have this page size, except some ARM64. The check of unaccounted bytes would notice.
    Some(pages * 4096)
}
