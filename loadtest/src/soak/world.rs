//! The state that all guests of a soak share: whether a server runs, what it has confirmed, and the counts.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::link::Doors;
use crate::random::Random;

const LOOK: Duration = Duration::from_millis(2);
/// Between two tries to reach a server that is gone.
const RETRY: Duration = Duration::from_millis(5);
/// So many complaints are shown.
const COMPLAINTS_MAX: usize = 10;

/// A number that several threads add to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn get(&self) -> u64 {
        self.0.load(SeqCst)
    }

    /// Adds one.
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
    /// Values that were read and compared, over TLS, over UDP, and slowly among them.
    pub values: Count,
    pub values_tls: Count,
    pub values_udp: Count,
    pub values_slow: Count,
    /// Values that differ from the stored one, or belong to another key.
    pub wrong: Count,
    /// Values that had been replaced, deleted, flushed or lost with a killed server, or had expired.
    pub stale: Count,
    /// Values that were never sent to their end, and were stored all the same.
    pub half_stored: Count,
    /// Sets of values that the server had no room for.
    pub refused: Count,
    /// Answers that make no sense.
    pub nonsense: Count,
    /// Answers that did not come.
    pub silent: Count,
    /// Connections that the server has ended without a reason.
    pub lost: Count,
    pub half_values: Count,
    pub visits: Count,
    pub flushes: Count,
    pub limit_changes: Count,
    pub warm_restarts: Count,
    pub kills: Count,
}

/// The world of the guests.
pub struct World {
    pub doors: Doors,
    pub tally: Tally,
    /// Number of the server: counted up when one has been started.
    life: Count,
    /// A server runs, and was not told to end.
    serving: AtomicBool,
    /// How often a server has forgotten everything. Counted up between its end and the start of the next.
    pub forgotten: Count,
    /// `flush_all`: how many were sent, and how many of these answered.
    pub flushes_begun: Count,
    pub flushes_done: Count,
    pausing: AtomicBool,
    over: AtomicBool,
    /// Guests that may have connections.
    active: Count,
    complaints: Mutex<Vec<String>>,
}

/// A client of some kind. It does a little in each step, and says so if the server fails it.
pub trait Guest {
    fn step(&mut self, world: &World) -> io::Result<()>;

    /// Closes its connections.
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

    /// Has a guest do its steps until all is over. In a pause it has no connection.
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

    /// A step has failed: a fault of the server, unless it was just about to end, or has ended, as it was told to.
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

    /// A server takes guests in.
    pub fn opens(&self) {
        self.life.up();
        self.serving.store(true, SeqCst);
    }

    /// The server is about to be told to end.
    pub fn closes(&self) {
        self.serving.store(false, SeqCst);
    }

    pub fn life(&self) -> u64 {
        self.life.get()
    }

    pub fn pause(&self, pausing: bool) {
        self.pausing.store(pausing, SeqCst);
    }

    /// Guests that still may have connections.
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

/// Ends the world also when its thread does not come to it: the guests would stay for ever.
pub struct EndOfWorld<'a>(pub &'a World);

impl Drop for EndOfWorld<'_> {
    fn drop(&mut self) {
        self.0.closes();
        self.0.end();
    }
}

/// Keys whose values follow from their numbers: so many of them that most of their bytes do not fit.
#[derive(Clone, Copy, Debug)]
pub struct Fillers {
    pub count: u64,
}

/// The mean length of the values of [`Fillers`].
pub const FILLER_BYTES: u64 = 12_500;
const FILLER_MAX: u64 = 200_000;

impl Fillers {
    pub fn any(self, random: &mut Random) -> u64 {
        random.below(self.count)
    }

    pub fn key(number: u64) -> String {
        format!("fill-{number}")
    }

    /// Six in ten are small, three in ten up to 16 KB, the others up to 200 KB.
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

    /// A value was read: it must be the key's.
    pub fn check(world: &World, number: u64, value: &[u8]) {
        world.tally.values.up();
        if value != Fillers::value(number) {
            world.tally.wrong.up();
            let shown = value[..value.len().min(40)].escape_ascii();
            world.complain(format!("{} has {} bytes that are not its own: {shown}", Fillers::key(number), value.len()));
        }
    }
}
