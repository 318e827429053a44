//! TLS handshakes. A handshake costs a hundred times as much as a request; so a worker takes only some steps of handshakes in
//! each turn, and connections that have finished theirs are not held up.

use super::connection::Connection;
use crate::counters::WorkerCounters;
use crate::net::stream::Stream;
use crate::watch::Log;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

/// The connections whose handshake can go a step further.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// The connections in the order in which they came.
    waiting: VecDeque<usize>,
    /// The worker serves a connection of `waiting` right now.
    pub(super) has_turn: bool,
}

impl Handshakes {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes out the connection that has waited longest.
    pub(super) fn next(&mut self) -> Option<usize> {
        self.waiting.pop_front()
    }

    /// Takes a step of a handshake if the connection has its turn; otherwise the connection waits for its turn. Returns
    /// whether the handshake is done.
    pub(super) fn step(
        &mut self,
        token: usize,
        connection: &mut Connection,
        counters: &WorkerCounters,
    ) -> io::Result<bool> {
        let Stream::Tls(stream) = &mut connection.stream else { return Ok(true) };
        if !connection.readable {
            return Ok(false);
        }
        if !self.has_turn {
            if !connection.queued {
                connection.queued = true;
                self.waiting.push_back(token);
            }
            return Ok(false);
        }
        let done = stream.handshake()?;
        if !done {
            connection.readable = false;
        } else {
            let kind = if stream.is_resumed() { "resumed" } else { "begun" };
            log::debug!("<{} TLS session {kind}", stream.socket().as_raw_fd());
            if !stream.is_resumed() {
                counters.ssl_new_sessions.add(1);
            }
        }
        Ok(done)
    }
}

/// Counts and logs the failure of a connection, if TLS is what has failed.
pub(super) fn count_failure(
    connection: &Connection,
    error: &io::Error,
    counters: &WorkerCounters,
    log: Option<&mut Log<'_>>,
) {
    let Stream::Tls(stream) = &connection.stream else { return };
    let (fails, counter) = if stream.is_handshaking() {
        (error.kind() != ErrorKind::ConnectionAborted, &counters.ssl_handshake_errors)
    } else {
        let fails = matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof);
        (fails, &counters.ssl_proto_errors)
    };
    if fails {
        counter.add(1);
        if let Some(log) = log {
            log.connection_tls_error(stream.socket().as_raw_fd(), error);
        }
    }
}
