//! What a worker does for a connection in a turn: one read, the commands in it, one write.

use super::Worker;
use super::connection::{Connection, transport};
use super::endpoint::RequestEnd;
use super::handshakes;
use super::serve::{Input, Served, Turn};
use super::session::{Member, Session};
use crate::command::Reply;
use crate::config::BindingProtocol;
use crate::net::seats::Seat;
use crate::net::stream::Stream;
use crate::protocol::binary;
use crate::protocol::binary::Access;
use crate::protocol::parser::Parser;
use mio::{Interest, Token};
use std::io::{self, ErrorKind};

/// Bytes that the first read behind a long value brings at most. If the next command has a long value as well, all but
/// these come into its item without a copy.
const FIRST_READ: usize = 4096;

impl Worker<'_> {
    /// Takes in a new connection.
    pub(super) fn welcome(&mut self, mut stream: Stream, protocol: BindingProtocol, seat: Option<Seat>) {
        let (member, access) = self.first_member(Member::enter);
        let entry = self.connections.vacant_entry();
        let token = entry.key();
        if let Err(error) =
            self.poll.registry().register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)
        {
            log::error!("a connection could not be watched: {error}");
            self.counters().count_closed(transport(&stream));
            return;
        }
        let speaks = match protocol {
            BindingProtocol::Auto => "auto-negotiating",
            BindingProtocol::Ascii => "ascii",
            BindingProtocol::Binary => "binary",
        };
        log::debug!("<{} new {speaks} client connection", stream.fd());
        self.generation += 1;
        let mut session = Session::new(token, self.generation, Worker::parser(protocol, access));
        session.access = access;
        session.fd = stream.fd();
        if let Some(member) = member {
            session.become_member(member);
        }
        if let Some(log) = self.serve.shards.log() {
            log.connection_new(stream.peer_address(), stream.is_local(), stream.fd());
        }
        entry.insert(Connection::new(stream, session, seat, self.now));
        self.queue_up(token);
    }

    /// The parser that a new connection with this access begins with.
    pub(super) fn parser(protocol: BindingProtocol, access: Access) -> Parser {
        match protocol {
            BindingProtocol::Auto => Parser::Undecided,
            BindingProtocol::Ascii => Parser::text(access),
            BindingProtocol::Binary => Parser::Binary(binary::Parser::new(access)),
        }
    }

    /// Serves a connection in the next turn, whether or not an event comes for it.
    pub(super) fn queue_up(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        if !connection.queued {
            connection.queued = true;
            self.queue.push(token);
        }
    }

    /// Does for a connection what can be done now.
    pub(super) fn service(&mut self, token: usize) {
        if self.connections[token].session.member.is_some() {
            return self.service_member(token);
        }
        let serviced = self.try_service(token);
        self.measure_service(token);
        self.finish_service(token, serviced);
    }

    /// The same for a user of `--users`, whose refusals are counted, and who may have a rate.
    #[inline(never)]
    fn service_member(&mut self, token: usize) {
        let before = self.bytes_of_rated(token);
        let serviced = self.try_service(token);
        if let Some(before) = before {
            self.charge(token, before);
        }
        self.measure_service(token);
        self.note_refusals(token);
        self.finish_service(token, serviced);
    }

    /// Closes a connection if nothing is left to be done for it.
    #[inline]
    pub(super) fn finish_service(&mut self, token: usize, serviced: io::Result<()>) {
        let counters = self.counters();
        let connection = &mut self.connections[token];
        if let Err(error) = serviced {
            log::debug!("<{} connection lost: {error}", connection.stream.fd());
            handshakes::count_failure(connection, &error, counters, self.serve.shards.log());
            connection.broken = true;
        }
        if connection.is_over() {
            self.close(token);
        } else {
            connection.invariants();
        }
    }

    fn try_service(&mut self, token: usize) -> io::Result<()> {
        let counters = self.counters();
        let mut connection = &mut self.connections[token];
        let mut is_handshaking = false;
        if let Stream::Tls(stream) = &mut connection.stream {
            if !stream.flush()? {
                return Ok(());
            }
            is_handshaking = stream.is_handshaking();
        }
        if !connection.outbox.is_empty() {
            self.send_outbox(token)?;
            connection = &mut self.connections[token];
            if !connection.outbox.is_empty() {
                if connection.session.awaits_value() {
                    // The worker does not read from the client; but the client takes replies, or sends.
                    connection.active = self.now;
                }
                return self.take_in_list(token);
            }
            connection.outbox.shrink();
        }
        if connection.session.watcher().is_some() {
            return self.service_watcher(token);
        }
        if connection.session.is_dumping() {
            if connection.closing {
                // The server stops: the client has got only a part of the dump.
                connection.session.resume();
                self.abandon_walk(token);
            } else {
                self.continue_walk();
            }
            return Ok(());
        }
        if connection.closing || connection.session.is_waiting() {
            return Ok(());
        }
        if is_handshaking {
            if !self.handshakes.step(token, connection, counters)? {
                return Ok(());
            }
            if !self.recognize(token) {
                return Ok(());
            }
            connection = &mut self.connections[token];
        }
        if !connection.session.is_idle() {
            connection.active = self.now;
        }
        if connection.session.member.is_some() && self.rests(token) {
            return Ok(());
        }
        self.read_and_serve(token)
    }

    /// Reads once, and serves what has come.
    #[inline(always)]
    fn read_and_serve(&mut self, token: usize) -> io::Result<()> {
        let connection = &mut self.connections[token];
        let kept = connection.input.len().min(self.buffer.len());
        if kept > 0 {
            self.buffer[..kept].copy_from_slice(&connection.input[..kept]);
            connection.input.drain(..kept);
        }
        let mut filled = kept;
        if connection.readable && connection.input.is_empty() {
            if kept == 0 && connection.session.wants_room() {
                self.serve.shards.make_room(&mut connection.session, &mut self.reply);
                if connection.session.is_waiting() {
                    return Ok(());
                }
                // If there is no memory, the reply says so.
                self.send_reply(token)?;
            }
            let came = self.fill(token, kept)?;
            if came > 0 && memchr::memchr(b'\n', &self.buffer[..kept]).is_some() {
                // The buffer holds a line and a part of its value, and more of the value has come. Half a line does not
                // count.
                self.connections[token].active = self.now;
            }
            filled += came;
        }
        if filled == 0 && !self.connections[token].session.owes() {
            let connection = &mut self.connections[token];
            connection.closing |= connection.ended;
            return Ok(());
        }
        if self.connections[token].session.is_at_command() {
            self.meter.input_len = filled;
        }
        self.serve_input(token, filled)
    }

    /// Takes in more of a list of keys while the client does not take the replies to its beginning. Many a client sends all of
    /// its list before it reads, because memcached does not reply before the end of the list.
    fn take_in_list(&mut self, token: usize) -> io::Result<()> {
        let most = self.config().connections.list_backlog_max;
        let connection = &self.connections[token];
        let in_list = matches!(connection.session.parser(), Parser::Text(parser) if parser.is_in_list());
        let wanted = in_list && connection.input.len() < most && memchr::memchr(b'\n', &connection.input).is_none();
        if !wanted || !connection.readable || connection.closing {
            return Ok(());
        }
        let count = self.fill(token, 0)?;
        let connection = &mut self.connections[token];
        connection.input.extend_from_slice(&self.buffer[..count]);
        if connection.readable {
            self.queue_up(token);
        }
        Ok(())
    }

    /// Reads once: into the item of a long value that is under way, and into the buffer behind the `kept` bytes there.
    /// Returns the number of bytes that are new in the buffer.
    pub(super) fn fill(&mut self, token: usize, kept: usize) -> io::Result<usize> {
        let counters = self.counters();
        let connection = &mut self.connections[token];
        let mut most = self.options.context.config.workers.read_buffer_bytes;
        if std::mem::take(&mut connection.session.expects_value) {
            most = most.min(FIRST_READ);
        }
        let end = self.buffer.len().min(kept + most);
        let rest = &mut self.buffer[kept..end];
        if rest.is_empty() {
            // The input in the buffer must be parsed first.
            return Ok(0);
        }
        let room = connection.session.room().filter(|_| kept == 0);
        let read = match room {
            None => connection.read(rest),
            Some(room) => connection.read_value(room, &self.options.items, rest),
        };
        match read {
            Ok(read) => {
                counters.bytes_read.add(read.count as u64);
                if room.is_some() && connection.readable {
                    // Nothing may be left to serve, and no event tells that there is more.
                    self.queue_up(token);
                }
                Ok(read.buffered)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                connection.readable = false;
                Ok(0)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.queue_up(token);
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Serves what is in the buffer, sends the replies, and keeps the rest of the input.
    pub(super) fn serve_input(&mut self, token: usize, filled: usize) -> io::Result<()> {
        let turn = if self.connections.len() == 1 { Turn::Alone } else { Turn::Shared };
        let counters = self.counters();
        let mut at = 0;
        loop {
            let connection = &mut self.connections[token];
            let mut input = Input { bytes: &mut self.buffer[..filled], at };
            let served = self.serve.serve(&mut connection.session, &mut input, &mut self.reply, turn);
            at = input.at;
            if let yields @ 1.. = self.serve.take_yields() {
                counters.conn_yields.add(yields as u64);
            }
            match served {
                Served::Admin(line) => {
                    self.administer(token, line);
                    let connection = &self.connections[token];
                    if connection.closing || connection.session.is_waiting() {
                        break;
                    }
                }
                Served::Full => {
                    self.send_reply(token)?;
                    if !self.connections[token].outbox.is_empty() {
                        break;
                    }
                }
                Served::Yield => {
                    self.queue_up(token);
                    break;
                }
                Served::Close => {
                    connection.begin_close();
                    break;
                }
                Served::Drained => {
                    if connection.drained() {
                        self.queue_up(token);
                    }
                    break;
                }
                Served::Waiting => {
                    // If the connection does not wait for its own replies, no mail will come for it.
                    if !connection.session.is_waiting() {
                        self.queue_up(token);
                    }
                    break;
                }
            }
        }
        let connection = &mut self.connections[token];
        if at > 0 {
            connection.active = self.now;
        }
        if at < filled {
            connection.input.splice(..0, self.buffer[at..filled].iter().copied());
        } else if connection.input.capacity() > 0 && connection.input.is_empty() {
            connection.input = Vec::new();
        }
        self.send_reply(token)?;
        if self.connections[token].outbox.is_empty() { Ok(()) } else { self.take_in_list(token) }
    }

    /// Sends the replies to what was just served. What the socket does not take goes to the outbox.
    fn send_reply(&mut self, token: usize) -> io::Result<()> {
        if self.reply.is_empty() {
            return Ok(());
        }
        let counters = self.counters();
        let connection = &mut self.connections[token];
        if self.reply.pinned.is_empty() {
            let sent = connection.write(self.reply.out.bytes()).inspect_err(|_| self.reply.out.clear())?;
            counters.bytes_written.add(sent as u64);
            let len = self.reply.out.len();
            if sent < len {
                connection.outbox.reply().append(&self.reply, sent, len);
            }
            self.reply.out.clear();
            return Ok(());
        }
        std::mem::swap(connection.outbox.reply(), &mut self.reply);
        self.send_outbox(token)?;
        let connection = &mut self.connections[token];
        if connection.outbox.is_empty() {
            // The next connection uses the buffer again.
            std::mem::swap(connection.outbox.reply(), &mut self.reply);
            connection.outbox.shrink();
        } else if self.reply.out.is_empty() {
            self.reply = Reply::with_capacity(64 << 10);
        }
        Ok(())
    }

    /// Writes what is in the outbox of a connection, as much as the socket takes.
    pub(super) fn send_outbox(&mut self, token: usize) -> io::Result<()> {
        let counters = self.counters();
        let shards = &mut self.serve.shards;
        self.connections[token].send_outbox(&self.options.items, counters, |pinned| shards.unpin(pinned))
    }

    /// Closes a connection, and gives up everything that it holds.
    pub(super) fn close(&mut self, token: usize) {
        let mut connection = self.connections.remove(token);
        log::debug!("<{} connection closed.", connection.stream.fd());
        if let Stream::Tls(stream) = &mut connection.stream
            && !connection.broken
        {
            stream.send_close_notify();
        }
        if let Err(error) = self.poll.registry().deregister(&mut connection.stream) {
            log::warn!("a connection could not be let go of: {error}");
        }
        for pinned in connection.outbox.take().pinned {
            self.serve.shards.unpin(pinned);
        }
        if connection.session.is_dumping() {
            self.abandon_walk(token);
        }
        if let Some(watcher) = connection.session.watcher() {
            self.context().settings.watchers.remove(watcher);
        }
        if let Some(log) = self.serve.shards.log()
            && !connection.is_datagram()
        {
            let stream = &connection.stream;
            log.connection_close(stream.peer_address(), stream.is_local(), connection.close_reason, stream.fd());
        }
        let end = RequestEnd {
            is_text: !matches!(connection.session.parser(), Parser::Binary(_)),
            is_cut_short: connection.session.is_receiving() || memchr::memchr(b'\n', &connection.input).is_some(),
        };
        self.serve.shards.end(connection.session);
        let counters = self.counters();
        let transport = transport(&connection.stream);
        match connection.stream {
            Stream::Datagram(mut exchange) => {
                self.datagrams -= 1;
                let unsent_max = self.config().connections.output_high_water_bytes;
                self.endpoints[exchange.socket.0].send_replies(&mut exchange, end, counters, unsent_max);
            }
            _ => counters.count_closed(transport),
        }
    }
}
