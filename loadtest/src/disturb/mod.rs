//! Work for a server besides the load: pages that move, dumps, handshakes.
//!
//! The thread that sends the load does this work as well, in steps that are shorter than a gap of [`crate::tail`]: a
//! thread of its own would take the core away from the load for milliseconds. Sockets do not block, and each is in the
//! thread's poll.

mod dump;
mod handshakes;
mod link;
mod moves;

use std::net::SocketAddr;

use mio::{Registry, Token};

use crate::address::Address;
pub use moves::{Classes, classes};

/// A kind of disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `slabs reassign` from the class of the load to another one and back, while values for the other one are stored.
    Moves,
    /// `lru_crawler metadump all`, again and again.
    Dumps,
    /// Full TLS handshakes, with one request each.
    Handshakes,
}

impl Kind {
    pub const ALL: [Kind; Kind::COUNT] = [Kind::Moves, Kind::Dumps, Kind::Handshakes];
    pub const COUNT: usize = 3;
}

/// A disturbance of a server.
#[derive(Clone, Debug)]
pub enum Disturbance {
    Moves { admin: SocketAddr, classes: Classes },
    Dumps { admin: SocketAddr },
    Handshakes { door: Address },
}

/// A disturbance that goes on.
pub trait Disturber: Send {
    fn kind(&self) -> Kind;

    /// Its socket has something to read, or can be written.
    fn wake(&mut self);

    /// Takes a short step if there is one to take `now`, in nanoseconds of the thread. Returns what it has done: moves that
    /// the server has begun, bytes of dumps, or handshakes with their replies. `Err`: the server does not take part.
    fn step(&mut self, now: u64, registry: &Registry, token: Token) -> Result<u64, String>;
}

impl Disturbance {
    /// Connects.
    pub fn begin(&self, registry: &Registry, token: Token) -> Result<Box<dyn Disturber>, String> {
        match self {
            Disturbance::Moves { admin, classes } => {
                Ok(Box::new(moves::Moves::begin(*admin, *classes, registry, token)?))
            }
            Disturbance::Dumps { admin } => Ok(Box::new(dump::Dump::begin(*admin, registry, token)?)),
            Disturbance::Handshakes { door } => Ok(Box::new(handshakes::Handshakes::begin(door)?)),
        }
    }
}
