//! How long does the administration of memory delay a worker?
//!
//! A worker serves no client while it evicts, moves a page, looks for dead items or answers a question about the whole
//! cache. It does all of that in steps, and serves requests between them. The bench fills a store with small items, the
//! hardest case: a MiB holds 11,915 of them. Then it does everything that an operator or a change of load can
//! cause, and times each step: one request, one turn's housekeeping, one piece of a walk, one answer of a shard.
//!
//! The longest step counts, and other work of the machine makes it longer. The bench therefore does the same work in
//! [`RUNS`] runs, and prints the longest step of the best run first.
//!
//! `cargo bench --bench pauses -- 900` takes 900 MiB (10 million items); the default is 256. Pages are as large as in a
//! server with this `-m`.

#![allow(clippy::print_stdout, reason = "what a bench finds out is its product")]

mod common;

use common::{KEY_LEN, LIMITS, Random, SEED, Verdict, write_key, write_value};
use corecached::admin::walk::{Classes, Walk, WalkKind, WalkLimits};
use corecached::admin::{self, Query};
use corecached::clock::{Clock, NEVER, Now};
use corecached::command::{Reply, Shard};
use corecached::hash::KeyHasher;
use corecached::store::arena::{Arena, page_size};
use corecached::store::budget::Budget;
use corecached::store::flushed::Flush;
use corecached::store::gather::{Announced, Gathered};
use corecached::store::item::Items;
use corecached::store::rebalance::Reassigned;
use corecached::store::slab::ClassId;
use corecached::store::{Store, StoreOptions};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RUNS: usize = 3;
const VALUE_LEN: usize = 32;
/// Items with such a key and value in a MiB.
const ITEMS_PER_MIB: u64 = 11_915;
/// Bytes of a long value (`-I`), more than the credit of memory.
const LONG: usize = 32_000_000;
/// `Config::housekeeping_items_per_turn`'s default.
const HOUSEKEEPING: u32 = 64;
/// `Config::memory_credit_percent`'s default.
const CREDIT_PERCENT: u32 = 2;
/// Defaults of `Config::walk_items_per_turn` and `walk_bytes_per_turn`.
const WALK: WalkLimits = WalkLimits { items: 512, bytes: 32 << 10 };
/// Requests before each turn's housekeeping.
const REQUESTS_PER_TURN: u64 = 16;
/// Maximum number of items that `stats cachedump CLASS 0` shows.
const COLD_ITEMS: usize = (2 << 20) / 19;

fn flush(prefix: &str) -> Query {
    Query::FlushPrefixes { prefixes: Arc::new([prefix.into()]), flush: Flush::Kill, reply: Arc::new([]) }
}

/// Steps of one kind.
#[derive(Clone)]
struct Steps {
    name: &'static str,
    count: u64,
    total: Duration,
    longest: Duration,
}

fn main() -> ExitCode {
    let mib = match common::argument().map_or(Ok(256), |argument| argument.parse::<u32>()) {
        Ok(mib) if mib >= 64 => mib,
        _ => {
            eprintln!("The argument is a number of MiB, 64 or more");
            return ExitCode::FAILURE;
        }
    };
    let mut verdict = Verdict::default();
    let runs: Vec<Vec<Steps>> = (0..RUNS).map(|_| Bench::new(mib).measure(&mut verdict)).collect();
    println!("{mib} MiB, {} items; µs of a step: mean, longest in the best of {RUNS} runs, in the worst", {
        u64::from(mib) * ITEMS_PER_MIB
    });
    for kind in 0..runs[0].len() {
        let of_kind = || runs.iter().map(|run| &run[kind]);
        let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
        let mean = of_kind().map(|steps| micros(steps.total) / steps.count.max(1) as f64).fold(f64::INFINITY, f64::min);
        let longest = || of_kind().map(|steps| micros(steps.longest));
        println!(
            "{:<58} {:>9} {mean:>9.1} {:>9.0} {:>9.0}",
            runs[0][kind].name,
            runs[0][kind].count,
            longest().fold(f64::INFINITY, f64::min),
            longest().fold(0.0, f64::max),
        );
    }
    verdict.exit()
}

struct Bench {
    shard: Shard,
    budget: Arc<Budget>,
    pages: u32,
    /// The items that fill the memory.
    items: u64,
    hasher: KeyHasher,
    clock: Clock,
    random: Random,
    now: u32,
    next: u64,
    key: Vec<u8>,
    value: Vec<u8>,
    done: Vec<Steps>,
}

impl Bench {
    fn new(mib: u32) -> Bench {
        let limit = u64::from(mib) << 20;
        let page_size = page_size(limit);
        let pages = (limit / page_size as u64) as u32;
        let arena = Arc::new(Arena::reserve(pages, page_size).expect("address space"));
        let budget = Arc::new(Budget::new(pages, 1, &arena).lending(CREDIT_PERCENT));
        let (hasher, options) = (common::hasher(), StoreOptions::default());
        let items = Items::new(arena, options.cas);
        let store = Store::new(0, options, items, Arc::clone(&budget), hasher.clone()).expect("address space");
        Bench {
            shard: Shard::new(0, store, LIMITS),
            budget,
            pages,
            items: u64::from(mib) * ITEMS_PER_MIB,
            hasher,
            clock: Clock::start(),
            random: Random(SEED),
            now: 2,
            next: 0,
            key: Vec::with_capacity(KEY_LEN),
            value: Vec::new(),
            done: Vec::new(),
        }
    }

    fn measure(mut self, verdict: &mut Verdict) -> Vec<Steps> {
        let items = self.items;
        self.fill("set, memory and index grow", NEVER);
        self.begin("set, evicts");
        for _ in 0..items / 4 {
            self.set(VALUE_LEN, NEVER);
        }
        self.begin("get");
        for _ in 0..items / 4 {
            let number = self.random.below(self.next);
            self.get(number);
        }
        self.begin("stats");
        for _ in 0..16 {
            self.ask(&Query::Snapshot);
        }
        self.begin("stats sizes, a piece");
        self.ask(&Query::Sizes { rest: Vec::new() });
        self.begin("stats cachedump, a piece");
        let class = self.class(VALUE_LEN);
        self.ask(&Query::ColdItems { class: class.0, limit: COLD_ITEMS, rest: Vec::new() });
        self.walk(WalkKind::Metadump, "lru_crawler metadump all, a piece");
        self.walk(WalkKind::Crawl, "lru_crawler crawl all, a piece");

        self.begin("set, its class has no page");
        let mut value_len = 300;
        let first = self.next;
        while value_len < 8000 {
            self.set(value_len, NEVER);
            value_len += value_len / 3;
        }
        let stored = self.next - first;
        self.turns("turns after that", 2000, VALUE_LEN);
        verdict.expect(stored > 5, || format!("{stored} classes were tried"));
        for (len, set, delete) in [
            (1_000_000, "set of 1 MB, a step", "delete of 1 MB, and turns after that"),
            (LONG, "set of 32 MB, a step", "delete of 32 MB, and turns after that"),
        ] {
            self.begin(set);
            let long = self.next;
            self.set_long(len, verdict);
            if len == LONG {
                self.begin("set, its class has no page, and there is no credit left");
                for value_len in [20_000, 40_000] {
                    self.set(value_len, NEVER);
                }
            }
            self.begin(delete);
            self.delete(long);
            for _ in 0..200 {
                self.housekeep();
            }
        }
        self.turns("turns after that", 2000, VALUE_LEN);

        self.begin("slabs reassign: a turn of the mover");
        for _ in 0..16 {
            // The items in use are random ones of the newer half.
            for _ in 0..4 * items / u64::from(self.pages) {
                let number = self.next - 1 - self.random.below(items / 2);
                self.touch(number);
            }
            let to = self.class(1500);
            let mut begun = Reassigned::Busy;
            self.step(|bench| begun = bench.shard.store.reassign(Some(class), to));
            verdict.expect(begun == Reassigned::Started, || format!("slabs reassign: {begun:?}"));
            while self.step(|bench| bench.shard.store.move_pages(4 * HOUSEKEEPING)) {}
        }

        self.begin("cache_memlimit, to a tenth: a turn");
        self.now += 1;
        self.shard.store.set_now(Now(self.now));
        self.budget.set_limit(self.pages / 10);
        let mut turns = 0;
        while self.budget.is_exceeded() && turns < 10_000_000 {
            self.housekeep();
            turns += 1;
        }
        verdict.expect(!self.budget.is_exceeded(), || "the limit was not reached".to_owned());
        self.budget.set_limit(self.pages);
        self.fill("set, memory grows again", self.now + 10);
        self.now += 20;
        self.shard.store.set_now(Now(self.now));
        self.turns("all has expired: a turn", items / 100, VALUE_LEN);
        self.fill("set into what has expired", NEVER);
        self.begin("flush_all");
        self.ask(&Query::Flush(None));
        self.begin("set after flush_all");
        for _ in 0..items / 16 {
            self.set(VALUE_LEN, NEVER);
        }
        self.turns("all is flushed: a turn", items / 100, VALUE_LEN);
        self.flush_prefixes(verdict);
        self.done
    }

    /// Flushes the prefix that all keys have, and then others, a thousand in a second.
    fn flush_prefixes(&mut self, verdict: &mut Verdict) {
        self.fill("set, memory is full again", NEVER);
        self.begin("flush_prefix of all keys");
        self.ask(&flush("key:"));
        self.sweep("their prefix is flushed: a turn", verdict);
        self.fill("set, memory is full again", NEVER);
        self.begin("flush_prefix of others");
        for number in 0..1000 {
            self.ask(&flush(&format!("{number}:")));
        }
        self.sweep("other prefixes are flushed: a turn", verdict);
    }

    /// Turns until no flushed prefix is left.
    fn sweep(&mut self, name: &'static str, verdict: &mut Verdict) {
        self.begin(name);
        let mut turns = 0;
        while self.shard.store.flushed_prefixes() > 0 && turns < self.items {
            turns += 1;
            if turns.is_multiple_of(256) {
                self.now += 1;
                self.shard.store.set_now(Now(self.now));
            }
            self.housekeep();
        }
        let left = self.shard.store.flushed_prefixes();
        verdict.expect(left == 0, || format!("{left} flushed prefixes are left"));
    }

    fn begin(&mut self, name: &'static str) {
        self.done.push(Steps { name, count: 0, total: Duration::ZERO, longest: Duration::ZERO });
    }

    fn step<T>(&mut self, work: impl FnOnce(&mut Bench) -> T) -> T {
        let started = Instant::now();
        let result = work(self);
        let elapsed = started.elapsed();
        let steps = self.done.last_mut().expect("a step is of some kind");
        steps.count += 1;
        steps.total += elapsed;
        steps.longest = steps.longest.max(elapsed);
        result
    }

    fn fill(&mut self, name: &'static str, deadline: u32) {
        self.begin(name);
        for _ in 0..self.items {
            self.set(VALUE_LEN, deadline);
        }
    }

    /// Turns with a few requests and housekeeping in each.
    fn turns(&mut self, name: &'static str, turns: u64, value_len: usize) {
        self.begin(name);
        for turn in 0..turns {
            if turn % 256 == 255 {
                self.now += 1;
                self.shard.store.set_now(Now(self.now));
            }
            if turn % REQUESTS_PER_TURN == 0 {
                self.set(value_len, NEVER);
            }
            self.housekeep();
        }
    }

    fn housekeep(&mut self) {
        self.step(|bench| bench.shard.store.housekeep(HOUSEKEEPING, true));
    }

    fn class(&self, value_len: usize) -> ClassId {
        self.shard.store.class_for(KEY_LEN, 0, value_len)
    }

    fn name(&mut self, number: u64) -> u64 {
        self.key.clear();
        write_key(number, &mut self.key);
        self.hasher.hash(&self.key)
    }

    fn set(&mut self, value_len: usize, deadline: u32) {
        let number = self.next;
        self.next += 1;
        let hash = self.name(number);
        self.value.clear();
        write_value(number, 0, value_len, &mut self.value);
        self.step(|Bench { shard, key, value, .. }| {
            let old = shard.store.seek(None, hash, key).ok();
            assert!(shard.store.put(hash, key, 0, deadline, value, old).is_ok(), "it evicts");
        });
    }

    /// Sets a value that is received in place, for which the store makes room in steps.
    fn set_long(&mut self, value_len: usize, verdict: &mut Verdict) {
        let number = self.next;
        self.next += 1;
        let hash = self.name(number);
        let mut so_far = None;
        let id = loop {
            let gathered = self.step(|bench| {
                let item = Announced { key: &bench.key, client_flags: 0, value_len };
                bench.shard.store.gather(item, value_len, so_far)
            });
            match gathered {
                Ok(Gathered::Ready(gathering)) => break gathering.item().expect("it is ready"),
                Ok(Gathered::Later(gathering)) => so_far = Some(gathering),
                Err(error) => return verdict.expect(false, || format!("{value_len} bytes: {error:?}")),
            }
        };
        self.shard.store.link(id, hash, NEVER);
    }

    fn get(&mut self, number: u64) {
        let hash = self.name(number);
        self.step(|Bench { shard, key, .. }| {
            if let Ok(id) = shard.store.seek(None, hash, key) {
                shard.store.hit(id);
            }
        });
    }

    fn touch(&mut self, number: u64) {
        let hash = self.name(number);
        if let Ok(id) = self.shard.store.seek(None, hash, &self.key) {
            self.shard.store.hit(id);
        }
    }

    fn delete(&mut self, number: u64) {
        let hash = self.name(number);
        self.step(|Bench { shard, key, .. }| {
            if let Ok(entry) = shard.store.find(hash, key) {
                shard.store.remove(entry);
            }
        });
    }

    fn ask(&mut self, question: &Query) {
        let (mut answers, mut question) = (Vec::new(), Some(question.clone()));
        while let Some(asked) = question {
            question = self.step(|bench| {
                answers.push(admin::answer(&mut bench.shard, &asked, &bench.clock));
                admin::go_on(&asked, &mut answers)
            });
        }
    }

    fn walk(&mut self, kind: WalkKind, name: &'static str) {
        self.begin(name);
        let mut walk = Walk::new(kind, Classes::ALL, 0, WALK);
        let mut reply = Reply::with_capacity(WALK.bytes * 2);
        while walk.shard == 0 {
            reply.out.clear();
            self.step(|bench| walk.step(&mut bench.shard, &bench.clock, &mut reply));
        }
    }
}
