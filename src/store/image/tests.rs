//! Tests of saved and loaded lists. The tests of `server/restart/` cover items, and damaged images.

use super::super::item::Item;
use super::super::lru::Segment;
use super::super::slab::ClassId;
use super::super::tests::{Random, store};
use super::super::{NEVER, Store, StoreOptions};
use super::*;
use crate::clock::Now;
use parking_lot::Mutex;
use std::collections::HashSet;

/// The keys of a list, from its head on.
fn keys(store: &Store, class: ClassId, segment: Segment) -> Vec<Vec<u8>> {
    let ids = store.lru.first_of(&store.items, class, segment, usize::MAX);
    ids.into_iter().map(|id| store.items.at(id).key().to_vec()).collect()
}

fn all_lists(store: &Store) -> Vec<Vec<Vec<u8>>> {
    let of_class = |class| Segment::ALL.map(|segment| keys(store, class, segment));
    store.slabs.ids().flat_map(of_class).collect()
}

fn save(mut store: Store) -> Vec<u8> {
    let header = Header { nonce: 77, ..store.image_facts() };
    let image = Mutex::new(Writer::new(Vec::new(), &header).expect("memory"));
    store.save(&image).expect("memory");
    // The store has returned all memory: no page has an item left.
    for class in store.slabs.ids() {
        for &page in store.slabs.pages_of(class) {
            let items: Vec<_> = store.slabs.chunks(page, &store.items).map(|id| store.items.chunk(id)).collect();
            assert!(items.iter().all(|&chunk| chunk == super::super::item::Chunk::Free) || cfg!(miri));
        }
    }
    image.into_inner().finish().expect("memory").0
}

fn load(bytes: &[u8], store: Store, now: u32) -> (Store, Loaded) {
    let mut reader = Reader::new(bytes).expect("an image");
    let hasher = store.hasher.clone();
    let mut loader = Loader::new(store, &reader.header(), Now(now));
    let mut block = Block::default();
    loop {
        reader.next(&mut block).expect("a block");
        let (kind, payload) = block.check().expect("what was written");
        if kind == Kind::End {
            assert!(reader.at_end().expect("memory"));
            return loader.finish();
        }
        let mut at = 0;
        while at < payload.len() {
            let (item, next) = record(payload, at, kind).expect("a record");
            loader.load(&[hasher.hash(item.key)], |_| Ok(item)).expect("an item");
            at = next;
        }
    }
}

fn item<'a>(store: &'a mut Store, key: &[u8]) -> Item<'a> {
    let hash = store.hasher.hash(key);
    let entry = store.find(hash, key).expect("it was stored");
    store.item(entry.id)
}

/// Stores items of several classes. Between the sets, it gets some items and runs housekeeping.
fn live(store: &mut Store, items: u64, seed: u64) {
    let mut random = Random(seed);
    for number in 0..items {
        let len = [10, 100, 700][random.below(3) as usize];
        store.set(format!("key-{number}").as_bytes(), &vec![number as u8; len], NEVER).expect("memory");
        for _ in 0..3 {
            store.get(format!("key-{}", random.below(number + 1)).as_bytes());
        }
        if number % 4 == 0 {
            store.housekeep(4, true);
        }
        if number % 100 == 0 {
            store.set_now(Now(store.now().0 + 1));
        }
    }
}

#[test]
fn lists_come_back_as_they_were() {
    for seed in 1..4 {
        let mut before = store(16, StoreOptions::default());
        live(&mut before, 2500, seed);
        let (lists, facts, now) = (all_lists(&before), before.image_facts(), before.now().0);
        let used = lists.iter().filter(|list| !list.is_empty());
        assert!(
            used.clone().count() >= 8 && used.clone().all(|list| list.len() <= 1024),
            "seed {seed}: too few lists to tell"
        );
        let (mut after, loaded) = load(&save(before), store(16, StoreOptions::default()), now);
        after.validate();
        assert_eq!(loaded, Loaded { items: 2500, expired: 0, dropped: 0 });
        assert!(all_lists(&after) == lists, "seed {seed}: other lists than before");
        assert_eq!(after.image_facts(), Header { last_cas: after.last_cas, ..facts });
        // The store still works: it serves requests, and can be saved again.
        live(&mut after, 3000, seed + 10);
        after.validate();
        save(after);
    }
}

#[test]
fn long_lists_come_back_nearly_as_they_were() {
    let count = 20_000;
    let mut before = store(16, StoreOptions::default());
    for number in 0..count {
        before.set(format!("key-{number:05}").as_bytes(), &[1; 20], NEVER).expect("memory");
    }
    // All items in one list, in another order than in the pages.
    for number in 0..count {
        let key = format!("key-{number:05}");
        let entry = before.find(before.hasher.hash(key.as_bytes()), key.as_bytes()).expect("it was set");
        let class = before.class_of(entry.id);
        before.relist(class, entry.id, Segment::Hot);
    }
    let mut random = Random(5);
    for _ in 0..10_000 {
        let key = format!("key-{:05}", random.below(count));
        let entry = before.find(before.hasher.hash(key.as_bytes()), key.as_bytes()).expect("it was set");
        let class = before.class_of(entry.id);
        before.relist(class, entry.id, Segment::Hot);
    }
    let place_of = |store: &Store| {
        let list = all_lists(store).into_iter().max_by_key(Vec::len).expect("there are lists");
        assert_eq!(list.len() as u64, count);
        let mut places: Vec<_> = list.into_iter().enumerate().map(|(place, key)| (key, place)).collect();
        places.sort();
        places
    };
    let then = place_of(&before);
    let (after, _) = load(&save(before), store(16, StoreOptions::default()), 2);
    after.validate();
    let now = place_of(&after);
    let furthest = then.iter().zip(&now).map(|(then, now)| then.1.abs_diff(now.1)).max();
    assert!(furthest <= Some(count as usize / 1024 + 1), "an item is {furthest:?} places from where it was");
}

#[test]
fn a_smaller_store_drops_the_coldest_items_of_each_class() {
    let mut before = store(16, StoreOptions::default());
    live(&mut before, 36_000, 9);
    let (then, now) = (all_lists(&before), before.now().0);
    let (mut after, loaded) = load(&save(before), store(6, StoreOptions::default()), now);
    after.validate();
    assert_eq!(loaded.items + loaded.dropped, 36_000);
    assert!((18_000..30_000).contains(&loaded.items), "{loaded:?}");
    let mut cut = 0;
    for (then, now) in then.chunks(4).zip(all_lists(&after).chunks(4)) {
        let (then_all, now_all): (usize, usize) = (then.iter().map(Vec::len).sum(), now.iter().map(Vec::len).sum());
        assert!(now_all * 5 >= 2 * then_all, "{then_all} items of a class, {now_all} were kept");
        // The store keeps the first items of the joined lists, from WARM's head to COLD's tail.
        let order = |lists: &[Vec<Vec<u8>>]| [3, 1, 0, 2].map(|segment| lists[segment].clone()).concat();
        let (then, now) = (order(then), order(now));
        let slack = 2 + now.len() / 500;
        let survivors: HashSet<_> = now.iter().collect();
        let expected = &then[..now.len().saturating_sub(slack)];
        let lost = expected.iter().filter(|key| !survivors.contains(key)).count();
        assert!(lost <= slack, "{lost} of the {} that were worth most are gone", expected.len());
        cut += usize::from(now.len() < then.len());
    }
    assert!(cut > 1, "few classes were cut: the test shows nothing");
    live(&mut after, 3000, 10);
    after.validate();
}

#[test]
fn a_planned_flush_takes_effect_after_loading() {
    for (now, survives) in [(40, true), (50, false), (60, false)] {
        let mut before = store(4, StoreOptions::default());
        before.set(b"key", b"value", NEVER).expect("memory");
        before.flush_at(Now(50));
        let (mut after, _) = load(&save(before), store(4, StoreOptions::default()), now);
        after.set_now(Now(now));
        assert_eq!(after.get(b"key").is_some(), survives, "at {now}");
        after.set(b"new", b"value", NEVER).expect("memory");
        after.set_now(Now(70));
        assert_eq!(after.get(b"new").is_some(), !survives, "after the flush, at {now}");
    }
}

#[test]
fn a_flush_just_after_loading_kills_all_items() {
    let mut before = store(4, StoreOptions::default());
    before.flush_at(Now(2));
    // The flush spares this item, because it is stored in the same second.
    before.set(b"key", b"value", NEVER).expect("memory");
    let (mut after, loaded) = load(&save(before), store(4, StoreOptions::default()), 2);
    assert_eq!(loaded.items, 1);
    after.flush_at(Now(2));
    assert!(after.get(b"key").is_none());
}

#[test]
fn cas_values_continue_after_loading() {
    for chosen in [1000, u64::MAX] {
        let mut before = store(4, StoreOptions::default());
        before.set(b"key", b"value", NEVER).expect("memory");
        let last = (0..10).map(|_| before.next_cas()).last();
        item(&mut before, b"key").set_cas(chosen);
        let (mut after, _) = load(&save(before), store(4, StoreOptions::default()), 2);
        assert_eq!(item(&mut after, b"key").cas(), chosen);
        assert_eq!(Some(after.next_cas()), last.map(|last| last + 1));
    }
}

#[test]
fn cas_values_continue_after_an_image_with_a_wrong_one() {
    let without = StoreOptions { cas: false, ..StoreOptions::default() };
    let mut before = store(4, without);
    for key in [b"one", b"two"] {
        before.set(key, b"value", NEVER).expect("memory");
    }
    before.last_cas = u64::MAX;
    let (mut after, _) = load(&save(before), store(4, StoreOptions::default()), 2);
    let mut values = [b"one", b"two"].map(|key| item(&mut after, key).cas());
    values.sort_unstable();
    let [one, two] = values;
    assert!(0 < one && one < two && two < after.next_cas());
}

#[test]
fn a_stream_that_fails_is_an_error() {
    struct Narrow(usize);
    impl io::Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.0);
            self.0 -= count;
            if count == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(count) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut results = [0, 0];
    for room in (0..700_000).step_by(9000) {
        let mut store = store(8, StoreOptions::default());
        live(&mut store, 1000, 3);
        store.set(b"long", &vec![1; 1_500_000], NEVER).expect("memory");
        let image = Writer::new(Narrow(room * 4), &store.image_facts());
        let saved = image.and_then(|image| {
            let image = Mutex::new(image);
            store.save(&image).and_then(|()| image.into_inner().finish().map(|_| ()))
        });
        results[usize::from(saved.is_ok())] += 1;
    }
    assert!(results[0] > 5 && results[1] > 5, "{results:?}");
}

#[test]
fn records_that_cannot_be_are_refused() {
    let item = |key_len: u8, value_len: u32, rest: usize| {
        let mut bytes = vec![0; RECORD_LEN + rest];
        bytes[..4].copy_from_slice(&value_len.to_le_bytes());
        bytes[12] = key_len;
        bytes
    };
    for (bytes, kind, fits) in [
        (item(3, 4, 7), Kind::Items, true),
        (item(3, 4, 6), Kind::Items, false),
        (item(3, 4, 6), Kind::ItemsAndMore, true),
        (item(3, u32::MAX, 6), Kind::ItemsAndMore, true),
        (item(0, 4, 7), Kind::Items, false),
        (item(251, 0, 300), Kind::Items, false),
        (item(9, 0, 8), Kind::ItemsAndMore, false),
        (vec![0; RECORD_LEN - 1], Kind::Items, false),
    ] {
        assert_eq!(record(&bytes, 0, kind).is_ok(), fits, "{bytes:?} {kind:?}");
    }
}

/// Compares an image with the picture at the top of the module, byte by byte.
#[test]
fn the_layout_is_what_the_picture_says() {
    let mut store = store(4, StoreOptions::default());
    store.set_now(Now(100));
    let id = store.set(b"key", b"value", 150).expect("memory");
    store.items.at(id).set_cas(0x0102);
    store.last_cas = 0x0304;
    let bytes = save(store);
    assert_eq!(bytes[..8], MAGIC);
    assert_eq!(bytes[8..16], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((bytes[16], bytes[24], bytes[40], bytes[41]), (77, 100, 4, 3));
    let block = &bytes[HEADER_LEN..];
    assert_eq!((u32_at(block, 0), u16_at(block, 4), u64_at(block, 8)), (RECORD_LEN as u32 + 8, 1, 0));
    let record = &block[BLOCK_HEADER_LEN..];
    assert_eq!((u32_at(record, 0), u32_at(record, 4), u32_at(record, 8), record[12]), (5, 150, 100, 3));
    assert_eq!((u64_at(record, 20), &record[RECORD_LEN..RECORD_LEN + 8]), (0x0102, &b"keyvalue"[..]));
    let end = &record[RECORD_LEN + 8..];
    assert_eq!((u32_at(end, 0), u16_at(end, 4), u64_at(end, 8), end.len()), (8, 4, 1, BLOCK_HEADER_LEN + END_LEN));
    assert_eq!(u64_at(end, BLOCK_HEADER_LEN), 1);
}
