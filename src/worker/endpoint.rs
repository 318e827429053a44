//! The UDP sockets of a worker, and the rules for what is sent from them.
//!
//! Nobody can use them to attack others. The address that a datagram comes from can be forged; so a client that is neither on
//! this machine nor allowed (`--udp-allow`) gets no more bytes than it has sent. And no two servers can be made to answer
//! each other for ever: the server drops datagrams from its own port, and those from ports below 1024 unless the client is
//! on this machine or allowed.

use crate::admin::Description;
use crate::clock::Now;
use crate::counters::WorkerCounters;
use crate::net::udp::{self, DATAGRAM_MAX, HEADER_LEN, UdpSocket};
use crate::protocol::message;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// The errors that are sent instead of a reply that is too large: the first one that is small enough.
const WITHHELD: [&[u8]; 2] = [b"SERVER_ERROR reply too large for UDP\r\n", b"ERROR\r\n"];
/// The error for a value that goes on behind the end of its datagram. memcached would go on with the next datagram.
const CUT_SHORT: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
/// Clients do not send from ports below 1024. Such datagrams are dropped unless their address is allowed.
const PORT_MIN: u16 = 1024;

/// A UDP socket, and the datagrams that it could not send yet.
#[derive(Debug)]
pub(super) struct UdpEndpoint {
    pub(super) socket: UdpSocket,
    address: SocketAddr,
    /// There may be more to receive.
    pub(super) readable: bool,
    /// There may be room to send.
    pub(super) writable: bool,
    unsent: VecDeque<(SocketAddr, Vec<u8>)>,
    /// The number of bytes in `unsent`.
    unsent_bytes: usize,
    /// The time of the last request.
    pub(super) active: Now,
}

/// What may be said about a request apart from its replies.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestEnd {
    /// The request has spoken a text protocol, so that errors can be lines.
    pub(super) is_text: bool,
    /// Something was left behind the last whole command.
    pub(super) is_cut_short: bool,
}

impl UdpEndpoint {
    pub(super) fn new(socket: UdpSocket, now: Now) -> io::Result<UdpEndpoint> {
        Ok(UdpEndpoint {
            address: socket.address()?,
            socket,
            readable: true,
            writable: true,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            active: now,
        })
    }

    /// The lines of `stats conns` about this socket.
    pub(super) fn describe(&self, now: Now) -> Description {
        let fd = self.socket.fd();
        let lines = format!(
            "STAT {fd}:UDP UDP\r\nSTAT {fd}:addr {}\r\nSTAT {fd}:state conn_read\r\nSTAT {fd}:secs_since_last_cmd {}\r\n",
            self.socket,
            now.0.saturating_sub(self.active.0)
        );
        Description { accepts: false, fd, lines }
    }

    /// Whether a datagram may come from a client with this address; `known` if the address is allowed.
    pub(super) fn is_client(&self, peer: SocketAddr, known: bool) -> bool {
        peer.port() != self.address.port() && (known || peer.port() >= PORT_MIN)
    }

    /// Sends a datagram, or keeps it for later behind those that are kept already. Returns false if there is no room for it:
    /// those that are kept have at most `unsent_max` bytes.
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

    /// Sends the datagrams that were kept, as many as there is room for.
    pub(super) fn send_unsent(&mut self) {
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

    /// Sends the replies to a request, which are complete.
    pub(super) fn send_replies(
        &mut self,
        exchange: &mut udp::Exchange,
        end: RequestEnd,
        counters: &WorkerCounters,
        unsent_max: usize,
    ) {
        if end.is_cut_short && exchange.drained && end.is_text && !exchange.overflowed {
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
            counters.udp_replies_withheld.add(1);
            let fits = |text: &&&[u8]| udp::wire_len(text.len()) <= exchange.reply_max;
            if let Some(text) = WITHHELD.iter().find(fits).filter(|_| end.is_text) {
                self.send_message(exchange, text, counters, unsent_max);
            }
            return;
        }
        let mut rest = &exchange.replies[..];
        while !rest.is_empty() {
            let (message, others) = rest.split_at(message::first_len(rest));
            self.send_message(exchange, message, counters, unsent_max);
            rest = others;
        }
    }

    fn send_message(&mut self, exchange: &udp::Exchange, message: &[u8], counters: &WorkerCounters, unsent_max: usize) {
        let mut buffer = [0; DATAGRAM_MAX];
        let datagrams = udp::datagrams(exchange.id, message).expect("udp_reply_max is less than the header can count");
        for (header, payload) in datagrams {
            let datagram = &mut buffer[..HEADER_LEN + payload.len()];
            datagram[..HEADER_LEN].copy_from_slice(&header);
            datagram[HEADER_LEN..].copy_from_slice(payload);
            if !self.send(datagram, exchange.peer, unsent_max) {
                counters.udp_datagrams_dropped.add(1);
            }
        }
    }
}
