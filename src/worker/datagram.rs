//! Requests over UDP: each datagram is a connection whose other side has sent all it will, and which lasts until its
//! replies are complete. They are sent then, since the number of their datagrams stands in the first of them.
//!
//! Nobody can be made a target with it: the address that a datagram comes from can be forged, so whoever is neither of
//! this machine nor allowed (`--udp-allow`) is sent no more bytes than it has sent. And no two servers can be made to
//! answer each other for ever: a server's own port is nobody's who asks, and neither is a stranger's below 1024.

use super::connection::Connection;
use super::outbox::Outbox;
use super::session::Session;
use super::{UDP, Worker};
use crate::admin::Description;
use crate::clock::Now;
use crate::net::stream::Stream;
use crate::net::udp::{self, DATAGRAM_MAX, HEADER_LEN, UdpSocket};
use crate::protocol::message;
use crate::watch::CloseReason;
use mio::{Interest, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// What is said instead of a reply that is too large, the first one that is not.
const WITHHELD: [&[u8]; 2] = [b"SERVER_ERROR reply too large for UDP\r\n", b"ERROR\r\n"];
/// What is said of a value that goes on behind the end of its datagram. memcached would take the next datagram for it.
const CUT_SHORT: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
/// Ports below are of servers: who asks from there, and is a stranger, is somebody else.
const PORT_MIN: u16 = 1024;

/// A socket of UDP, and what it could not send yet.
#[derive(Debug)]
pub(super) struct UdpEndpoint {
    socket: UdpSocket,
    address: SocketAddr,
    /// There may be more to receive.
    pub(super) readable: bool,
    /// There may be room to send.
    pub(super) writable: bool,
    unsent: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Bytes of those.
    unsent_bytes: usize,
    /// When the last request came.
    active: Now,
}

impl UdpEndpoint {
    /// Its lines of `stats conns`.
    pub(super) fn describe(&self, now: Now) -> Description {
        let fd = self.socket.fd();
        let lines = format!(
            "STAT {fd}:UDP UDP\r\nSTAT {fd}:addr {}\r\nSTAT {fd}:state conn_read\r\nSTAT {fd}:secs_since_last_cmd {}\r\n",
            self.socket,
            now.0.saturating_sub(self.active.0)
        );
        Description { accepts: false, fd, lines }
    }

    /// Sends, or keeps for later, behind what is kept already. False: there is no room for it.
    fn send(&mut self, datagram: &[u8], to: SocketAddr, unsent_max: usize) -> bool {
        if self.unsent.is_empty() {
            match self.socket.send(datagram, to) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Ok(()) => return true,
                Err(error) => {
                    log::debug!("<{} a datagram to {to} could not be sent: {error}", self.socket.fd());
                    return false;
                }
            }
        }
        if self.unsent_bytes + datagram.len() > unsent_max {
            return false;
        }
        self.unsent_bytes += datagram.len();
        self.unsent.push_back((to, datagram.to_vec()));
        true
    }

    /// Sends what was kept, as much as there is room for.
    fn send_unsent(&mut self) {
        while let Some((to, datagram)) = self.unsent.front() {
            match self.socket.send(datagram, *to) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(()) | Err(_) => {
                    self.unsent_bytes -= datagram.len();
                    self.unsent.pop_front();
                }
            }
        }
    }
}

impl Worker<'_> {
    /// Takes requests from these sockets, too.
    ///
    /// # Errors
    /// When they cannot be watched.
    pub fn take_gates(&mut self, sockets: Vec<UdpSocket>) -> io::Result<()> {
        for mut socket in sockets {
            let token = Token(UDP - self.endpoints.len());
            self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
            self.endpoints.push(UdpEndpoint {
                address: socket.address()?,
                socket,
                readable: true,
                writable: true,
                unsent: VecDeque::new(),
                unsent_bytes: 0,
                active: self.now,
            });
        }
        self.gates_ready = !self.endpoints.is_empty();
        Ok(())
    }

    /// Whether a connection is a request of UDP.
    pub(super) fn is_datagram(&self, token: usize) -> bool {
        matches!(self.connections[token].stream, Stream::Datagram(_))
    }

    /// Sends what waits and serves what has come, of each socket so much that the others of the worker get their turns.
    pub(super) fn attend_gates(&mut self) {
        self.gates_ready = false;
        for number in 0..self.endpoints.len() {
            if std::mem::take(&mut self.endpoints[number].writable) {
                self.endpoints[number].send_unsent();
            }
            // Who stops takes nothing new.
            let mut left = if self.stopping.is_some() { 0 } else { self.config().datagrams_per_turn };
            while self.endpoints[number].readable && left > 0 && self.datagrams < self.config().udp_requests_max {
                left -= 1;
                match self.endpoints[number].socket.receive(&mut self.buffer) {
                    Ok((len, peer)) => self.serve_datagram(number, len, peer),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.endpoints[number].readable = false,
                    // What became of a datagram that was sent earlier.
                    Err(error) => log::debug!("<{} {error}", self.endpoints[number].socket.fd()),
                }
            }
            self.gates_ready |= self.endpoints[number].readable && self.stopping.is_none();
        }
    }

    /// Serves a datagram, which is in the buffer.
    fn serve_datagram(&mut self, number: usize, len: usize, peer: SocketAddr) {
        let (counters, config, now) = (self.counters(), self.config(), self.now);
        let endpoint = &mut self.endpoints[number];
        endpoint.active = now;
        counters.bytes_read.add(len as u64);
        let known = peer.ip().to_canonical().is_loopback()
            || config.udp_allow.iter().any(|network| network.contains(peer.ip()));
        let is_client = peer.port() != endpoint.address.port() && (known || peer.port() >= PORT_MIN);
        let Some(id) = udp::request_id(&self.buffer[..len]).filter(|_| is_client) else {
            counters.udp_malformed.add(1);
            return;
        };
        counters.udp_requests.add(1);
        self.buffer.copy_within(HEADER_LEN..len, 0);
        let exchange = udp::Exchange {
            id,
            peer,
            socket: (number, endpoint.socket.fd()),
            reply_max: if known { config.udp_reply_max } else { len },
            replies: Vec::new(),
            overflowed: false,
            drained: false,
        };
        let parser = self.parser(self.config().protocol);
        self.generation += 1;
        let entry = self.connections.vacant_entry();
        let token = entry.key();
        let mut session = Session::new(token, self.generation, parser);
        session.fd = exchange.socket.1;
        session.is_datagram = true;
        entry.insert(Connection {
            stream: Stream::Datagram(Box::new(exchange)),
            session,
            outbox: Outbox::default(),
            input: Vec::new(),
            readable: false,
            hung_up: false,
            ended: true,
            queued: false,
            closing: false,
            broken: false,
            close_reason: CloseReason::default(),
            may_idle_out: false,
            active: now,
        });
        self.datagrams += 1;
        let served = self.serve_input(token, len - HEADER_LEN);
        self.finish_service(token, served);
    }

    /// Sends the replies to a request, now that they are complete. `in_words`: errors may be said in words. `cut_short`:
    /// something was left behind the last whole command.
    pub(super) fn send_datagrams(&mut self, exchange: &mut udp::Exchange, in_words: bool, cut_short: bool) {
        if cut_short && exchange.drained && in_words && !exchange.overflowed {
            exchange.replies.extend_from_slice(CUT_SHORT);
        }
        let mut wire_len = 0;
        let mut rest = &exchange.replies[..];
        while !rest.is_empty() {
            let message_len = message::first_len(rest);
            wire_len += udp::wire_len(message_len);
            rest = &rest[message_len..];
        }
        if exchange.overflowed || wire_len > exchange.reply_max {
            self.counters().udp_replies_withheld.add(1);
            let fits = |text: &&&[u8]| udp::wire_len(text.len()) <= exchange.reply_max;
            if let Some(text) = WITHHELD.iter().find(fits).filter(|_| in_words) {
                self.send_message(exchange, text);
            }
            return;
        }
        let mut rest = &exchange.replies[..];
        while !rest.is_empty() {
            let (message, others) = rest.split_at(message::first_len(rest));
            self.send_message(exchange, message);
            rest = others;
        }
    }

    fn send_message(&mut self, exchange: &udp::Exchange, message: &[u8]) {
        let (counters, unsent_max) = (self.counters(), self.config().output_high_water_bytes);
        let endpoint = &mut self.endpoints[exchange.socket.0];
        let mut buffer = [0; DATAGRAM_MAX];
        let datagrams = udp::datagrams(exchange.id, message).expect("udp_reply_max is less than the header can count");
        for (header, payload) in datagrams {
            let datagram = &mut buffer[..HEADER_LEN + payload.len()];
            datagram[..HEADER_LEN].copy_from_slice(&header);
            datagram[HEADER_LEN..].copy_from_slice(payload);
            if !endpoint.send(datagram, exchange.peer, unsent_max) {
                counters.udp_datagrams_dropped.add(1);
            }
        }
    }
}
