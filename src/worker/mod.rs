//! A worker: one event loop on one core, the only place that ties sockets, words and items together.
//!
//! A turn: wait for events; read the mail; serve each connection that is ready (one read, its operations in groups, one
//! write); send batches on their way; a little housekeeping. Nothing in a turn waits for anything but the first step, and
//! each part of it is bounded, so that no connection can keep another waiting for longer than a turn's work.

pub mod batch;
pub mod broadcast;
mod connection;
mod crawl;
mod datagram;
pub mod execute;
mod handshakes;
pub mod limits;
pub mod mailbox;
mod outbox;
mod pending;
mod queries;
mod receive;
pub mod serve;
mod service;
mod session;
mod shards;
#[cfg(all(test, not(loom)))]
mod simulation;
mod trace;
pub mod uploads;
mod watch;

use crate::admin::{Answer, ServerContext};
use crate::clock::{Clock, Now};
use crate::command::Reply;
use crate::hash::KeyHasher;
use crate::store::item::Items;
use crate::store::slab::CLASSES_MAX;
use crate::watch::CloseReason;
use batch::{Batch, Task};
use broadcast::Broadcast;
use connection::Connection;
use crawl::Crawl;
use datagram::UdpEndpoint;
use limits::ServeLimits;
use mailbox::{Exchange, Mail};
use mio::event::Event;
use mio::{Events, Poll, Token, Waker};
use serve::Serve;
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
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
}
