//! A connection under TLS: a non-blocking socket and a rustls session, read and written as a plain socket is.
//!
//! ```text
//!   read ◀── plain ◀── session ◀── incoming ◀── recv        plain: decrypted, not yet asked for
//!  write ──▶           session ──▶ unsent   ──▶ send        incoming: a record, or a message, that is not whole yet
//! ```
//! The worker may rely on the rules of plain sockets. A read that does not fill its buffer has drained the socket, so
//! that an event announces further bytes (but see [`TlsStream::has_ended`]). A write that takes only a part has filled
//! the socket. The worker must also do two things. It calls [`TlsStream::flush`] first, and leaves the connection alone
//! until that has sent everything. It calls [`TlsStream::handshake`] until the handshake is done.
//!
//! Limits: `incoming` holds at most [`TlsLimits::incoming_max`] bytes. `unsent` holds the bytes that one step seals
//! ([`TlsLimits::seal_max`]), or the answer of a handshake. `plain` holds at most one record more than the reader asked
//! for. Between requests all three are empty and hold no memory. For this the session is of rustls' unbuffered kind,
//! which opens and seals records in buffers of the thread.

use super::socket::receive;
use super::verifier;
use mio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustls::HandshakeKind;
use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::sync::Arc;

/// Bytes of ciphertext that one call receives, at most and at least. The minimum saves calls when buffers are small.
const RECEIVE_MAX: usize = 64 << 10;
const RECEIVE_MIN: usize = 4 << 10;
/// Plaintext in one record, at most (RFC 8446, 5.1).
const RECORD_MAX: usize = 16 << 10;
/// A record is longer than its plaintext by less than this: header, content type, nonce, tag.
const RECORD_OVERHEAD: usize = 64;
/// Room for a message that a session sends before application data: a key update.
const CONTROL_MAX: usize = 512;

/// How many bytes a connection under TLS may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsLimits {
    /// Bytes of a record, or of a handshake message over several records, that are not whole yet.
    pub incoming_max: usize,
    /// Bytes of plaintext that are sealed before they are sent.
    pub seal_max: usize,
}

impl Default for TlsLimits {
    fn default() -> TlsLimits {
        TlsLimits { incoming_max: 64 << 10, seal_max: 64 << 10 }
    }
}

/// The buffers that all connections of a thread share.
#[derive(Debug, Default)]
struct Scratch {
    incoming: Vec<u8>,
    gathered: Vec<u8>,
    sealed: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The result of one `recv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Received {
    /// The room was filled: more bytes may wait.
    Full,
    /// The room was not filled: the socket is drained, but may have ended.
    Short,
    /// No bytes, or the end of the stream.
    Nothing,
}

/// A TCP connection under TLS.
pub struct TlsStream {
    socket: TcpStream,
    session: UnbufferedServerConnection,
    limits: TlsLimits,
    /// Received bytes of a record, or of a handshake message, that is not complete.
    incoming: Vec<u8>,
    plain: Vec<u8>,
    /// Bytes of `plain` that were read. Invariant: `plain_at <= plain.len()`, and both are 0 if they are equal.
    plain_at: usize,
    unsent: Vec<u8>,
    /// Bytes of `unsent` that were sent. Invariant: as that of `plain_at`.
    unsent_at: usize,
    /// Bytes were received.
    has_begun: bool,
    /// The peer sends no more.
    ended: bool,
    /// An error of reading. The reader gets it after the bytes that came before it.
    failure: Option<io::Error>,
    /// The session is broken.
    failed: bool,
}

impl TlsStream {
    /// Takes a socket that was accepted; nothing is sent or received yet.
    ///
    /// # Errors
    /// When the configuration is not fit for a server.
    pub fn new(socket: TcpStream, config: Arc<ServerConfig>, limits: TlsLimits) -> io::Result<TlsStream> {
        Ok(TlsStream {
            socket,
            session: UnbufferedServerConnection::new(config).map_err(invalid)?,
            limits,
            incoming: Vec::new(),
            plain: Vec::new(),
            plain_at: 0,
            unsent: Vec::new(),
            unsent_at: 0,
            has_begun: false,
            ended: false,
            failure: None,
            failed: false,
        })
    }

    /// The TCP socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The names in the client's certificate, which is verified: its common names, and its alternative names of hosts. None
    /// without a certificate, or before the end of the handshake.
    pub fn client_names(&self) -> Vec<String> {
        let certificate = self.session.peer_certificates().and_then(|chain| chain.first());
        certificate.map_or_else(Vec::new, |certificate| verifier::names(certificate))
    }

    /// The TCP socket, to register it for events.
    pub fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Whether the handshake is not done yet.
    pub fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Whether all sealed bytes were sent.
    pub fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Whether the handshake resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.session.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether the next read reports the end or an error, though no event may announce it.
    pub fn has_ended(&self) -> bool {
        self.ended || self.failure.is_some()
    }

    /// Bytes that the stream holds besides the session.
    pub fn buffered(&self) -> usize {
        self.incoming.capacity() + self.plain.capacity() + self.unsent.capacity()
    }

    /// Sends the sealed bytes that were not sent yet. False: the socket is full.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn flush(&mut self) -> io::Result<bool> {
        while self.unsent_at < self.unsent.len() {
            match send(&self.socket, &self.unsent[self.unsent_at..])? {
                0 => return Ok(false),
                count => self.unsent_at += count,
            }
        }
        if self.unsent_at > 0 {
            self.unsent = Vec::new();
            self.unsent_at = 0;
        }
        Ok(true)
    }

    /// Continues the handshake with the bytes that have arrived. True: it is done, and bytes behind it can be read.
    ///
    /// # Errors
    /// `InvalidData` for a handshake that the configuration does not allow; `UnexpectedEof`, or the socket's error, if
    /// the peer breaks it off; `ConnectionAborted` if the peer never began it.
    pub fn handshake(&mut self) -> io::Result<bool> {
        while self.is_handshaking() {
            match self.fill(&mut Target::new(&mut [])) {
                Ok(Received::Nothing) if !self.ended => return Ok(false),
                Ok(Received::Nothing) if self.has_begun => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(Received::Nothing) => return Err(ErrorKind::ConnectionAborted.into()),
                Err(_) if !self.has_begun => return Err(ErrorKind::ConnectionAborted.into()),
                result => result?,
            };
        }
        Ok(true)
    }

    /// Reads the bytes that have arrived, as `recv` does. 0: the peer has closed the connection.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has arrived, or only a part of a record; those of the socket; `InvalidData` for bytes
    /// that are not TLS as agreed.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buffer)])
    }

    /// As `read`, into several buffers.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut target = Target::new(buffers);
        self.plain_at += target.put(&self.plain[self.plain_at..]);
        if self.plain_at == self.plain.len() && self.plain_at > 0 {
            self.plain = Vec::new();
            self.plain_at = 0;
        }
        while target.left > 0 && !self.has_ended() && !self.failed {
            match self.fill(&mut target) {
                Ok(Received::Full) => {}
                // Only a part of a record has arrived: the next `recv` must find out whether the socket has more.
                Ok(Received::Short) if target.filled == 0 => {}
                Ok(Received::Short | Received::Nothing) => break,
                Err(error) => self.failure = Some(error),
            }
        }
        match target.filled {
            0 => match self.failure.take() {
                Some(error) => Err(error),
                None if self.ended => Ok(0),
                None if self.failed => Err(ErrorKind::InvalidData.into()),
                None => Err(ErrorKind::WouldBlock.into()),
            },
            count => Ok(count),
        }
    }

    /// Receives once, and processes the records that are complete.
    fn fill(&mut self, target: &mut Target<'_, '_>) -> io::Result<Received> {
        SCRATCH.with_borrow_mut(|scratch| {
            let kept = self.incoming.len();
            let room = target.left.clamp(RECEIVE_MIN, RECEIVE_MAX);
            if scratch.incoming.len() < kept + room {
                scratch.incoming.resize(kept + room, 0);
            }
            let buffer = &mut scratch.incoming[..kept + room];
            let count = match receive(&self.socket, &mut buffer[kept..]) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(Received::Nothing);
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Received::Full),
                Err(error) => return Err(error),
            };
            self.has_begun = true;
            buffer[..kept].copy_from_slice(&self.incoming);
            let filled = kept + count;
            let result = self.process(&mut buffer[..filled], target);
            self.failed = result.is_err();
            // This sends the answer of a handshake, or an alert.
            self.flush()?;
            let rest = &buffer[result?..filled];
            if rest.len() > self.limits.incoming_max {
                self.failed = true;
                return Err(io::Error::new(ErrorKind::InvalidData, "a message of the handshake is too long"));
            }
            if rest.is_empty() {
                self.incoming = Vec::new();
            } else {
                self.incoming.clear();
                self.incoming.extend_from_slice(rest);
            }
            Ok(if count == room { Received::Full } else { Received::Short })
        })
    }

    /// Processes all complete records of the input, and returns the number of their bytes.
    fn process(&mut self, input: &mut [u8], target: &mut Target<'_, '_>) -> io::Result<usize> {
        let mut used = 0;
        loop {
            // The session remembers offsets of this input between calls, so it must always see all bytes that it has
            // not discarded.
            let UnbufferedStatus { mut discard, state } = self.session.process_tls_records(&mut input[used..]);
            let mut waits = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        discard += record.discard;
                        let taken = target.put(record.payload);
                        self.plain.extend_from_slice(&record.payload[taken..]);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => queue(&mut data, &mut self.unsent)?,
                // The bytes are sent in this order, so they count as sent.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => {
                    waits = true;
                }
                // Early data is not enabled, because it could be replayed.
                Ok(_) => return Err(ErrorKind::InvalidData.into()),
                Err(error) => {
                    used += discard;
                    self.queue_alert(&mut input[used..])?;
                    return Err(invalid(error));
                }
            }
            used += discard;
            if waits {
                return Ok(used);
            }
        }
    }

    /// Queues the alert that a session may have to send after an error. The session allows nothing else then.
    fn queue_alert(&mut self, input: &mut [u8]) -> io::Result<()> {
        let mut used = 0;
        while self.session.wants_write() {
            let UnbufferedStatus { discard, state } = self.session.process_tls_records(&mut input[used..]);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { break };
            queue(&mut data, &mut self.unsent)?;
            used += discard;
        }
        Ok(())
    }

    /// Seals and writes as much as the socket has room for.
    ///
    /// # Errors
    /// `WouldBlock` when the socket has no room.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    /// As `write`, from several buffers. The buffers share records.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.failed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if self.is_handshaking() || !self.flush()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        SCRATCH.with_borrow_mut(|Scratch { gathered, sealed, .. }| {
            let mut source = Source::new(buffers);
            while !source.is_empty() && self.unsent.is_empty() {
                let len = self.seal(&mut source, gathered, sealed)?;
                let mut sent = 0;
                while sent < len {
                    match send(&self.socket, &sealed[sent..len])? {
                        0 => break,
                        count => sent += count,
                    }
                }
                self.unsent.extend_from_slice(&sealed[sent..len]);
            }
            Ok(source.taken)
        })
    }

    /// Seals at most `seal_max` bytes, and returns the length of the sealed bytes.
    fn seal(&mut self, source: &mut Source<'_>, gathered: &mut Vec<u8>, sealed: &mut Vec<u8>) -> io::Result<usize> {
        let limit = source.taken + self.limits.seal_max;
        let mut len = 0;
        loop {
            match self.session.process_tls_records(&mut self.incoming).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => len += encode(&mut data, sealed, len)?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    while source.taken < limit && !source.is_empty() {
                        let part = source.next(limit - source.taken, gathered);
                        let overhead = part.len().div_ceil(RECORD_MAX) * RECORD_OVERHEAD + CONTROL_MAX;
                        let room = room(sealed, len, part.len() + overhead);
                        // This fails when the key has reached its limits (TLS 1.2), or when the overhead is larger than
                        // assumed.
                        len += traffic.encrypt(part, room).map_err(io::Error::other)?;
                    }
                    return Ok(len);
                }
                Ok(_) => return Err(ErrorKind::BrokenPipe.into()),
                Err(error) => return Err(invalid(error)),
            }
        }
    }

    /// Tells the peer that the connection ends, if the socket has room for the alert.
    pub fn send_close_notify(&mut self) {
        if self.failed || self.is_handshaking() || !self.flush().is_ok_and(|sent| sent) {
            return;
        }
        while let Ok(state) = self.session.process_tls_records(&mut self.incoming).state {
            match state {
                ConnectionState::EncodeTlsData(mut data) => {
                    if queue(&mut data, &mut self.unsent).is_err() {
                        return;
                    }
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(mut traffic) => {
                    let mut alert = [0; CONTROL_MAX];
                    if let Ok(count) = traffic.queue_close_notify(&mut alert) {
                        self.unsent.extend_from_slice(&alert[..count]);
                    }
                    // The peer may have closed the connection already. Then it does not need the alert.
                    let _ = self.flush();
                    return;
                }
                _ => return,
            }
        }
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.is_handshaking() { "handshaking" } else { "open" };
        write!(formatter, "TLS over {:?}, {state}", self.socket)
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// Sends as much as the socket has room for. 0: it is full.
fn send(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(count) => return Ok(count),
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The part of a buffer behind its first `len` bytes: at least `count` bytes.
fn room(buffer: &mut Vec<u8>, len: usize, count: usize) -> &mut [u8] {
    if buffer.len() < len + count {
        buffer.resize(len + count, 0);
    }
    &mut buffer[len..]
}

/// Writes a message of the session behind the first `len` bytes of a buffer, and returns the message's length.
fn encode<T>(data: &mut EncodeTlsData<'_, T>, buffer: &mut Vec<u8>, len: usize) -> io::Result<usize> {
    // An empty buffer is the only way to ask for the length.
    match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => {
            data.encode(room(buffer, len, size.required_size)).map_err(io::Error::other)
        }
        Err(error @ EncodeError::AlreadyEncoded) => Err(io::Error::other(error)),
        Ok(count) => Ok(count),
    }
}

/// Appends a message of the session to the bytes that are to be sent.
fn queue<T>(data: &mut EncodeTlsData<'_, T>, unsent: &mut Vec<u8>) -> io::Result<()> {
    let len = unsent.len();
    encode(data, unsent, len).map(|_| ())
}

/// The buffers that receive plaintext.
struct Target<'a, 'b> {
    buffers: &'a mut [IoSliceMut<'b>],
    /// The first buffer that is not full, and the number of bytes in it.
    index: usize,
    at: usize,
    filled: usize,
    left: usize,
}

impl<'a, 'b> Target<'a, 'b> {
    fn new(buffers: &'a mut [IoSliceMut<'b>]) -> Target<'a, 'b> {
        let left = buffers.iter().map(|buffer| buffer.len()).sum();
        Target { buffers, index: 0, at: 0, filled: 0, left }
    }

    /// Copies as many bytes as the buffers have room for, and returns their number.
    fn put(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && self.left > 0 {
            let buffer = &mut self.buffers[self.index][self.at..];
            let count = buffer.len().min(bytes.len() - taken);
            buffer[..count].copy_from_slice(&bytes[taken..taken + count]);
            taken += count;
            self.at += count;
            self.filled += count;
            self.left -= count;
            if self.at == self.buffers[self.index].len() {
                self.index += 1;
                self.at = 0;
            }
        }
        taken
    }
}

/// The buffers that plaintext is taken from.
struct Source<'a> {
    buffers: &'a [IoSlice<'a>],
    /// The first buffer that is not used up, and the number of bytes used of it.
    index: usize,
    at: usize,
    taken: usize,
}

impl<'a> Source<'a> {
    fn new(buffers: &'a [IoSlice<'a>]) -> Source<'a> {
        let mut source = Source { buffers, index: 0, at: 0, taken: 0 };
        source.step(0);
        source
    }

    fn is_empty(&self) -> bool {
        self.index == self.buffers.len()
    }

    /// Returns the next bytes, at most `limit`. If the current buffer fills a record or is the last one, they are a
    /// part of it. Otherwise they come from several buffers, at most a record.
    fn next<'c>(&mut self, limit: usize, gathered: &'c mut Vec<u8>) -> &'c [u8]
    where
        'a: 'c,
    {
        let buffers: &'a [IoSlice<'a>] = self.buffers;
        let rest = &buffers[self.index][self.at..];
        if rest.len() >= RECORD_MAX || self.index + 1 == buffers.len() {
            // Take whole records. If the rest is shorter than a record, take all of it.
            let whole = if rest.len() >= RECORD_MAX { rest.len() / RECORD_MAX * RECORD_MAX } else { rest.len() };
            let part = &rest[..whole.min(limit)];
            self.step(part.len());
            return part;
        }
        gathered.clear();
        while !self.is_empty() && gathered.len() < limit.min(RECORD_MAX) {
            let rest = &buffers[self.index][self.at..];
            let part = &rest[..rest.len().min(limit.min(RECORD_MAX) - gathered.len())];
            gathered.extend_from_slice(part);
            self.step(part.len());
        }
        gathered
    }

    fn step(&mut self, count: usize) {
        self.taken += count;
        self.at += count;
        while self.index < self.buffers.len() && self.at == self.buffers[self.index].len() {
            self.index += 1;
            self.at = 0;
        }
    }
}
