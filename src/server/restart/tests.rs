//! Compares images with a twin that knows their items: whole images, truncated images, and images with any byte
//! changed.

use super::*;
use crate::clock::NEVER;
use crate::store::StoreOptions;
use crate::store::arena::{Arena, PAGE_SIZE_MAX};
use crate::store::budget::Budget;
use crate::store::item::{ACTIVE, FETCHED, Items, KEY_BINARY, STALE, WON};
use crate::store::slab::SlabOptions;
use std::collections::HashMap;
use std::sync::Arc;

const MARKS: u8 = FETCHED | ACTIVE | STALE | WON | KEY_BINARY;
const NOW: u32 = 100;

/// Everything that a client can learn about an item.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    value: Vec<u8>,
    client_flags: u32,
    exptime: u32,
    cas: u64,
    marks: u8,
    last_access: u32,
}

type Twin = HashMap<Vec<u8>, Seen>;

fn stores(count: usize, pages: u32, options: &StoreOptions, hasher: &KeyHasher) -> Vec<Store> {
    let arena = Arc::new(Arena::reserve(pages, PAGE_SIZE_MAX).expect("address space"));
    let budget = Arc::new(Budget::new(pages, count, &arena));
    let items = Items::new(arena, options.cas);
    let store = |number| {
        Store::new(number, options.clone(), items.clone(), Arc::clone(&budget), hasher.clone()).expect("space")
    };
    (0..count).map(store).collect()
}

fn rules(hasher: &KeyHasher, item_size_max: u32, cas: bool) -> Rules<'_> {
    Rules { hasher, limits: Limits { item_size_max, cas, inline_max: 64 }, ports: 0, threads: 3 }
}

/// Stores items of every kind, and notes them in a twin.
fn fill(stores: &mut [Store], hasher: &KeyHasher, count: usize, len_max: usize, seed: u64) -> Twin {
    let mut state = seed;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    let mut twin = Twin::new();
    let mut cas = 0;
    let evicted = |store: &Store| store.snapshot().classes.iter().map(|class| class.counters.evicted).sum::<u64>();
    for number in 0..count {
        let mut key = format!("key-{number}-").into_bytes();
        key.resize(key.len() + below(100), b'k');
        let len = match below(100) {
            0 => below(len_max),
            1..5 => 0,
            5..25 => below(len_max.min(5000)),
            _ => below(len_max.min(200)),
        };
        let seen = Seen {
            value: (0..len).map(|at| (at as u64 ^ at as u64 >> 9 ^ number as u64 ^ seed) as u8).collect(),
            client_flags: if below(3) == 0 { below(1 << 32) as u32 } else { 0 },
            exptime: if below(3) == 0 { NOW + 1 + below(1000) as u32 } else { NEVER },
            cas: {
                cas += 1 + below(5) as u64;
                cas
            },
            marks: below(256) as u8 & MARKS,
            last_access: 2 + (number as u64 * u64::from(NOW - 2) / count as u64) as u32,
        };
        let hash = hasher.hash(&key);
        let shards = stores.len();
        let store = &mut stores[hash::shard(hash, shards)];
        store.set_now(crate::clock::Now(seen.last_access));
        let id = store.put(hash, &key, seen.client_flags, seen.exptime, &seen.value, None).expect("memory");
        store.item(id).change_state(seen.marks, MARKS);
        while store.next_cas() < cas {}
        store.item(id).set_cas(cas);
        if below(10) == 0 {
            // A deleted item must not come back.
            let entry = store.find(hash, &key).expect("it was put");
            store.remove(entry);
        } else {
            twin.insert(key, seen);
        }
    }
    stores.iter_mut().for_each(|store| store.set_now(Now(NOW)));
    assert_eq!(stores.iter().map(evicted).sum::<u64>(), 0, "the twin knows nothing of evictions");
    twin
}

fn see(store: &Store, id: crate::store::arena::ItemId) -> Seen {
    let item = store.item(id);
    Seen {
        value: store.items().value_to_vec(id),
        client_flags: item.client_flags(),
        exptime: item.exptime(),
        cas: item.cas(),
        marks: item.state() & MARKS,
        last_access: store.last_access(id).0,
    }
}

fn save(mut stores: Vec<Store>) -> Vec<u8> {
    let mut header = Header { nonce: 5, clock: NOW, ..Header::default() };
    for store in &stores {
        let facts = store.image_facts();
        header.last_cas = header.last_cas.max(facts.last_cas);
        header.items += facts.items;
    }
    let image = Mutex::new(image::Writer::new(Vec::new(), &header).expect("memory"));
    thread::scope(|scope| {
        for store in &mut stores {
            let image = &image;
            scope.spawn(move || store.save(image).expect("memory"));
        }
    });
    image.into_inner().finish().expect("memory").0
}

fn load(bytes: &[u8], stores: Vec<Store>, now: u32, rules: Rules<'_>) -> Result<(Vec<Store>, Loaded), Refusal> {
    let reader = Reader::new(bytes)?;
    Image { path: PathBuf::new(), reader, found: Instant::now() }.load_all(stores, Now(now), rules)
}

/// Compares stores with their twin. They must hold every item that is alive at `now`, and no other item. Each item must
/// be unchanged, except that stores without CAS values show 0. Returns the number of items.
fn compare(stores: &mut [Store], twin: &Twin, hasher: &KeyHasher, now: u32) -> u64 {
    let mut count = 0;
    let shards = stores.len();
    for (key, seen) in twin {
        let hash = hasher.hash(key);
        let store = &mut stores[hash::shard(hash, shards)];
        let alive = seen.exptime == NEVER || seen.exptime > now;
        let found = store.find(hash, key).ok().map(|entry| see(store, entry.id));
        let expected = alive.then(|| if store.options().cas { seen.clone() } else { Seen { cas: 0, ..seen.clone() } });
        assert!(found == expected, "{}", key.escape_ascii());
        count += u64::from(alive);
    }
    assert_eq!(stores.iter().map(|store| store.snapshot().curr_items).sum::<u64>(), count);
    count
}

#[test]
fn everything_comes_back_whatever_the_settings() {
    let default = StoreOptions::default();
    let coarse = StoreOptions {
        slabs: SlabOptions { growth_factor: 2.0, size_min: 200, chunk_max: 16 << 10, sizes: None },
        hash_power: 4,
        ..default.clone()
    };
    let no_cas = StoreOptions { cas: false, ..default.clone() };
    for (seed, from, to, options) in
        [(1, 1, 1, &default), (2, 1, 4, &default), (3, 4, 1, &coarse), (4, 3, 5, &no_cas), (5, 2, 2, &coarse)]
    {
        let (then, now) = (KeyHasher::seeded(seed), KeyHasher::seeded(seed + 100));
        let mut before = stores(from, 600, &default, &then);
        let twin = fill(&mut before, &then, 1200, 3_000_000, seed);
        let last_cas = twin.values().map(|seen| seen.cas).max().expect("there are items");
        let bytes = save(before);
        // Some time has passed.
        let later = NOW + 400;
        let rules = rules(&now, 128 << 20, options.cas);
        let loaded = load(&bytes, stores(to, 800, options, &now), later, rules);
        let (mut after, loaded) = loaded.unwrap_or_else(|refusal| panic!("seed {seed}: {refusal}"));
        let count = compare(&mut after, &twin, &now, later);
        assert_eq!(loaded, Loaded { items: count, expired: twin.len() as u64 - count, dropped: 0 }, "seed {seed}");
        assert!(count > 800 && loaded.expired > 60, "seed {seed}: too dull");
        assert!(after.iter_mut().all(|store| store.next_cas() > last_cas), "seed {seed}: CAS values would come again");
    }
}

#[test]
fn an_image_without_cas_gets_new_values() {
    let hasher = KeyHasher::seeded(1);
    let without = StoreOptions { cas: false, ..StoreOptions::default() };
    let mut before = stores(2, 100, &without, &hasher);
    let twin = fill(&mut before, &hasher, 200, 3000, 1);
    let bytes = save(before);
    let loaded = load(&bytes, stores(1, 100, &StoreOptions::default(), &hasher), NOW, rules(&hasher, 1 << 20, true));
    let (mut after, _) = loaded.expect("an image");
    let mut values: Vec<u64> = twin
        .keys()
        .map(|key| {
            let entry = after[0].find(hasher.hash(key), key).expect("it was saved");
            after[0].item(entry.id).cas()
        })
        .collect();
    values.sort_unstable();
    values.dedup();
    assert!(values.len() == twin.len() && values[0] > 0);
    assert!(after[0].next_cas() > values[values.len() - 1]);
}

#[test]
fn items_that_are_now_too_large_are_left_out() {
    let hasher = KeyHasher::seeded(1);
    let mut before = stores(1, 100, &StoreOptions::default(), &hasher);
    let twin = fill(&mut before, &hasher, 900, 2_500_000, 4);
    let bytes = save(before);
    let rules = rules(&hasher, 1 << 20, true);
    let fits =
        |(key, seen): &(&Vec<u8>, &Seen)| !rules.limits.too_large(key.len(), seen.client_flags, seen.value.len());
    let smaller: Twin = twin.iter().filter(fits).map(|(key, seen)| (key.clone(), seen.clone())).collect();
    let count = smaller.len() as u64;
    assert!(count < twin.len() as u64);
    let (mut after, loaded) =
        load(&bytes, stores(2, 200, &StoreOptions::default(), &hasher), NOW, rules).expect("an image");
    assert_eq!(compare(&mut after, &smaller, &hasher, NOW), count);
    assert_eq!(loaded, Loaded { items: count, expired: 0, dropped: twin.len() as u64 - count });
}

#[test]
fn with_less_memory_what_is_there_is_right() {
    let hasher = KeyHasher::seeded(1);
    for (seed, pages, count, len_max) in
        [(1, 1, 6000, 900_000), (2, 3, 6000, 900_000), (3, 60, 6000, 900_000), (4, 12, 80_000, 200)]
    {
        let mut before = stores(2, 400, &StoreOptions::default(), &hasher);
        let twin = fill(&mut before, &hasher, count, len_max, seed);
        let bytes = save(before);
        let to = stores(if pages < 30 { 1 } else { 3 }, pages, &StoreOptions::default(), &hasher);
        let (mut after, loaded) = load(&bytes, to, NOW, rules(&hasher, 1 << 20, true)).expect("an image");
        let mut kept = twin.clone();
        let shards = after.len();
        kept.retain(|key, _| {
            let hash = hasher.hash(key);
            after[hash::shard(hash, shards)].find(hash, key).is_ok()
        });
        compare(&mut after, &kept, &hasher, NOW);
        assert_eq!((loaded.items, loaded.dropped), (kept.len() as u64, (twin.len() - kept.len()) as u64));
        assert!(loaded.dropped > 0, "{pages} pages: too dull");
        let bytes_kept: usize = kept.values().map(|seen| seen.value.len()).sum();
        // Large items on few pages have many classes, and most of each page is empty.
        let enough = if len_max > 200 { 0 } else { pages as usize * PAGE_SIZE_MAX / 16 };
        assert!(bytes_kept >= enough, "{pages} pages: {bytes_kept} bytes were kept");
    }
}

/// Truncates or changes a small image at every byte, and an image with a value that spans blocks at some bytes.
#[test]
fn a_part_of_an_image_is_refused_and_so_is_a_changed_one() {
    let hasher = KeyHasher::seeded(1);
    let options = StoreOptions { hash_power: 4, ..StoreOptions::default() };
    let mut small = stores(2, 64, &options, &hasher);
    fill(&mut small, &hasher, 20, 80, 1);
    let mut long = stores(1, 64, &options, &hasher);
    fill(&mut long, &hasher, 5, 200, 2);
    let hash = hasher.hash(b"long");
    long[0].put(hash, b"long", 0, NEVER, &vec![7; BLOCK_MAX + 5000], None).expect("memory");
    let attempt = |bytes: &[u8]| {
        load(bytes, stores(1, 64, &options, &hasher), NOW, Rules { threads: 1, ..rules(&hasher, 16 << 20, true) })
    };
    for (bytes, step) in [(save(small), 1), (save(long), 49_999)] {
        attempt(&bytes).expect("the whole image is fine");
        for len in (0..bytes.len()).step_by(step) {
            assert!(attempt(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
        }
        for at in (0..bytes.len()).step_by(step) {
            let mut changed = bytes.clone();
            for bit in [1 << (at % 8), 0xff] {
                changed[at] = bytes[at] ^ bit;
                assert!(attempt(&changed).is_err(), "byte {at} of {}, bits {bit:#x}", bytes.len());
            }
        }
        assert!(attempt(&[&bytes[..], b"x"].concat()).is_err(), "something follows it");
    }
}

#[test]
fn blocks_of_another_image_are_refused() {
    let hasher = KeyHasher::seeded(1);
    let image = |nonce, len: u8| {
        let mut store = stores(1, 4, &StoreOptions::default(), &hasher);
        store[0].put(hasher.hash(b"key"), b"key", 0, NEVER, &[len; 100], None).expect("memory");
        let header = Header { nonce, clock: NOW, ..store[0].image_facts() };
        let image = Mutex::new(image::Writer::new(Vec::new(), &header).expect("memory"));
        store[0].save(&image).expect("memory");
        image.into_inner().finish().expect("memory").0
    };
    let (one, other) = (image(1, 7), image(2, 8));
    let mixed = [&one[..72], &other[72..]].concat();
    let attempt =
        |bytes: &[u8]| load(bytes, stores(1, 4, &StoreOptions::default(), &hasher), NOW, rules(&hasher, 1 << 20, true));
    assert!(attempt(&one).is_ok() && attempt(&other).is_ok());
    assert!(matches!(attempt(&mixed), Err(Refusal::Damaged(_))));
}

#[test]
fn other_files_and_other_versions_are_told_apart() {
    let header = |bytes: &[u8]| Reader::new(bytes).map(|_| ());
    for foreign in [&b""[..], b"hello", &[0; 4096], &[0xff; 100]] {
        assert!(matches!(header(foreign), Err(Refusal::Foreign)));
    }
    let mut bytes = save(stores(1, 4, &StoreOptions::default(), &KeyHasher::seeded(1)));
    assert!(header(&bytes).is_ok());
    bytes[8] = 9;
    assert!(matches!(header(&bytes), Err(Refusal::Version(9))));
}

#[test]
fn shards_with_ports_keep_their_keys() {
    let hasher = KeyHasher::seeded(1);
    let options = StoreOptions::default();
    let mut before = stores(3, 12, &options, &hasher);
    for (number, store) in before.iter_mut().enumerate() {
        // All ports have the same key, as if clients disagreed about the port of a key.
        store.put(hasher.hash(b"key"), b"key", 0, NEVER, format!("value {number}").as_bytes(), None).expect("memory");
    }
    let header = Header { ports: 3, clock: NOW, ..Header::default() };
    let image = Mutex::new(image::Writer::new(Vec::new(), &header).expect("memory"));
    before.iter_mut().for_each(|store| store.save(&image).expect("memory"));
    let bytes = image.into_inner().finish().expect("memory").0;
    let attempt = |count: usize, ports| {
        let reader = Reader::new(&bytes[..]).expect("a header");
        let rules = Rules { ports, ..rules(&hasher, 1 << 20, true) };
        let image = Image { path: PathBuf::new(), reader, found: Instant::now() };
        image.load(stores(count, 12, &options, &hasher), Now(NOW), rules)
    };
    let mut after = attempt(3, 3).expect("the same ports");
    for (number, store) in after.iter_mut().enumerate() {
        let entry = store.find(hasher.hash(b"key"), b"key").expect("it was saved");
        assert_eq!(see(store, entry.id).value, format!("value {number}").as_bytes());
    }
    assert!(attempt(2, 2).is_none() && attempt(3, 0).is_none());
}

#[test]
fn time_goes_on_while_nobody_serves() {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    for (before, written, least) in [
        (100, unix - 20_000, 120),
        (100, unix, 100),
        (100, unix + 50_000, 100),
        (100, 0, u32::MAX / 4),
        (u32::MAX, 0, i32::MAX as u32),
    ] {
        let header = Header { clock: before, unix_millis: written, ..Header::default() };
        let bytes = image::Writer::new(Vec::new(), &header).and_then(image::Writer::finish).expect("memory").0;
        let reader = Reader::new(&bytes[..]).expect("an image");
        let clock = Image { path: PathBuf::new(), reader, found: Instant::now() }.clock();
        let count = clock.now().0;
        let most = least.saturating_mul(2).min(i32::MAX as u32);
        assert!((least..=most).contains(&count), "{before}, {written}: {count}");
    }
}

#[test]
fn a_file_is_taken_once_by_one() {
    let folder = std::env::temp_dir().join(format!("corecached-restart-{}", std::process::id()));
    fs::create_dir(&folder).expect("a new folder");
    let path = folder.join("image");
    let file = MemoryFile::claim(&path).expect("it can be written");
    assert!(MemoryFile::claim(&path).is_err(), "two have it");
    assert!(file.take().expect("a folder").is_none());
    // A file that is not an image stays. `take` removes an image, whether a server can load it or not.
    fs::write(&path, b"precious").expect("a folder");
    assert!(file.take().expect("a folder").is_none() && path.exists());
    let image = image::Writer::new(Vec::new(), &Header::default()).and_then(image::Writer::finish).expect("memory").0;
    for (bytes, good) in [(&image[..], true), (&image[..40], false), (&[&image[..8], &[9; 80]].concat(), false)] {
        fs::write(&path, bytes).expect("a folder");
        assert_eq!((file.take().expect("a folder").is_some(), path.exists()), (good, false));
    }
    drop(file);
    assert!(MemoryFile::claim(&folder).is_err() && MemoryFile::claim(&folder.join("no/image")).is_err());
    MemoryFile::claim(&path).expect("nobody has it");
    fs::remove_dir_all(&folder).expect("it is ours");
}
