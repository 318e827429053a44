//! The main thread: it accepts connections and gives each to a worker.

use super::bind::BoundListener;
use super::users::read_users;
use crate::admin::Answer;
use crate::auth::Auth;
use crate::clock::Clock;
use crate::config::Config;
use crate::counters::{ServerCounters, WorkerCounters};
use crate::net::certificates::{Certificates, Verify};
use crate::net::queues::Queues;
use crate::net::stream::Stream;
use crate::process::supervisor::Watchdog;
use crate::worker::broadcast::Broadcast;
use crate::worker::mailbox::{Exchange, Mail};
use core_affinity::CoreId;
use crossbeam::queue::SegQueue;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGHUP, SIGUSR1};
use signal_hook_mio::v1_0::Signals;
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Tokens of the main thread's poll; listeners have those from 0.
const SIGNALS: Token = Token(usize::MAX);
pub(super) const REQUESTS: Token = Token(usize::MAX - 1);

/// How long accepting rests before it looks again, when there are no descriptors left, or with `-o no_maxconns_fast` as
/// many connections as `-c` allows. memcached looks as often.
const ACCEPT_REST: Duration = Duration::from_millis(10);

/// Connections that a worker may have because it is near, while others have none.
const NEAR_CONNECTIONS: u64 = 4;

/// What a client is told that is one too many.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// What came of accepting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepted {
    /// Nobody waits any more.
    All,
    /// There may be more.
    Some,
    /// The system refuses for now.
    Refused,
}

/// The main thread's part.
pub(super) struct Acceptor<'a> {
    pub(super) config: &'a Config,
    pub(super) auth: Option<&'a Auth>,
    pub(super) exchange: &'a Exchange,
    pub(super) workers: &'a [WorkerCounters],
    pub(super) server: &'a ServerCounters,
    /// The cores that workers are pinned to, in turn; none if they are not.
    pub(super) cores: &'a [CoreId],
    pub(super) clock: &'a Clock,
    /// `refresh_certs` of connections.
    pub(super) refreshes: &'a SegQueue<Arc<Broadcast>>,
    /// There if somebody wants to know whether all workers live.
    pub(super) watchdog: Option<Watchdog<'a>>,
    pub(super) listeners: Vec<BoundListener>,
    pub(super) udp_sockets: usize,
    /// There with TLS.
    pub(super) certificates: Option<Certificates>,
    /// There with `-N`.
    pub(super) queues: Option<RefCell<Queues>>,
    pub(super) poll: Poll,
}

impl Acceptor<'_> {
    /// Accepts until a signal or `shutdown` comes; the listeners are closed then. Says whether the end is to be graceful.
    pub(super) fn run(
        mut self,
        mut signals: Signals,
        stopped: &AtomicBool,
        gracefully: &AtomicBool,
    ) -> io::Result<bool> {
        self.poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        for (at, BoundListener { listener, .. }) in self.listeners.iter_mut().enumerate() {
            self.poll.registry().register(listener, Token(at), Interest::READABLE)?;
        }
        self.server.certificates_read.set(u64::from(self.clock.now().0));
        // As memcached counts: each socket of each worker.
        let sockets = (self.listeners.len() + self.udp_sockets) as u64;
        self.server.listeners.set(sockets);
        self.server.total_connections.add(sockets);
        let mut events = Events::with_capacity(64);
        // Listeners that may have more to accept.
        let mut ready: Vec<usize> = Vec::new();
        // Since when accepting rests, and how much of that is counted.
        let mut resting: Option<Instant> = None;
        loop {
            let timeout = match (ready.is_empty(), resting) {
                (true, _) => None,
                (false, Some(_)) => Some(ACCEPT_REST),
                (false, None) => Some(Duration::ZERO),
            };
            let timeout = self.feed_watchdog().into_iter().chain(timeout).min();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    SIGNALS => {
                        // Whoever sends USR1 and then, to be sure, TERM wants the first (`ExecStop=` of systemd).
                        let mut stops = false;
                        for signal in signals.pending() {
                            match signal {
                                SIGHUP => self.reload(),
                                _ => {
                                    log::info!("signal {signal}: stopping");
                                    gracefully.fetch_or(signal == SIGUSR1, Ordering::Relaxed);
                                    stops = true;
                                }
                            }
                        }
                        if stops {
                            return Ok(gracefully.load(Ordering::Relaxed));
                        }
                    }
                    REQUESTS => {}
                    Token(at) if !ready.contains(&at) => ready.push(at),
                    Token(_) => {}
                }
            }
            if stopped.load(Ordering::Relaxed) {
                log::info!("shutdown: stopping");
                return Ok(gracefully.load(Ordering::Relaxed));
            }
            while let Some(broadcast) = self.refreshes.pop() {
                broadcast.answer(self.exchange, Answer::Refreshed(self.refresh_certificates()));
            }
            let mut refused = false;
            ready.retain(|&at| match self.accept_some(at) {
                Accepted::All => false,
                Accepted::Some => true,
                Accepted::Refused => {
                    refused = true;
                    true
                }
            });
            resting = self.rest(resting, refused);
        }
    }

    /// Asks the workers whether they live, and tells. Gives the time until it is to be done again, if ever.
    fn feed_watchdog(&mut self) -> Option<Duration> {
        let watchdog = self.watchdog.as_mut()?;
        let (exchange, workers) = (self.exchange, self.workers);
        let send = |letter| (0..workers.len()).for_each(|worker| exchange.mail(worker, Mail::Watchdog(letter)));
        watchdog.look(Instant::now(), workers.iter().map(|worker| worker.watchdog_letter.get()), send);
        Some(watchdog.wait(Instant::now()))
    }

    /// Begins, counts or ends a rest: as in memcached, one rest is one count of `listen_disabled_num`, however long.
    fn rest(&self, since: Option<Instant>, refused: bool) -> Option<Instant> {
        let now = Instant::now();
        match since {
            Some(since) => self.server.listen_disabled_micros.add((now - since).as_micros() as u64),
            None if refused => {
                self.server.listen_disabled_num.add(1);
                log::warn!("too many open connections: accepting rests until one closes");
            }
            None => {}
        }
        self.server.listen_disabled.set(u64::from(refused));
        refused.then_some(now)
    }

    fn is_full(&self) -> bool {
        let open: u64 = self.workers.iter().map(WorkerCounters::connections).sum();
        open >= u64::from(self.config.connections_max)
    }

    /// Reads again what can be changed while it runs; what cannot be read stays as it was.
    fn reload(&mut self) {
        if self.auth.is_none() && self.certificates.is_none() {
            log::info!("nothing to reload");
        }
        if self.certificates.is_some() {
            match self.refresh_certificates() {
                Ok(()) => log::info!("certificates were read again"),
                Err(line) => log::error!("certificates stay as they were: {line}"),
            }
        }
        let Some(auth) = self.auth else { return };
        match read_users(self.config) {
            Ok(users) => {
                let users = users.unwrap_or_default();
                log::info!("{} users", users.len());
                auth.replace(users);
            }
            Err(why) => log::error!("users stay as they were: {why}"),
        }
    }

    /// Reads certificates again; connections that are there keep what they have.
    fn refresh_certificates(&mut self) -> Result<(), String> {
        if let Some(certificates) = &mut self.certificates {
            *certificates = certificates.reload(&self.config.tls)?;
            self.server.certificates_read.set(u64::from(self.clock.now().0));
        }
        Ok(())
    }

    /// Accepts some of what waits at a listener.
    fn accept_some(&self, at: usize) -> Accepted {
        for _ in 0..self.config.accepts_per_turn {
            let bound = &self.listeners[at];
            let listener = &bound.listener;
            if !self.config.maxconns_fast && self.is_full() {
                return if listener.is_waited_at() { Accepted::Refused } else { Accepted::All };
            }
            match listener.accept() {
                Ok(stream) => self.place(stream, bound),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Accepted::All,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    // Without descriptors the system says so although nobody waits.
                    _ if !listener.is_waited_at() => return Accepted::All,
                    _ => {
                        // No descriptors, or no memory: others must close first.
                        log::debug!("not accepted: {error}");
                        return Accepted::Refused;
                    }
                },
            }
        }
        Accepted::Some
    }

    /// Gives a connection to the worker that it was meant for, or else to the nearest, or else to that with the fewest; or
    /// refuses it.
    fn place(&self, mut stream: Stream, listener: &BoundListener) {
        if self.is_full() {
            self.server.rejected_connections.add(1);
            // It may not be able to take it; it is closed either way.
            let _ = stream.write(TOO_MANY);
            return;
        }
        if let Some(verify) = listener.verify {
            match self.secure(stream, verify) {
                Ok(secured) => stream = secured,
                Err(error) => return log::error!("a connection could not be put under TLS: {error}"),
            }
        }
        let connections = |worker: &usize| self.workers[*worker].connections();
        let fewest = || (0..self.workers.len()).min_by_key(connections);
        let near = || self.by_queue(&stream).or_else(|| self.nearest(&stream));
        let worker = listener.worker.or_else(near).or_else(fewest).expect("there is at least one worker");
        self.server.total_connections.add(1);
        self.workers[worker].given_connections.add(1);
        self.exchange.mail(worker, Mail::Connection(stream, listener.protocol));
    }

    /// With `-N`, the worker of the receive queue that the packets of a connection come in by.
    fn by_queue(&self, stream: &Stream) -> Option<usize> {
        let mut queues = self.queues.as_ref()?.borrow_mut();
        let Some(queue) = stream.incoming_queue() else {
            self.server.round_robin_fallback.add(1);
            return None;
        };
        let (worker, is_surprise) = queues.worker_of(queue);
        self.server.unexpected_napi_ids.add(u64::from(is_surprise));
        Some(worker)
    }

    /// The worker that is pinned to the core where the packets of a connection come in, unless it has far more than its
    /// share: twice as many as the worker with the fewest, and [`NEAR_CONNECTIONS`].
    ///
    /// With two workers, and 50 connections from clients on the same two cores, this took a tenth to a third of the CPU
    /// time from a `get` alone and a fifth with 32 in flight, and p99 from 4 ms to less than 2: packets do not change cores.
    /// (Busy polling, `SO_BUSY_POLL`, made no difference over loopback: it is for network cards.)
    fn nearest(&self, stream: &Stream) -> Option<usize> {
        if self.cores.is_empty() {
            return None;
        }
        let cpu = stream.incoming_cpu()?;
        let connections = |worker: usize| self.workers[worker].connections();
        let workers = 0..self.workers.len();
        let near = |&worker: &usize| self.cores[worker % self.cores.len()].id == cpu;
        let nearest = workers.clone().filter(near).min_by_key(|&worker| connections(worker))?;
        let fewest = workers.map(connections).min()?;
        (connections(nearest) < 2 * fewest + NEAR_CONNECTIONS).then_some(nearest)
    }

    /// Puts a connection under TLS. The handshake is for its worker.
    fn secure(&self, stream: Stream, verify: Verify) -> io::Result<Stream> {
        let config = self.certificates.as_ref().and_then(|certificates| certificates.config(verify));
        let config = config.ok_or_else(|| io::Error::other("there are no certificates"))?;
        stream.secure(Arc::clone(config), self.config.tls_limits)
    }
}
