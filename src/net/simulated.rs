//! A network on one thread, for the simulator. It controls the bytes, the room and the faults of each connection.
//!
//! A connection behaves as a TCP socket with edge-triggered events. A read takes the bytes that have arrived. A write
//! takes as many bytes as have room. An event is due when something has arrived, or when a write has found too little
//! room and the client has made some since.

use mio::Token;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::sync::{Arc, Mutex, MutexGuard};

/// One connection between a client and the server.
#[derive(Debug, Default)]
pub struct Wire {
    /// Bytes that the server has not read.
    pub inbound: VecDeque<u8>,
    /// Bytes that the client has not taken.
    pub outbound: Vec<u8>,
    /// Bytes that `outbound` may hold.
    pub room: usize,
    /// The client sends no more.
    pub finished: bool,
    /// The client has broken the connection.
    pub reset: bool,
    /// The server has closed the connection.
    pub closed: bool,
    /// The number of the server's next calls that fail with `Interrupted`.
    pub interruptions: u32,
    /// An event is due.
    pub edge: bool,
    /// A write of the server has found too little room.
    starved: bool,
    token: Option<Token>,
}

/// The state of a connection, as an event reports it.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the words of epoll")]
pub struct State {
    pub token: Token,
    pub readable: bool,
    pub writable: bool,
    pub closed: bool,
}

impl Wire {
    /// A wire with room for this many bytes on their way to the client.
    pub fn with_room(room: usize) -> Wire {
        Wire { room, ..Wire::default() }
    }

    /// The client sends bytes.
    pub fn arrive(&mut self, bytes: &[u8]) {
        self.inbound.extend(bytes);
        self.edge = true;
    }

    /// The client takes up to `count` bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let count = count.min(self.outbound.len());
        self.edge |= std::mem::take(&mut self.starved);
        self.outbound.drain(..count).collect()
    }

    /// The client sends no more.
    pub fn finish(&mut self) {
        self.finished = true;
        self.edge = true;
    }

    /// The client breaks the connection.
    pub fn reset(&mut self) {
        self.reset = true;
        self.edge = true;
        self.inbound.clear();
        self.outbound.clear();
    }

    /// The event that is due, if one is.
    pub fn event(&mut self) -> Option<State> {
        let token = self.token.filter(|_| self.edge && !self.closed)?;
        self.edge = false;
        Some(State {
            token,
            readable: !self.inbound.is_empty() || self.finished || self.reset,
            writable: self.outbound.len() < self.room,
            closed: self.finished || self.reset,
        })
    }

    fn interrupted(&mut self) -> io::Result<()> {
        if self.interruptions > 0 {
            self.interruptions -= 1;
            return Err(ErrorKind::Interrupted.into());
        }
        Ok(())
    }
}

/// The server's end of a wire.
#[derive(Debug)]
pub struct Socket(Arc<Mutex<Wire>>);

impl Socket {
    /// Makes the server's end of a wire.
    pub fn new(wire: Arc<Mutex<Wire>>) -> Socket {
        Socket(wire)
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().expect("nobody panics with a wire in hand")
    }

    pub(super) fn register(&mut self, token: Token) -> io::Result<()> {
        let mut wire = self.wire();
        wire.token = Some(token);
        wire.edge = true;
        Ok(())
    }

    pub(super) fn read(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut wire = self.wire();
        wire.interrupted()?;
        if wire.reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if wire.inbound.is_empty() && !wire.finished {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut count = 0;
        for buffer in buffers {
            let part = buffer.len().min(wire.inbound.len());
            wire.inbound.read_exact(&mut buffer[..part])?;
            count += part;
        }
        Ok(count)
    }

    pub(super) fn write(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut wire = self.wire();
        wire.interrupted()?;
        if wire.reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let mut written = 0;
        for buffer in buffers {
            let count = buffer.len().min(wire.room.saturating_sub(wire.outbound.len()));
            wire.outbound.extend_from_slice(&buffer[..count]);
            written += count;
            if count < buffer.len() {
                wire.starved = true;
                if written == 0 {
                    return Err(ErrorKind::WouldBlock.into());
                }
                break;
            }
        }
        Ok(written)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut wire = self.wire();
        wire.closed = true;
        wire.token = None;
    }
}
