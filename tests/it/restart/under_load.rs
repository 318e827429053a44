//! Restarts under load: each client knows the values that the server has confirmed, across many graceful restarts.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::Folder;
use crate::client::{Client, Silence};
use crate::server::Address;

const RESTARTS: usize = 10;
const CLIENTS: u64 = 3;
const KEYS: u64 = 300;
/// The number of requests of all clients between two restarts.
const REQUESTS: u64 = 3000;

/// A client's knowledge of one of its keys. No other client writes this key.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The last version that the server has acknowledged, or 0 for none.
    stored: u64,
    /// A version that the client sent without getting an answer.
    perhaps: Option<u64>,
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) address: Mutex<Option<Address>>,
    pub(super) done: AtomicBool,
    requests: AtomicU64,
    pub(super) hits: AtomicU64,
    misses: AtomicU64,
}

fn value_of(key: &str, version: u64) -> String {
    format!("{key}={version};").repeat(1 + (version % 40) as usize)
}

/// Sets and gets keys of its own, and checks that each value is the last acknowledged one.
pub(super) fn work(shared: &Shared, number: u64) {
    let mut known: HashMap<u64, Known> = HashMap::new();
    let mut state = number + 1;
    let mut version = 0;
    while !shared.done.load(Ordering::Relaxed) {
        let Some(address) = shared.address.lock().expect("nobody panics with it").clone() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let Ok(mut client) = Client::try_connect(&address) else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        // Use the connection until the server stops or the test is done.
        while !shared.done.load(Ordering::Relaxed) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (id, sets) = ((state >> 33) % KEYS, state >> 62 == 0);
            let key = format!("c{number}-{id}");
            let entry = known.entry(id).or_default();
            let ended = if sets {
                version += 1;
                entry.perhaps = Some(version);
                set(&mut client, &key, version).map(|()| *entry = Known { stored: version, perhaps: None })
            } else {
                get(&mut client, &key).map(|found| check(shared, &key, entry, found))
            };
            if let Err(silence) = ended {
                assert_eq!(silence, Silence::Closed, "client {number} got no answer");
                break;
            }
            shared.requests.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn set(client: &mut Client, key: &str, version: u64) -> Result<(), Silence> {
    let value = value_of(key, version);
    client.try_send(format!("set {key} 0 0 {}\r\n{value}\r\n", value.len()).as_bytes()).map_err(|_| Silence::Closed)?;
    let line = client.line()?;
    assert_eq!(line, b"STORED\r\n", "{}", line.escape_ascii());
    Ok(())
}

fn get(client: &mut Client, key: &str) -> Result<Option<String>, Silence> {
    client.try_send(format!("get {key}\r\n").as_bytes()).map_err(|_| Silence::Closed)?;
    let line = String::from_utf8(client.line()?).expect("a line of text");
    if line == "END\r\n" {
        return Ok(None);
    }
    let len: usize = line.trim_end().rsplit(' ').next().and_then(|len| len.parse().ok()).expect("a VALUE line");
    let value = client.bytes(len + "\r\nEND\r\n".len())?;
    Ok(Some(String::from_utf8(value[..len].to_vec()).expect("a value of ours")))
}

fn check(shared: &Shared, key: &str, known: &mut Known, found: Option<String>) {
    let Some(found) = found else {
        let expected = known.stored > 0;
        shared.misses.fetch_add(u64::from(expected), Ordering::Relaxed);
        // What is gone never comes back.
        *known = Known::default();
        return;
    };
    shared.hits.fetch_add(1, Ordering::Relaxed);
    let one_of = [Some(known.stored).filter(|&version| version > 0), known.perhaps];
    let version = one_of.into_iter().flatten().find(|&version| found == value_of(key, version));
    let version = version.unwrap_or_else(|| panic!("{key}: {known:?}, but it has {found}"));
    // The client has seen this version, so from now on it expects it.
    *known = Known { stored: version, perhaps: None };
}

#[test]
fn nobody_sees_a_value_that_was_replaced() {
    let folder = Folder::new();
    let shared = Shared::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let shared = &shared;
                scope.spawn(move || work(shared, number))
            })
            .collect();
        let failed = || clients.iter().any(thread::ScopedJoinHandle::is_finished);
        for restart in 0..RESTARTS {
            let flags = ["-t 1 -m 64", "-t 2 -m 80", "-t 3 -m 64 -f 1.5"][restart % 3];
            let mut server = folder.start(flags);
            *shared.address.lock().expect("nobody panics with it") = Some(server.addresses()[0].clone());
            let target = shared.requests.load(Ordering::Relaxed) + REQUESTS;
            while shared.requests.load(Ordering::Relaxed) < target && !failed() {
                thread::sleep(Duration::from_millis(1));
            }
            *shared.address.lock().expect("nobody panics with it") = None;
            folder.stop(&mut server);
        }
        shared.done.store(true, Ordering::Relaxed);
    });
    let (hits, misses) = (shared.hits.into_inner(), shared.misses.into_inner());
    assert!(hits > REQUESTS * RESTARTS as u64 / 3, "only {hits} hits");
    assert_eq!(misses, 0, "of {hits} hits and misses of keys that had been stored");
}
