//! Requests of workers to the main thread: `shutdown` and `refresh_certs`.

use crate::worker::broadcast::Broadcast;
use crossbeam::queue::SegQueue;
use mio::{Poll, Token, Waker};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The token of a request in the main thread's poll.
pub(super) const REQUESTS: Token = Token(usize::MAX - 1);

/// How the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The cache is lost.
    Plain,
    /// The cache is written to the memory file (`-e`).
    Graceful,
}

/// The requests that are not answered yet.
pub(super) struct Requests {
    waker: Waker,
    stopped: AtomicBool,
    graceful: AtomicBool,
    /// At most one of each connection, because a connection waits for its answer.
    refreshes: SegQueue<Arc<Broadcast>>,
}

impl Requests {
    /// Requests that wake the thread that waits at `poll`.
    ///
    /// # Errors
    /// When the system refuses an event descriptor.
    pub(super) fn new(poll: &Poll) -> io::Result<Requests> {
        Ok(Requests {
            waker: Waker::new(poll.registry(), REQUESTS)?,
            stopped: AtomicBool::new(false),
            graceful: AtomicBool::new(false),
            refreshes: SegQueue::new(),
        })
    }

    /// Makes the server stop.
    pub(super) fn stop(&self, ending: Ending) {
        self.end_as(ending);
        self.stopped.store(true, Ordering::Relaxed);
        if let Err(error) = self.waker.wake() {
            log::error!("shutdown could not be passed on: {error}");
        }
    }

    /// Asks the main thread to read the certificates again and to answer `broadcast`.
    pub(super) fn refresh(&self, broadcast: Arc<Broadcast>) {
        self.refreshes.push(broadcast);
        if let Err(error) = self.waker.wake() {
            log::error!("refresh_certs could not be passed on: {error}");
        }
    }

    /// Whether a worker has asked to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The next request to read the certificates again.
    pub(super) fn next_refresh(&self) -> Option<Arc<Broadcast>> {
        self.refreshes.pop()
    }

    /// Notes how the server is to end. If any request is graceful, the end is.
    pub(super) fn end_as(&self, ending: Ending) {
        self.graceful.fetch_or(ending == Ending::Graceful, Ordering::Relaxed);
    }

    /// How the server is to end.
    pub(super) fn ending(&self) -> Ending {
        if self.graceful.load(Ordering::Relaxed) { Ending::Graceful } else { Ending::Plain }
    }
}
