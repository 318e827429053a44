//! What a worker does for a connection in a turn: one read, its commands, one write.

use super::Worker;
use super::connection::{Connection, send};
use super::outbox::Outbox;
use super::serve::Served;
use super::session::Session;
use crate::command::Reply;
use crate::config::BindingProtocol;
use crate::net::stream::Stream;
use crate::protocol::binary::Access;
use crate::protocol::parser::Parser;
use crate::protocol::{binary, login, text};
use crate::watch::CloseReason;
use mio::{Interest, Token};
use std::io::{self, ErrorKind, IoSliceMut};

impl Worker<'_> {
    pub(super) fn welcome(&mut self, mut stream: Stream, protocol: BindingProtocol) {
        let parser = self.parser(protocol);
        let entry = self.connections.vacant_entry();
        let token = entry.key();
        if let Err(error) =
            self.poll.registry().register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)
        {
            log::error!("a connection could not be watched: {error}");
            self.counters().closed_connections.add(1);
            return;
        }
        let speaks = match protocol {
            BindingProtocol::Auto => "auto-negotiating",
            BindingProtocol::Ascii => "ascii",
            BindingProtocol::Binary => "binary",
        };
        log::debug!("<{} new {speaks} client connection", stream.fd());
        self.generation += 1;
        let may_idle_out = !matches!(stream, Stream::Unix(_));
        let mut session = Session::new(token, self.generation, parser);
        session.fd = stream.fd();
        if let Some(log) = self.serve.log() {
            log.connection_new(stream.peer_address(), stream.is_local(), stream.fd());
        }
        entry.insert(Connection {
            stream,
            session,
            outbox: Outbox::default(),
            input: Vec::new(),
            readable: true,
            hung_up: false,
            ended: false,
            queued: false,
            closing: false,
            broken: false,
            close_reason: CloseReason::default(),
            may_idle_out,
            active: self.now,
        });
        self.queue_up(token);
    }

    /// What a new connection begins with.
    pub(super) fn parser(&self, protocol: BindingProtocol) -> Parser {
        let config = self.config();
        match protocol {
            BindingProtocol::Auto => Parser::Undecided,
            BindingProtocol::Ascii if config.auth_file.is_some() => Parser::Login(login::Parser::default()),
            BindingProtocol::Ascii => Parser::Text(text::Parser::default()),
            BindingProtocol::Binary if config.sasl_password_file.is_some() => {
                Parser::Binary(binary::Parser::new(Access::Locked))
            }
            BindingProtocol::Binary => Parser::Binary(binary::Parser::default()),
        }
    }

    pub(super) fn queue_up(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        if !connection.queued {
            connection.queued = true;
            self.queue.push(token);
        }
    }

    /// Does for a connection what can be done now.
    pub(super) fn service(&mut self, token: usize) {
        let serviced = self.try_service(token);
        self.finish_service(token, serviced);
    }

    /// Closes a connection if nothing is left to be done for it.
    pub(super) fn finish_service(&mut self, token: usize, serviced: io::Result<()>) {
        match serviced {
            Ok(()) => {}
            Err(error) => {
                log::debug!("<{} connection lost: {error}", self.connections[token].stream.fd());
                self.count_failure(token, &error);
                self.connections[token].broken = true;
            }
        }
        let connection = &self.connections[token];
        if connection.broken || connection.closing && connection.is_flushed() && !connection.session.is_waiting() {
            self.close(token);
        }
    }

    fn try_service(&mut self, token: usize) -> io::Result<()> {
        let counters = self.counters();
        let connection = &mut self.connections[token];
        let mut handshaking = false;
        if let Stream::Tls(stream) = &mut connection.stream {
            if !stream.flush()? {
                return Ok(());
            }
            handshaking = stream.is_handshaking();
        }
        if !connection.outbox.is_empty() {
            send(connection, &self.options.items, &mut self.serve, counters)?;
            if !connection.outbox.is_empty() {
                if connection.session.awaits_value() {
                    // It is not read from, but it takes replies, or sends.
                    connection.active = self.now;
                }
                return self.take_in_list(token);
            }
            connection.outbox.shrink();
        }
        if connection.session.watcher().is_some() {
            return self.attend_watcher(token);
        }
        if connection.session.is_dumping() {
            if connection.closing {
                // The server stops: the dump remains a part.
                connection.session.resume();
                self.abandon_walk(token);
            } else {
                self.go_on_walking();
            }
            return Ok(());
        }
        if connection.closing || connection.session.is_waiting() {
            return Ok(());
        }
        if handshaking && !self.shake_hands(token)? {
            return Ok(());
        }
        let connection = &mut self.connections[token];
        if !connection.session.is_idle() {
            connection.active = self.now;
        }
        let kept = connection.input.len().min(self.buffer.len());
        if kept > 0 {
            self.buffer[..kept].copy_from_slice(&connection.input[..kept]);
            connection.input.drain(..kept);
        }
        let mut filled = kept;
        if connection.readable && connection.input.is_empty() {
            if kept == 0 && connection.session.wants_room() {
                self.serve.make_room(&mut connection.session, &mut self.reply);
                if connection.session.is_waiting() {
                    return Ok(());
                }
                // There may be none: then that is said.
                self.send_reply(token)?;
            }
            let came = self.fill(token, kept)?;
            if came > 0 && memchr::memchr(b'\n', &self.buffer[..kept]).is_some() {
                // More of a value that waits in the buffer until it is there whole. Half a line is not enough.
                self.connections[token].active = self.now;
            }
            filled += came;
        }
        if filled == 0 && !self.connections[token].session.owes() {
            let connection = &mut self.connections[token];
            connection.closing |= connection.ended;
            return Ok(());
        }
        self.serve_input(token, filled)
    }

    /// Takes in more of a list of keys while replies to its beginning are not taken: many a client sends all of its list
    /// before it reads, and memcached replies to none of it before its end.
    fn take_in_list(&mut self, token: usize) -> io::Result<()> {
        let most = self.config().list_backlog_max;
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

    /// One read: into the item of a long value that is coming in, and into the buffer behind the `kept` bytes there.
    pub(super) fn fill(&mut self, token: usize, kept: usize) -> io::Result<usize> {
        let counters = self.counters();
        let connection = &mut self.connections[token];
        let items = &self.options.items;
        let end = self.buffer.len().min(kept + self.options.context.config.read_buffer_bytes);
        let rest = &mut self.buffer[kept..end];
        if rest.is_empty() {
            // What is there must be parsed first.
            return Ok(0);
        }
        let (result, room) = match connection.session.room().filter(|_| kept == 0) {
            None => (connection.stream.read(rest), rest.len()),
            Some((mut cursor, last)) => {
                let mut parts = Vec::with_capacity(8);
                let mut direct = 0;
                while cursor.left() > 0 && parts.len() < 15 {
                    let part = items.room(&cursor);
                    let count = part.len();
                    direct += count;
                    parts.push(IoSliceMut::new(part));
                    cursor = items.advance(cursor, count);
                }
                // What comes behind the value, but not what there is no room for yet.
                let complete = cursor.left() == 0 && last;
                let room = direct + if complete { rest.len() } else { 0 };
                if complete {
                    parts.push(IoSliceMut::new(rest));
                }
                let result = connection.stream.read_vectored(&mut parts);
                if let Ok(count) = result
                    && count > 0
                {
                    connection.session.received(items, count.min(direct));
                    counters.bytes_read.add(count as u64);
                    connection.readable = count == room || connection.hung_up || connection.stream.has_ended();
                    let behind = count.saturating_sub(direct);
                    if connection.readable {
                        self.queue_up(token);
                    }
                    return Ok(behind);
                }
                (result, room)
            }
        };
        match result {
            Ok(0) => {
                connection.readable = false;
                connection.ended = true;
                if connection.session.watcher().is_none() {
                    connection.close_reason = CloseReason::Normal;
                }
                Ok(0)
            }
            Ok(count) => {
                // A short read means that the socket is drained: epoll tells when there is more.
                connection.readable = count == room || connection.hung_up || connection.stream.has_ended();
                counters.bytes_read.add(count as u64);
                Ok(count)
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

    /// Serves what is in the buffer, sends the replies, and keeps what is left of the input.
    pub(super) fn serve_input(&mut self, token: usize, filled: usize) -> io::Result<()> {
        let alone = self.connections.len() == 1;
        let counters = self.counters();
        let mut at = 0;
        loop {
            let connection = &mut self.connections[token];
            let input = &mut self.buffer[..filled];
            let served = self.serve.serve(&mut connection.session, input, &mut at, &mut self.reply, alone);
            if let yields @ 1.. = self.serve.take_yields() {
                counters.conn_yields.add(yields as u64);
            }
            match served {
                Served::Admin(line) => {
                    self.administer(token, line);
                    if self.connections[token].closing || self.connections[token].session.is_waiting() {
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
                    connection.closing = true;
                    if matches!(connection.session.parser(), Parser::Binary(parser) if parser.has_quit()) {
                        connection.close_reason = CloseReason::Normal;
                    }
                    break;
                }
                Served::Drained => {
                    if !connection.input.is_empty() {
                        // The rest of a long list.
                        self.queue_up(token);
                        break;
                    }
                    if connection.ended {
                        // Half a command is left at most.
                        connection.closing = true;
                        if let Stream::Datagram(exchange) = &mut connection.stream {
                            exchange.drained = true;
                        }
                    }
                    if connection.readable {
                        self.queue_up(token);
                    }
                    break;
                }
                Served::Waiting => {
                    // If it is not its own replies that are waited for, nobody else will take it up again.
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

    /// Sends the replies to what was just served; what the socket does not take is kept.
    fn send_reply(&mut self, token: usize) -> io::Result<()> {
        if self.reply.is_empty() {
            return Ok(());
        }
        let counters = self.counters();
        let connection = &mut self.connections[token];
        if self.reply.pinned.is_empty() {
            let result = loop {
                match connection.stream.write(self.reply.out.bytes()) {
                    // No event would tell that it is to be tried again.
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    result => break result,
                }
            };
            let sent = match result {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => {
                    self.reply.out.clear();
                    return Err(error);
                }
            };
            counters.bytes_written.add(sent as u64);
            let len = self.reply.out.len();
            if sent < len {
                connection.outbox.reply().append(&self.reply, sent, len);
            }
            self.reply.out.clear();
            return Ok(());
        }
        std::mem::swap(connection.outbox.reply(), &mut self.reply);
        send(connection, &self.options.items, &mut self.serve, counters)?;
        if connection.outbox.is_empty() {
            // The buffer comes back for the next connection.
            std::mem::swap(connection.outbox.reply(), &mut self.reply);
            connection.outbox.shrink();
        } else if self.reply.out.is_empty() {
            self.reply = Reply::with_capacity(64 << 10);
        }
        Ok(())
    }

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
            self.serve.unpin(pinned);
        }
        if connection.session.is_dumping() {
            self.abandon_walk(token);
        }
        if let Some(watcher) = connection.session.watcher() {
            self.context().settings.watchers.remove(watcher);
        }
        if let Some(log) = self.serve.log()
            && !matches!(connection.stream, Stream::Datagram(_))
        {
            let stream = &connection.stream;
            log.connection_close(stream.peer_address(), stream.is_local(), connection.close_reason, stream.fd());
        }
        let in_words = !matches!(connection.session.parser(), Parser::Binary(_));
        let cut_short = connection.session.is_receiving() || memchr::memchr(b'\n', &connection.input).is_some();
        self.serve.end(connection.session);
        match connection.stream {
            Stream::Datagram(mut exchange) => {
                self.datagrams -= 1;
                self.send_datagrams(&mut exchange, in_words, cut_short);
            }
            _ => self.counters().closed_connections.add(1),
        }
    }
}
