//! A worker: one event loop on one core, the only place that ties sockets, words and items together.
//!
//! A turn: wait for events; read the mail; serve each connection that is ready (one read, its operations in groups, one
//! write); send batches on their way; a little housekeeping. Nothing in a turn waits for anything but the first step, and
//! each part of it is bounded, so that no connection can keep another waiting for longer than a turn's work.

pub mod broadcast;
mod crawl;
mod datagram;
pub mod mailbox;
mod outbox;
mod pending;
pub mod serve;
#[cfg(all(test, not(loom)))]
mod simulation;
mod trace;
pub mod uploads;
mod watch;

use crate::clock::{Clock, Now};
use crate::command::admin::{self, Action, Answer, Description, Query, ServerContext};
use crate::command::walk::WalkKind;
use crate::command::watch::CloseReason;
use crate::command::{self, Pinned, Reply, binary as packets};
use crate::config::BindingProtocol;
use crate::hash::KeyHasher;
use crate::net::stream::Stream;
use crate::protocol::binary::Access;
use crate::protocol::parser::Parser;
use crate::protocol::{Span, binary, login, text};
use crate::store::item::Items;
use crate::store::slab::CLASSES_MAX;
use broadcast::Broadcast;
use crawl::Crawl;
use datagram::UdpEndpoint;
use mailbox::{Batch, Exchange, Mail, Task};
use mio::event::Event;
use mio::{Events, Interest, Poll, Token, Waker};
use outbox::Outbox;
use serve::{Serve, ServeLimits, Served, Session};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The token of the waker; connections have those of their places in the slab.
const WAKER: Token = Token(usize::MAX);

/// The token of the first UDP socket; the others go down from there.
const UDP: usize = usize::MAX - 1;

/// Steps of housekeeping that a worker takes in a second, one at the end of a turn: each class of each of its shards is
/// reached several times.
const HOUSEKEEPING_STEPS_PER_SECOND: usize = 256;
/// The same while more pages are in use than `cache_memlimit` allows: they are to be given back within seconds.
const SHRINKING_STEPS_PER_SECOND: usize = 1024;
/// How long a worker that stops tries to send what is left.
const STOP_TIME: Duration = Duration::from_millis(500);

/// What a worker is given.
#[derive(Clone)]
pub struct WorkerOptions<'a> {
    /// Its number, from 0.
    pub number: usize,
    /// Where shards and workers meet.
    pub exchange: &'a Exchange,
    /// What commands of the whole server see.
    pub context: ServerContext<'a>,
    /// The hash of keys.
    pub hasher: KeyHasher,
    /// The memory of items.
    pub items: Items,
    /// Limits of serving.
    pub limits: ServeLimits,
    /// What `shutdown` does: tells the main thread.
    pub stop: &'a (dyn Fn(bool) + Sync),
    /// What `refresh_certs` does: asks the main thread.
    pub refresh: &'a (dyn Fn(Arc<Broadcast>) + Sync),
}

impl std::fmt::Debug for WorkerOptions<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "options of worker {}", self.number)
    }
}

/// What an event tells of a token.
#[derive(Clone, Copy, Debug)]
struct Ready {
    token: Token,
    readable: bool,
    writable: bool,
    /// The other side sends no more, or the connection is broken.
    closed: bool,
}

impl Ready {
    fn of(event: &Event) -> Ready {
        Ready {
            token: event.token(),
            readable: event.is_readable(),
            writable: event.is_writable(),
            closed: event.is_read_closed() || event.is_error(),
        }
    }
}

/// A connection of a worker.
#[derive(Debug)]
struct Connection {
    stream: Stream,
    session: Session,
    outbox: Outbox,
    /// Input that is not parsed yet. Seldom any between turns.
    input: Vec<u8>,
    /// The socket may have more to read.
    readable: bool,
    /// The other side sends no more: what is there is to be read to its end.
    hung_up: bool,
    /// All that the other side has sent was read: what is there is to be served to its end.
    ended: bool,
    /// It is in the list of those to be served without an event, or of those whose handshake waits.
    queued: bool,
    /// To be closed once everything is sent.
    closing: bool,
    /// The other side has closed, or the connection is broken: nothing can be sent.
    broken: bool,
    /// Why it closes, if it does.
    close_reason: CloseReason,
    /// Closed by `idle_timeout`, if there is one: TCP only.
    may_idle_out: bool,
    /// When it last had a command served, or something came that a command was waiting for, as the bytes of a value: a line
    /// that comes byte by byte does not count before its end, nor does a handshake.
    active: Now,
}

impl Connection {
    /// Bytes that it holds.
    fn buffered(&self) -> usize {
        let sealed = if let Stream::Tls(stream) = &self.stream { stream.buffered() } else { 0 };
        self.input.capacity() + self.outbox.len() + sealed
    }

    /// Nothing is left to be sent.
    fn is_flushed(&self) -> bool {
        self.outbox.is_empty() && if let Stream::Tls(stream) = &self.stream { stream.is_flushed() } else { true }
    }
}

/// One event loop.
#[derive(Debug)]
pub struct Worker<'a> {
    options: WorkerOptions<'a>,
    poll: Poll,
    connections: Slab<Connection>,
    generation: u64,
    serve: Serve<'a>,
    /// One read goes in here, behind what was left of the connection's input.
    buffer: Vec<u8>,
    /// Replies to what one connection sent.
    reply: Reply,
    /// Connections to be served in the next turn although no event will tell.
    queue: Vec<usize>,
    now: Now,
    stopping: Option<Instant>,
    /// Steps of housekeeping left to take in this second.
    housekeeping_left: usize,
    /// Steps in a row that found nothing to do.
    housekeeping_idle: usize,
    /// Where requests over UDP come in.
    endpoints: Vec<UdpEndpoint>,
    /// One of the endpoints may have more to receive.
    gates_ready: bool,
    /// Requests over UDP among the connections.
    datagrams: usize,
    /// The walk that it leads; in a whole server there is at most one.
    crawl: Option<Crawl>,
    /// Connections whose TLS handshake can go a step further, in the order in which that came about.
    handshakes: VecDeque<usize>,
    /// It is the turn of one of these.
    shaking: bool,
}

impl<'a> Worker<'a> {
    /// A worker with an event loop of its own.
    ///
    /// # Errors
    /// When the system has no descriptors for it.
    pub fn new(options: WorkerOptions<'a>) -> io::Result<Worker<'a>> {
        let poll = Poll::new()?;
        options.exchange.set_waker(options.number, Waker::new(poll.registry(), WAKER)?);
        let (clock, config) = (options.context.clock, options.context.config);
        let serve = Serve::new(
            options.number,
            options.exchange,
            clock,
            options.hasher.clone(),
            options.items.clone(),
            options.limits,
        );
        Ok(Worker {
            poll,
            connections: Slab::new(),
            generation: 0,
            serve,
            buffer: vec![0; config.read_buffer_bytes + options.limits.parse.inline_max as usize + 4096],
            reply: Reply::with_capacity(64 << 10),
            queue: Vec::new(),
            now: clock.now(),
            stopping: None,
            housekeeping_left: 0,
            housekeeping_idle: 0,
            endpoints: Vec::new(),
            gates_ready: false,
            datagrams: 0,
            crawl: None,
            handshakes: VecDeque::new(),
            shaking: false,
            options,
        })
    }

    /// Runs until it is told to stop by mail.
    ///
    /// # Errors
    /// When waiting for events fails: nothing can be served any more.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(self.config().poll_events_len);
        loop {
            let timeout = self.rest();
            self.wait(&mut events, timeout)?;
            self.turn(events.iter().map(Ready::of));
            if let Some(since) = self.stopping
                && (self.connections.is_empty() || since.elapsed() > STOP_TIME)
            {
                return Ok(());
            }
        }
    }

    /// All that is to be done between two waits.
    fn turn(&mut self, events: impl Iterator<Item = Ready>) {
        self.begin_turn();
        while let Some(mail) = self.exchange().next_mail(self.number()) {
            self.open_mail(mail);
        }
        for event in events {
            if event.token == WAKER {
                continue;
            }
            let token = event.token.0;
            if let Some(connection) = self.connections.get_mut(token) {
                connection.hung_up |= event.closed;
                connection.readable |= event.readable || connection.hung_up;
                if !connection.queued {
                    self.service(token);
                }
            } else if let Some(endpoint) = self.endpoints.get_mut(UDP.wrapping_sub(token)) {
                endpoint.readable |= event.readable;
                endpoint.writable |= event.writable;
                self.gates_ready = true;
            }
        }
        for token in std::mem::take(&mut self.queue) {
            if let Some(connection) = self.connections.get_mut(token) {
                connection.queued = false;
                self.service(token);
            }
        }
        self.advance_handshakes();
        if self.gates_ready {
            self.attend_gates();
        }
        self.end_turn();
    }

    fn number(&self) -> usize {
        self.options.number
    }

    fn exchange(&self) -> &'a Exchange {
        self.options.exchange
    }

    fn context(&self) -> ServerContext<'a> {
        self.options.context
    }

    fn config(&self) -> &'a crate::config::Config {
        self.options.context.config
    }

    fn counters(&self) -> &'a crate::counters::WorkerCounters {
        &self.options.context.workers[self.options.number]
    }

    fn clock(&self) -> &'a Clock {
        self.options.context.clock
    }

    /// Says how long it may wait for events. Others wake it from now on, until it has waited.
    fn rest(&mut self) -> Duration {
        let idle = self.queue.is_empty() && self.handshakes.is_empty() && !self.gates_ready && !self.serve.is_busy();
        let asleep = idle && self.exchange().falls_asleep(self.number());
        let timeout = match (asleep, self.stopping, self.housekeeping_left) {
            (false, ..) => Duration::ZERO,
            (_, Some(_), _) => Duration::from_millis(10),
            (_, _, 0) => Duration::from_secs(1),
            // There is something to tidy up: soon, but not in the way of requests.
            _ => Duration::from_millis(1),
        };
        self.crawler_pause().map_or(timeout, |pause| timeout.min(pause))
    }

    fn wait(&mut self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        let result = self.poll.poll(events, Some(timeout));
        self.exchange().wakes_up(self.number());
        match result {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn begin_turn(&mut self) {
        self.look_for_watchers();
        let now = self.clock().now();
        if now != self.now {
            self.now = now;
            self.tick();
        }
        self.serve.begin(now);
    }

    /// A second has passed.
    fn tick(&mut self) {
        self.housekeeping_left = if self.context().budget.is_exceeded() {
            SHRINKING_STEPS_PER_SECOND
        } else {
            HOUSEKEEPING_STEPS_PER_SECOND
        };
        self.housekeeping_idle = 0;
        self.close_silent();
        self.count_buffers();
    }

    /// Closes connections that are idle, and those in the middle of a long value of which nothing comes.
    fn close_silent(&mut self) {
        let idle_max = match self.config().idle_timeout_seconds {
            0 => u32::MAX,
            seconds => seconds,
        };
        let upload_idle_max = self.config().upload_idle_seconds;
        let (mut idle, mut silent) = (Vec::new(), Vec::new());
        for (token, connection) in &mut self.connections {
            let seconds = self.now.0.saturating_sub(connection.active.0);
            let idle_max = if connection.may_idle_out { idle_max } else { u32::MAX };
            if connection.session.awaits_value() {
                if seconds > upload_idle_max.min(idle_max) || self.serve.is_too_slow(&mut connection.session) {
                    silent.push(token);
                }
            // As in memcached, who has not taken all replies yet is not idle; half a line is, and so is half a value.
            } else if seconds > idle_max && connection.session.is_idle() && connection.is_flushed() {
                idle.push(token);
            }
        }
        for token in idle {
            self.counters().idle_kicks.add(1);
            self.connections[token].close_reason = CloseReason::IdleTimeout;
            self.close(token);
        }
        for token in silent {
            self.counters().uploads_timed_out.add(1);
            self.connections[token].close_reason = CloseReason::IdleTimeout;
            self.close(token);
        }
    }

    fn count_buffers(&self) {
        let held: usize = self.connections.iter().map(|(_, connection)| connection.buffered()).sum();
        self.counters().buffer_bytes.set((held + self.buffer.len()) as u64);
    }

    fn end_turn(&mut self) {
        if self.housekeeping_left > 0 {
            let crawler_on = self.context().settings.lru_crawler.load(Ordering::Relaxed);
            let busy = self.serve.housekeep(self.config().housekeeping_items_per_turn, crawler_on);
            self.housekeeping_left -= 1;
            self.housekeeping_idle = if busy { 0 } else { self.housekeeping_idle + 1 };
            if self.housekeeping_idle > CLASSES_MAX {
                // Every class was looked at in vain: enough for this second.
                self.housekeeping_left = 0;
            }
        }
        self.crawl();
        self.serve.flush();
        while let Some(batch) = self.serve.next_done() {
            self.deliver(batch);
        }
        self.tell_watchers();
    }

    fn open_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Connection(stream, protocol) => self.welcome(stream, protocol),
            Mail::Batch(batch) => self.serve.returned(batch),
            Mail::Admitted(admission) => {
                let token = admission.ticket.token;
                let session = self.connections.get_mut(token).map(|connection| &mut connection.session);
                if self.serve.admitted(session, &admission) {
                    self.queue_up(token);
                }
            }
            Mail::Broadcast(broadcast) => {
                let descriptions = self.describe_connections();
                broadcast.answer(self.exchange(), Answer::Connections(descriptions));
            }
            Mail::Answered(broadcast) => self.report(&broadcast),
            Mail::Watched(token, generation) => self.wake_watcher(token, generation),
            Mail::Watchdog(letter) => self.counters().watchdog_letter.set(letter),
            Mail::Stop => {
                self.stopping = Some(Instant::now());
                let tokens: Vec<usize> = self.connections.iter().map(|(token, _)| token).collect();
                for token in tokens {
                    self.connections[token].closing = true;
                    self.connections[token].close_reason = CloseReason::Shutdown;
                    self.queue_up(token);
                }
            }
        }
    }

    fn welcome(&mut self, mut stream: Stream, protocol: BindingProtocol) {
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
    fn parser(&self, protocol: BindingProtocol) -> Parser {
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

    fn queue_up(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        if !connection.queued {
            connection.queued = true;
            self.queue.push(token);
        }
    }

    /// Does for a connection what can be done now.
    fn service(&mut self, token: usize) {
        let serviced = self.try_service(token);
        self.finish_service(token, serviced);
    }

    /// Closes a connection if nothing is left to be done for it.
    fn finish_service(&mut self, token: usize, serviced: io::Result<()>) {
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

    /// Lets some handshakes go a step further, those that have waited longest. They cost a hundred times what a request
    /// costs, and must not hold up those who are done with theirs.
    fn advance_handshakes(&mut self) {
        for _ in 0..self.config().tls_handshakes_per_turn {
            let Some(token) = self.handshakes.pop_front() else { return };
            if let Some(connection) = self.connections.get_mut(token) {
                connection.queued = false;
                self.shaking = true;
                self.service(token);
                self.shaking = false;
            }
        }
    }

    /// A step of a TLS handshake, when it is its turn. True: the handshake is done.
    fn shake_hands(&mut self, token: usize) -> io::Result<bool> {
        let counters = self.counters();
        let connection = &mut self.connections[token];
        let Stream::Tls(stream) = &mut connection.stream else { return Ok(true) };
        if !connection.readable {
            return Ok(false);
        }
        if !self.shaking {
            if !connection.queued {
                connection.queued = true;
                self.handshakes.push_back(token);
            }
            return Ok(false);
        }
        let done = stream.handshake()?;
        if !done {
            connection.readable = false;
        } else {
            log::debug!(
                "<{} TLS session {}",
                stream.socket().as_raw_fd(),
                if stream.is_resumed() { "resumed" } else { "begun" }
            );
            if !stream.is_resumed() {
                counters.ssl_new_sessions.add(1);
            }
        }
        Ok(done)
    }

    /// A connection is lost: if TLS is what failed, that is counted and told.
    fn count_failure(&mut self, token: usize, error: &io::Error) {
        let counters = self.counters();
        let Stream::Tls(stream) = &self.connections[token].stream else { return };
        let (fails, counter) = if stream.is_handshaking() {
            (error.kind() != ErrorKind::ConnectionAborted, &counters.ssl_handshake_errors)
        } else {
            let fails = matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof);
            (fails, &counters.ssl_proto_errors)
        };
        if fails {
            counter.add(1);
            if let Some(log) = self.serve.log() {
                log.connection_tls_error(stream.socket().as_raw_fd(), error);
            }
        }
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
    fn fill(&mut self, token: usize, kept: usize) -> io::Result<usize> {
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
    fn serve_input(&mut self, token: usize, filled: usize) -> io::Result<()> {
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

    /// A command of the connection or of the whole cache. All before it has been answered.
    fn administer(&mut self, token: usize, line: Span) {
        let line = line.of(&self.buffer);
        let context = ServerContext { uploads: self.exchange().upload_use(), ..self.context() };
        if trace::is_on() {
            trace::admin(&self.connections[token].session, line);
        }
        let plan = match self.connections[token].session.parser() {
            Parser::Binary(parser) => packets::plan(line, parser.access(), &context),
            Parser::Login(_) => command::login::plan(line, &context),
            Parser::Undecided | Parser::Text(_) => admin::plan(line, &context),
        };
        if cfg!(feature = "debug-commands") {
            // `debugtime` holds for what comes after it in the same turn. The turn itself keeps its time: no connection
            // is closed for idling while one is being served.
            self.serve.begin(self.clock().now());
        }
        match plan {
            Action::Say(text) => self.reply.out.put(&text),
            Action::Quit => {
                self.connections[token].closing = true;
                self.connections[token].close_reason = CloseReason::Normal;
            }
            Action::Access(access, text) => {
                self.connections[token].session.set_access(access);
                self.reply.out.put(&text);
            }
            Action::Walk(walk) if walk.kind != WalkKind::Crawl && self.is_datagram(token) => {
                // More than fits, for longer than it lasts. memcached says nothing at all.
                self.reply.out.put(b"CLIENT_ERROR not over UDP\r\n");
            }
            Action::Walk(walk) => self.begin_walk(token, walk),
            Action::Watch(_) if self.is_datagram(token) => self.reply.out.put(b"CLIENT_ERROR not over UDP\r\n"),
            Action::Watch(categories) => self.begin_watching(token, categories),
            Action::Stop { graceful } => {
                self.connections[token].closing = true;
                self.connections[token].close_reason = CloseReason::Shutdown;
                (self.options.stop)(graceful);
            }
            Action::Ask(query, report) => {
                let session = &mut self.connections[token].session;
                session.begin_query();
                let connection = (token, session.generation);
                let (exchange, number) = (self.exchange(), self.number());
                if matches!(query, Query::RefreshCertificates) {
                    (self.options.refresh)(Broadcast::new(query, report, number, connection, 1));
                } else if matches!(query, Query::Connections) {
                    let broadcast = Broadcast::new(query, report, number, connection, exchange.workers());
                    for worker in 0..exchange.workers() {
                        exchange.mail(worker, Mail::Broadcast(Arc::clone(&broadcast)));
                    }
                } else {
                    let broadcast = Broadcast::new(query, report, number, connection, exchange.shards());
                    self.serve.ask_shards(&broadcast);
                }
            }
        }
    }

    /// A query of one of its connections has been answered by all.
    fn report(&mut self, broadcast: &Broadcast) {
        let (token, generation) = broadcast.connection;
        let Some(connection) = self.connections.get_mut(token).filter(|other| other.session.generation == generation)
        else {
            return;
        };
        let mut answers = broadcast.answers();
        if let Some(query) = admin::go_on(&broadcast.query, &mut answers) {
            let shards = self.exchange().shards();
            self.serve.ask_shards_later(&broadcast.again(query, answers, shards));
            return;
        }
        connection.session.resume();
        let text = admin::finish(&broadcast.report, answers, &self.options.context);
        connection.outbox.reply().out.put(&text);
        self.queue_up(token);
    }

    /// Hands the replies of a batch to their connections.
    fn deliver(&mut self, mut batch: Box<Batch>) {
        let mut from = 0;
        for ((task, origin), &to) in batch.tasks.iter_mut().zip(&batch.ends) {
            if let Task::Walk(walk) = task {
                let walk = walk.take().expect("it is taken out once");
                self.walk_returns(walk, &batch.reply.out.bytes()[from..to]);
            } else if let Some(origin) = origin {
                match self.connections.get_mut(origin.token) {
                    Some(connection) if connection.session.generation == origin.generation => {
                        let session = &mut connection.session;
                        self.serve.deliver(session, task, origin.slot, &batch.reply, from, to);
                        if !session.pending.is_waiting() {
                            session.pending.settle(connection.outbox.reply());
                            self.queue_up(origin.token);
                        }
                    }
                    _ => self.serve.discard(batch.shard, task, &batch.reply, from, to),
                }
            }
            from = to;
        }
        self.serve.recycle(batch);
    }

    fn close(&mut self, token: usize) {
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

    /// The lines of `stats conns` about its connections.
    fn describe_connections(&self) -> Vec<Description> {
        let mut descriptions = Vec::new();
        // Worker 0 reports the listeners.
        for (fd, address) in self.context().listeners.iter().filter(|_| self.number() == 0) {
            let lines = format!(
                "STAT {fd}:addr {address}\r\nSTAT {fd}:state conn_listening\r\nSTAT {fd}:secs_since_last_cmd {}\r\n",
                self.clock().age(self.now)
            );
            descriptions.push(Description { accepts: true, fd: *fd, lines });
        }
        descriptions.extend(self.endpoints.iter().map(|endpoint| endpoint.describe(self.now)));
        for (_, connection) in &self.connections {
            if matches!(connection.stream, Stream::Datagram(_)) {
                // The endpoint stands for it.
                continue;
            }
            let fd = connection.stream.fd();
            let listens = !connection.session.is_dumping() && connection.session.watcher().is_none();
            let writes = listens && !connection.outbox.is_empty();
            let is_next = connection.queued || connection.session.is_waiting();
            let state = if writes { "conn_mwrite" } else { connection.session.state_name(&connection.input, is_next) };
            let idle = self.now.0.saturating_sub(connection.active.0);
            let lines = format!(
                "STAT {fd}:addr {}\r\nSTAT {fd}:listen_addr {}\r\nSTAT {fd}:state {state}\r\n\
                 STAT {fd}:secs_since_last_cmd {idle}\r\n",
                connection.stream.peer(),
                connection.stream.local(),
            );
            descriptions.push(Description { accepts: false, fd, lines });
        }
        descriptions
    }
}

/// Writes what a connection has to send, as much as the socket takes.
fn send(
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
