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

/// `stats reset` either clears a counter or keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// It sets the counter to 0.
    Clears,
    /// It keeps the counter, because the server itself needs it, or because the counter is a state and not a sum.
    Keeps,
}

/// The reply that shows a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `stats`, whose lines are exactly memcached's: `admin/stats/general.rs` has them, in memcached's order. A counter
    /// that no line needs is not shown.
    Stats,
    /// `stats udp`, in the order of the definitions.
    Udp,
    /// `stats uploads`, in the order of the definitions.
    Uploads,
    /// `stats leases`, in the order of the definitions.
    Leases,
}

/// The definition of a counter in a group of counters.
#[derive(Debug)]
pub struct Definition<Group> {
    /// The name of the statistic.
    pub name: &'static str,
    /// The reply that shows the counter.
    pub place: Place,
    /// What `stats reset` does.
    pub reset: Reset,
    /// Finds the counter in its group.
    pub counter: fn(&Group) -> &Counter,
}

/// Defines a group of counters. Each counter has a line: its name, what `stats reset` does, and the place that shows it.
macro_rules! counters {
    ($(#[$group_doc:meta])* $group:ident { $($(#[$doc:meta])* $name:ident: $reset:ident, $place:ident;)* }) => {
        $(#[$group_doc])*
        #[derive(Debug, Default)]
        pub struct $group { $($(#[$doc])* pub $name: Counter,)* }

        impl $group {
            /// The definitions of all counters of the group.
            pub const ALL: &[Definition<$group>] = &[$(Definition {
                name: stringify!($name),
                place: Place::$place,
                reset: Reset::$reset,
                counter: |group| &group.$name,
            }),*];

            /// Resets the counters for `stats reset`. It may lose a count that the writer makes at the same moment.
            pub fn reset(&self) {
                for definition in Self::ALL.iter().filter(|definition| definition.reset == Reset::Clears) {
                    (definition.counter)(self).set(0);
                }
            }
        }
    };
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Transport {
    Tcp,
    Tls,
    Unix,
}

counters! {
    /// Counters of a worker. The worker writes them.
    WorkerCounters {
        /// Connections that the main thread has given to the worker. The main thread is the writer.
        given_connections: Keeps, Stats;
        /// Connections of the worker that are closed.
        closed_connections: Keeps, Stats;
        /// Of the connections that were given, those under TLS. The main thread is the writer.
        given_tls: Keeps, Stats;
        /// Of the connections that are closed, those under TLS.
        closed_tls: Keeps, Stats;
        /// Of the connections that were given, those of Unix sockets. The main thread is the writer.
        given_unix: Keeps, Stats;
        /// Of the connections that are closed, those of Unix sockets.
        closed_unix: Keeps, Stats;
        /// Bytes read from sockets.
        bytes_read: Clears, Stats;
        /// Bytes written to sockets.
        bytes_written: Clears, Stats;
        /// Times that a connection had to wait for others before its next commands (`-R`).
        conn_yields: Clears, Stats;
        /// Connections that the worker closed because they were idle.
        idle_kicks: Clears, Stats;
        /// Connections that the worker closed because the rest of a long value did not come, or came too slowly while other
        /// values waited.
        uploads_timed_out: Clears, Uploads;
        /// Leases of shards that the worker asked for while another worker had them.
        leases_refused: Clears, Leases;
        /// Batches that the worker posted to shards, because another worker had the lease.
        batches_posted: Clears, Leases;
        /// Hits that the worker answered from its own copies of hot items, up to the last second.
        hot_copy_hits: Clears, Leases;
        /// `flush_all` commands.
        cmd_flush: Clears, Stats;
        /// Flushes of prefixes, in all their forms.
        cmd_flush_prefix: Clears, Stats;
        /// Completed attempts to authenticate.
        auth_cmds: Clears, Stats;
        /// Attempts to authenticate that failed.
        auth_errors: Clears, Stats;
        /// Of these, those whose password was not checked, because too many others waited.
        auth_crowded: Clears, Stats;
        /// Full TLS handshakes, not those that resume a session.
        ssl_new_sessions: Clears, Stats;
        /// TLS handshakes that failed.
        ssl_handshake_errors: Clears, Stats;
        /// TLS connections that failed after their handshake.
        ssl_proto_errors: Clears, Stats;
        /// Requests over UDP.
        udp_requests: Clears, Udp;
        /// Datagrams that were no whole request, or that no client can have sent.
        udp_malformed: Clears, Udp;
        /// Replies over UDP that the worker withheld. Either they were larger than the request, and the client may not get
        /// more than that, or they were larger than any reply may be.
        udp_replies_withheld: Clears, Udp;
        /// Datagrams of replies that the worker could not send, because the network was busy for too long.
        udp_datagrams_dropped: Clears, Udp;
        /// Number of the last ping of the watchdog that the worker has read.
        watchdog_ping: Keeps, Stats;
        /// Bytes of the read buffer, and of the unparsed input and the unsent replies of the connections.
        buffer_bytes: Keeps, Stats;
        /// The part of these bytes that TLS holds: input that is not opened yet, and sealed replies.
        tls_buffer_bytes: Keeps, Stats;
    }
}

impl WorkerCounters {
    /// The number of open connections.
    pub fn connections(&self) -> u64 {
        self.given_connections.get().saturating_sub(self.closed_connections.get())
    }

    /// The number of open connections under TLS.
    pub fn tls_connections(&self) -> u64 {
        self.given_tls.get().saturating_sub(self.closed_tls.get())
    }

    /// The number of open connections of Unix sockets.
    pub fn unix_connections(&self) -> u64 {
        self.given_unix.get().saturating_sub(self.closed_unix.get())
    }

    /// Counts a connection that is given to the worker. Only the main thread may call this.
    pub fn count_given(&self, transport: Transport) {
        self.given_connections.add(1);
        match transport {
            Transport::Tcp => {}
            Transport::Tls => self.given_tls.add(1),
            Transport::Unix => self.given_unix.add(1),
        }
    }

    /// Counts a connection that is closed. Only the worker may call this.
    pub fn count_closed(&self, transport: Transport) {
        self.closed_connections.add(1);
        match transport {
            Transport::Tcp => {}
            Transport::Tls => self.closed_tls.add(1),
            Transport::Unix => self.closed_unix.add(1),
        }
    }
}

counters! {
    /// The counters of the listening side. The main thread is the writer. `curr_connections` is not here: it follows from
    /// the counters of the workers.
    ServerCounters {
        /// Connections accepted.
        total_connections: Clears, Stats;
        /// Connections refused because there were too many.
        rejected_connections: Clears, Stats;
        /// Times that the server stopped accepting: because it had no free descriptors, or with `no_maxconns_fast` because
        /// it had `-c` connections.
        listen_disabled_num: Clears, Stats;
        /// 1 while the server does not accept connections.
        listen_disabled: Keeps, Stats;
        /// Microseconds during which the server did not accept connections.
        listen_disabled_micros: Keeps, Stats;
        /// With `-N`: connections that came by a new queue after the server had seen the expected number of queues.
        unexpected_napi_ids: Clears, Stats;
        /// With `-N`: connections that came by no known queue.
        round_robin_fallback: Clears, Stats;
        /// The second in which the server last read the certificates.
        certificates_read: Keeps, Stats;
        /// The number of listening sockets.
        listeners: Keeps, Stats;
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
