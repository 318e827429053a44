//! The counts of one client thread. The run adds up the counts of all threads.

use hdrhistogram::Histogram;

use crate::tail::Tail;
use crate::workload::Operation;

/// The number of errors to keep in detail. Further errors are only counted.
const SAMPLES_MAX: usize = 5;

/// Latencies beyond an hour are recorded as an hour.
const NANOSECONDS_MAX: u64 = 3_600_000_000_000;

/// Counts and latencies of requests.
#[derive(Debug)]
pub struct Tally {
    /// Requests written, answered, and lost with their connection. Invariant: sent >= completed + lost.
    pub sent: u64,
    pub completed: u64,
    pub lost: u64,
    /// Keys that gets found, and that they did not find.
    pub hits: u64,
    pub misses: u64,
    /// Sets that the server confirmed.
    pub stored: u64,
    /// Replies that report an error: `ERROR`, `SERVER_ERROR …`, `NOT_STORED`.
    pub errors: u64,
    /// Replies that do not answer the request, and values that do not belong to the key.
    pub wrong: u64,
    pub connections_lost: u64,
    pub reconnects: u64,
    /// Requests of the open loop that were due but never sent, because the server was too slow.
    pub unsent: u64,
    /// The reasons why the run ended early.
    pub failures: Vec<String>,
    /// The first errors and wrong replies.
    pub samples: Vec<String>,
    /// Nanoseconds from the start to the last reply, and nanoseconds of CPU time of the thread.
    pub elapsed: u64,
    pub cpu: u64,
    /// Nanoseconds from the due time or the actual sending to the last byte of the reply.
    get: Histogram<u64>,
    set: Histogram<u64>,
    /// What the machine did to the requests, if the plan asks for it.
    pub tail: Option<Tail>,
}

/// A histogram of latencies in nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, NANOSECONDS_MAX, 3).expect("bounds that hdrhistogram allows")
}

impl Tally {
    pub fn new() -> Tally {
        Tally {
            sent: 0,
            completed: 0,
            lost: 0,
            hits: 0,
            misses: 0,
            stored: 0,
            errors: 0,
            wrong: 0,
            connections_lost: 0,
            reconnects: 0,
            unsent: 0,
            failures: Vec::new(),
            samples: Vec::new(),
            elapsed: 0,
            cpu: 0,
            get: histogram(),
            set: histogram(),
            tail: None,
        }
    }

    /// Requests that wait for their reply.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.completed - self.lost
    }

    /// The thread looks at the clock.
    #[inline]
    pub fn look(&mut self, now: u64) {
        if let Some(tail) = &mut self.tail {
            tail.look(now);
        }
    }

    /// Counts a request as answered `now`; its latency counts from `since`.
    pub fn complete(&mut self, operation: Operation, since: u64, now: u64) {
        self.completed += 1;
        let nanoseconds = now.saturating_sub(since);
        if let Some(tail) = &mut self.tail {
            tail.complete(since, now);
        }
        match operation {
            Operation::Get => self.get.saturating_record(nanoseconds),
            Operation::Set => self.set.saturating_record(nanoseconds),
        }
    }

    /// Share of time that the thread spent on a core. Means something only before the counts of others are added.
    pub fn busy(&self) -> f64 {
        self.cpu as f64 / self.elapsed.max(1) as f64
    }

    /// Latencies of an operation in nanoseconds.
    pub fn latency(&self, operation: Operation) -> &Histogram<u64> {
        match operation {
            Operation::Get => &self.get,
            Operation::Set => &self.set,
        }
    }

    /// Counts a reply that reports an error.
    pub fn error(&mut self, detail: impl FnOnce() -> String) {
        self.errors += 1;
        self.sample(detail);
    }

    /// Counts a reply that does not answer the request, or a wrong value.
    pub fn wrong(&mut self, detail: impl FnOnce() -> String) {
        self.wrong += 1;
        self.sample(detail);
    }

    fn sample(&mut self, detail: impl FnOnce() -> String) {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(detail());
        }
    }

    /// Adds the counts of another thread that ran at the same time.
    pub fn add(&mut self, other: Tally) {
        self.sent += other.sent;
        self.completed += other.completed;
        self.lost += other.lost;
        self.hits += other.hits;
        self.misses += other.misses;
        self.stored += other.stored;
        self.errors += other.errors;
        self.wrong += other.wrong;
        self.connections_lost += other.connections_lost;
        self.reconnects += other.reconnects;
        self.unsent += other.unsent;
        self.failures.extend(other.failures);
        self.samples.extend(other.samples);
        self.samples.truncate(SAMPLES_MAX);
        self.elapsed = self.elapsed.max(other.elapsed);
        self.cpu += other.cpu;
        self.get.add(&other.get).expect("histograms of equal bounds");
        self.set.add(&other.set).expect("histograms of equal bounds");
        if let (Some(own), Some(other)) = (&mut self.tail, &other.tail) {
            own.add(other);
        }
    }
}
