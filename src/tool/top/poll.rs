//! Asks the servers, each in a thread of its own: a server that does not answer holds up no other.

use crate::tool::client::Connection;
use crate::tool::cores::Cores;
use crate::tool::failure::in_words;
use crate::tool::figures::{Ask, Snapshot};
use crate::tool::reply::Stats;
use crate::tool::target::Target;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// The lists of a server, by what follows `stats`. Those of the first row change slowly and may be long: they are asked
/// for once in [`RARELY`] intervals.
const RARE_LISTS: [&str; 1] = ["slow"];
const LISTS: [&str; 5] = ["items", "slabs", "latency", "hotkeys", "prefixes"];
const RARELY: u64 = 5;

/// All that a server said in one interval.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) snapshot: Snapshot,
    /// The lists that the server knows, by their names.
    pub(super) lists: HashMap<&'static str, Stats>,
    pub(super) cores: Option<Cores>,
}

/// What came from a server: its place in the list of targets, and the sighting or a few words about the error.
pub(super) type News = (usize, Result<Sighting, String>);

/// Starts the threads. They end when the receiver is dropped.
pub(super) fn start(targets: &[Target], interval: Duration) -> Receiver<News> {
    let (sender, receiver) = mpsc::channel();
    for (at, target) in targets.iter().cloned().enumerate() {
        let sender = sender.clone();
        thread::spawn(move || watch(at, &target, interval, &sender));
    }
    receiver
}

fn watch(at: usize, target: &Target, interval: Duration, sender: &Sender<News>) {
    let mut watcher = None;
    let mut next = Instant::now();
    loop {
        let sighting = look(&mut watcher, target);
        if sighting.is_err() {
            watcher = None;
        }
        if sender.send((at, sighting.map_err(|error| in_words(&error)))).is_err() {
            return;
        }
        // After a long wait for an answer, the next question is not late but on time again.
        next = (next + interval).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// A connection, and what is known of the server behind it.
#[derive(Debug)]
struct Watcher {
    connection: Connection,
    unknown: HashSet<&'static str>,
    has_latency: bool,
    looks: u64,
    kept: HashMap<&'static str, Stats>,
}

fn look(watcher: &mut Option<Watcher>, target: &Target) -> io::Result<Sighting> {
    let watcher = match watcher {
        Some(watcher) => watcher,
        none => none.insert(Watcher {
            connection: Connection::open(target)?,
            unknown: HashSet::new(),
            has_latency: true,
            looks: 0,
            kept: HashMap::new(),
        }),
    };
    let ask = if watcher.has_latency { Ask::All } else { Ask::NoLatency };
    let snapshot = Snapshot::take(&mut watcher.connection, ask)?;
    watcher.has_latency = snapshot.latency.is_some();
    let is_time = watcher.looks.is_multiple_of(RARELY);
    let rare = RARE_LISTS.iter().filter(|_| is_time);
    for name in LISTS.iter().chain(rare) {
        if watcher.unknown.contains(name) {
            continue;
        }
        match watcher.connection.stats(name)? {
            Some(list) => _ = watcher.kept.insert(name, list),
            None => _ = watcher.unknown.insert(name),
        }
    }
    watcher.looks += 1;
    let cores = if target.address.is_here() { Cores::of(Path::new("/"), &snapshot.stats) } else { None };
    Ok(Sighting { snapshot, lists: watcher.kept.clone(), cores })
}
