//! Stores that are frozen and thawed.

#![cfg(not(miri))]

use super::*;
use crate::clock::{NEVER, Now};
use crate::store::arena::PAGE_SIZE_MIN;
use crate::store::flushed::Flush;
use crate::store::slab::SlabOptions;
use crate::store::tests::Random;
use crate::store::tuning::{AutomoveTuning, Tuning};
use std::os::fd::AsFd;

const PAGE: usize = PAGE_SIZE_MIN;
const FACTS: Facts = Facts { clock: 100, unix_millis: 7_000, ports: 0, item_size_max: 1 << 20 };

fn options() -> StoreOptions {
    let automove = AutomoveTuning { level: 0, ..AutomoveTuning::default() };
    StoreOptions { hash_power: 7, tuning: Tuning { automove, ..Tuning::default() }, ..StoreOptions::default() }
}

/// Stores with `limit` pages, in a file or not. The memory has room for 200 pages.
fn stores(count: usize, limit: u32, in_file: bool) -> Vec<Store> {
    let arena = match in_file {
        true => Arena::reserve_in(Arc::new(Memfd::create().expect("a file")), 0, 200, PAGE),
        false => Arena::reserve_up_to(0, 200, PAGE),
    };
    let arena = Arc::new(arena.expect("address space"));
    let budget = Arc::new(Budget::new(limit, count, &arena));
    let items = Items::new(arena, true);
    let store = |number| {
        Store::new(number, options(), items.clone(), Arc::clone(&budget), KeyHasher::seeded(3)).expect("address space")
    };
    (0..count).map(store).collect()
}

fn wanted(options: &StoreOptions) -> Wanted<'_> {
    let limit_bytes = 40 * PAGE as u64;
    Wanted { options, shards: 1, limit_bytes, page_size: PAGE, reach: usize::MAX, item_size_max: 1 << 20 }
}

fn frozen(mut stores: Vec<Store>, facts: Facts) -> OwnedFd {
    let memfd = freeze(&mut stores.iter_mut().collect::<Vec<_>>(), facts).expect("a file");
    memfd.as_fd().try_clone_to_owned().expect("a descriptor")
}

fn thawed(fd: OwnedFd, limit: u32) -> Vec<Store> {
    let kept = Kept::claim(fd).expect("frozen memory");
    let stores = kept.thaw(&options(), u64::from(limit) * PAGE as u64).expect("sound roots").stores;
    stores.iter().for_each(Store::validate);
    stores
}

fn set(store: &mut Store, key: &str, value: &[u8], deadline: u32) -> bool {
    let hash = store.hasher.hash(key.as_bytes());
    let old = store.find(hash, key.as_bytes()).ok().map(|entry| entry.id);
    let Ok(id) = store.put(hash, key.as_bytes(), 5, deadline, value, old) else { return false };
    let cas = store.next_cas();
    store.item(id).set_cas(cas);
    true
}

/// The value, the flags, the CAS unique, the deadline and the idle time of an item.
type Seen = (Vec<u8>, u32, u64, u32, u32);

fn get(store: &mut Store, key: &str) -> Option<Seen> {
    let hash = store.hasher.hash(key.as_bytes());
    let id = store.find(hash, key.as_bytes()).ok()?.id;
    let idle = store.idle_seconds(id);
    let item = store.hit(id);
    let (flags, cas, exptime) = (item.client_flags(), item.cas(), item.exptime());
    Some((store.items.value_to_vec(id), flags, cas, exptime, idle))
}

/// One step of a history, the same for each of the stores. All must give the same answer.
fn step(random: &mut Random, now: &mut u32, stores: [&mut Store; 2]) {
    let key = format!("{}:{}", random.below(9), random.below(150));
    let (kind, detail, len) = (random.below(40), random.below(1000) as usize, random.below(1200) as usize);
    let len = if detail < 30 { len * 40 } else { len };
    let value: Vec<u8> = (0..len).map(|at| (at * 7 + detail) as u8).collect();
    *now += u32::from(kind == 39);
    let [one, other] = stores.map(|store| match kind {
        0..20 => {
            let deadline = if detail.is_multiple_of(3) { *now + 1 + detail as u32 % 60 } else { NEVER };
            set(store, &key, &value, deadline).to_string()
        }
        20..35 => format!("{:?}", get(store, &key)),
        35 => {
            let hash = store.hasher.hash(key.as_bytes());
            let found = store.find(hash, key.as_bytes()).ok();
            found.inspect(|&entry| store.remove(entry)).is_some().to_string()
        }
        36 if detail < 20 => {
            store.flush_at(Now(*now + detail as u32 % 3));
            String::new()
        }
        37 if detail < 300 => {
            let flush = if detail.is_multiple_of(2) { Flush::Kill } else { Flush::Stale };
            format!("{:?}", store.flush_prefix(&key.as_bytes()[..2], flush))
        }
        39 => {
            store.set_now(Now(*now));
            String::new()
        }
        _ => store.housekeep(20, true).to_string(),
    });
    assert_eq!(one, other, "step {kind} {detail} of {key}");
}

#[test]
fn a_store_that_was_frozen_goes_on_like_its_twin() {
    let mut random = Random(5);
    let mut now = 2;
    let mut twin = stores(1, 60, false).remove(0);
    let mut store = stores(1, 60, true).remove(0);
    for round in 0..20 {
        for _ in 0..1500 {
            step(&mut random, &mut now, [&mut twin, &mut store]);
        }
        assert_eq!(twin.index.len(), store.index.len(), "round {round}");
        // The twin does what a stop does as well.
        twin.set_now(Now(now));
        assert!(twin.come_to_rest());
        let (bytes, last_cas) = (store.bytes, store.last_cas);
        store = thawed(frozen(vec![store], Facts { clock: now, ..FACTS }), 60).remove(0);
        assert_eq!((store.bytes, store.last_cas, store.now), (bytes, last_cas, now));
        assert_eq!(store.counters.total_items, store.index.len() as u64);
        for number in 0..9 * 150 {
            let key = format!("{}:{}", number / 150, number % 150);
            assert_eq!(get(&mut twin, &key), get(&mut store, &key), "round {round}: {key}");
        }
    }
    let evicted: u64 = twin.snapshot().classes.iter().map(|class| class.counters.evicted).sum();
    assert!(evicted > 400, "only {evicted} evictions: the policy was hardly compared");
    store.validate_at_rest();
}

#[test]
fn what_clients_left_behind_is_freed() {
    let mut store = stores(1, 60, true).remove(0);
    for number in 0..300 {
        assert!(set(&mut store, &format!("key-{number}"), &[7; 900], NEVER));
    }
    assert!(set(&mut store, "long", &vec![1; 60_000], NEVER));
    // Two values that clients have not sent to their end, one item that is read, and one that was deleted meanwhile.
    for (key, len) in [("a", 500), ("b", 50_000)] {
        store.allocate(key.as_bytes(), 0, len).expect("room");
    }
    for key in ["key-1", "long"] {
        let hash = store.hasher.hash(key.as_bytes());
        let entry = store.find(hash, key.as_bytes()).expect("it is there");
        store.pin(entry.id);
        if key == "long" {
            store.remove(entry);
        }
    }
    let mut store = thawed(frozen(vec![store], FACTS), 60).remove(0);
    store.validate_at_rest();
    assert_eq!(store.index.len(), 300);
    assert_eq!(get(&mut store, "key-1").map(|seen| seen.0), Some(vec![7; 900]));
}

#[test]
fn memory_is_claimed_once_and_only_after_a_clean_stop() {
    let mut all = stores(2, 40, true);
    assert!(set(&mut all[1], "key", b"value", NEVER));
    let memfd = Arc::clone(all[0].items.arena().memfd().expect("a file"));
    let descriptor = || memfd.as_fd().try_clone_to_owned().expect("a descriptor");
    assert!(matches!(Kept::claim(descriptor()), Err(Refusal::Unclean)), "it serves");
    let fd = frozen(all, FACTS);
    let kept = Kept::claim(fd).expect("frozen memory");
    assert!(matches!(Kept::claim(descriptor()), Err(Refusal::Unclean)), "another server has it");
    assert_eq!((kept.facts(), kept.item_count()), (FACTS, 1));
    let mut all = kept.thaw(&options(), 40 * PAGE as u64).expect("sound roots").stores;
    assert_eq!(get(&mut all[1], "key").map(|seen| seen.0), Some(b"value".to_vec()));
    assert!(matches!(Kept::claim(descriptor()), Err(Refusal::Unclean)), "it serves again");
    // It can be frozen as often as servers stop.
    for _ in 0..3 {
        all = thawed(frozen(all, FACTS), 40);
    }
    assert_eq!(get(&mut all[1], "key").map(|seen| seen.0), Some(b"value".to_vec()));
}

#[test]
fn memory_that_has_changed_is_refused() {
    let filled = || {
        let mut store = stores(1, 40, true).remove(0);
        for number in 0..500 {
            assert!(set(&mut store, &format!("key-{number}"), &[1; 100], 500));
        }
        store
    };
    let fd = frozen(vec![filled()], FACTS);
    let memfd = Memfd::from_fd(fd.try_clone().expect("a descriptor")).expect("such a file");
    let label = Label::read(&memfd).expect("a label");
    let roots = label.roots(&memfd).expect("roots");
    drop((memfd, fd));
    let mut places: Vec<u64> = (8..48).collect();
    places.extend((0..roots.len() as u64).step_by(37).map(|at| label.end + at));
    for place in places {
        let fd = frozen(vec![filled()], FACTS);
        let memfd = Memfd::from_fd(fd.try_clone().expect("a descriptor")).expect("such a file");
        let mut byte = [0];
        memfd.read(&mut byte, place).expect("a byte");
        memfd.write(&[byte[0] ^ 16], place).expect("room");
        let refused = Kept::claim(fd.try_clone().expect("a descriptor")).expect_err("it has changed");
        let expected = match place {
            8..16 => matches!(refused, Refusal::Foreign),
            16..24 => matches!(refused, Refusal::Layout),
            _ => matches!(refused, Refusal::Damaged(_)),
        };
        assert!(expected, "byte {place}: {refused}");
        // Whatever is refused as memory of a server is refused for ever.
        if place >= 16 {
            memfd.write(&byte, place).expect("room");
            assert!(matches!(Kept::claim(fd), Err(Refusal::Unclean)), "byte {place}");
        }
    }
}

#[test]
fn impossible_roots_are_refused_and_never_followed() {
    let mut random = Random(9);
    let mut refused = 0;
    for _ in 0..150 {
        let mut store = stores(1, 40, true).remove(0);
        for number in 0..400 {
            assert!(set(&mut store, &format!("key-{number}"), &[1; 300], 500));
        }
        let fd = frozen(vec![store], FACTS);
        let memfd = Memfd::from_fd(fd.try_clone().expect("a descriptor")).expect("such a file");
        let label = Label::read(&memfd).expect("a label");
        let mut roots = label.roots(&memfd).expect("roots");
        for _ in 0..=random.below(3) {
            let place = random.below(roots.len() as u64) as usize;
            roots[place] = random.below(256) as u8;
        }
        memfd.write(&roots, label.end).expect("room");
        Label::new(label.mark, label.end, &roots).write(&memfd).expect("room");
        let result = Kept::claim(fd).and_then(|kept| kept.thaw(&options(), 40 * PAGE as u64));
        refused += u32::from(result.is_err());
    }
    // Some roots are only statistics.
    assert!(refused * 3 > 150, "only {refused} were refused");
}

#[test]
fn other_files_are_refused() {
    let file = Memfd::create().expect("a file");
    let descriptor = |memfd: &Memfd| memfd.as_fd().try_clone_to_owned().expect("a descriptor");
    assert!(matches!(Kept::claim(descriptor(&file)), Err(Refusal::Foreign)), "it is empty");
    file.write(&[1; 100], 0).expect("room");
    assert!(matches!(Kept::claim(descriptor(&file)), Err(Refusal::Foreign)), "it has other bytes");
    let unsealed = nix::sys::memfd::memfd_create(c"other", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).expect("a file");
    assert!(matches!(Kept::claim(unsealed), Err(Refusal::Foreign)), "it is not sealed");
    let (reader, _writer) = io::pipe().expect("a pipe");
    assert!(matches!(Kept::claim(reader.into()), Err(Refusal::Foreign)), "it is no file");
}

#[test]
fn the_reasons_why_memory_does_not_fit_are_told() {
    let mut store = stores(1, 40, true).remove(0);
    assert!(set(&mut store, "a:b", b"1", NEVER) && store.flush_prefix(b"a:", Flush::Kill).is_ok());
    let kept = Kept::claim(frozen(vec![store], FACTS)).expect("frozen memory");
    let same = options();
    let reason = |change: &dyn Fn(&mut Wanted<'_>)| {
        let mut wanted = wanted(&same);
        change(&mut wanted);
        kept.misfit(wanted).unwrap_or("").to_owned()
    };
    assert_eq!(reason(&|_| {}), "");
    assert_eq!(reason(&|wanted| wanted.limit_bytes = 3 * PAGE as u64), "");
    assert_eq!(reason(&|wanted| wanted.limit_bytes = 200 * PAGE as u64), "");
    assert!(reason(&|wanted| wanted.limit_bytes = 201 * PAGE as u64).contains("-m"));
    assert!(reason(&|wanted| wanted.page_size *= 2).contains("-m"));
    assert!(reason(&|wanted| wanted.shards = 2).contains("-t"));
    assert!(reason(&|wanted| wanted.item_size_max -= 1).contains("-I"));
    assert!(reason(&|wanted| wanted.reach = 1 << 20).contains("-k"));
    let by_options = |change: &dyn Fn(&mut StoreOptions)| {
        let mut options = options();
        change(&mut options);
        kept.misfit(wanted(&options)).unwrap_or("").to_owned()
    };
    assert!(by_options(&|options| options.cas = false).contains("-C"));
    assert!(
        by_options(&|options| options.slabs = SlabOptions { growth_factor: 1.05, ..options.slabs.clone() })
            .contains("-f")
    );
    assert!(by_options(&|options| options.prefixes.delimiter = b'/').contains("-D"));
    assert_eq!(by_options(&|options| options.evict = false), "");
}

#[test]
fn the_limit_may_change() {
    let mut store = stores(1, 40, true).remove(0);
    for number in 0..2000 {
        assert!(set(&mut store, &format!("key-{number}"), &[1; 500], NEVER));
    }
    let items = store.index.len();
    // With more memory everything stays, and more comes in.
    let mut store = thawed(frozen(vec![store], FACTS), 100).remove(0);
    assert_eq!((store.index.len(), store.budget.limit()), (items, 100));
    for number in 2000..4000 {
        assert!(set(&mut store, &format!("key-{number}"), &[1; 500], NEVER));
    }
    assert!(store.index.len() > 2 * items);
    // With less memory, the store gives pages up in small steps.
    let mut store = thawed(frozen(vec![store], FACTS), 30).remove(0);
    assert!(store.budget.is_exceeded());
    for second in 101..400 {
        store.set_now(Now(second));
        for _ in 0..100 {
            store.housekeep(50, true);
        }
    }
    assert!(!store.budget.is_exceeded());
    store.validate();
    assert!(get(&mut store, "key-3999").is_some());
}

/// If this test fails, the layout of kept memory has changed: raise `VERSION` in `label.rs`, so that no server reads the
/// memory of another version as its own. Then write the new number here.
#[test]
#[cfg(all(target_arch = "x86_64", not(target_feature = "aes")))]
fn the_layout_has_a_version() {
    let mut random = Random(1);
    let mut store = stores(1, 60, true).remove(0);
    let mut twin = stores(1, 60, false).remove(0);
    let mut now = 2;
    (0..4000).for_each(|_| step(&mut random, &mut now, [&mut twin, &mut store]));
    let fd = frozen(vec![store], Facts { clock: now, ..FACTS });
    let memfd = Memfd::from_fd(fd).expect("such a file");
    let label = Label::read(&memfd).expect("a label");
    let mut bytes = vec![0; label.end as usize];
    memfd.read(&mut bytes[PAGE..], PAGE as u64).expect("its arena and its buckets");
    let roots = label.roots(&memfd).expect("roots");
    let sums = (xxhash_rust::xxh3::xxh3_64(&bytes), xxhash_rust::xxh3::xxh3_64(&roots));
    assert_eq!(sums, (8_467_787_094_226_572_436, 10_088_082_292_413_119_963), "of version 1");
}
