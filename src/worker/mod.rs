//! A worker: one event loop on one core. It is the only place that ties sockets, protocols and items together.
//!
//! In a turn, the worker waits for events; reads its mail; serves each connection that is ready (one read, its operations in
//! groups, one write); does a little housekeeping; and posts its batches. Only the first step waits for anything. Every step
//! is bounded, so that no connection can keep another one waiting for longer than the work of a turn.
//!
//! ```text
//!  service  queries  datagram  watch  measure  members    parts of `Worker`: what it does for connections
//!  ──────────────────────────────────────────
//!  Worker                                        its turn, mail, housekeeping
//!  ──────────────────────────────────────────
//!  connection  handshakes  rates  endpoint  walk  meter what a worker holds; none of it knows the worker
//!  serve ─▶ receive ─▶ shards ─▶ execute         input to operations to shards; no I/O
//!    └────▶ sampler ─▶ copies                    looks closer at some operations; the items that it finds hot
//!  trace ─▶ session ─▶ pending    outbox         a connection's state, its replies
//!  mailbox ─▶ batch ─▶ broadcast    uploads      what crosses cores
//! ```

pub mod batch;
pub mod broadcast;
mod connection;
mod copies;
mod datagram;
mod endpoint;
pub mod execute;
mod guard;
mod handshakes;
pub mod limits;
pub mod mailbox;
mod measure;
mod members;
mod meter;
mod outbox;
mod pending;
pub mod pings;
mod queries;
mod rates;
mod receive;
mod sampler;
pub mod serve;
mod service;
pub mod session;
pub mod shards;
#[cfg(all(test, not(loom)))]
mod simulation;
mod trace;
pub mod uploads;
mod walk;
mod watch;

pub use connection::transport;

use crate::admin::{Answer, ServerContext};
use crate::auth::Auth;
use crate::auth::directory::{Attempt, Directory};
use crate::clock::{Clock, Moment, Now};
use crate::command::Reply;
use crate::hash::KeyHasher;
use crate::store::item::Items;
use crate::store::slab::CLASSES_MAX_DEFAULT;
use crate::watch::CloseReason;
use batch::{Batch, Task};
use broadcast::Broadcast;
use connection::Connection;
use copies::{Copies, CopyPolicy};
use endpoint::UdpEndpoint;
use handshakes::Handshakes;
use limits::ServeLimits;
use mailbox::{Exchange, Mail};
use meter::Meter;
use mio::event::Event;
use mio::{Events, Poll, Token, Waker};
use rates::Rates;
use sampler::Sampler;
use serve::Serve;
use shards::{Housekept, Shards};
use slab::Slab;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use walk::LedWalk;

/// The token of the waker. The tokens of connections are their places in the slab.
const WAKER: Token = Token(usize::MAX);

/// The token of the first UDP socket; the others go down from there.
const UDP: usize = usize::MAX - 1;

/// The number of steps of housekeeping that a worker takes in a second, one at the end of each turn. They reach each class of
/// each of its shards several times.
const HOUSEKEEPING_STEPS_PER_SECOND: usize = 256;
/// The same number while more pages are in use than `cache_memlimit` allows: pages must be given back within seconds.
const SHRINKING_STEPS_PER_SECOND: usize = 1024;
/// How long a worker that stops tries to send what is left.
const STOP_TIME: Duration = Duration::from_millis(500);

/// What a worker is made of.
#[derive(Clone)]
pub struct WorkerOptions<'a> {
    /// The number of the worker, from 0.
    pub number: usize,
    /// The shards and workers of the server.
    pub exchange: &'a Exchange,
    /// The rest of the server, as commands of the whole server see it.
    pub context: ServerContext<'a>,
    /// The hash of keys.
    pub hasher: KeyHasher,
    /// The memory of items.
    pub items: Items,
    /// The limits of serving.
    pub limits: ServeLimits,
    /// Called by `shutdown`: tells the main thread, and whether the stop is graceful.
    pub stop: &'a (dyn Fn(bool) + Sync),
    /// Called by `refresh_certs`: asks the main thread.
    pub refresh: &'a (dyn Fn(Arc<Broadcast>) + Sync),
    /// Called by a login: has a password checked that comes from this address. None is that of a Unix socket. False: too many
    /// wait already.
    pub check: &'a (dyn Fn(Arc<Broadcast>, Attempt, Option<IpAddr>) -> bool + Sync),
}

impl std::fmt::Debug for WorkerOptions<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "options of worker {}", self.number)
    }
}

/// What an event says about a token.
#[derive(Clone, Copy, Debug)]
struct Ready {
    token: Token,
    readable: bool,
    writable: bool,
    /// The client sends no more, or the connection is broken.
    closed: bool,
}

impl From<&Event> for Ready {
    fn from(event: &Event) -> Ready {
        Ready {
            token: event.token(),
            readable: event.is_readable(),
            writable: event.is_writable(),
            closed: event.is_read_closed() || event.is_error(),
        }
    }
}

/// One event loop.
#[derive(Debug)]
pub struct Worker<'a> {
    options: WorkerOptions<'a>,
    poll: Poll,
    connections: Slab<Connection>,
    /// The number of connections that the worker has had.
    generation: u64,
    serve: Serve<'a>,
    /// The input that is being served: the rest of the connection's input, and one read behind it.
    buffer: Vec<u8>,
    /// The replies to that input.
    reply: Reply,
    /// The connections that are served in the next turn although no event comes for them.
    queue: Vec<usize>,
    /// The time of this turn.
    now: Now,
    /// The time when the worker was told to stop.
    stopping: Option<Instant>,
    /// The steps of housekeeping that are left to take in this second.
    housekeeping_left: usize,
    /// The steps in a row that have found nothing to do.
    housekeeping_idle: usize,
    /// What the last step of housekeeping found.
    housekept: Housekept,
    /// The UDP sockets.
    endpoints: Vec<UdpEndpoint>,
    /// One of the endpoints may have more to receive.
    endpoints_ready: bool,
    /// The number of connections that are requests over UDP.
    datagrams: usize,
    /// The walk that this worker leads.
    walk: Option<LedWalk>,
    handshakes: Handshakes,
    /// The generation of the users of `--users` that the connections have.
    users_seen: u64,
    rates: Rates,
    /// The times of this turn.
    meter: Meter<'a>,
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
        let mut shards = Shards::new(options.number, options.exchange, clock, options.items.clone(), options.limits);
        shards.count_in(&options.context.workers[options.number]);
        let (measures, measuring) = (&options.context.measures[options.number], &config.measuring);
        let mut serve = Serve::new(shards, options.hasher.clone());
        serve.set_flush_key(config.permissions.flush_prefix_key.as_deref().unwrap_or_default());
        serve.sampler = Sampler::new(&measures.samples, measuring.sample, &options.hasher, options.number);
        if options.exchange.workers() > 1 && !options.limits.keep_keys {
            serve.shards.copies = Copies::new(CopyPolicy::new(config.workers.hot_copies));
        }
        Ok(Worker {
            poll,
            connections: Slab::new(),
            generation: 0,
            serve,
            buffer: vec![0; config.workers.read_buffer_bytes + options.limits.parse.inline_max as usize + 4096],
            reply: Reply::with_capacity(64 << 10),
            queue: Vec::new(),
            now: clock.now(),
            stopping: None,
            housekeeping_left: 0,
            housekeeping_idle: 0,
            housekept: Housekept::Idle,
            endpoints: Vec::new(),
            endpoints_ready: false,
            datagrams: 0,
            walk: None,
            handshakes: Handshakes::default(),
            users_seen: options.context.auth.and_then(Auth::users).map_or(0, Directory::generation),
            rates: Rates::new(config.workers.threads),
            meter: Meter::new(measures, measuring),
            options,
        })
    }

    /// Runs until mail tells the worker to stop.
    ///
    /// # Errors
    /// When waiting for events fails: the worker can serve nothing any more.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(self.config().turn.events);
        loop {
            let timeout = self.rest();
            self.wait(&mut events, timeout)?;
            self.turn(events.iter().map(Ready::from));
            if let Some(since) = self.stopping
                && (self.connections.is_empty() || since.elapsed() > STOP_TIME)
            {
                return Ok(());
            }
        }
    }

    /// Does everything between two waits.
    fn turn(&mut self, events: impl Iterator<Item = Ready>) {
        self.begin_turn();
        let mut has_mail = false;
        while let Some(mail) = self.exchange().next_mail(self.number()) {
            has_mail = true;
            self.open_mail(mail);
        }
        if has_mail {
            self.meter.pass();
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
                self.endpoints_ready = true;
            }
        }
        if !self.rates.is_idle() {
            self.wake_resting();
        }
        for token in std::mem::take(&mut self.queue) {
            if let Some(connection) = self.connections.get_mut(token) {
                connection.queued = false;
                self.service(token);
            }
        }
        self.advance_handshakes();
        if self.endpoints_ready {
            self.service_endpoints();
        }
        if self.stopping.is_some() {
            self.close_answered();
        }
        self.end_turn();
    }

    /// When the server stops: closes the connections that have got replies to everything that they have sent. Those in the
    /// middle of a request have [`STOP_TIME`] to complete it.
    fn close_answered(&mut self) {
        let is_answered = |connection: &Connection| {
            let waits = connection.queued || connection.readable || connection.closing;
            !waits && connection.input.is_empty() && connection.session.is_idle()
        };
        let answered = self.connections.iter().filter(|(_, connection)| is_answered(connection));
        let tokens: Vec<usize> = answered.map(|(token, _)| token).collect();
        for token in tokens {
            self.connections[token].closing = true;
            self.finish_service(token, Ok(()));
        }
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

    /// Returns how long the worker may wait for events. From now on, mail wakes it, until it has waited.
    fn rest(&mut self) -> Duration {
        let is_idle = self.queue.is_empty()
            && self.handshakes.is_empty()
            && !self.endpoints_ready
            && !self.serve.shards.is_busy();
        let is_asleep = is_idle && self.exchange().falls_asleep(self.number());
        let timeout = match (is_asleep, self.stopping, self.housekeeping_left) {
            (false, ..) => Duration::ZERO,
            (_, Some(_), _) => Duration::from_millis(10),
            (_, _, 0) => Duration::from_secs(1),
            _ if self.housekept == Housekept::FoundDead => Duration::ZERO,
            // Housekeeping goes on soon, but requests come first.
            _ => Duration::from_millis(1),
        };
        let timeout = self.crawler_pause().map_or(timeout, |pause| timeout.min(pause));
        if self.rates.is_idle() {
            timeout
        } else {
            timeout.min(self.rates.next_wake(Instant::now()).unwrap_or(timeout))
        }
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
        let moment = Moment::now();
        self.meter.begin_turn(moment);
        let now = self.clock().at(moment);
        // First of all: whoever takes a lease from now on tells its shard this time.
        self.serve.begin(now);
        if now != self.now {
            self.now = now;
            self.tick();
        }
    }

    /// A second has passed.
    fn tick(&mut self) {
        self.housekeeping_left = if self.context().budget.is_exceeded() {
            SHRINKING_STEPS_PER_SECOND
        } else {
            HOUSEKEEPING_STEPS_PER_SECOND
        };
        self.housekeeping_idle = 0;
        let reads = self.serve.shards.tell_reads();
        self.counters().hot_copy_hits.add(reads);
        self.follow_users();
        self.close_silent();
        self.count_buffers();
        self.sample_memory();
    }

    /// Closes connections that are idle, and those with a long value of which nothing comes.
    fn close_silent(&mut self) {
        let idle_max = match self.config().connections.idle_timeout_seconds {
            0 => u32::MAX,
            seconds => seconds,
        };
        let upload_idle_max = self.config().uploads.idle_seconds;
        let (mut idle, mut silent) = (Vec::new(), Vec::new());
        for (token, connection) in &mut self.connections {
            let seconds = self.now.0.saturating_sub(connection.active.0);
            let idle_max = if connection.may_idle_out { idle_max } else { u32::MAX };
            if connection.session.awaits_value() {
                if seconds > upload_idle_max.min(idle_max) || self.serve.shards.is_too_slow(&mut connection.session) {
                    silent.push(token);
                }
            // As in memcached, a client that has not taken all replies yet is not idle. A client that has sent half a line
            // or half a value is.
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
        let (mut held, mut by_tls) = (self.buffer.len(), 0);
        for (_, connection) in &self.connections {
            held += connection.buffered();
            by_tls += connection.buffered_by_tls();
        }
        self.counters().buffer_bytes.set(held as u64);
        self.counters().tls_buffer_bytes.set(by_tls as u64);
    }

    /// Takes some steps of the handshakes that have waited longest.
    fn advance_handshakes(&mut self) {
        for _ in 0..self.config().turn.handshakes {
            let Some(token) = self.handshakes.next() else { return };
            if let Some(connection) = self.connections.get_mut(token) {
                connection.queued = false;
                self.handshakes.has_turn = true;
                self.service(token);
                self.handshakes.has_turn = false;
            }
        }
    }

    fn end_turn(&mut self) {
        let has_worked = self.housekeeping_left > 0 || self.exchange().workers() > 1;
        if self.housekeeping_left > 0 {
            let crawler_on = self.context().settings.lru_crawler.load(Ordering::Relaxed);
            self.housekept = self.serve.shards.housekeep(self.config().turn.housekeeping_items, crawler_on);
            self.housekeeping_left -= usize::from(self.housekept != Housekept::FoundDead);
            self.housekeeping_idle = if self.housekept == Housekept::Idle { self.housekeeping_idle + 1 } else { 0 };
            if self.housekeeping_idle > CLASSES_MAX_DEFAULT {
                // No class has anything to do: the rest of this second needs no housekeeping.
                self.housekeeping_left = 0;
            }
        }
        self.continue_crawl();
        self.serve.shards.flush();
        while let Some(batch) = self.serve.shards.next_done() {
            self.deliver(batch);
        }
        self.tell_watchers();
        self.meter.end_turn(has_worked);
    }

    fn open_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Connection(stream, protocol, seat) => self.welcome(stream, protocol, seat),
            Mail::Batch(batch) => self.serve.shards.returned(batch),
            Mail::Admitted(admission) => {
                let token = admission.ticket.token;
                let session = self.connections.get_mut(token).map(|connection| &mut connection.session);
                if self.serve.shards.admitted(session, &admission) {
                    self.queue_up(token);
                }
            }
            Mail::Broadcast(broadcast) => {
                let descriptions = self.describe_connections();
                self.exchange().answer(&broadcast, Answer::Connections(descriptions));
            }
            Mail::Ask(broadcast) => self.serve.shards.ask_later(&broadcast),
            Mail::Answered(broadcast) => self.report(&broadcast),
            Mail::Watched(token, generation) => self.wake_watcher(token, generation),
            Mail::Watchdog(ping) => self.counters().watchdog_ping.set(ping),
            Mail::Stop => {
                self.stopping = Some(Instant::now());
                let tokens: Vec<usize> = self.connections.iter().map(|(token, _)| token).collect();
                for token in tokens {
                    self.connections[token].begin_stop();
                    self.queue_up(token);
                }
            }
        }
    }

    /// Hands the replies of a batch to their connections.
    fn deliver(&mut self, mut batch: Box<Batch>) {
        let shard = batch.shard;
        for (task, origin, reply) in batch.replies() {
            if let Task::Walk(walk) = task {
                let walk = walk.take().expect("the worker takes it out once");
                self.walk_returns(walk, reply);
            } else if let Some(origin) = origin {
                match self.connections.get_mut(origin.token) {
                    Some(connection) if connection.session.generation == origin.generation => {
                        let session = &mut connection.session;
                        self.serve.shards.deliver(session, task, origin.slot, reply);
                        if !session.pending.is_waiting() {
                            session.pending.move_to(connection.outbox.reply());
                            self.queue_up(origin.token);
                        }
                    }
                    _ => self.serve.shards.discard(shard, task, reply),
                }
            }
        }
        self.serve.shards.recycle(batch);
    }
}
