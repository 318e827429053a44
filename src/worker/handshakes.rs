//! TLS handshakes, a few in each turn.

use super::Worker;
use crate::net::stream::Stream;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

impl Worker<'_> {
    /// Lets some handshakes go a step further, those that have waited longest. They cost a hundred times what a request
    /// costs, and must not hold up those who are done with theirs.
    pub(super) fn advance_handshakes(&mut self) {
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
    pub(super) fn shake_hands(&mut self, token: usize) -> io::Result<bool> {
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
    pub(super) fn count_failure(&mut self, token: usize, error: &io::Error) {
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
}
