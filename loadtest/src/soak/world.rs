//! The state that all guests of a soak share: whether a server runs, counts of flushes and losses, and results.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::link::Doors;
use crate::random::Random;

const LOOK: Duration = Duration::from_millis(2);
/// Pause between two tries to reach a server that has ended.
const RETRY: Duration = Duration::from_millis(5);
/// Maximum number of complaints to show.
const COMPLAINTS_MAX: usize = 10;

/// A number that several threads add to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn get(&self) -> u64 {
        self.0.load(SeqCst)
    }

    pub fn up(&self) {
        self.0.fetch_add(1, SeqCst);
    }

    pub fn down(&self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Counts of events.
#[derive(Debug, Default)]
pub struct Tally {
    /// Values that guests read and compared: all, and those read over TLS, over UDP, and slowly.
    pub values: Count,
    pub values_tls: Count,
    pub values_udp: Count,
    pub values_slow: Count,
    /// Values that differ from the stored one, or belong to another key.
    pub wrong: Count,
    /// Values that should have gone: replaced, deleted, flushed, lost with a killed server, or expired.
    pub stale: Count,
    /// Values that the server stored although it never received their ends.
    pub half_stored: Count,
    /// Sets that the server refused for lack of memory.
    pub refused: Count,
    /// Replies that do not fit the request.
    pub nonsense: Count,
    /// Replies that did not come.
    pub silent: Count,
    /// Connections that the server closed without a reason.
    pub lost: Count,
    pub half_values: Count,
    pub visits: Count,
    pub flushes: Count,
    pub limit_changes: Count,
    pub warm_restarts: Count,
    pub kills: Count,
}

/// The state that all guests share.
pub struct World {
    pub doors: Doors,
    pub tally: Tally,
    /// Number of the current server. It grows when a server has started.
    life: Count,
    /// A server runs, and has not been told to end.
    serving: AtomicBool,
    /// How often a server has lost its cache. It grows between the end of that server and the start of the next.
    pub forgotten: Count,
    /// Numbers of `flush_all` commands that were sent, and that were answered.
    pub flushes_begun: Count,
    pub flushes_done: Count,
    pausing: AtomicBool,
    over: AtomicBool,
    /// Number of guests that may have connections.
    active: Count,
    complaints: Mutex<Vec<String>>,
}

/// A client of some kind. Each step does a little work, and returns an error if the server fails.
pub trait Guest {
    fn step(&mut self, world: &World) -> io::Result<()>;

    /// Closes all connections.
    fn leave(&mut self);
}

impl World {
    pub fn new(doors: Doors) -> World {
        World {
            doors,
            tally: Tally::default(),
            life: Count::default(),
            serving: AtomicBool::new(false),
            forgotten: Count::default(),
            flushes_begun: Count::default(),
            flushes_done: Count::default(),
            pausing: AtomicBool::new(true),
            over: AtomicBool::new(false),
            active: Count::default(),
            complaints: Mutex::default(),
        }
    }

    /// Runs the steps of a guest until the soak is over. The guest has no connections during a pause.
    pub fn host(&self, mut guest: impl Guest) {
        while !self.is_over() {
            self.active.up();
            let mut life = self.life.get();
            while !self.pausing.load(SeqCst) && !self.is_over() {
                if life != self.life.get() {
                    life = self.life.get();
                    guest.leave();
                }
                if let Err(error) = guest.step(self) {
                    guest.leave();
                    self.note(life, &error);
                    thread::sleep(RETRY);
                }
            }
            guest.leave();
            self.active.down();
            while self.pausing.load(SeqCst) && !self.is_over() {
                thread::sleep(LOOK);
            }
        }
    }

    /// Counts a failed step as a fault of the server, unless the server has ended, or is about to end, as it was told
    /// to.
    fn note(&self, life: u64, error: &io::Error) {
        if error.kind() == ErrorKind::InvalidData {
            self.tally.nonsense.up();
        } else if life != self.life.get() || !self.serving.load(SeqCst) {
            return;
        } else if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            self.tally.silent.up();
        } else {
            self.tally.lost.up();
        }
        self.complain(format!("life {life}: {error}"));
    }

    pub fn complain(&self, what: String) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.len() < COMPLAINTS_MAX {
            complaints.push(what);
        }
    }

    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the guests connect to a new server.
    pub fn opens(&self) {
        self.life.up();
        self.serving.store(true, SeqCst);
    }

    /// Call this before telling the server to end.
    pub fn closes(&self) {
        self.serving.store(false, SeqCst);
    }

    pub fn life(&self) -> u64 {
        self.life.get()
    }

    pub fn pause(&self, pausing: bool) {
        self.pausing.store(pausing, SeqCst);
    }

    /// Number of guests that may still have connections.
    pub fn active(&self) -> u64 {
        self.active.get()
    }

    pub fn end(&self) {
        self.over.store(true, SeqCst);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }
}

/// Ends the world when dropped. After an early return, the guests would otherwise run for ever.
pub struct EndOfWorld<'a>(pub &'a World);

impl Drop for EndOfWorld<'_> {
    fn drop(&mut self) {
        self.0.closes();
        self.0.end();
    }
}

/// Keys whose values follow from their numbers. Most of the values do not fit into the cache.
#[derive(Clone, Copy, Debug)]
pub struct Fillers {
    pub count: u64,
}

/// Mean length of the values of [`Fillers`].
pub const FILLER_BYTES: u64 = 12_500;
const FILLER_MAX: u64 = 200_000;

impl Fillers {
    pub fn any(self, random: &mut Random) -> u64 {
        random.below(self.count)
    }

    pub fn key(number: u64) -> String {
        format!("fill-{number}")
    }

    /// Six in ten values are small, three in ten up to 16 KB, the others up to 200 KB.
    pub fn value(number: u64) -> Vec<u8> {
        let mut random = Random::new(number);
        let length = match random.below(10) {
            0..6 => random.below(500),
            6..9 => random.below(16_000),
            _ => random.below(FILLER_MAX),
        };
        let mut value = format!("{number}:").into_bytes();
        while (value.len() as u64) < length {
            value.extend_from_slice(&random.next().to_le_bytes());
        }
        value
    }

    /// Checks that a value belongs to its key.
    pub fn check(world: &World, number: u64, value: &[u8]) {
        world.tally.values.up();
        if value != Fillers::value(number) {
            world.tally.wrong.up();
            let shown = value[..value.len().min(40)].escape_ascii();
            world.complain(format!("{} has {} bytes that are not its own: {shown}", Fillers::key(number), value.len()));
        }
    }
}
