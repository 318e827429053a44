//! Counters of the workers and of the listening side. One thread writes a counter, with plain stores, and any thread
//! reads it.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value of the counter.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds to the counter. Only its one writer may call this.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.get() + count, Ordering::Relaxed);
    }

    /// Sets the counter. Only its one writer may call this, and `stats reset`, which may lose a count that the writer
    /// makes meanwhile.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Counters of a worker. The worker writes them.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Connections that the main thread has given to the worker. The main thread is the writer.
    pub given_connections: Counter,
    /// Connections of the worker that are closed.
    pub closed_connections: Counter,
    /// Bytes read from sockets.
    pub bytes_read: Counter,
    /// Bytes written to sockets.
    pub bytes_written: Counter,
    /// Times that a connection had to wait for others before its next commands (`-R`).
    pub conn_yields: Counter,
    /// Connections that the worker closed because they were idle.
    pub idle_kicks: Counter,
    /// Connections that the worker closed because the rest of a long value did not come, or came too slowly while other
    /// values waited.
    pub uploads_timed_out: Counter,
    /// `flush_all` commands.
    pub cmd_flush: Counter,
    /// Completed attempts to authenticate.
    pub auth_cmds: Counter,
    /// Attempts to authenticate that failed.
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
    /// Replies over UDP that the worker withheld. Either they were larger than the request, and the client may not get
    /// more than that, or they were larger than any reply may be.
    pub udp_replies_withheld: Counter,
    /// Datagrams of replies that the worker could not send, because the network was busy for too long.
    pub udp_datagrams_dropped: Counter,
    /// Number of the last ping of the watchdog that the worker has read.
    pub watchdog_ping: Counter,
    /// Bytes of the read buffer, and of the unparsed input and the unsent replies of the connections.
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

    /// Resets the counters for `stats reset`. It may lose a count that the worker makes at the same moment.
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

    /// The number of open connections.
    pub fn connections(&self) -> u64 {
        self.given_connections.get().saturating_sub(self.closed_connections.get())
    }
}

/// The memory that long values under way take at a moment: see `worker/uploads.rs`.
#[derive(Clone, Copy, Debug, Default)]
pub struct UploadUse {
    /// The bytes that these values count with.
    pub bytes: usize,
    /// The most bytes that they may count with.
    pub limit: usize,
    /// The number of values that wait.
    pub waiting: usize,
}

/// The counters of the listening side. The main thread is the writer. `curr_connections` is not here: it follows from
/// the counters of the workers.
#[derive(Debug, Default)]
pub struct ServerCounters {
    /// Connections accepted.
    pub total_connections: Counter,
    /// Connections refused because there were too many.
    pub rejected_connections: Counter,
    /// Times that the server stopped accepting: because it had no free descriptors, or with `no_maxconns_fast` because
    /// it had `-c` connections.
    pub listen_disabled_num: Counter,
    /// 1 while the server does not accept connections.
    pub listen_disabled: Counter,
    /// Microseconds during which the server did not accept connections.
    pub listen_disabled_micros: Counter,
    /// With `-N`: connections that came by a new queue after the server had seen the expected number of queues.
    pub unexpected_napi_ids: Counter,
    /// With `-N`: connections that came by no known queue.
    pub round_robin_fallback: Counter,
    /// The second in which the server last read the certificates.
    pub certificates_read: Counter,
    /// The number of listening sockets.
    pub listeners: Counter,
}

impl ServerCounters {
    /// Resets the counters for `stats reset`. It may lose a count that the main thread makes at the same moment.
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
