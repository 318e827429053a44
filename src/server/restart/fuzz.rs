//! Loads images of arbitrary bytes with correct checksums. Whatever the image contains, the loader must not panic, must
//! not use more memory than its limit, and must leave stores that work like any others.

use super::*;
use crate::clock::NEVER;
use crate::fuzz::Bytes;
use crate::store::StoreOptions;
use crate::store::arena::{Arena, PAGE_SIZE_MAX};
use crate::store::budget::Budget;
use crate::store::item::Items;
use crate::store::slab::{CHUNK_MAX, SlabOptions};
use crate::store::walk::Place;
use std::collections::HashMap;

/// Pages of all shards together.
const PAGES: u32 = 6;

/// The settings of the server that loads the image.
#[derive(Clone)]
struct Start {
    shards: usize,
    options: StoreOptions,
    item_size_max: u32,
    ports: u32,
    hasher: KeyHasher,
}

/// The items of stores: value, client flags, exptime and state by key.
type Seen = HashMap<Vec<u8>, (Vec<u8>, u32, u32, u8)>;

/// Runs one input: five bytes of settings, then an image. It panics if it finds a fault.
pub fn run(input: &[u8]) {
    let mut input = Bytes(input);
    let switches = input.byte();
    let shards = 1 + input.below(3);
    let start = Start {
        shards,
        options: StoreOptions {
            cas: switches & 1 == 0,
            evict: switches & 2 == 0,
            slabs: SlabOptions { chunk_max: input.one_of(&[CHUNK_MAX, 512, 2048, 8192]), ..SlabOptions::default() },
            hash_power: 4,
            ..StoreOptions::default()
        },
        item_size_max: input.one_of(&[1 << 20, 1 << 30, 1024, 3 << 20]),
        ports: if switches & 4 == 0 { 0 } else { shards as u32 },
        hasher: KeyHasher::seeded(3),
    };
    let later = u32::from(input.byte());
    let mut image = input.0.to_vec();
    if switches & 8 == 0 {
        super::image::fuzz::mend(&mut image, switches & 32 == 0);
    }
    let Ok(reader) = Reader::new(&image[..]) else { return };
    let Header { clock, flush_at, .. } = reader.header();
    let now = Clock::from_count(Now(clock.saturating_add(later))).now();
    let Some((mut stores, loaded)) = start.load(reader, now) else { return };
    let there: u64 = stores.iter().map(|store| store.snapshot().curr_items).sum();
    // A flush whose time has come removes items.
    let flushed = flush_at != 0 && flush_at <= now.0;
    assert!(there == loaded.items || flushed && there < loaded.items, "not as many as were counted");
    stores.iter_mut().for_each(Store::validate_at_rest);
    let seen = see(&mut stores);
    // A server must be able to save and load these items once more without a loss.
    let flush_at = stores.iter().map(|store| store.image_facts().flush_at).max().unwrap_or_default();
    let mut stores = if switches & 16 == 0 {
        let image = start.save(stores);
        let reader = Reader::new(&image[..]).expect("an image that was written");
        let (mut stores, again) = start.load(reader, now).expect("an image that was written");
        assert_eq!((again.expired, again.items + again.dropped), (0, seen.len() as u64));
        stores.iter_mut().for_each(Store::validate_at_rest);
        let after = see(&mut stores);
        assert!(after.iter().all(|(key, item)| seen.get(key) == Some(item)), "an item has changed");
        assert_eq!(flush_at, stores.iter().map(|store| store.image_facts().flush_at).max().unwrap_or_default());
        stores
    } else {
        stores
    };
    use_them(&mut stores, &start, now);
}

impl Start {
    fn load(&self, reader: Reader<&[u8]>, now: Now) -> Option<(Vec<Store>, Loaded)> {
        let arena = Arc::new(Arena::reserve(PAGES, PAGE_SIZE_MAX).expect("address space"));
        let budget = Arc::new(Budget::new(PAGES, self.shards, &arena));
        let items = Items::new(arena, self.options.cas);
        let store = |number| {
            let (options, items, budget) = (self.options.clone(), items.clone(), Arc::clone(&budget));
            Store::new(number, options, items, budget, self.hasher.clone()).expect("address space")
        };
        let limits = Limits { item_size_max: self.item_size_max, cas: self.options.cas, inline_max: 64 };
        let rules = Rules { hasher: &self.hasher, limits, ports: self.ports, threads: 1 };
        let image = Image { path: PathBuf::new(), reader, found: Instant::now() };
        let _ = image.clock();
        let stores = (0..self.shards).map(store).collect();
        let loaded = image.load_all(stores, now, rules).ok();
        assert!(budget.limit() - budget.free() <= PAGES);
        loaded
    }

    fn save(&self, mut stores: Vec<Store>) -> Vec<u8> {
        let mut header = Header { ports: self.ports, nonce: 5, clock: stores[0].now().0, ..Header::default() };
        for store in &stores {
            let facts = store.image_facts();
            header.flush_at = header.flush_at.max(facts.flush_at);
            header.last_cas = header.last_cas.max(facts.last_cas);
            header.items += facts.items;
        }
        let image = Mutex::new(image::Writer::new(Vec::new(), &header).expect("memory"));
        stores.iter_mut().for_each(|store| store.save(&image).expect("memory"));
        image.into_inner().finish().expect("memory").0
    }
}

/// Reads all items of the stores.
fn see(stores: &mut [Store]) -> Seen {
    let mut seen = Seen::new();
    for store in stores {
        let mut place = Some(Place::default());
        while let Some(from) = place {
            place = store.walk(
                from,
                1000,
                |_| true,
                |store, id| {
                    let item = store.item(id);
                    assert!(item.exptime() == NEVER || item.exptime() > store.now().0, "it is dead");
                    assert!(store.last_access(id) <= store.now(), "it was used in the future");
                    let what = (store.items().value_to_vec(id), item.client_flags(), item.exptime(), item.state() & !3);
                    assert!(seen.insert(item.key().to_vec(), what).is_none(), "a key is there twice");
                    true
                },
            );
        }
    }
    seen
}

/// Acts as clients would: it stores items, so that old items are evicted, and time passes.
fn use_them(stores: &mut [Store], start: &Start, now: Now) {
    let filler = vec![b'f'; 200_000];
    for step in 0..40_u32 {
        let key = format!("new-{step}").into_bytes();
        let hash = start.hasher.hash(&key);
        let shards = stores.len();
        let store = &mut stores[hash::shard(hash, shards)];
        let len = [10, 900, 5000, 200_000][step as usize % 4];
        if let Ok(id) = store.put(hash, &key, 0, NEVER, &filler[..len], None) {
            assert_eq!(store.find(hash, &key).map(|entry| entry.id), Ok(id));
            let cas = store.next_cas();
            store.item(id).set_cas(cas);
        }
        if step % 10 == 9 {
            let later = Now(now.0.saturating_add(step));
            for store in &mut *stores {
                store.set_now(later);
                for _ in 0..20 {
                    store.housekeep(200, true);
                }
            }
        }
    }
    stores.iter_mut().for_each(Store::validate_at_rest);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_holds() {
        crate::fuzz::replay("image", super::run);
    }
}
