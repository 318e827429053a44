//! A connection of a worker: its socket, its session, and what is not parsed or not sent yet.
//!
//! Between two services, a connection is in one of these states. It leaves the state when the event or the mail comes, or
//! when its turn in the queue comes. [`Connection::invariants`] checks that there is no other state, so that no connection
//! waits for ever.
//!
//! ```text
//!  state        known by                       goes on
//!  queued       `queued`                       in the next turn, or when its handshake has its turn
//!  unsent       `!is_flushed()`                when the socket has room: an event
//!  waiting      `session.is_waiting()`         when a reply, an answer, room or a walk comes: mail
//!  resting      `resting`                      when its user has a share again: the worker wakes by itself
//!  drained      `!readable`                    when the client sends something or closes: an event
//! ```
//! `closing` adds: what was asked is still answered and sent, and nothing more is read. As soon as the connection is flushed
//! and not waiting, the worker closes it. A connection that is `broken` is closed at once.

use super::outbox::Outbox;
use super::session::{Session, ValueRoom};
use crate::clock::Now;
use crate::command::Pinned;
use crate::counters::Transport;
use crate::counters::WorkerCounters;
use crate::net::seats::Seat;
use crate::net::stream::Stream;
use crate::protocol::parser::Parser;
use crate::store::item::Items;
use crate::watch::CloseReason;
use std::io::{self, ErrorKind, IoSliceMut};

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) session: Session,
    pub(super) outbox: Outbox,
    /// The input that is not parsed yet. There is seldom any between turns.
    pub(super) input: Vec<u8>,
    /// The socket may have more to read.
    pub(super) readable: bool,
    /// The client sends no more, or the connection is broken: the worker reads what has come to its end.
    pub(super) hung_up: bool,
    /// The worker has read everything that the client has sent, and serves it to its end.
    pub(super) ended: bool,
    /// The worker does not read from the connection, because its user has used its share: see [`super::rates`].
    pub(super) resting: bool,
    /// The place of the connection among those of its address.
    _seat: Option<Seat>,
    /// The worker serves the connection without an event: it is in the queue, or among those whose handshake waits.
    pub(super) queued: bool,
    /// The worker closes the connection once everything is sent.
    pub(super) closing: bool,
    /// The connection has failed: nothing can be sent.
    pub(super) broken: bool,
    /// The reason for closing, for the log of watchers.
    pub(super) close_reason: CloseReason,
    /// `idle_timeout` closes this connection. It does so only with TCP.
    pub(super) may_idle_out: bool,
    /// The time of the last command, or of the last bytes that a command was waiting for, as those of a value. The bytes of
    /// an unfinished line do not count, and neither does a handshake.
    pub(super) active: Now,
}

/// What a read has brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    /// The number of bytes in all.
    pub(super) count: usize,
    /// The number of those that are in the buffer; the others are bytes of a long value, and in its item.
    pub(super) buffered: usize,
}

/// What carries a stream.
pub fn transport(stream: &Stream) -> Transport {
    match stream {
        Stream::Tls(_) => Transport::Tls,
        Stream::Unix(_) => Transport::Unix,
        _ => Transport::Tcp,
    }
}

impl Connection {
    /// A new connection. A datagram has come as a whole; anything else may have something to read.
    pub(super) fn new(stream: Stream, session: Session, seat: Option<Seat>, now: Now) -> Connection {
        let is_datagram = matches!(stream, Stream::Datagram(_));
        Connection {
            may_idle_out: !matches!(stream, Stream::Unix(_) | Stream::Datagram(_)),
            stream,
            session,
            outbox: Outbox::default(),
            input: Vec::new(),
            readable: !is_datagram,
            hung_up: false,
            ended: is_datagram,
            resting: false,
            _seat: seat,
            queued: false,
            closing: false,
            broken: false,
            close_reason: CloseReason::default(),
            active: now,
        }
    }

    /// Whether the connection is a request over UDP.
    pub(super) fn is_datagram(&self) -> bool {
        matches!(self.stream, Stream::Datagram(_))
    }

    /// The memory of the buffers of the connection, in bytes.
    pub(super) fn buffered(&self) -> usize {
        self.input.capacity() + self.outbox.len() + self.buffered_by_tls()
    }

    /// The part of these that TLS holds.
    pub(super) fn buffered_by_tls(&self) -> usize {
        if let Stream::Tls(stream) = &self.stream { stream.buffered() } else { 0 }
    }

    /// Whether everything is sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.outbox.is_empty() && if let Stream::Tls(stream) = &self.stream { stream.is_flushed() } else { true }
    }

    /// Whether nothing is left to be done for the connection.
    pub(super) fn is_over(&self) -> bool {
        self.broken || self.closing && self.is_flushed() && !self.session.is_waiting()
    }

    /// The parser needs more input. Returns whether the worker has to serve the connection again without an event.
    #[inline]
    pub(super) fn drained(&mut self) -> bool {
        if !self.input.is_empty() {
            // The rest of a long list did not fit into the buffer.
            return true;
        }
        if self.ended {
            // At most half a command is left.
            self.closing = true;
            if let Stream::Datagram(exchange) = &mut self.stream {
                exchange.drained = true;
            }
        }
        self.readable
    }

    /// The parser has found the end of the conversation: the client has quit, or has made a mistake that the protocol does
    /// not forgive.
    pub(super) fn begin_close(&mut self) {
        self.closing = true;
        if matches!(self.session.parser(), Parser::Binary(parser) if parser.has_quit()) {
            self.close_reason = CloseReason::Normal;
        }
    }

    /// The server stops: the worker reads once more what the client has sent, answers it, and closes the connection. It
    /// closes one without a whole request at once.
    pub(super) fn begin_stop(&mut self) {
        self.close_reason = CloseReason::Shutdown;
        let is_handshaking = matches!(&self.stream, Stream::Tls(stream) if stream.is_handshaking());
        let has_requests = !self.is_datagram() && !is_handshaking && !self.resting;
        if has_requests && self.session.watcher().is_none() && !self.session.is_dumping() {
            self.readable = true;
        } else {
            self.closing = true;
        }
    }

    /// Checks, in debug builds, that the connection is in one of the legal states after a service.
    pub(super) fn invariants(&self) {
        if cfg!(debug_assertions) {
            assert!(!self.is_over(), "a connection that is over is closed at once");
            let goes_on =
                self.queued || self.resting || !self.is_flushed() || self.session.is_waiting() || !self.readable;
            assert!(goes_on, "nothing wakes a connection that has more to read: {self:?}");
            let pending = &self.session.pending;
            assert!(
                pending.is_empty() || pending.is_waiting(),
                "replies stay behind although no gap is left: {self:?}"
            );
            if self.is_datagram() {
                assert!(self.ended && !self.readable && !self.hung_up && !self.may_idle_out, "{self:?}");
            }
        }
    }

    /// Reads once into the buffer.
    #[inline]
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        let count = self.stream.read(buffer)?;
        self.note_read(count, buffer.len());
        Ok(Read { count, buffered: count })
    }

    /// Reads once into the item of a long value, and into the buffer what comes behind the value.
    pub(super) fn read_value(&mut self, room: ValueRoom, items: &Items, buffer: &mut [u8]) -> io::Result<Read> {
        let ValueRoom { mut cursor, is_last } = room;
        let mut parts = Vec::with_capacity(8);
        let mut direct = 0;
        while cursor.left() > 0 && parts.len() < 15 {
            let part = items.room(&cursor);
            let count = part.len();
            direct += count;
            parts.push(IoSliceMut::new(part));
            cursor = items.advance(cursor, count);
        }
        let mut len = direct;
        // The buffer takes no bytes of the value itself, even if there is no room for them yet.
        if cursor.left() == 0 && is_last {
            len += buffer.len();
            parts.push(IoSliceMut::new(buffer));
        }
        let count = self.stream.read_vectored(&mut parts)?;
        self.session.received(items, count.min(direct));
        self.note_read(count, len);
        Ok(Read { count, buffered: count.saturating_sub(direct) })
    }

    /// A read into a buffer of `len` bytes has brought `count`.
    #[inline]
    fn note_read(&mut self, count: usize, len: usize) {
        if count == 0 {
            self.readable = false;
            self.ended = true;
            if self.session.watcher().is_none() {
                self.close_reason = CloseReason::Normal;
            }
        } else {
            // After a short read the socket is empty, and an event tells when there is more.
            self.readable = count == len || self.hung_up || self.stream.has_ended();
        }
    }

    /// Writes once; returns the number of bytes that the socket has taken.
    #[inline]
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                // No event would tell that the write is to be tried again.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Writes what is in the outbox, as much as the socket takes. Values that are written go to `unpin`.
    pub(super) fn send_outbox(
        &mut self,
        items: &Items,
        counters: &WorkerCounters,
        mut unpin: impl FnMut(Pinned),
    ) -> io::Result<()> {
        while !self.outbox.is_empty() {
            let sent = match self.stream.write_vectored(&self.outbox.slices(items)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            counters.bytes_written.add(sent as u64);
            self.outbox.advance(items, sent, &mut unpin);
        }
        Ok(())
    }
}
