//! Long values: the store makes and frees room for them in steps, and loses no memory.

use super::*;
use crate::store::gather::{Announced, Gathered, Gathering};
use crate::store::slab::SlabOptions;

/// Maximum number of chunks or items that one step may touch. It clears this many chunks of a page.
const STEP_MAX: u64 = 1200;
const STEPS_MAX: usize = 10_000;

/// A value whose bytes arrive in parts.
struct Upload {
    key: u64,
    len: usize,
    version: u64,
    wanted: usize,
    received: usize,
    so_far: Option<Gathering>,
}

fn full_of_small_items(pages: u32, options: StoreOptions) -> Store {
    let mut store = store(pages, StoreOptions { tuning: automove(0), ..options });
    for number in 0..u64::from(pages) * 20_000 {
        store.set(format!("small{number}").as_bytes(), &[1; 20], NEVER).expect("evicts");
    }
    assert!(evicted(&store) > 0, "it is full");
    store
}

fn evicted(store: &Store) -> u64 {
    store.snapshot().classes.iter().map(|class| class.counters.evicted).sum()
}

fn chunks_in_use(store: &Store) -> u64 {
    store.slabs.usage(store.slabs.largest()).used_chunks
}

fn announced(key: &[u8], value_len: usize) -> Announced<'_> {
    Announced { key, client_flags: 0, value_len }
}

fn long_value(len: usize, seed: u64) -> Vec<u8> {
    let mut value = vec![0; len];
    for (at, part) in value.chunks_mut(1000).enumerate() {
        part.fill((at as u64 * 3 + seed * 7) as u8);
    }
    value
}

/// The last chunk of a long value is of a smaller class only if that saves something: the smaller class may need a page
/// for it.
#[test]
fn a_last_chunk_of_nearly_the_largest_size_is_one_of_these() {
    let slabs = SlabOptions { sizes: Some(vec![1000, 12_000]), ..SlabOptions::default() };
    let mut store = store(4, StoreOptions { slabs, tuning: automove(0), ..StoreOptions::default() });
    let [small, nearly, largest] = [1, 2, 3].map(ClassId);
    let chunk = store.slabs.usage(largest).chunk_size as usize;
    assert_eq!((store.slabs.largest(), chunk), (largest, 12_192));
    for (key, last, pages) in [("k", 8000, [0, 0, 1]), ("l", 500, [1, 0, 1])] {
        let value = long_value(4 * chunk - 200 + last, 1);
        store.set(key.as_bytes(), &value, NEVER).expect("memory");
        assert_eq!([small, nearly, largest].map(|class| store.slabs.page_count(class)), pages, "{last}");
        assert!(store.get(key.as_bytes()) == Some(value));
    }
    assert_eq!(store.slabs.usage(largest).used_chunks, 5 + 4);
    store.validate();
}

impl Store {
    /// Makes room for a value. Calls `between` after each step.
    fn gather_all(
        &mut self,
        key: &[u8],
        len: usize,
        mut between: impl FnMut(&mut Store, usize),
    ) -> Result<ItemId, OutOfMemory> {
        let mut so_far = None;
        for step in 0..STEPS_MAX {
            match self.gather(announced(key, len), len, so_far)? {
                Gathered::Ready(gathering) => return Ok(gathering.item().expect("it is ready")),
                Gathered::Later(gathering) => so_far = Some(gathering),
            }
            between(self, step);
        }
        panic!("after {STEPS_MAX} steps there is still no room");
    }

    fn store_long(&mut self, key: &[u8], id: ItemId, value: &[u8]) {
        self.items.fill(self.items.value_cursor(id), value);
        self.link(id, self.hasher.hash(key), NEVER);
    }
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of thousands of items")]
fn a_long_value_makes_room_in_steps() {
    let mut store = full_of_small_items(16, StoreOptions::default());
    let (mut before, mut steps) = (evicted(&store), 0);
    let value = long_value(9 << 20, 1);
    let id = store.gather_all(b"long", value.len(), |store, step| {
        let gone = evicted(store) - before;
        assert!(gone <= STEP_MAX, "{gone} items went in step {step}");
        // The store serves other requests meanwhile.
        store.set(format!("other{step}").as_bytes(), &[2; 20], NEVER).expect("evicts");
        (before, steps) = (evicted(store), step);
    });
    assert!(steps > 100);
    store.validate();
    store.store_long(b"long", id.expect("room"), &value);
    assert!(store.get(b"long") == Some(value));
    assert!(store.get(format!("other{steps}").as_bytes()).is_some());
    store.validate();
    let outofmemory: u64 = store.snapshot().classes.iter().map(|class| class.counters.outofmemory).sum();
    assert_eq!(outofmemory, 0);
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of thousands of items")]
fn an_abandoned_value_frees_the_chunks_gathered_for_it() {
    let mut store = full_of_small_items(8, StoreOptions::default());
    let mut so_far: Option<Gathering> = None;
    while so_far.and_then(|gathering| gathering.item()).is_none() || chunks_in_use(&store) < 130 {
        match store.gather(announced(b"long", 6 << 20), 6 << 20, so_far).expect("room is on its way") {
            Gathered::Ready(_) => panic!("130 chunks are not enough"),
            Gathered::Later(gathering) => so_far = Some(gathering),
        }
    }
    store.validate();
    store.abandon(so_far.and_then(|gathering| gathering.item()).expect("it has begun"));
    (0..10).for_each(|_| {
        store.free_remains();
    });
    assert_eq!(chunks_in_use(&store), 0);
    store.validate();
}

#[test]
fn values_under_way_leave_pages_that_other_classes_can_take() {
    let mut store = store(16, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
    for number in 0..100 {
        let key = format!("long{number}").into_bytes();
        let id = store.gather_all(&key, 300_000, |_, _| {}).expect("it evicts");
        store.store_long(&key, id, &long_value(300_000, number));
    }
    // The uploads take a quarter of the memory. Earlier evictions freed their chunks, so the chunks lie on many pages.
    let uploads: Vec<Gathering> = (0..8)
        .map(|number| {
            let key = format!("upload{number}").into_bytes();
            match store.gather(announced(&key, 1 << 20), 400_000, None) {
                Ok(Gathered::Ready(gathering)) => gathering,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    store.validate();
    // Each of these sizes has a class of its own, which has no page.
    for len in [10, 100, 300, 1000, 3000, 10_000] {
        store.set(format!("small{len}").as_bytes(), &vec![1; len], NEVER).expect("a page can be emptied");
        store.validate();
    }
    uploads.iter().for_each(|upload| store.abandon(upload.item().expect("it has begun")));
    while store.free_remains() {}
    store.validate();
}

#[test]
fn a_value_that_is_waited_for_too_long_is_refused() {
    let mut store = store(4, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
    // All items are pinned, so no page can move.
    let pinned: Vec<ItemId> = (0..400)
        .map_while(|number| {
            let id = store.set(format!("k{number}").as_bytes(), &[1; 12_000], NEVER).ok()?;
            store.pin(id);
            Some(id)
        })
        .collect();
    let mut so_far = None;
    let mut seconds = 0;
    let refused = loop {
        match store.gather(announced(b"long", 2 << 20), 2 << 20, so_far) {
            Ok(Gathered::Ready(_)) => panic!("there is no room"),
            Ok(Gathered::Later(gathering)) => so_far = Some(gathering),
            Err(OutOfMemory) => break seconds,
        }
        seconds += 1;
        assert!(seconds < 60, "the value waits for ever");
        store.set_now(Now(store.now + 1));
    };
    assert!((10..60).contains(&refused), "after {refused} seconds");
    assert_eq!(chunks_in_use(&store), 0);
    pinned.into_iter().for_each(|id| store.unpin(id));
    assert!(store.gather_all(b"long", 2 << 20, |store, _| store.set_now(Now(store.now + 1))).is_ok());
    store.validate();
}

#[test]
fn a_long_item_is_freed_in_steps() {
    let mut store = store(12, StoreOptions { evict: false, ..StoreOptions::default() });
    let value = long_value(10 << 20, 2);
    for round in 0..3 {
        let id = store.gather_all(b"long", value.len(), |_, _| ()).expect("room");
        store.store_long(b"long", id, &value);
        let held = chunks_in_use(&store);
        let entry = store.find(store.hasher.hash(b"long"), b"long").expect("it was stored");
        store.remove(entry);
        assert!((1..200).contains(&(held - chunks_in_use(&store))));
        store.validate();
        // The next item finds this room, with housekeeping or without.
        if round == 1 {
            (0..store.housekeeping_round()).for_each(|_| {
                store.housekeep(64, true);
            });
            assert_eq!(chunks_in_use(&store), 0);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of megabytes are copied")]
fn long_values_agree_with_a_hash_map() {
    for seed in 1..4 {
        let mut store = store(24, StoreOptions { tuning: automove(0), ..StoreOptions::default() });
        let mut random = Random(seed);
        let mut model: Model<u64, (usize, u64)> = Model::new();
        let mut uploads: Vec<Upload> = Vec::new();
        let mut now = 2;
        for step in 0..2000_u64 {
            let key = random.below(12);
            let name = |key: u64| format!("long{key}").into_bytes();
            match random.below(10) {
                0 if uploads.len() < 3 => {
                    let len = (100_000 + random.below(5 << 20)) as usize;
                    let wanted = 1 + random.below(len as u64) as usize;
                    uploads.push(Upload { key, len, version: step, wanted, received: 0, so_far: None });
                }
                0..5 if !uploads.is_empty() => {
                    let at = random.below(uploads.len() as u64) as usize;
                    let Upload { key, len, version, wanted, received, so_far } = &mut uploads[at];
                    match store.gather(announced(&name(*key), *len), *wanted, *so_far) {
                        Ok(Gathered::Later(gathering)) => *so_far = Some(gathering),
                        Ok(Gathered::Ready(gathering)) => {
                            assert!(gathering.room() >= *wanted && gathering.room() <= *len);
                            let cursor = gathering.cursor(&store.items, *received);
                            assert_eq!(cursor.left(), gathering.room() - *received);
                            let value = long_value(*len, *version);
                            store.items.fill(cursor, &value[*received..gathering.room()]);
                            *received = gathering.room();
                            *so_far = Some(gathering);
                            if received < len {
                                *wanted = *received + 1 + random.below((*len - *received) as u64) as usize;
                            } else {
                                let id = gathering.item().expect("it is ready");
                                store.link(id, store.hasher.hash(&name(*key)), NEVER);
                                model.insert(*key, (*len, *version));
                                uploads.swap_remove(at);
                            }
                        }
                        Err(OutOfMemory) => drop(uploads.swap_remove(at)),
                    }
                }
                5 => {
                    if let Some(value) = store.get(&name(key)) {
                        let &(len, version) = model.get(&key).expect("it was stored");
                        assert!(value == long_value(len, version), "seed {seed} step {step}");
                    }
                }
                6 => {
                    if let Ok(entry) = store.find(store.hasher.hash(&name(key)), &name(key)) {
                        store.remove(entry);
                    }
                    model.remove(&key);
                }
                7 if !uploads.is_empty() && random.below(4) == 0 => {
                    let upload = uploads.swap_remove(random.below(uploads.len() as u64) as usize);
                    if let Some(id) = upload.so_far.and_then(|gathering| gathering.item()) {
                        store.abandon(id);
                    }
                }
                8 => {
                    if random.below(4) == 0 {
                        assert!(store.budget.set_limit(12 + random.below(12) as u32));
                    }
                    now += u32::from(random.below(10) == 0);
                    store.set_now(Now(now));
                    store.reassign(None, ClassId(random.below(10) as u8));
                    store.housekeep(64, true);
                }
                _ => {
                    for _ in 0..50 {
                        let key = format!("small{}", random.below(100_000));
                        store.set(key.as_bytes(), &value_of(4, 1), NEVER).expect("a class keeps a page");
                    }
                }
            }
            if step % 100 == 0 {
                store.validate();
            }
        }
        for upload in uploads {
            if let Some(id) = upload.so_far.and_then(|gathering| gathering.item()) {
                store.abandon(id);
            }
        }
        while store.free_remains() {}
        store.validate();
    }
}
