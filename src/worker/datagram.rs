//! Requests over UDP: each datagram is a connection whose client has sent everything, and which lasts until its replies are
//! complete. They are sent only then, because the first datagram of a reply says how many there are. See `endpoint.rs` for
//! the rules.

use super::connection::Connection;
use super::endpoint::UdpEndpoint;
use super::session::{Member, Session};
use super::{UDP, Worker};
use crate::net::stream::Stream;
use crate::net::udp::{self, HEADER_LEN, UdpSocket};
use mio::{Interest, Token};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

impl Worker<'_> {
    /// Gives the worker UDP sockets to serve.
    ///
    /// # Errors
    /// When they cannot be registered for events.
    pub fn take_udp_sockets(&mut self, sockets: Vec<UdpSocket>) -> io::Result<()> {
        for mut socket in sockets {
            let token = Token(UDP - self.endpoints.len());
            self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
            self.endpoints.push(UdpEndpoint::new(socket, self.now)?);
        }
        self.endpoints_ready = !self.endpoints.is_empty();
        Ok(())
    }

    /// Sends what waits and serves what has come. The worker receives a limited number of datagrams from each socket in a
    /// turn, so that its other connections have their turns, too.
    pub(super) fn service_endpoints(&mut self) {
        self.endpoints_ready = false;
        for number in 0..self.endpoints.len() {
            if std::mem::take(&mut self.endpoints[number].writable) {
                self.endpoints[number].send_unsent();
            }
            // A worker that stops takes no new requests.
            let mut left = if self.stopping.is_some() { 0 } else { self.config().turn.datagrams };
            while self.endpoints[number].readable && left > 0 && self.datagrams < self.config().udp.requests_max {
                left -= 1;
                match self.endpoints[number].socket.receive(&mut self.buffer) {
                    Ok((len, peer)) => self.serve_datagram(number, len, peer),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.endpoints[number].readable = false,
                    // The error is about a datagram that was sent earlier.
                    Err(error) => log::debug!("<{} {error}", self.endpoints[number].socket.fd()),
                }
            }
            self.endpoints_ready |= self.endpoints[number].readable && self.stopping.is_none();
        }
    }

    /// Serves a datagram, which is in the buffer.
    fn serve_datagram(&mut self, number: usize, len: usize, peer: SocketAddr) {
        let (counters, config, now) = (self.counters(), self.config(), self.now);
        let endpoint = &mut self.endpoints[number];
        endpoint.active = now;
        counters.bytes_read.add(len as u64);
        let known = peer.ip().to_canonical().is_loopback()
            || config.udp.allow.iter().any(|network| network.contains(peer.ip()));
        let is_client = endpoint.is_client(peer, known);
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
            reply_max: if known { config.udp.reply_max } else { len },
            replies: Vec::new(),
            overflowed: false,
            drained: false,
        };
        let (member, access) = self.first_member(|user| Some(Member::of_datagram(user)));
        let parser = Worker::parser(self.config().listen.protocol, access);
        self.generation += 1;
        let entry = self.connections.vacant_entry();
        let token = entry.key();
        let mut session = Session::new(token, self.generation, parser);
        session.fd = exchange.socket.1;
        session.is_datagram = true;
        session.access = access;
        if let Some(member) = member {
            session.become_member(member);
        }
        entry.insert(Connection::new(Stream::Datagram(Box::new(exchange)), session, None, now));
        self.datagrams += 1;
        let served = self.serve_input(token, len - HEADER_LEN);
        self.measure_service(token);
        self.note_refusals(token);
        self.finish_service(token, served);
    }
}
