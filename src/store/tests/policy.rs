//! Tests of the eviction policy: which items stay, whatever the traffic is.

use super::*;
use crate::store::lru::Segment;

/// Items of [`VALUE`] that fit in a store of these tests, about.
const FIT: u64 = 8000;
const VALUE: [u8; 200] = [1; 200];

fn small() -> Store {
    store(2, StoreOptions::default())
}

impl Store {
    /// Asks for a key, and stores it after a miss. Returns whether it was a hit.
    fn request(&mut self, number: u64) -> bool {
        let key = format!("k{number:012}");
        let hit = self.get(key.as_bytes()).is_some();
        if !hit {
            self.set(key.as_bytes(), &VALUE, NEVER).expect("evicts");
        }
        hit
    }

    /// The share of requests that missed.
    fn misses(&mut self, requests: impl Iterator<Item = u64>) -> f64 {
        let (mut count, mut missed) = (0, 0);
        for number in requests {
            count += 1;
            missed += u32::from(!self.request(number));
        }
        f64::from(missed) / f64::from(count)
    }

    fn segment_of(&mut self, number: u64) -> Option<Segment> {
        let key = format!("k{number:012}");
        let entry = self.find(self.hasher.hash(key.as_bytes()), key.as_bytes()).ok()?;
        Some(Segment::of(self.items.at(entry.id).state()))
    }
}

#[test]
fn keys_that_are_read_once_do_not_drive_out_others() {
    let mut store = small();
    store.misses(0..FIT * 2);
    let working_set = || FIT * 4..FIT * 4 + FIT / 2;
    (0..5).for_each(|_| assert!(store.misses(working_set()) <= 1.0));
    assert_eq!(store.misses(working_set()), 0.0);
    store.misses(FIT * 10..FIT * 12);
    assert!(store.misses(working_set()) < 0.01);
    store.validate();
}

#[test]
fn a_loop_over_more_keys_than_fit_keeps_most_of_what_fits() {
    for (times, hits_min) in [(1.2, 0.65), (2.0, 0.35), (5.0, 0.08)] {
        let mut store = small();
        let len = (FIT as f64 * times) as u64;
        store.misses((0..len * 4).map(|number| number % len));
        let missed = store.misses((0..len * 4).map(|number| number % len));
        assert!(1.0 - missed > hits_min, "{times} times what fits: {missed} missed");
    }
}

#[test]
fn a_new_working_set_that_fits_takes_over() {
    let mut store = small();
    store.misses(0..FIT * 2);
    let len = FIT * 8 / 10;
    let pass = |store: &mut Store| store.misses(FIT * 5..FIT * 5 + len);
    let passes: Vec<f64> = (0..12).map(|_| pass(&mut store)).collect();
    assert!(passes[11] < 0.01, "{passes:?}");
}

#[test]
fn keys_that_are_read_twice_find_the_first_time_still_there() {
    // The second read comes after 0.7 of what fits: far beyond the share that newcomers have at the start.
    let apart = FIT * 7 / 10;
    let requests = (0..FIT * 30).flat_map(|number| [Some(number), number.checked_sub(apart)]).flatten();
    let mut store = small();
    store.misses(requests.clone().take(FIT as usize * 50));
    let missed = store.misses(requests.skip(FIT as usize * 50));
    assert!(missed < 0.52, "{missed}");
}

#[test]
fn a_key_that_comes_back_is_proven_if_a_proven_item_can_be_spared() {
    let mut store = small();
    store.misses(0..FIT * 2);
    let gone = (0..FIT * 2).rev().find(|&number| store.segment_of(number).is_none()).expect("some were evicted");
    store.request(gone);
    assert_eq!(store.segment_of(gone), Some(Segment::Warm));

    // All proven items are in use.
    let first = store.set(b"k000000000000", &VALUE, NEVER).expect("it is there");
    let class = store.class_of(first);
    let gone = (0..gone).rev().find(|&number| store.segment_of(number).is_none()).expect("some were evicted");
    let proven: Vec<ItemId> = store.lru.last_of(&store.items, class, Segment::Warm).collect();
    proven.into_iter().for_each(|id| {
        store.hit(id);
    });
    store.request(gone);
    assert_eq!(store.segment_of(gone), Some(Segment::Hot));
    // A key that never was there is new.
    store.request(FIT * 9);
    assert_eq!(store.segment_of(FIT * 9), Some(Segment::Hot));
}

#[test]
fn after_a_flush_the_cache_fills_as_an_empty_one_does() {
    let mut store = small();
    store.misses(0..FIT * 2);
    assert!(store.has_evicted && store.snapshot().hash_bytes > store.index.bytes() as u64);
    store.set_now(Now(10));
    store.flush_at(Now(10));
    assert!(!store.has_evicted);
    let segments =
        |store: &mut Store| (0..64).filter(|&number| store.segment_of(number) == Some(Segment::Warm)).count();
    store.misses(0..64);
    assert!(segments(&mut store) > 30);
}

#[test]
fn an_eviction_passes_over_a_bounded_number_of_items_in_use() {
    let mut store = small();
    store.misses(0..FIT * 2);
    for class in store.slabs.ids() {
        for segment in Segment::ALL {
            let ids: Vec<ItemId> = store.lru.last_of(&store.items, class, segment).collect();
            ids.into_iter().for_each(|id| {
                store.hit(id);
            });
        }
    }
    let moves = |store: &Store| {
        store
            .snapshot()
            .classes
            .iter()
            .map(|class| class.counters.moves_to_warm + class.counters.moves_within_lru)
            .sum::<u64>()
    };
    let before = moves(&store);
    store.request(FIT * 9);
    assert!((1..=192).contains(&(moves(&store) - before)));
    assert_eq!(store.segment_of(FIT * 9), Some(Segment::Hot));
}
