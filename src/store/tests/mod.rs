//! Tests that compare the store with a `HashMap`, and tests of evictions, expiry, flushes, walks and pages.

use super::arena::{Arena, PAGE_SIZE_MAX};
use super::flush::FLUSHED_AT_ONCE;
use super::rebalance::Reassigned;
use super::*;
use crate::hash;
use std::collections::HashMap as Model;

fn automove(level: u8) -> Tuning {
    Tuning { automove: AutomoveTuning { level, ..AutomoveTuning::default() }, ..Tuning::default() }
}

fn free_ratio(free_ratio: f64) -> Tuning {
    Tuning { automove: AutomoveTuning { free_ratio, ..AutomoveTuning::default() }, ..Tuning::default() }
}

fn segmented(segmented: bool) -> Tuning {
    Tuning { lru: LruTuning { segmented, ..LruTuning::default() }, ..Tuning::default() }
}

mod flushed;
mod gather;
mod pages;
mod policy;

pub(super) fn store(pages: u32, options: StoreOptions) -> Store {
    store_of_parts(pages, 1, options)
}

/// A store whose pages are cut into `parts` smaller ones.
pub(super) fn store_of_parts(pages: u32, parts: u32, options: StoreOptions) -> Store {
    let arena = Arc::new(Arena::reserve(pages * parts, PAGE_SIZE_MAX / parts as usize).expect("address space"));
    let budget = Arc::new(Budget::new(pages * parts, 1, &arena));
    let items = Items::new(arena, options.cas);
    Store::new(0, options, items, budget, KeyHasher::seeded(7)).expect("address space")
}

/// A small generator of random numbers. A test that fails names its seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

impl Store {
    pub(super) fn set(&mut self, key: &[u8], value: &[u8], deadline: u32) -> Result<ItemId, OutOfMemory> {
        let hash = self.hasher.hash(key);
        let old = self.find(hash, key).ok().map(|entry| entry.id);
        self.put(hash, key, 0, deadline, value, old)
    }

    pub(super) fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let id = self.find(self.hasher.hash(key), key).ok()?.id;
        self.hit(id);
        Some(self.items.value_to_vec(id))
    }

    /// Every eviction in these tests calls this. The store may evict only if the class has no free chunk and the shard
    /// no empty page.
    pub(super) fn assert_that_eviction_is_needed(&self, class: ClassId) {
        assert!(!self.slabs.has_room(class), "{class:?} has a free chunk, and evicts");
        assert!(
            self.slabs.ids().all(|class| self.slabs.empty_page(class).is_none()),
            "a page is empty, and {class:?} evicts"
        );
        let reserved = self.budget.free() <= self.pages_reserved();
        assert!(
            reserved || !self.budget.has_one_for(self.slabs.shard()),
            "the budget has a page, and {class:?} evicts"
        );
    }
}

fn value_of(key: u64, version: u64) -> Vec<u8> {
    let len = match (key * 31 + version) % 40 {
        0 => 20_000 + (version * 7 % 130_000) as usize,
        1..4 => 1000 + (version * 13 % 12_000) as usize,
        _ => (version % 300) as usize,
    };
    (0..len).map(|n| (n as u64 ^ key ^ version) as u8).collect()
}

#[test]
fn agrees_with_a_hash_map() {
    let (mut rescues, mut chunk_rescues, mut moves) = (0, 0, 0);
    for seed in 1..13 {
        let evicting = seed % 2 == 0;
        let options = StoreOptions { cas: seed % 3 != 0, evict: evicting, ..StoreOptions::default() };
        let parts = [1, 16, 64][seed as usize / 2 % 3];
        let mut store = store_of_parts(if evicting { 3 } else { 64 }, parts, options);
        let mut model: Model<u64, (u64, u32)> = Model::new();
        let mut random = Random(seed);
        let mut now = 2;
        for step in 0..20_000_u64 {
            let key = random.below(1500);
            let name = format!("key-{key}");
            match random.below(100) {
                0..50 => {
                    let deadline = if random.below(4) == 0 { now + random.below(20) as u32 } else { NEVER };
                    store.set(name.as_bytes(), &value_of(key, step), deadline).expect("evicts");
                    model.insert(key, (step, deadline));
                }
                50..90 => {
                    let known = model.get(&key).filter(|(_, deadline)| *deadline == NEVER || *deadline > now);
                    match (store.get(name.as_bytes()), known) {
                        (Some(value), Some(&(version, _))) => {
                            assert!(value == value_of(key, version), "seed {seed} step {step}");
                        }
                        (None, Some(_)) => assert!(evicting, "seed {seed} step {step}: lost"),
                        (None, None) => {}
                        (Some(_), None) => panic!("seed {seed} step {step}: came back"),
                    }
                }
                90..97 => {
                    if let Ok(entry) = store.find(store.hasher.hash(name.as_bytes()), name.as_bytes()) {
                        store.remove(entry);
                    }
                    model.remove(&key);
                }
                97 => {
                    now += 1;
                    store.set_now(Now(now));
                    store.housekeep(50, true);
                }
                98 => {
                    let class =
                        |random: &mut Random| ClassId(random.below(u64::from(store.slabs.largest().0) + 1) as u8);
                    let (from, to) = (class(&mut random), class(&mut random));
                    let from = (random.below(2) == 0).then_some(from).filter(|&from| from != to);
                    store.reassign(from, to);
                    store.move_pages(random.below(5000) as u32);
                }
                _ if random.below(20) == 0 => {
                    store.flush_at(Now(now));
                    model.clear();
                }
                // A cache that always evicts becomes mostly empty, or the reverse.
                _ if evicting && random.below(4) == 0 => {
                    assert!(store.budget.set_limit((2 + random.below(10) as u32) * parts));
                }
                _ if random.below(10) == 0 => {
                    let first = random.below(1500);
                    for key in first..first + 700 {
                        let name = format!("key-{key}");
                        if let Ok(entry) = store.find(store.hasher.hash(name.as_bytes()), name.as_bytes()) {
                            store.remove(entry);
                        }
                        model.remove(&key);
                    }
                }
                _ => {}
            }
            if step % 500 == 0 {
                store.validate();
            }
        }
        store.validate();
        let counters = store.snapshot().counters;
        rescues += counters.reassign_rescues;
        chunk_rescues += counters.reassign_chunk_rescues;
        moves += counters.slabs_moved;
    }
    assert!(
        rescues > 300 && chunk_rescues > 300 && moves > 300,
        "{rescues}, {chunk_rescues}, {moves}: too few to tell"
    );
}

#[test]
fn eviction_keeps_items_in_use() {
    let mut store = store(2, StoreOptions::default());
    let value = [0; 100];
    for hot in 0..200 {
        store.set(format!("hot{hot}").as_bytes(), &value, NEVER).expect("memory");
    }
    for cold in 0..100_000 {
        store.set(format!("cold{cold}").as_bytes(), &value, NEVER).expect("evicts");
        let hot = cold % 200;
        assert!(store.get(format!("hot{hot}").as_bytes()).is_some(), "hot{hot} was evicted by a scan at {cold}");
    }
    store.validate();
    assert!(store.snapshot().classes.iter().map(|class| class.counters.evicted).sum::<u64>() > 50_000);
}

#[test]
fn without_eviction_memory_runs_out_and_nothing_is_lost() {
    let mut store = store(2, StoreOptions { evict: false, ..StoreOptions::default() });
    let stored = (0..).take_while(|n| store.set(format!("k{n}").as_bytes(), &[1; 1000], NEVER).is_ok()).count();
    assert!(stored > 1500);
    assert!((0..stored).all(|n| store.get(format!("k{n}").as_bytes()).is_some()));
    store.validate();
}

#[test]
fn dead_items_go_before_live_ones() {
    let mut store = store(4, StoreOptions::default());
    let mut number = 0;
    while store.budget.free() > 0 {
        let deadline = if number % 2 == 0 { 10 } else { NEVER };
        store.set(format!("k{number}").as_bytes(), &[1; 200], deadline).expect("memory");
        number += 1;
    }
    store.set_now(Now(20));
    for more in 0..number / 2 - 10 {
        store.set(format!("new{more}").as_bytes(), &[1; 200], NEVER).expect("memory");
    }
    assert_eq!(store.snapshot().classes.iter().map(|class| class.counters.evicted).sum::<u64>(), 0);
    assert!((0..number).filter(|n| n % 2 == 1).all(|n| store.get(format!("k{n}").as_bytes()).is_some()));
    store.validate();
}

/// The worker takes one step after the other while they find dead items.
#[test]
fn steps_of_housekeeping_find_what_a_flush_has_killed() {
    let mut store = store(8, StoreOptions::default());
    for number in 0..20_000 {
        store.set(format!("k{number:05}").as_bytes(), &[1; 200], NEVER).expect("memory");
    }
    store.flush_at(store.now());
    store.set_now(Now(store.now + 1));
    let mut steps = 0;
    while store.snapshot().curr_items > 0 {
        store.housekeep(64, true);
        assert!(store.has_found_dead(), "after {steps} steps");
        steps += 1;
    }
    assert!(steps <= 20_000 / 64 + 8, "{steps} steps");
    store.housekeep(64, true);
    assert!(!store.has_found_dead());
}

#[test]
fn housekeeping_gives_dead_pages_back() {
    let mut store = store(8, StoreOptions::default());
    for number in 0..20_000 {
        store.set(format!("k{number}").as_bytes(), &[1; 205], 10).expect("memory");
    }
    assert!(store.budget.free() <= 3);
    store.set_now(Now(11));
    for _ in 0..store.housekeeping_round() * 400 {
        store.housekeep(100, true);
    }
    assert_eq!(store.snapshot().curr_items, 0);
    assert!(store.budget.free() >= 7);
    store.validate();
}

#[test]
fn a_class_without_pages_takes_one() {
    let mut store = store(3, StoreOptions::default());
    for number in 0..30_000 {
        store.set(format!("small{number}").as_bytes(), &[1; 30], NEVER).expect("memory");
    }
    for number in 0..20 {
        store.set(format!("other{number}").as_bytes(), &[1; 3000], NEVER).expect("takes a page from the others");
        store.set(format!("large{number}").as_bytes(), &[1; 200_000], NEVER).expect("takes a page from the others");
        store.validate();
    }
    assert!(store.get(b"large19").is_some() && store.get(b"other19").is_some());
}

#[test]
fn pinned_values_stay_until_they_are_unpinned() {
    let mut store = store(3, StoreOptions::default());
    let id = store.set(b"pinned", &[7; 100_000], NEVER).expect("memory");
    store.pin(id);
    store.set(b"pinned", &[8; 100_000], NEVER).expect("memory");
    for number in 0..200 {
        store.set(format!("k{number}").as_bytes(), &[9; 50_000], NEVER).expect("memory");
    }
    assert_eq!(store.items.value_to_vec(id), [7; 100_000]);
    store.unpin(id);
    assert!(store.pins.is_empty());
    store.validate();
}

#[test]
fn a_flush_spares_what_is_stored_in_the_same_second() {
    let mut store = store(2, StoreOptions::default());
    store.set(b"before", b"1", NEVER).expect("memory");
    store.flush_at(Now(2));
    store.set(b"after", b"2", NEVER).expect("memory");
    assert_eq!((store.get(b"before"), store.get(b"after")), (None, Some(b"2".to_vec())));
    store.flush_at(Now(5));
    assert!(store.get(b"after").is_some());
    store.set_now(Now(5));
    assert!(store.get(b"after").is_none());
}

#[test]
fn flushes_leave_times_true() {
    let mut store = store(2, StoreOptions::default());
    store.set_now(Now(10));
    // One flush cannot remove this many items at once, so some dead ones are always left.
    for number in 0..FLUSHED_AT_ONCE + 100 {
        store.set(format!("old{number}").as_bytes(), b"1", NEVER).expect("memory");
    }
    store.set_now(Now(20));
    for _ in 0..1000 {
        let id = store.set(b"key", b"1", NEVER).expect("memory");
        assert_eq!(store.idle_seconds(id), 0);
        store.flush_at(Now(19));
        assert!(store.get(b"key").is_none());
    }
    assert_eq!(store.index.len(), FLUSHED_AT_ONCE + 100);
    let id = store.set(b"key", b"1", NEVER).expect("memory");
    for now in 20..25 {
        store.set_now(Now(now));
        assert_eq!((store.idle_seconds(id), store.last_access(id)), (now - 20, Now(20)));
    }
    store.hit(id);
    assert_eq!(store.idle_seconds(id), 0);
    let oldest = store.snapshot().classes.into_iter().flat_map(|class| class.ages).max();
    assert!(oldest <= Some(14), "{oldest:?}");
}

#[test]
fn a_flush_removes_the_latest_items_at_once() {
    let mut store = store(2, StoreOptions::default());
    for (now, key) in [(10, "a"), (11, "b"), (12, "c")] {
        store.set_now(Now(now));
        store.set(key.as_bytes(), b"1", NEVER).expect("memory");
    }
    store.flush_at(Now(11));
    assert_eq!((store.index.len(), store.peek(store.hasher.hash(b"a"), b"a")), (1, Err(Absent::Flushed)));
    store.validate();
}

#[test]
fn a_flush_with_nothing_to_flush_changes_nothing() {
    let mut store = store(2, StoreOptions::default());
    store.set(b"a", b"1", NEVER).expect("memory");
    store.set_now(Now(10));
    store.flush_at(Now(9));
    let before = store.stamps.current();
    for _ in 0..1000 {
        store.flush_at(Now(9));
    }
    assert_eq!((store.stamps.current(), store.index.len()), (before, 1));
    // After a reset, the counters do not show whether the store has items.
    store.set(b"b", b"1", NEVER).expect("memory");
    store.reset_counters();
    store.flush_at(Now(9));
    assert!(store.get(b"b").is_none());
}

#[test]
fn worn_stamps_start_again_in_an_empty_store() {
    let mut store = store(8, StoreOptions::default());
    for number in 0..5000 {
        store.set(format!("k{number}").as_bytes(), b"1", NEVER).expect("memory");
    }
    store.set_now(Now(100));
    store.stamps.wear_out(100);
    let pinned = store.set(b"pinned", &[7; 100_000], NEVER).expect("memory");
    store.pin(pinned);
    assert_eq!(store.idle_seconds(pinned), 0);
    store.flush_at(Now(99));
    assert_eq!((store.index.len(), store.stamps.current()), (0, 100));
    store.validate();
    store.unpin(pinned);
    let id = store.set(b"new", b"1", NEVER).expect("memory");
    store.set_now(Now(101));
    assert_eq!(store.idle_seconds(id), 1);
}

#[test]
fn a_lowered_limit_is_met() {
    let mut store = store(8, StoreOptions::default());
    for number in 0..40_000 {
        store.set(format!("k{number}").as_bytes(), &[1; 200], NEVER).expect("memory");
    }
    assert!(store.budget.set_limit(3));
    let used = 38_000..40_000;
    assert!(used.clone().all(|number| store.get(format!("k{number}").as_bytes()).is_some()));
    for _ in 0..200 {
        store.housekeep(256, true);
    }
    assert_eq!((store.budget.surplus(0), store.budget.pool()), (0, 5));
    // The store has evicted items that no client has read, whatever their pages. The memory is full.
    let kept = used.clone().filter(|number| store.get(format!("k{number}").as_bytes()).is_some()).count();
    let others = (0..used.start).filter(|number| store.get(format!("k{number}").as_bytes()).is_some()).count();
    assert!(kept == used.len() && kept + others > 9_000, "{kept} of those in use, {others} others");
    store.validate();
}

#[test]
fn a_hint_holds_until_a_page_changes_hands() {
    let mut store = store(4, StoreOptions::default());
    for number in 0..8000 {
        store.set(format!("k{number}").as_bytes(), &[1; 205], NEVER).expect("memory");
    }
    let hash = store.hasher.hash(b"k7");
    store.begin_group();
    let hint = store.prefetch_item(hash);
    let found = store.find(hash, b"k7").expect("it was set").id;
    assert_eq!(store.seek(hint, hash, b"k7"), Ok(found));
    // The hint must not return another item. It must not return the item itself after its removal, either.
    let other = store.find(store.hasher.hash(b"k8"), b"k8").expect("it was set").id;
    assert_eq!(store.seek(Some(other), hash, b"k7"), Ok(found));
    let entry = store.find(hash, b"k7").expect("it was set");
    store.remove(entry);
    assert_eq!(store.seek(hint, hash, b"k7"), Err(Absent::Unknown));
    // On a page of another class, the bytes at the hint's place may be anything.
    let class = store.class_of(other);
    assert_eq!(store.reassign(Some(class), ClassId(1)), Reassigned::Started);
    while store.move_pages(100) {}
    assert!(store.slabs.have_moved());
    store.begin_group();
    assert!(!store.slabs.have_moved());
}

#[test]
fn a_walk_meets_every_key_that_stays_exactly_once() {
    for seed in 1..20_u64 {
        let mut store = store(64, StoreOptions { hash_power: 4, ..StoreOptions::default() });
        let mut random = Random(seed);
        let mut new = 0;
        for number in 0..3000 {
            store.set(format!("stays{number}").as_bytes(), b"1", NEVER).expect("memory");
        }
        for number in 0..500 {
            store.set(format!("dies{number}").as_bytes(), b"1", 3).expect("memory");
        }
        store.set_now(Now(5));
        let mut met: Model<Vec<u8>, u32> = Model::new();
        let mut place = Some(walk::Place::default());
        while let Some(from) = place {
            let count = 1 + random.below(300) as usize;
            let mut left = random.below(200);
            place = store.walk(
                from,
                count,
                |_| true,
                |store, id| {
                    *met.entry(store.item(id).key().to_vec()).or_default() += 1;
                    left = left.saturating_sub(1);
                    left > 0
                },
            );
            // Meanwhile buckets split, clients add and remove keys, and items change their chunks.
            for _ in 0..random.below(400) {
                new += 1;
                store.set(format!("new{new}").as_bytes(), b"1", NEVER).expect("memory");
                let number = random.below(3000);
                let value = vec![b'v'; random.below(500) as usize];
                store.set(format!("stays{number}").as_bytes(), &value, NEVER).expect("memory");
                let gone = format!("new{}", random.below(new) + 1);
                if let Ok(entry) = store.find(store.hasher.hash(gone.as_bytes()), gone.as_bytes()) {
                    store.remove(entry);
                }
            }
        }
        for number in 0..3000 {
            assert_eq!(met.get(format!("stays{number}").as_bytes()), Some(&1), "seed {seed}: stays{number}");
        }
        assert!(!met.keys().any(|key| key.starts_with(b"dies")), "seed {seed}");
        let reclaimed: u64 = store.snapshot().classes.iter().map(|class| class.counters.crawler_reclaimed).sum();
        assert_eq!(reclaimed, 500, "seed {seed}");
        store.validate();
    }
}

#[test]
fn a_walk_meets_only_what_is_wanted() {
    let mut store = store(8, StoreOptions::default());
    let small = store.set(b"small", b"1", NEVER).expect("memory");
    store.set(b"large", &[1; 100_000], NEVER).expect("memory");
    let class = store.class_of(small);
    let mut met = Vec::new();
    let over = store.walk(
        walk::Place::default(),
        usize::MAX,
        |other| other == class,
        |_, id| {
            met.push(id);
            true
        },
    );
    assert_eq!((over, met), (None, vec![small]));
}

/// The test chooses keys by their buckets, as an attacker can who knows the hash.
#[test]
fn keys_of_one_chain_evict_each_other_and_nothing_else() {
    for evict in [true, false] {
        let mut store = store(64, StoreOptions { hash_power: 4, evict, ..StoreOptions::default() });
        store.set_now(Now(100));
        let bucket = |key: &String| hash::bucket_bits(store.hasher.hash(key.as_bytes()));
        let keys = || (0..40_000).map(|n| format!("key-{n}"));
        let chosen: Vec<String> = keys().filter(|key| bucket(key) % 64 == 5).collect();
        let others: Vec<String> = keys().filter(|key| bucket(key) % 16 != 5).take(80).collect();
        for key in &others {
            store.set(key.as_bytes(), b"other", NEVER).expect("there is room");
        }
        for (at, key) in chosen.iter().enumerate() {
            store.set_now(Now(101 + at as u32));
            // An item that clients read again and again stays.
            assert_eq!(store.get(chosen[0].as_bytes()).is_some(), at > 0);
            store.set(key.as_bytes(), b"chosen", NEVER).expect("there is room");
            assert!(store.get(key.as_bytes()).is_some(), "{key}");
        }
        store.validate();
        let kept = chosen.iter().filter(|key| store.get(key.as_bytes()).is_some()).count();
        assert!((40..=48).contains(&kept), "{kept} of {} are kept", chosen.len());
        assert!(chosen[chosen.len() - 40..].iter().all(|key| store.get(key.as_bytes()).is_some()));
        let counted: Vec<(u64, u64)> =
            store.class_counters.iter().map(|class| (class.evicted, class.evicted_by_chains)).collect();
        let evicted = (chosen.len() - kept) as u64;
        assert_eq!(counted.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1)), (evicted, evicted));
        assert!(others.iter().all(|key| store.get(key.as_bytes()).is_some()), "others");
    }
}

#[test]
fn memory_at_random_is_held_by_keys_in_proportion() {
    let mut store = store(8, StoreOptions::default());
    let mut held: Model<&[u8], u64> = Model::new();
    let mut put = |store: &mut Store, prefix: &'static [u8], number: u64, len: usize| {
        let key = [prefix, number.to_string().as_bytes()].concat();
        let id = store.set(&key, &vec![7; len], NEVER).expect("room");
        *held.entry(prefix).or_default() += store.size_of(id);
    };
    for number in 0..20 {
        put(&mut store, b"long:", number, 100_000);
        (0..500).for_each(|part| put(&mut store, b"short:", number * 500 + part, 100));
        (0..50).for_each(|part| put(&mut store, b"middle:", number * 50 + part, 2000));
    }
    for number in 0..5000 {
        let key = format!("gone:{number}");
        store.set(key.as_bytes(), b"x", 100).expect("room");
    }
    store.set_now(Now(200));
    let (mut random, mut free) = (Random(3), 0);
    let mut found: Model<Vec<u8>, u64> = Model::new();
    const SAMPLES: u64 = 40_000;
    for _ in 0..SAMPLES {
        let random = random.below(1 << 31) << 33 | random.below(1 << 31) << 2;
        match store.key_at_random(random) {
            Some(key) => {
                let prefix = key[..=key.iter().position(|&byte| byte == b':').expect("a prefix")].to_vec();
                *found.entry(prefix).or_default() += 1;
            }
            None => free += 1,
        }
    }
    assert!(free > 0 && found.len() == 3, "{free} {found:?}");
    let (all, sampled) = (held.values().sum::<u64>() as f64, (SAMPLES - free) as f64);
    for (prefix, bytes) in held {
        let (share, expected) = (found[prefix] as f64 / sampled, bytes as f64 / all);
        assert!((share - expected).abs() < 0.02, "{}: {share} in place of {expected}", String::from_utf8_lossy(prefix));
    }
    assert!(self::store(1, StoreOptions::default()).key_at_random(5).is_none(), "a store without pages");
}
