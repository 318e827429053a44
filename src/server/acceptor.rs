//! The main thread: it accepts connections and gives each one to a worker.

use super::bind::BoundListener;
use super::nodes::NodesReader;
use super::requests::{Ending, REQUESTS};
use super::shared::Shared;
use super::takeover::{Offering, SUCCESSORS};
use super::users::reread_users;
use crate::admin::Answer;
use crate::counters::WorkerCounters;
use crate::net::certificates::{Certificates, Verify};
use crate::net::listener::SocketFiles;
use crate::net::queues::Queues;
use crate::net::seats::Seats;
use crate::net::stream::Stream;
use crate::process::supervisor::{Supervisor, Watchdog};
use crate::process::takeover::Successor;
use crate::worker::mailbox::Mail;
use crate::worker::transport;
use mio::{Events, Interest, Poll, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_mio::v1_0::Signals;
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The token of a signal in the main thread's poll. Listeners have the tokens from 0.
const SIGNALS: Token = Token(usize::MAX);

/// Pause before the main thread tries again to accept, after descriptors have run out or, with `-o no_maxconns_fast`, `-c`
/// is reached. memcached has the same pause.
const ACCEPT_REST: Duration = Duration::from_millis(10);

/// Connections that a worker may get for being near although other workers have none.
const NEAR_CONNECTIONS: u64 = 4;

/// Sent to a client whose connection exceeds `-c`.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// The state of a listener after an attempt to accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepted {
    /// No client waits.
    All,
    /// More clients may wait.
    Some,
    /// The system refuses to accept for now.
    Refused,
}

/// The files of a server: those that it reads again at HUP, besides the users, and those of its sockets.
pub(super) struct Files {
    /// Present with TLS.
    pub(super) certificates: Option<Certificates>,
    /// Present with `--nodes`.
    pub(super) nodes: Option<NodesReader>,
    /// Those that the server removes when it stops.
    pub(super) sockets: SocketFiles,
}

/// The main thread's state.
pub(super) struct Acceptor<'a> {
    shared: &'a Shared<'a>,
    listeners: Vec<BoundListener>,
    files: SocketFiles,
    /// Present with TLS.
    certificates: Option<Certificates>,
    /// Present with `--nodes`.
    nodes: Option<NodesReader>,
    /// Present with `-N`.
    queues: Option<RefCell<Queues>>,
    /// Present with `--connections-per-address`.
    seats: Option<Seats>,
    /// Present with `--take-over`.
    offering: Option<Offering>,
    supervisor: &'a Supervisor,
    /// Present if the supervisor wants keep-alives.
    watchdog: Option<Watchdog<'a>>,
    /// With `--drain`, after TERM or USR1: when the server stops.
    drained: Option<Instant>,
    /// TERM has come.
    has_term: bool,
    /// Listeners where more clients may wait.
    ready: Vec<usize>,
    /// The start of the part of the current pause that is not counted yet. None: the main thread accepts.
    resting: Option<Instant>,
}

impl<'a> Acceptor<'a> {
    pub(super) fn new(
        shared: &'a Shared<'a>,
        listeners: Vec<BoundListener>,
        files: Files,
        supervisor: &'a Supervisor,
    ) -> Acceptor<'a> {
        let napi_ids = shared.config.workers.napi_ids;
        Acceptor {
            shared,
            listeners,
            files: files.sockets,
            certificates: files.certificates,
            nodes: files.nodes,
            seats: Some(shared.config.connections.per_address).filter(|&most| most > 0).map(Seats::new),
            offering: None,
            queues: (napi_ids > 0).then(|| RefCell::new(Queues::new(napi_ids))),
            supervisor,
            watchdog: supervisor.watchdog(Instant::now()),
            drained: None,
            has_term: false,
            ready: Vec::new(),
            resting: None,
        }
    }

    /// With `--take-over`, offers the sockets to the next server.
    pub(super) fn offering(self, offering: Option<Offering>) -> Acceptor<'a> {
        Acceptor { offering, ..self }
    }

    /// Accepts until a signal or `shutdown` comes, and with `--drain` for some time after the signal, or until another server
    /// takes over. Then it closes the listeners.
    pub(super) fn run(
        mut self,
        mut poll: Poll,
        mut signals: Signals,
        udp_sockets: usize,
    ) -> io::Result<(Ending, Option<Successor>)> {
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        for (at, BoundListener { listener, .. }) in self.listeners.iter_mut().enumerate() {
            poll.registry().register(listener, Token(at), Interest::READABLE)?;
        }
        if let Some(offering) = &self.offering {
            offering.register(poll.registry())?;
        }
        self.count_sockets(udp_sockets);
        let mut events = Events::with_capacity(64);
        loop {
            let timeout = self.timeout();
            match poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let mut stops = self.drained.is_some_and(|end| Instant::now() >= end);
            // If a server that takes over is too slow, no event comes.
            let mut has_successor =
                self.offering.as_ref().and_then(|it| it.wait(Instant::now())) == Some(Duration::ZERO);
            for event in &events {
                match event.token() {
                    SIGNALS => stops |= self.take_signals(&mut signals),
                    REQUESTS => {}
                    SUCCESSORS => has_successor = true,
                    Token(at) if !self.ready.contains(&at) => self.ready.push(at),
                    Token(_) => {}
                }
            }
            let requests = &self.shared.requests;
            if !stops && requests.is_stopped() {
                log::info!("shutdown: stopping");
                stops = true;
            }
            if stops {
                self.leave();
                return Ok((requests.ending(), None));
            }
            if has_successor && let Some((successor, ending)) = self.succeeded(poll.registry()) {
                return Ok((ending, Some(successor)));
            }
            while let Some(broadcast) = requests.next_refresh() {
                self.shared.exchange.answer(&broadcast, Answer::Refreshed(self.refresh_certificates()));
            }
            self.accept_ready();
        }
    }

    /// Goes on with a server that wants to take over. If it is ready, this one ends: its supervisor, if any, hears from the
    /// other that it serves.
    fn succeeded(&mut self, registry: &Registry) -> Option<(Successor, Ending)> {
        let (successor, ending) = self.offering.as_mut()?.advance(registry)?;
        log::info!("process {} takes over: stopping", successor.pid());
        self.shared.is_ready.store(false, Ordering::Relaxed);
        self.files.leave();
        Some((successor, ending))
    }

    /// Sets the counters that a server has at its start. As in memcached, each socket of each worker counts.
    fn count_sockets(&self, udp_sockets: usize) {
        let server = &self.shared.server;
        server.certificates_read.set(u64::from(self.shared.clock.now().0));
        let sockets = (self.listeners.len() + udp_sockets) as u64;
        server.listeners.set(sockets);
        server.total_connections.add(sockets);
    }

    /// Tells everybody that the server stops, unless they know.
    fn leave(&self) {
        if self.shared.is_ready.swap(false, Ordering::Relaxed) {
            self.supervisor.stopping();
        }
    }

    /// The longest time that the poll may wait.
    fn timeout(&mut self) -> Option<Duration> {
        let accepting = match (self.ready.is_empty(), self.resting) {
            (true, _) => None,
            (false, Some(_)) => Some(ACCEPT_REST),
            (false, None) => Some(Duration::ZERO),
        };
        let draining = self.drained.map(|end| end.saturating_duration_since(Instant::now()));
        let succeeding = self.offering.as_ref().and_then(|offering| offering.wait(Instant::now()));
        self.feed_watchdog().into_iter().chain(accepting).chain(draining).chain(succeeding).min()
    }

    /// Obeys the signals that have come. True: the server is to stop.
    fn take_signals(&mut self, signals: &mut Signals) -> bool {
        let mut stops = false;
        for signal in signals.pending() {
            if signal == SIGHUP {
                self.reload();
                continue;
            }
            // systemd's `ExecStop=` may send USR1, and then TERM to be sure. The end is graceful then, and the drain goes on.
            self.shared.requests.end_as(if signal == SIGUSR1 { Ending::Graceful } else { Ending::Plain });
            let is_repeated = signal == SIGTERM && std::mem::replace(&mut self.has_term, true);
            stops |= signal == SIGINT || is_repeated || !self.drain();
            if stops {
                log::info!("signal {signal}: stopping");
            }
        }
        stops
    }

    /// Begins to drain with `--drain`, or goes on. False: the server is to stop at once.
    fn drain(&mut self) -> bool {
        let seconds = self.shared.config.observing.drain_seconds;
        if seconds == 0 {
            return false;
        }
        if self.drained.is_none() {
            log::info!("stopping in {seconds} seconds (--drain)");
            self.drained = Some(Instant::now() + Duration::from_secs(seconds));
            self.leave();
        }
        true
    }

    /// Accepts some clients at each listener where any may wait.
    fn accept_ready(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        let mut refused = false;
        ready.retain(|&at| match self.accept_some(at) {
            Accepted::All => false,
            Accepted::Some => true,
            Accepted::Refused => {
                refused = true;
                true
            }
        });
        self.ready = ready;
        self.resting = self.rest(self.resting, refused);
    }

    /// Sends keep-alives to the supervisor if they are due. Returns the time until the next ones.
    fn feed_watchdog(&mut self) -> Option<Duration> {
        let watchdog = self.watchdog.as_mut()?;
        let Shared { exchange, workers, pings, .. } = self.shared;
        let opened = workers.iter().map(|worker| worker.watchdog_ping.get());
        watchdog.look(Instant::now(), opened, || pings.send(exchange));
        Some(watchdog.wait(Instant::now()))
    }

    /// Begins, counts or ends a pause. As in memcached, each pause adds 1 to `listen_disabled_num`, whatever its length.
    fn rest(&self, since: Option<Instant>, refused: bool) -> Option<Instant> {
        let now = Instant::now();
        match since {
            Some(since) => self.shared.server.listen_disabled_micros.add((now - since).as_micros() as u64),
            None if refused => {
                self.shared.server.listen_disabled_num.add(1);
                log::warn!("too many open connections: accepting rests until one closes");
            }
            None => {}
        }
        self.shared.server.listen_disabled.set(u64::from(refused));
        refused.then_some(now)
    }

    fn is_full(&self) -> bool {
        let open: u64 = self.shared.workers.iter().map(WorkerCounters::connections).sum();
        open >= u64::from(self.shared.config.connections.max)
    }

    /// Reads the users, the certificates and the nodes again. Those that cannot be read stay as they are.
    fn reload(&mut self) {
        if self.shared.auth.is_none() && self.certificates.is_none() && self.nodes.is_none() {
            log::info!("nothing to reload");
        }
        self.nodes.iter().for_each(NodesReader::read_again);
        if self.certificates.is_some() {
            match self.refresh_certificates() {
                Ok(()) => log::info!("certificates were read again"),
                Err(line) => log::error!("certificates stay as they were: {line}"),
            }
        }
        let Some(auth) = self.shared.auth else { return };
        match reread_users(auth, self.shared.config) {
            Ok(count) => log::info!("{count} users"),
            Err(why) => log::error!("users stay as they were: {why}"),
        }
    }

    /// Reads the certificates again. Open connections keep theirs.
    fn refresh_certificates(&mut self) -> Result<(), String> {
        if let Some(certificates) = &mut self.certificates {
            *certificates = certificates.reload(&self.shared.config.tls.options)?;
            self.shared.server.certificates_read.set(u64::from(self.shared.clock.now().0));
        }
        Ok(())
    }

    /// Accepts some of the clients that wait at a listener.
    fn accept_some(&self, at: usize) -> Accepted {
        for _ in 0..self.shared.config.turn.accepts {
            let bound = &self.listeners[at];
            let listener = &bound.listener;
            if !self.shared.config.connections.maxconns_fast && self.is_full() {
                return if listener.is_waited_at() { Accepted::Refused } else { Accepted::All };
            }
            match listener.accept() {
                Ok(stream) => self.place(stream, bound),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Accepted::All,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    // Without descriptors the system reports an error even if no client waits.
                    _ if !listener.is_waited_at() => return Accepted::All,
                    _ => {
                        // Descriptors or memory are short: other connections must close first.
                        log::debug!("not accepted: {error}");
                        return Accepted::Refused;
                    }
                },
            }
        }
        Accepted::Some
    }

    /// Gives a connection to the worker of its listener, or else to the nearest worker, or else to the worker with the
    /// fewest. Refuses the connection if the server is full, or has as many connections from this address as it may have.
    fn place(&self, mut stream: Stream, listener: &BoundListener) {
        let address = stream.peer_address().filter(|_| self.seats.is_some());
        let seat = self.seats.as_ref().zip(address).map(|(seats, address)| seats.take(address.ip()));
        if self.is_full() || matches!(seat, Some(None)) {
            self.shared.server.rejected_connections.add(1);
            // If the write fails, the client learns nothing. The connection closes anyway.
            let _ = stream.write(TOO_MANY);
            return;
        }
        if let Some(verify) = listener.verify {
            match self.secure(stream, verify) {
                Ok(secured) => stream = secured,
                Err(error) => return log::error!("a connection could not be put under TLS: {error}"),
            }
        }
        let connections = |worker: &usize| self.shared.workers[*worker].connections();
        let fewest = || (0..self.shared.workers.len()).min_by_key(connections);
        let near = || self.by_queue(&stream).or_else(|| self.nearest(&stream));
        let worker = listener.worker.or_else(near).or_else(fewest).expect("there is at least one worker");
        self.shared.server.total_connections.add(1);
        self.shared.workers[worker].count_given(transport(&stream));
        self.shared.exchange.mail(worker, Mail::Connection(stream, listener.protocol, seat.flatten()));
    }

    /// With `-N`, the worker of the network card's receive queue that gets the packets of a connection.
    fn by_queue(&self, stream: &Stream) -> Option<usize> {
        let mut queues = self.queues.as_ref()?.borrow_mut();
        let Some(queue) = stream.incoming_queue() else {
            self.shared.server.round_robin_fallback.add(1);
            return None;
        };
        let (worker, is_surprise) = queues.worker_of(queue);
        self.shared.server.unexpected_napi_ids.add(u64::from(is_surprise));
        Some(worker)
    }

    /// The worker that is pinned to the core where the packets of a connection arrive. None if that worker has far more
    /// connections than its share: twice as many as the worker with the fewest, plus [`NEAR_CONNECTIONS`].
    ///
    /// With two workers, and 50 connections from clients on the same two cores, this saved a tenth to a third of the CPU
    /// time of single `get`s and a fifth with 32 in flight, and reduced p99 from 4 ms to less than 2 ms, because packets do
    /// not change cores. (Busy polling, `SO_BUSY_POLL`, made no difference over loopback: it is for network cards.)
    fn nearest(&self, stream: &Stream) -> Option<usize> {
        if self.shared.cores.is_empty() {
            return None;
        }
        let cpu = stream.incoming_cpu()?;
        let connections = |worker: usize| self.shared.workers[worker].connections();
        let workers = 0..self.shared.workers.len();
        let near = |&worker: &usize| self.shared.cores[worker % self.shared.cores.len()].id == cpu;
        let nearest = workers.clone().filter(near).min_by_key(|&worker| connections(worker))?;
        let fewest = workers.map(connections).min()?;
        (connections(nearest) < 2 * fewest + NEAR_CONNECTIONS).then_some(nearest)
    }

    /// Puts a connection under TLS. Its worker does the handshake.
    fn secure(&self, stream: Stream, verify: Verify) -> io::Result<Stream> {
        let config = self.certificates.as_ref().and_then(|certificates| certificates.config(verify));
        let config = config.ok_or_else(|| io::Error::other("there are no certificates"))?;
        stream.secure(Arc::clone(config), self.shared.config.tls.limits)
    }
}
