//! Counters of workers and of the listening side: each written by one thread with plain stores, read by any.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds to it. Only its one writer may.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.get() + count, Ordering::Relaxed);
    }

    /// Sets it. Only its one writer may, but for `stats reset`, which may lose a count that is made meanwhile.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Counters of a worker. The worker writes them.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Connections it was given. The main thread is the writer.
    pub given_connections: Counter,
    /// Connections of those that are closed.
    pub closed_connections: Counter,
    /// Bytes read from sockets.
    pub bytes_read: Counter,
    /// Bytes written to sockets.
    pub bytes_written: Counter,
    /// Times a connection had to let others go first (`-R`).
    pub conn_yields: Counter,
    /// Connections closed for idling.
    pub idle_kicks: Counter,
    /// Connections closed because the rest of a long value did not come, or too slowly while others waited.
    pub uploads_timed_out: Counter,
    /// `flush_all` commands.
    pub cmd_flush: Counter,
    /// Completed attempts to authenticate.
    pub auth_cmds: Counter,
    /// Those of them that failed.
    pub auth_errors: Counter,
    /// Full TLS handshakes, not those that resume a session.
    pub ssl_new_sessions: Counter,
    /// TLS handshakes that failed.
    pub ssl_handshake_errors: Counter,
    /// TLS connections that failed after their handshake.
    pub ssl_proto_errors: Counter,
    /// Requests over UDP.
    pub udp_requests: Counter,
    /// Datagrams that were no whole request, or that no client can have sent.
    pub udp_malformed: Counter,
    /// Replies over UDP that were withheld: larger than the request, and their receiver is not allowed more; or larger
    /// than any may be.
    pub udp_replies_withheld: Counter,
    /// Datagrams of replies that could not be sent: the network was busy for too long.
    pub udp_datagrams_dropped: Counter,
    /// Number of the last ping of the watchdog that the worker has read.
    pub watchdog_ping: Counter,
    /// Bytes held by the read buffer, by unparsed input and by unsent replies of its connections.
    pub buffer_bytes: Counter,
}

/// The name of a statistic, and its counter.
pub type NamedCounter = (&'static str, fn(&WorkerCounters) -> &Counter);

impl WorkerCounters {
    /// `stats udp`: names and counters, in the order of the reply.
    pub const UDP: [NamedCounter; 4] = [
        ("udp_requests", |worker| &worker.udp_requests),
        ("udp_malformed", |worker| &worker.udp_malformed),
        ("udp_replies_withheld", |worker| &worker.udp_replies_withheld),
        ("udp_datagrams_dropped", |worker| &worker.udp_datagrams_dropped),
    ];

    /// `stats reset`. A count that the worker makes at the same moment may be lost.
    pub fn reset(&self) {
        // The author of a new counter decides here whether a reset clears it.
        let WorkerCounters {
            given_connections: _,
            closed_connections: _,
            bytes_read,
            bytes_written,
            conn_yields,
            idle_kicks,
            uploads_timed_out,
            cmd_flush,
            auth_cmds,
            auth_errors,
            ssl_new_sessions,
            ssl_handshake_errors,
            ssl_proto_errors,
            udp_requests,
            udp_malformed,
            udp_replies_withheld,
            udp_datagrams_dropped,
            watchdog_ping: _,
            buffer_bytes: _,
        } = self;
        for counter in [
            bytes_read,
            bytes_written,
            conn_yields,
            idle_kicks,
            uploads_timed_out,
            cmd_flush,
            auth_cmds,
            auth_errors,
            ssl_new_sessions,
            ssl_handshake_errors,
            ssl_proto_errors,
            udp_requests,
            udp_malformed,
            udp_replies_withheld,
            udp_datagrams_dropped,
        ] {
            counter.set(0);
        }
    }

    /// Open connections.
    pub fn connections(&self) -> u64 {
        self.given_connections.get().saturating_sub(self.closed_connections.get())
    }
}

/// What long values under way take at a moment: see `worker/uploads.rs`.
#[derive(Clone, Copy, Debug, Default)]
pub struct UploadUse {
    /// Bytes that count.
    pub bytes: usize,
    /// Bytes that may.
    pub limit: usize,
    /// Values that wait.
    pub waiting: usize,
}

/// What the listening side counts. The main thread is the writer, but for `curr_connections`, which follows from the
/// workers'.
#[derive(Debug, Default)]
pub struct ServerCounters {
    /// Connections accepted.
    pub total_connections: Counter,
    /// Connections refused because there were too many.
    pub rejected_connections: Counter,
    /// Times accepting stopped: for want of descriptors, or with `no_maxconns_fast` at `-c` connections.
    pub listen_disabled_num: Counter,
    /// 1 while it is stopped.
    pub listen_disabled: Counter,
    /// Microseconds for which accepting was stopped.
    pub listen_disabled_micros: Counter,
    /// With `-N`: connections that came by one queue more than there should be.
    pub unexpected_napi_ids: Counter,
    /// With `-N`: connections that came by no queue.
    pub round_robin_fallback: Counter,
    /// Second in which certificates were read last.
    pub certificates_read: Counter,
    /// Listening sockets.
    pub listeners: Counter,
}

impl ServerCounters {
    /// `stats reset`. A count that the main thread makes at the same moment may be lost.
    pub fn reset(&self) {
        let ServerCounters {
            total_connections,
            rejected_connections,
            listen_disabled_num,
            listen_disabled: _,
            listen_disabled_micros: _,
            unexpected_napi_ids,
            round_robin_fallback,
            certificates_read: _,
            listeners: _,
        } = self;
        for counter in
            [total_connections, rejected_connections, listen_disabled_num, unexpected_napi_ids, round_robin_fallback]
        {
            counter.set(0);
        }
    }
}
