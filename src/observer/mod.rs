//! The metrics address: a small HTTP server that tells Prometheus, load balancers and browsers how the server does.
//!
//! It has a thread and an event loop of its own, so that it answers when all connections of clients are taken, and when a
//! worker hangs. It reads counters, and asks the shards once a second and for each scrape, as `stats` does. Nothing that it
//! takes can change the cache, and the thread neither logs nor waits for anything but its sockets.
//!
//! ```text
//!  routes ─▶ figures ─▶ own, exporter ─▶ view ─▶ exposition     /metrics
//!                   └─▶ status, history ─▶ reading              JSON, and the page
//!  connection ─▶ http                                            one request each
//! ```

mod connection;
mod exporter;
mod exposition;
mod figures;
mod history;
mod html;
mod http;
mod keys;
mod own;
pub mod page;
mod prefixes;
mod process;
mod reading;
mod routes;
mod status;
mod view;

use crate::net::listener::Listener;
use connection::{Connection, Progress};
use figures::Figures;
pub use figures::Sources;
use mio::{Events, Interest, Poll, Token, Waker};
use routes::Reply;
use slab::Slab;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The most connections at a time. One more closes the oldest.
const CONNECTIONS_MAX: usize = 64;
/// The descriptors that the observer needs: of its connections and one more, of its poll, its waker and files that it reads.
pub const FILES: u64 = CONNECTIONS_MAX as u64 + 8;

/// The token of the waker. Listeners have the tokens from 0, and connections those behind them.
const WAKER: Token = Token(usize::MAX);

/// The observer.
pub struct Observer<'a> {
    poll: Poll,
    stopper: Stopper,
    listeners: Vec<Listener>,
    /// By listener: clients may wait there.
    waited_at: Vec<bool>,
    /// The system has refused to accept.
    is_refused: bool,
    connections: Slab<Connection>,
    figures: Figures<'a>,
}

impl std::fmt::Debug for Observer<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "observer at {:?}", self.listeners)
    }
}

/// Ends the observer.
#[derive(Clone, Debug)]
pub struct Stopper {
    waker: Arc<Waker>,
    stopped: Arc<AtomicBool>,
}

impl Stopper {
    /// Tells the observer to end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Err(error) = self.waker.wake() {
            log::error!("the observer could not be stopped: {error}");
        }
    }
}

impl<'a> Observer<'a> {
    /// An observer that answers at these sockets.
    ///
    /// # Errors
    /// When the system has no descriptors for it.
    pub fn new(sources: Sources<'a>, mut listeners: Vec<Listener>) -> io::Result<Observer<'a>> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        for (at, listener) in listeners.iter_mut().enumerate() {
            poll.registry().register(listener, Token(at), Interest::READABLE)?;
        }
        let stopper = Stopper { waker: Arc::clone(&waker), stopped: Arc::default() };
        let figures = Figures::new(sources, waker, Instant::now());
        let waited_at = vec![false; listeners.len()];
        Ok(Observer { poll, stopper, listeners, waited_at, is_refused: false, connections: Slab::new(), figures })
    }

    /// What ends it.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Answers until it is stopped.
    ///
    /// # Errors
    /// When waiting for events fails.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(2 * CONNECTIONS_MAX);
        loop {
            let timeout = self.timeout(Instant::now());
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            if self.stopper.stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(at) if at < self.listeners.len() => self.waited_at[at] = true,
                    Token(at) => self.advance(at - self.listeners.len(), now),
                }
            }
            self.accept(now);
            self.figures.advance(now);
            self.answer(now);
        }
    }

    fn timeout(&self, now: Instant) -> Duration {
        if self.waited_at.contains(&true) && !self.is_refused {
            return Duration::ZERO;
        }
        let deadlines = self.connections.iter().map(|(_, connection)| connection.deadline());
        let deadline = deadlines.chain([self.figures.deadline()]).min().unwrap_or(now);
        deadline.saturating_duration_since(now)
    }

    /// Accepts the clients that wait. After an error it tries again in the next turn, within a second.
    fn accept(&mut self, now: Instant) {
        self.is_refused = false;
        for at in 0..self.listeners.len() {
            // As many as there may be at a time, so that those who have asked are answered first.
            for _ in 0..CONNECTIONS_MAX {
                if !self.waited_at[at] {
                    break;
                }
                match self.listeners[at].accept() {
                    Ok(stream) => self.welcome(Connection::new(stream, now), now),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.waited_at[at] = false,
                    Err(error) => {
                        self.is_refused |= error.kind() != ErrorKind::ConnectionAborted;
                        break;
                    }
                }
            }
        }
    }

    fn welcome(&mut self, mut connection: Connection, now: Instant) {
        if self.connections.len() >= CONNECTIONS_MAX
            && let Some((oldest, _)) = self.connections.iter().min_by_key(|(_, connection)| connection.accepted)
        {
            self.connections.remove(oldest);
        }
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        let token = Token(self.listeners.len() + key);
        let interests = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut connection.stream, token, interests).is_ok() {
            entry.insert(connection);
            // What has come already is answered before more clients are accepted.
            self.advance(key, now);
        }
    }

    /// Lets a connection go on as far as it can.
    fn advance(&mut self, key: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.advance(now) {
            Progress::Asks => self.respond(key, now, false),
            Progress::Waits => {}
            Progress::Over => drop(self.connections.remove(key)),
        }
    }

    /// Answers a request, if it can be answered or `must` be.
    fn respond(&mut self, key: usize, now: Instant, must: bool) {
        let connection = &mut self.connections[key];
        let Some((request, since)) = connection.request() else { return };
        match routes::reply(request, since, &self.figures, now, must) {
            Reply::Now(response) => {
                if connection.respond(&response, now) == Progress::Over {
                    self.connections.remove(key);
                }
            }
            Reply::Later => self.figures.ask(now),
        }
    }

    /// Answers the requests that have waited for the shards, and ends the steps that take too long.
    fn answer(&mut self, now: Instant) {
        let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            let connection = &mut self.connections[key];
            let is_late = now >= connection.deadline();
            if connection.request().is_some() {
                self.respond(key, now, is_late);
            } else if is_late && connection.expire(now) == Progress::Over {
                self.connections.remove(key);
            }
        }
    }
}
