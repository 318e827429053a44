//! Flushes of prefixes.

use super::super::flushed::{FLUSHED_PREFIXES_MAX, Flush, PrefixRule, Refused};
use super::super::item::{STALE, WON};
use super::*;

fn prefixed() -> Store {
    let prefixes = PrefixRule { parts_max: 2, ..PrefixRule::default() };
    let mut store = store(8, StoreOptions { prefixes, ..StoreOptions::default() });
    store.set_now(Now(100));
    store
}

/// Housekeeping for so long that each chunk is searched once or more.
fn sweep(store: &mut Store) {
    for _ in 0..4 * store.housekeeping_round() {
        store.housekeep(100_000, true);
    }
}

#[test]
fn a_key_has_its_first_parts_as_prefixes() {
    let rule = PrefixRule { delimiter: b':', parts_max: 2 };
    let prefixes = |key: &'static str| -> Vec<_> {
        rule.prefixes_of(key.as_bytes()).map(|prefix| std::str::from_utf8(prefix).expect("text")).collect()
    };
    assert_eq!(prefixes("user:42:name:x"), ["user:", "user:42:"]);
    assert_eq!(prefixes("user"), [""; 0]);
    assert_eq!(prefixes(":x"), [":"]);
    for (text, expected) in [("user:", true), ("user:42:", true), ("user:42:x:", false), ("user", false), ("", false)] {
        assert_eq!(rule.is_prefix(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn prefixes_of_every_length_are_found() {
    let mut store = prefixed();
    let keys: Vec<Vec<u8>> =
        (0..=u8::MAX).map(|byte| vec![b':', byte]).chain([b":".to_vec(), b"x:".to_vec(), b"x:1".to_vec()]).collect();
    for (flushed, left) in [(&b":"[..], 2), (b"x:", 257)] {
        keys.iter().for_each(|key| _ = store.set(key, b"1", NEVER).expect("memory"));
        store.flush_prefix(flushed, Flush::Kill).expect("room");
        assert_eq!(keys.iter().filter(|key| store.get(key).is_some()).count(), left);
    }
}

#[test]
fn what_was_stored_before_is_gone_and_what_comes_after_stays() {
    let mut store = prefixed();
    let keys = ["a:1", "a:b:1", "ab:1", "a", "b:1"];
    for flushed in ["a:", "a:b:"] {
        keys.iter().for_each(|key| _ = store.set(key.as_bytes(), b"old", NEVER).expect("memory"));
        store.flush_prefix(flushed.as_bytes(), Flush::Kill).expect("room");
        for key in keys {
            assert_eq!(store.get(key.as_bytes()).is_some(), !key.starts_with(flushed), "{key} after {flushed}");
        }
        // In the same second.
        store.set(b"a:1", b"new", NEVER).expect("memory");
        store.set(b"a:b:1", b"new", NEVER).expect("memory");
        assert_eq!(store.get(b"a:1").as_deref(), Some(&b"new"[..]));
        assert_eq!(store.get(b"a:b:1").as_deref(), Some(&b"new"[..]));
        let id = store.find(store.hasher.hash(b"a:1"), b"a:1").expect("it is there").id;
        assert_eq!(store.last_access(id), Now(100));
    }
    assert_eq!((store.counters.get_flushed, store.counters.get_prefix_flushed), (3, 3));
    store.validate();
}

#[test]
fn flushes_within_a_second_are_told_apart() {
    let mut store = prefixed();
    store.set(b"other:1", b"1", NEVER).expect("memory");
    for round in 0..1000 {
        store.set(b"a:b:1", b"1", NEVER).expect("memory");
        store.set(b"a:1", b"1", NEVER).expect("memory");
        assert!(store.get(b"a:b:1").is_some() && store.get(b"a:1").is_some(), "{round}");
        let inner = round % 3 == 0;
        store.flush_prefix(if inner { b"a:b:" } else { b"a:" }, Flush::Kill).expect("room");
        assert_eq!((store.get(b"a:b:1").is_none(), store.get(b"a:1").is_some()), (true, inner), "{round}");
    }
    // Stamps of the prefix are ahead of the clock now. A flush of everything covers them.
    store.set(b"a:1", b"1", NEVER).expect("memory");
    store.flush_at(Now(99));
    assert!(store.get(b"a:1").is_none() && store.get(b"other:1").is_none());
    store.set(b"a:1", b"1", NEVER).expect("memory");
    let id = store.find(store.hasher.hash(b"a:1"), b"a:1").expect("it is there").id;
    assert_eq!((store.last_access(id), store.idle_seconds(id)), (Now(100), 0));
}

#[test]
fn what_clients_store_below_a_prefix_does_not_fill_the_table() {
    let mut store = prefixed();
    store.set(b"a:x", b"1", NEVER).expect("memory");
    store.flush_prefix(b"a:", Flush::Kill).expect("room");
    for number in 0..1000 {
        store.set(format!("a:{number}:1").as_bytes(), b"1", NEVER).expect("memory");
    }
    assert_eq!(store.flushed_prefixes(), 1);
    // What is stored there has stamps ahead of the clock nevertheless.
    store.flush_prefix(b"a:7:", Flush::Kill).expect("room");
    assert!(store.get(b"a:7:1").is_none() && store.get(b"a:8:1").is_some());
    store.set(b"a:7:1", b"1", NEVER).expect("memory");
    store.flush_prefix(b"a:", Flush::Kill).expect("room");
    assert!(store.get(b"a:7:1").is_none() && store.get(b"a:8:1").is_none());
}

#[test]
fn a_clock_that_is_a_turn_behind_hides_no_item_from_a_flush() {
    let mut store = prefixed();
    store.set_now(Now(101));
    store.set(b"a:1", b"1", NEVER).expect("memory");
    store.set(b"b:1", b"1", NEVER).expect("memory");
    store.set_now(Now(100));
    store.flush_prefix(b"a:", Flush::Kill).expect("room");
    assert!(store.get(b"a:1").is_none());
    store.flush_at(Now(99));
    assert!(store.get(b"b:1").is_none());
}

#[test]
fn stale_items_stay_and_are_marked_once() {
    let mut store = prefixed();
    for swept in [false, true] {
        let id = store.set(b"a:1", b"1", NEVER).expect("memory");
        let cas = store.next_cas();
        store.item(id).set_cas(cas);
        store.flush_prefix(b"a:", Flush::Stale).expect("room");
        if swept {
            sweep(&mut store);
            assert_eq!(store.item(id).state() & STALE, STALE);
        }
        assert!(store.get(b"a:1").is_some());
        assert_eq!(store.item(id).state() & (STALE | WON), STALE);
        assert!(store.item(id).cas() > cas, "a value read before the flush must not be stored by its CAS value");
        // Somebody wins. The same flush does not take that back.
        store.item(id).change_state(WON, 0);
        store.find(store.hasher.hash(b"a:1"), b"a:1").expect("it is there");
        sweep(&mut store);
        assert_eq!(store.item(id).state() & (STALE | WON), STALE | WON);
        store.set(b"a:1", b"2", NEVER).expect("memory");
        assert!(store.get(b"a:1").is_some());
        assert_eq!(store.item(id).state() & (STALE | WON), 0);
        store.set_now(Now(store.now().0 + 10));
    }
}

#[test]
fn the_sweep_frees_dead_items_and_empties_the_table() {
    let mut store = prefixed();
    for number in 0..20_000 {
        store.set(format!("{}:{number}", number % 10).as_bytes(), b"1", NEVER).expect("memory");
    }
    for prefix in 0..5 {
        store.flush_prefix(format!("{prefix}:").as_bytes(), Flush::Kill).expect("room");
    }
    assert_eq!((store.index.len(), store.flushed_prefixes()), (20_000, 5));
    sweep(&mut store);
    // What was stored after the first flush has a later stamp. After the others it has not: their second is not over yet.
    assert_eq!((store.index.len(), store.flushed_prefixes()), (10_000, 4));
    store.set(b"0:new", b"1", NEVER).expect("memory");
    store.set_now(Now(102));
    sweep(&mut store);
    assert_eq!((store.index.len(), store.flushed_prefixes()), (10_001, 0));
    assert!(!store.stamps.is_suspect(store.stamps.current()));
    assert!(store.get(b"0:new").is_some() && store.get(b"0:0").is_none() && store.get(b"7:7").is_some());
    store.validate();
}

#[test]
fn flushes_of_many_prefixes_move_the_times_of_others_by_a_second_at_most() {
    let mut store = prefixed();
    let id = store.set(b"other", b"1", NEVER).expect("memory");
    let before = store.stamps.current();
    for number in 0..1000 {
        store.set(format!("{number}:x").as_bytes(), b"1", NEVER).expect("memory");
        store.flush_prefix(format!("{number}:").as_bytes(), Flush::Kill).expect("room");
        store.set(format!("{number}:x").as_bytes(), b"1", NEVER).expect("memory");
    }
    assert_eq!((store.stamps.current(), store.last_access(id)), (before + 1, Now(100)));
    let late = store.set(b"late", b"1", NEVER).expect("memory");
    assert_eq!(store.last_access(late), Now(100));
    store.set_now(Now(130));
    assert_eq!((store.idle_seconds(id), store.idle_seconds(late), store.stamps.current()), (30, 29, before + 30));
}

#[test]
fn too_many_prefixes_are_refused_until_the_sweep_is_over() {
    let mut store = prefixed();
    store.set(b"kept", b"1", NEVER).expect("memory");
    for number in 0..FLUSHED_PREFIXES_MAX {
        store.flush_prefix(format!("{number}:").as_bytes(), Flush::Kill).expect("room");
    }
    assert_eq!(store.flush_prefix(b"more:", Flush::Kill), Err(Refused::TooMany));
    assert_eq!(store.flush_prefix(b"7:", Flush::Kill), Ok(()), "this one is known");
    sweep(&mut store);
    store.set_now(Now(102));
    sweep(&mut store);
    assert_eq!((store.flushed_prefixes(), store.flush_prefix(b"more:", Flush::Kill)), (0, Ok(())));
}

/// After a flush, an item is looked up among the flushed prefixes once, not for the rest of the second.
#[test]
fn what_is_accessed_after_a_flush_is_not_suspect() {
    let mut store = prefixed();
    let id = store.set(b"other:1", b"1", NEVER).expect("memory");
    store.set(b"a:1", b"1", NEVER).expect("memory");
    store.flush_prefix(b"a:", Flush::Kill).expect("room");
    let is_suspect = |store: &Store, id| store.stamps.is_suspect(store.item(id).stamp());
    assert!(is_suspect(&store, id));
    assert!(store.get(b"other:1").is_some());
    assert!(!is_suspect(&store, id));
    let new = store.set(b"a:1", b"2", NEVER).expect("memory");
    assert!(!is_suspect(&store, new) && store.get(b"a:1").is_some());
}
