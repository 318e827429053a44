//! Moves of pages: the store must lose no item without need, and pages must move to classes that need them.

use super::*;
use crate::store::lru::Segment;
use crate::store::moves::Busy;

/// Steps of housekeeping in a simulated second, as in a worker.
const STEPS_PER_SECOND: usize = 256;
const CHUNKS_PER_STEP: u32 = 256;

pub(super) fn evicted(store: &Store) -> u64 {
    store.snapshot().classes.iter().map(|class| class.counters.evicted).sum()
}

impl Store {
    fn live(&mut self, count: u32, name: impl Fn(u32) -> String) -> u32 {
        (0..count).filter(|&number| self.get(name(number).as_bytes()).is_some()).count() as u32
    }

    /// Continues the move of a page until its end, in steps of a few chunks.
    fn finish_move(&mut self) {
        for _ in 0..100_000 {
            if !self.move_pages(7) {
                return;
            }
        }
        panic!("a page is still moving");
    }

    fn pages(&self, class: ClassId) -> usize {
        self.slabs.page_count(class)
    }

    /// Lets a second pass. The steps of housekeeping alternate with calls of `work`.
    fn second(&mut self, mut work: impl FnMut(&mut Store, usize)) {
        self.set_now(Now(self.now + 1));
        for step in 0..STEPS_PER_SECOND {
            work(self, step);
            self.housekeep(CHUNKS_PER_STEP, true);
        }
    }
}

#[test]
fn a_page_leaves_its_items_behind_where_there_is_room() {
    let mut store = store(8, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
    let value = [3; 200];
    for number in 0..14_000 {
        store.set(format!("k{number}").as_bytes(), &value, NEVER).expect("memory");
    }
    // Remove every other item. The other pages then have room for the items of two pages.
    for number in (0..14_000).step_by(2) {
        let key = format!("k{number}");
        let entry = store.find(store.hasher.hash(key.as_bytes()), key.as_bytes()).expect("it was set");
        store.remove(entry);
    }
    let class = store.slabs.class_for(store.items.size(6, 0, 200)).expect("small");
    let before = store.pages(class);
    for _ in 0..2 {
        assert_eq!(store.reassign(Some(class), ClassId(5)), Reassigned::Started);
        assert_eq!(store.reassign(Some(class), ClassId(5)), Reassigned::Busy);
        store.finish_move();
        store.validate();
    }
    assert_eq!((store.pages(class), store.pages(ClassId(5))), (before - 2, 2));
    assert_eq!(store.live(14_000, |number| format!("k{number}")), 7000);
    let counters = store.snapshot().counters;
    assert_eq!((counters.slabs_moved, counters.reassign_busy_items), (2, 0));
    assert!(counters.reassign_rescues > 2000);
    let evicted: u64 = store.snapshot().classes.iter().map(|class| class.counters.evicted).sum();
    assert_eq!(evicted, 0);
}

/// A class without spare pages gives one up, while most of the memory is empty. The store still evicts only if it must.
#[test]
fn a_page_that_moves_takes_a_free_page_for_its_items() {
    for to in [ClassId(0), ClassId(5)] {
        let mut store = store(64, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
        let class = store.slabs.class_for(store.items.size(6, 0, 200)).expect("small");
        let mut stored = 0;
        while store.pages(class) < 3 || store.slabs.free_chunks(class) > 0 {
            store.set(format!("k{stored}").as_bytes(), &[3; 200], NEVER).expect("memory");
            stored += 1;
        }
        for _ in 0..3 {
            assert_eq!(store.reassign(Some(class), to), Reassigned::Started);
            store.finish_move();
            store.validate();
        }
        assert_eq!((store.live(stored, |number| format!("k{number}")), evicted(&store)), (stored, 0));
        assert_eq!(store.snapshot().counters.slabs_moved, 3);
    }
}

/// When a page moves, the store also removes dead items before live ones.
#[test]
fn a_page_that_moves_costs_dead_items_first() {
    let mut store = store(4, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
    let class = store.slabs.class_for(store.items.size(6, 0, 205)).expect("small");
    let mut stored = 0;
    while store.budget.free() > 0 || store.slabs.free_chunks(class) > 0 {
        let deadline = if stored % 2 == 0 { 10 } else { NEVER };
        store.set(format!("k{stored}").as_bytes(), &[3; 205], deadline).expect("memory");
        stored += 1;
    }
    store.set_now(Now(20));
    assert_eq!(store.reassign(Some(class), ClassId(5)), Reassigned::Started);
    store.finish_move();
    assert_eq!((store.pages(class), store.pages(ClassId(5)), evicted(&store)), (3, 1, 0));
    assert_eq!(store.live(stored, |number| format!("k{number}")), stored / 2);
    store.validate();
}

/// A class without items to evict takes a page at once, from a class with enough room for the items of the page.
#[test]
fn a_page_taken_at_once_leaves_its_items_behind_where_there_is_room() {
    for value_len in [200, 100_000] {
        let mut store = store(16, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
        let mut stored = 0;
        while store.budget.free() > 0 {
            store.set(format!("k{stored}").as_bytes(), &vec![3; value_len], NEVER).expect("memory");
            stored += 1;
        }
        let gone = |number: &u32| !number.is_multiple_of(3);
        for key in (0..stored).filter(gone).map(|number| format!("k{number}")) {
            let entry = store.find(store.hasher.hash(key.as_bytes()), key.as_bytes()).expect("it was set");
            store.remove(entry);
        }
        for (nth, other_len) in [10, 1000, 2000, 4000].into_iter().enumerate() {
            store.set(format!("other{nth}").as_bytes(), &vec![4; other_len], NEVER).expect("a page");
            store.validate();
        }
        let left = stored - (0..stored).filter(gone).count() as u32;
        assert_eq!((store.live(stored, |number| format!("k{number}")), evicted(&store)), (left, 0), "{value_len}");
    }
}

/// The limit goes down. One class is full of older items; another has room to spare.
#[test]
fn a_lowered_limit_costs_nothing_while_a_class_has_room_to_spare() {
    let mut store = store(16, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
    for number in 0..12_000 {
        store.set(format!("k{number}").as_bytes(), &[3; 205], NEVER).expect("memory");
    }
    store.set_now(Now(100));
    for number in 0..10_000 {
        store.set(format!("spare{number}").as_bytes(), &[3; 1000], NEVER).expect("memory");
    }
    let full = store.slabs.class_for(store.items.size(6, 0, 205)).expect("small");
    let spare = store.slabs.class_for(store.items.size(6, 0, 1000)).expect("small");
    let before = store.live(10_000, |number| format!("spare{number}"));
    for key in (0..10_000).filter(|number| number % 5 != 0).map(|number| format!("spare{number}")) {
        if let Ok(entry) = store.find(store.hasher.hash(key.as_bytes()), key.as_bytes()) {
            store.remove(entry);
        }
    }
    let (kept, held) = (store.live(10_000, |number| format!("spare{number}")), store.pages(full));
    let evictions = evicted(&store);
    assert!(kept > 1000 && before > 8000, "{kept} of {before}");
    assert!(store.budget.set_limit(held as u32 + 4));
    for _ in 0..400 {
        store.housekeep(256, true);
    }
    assert_eq!((store.pages(full), store.pages(spare), evicted(&store)), (held, 4, evictions));
    assert_eq!(store.live(10_000, |number| format!("spare{number}")), kept);
    store.validate();
}

#[test]
fn a_class_that_comes_late_gets_its_first_page_on_credit() {
    let arena = Arc::new(Arena::reserve(64, PAGE_SIZE_MAX).expect("address space"));
    let budget = Arc::new(Budget::new(40, 1, &arena).lending(10));
    let items = Items::new(arena, true);
    let options = StoreOptions { tuning: automove(0), ..StoreOptions::default() };
    let mut store = Store::new(0, options, items, Arc::clone(&budget), KeyHasher::seeded(7)).expect("address space");
    let held = |store: &Store| store.slabs.ids().map(|class| store.pages(class)).sum::<usize>();
    let fill = |store: &mut Store| {
        let before = store.snapshot().classes.iter().map(|class| class.counters.evicted).sum::<u64>();
        for number in 0.. {
            store.set(format!("k{number}").as_bytes(), &[3; 200], NEVER).expect("memory");
            if store.snapshot().classes.iter().map(|class| class.counters.evicted).sum::<u64>() > before {
                break;
            }
        }
    };
    fill(&mut store);
    assert_eq!(held(&store), 40);
    // Four classes get pages on credit, and no item is lost. The fifth class takes a page at once.
    let there = store.index.len();
    for (nth, value_len) in (1..).zip([10, 1000, 2000, 4000]) {
        store.set(format!("late{nth}").as_bytes(), &vec![4; value_len], NEVER).expect("a page");
        assert_eq!((store.index.len(), held(&store)), (there + nth, 40 + nth));
    }
    store.set(b"latest", &[5; 8000], NEVER).expect("a page");
    assert_eq!(held(&store), 44);
    assert!(store.index.len() < there + 5 - 3000);
    store.validate();
    // The full class pays the debt. The other classes lose no item for it.
    assert!(budget.is_exceeded());
    store.second(|_, _| ());
    store.second(|_, _| ());
    assert_eq!((held(&store), budget.is_exceeded(), budget.free()), (40, false, 0));
    for (nth, value_len) in (1..).zip([10, 1000, 2000, 4000]) {
        assert_eq!(store.get(format!("late{nth}").as_bytes()), Some(vec![4; value_len]));
    }
    // The budget has credit again.
    store.set(b"last", &[6; 6_000], NEVER).expect("a page");
    assert_eq!(held(&store), 41);
    store.validate();
}

#[test]
fn a_reader_of_a_class_meets_items_of_every_segment() {
    let mut store = store(
        8,
        StoreOptions { tuning: Tuning { temporary_ttl: Some(5), ..Tuning::default() }, ..StoreOptions::default() },
    );
    let mut class = ClassId(0);
    for (key, segment) in [(b"h", Segment::Hot), (b"w", Segment::Warm), (b"c", Segment::Cold), (b"t", Segment::Temp)] {
        let id = store.set(key, b"1", NEVER).expect("memory");
        class = store.class_of(id);
        store.relist(class, id, segment);
    }
    for count in 1..6 {
        let (mut reader, mut met) = (walk::Reader::default(), Vec::new());
        while store.read_class(class, &mut reader, count, |id| met.push(store.items.at(id).key()[0])) {}
        assert_eq!(met, b"hwct", "{count} at a time");
    }
}

#[test]
fn a_reader_of_a_list_that_changes_meets_all_items_that_stay() {
    let mut store = store(8, StoreOptions { tuning: segmented(false), ..StoreOptions::default() });
    let class = store.slabs.class_for(store.items.size(8, 0, 100)).expect("small");
    for seed in 1..20 {
        let mut random = Random(seed);
        for number in 0..3000 {
            store.set(format!("k{number:07}").as_bytes(), &[1; 100], NEVER).expect("memory");
        }
        let mut gone = std::collections::HashSet::new();
        let (mut reader, mut met) = (walk::Reader::default(), Vec::new());
        loop {
            let mut ids = Vec::new();
            let more = store.read_class(class, &mut reader, 50, |id| ids.push(id));
            met.extend(ids.iter().map(|&id| store.items.at(id).key().to_vec()));
            if !more {
                break;
            }
            // Remove the last items that the reader met, except one, and some others. Store some. A page may leave.
            let last = met[met.len() - 7..].to_vec();
            let others = (0..20).map(|_| format!("k{:07}", random.below(3000)).into_bytes());
            for key in last.into_iter().chain(others.filter(|key| met[met.len() - 8] != *key)) {
                if let Ok(entry) = store.find(store.hasher.hash(&key), &key) {
                    store.remove(entry);
                    gone.insert(key);
                }
            }
            store.set(format!("new{}", random.below(1000)).as_bytes(), &[2; 100], NEVER).expect("memory");
        }
        let before = met.len();
        met.sort_unstable();
        met.dedup();
        assert_eq!(met.len(), before, "seed {seed}: none is met twice");
        for number in 0..3000 {
            let key = format!("k{number:07}").into_bytes();
            assert!(gone.contains(&key) || met.binary_search(&key).is_ok(), "seed {seed}: {number}");
        }
        store.validate();
        // The flush has removed all items from which the reader could continue, and their page belongs to another
        // class. So the reader has come to the end.
        let mut reader = walk::Reader::default();
        assert!(store.read_class(class, &mut reader, 50, |_| ()));
        store.flush_at(Now(0));
        for _ in 0..store.housekeeping_round() * 40 {
            store.housekeep(5000, true);
        }
        assert_eq!(store.index.len(), 0);
        store.set(b"other", &[3; 4000], NEVER).expect("memory");
        assert!(!store.read_class(class, &mut reader, 50, |_| panic!("there is nothing")));
        store.set_now(Now(store.now + 1));
    }
}

#[test]
fn a_page_of_a_full_class_costs_the_coldest_items() {
    let mut store = store(6, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
    let mut stored = 0;
    while store.budget.free() > 0 || store.slabs.free_chunks(store.slabs.class_for(240).expect("small")) > 0 {
        store.set_now(Now(2 + stored / 1000));
        store.set(format!("k{stored}").as_bytes(), &[3; 205], NEVER).expect("memory");
        stored += 1;
    }
    // The first page holds the oldest items. Clients read these again, and not the next ones.
    store.set_now(Now(100));
    let hot = 4000;
    for _ in 0..2 {
        assert_eq!(store.live(hot, |number| format!("k{number}")), hot);
    }
    let class = ClassId(store.snapshot().classes.iter().find(|class| class.usage.total_pages > 0).expect("one").id.0);
    for (moved, to) in (1..4).zip([7, 8, 9].map(ClassId)) {
        assert_eq!(store.reassign(None, to), Reassigned::Started);
        store.finish_move();
        assert_eq!((store.pages(class), store.pages(to)), (6 - moved, 1));
        // If the page stayed empty, the next move would take it.
        let value_len = store.slabs.usage(to).chunk_size as usize - store.items.size(4, 0, 0);
        store.set(format!("new{moved}").as_bytes(), &vec![3; value_len], NEVER).expect("it has a page");
    }
    store.validate();
    // An eviction takes an active item after it has passed over too many of them. This happens to a few items.
    let live = store.live(hot, |number| format!("k{number}"));
    assert!(live > hot * 98 / 100, "only {live} of {hot} items in use were rescued");
}

#[test]
fn a_page_that_a_client_assigns_arrives_although_memory_is_full() {
    let mut store = store(6, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
    store.set(b"small", &[1; 20], NEVER).expect("memory");
    let small = store.class_of(store.peek(store.hasher.hash(b"small"), b"small").expect("it was set"));
    let mut number = 0;
    let mut fill = |store: &mut Store| {
        let before = evicted(store);
        while evicted(store) == before {
            number += 1;
            store.set(format!("k{number:06}").as_bytes(), &[3; 1000], NEVER).expect("evicts");
        }
    };
    fill(&mut store);
    let big = store.slabs.class_for(store.items.size(7, 0, 1000)).expect("small");
    for assigned in 1..4 {
        assert_eq!(store.reassign(Some(big), small), Reassigned::Started);
        store.finish_move();
        for _ in 0..store.housekeeping_round() {
            store.housekeep(100, true);
        }
        fill(&mut store);
        assert_eq!((store.pages(big), store.pages(small)), (5 - assigned, 1 + assigned));
    }
    store.validate();
}

#[test]
fn a_class_whose_coldest_items_lie_on_the_page_that_leaves_still_has_room() {
    let mut store = store(6, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
    let mut number = 0;
    let mut set = |store: &mut Store| {
        number += 1;
        store.set(format!("k{number}").as_bytes(), &[3; 200], NEVER).expect("evicts");
    };
    (0..30_000).for_each(|_| set(&mut store));
    for _ in 0..20 {
        let class = store.slabs.class_for(store.items.size(6, 0, 200)).expect("small");
        if store.reassign(Some(class), ClassId(1)) == Reassigned::NoSpare {
            store.reassign(Some(ClassId(1)), class);
        }
        while store.mover.is_running() {
            (0..50).for_each(|_| set(&mut store));
            store.move_pages(10);
        }
        store.validate();
    }
    assert_eq!(store.snapshot().classes.iter().map(|class| class.counters.outofmemory).sum::<u64>(), 0);
}

#[test]
fn large_items_are_rescued_chunk_by_chunk() {
    let mut store = store(12, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
    let value = |number: u32| -> Vec<u8> { (0..150_000_u32).map(|at| (at ^ (number * 7)) as u8).collect() };
    for number in 0..50 {
        store.set(format!("k{number}").as_bytes(), &value(number), NEVER).expect("memory");
    }
    for number in (0..50).step_by(2) {
        let key = format!("k{number}");
        let entry = store.find(store.hasher.hash(key.as_bytes()), key.as_bytes()).expect("it was set");
        store.remove(entry);
    }
    let large = store.slabs.largest();
    let before = store.pages(large);
    for _ in 0..3 {
        assert_eq!(store.reassign(Some(large), ClassId(0)), Reassigned::Started);
        store.finish_move();
        store.validate();
    }
    assert_eq!((store.pages(large), store.budget.pool()), (before - 3, 3));
    for number in (1..50).step_by(2) {
        assert!(store.get(format!("k{number}").as_bytes()) == Some(value(number)), "k{number}");
    }
    assert!(store.snapshot().counters.reassign_chunk_rescues > 50);
}

/// The store frees a long item in steps, and another class needs its page at once.
#[test]
fn a_page_of_long_items_goes_to_a_class_that_needs_it_at_once() {
    let mut store = store(12, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
    for number in 0..6 {
        store.set(format!("long{number}").as_bytes(), &[1; 3_000_000], NEVER).expect("memory");
    }
    assert_eq!(store.budget.free(), 0);
    for (nth, value_len) in [10, 100, 1000, 4000, 9000].into_iter().enumerate() {
        store.set(format!("k{nth}").as_bytes(), &vec![2; value_len], NEVER).expect("a page of another class");
        store.validate();
    }
    let kept = store.live(6, |number| format!("long{number}"));
    assert!(kept >= 2, "{kept} of the long items were kept: too many had to go");
    assert_eq!(store.live(5, |nth| format!("k{nth}")), 5);
}

#[test]
fn a_move_waits_for_an_item_in_use_and_then_gives_up() {
    let mut store = store(4, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
    let large = store.slabs.largest();
    store.set(b"other", &[8; 700_000], NEVER).expect("memory");
    let pinned = store.set(b"pinned", &[7; 700_000], NEVER).expect("memory");
    store.pin(pinned);
    assert_eq!(store.reassign(Some(large), ClassId(1)), Reassigned::Started);
    store.finish_move();
    assert!(store.mover.is_running(), "it waits");
    assert_eq!(store.snapshot().reassign_last_busy, Busy::Active);
    store.unpin(pinned);
    store.set_now(Now(4));
    store.finish_move();
    assert_eq!((store.pages(ClassId(1)), store.snapshot().counters.slabs_moved), (1, 1));
    assert!(store.get(b"pinned") == Some(vec![7; 700_000]), "the other one was older");
    store.validate();

    // These items stay pinned, so that the page stays in its class.
    for key in [&b"pinned"[..], b"other"] {
        let id = store.set(key, &[9; 700_000], NEVER).expect("memory");
        store.pin(id);
    }
    assert_eq!(store.reassign(Some(large), ClassId(1)), Reassigned::Started);
    store.finish_move();
    store.set_now(Now(60));
    store.finish_move();
    assert!(!store.mover.is_running());
    assert_eq!(store.snapshot().counters.slabs_moved, 1);
    store.validate();
}

#[test]
fn a_page_stays_while_a_client_sends_one_of_its_items() {
    let mut store = store(4, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
    let large = store.slabs.largest();
    let floating = store.allocate(b"coming", 0, 1_500_000).expect("memory");
    assert_eq!(store.reassign(Some(large), ClassId(1)), Reassigned::Started);
    store.finish_move();
    assert_eq!(store.snapshot().reassign_last_busy, Busy::Uploading);
    store.items.fill(store.items.value_cursor(floating), &[5; 1_500_000]);
    store.link(floating, store.hasher.hash(b"coming"), NEVER);
    store.set_now(Now(3));
    store.finish_move();
    store.validate();
    assert_eq!(
        store.get(b"coming").map_or(1_500_000, |value| value.iter().filter(|&&byte| byte == 5).count()),
        1_500_000
    );
}

#[test]
fn without_eviction_a_page_moves_only_if_its_items_fit_elsewhere() {
    let mut store = store(4, StoreOptions { evict: false, ..StoreOptions::default() });
    let stored = (0..).take_while(|n| store.set(format!("k{n}").as_bytes(), &[1; 1000], NEVER).is_ok()).count() as u32;
    assert_eq!(store.reassign(None, ClassId(1)), Reassigned::Started);
    store.finish_move();
    assert_eq!((store.pages(ClassId(1)), store.snapshot().counters.slabs_moved), (0, 0));
    assert!(store.snapshot().counters.reassign_busy_nomem > 0);
    assert_eq!(store.live(stored, |number| format!("k{number}")), stored);
    store.validate();
}

#[test]
fn dead_items_are_still_found_after_a_page_has_left() {
    let mut store = store(8, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
    for number in 0..20_000 {
        store.set(format!("k{number}").as_bytes(), &[1; 205], 10 + number % 3).expect("memory");
    }
    let class = ClassId(store.snapshot().classes.iter().find(|class| class.usage.total_pages > 0).expect("one").id.0);
    for now in 9..20 {
        store.set_now(Now(now));
        // A page leaves in the middle of the search.
        store.reclaim_ahead(class, 1000);
        store.reassign(Some(class), ClassId(3));
        store.finish_move();
        for _ in 0..2000 {
            store.reclaim_ahead(class, 100);
        }
    }
    assert_eq!(store.snapshot().curr_items, 0);
    store.validate();
}

/// The sizes of items change: clients of a cache full of small items read and store only large ones.
fn calcified(options: StoreOptions, seconds: u32) -> (f64, f64, Store) {
    let mut store = store(64, options);
    let mut random = Random(3);
    let mut number = 0;
    while store.snapshot().classes.iter().map(|class| class.counters.evicted).sum::<u64>() < 20_000 {
        store.second(|store, _| {
            for _ in 0..200 {
                number += 1;
                store.set(format!("small{number}").as_bytes(), &[1; 100], NEVER).expect("evicts");
            }
        });
    }
    // Clients read 9,600 values of 5,000 bytes at random (48 MB of 64 MiB), and store those that they miss.
    let (mut hits, mut gets) = (0, 0);
    for second in 0..seconds {
        (hits, gets) = if second + 5 == seconds { (0, 0) } else { (hits, gets) };
        store.second(|store, _| {
            for _ in 0..32 {
                let key = format!("large{}", random.below(9600));
                gets += 1;
                match store.get(key.as_bytes()) {
                    Some(value) => {
                        assert!(value == [2; 5_000]);
                        hits += 1;
                    }
                    None => drop(store.set(key.as_bytes(), &[2; 5_000], NEVER).expect("evicts")),
                }
            }
        });
    }
    let class = store.slabs.class_for(store.items.size(8, 0, 5_000)).expect("small");
    let share = store.pages(class) as f64 / 64.0;
    (f64::from(hits) / f64::from(gets), share, store)
}

#[test]
#[cfg_attr(miri, ignore = "a minute of a cache's time")]
fn a_cache_full_of_small_items_makes_room_for_large_ones() {
    for level in [1, 2] {
        let (rate, share, store) = calcified(StoreOptions { tuning: automove(level), ..StoreOptions::default() }, 45);
        assert!(rate > 0.95 && share > 0.7, "automove {level}: hit rate {rate}, share of pages {share}");
        store.validate();
    }
    let (rate, share, _) = calcified(StoreOptions { tuning: automove(0), ..StoreOptions::default() }, 15);
    assert!(rate < 0.3 && share < 0.1, "without it: hit rate {rate}, share of pages {share}");
}

/// With a port for each core, a shard may idle while another needs memory.
#[test]
fn pages_go_from_a_shard_that_idles_to_one_that_starves() {
    let arena = Arc::new(Arena::reserve(40, PAGE_SIZE_MAX).expect("address space"));
    let budget = Arc::new(Budget::new(40, 2, &arena));
    let shard = |number| {
        let items = Items::new(Arc::clone(&arena), true);
        Store::new(number, StoreOptions::default(), items, Arc::clone(&budget), KeyHasher::seeded(7)).expect("memory")
    };
    let (mut idle, mut busy) = (shard(0), shard(1));
    for number in 0..150_000 {
        idle.set(format!("k{number}").as_bytes(), &[1; 200], NEVER).expect("evicts");
    }
    let pages = |store: &Store| store.slabs.ids().map(|class| store.pages(class)).sum::<usize>();
    assert_eq!(pages(&idle), 30, "all but half of an equal share");
    let mut random = Random(5);
    for _ in 0..60 {
        idle.second(|_, _| ());
        busy.second(|store, _| {
            for _ in 0..60 {
                // The items fill 23 pages.
                let key = format!("k{}", random.below(25 * 4000));
                if store.get(key.as_bytes()).is_none() {
                    store.set(key.as_bytes(), &[1; 200], NEVER).expect("evicts");
                }
            }
        });
    }
    // The index of so many items takes the place of up to three pages.
    assert!(pages(&busy) >= 22 && pages(&idle) + pages(&busy) >= 37, "{} and {}", pages(&idle), pages(&busy));
    idle.validate();
    busy.validate();
    // When the idle shard is in use again, it gets its pages back.
    for _ in 0..60 {
        busy.second(|_, _| ());
        idle.second(|store, _| {
            for _ in 0..60 {
                let key = format!("k{}", random.below(25 * 4000));
                if store.get(key.as_bytes()).is_none() {
                    store.set(key.as_bytes(), &[1; 200], NEVER).expect("evicts");
                }
            }
        });
    }
    assert!(pages(&idle) >= 22, "{} and {}", pages(&idle), pages(&busy));
}

/// With small pages, one page a second would take minutes.
#[test]
fn small_pages_move_several_a_second() {
    let mut store = store_of_parts(4, 64, StoreOptions::default());
    let most = u64::from(store.pages_per_second());
    let mut number = 0;
    let mut set = |store: &mut Store, len: usize| {
        number += 1;
        store.set(format!("k{number:06}").as_bytes(), &vec![1; len], NEVER).expect("evicts");
    };
    // Items of one size fill the memory and grow old.
    while evicted(&store) == 0 {
        set(&mut store, 1000);
    }
    store.set_now(Now(100));
    let mut moved = Vec::new();
    for _ in 0..30 {
        let before = store.snapshot().counters.slabs_moved;
        store.second(|store, _| (0..8).for_each(|_| set(store, 100)));
        moved.push(store.snapshot().counters.slabs_moved - before);
    }
    assert!(moved.iter().all(|&pages| pages <= most) && moved.iter().any(|&pages| pages > 1), "{moved:?} of {most}");
    store.validate();
}

#[test]
fn an_age_counts_more_for_a_larger_item() {
    let mut store = store(8, StoreOptions::default());
    let [small, large] = [40, 4000].map(|len| {
        let id = store.set(format!("k{len}").as_bytes(), &vec![1; len], NEVER).expect("memory");
        store.class_of(id)
    });
    assert!(store.weigh(large, 10) > store.weigh(small, 10));
    // The root of a hundredfold size is tenfold: twentyfold age is more.
    assert!(store.weigh(small, 200) > store.weigh(large, 10));
}

#[test]
fn a_flat_lru_evicts_items_neither_stored_nor_fetched_lately() {
    let mut store = store(2, StoreOptions { tuning: segmented(false), maintain: false, ..StoreOptions::default() });
    for number in 0..9000 {
        store.set(format!("k{number}").as_bytes(), &[1; 205], NEVER).expect("evicts");
        if number == 10 || number % 1000 == 0 {
            assert!(store.get(b"k0").is_some(), "{number}");
        }
    }
    let counts =
        store.snapshot().classes.iter().map(|class| class.counts).find(|counts| counts.iter().sum::<u64>() > 0);
    assert!(matches!(counts, Some([0, 0, 8000..=9000, 0])), "{counts:?}");
    assert_eq!(store.live(30, |number| format!("k{number}")), 1);
    store.validate();
}

#[test]
fn the_mode_of_the_lru_can_be_changed_while_it_is_full() {
    let mut store = store(
        3,
        StoreOptions { tuning: Tuning { temporary_ttl: Some(60), ..Tuning::default() }, ..StoreOptions::default() },
    );
    let fill = |store: &mut Store, from: u32| {
        for number in from..from + 20_000 {
            let deadline = if number % 10 == 0 { 50 } else { NEVER };
            store.set(format!("k{number}").as_bytes(), &[1; 200], deadline).expect("evicts");
            for _ in 0..2 {
                store.get(format!("k{}", number / 8 * 7).as_bytes());
            }
        }
    };
    let counts = |store: &Store| {
        let mut sums = [0; 4];
        for class in store.snapshot().classes {
            sums = std::array::from_fn(|at| sums[at] + class.counts[at]);
        }
        sums
    };
    fill(&mut store, 0);
    (0..store.housekeeping_round()).for_each(|_| {
        store.housekeep(256, true);
    });
    assert!(counts(&store).iter().all(|&count| count > 0));
    let items = counts(&store).iter().sum::<u64>();
    let tuning = store.options().tuning;
    store.tune(Tuning { lru: LruTuning { segmented: false, ..tuning.lru }, ..tuning });
    for _ in 0..store.housekeeping_round() * 100 {
        store.housekeep(256, true);
    }
    assert_eq!(counts(&store), [0, 0, items, 0]);
    fill(&mut store, 20_000);
    assert!(matches!(counts(&store), [0, 0, 1..=u64::MAX, 0]));
    store.tune(tuning);
    fill(&mut store, 40_000);
    (0..store.housekeeping_round()).for_each(|_| {
        store.housekeep(256, true);
    });
    assert!(counts(&store).iter().all(|&count| count > 0));
    store.validate();
}

#[test]
fn a_share_of_the_pages_is_kept_free() {
    let mut store = store(40, StoreOptions { tuning: free_ratio(0.1), ..StoreOptions::default() });
    for number in 0..300_000 {
        store.set(format!("k{number}").as_bytes(), &[1; 200], NEVER).expect("evicts");
    }
    assert_eq!(store.budget.free(), 0);
    for _ in 0..10 {
        store.second(|_, _| ());
    }
    assert_eq!(store.budget.free(), 4);
}
