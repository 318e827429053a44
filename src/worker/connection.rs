//! A connection of a worker.

use super::outbox::Outbox;
use super::serve::Serve;
use super::session::Session;
use crate::clock::Now;
use crate::command::Pinned;
use crate::net::stream::Stream;
use crate::store::item::Items;
use crate::watch::CloseReason;
use std::io::{self, ErrorKind};

/// A connection of a worker.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) session: Session,
    pub(super) outbox: Outbox,
    /// Input that is not parsed yet. Seldom any between turns.
    pub(super) input: Vec<u8>,
    /// The socket may have more to read.
    pub(super) readable: bool,
    /// The other side sends no more: what is there is to be read to its end.
    pub(super) hung_up: bool,
    /// All that the other side has sent was read: what is there is to be served to its end.
    pub(super) ended: bool,
    /// It is in the list of those to be served without an event, or of those whose handshake waits.
    pub(super) queued: bool,
    /// To be closed once everything is sent.
    pub(super) closing: bool,
    /// The other side has closed, or the connection is broken: nothing can be sent.
    pub(super) broken: bool,
    /// Why it closes, if it does.
    pub(super) close_reason: CloseReason,
    /// Closed by `idle_timeout`, if there is one: TCP only.
    pub(super) may_idle_out: bool,
    /// When it last had a command served, or something came that a command was waiting for, as the bytes of a value: a line
    /// that comes byte by byte does not count before its end, nor does a handshake.
    pub(super) active: Now,
}

impl Connection {
    /// Bytes that it holds.
    pub(super) fn buffered(&self) -> usize {
        let sealed = if let Stream::Tls(stream) = &self.stream { stream.buffered() } else { 0 };
        self.input.capacity() + self.outbox.len() + sealed
    }

    /// Nothing is left to be sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.outbox.is_empty() && if let Stream::Tls(stream) = &self.stream { stream.is_flushed() } else { true }
    }
}

/// Writes what a connection has to send, as much as the socket takes.
pub(super) fn send(
    connection: &mut Connection,
    items: &Items,
    serve: &mut Serve<'_>,
    counters: &crate::counters::WorkerCounters,
) -> io::Result<()> {
    while !connection.outbox.is_empty() {
        let sent = match connection.stream.write_vectored(&connection.outbox.slices(items)) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        counters.bytes_written.add(sent as u64);
        connection.outbox.advance(items, sent, |pinned: Pinned| serve.unpin(pinned));
    }
    Ok(())
}
