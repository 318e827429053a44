//! `watch`: the server writes lines about events to the connections that have asked for them.
//!
//! ```text
//! a worker's turn                            watchers
//! ┌──────────────────────────────┐           ┌─ queue ─┐
//! │ Log: lines of this turn,     │  publish  ├─────────┤ ──▶ the outbox of its connection, when that is empty
//! │ each of a category           │ ────────▶ ├─ queue ─┤
//! └──────────────────────────────┘           └─────────┘
//! ```
//! A worker looks once per turn whether any client watches. If none does, the worker has no [`Log`], and the code that
//! executes commands knows nothing of watchers. Otherwise `command/observed.rs` executes the commands and writes the
//! lines about them.
//!
//! The server never waits for a watcher. Each log and each queue has a limit. The server drops a line that does not
//! fit, and counts it. A watcher that has lost lines gets their number (`skipped=N`) before the next line.
//!
//! The lines and categories are memcached's. The server accepts `rawcmds` and the categories of memcached's proxy, and
//! writes no lines for them, like a memcached without a proxy. Lines of `sysevents` are about pages that the store
//! moves because it needs their memory elsewhere. They are never about a crawler, since the server finds expired items
//! without a walk through all items.
//!
//! Wanted differences from memcached: the fraction of `ts` always has six digits, so that clients can read it as a
//! fraction. All lines of a worker's turn have the same `ts`; `gid` gives their order. The line `type=item_store` about
//! a value that is too large names the connection, where memcached prints another number.

use parking_lot::Mutex;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// A set of categories of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Categories(u16);

impl Categories {
    /// Lookups of items.
    pub const FETCHERS: Categories = Categories(1);
    /// Storage commands.
    pub const MUTATIONS: Categories = Categories(1 << 1);
    /// Evictions of live items, which make room for others.
    pub const EVICTIONS: Categories = Categories(1 << 2);
    /// Connections that open and close.
    pub const CONNEVENTS: Categories = Categories(1 << 3);
    /// Items that a command deletes.
    pub const DELETIONS: Categories = Categories(1 << 4);
    /// Events in the background.
    pub const SYSEVENTS: Categories = Categories(1 << 5);
    /// Categories that the server accepts and never writes a line for.
    const SILENT: Categories = Categories(1 << 6);

    /// The categories that the arguments of `watch` name; `fetchers` if it has no arguments. `None` if a word names no
    /// category. As in memcached, the beginning of a name is enough.
    pub fn named(words: &[&[u8]]) -> Option<Categories> {
        // In the order in which memcached tries them.
        const NAMES: [(&str, Categories); 10] = [
            ("rawcmds", Categories::SILENT),
            ("evictions", Categories::EVICTIONS),
            ("fetchers", Categories::FETCHERS),
            ("mutations", Categories::MUTATIONS),
            ("sysevents", Categories::SYSEVENTS),
            ("connevents", Categories::CONNEVENTS),
            ("proxyreqs", Categories::SILENT),
            ("proxyevents", Categories::SILENT),
            ("proxyuser", Categories::SILENT),
            ("deletions", Categories::DELETIONS),
        ];
        if words.is_empty() {
            return Some(Categories::FETCHERS);
        }
        words.iter().try_fold(Categories::default(), |named, word| {
            let (_, category) = NAMES.iter().find(|(name, _)| name.as_bytes().starts_with(word))?;
            Some(Categories(named.0 | category.0))
        })
    }

    /// Whether the set is empty.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn meets(self, other: Categories) -> bool {
        self.0 & other.0 != 0
    }
}

/// All watchers of a server.
#[derive(Debug)]
pub struct Watchers {
    /// The categories that clients watch. Each worker looks at them once per turn.
    watched: AtomicU16,
    list: Mutex<Vec<Arc<Watcher>>>,
    count_max: usize,
    /// The number of lines so far, which is the `gid` of the last one.
    lines: AtomicU64,
    /// Lines that workers wrote.
    pub worker_written: AtomicU64,
    /// Lines that workers had no room for.
    pub worker_dropped: AtomicU64,
    /// Lines that workers put into queues.
    pub watcher_sent: AtomicU64,
    /// Lines that queues had no room for.
    pub watcher_skipped: AtomicU64,
}

/// A connection that watches.
#[derive(Debug)]
pub struct Watcher {
    /// The worker of the connection.
    pub worker: usize,
    /// The token of the connection in its worker.
    pub token: usize,
    /// The generation of the connection.
    pub generation: u64,
    categories: Categories,
    /// The watcher gets only lines with a greater `gid` than this.
    since: u64,
    queue: Mutex<Queue>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    /// Invariant: at most `bytes_max` bytes, plus one line about skipped ones.
    lines: Vec<u8>,
    /// The number of lines lost since the last line that was not lost.
    skipped: u64,
}

impl Watchers {
    /// Begins without watchers. At most `count_max` connections can watch.
    pub fn new(count_max: usize) -> Watchers {
        Watchers {
            watched: AtomicU16::new(0),
            list: Mutex::new(Vec::new()),
            count_max,
            lines: AtomicU64::new(0),
            worker_written: AtomicU64::new(0),
            worker_dropped: AtomicU64::new(0),
            watcher_sent: AtomicU64::new(0),
            watcher_skipped: AtomicU64::new(0),
        }
    }

    /// The categories that clients watch.
    #[inline]
    pub fn watched(&self) -> Categories {
        Categories(self.watched.load(Ordering::Relaxed))
    }

    /// The number of watchers.
    pub fn count(&self) -> usize {
        self.list.lock().len()
    }

    /// Makes a connection a watcher, with a queue of at most `bytes_max` bytes. `None` if the server has too many
    /// watchers already.
    pub fn add(
        &self,
        (worker, token, generation): (usize, usize, u64),
        categories: Categories,
        bytes_max: usize,
    ) -> Option<Arc<Watcher>> {
        let mut list = self.list.lock();
        if list.len() >= self.count_max {
            return None;
        }
        let queue = Mutex::new(Queue::default());
        let since = self.lines.load(Ordering::Relaxed);
        let watcher = Arc::new(Watcher { worker, token, generation, categories, since, queue, bytes_max });
        list.push(Arc::clone(&watcher));
        self.watched.fetch_or(categories.0, Ordering::Relaxed);
        Some(watcher)
    }

    /// Ends the watch of a connection.
    pub fn remove(&self, watcher: &Arc<Watcher>) {
        let mut list = self.list.lock();
        list.retain(|other| !Arc::ptr_eq(other, watcher));
        let watched = list.iter().fold(0, |watched, watcher| watched | watcher.categories.0);
        self.watched.store(watched, Ordering::Relaxed);
    }

    /// Puts the lines of a turn into the queues of the watchers of their categories, and empties the log. Calls `tell`
    /// for each watcher that gets lines and whose queue was empty before.
    pub fn publish(&self, log: &mut Log<'_>, mut tell: impl FnMut(&Watcher)) {
        self.worker_dropped.fetch_add(std::mem::take(&mut log.dropped), Ordering::Relaxed);
        if log.lines.is_empty() {
            return;
        }
        self.worker_written.fetch_add(log.lines.len() as u64, Ordering::Relaxed);
        for watcher in &*self.list.lock() {
            let mut queue = watcher.queue.lock();
            let was_empty = queue.lines.is_empty();
            let (mut sent, mut skipped) = (0, 0);
            let mut from = 0;
            for &(category, number, to) in &log.lines {
                let line = &log.out[from..to];
                from = to;
                if !watcher.categories.meets(category) || number <= watcher.since {
                    continue;
                }
                if queue.put(line, watcher.bytes_max) {
                    sent += 1;
                } else {
                    skipped += 1;
                }
            }
            if was_empty && !queue.lines.is_empty() {
                tell(watcher);
            }
            self.watcher_sent.fetch_add(sent, Ordering::Relaxed);
            self.watcher_skipped.fetch_add(skipped, Ordering::Relaxed);
        }
        log.out.clear();
        log.lines.clear();
    }

    /// Sets the counters to 0.
    pub fn reset_counters(&self) {
        for counter in [&self.worker_written, &self.worker_dropped, &self.watcher_sent, &self.watcher_skipped] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

impl Watcher {
    /// Takes all lines out of the queue.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.queue.lock().lines)
    }
}

impl Queue {
    /// Appends a line, unless the queue would become longer than `bytes_max`. Returns whether it has appended the line.
    fn put(&mut self, line: &[u8], bytes_max: usize) -> bool {
        if self.lines.len() + line.len() > bytes_max {
            self.skipped += 1;
            return false;
        }
        if self.skipped > 0 {
            self.lines.extend_from_slice(format!("skipped={}\n", self.skipped).as_bytes());
            self.skipped = 0;
        }
        self.lines.extend_from_slice(line);
        true
    }
}

/// The lines that a worker writes in a turn, and publishes at its end. A worker has a log only while a client watches.
#[derive(Debug)]
pub struct Log<'a> {
    watchers: &'a Watchers,
    watched: Categories,
    /// The wall-clock time of this turn, as the lines print it.
    time: String,
    out: Vec<u8>,
    /// The category and the number of each line, and its end in `out`.
    lines: Vec<(Categories, u64, usize)>,
    bytes_max: usize,
    /// The number of lines that the log had no room for.
    dropped: u64,
}

/// The reason for which a connection closes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseReason {
    /// The connection is broken, or it was a watcher's.
    #[default]
    Error,
    /// The client sent `quit`, or closed the connection.
    Normal,
    /// The client was silent for too long (`idle_timeout`).
    IdleTimeout,
    /// The server stops.
    Shutdown,
}

impl<'a> Log<'a> {
    /// An empty log, for at most `bytes_max` bytes.
    pub fn new(watchers: &'a Watchers, bytes_max: usize) -> Log<'a> {
        Log {
            watchers,
            watched: Categories::default(),
            time: String::new(),
            out: Vec::new(),
            lines: Vec::new(),
            bytes_max,
            dropped: 0,
        }
    }

    /// Begins a turn. `watched` has the categories that clients watch. `micros` is the time in microseconds since 1970.
    pub fn begin(&mut self, watched: Categories, micros: u128) {
        self.watched = watched;
        self.time = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    }

    /// Whether a client watches a category.
    pub fn wants(&self, category: Categories) -> bool {
        self.watched.meets(category)
    }

    /// Writes a line, if a client watches its category and the log has room.
    pub fn line(&mut self, category: Categories, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.wants(category) {
            return;
        }
        let start = self.out.len();
        let number = self.watchers.lines.fetch_add(1, Ordering::Relaxed) + 1;
        put(&mut self.out, format_args!("ts={} gid={number} ", self.time));
        write(&mut self.out);
        self.out.push(b'\n');
        if self.out.len() > self.bytes_max {
            self.out.truncate(start);
            self.dropped += 1;
        } else {
            self.lines.push((category, number, self.out.len()));
        }
    }

    /// Counts lines that were lost before they came to this log.
    pub fn count_dropped(&mut self, lines: u64) {
        self.dropped += lines;
    }

    /// Writes that a connection has opened. `peer` is the client's address on a TCP connection.
    pub fn connection_new(&mut self, peer: Option<SocketAddr>, is_local: bool, fd: i32) {
        self.line(Categories::CONNEVENTS, |out| {
            out.extend_from_slice(b"type=conn_new ");
            put_peer(out, peer, is_local);
            put(out, format_args!(" cfd={fd}"));
        });
    }

    /// Writes that TLS failed on a connection, and that the server closes it for this reason. memcached gives the
    /// reason in OpenSSL's words.
    pub fn connection_tls_error(&mut self, fd: i32, error: &std::io::Error) {
        self.line(Categories::CONNEVENTS, |out| {
            // The escapes keep the message on one line, whatever the client has sent.
            put(out, format_args!("type=conntlserr fd={fd} msg={}", error.to_string().escape_debug()));
        });
    }

    /// Writes that a connection closes.
    pub fn connection_close(&mut self, peer: Option<SocketAddr>, is_local: bool, reason: CloseReason, fd: i32) {
        let reason = match reason {
            CloseReason::Error => "error",
            CloseReason::Normal => "normal",
            CloseReason::IdleTimeout => "idle_timeout",
            CloseReason::Shutdown => "shutdown",
        };
        self.line(Categories::CONNEVENTS, |out| {
            out.extend_from_slice(b"type=conn_close ");
            put_peer(out, peer, is_local);
            put(out, format_args!(" reason={reason} cfd={fd}"));
        });
    }
}

/// Appends formatted text.
pub fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory cannot fail");
}

/// Appends `rip=<address> rport=<port> transport=tcp|local`. The address is `unknown` if the system does not know it
/// any more.
fn put_peer(out: &mut Vec<u8>, peer: Option<SocketAddr>, is_local: bool) {
    match peer {
        Some(peer) => put(out, format_args!("rip={} rport={} transport=tcp", peer.ip(), peer.port())),
        None if is_local => out.extend_from_slice(b"rip=unix rport=0 transport=local"),
        None => out.extend_from_slice(b"rip=unknown rport=0 transport=tcp"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_have_memcacheds_names() {
        for (words, expected) in [
            ("", Some(Categories::FETCHERS)),
            ("fetchers", Some(Categories::FETCHERS)),
            ("f m", Some(Categories(Categories::FETCHERS.0 | Categories::MUTATIONS.0))),
            ("evictions connevents", Some(Categories(Categories::EVICTIONS.0 | Categories::CONNEVENTS.0))),
            ("deletions", Some(Categories::DELETIONS)),
            ("rawcmds proxyreqs proxyevents proxyuser", Some(Categories::SILENT)),
            ("sysevents", Some(Categories::SYSEVENTS)),
            ("fetchers bogus", None),
            ("fetchersx", None),
            ("noreply", None),
        ] {
            let words: Vec<&[u8]> = words.split_ascii_whitespace().map(str::as_bytes).collect();
            assert_eq!(Categories::named(&words), expected, "{words:?}");
        }
    }

    /// A log with `lines` lines in each of two categories. A line is a letter and a number.
    fn log<'a>(watchers: &'a Watchers, bytes_max: usize, lines: usize) -> Log<'a> {
        let mut log = Log::new(watchers, bytes_max);
        log.begin(Categories(u16::MAX), 12_000_345);
        for number in 0..lines {
            log.line(Categories::FETCHERS, |out| put(out, format_args!("f{number}")));
            log.line(Categories::MUTATIONS, |out| put(out, format_args!("m{number}")));
        }
        log
    }

    fn text(watcher: &Watcher) -> String {
        String::from_utf8(watcher.take()).expect("text")
    }

    #[test]
    fn everybody_is_told_what_he_watches() {
        let watchers = Watchers::new(2);
        let fetchers = watchers.add((0, 1, 1), Categories::FETCHERS, 1000).expect("there is room");
        let mutations = watchers.add((1, 1, 1), Categories::MUTATIONS, 1000).expect("there is room");
        assert!(watchers.add((2, 1, 1), Categories::MUTATIONS, 1000).is_none());
        let mut told = Vec::new();
        watchers.publish(&mut log(&watchers, 1000, 2), |watcher| told.push(watcher.worker));
        watchers.publish(&mut log(&watchers, 1000, 0), |watcher| told.push(watcher.worker));
        watchers.publish(&mut log(&watchers, 1000, 1), |watcher| told.push(watcher.worker));
        assert_eq!(told, [0, 1], "once, until the queue was taken");
        let line = |gid: u32, text: &str| format!("ts=12.000345 gid={gid} {text}\n");
        assert_eq!(text(&fetchers), line(1, "f0") + &line(3, "f1") + &line(5, "f0"));
        assert_eq!(text(&mutations), line(2, "m0") + &line(4, "m1") + &line(6, "m0"));
        watchers.remove(&fetchers);
        assert_eq!((watchers.watched(), watchers.count()), (Categories::MUTATIONS, 1));
        watchers.remove(&mutations);
        assert_eq!((watchers.watched(), watchers.count()), (Categories::default(), 0));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_told() {
        let watchers = Watchers::new(1);
        let watcher = watchers.add((0, 1, 1), Categories::FETCHERS, 60).expect("there is room");
        watchers.publish(&mut log(&watchers, 1000, 5), |_| ());
        assert_eq!(text(&watcher), "ts=12.000345 gid=1 f0\nts=12.000345 gid=3 f1\n");
        watchers.publish(&mut log(&watchers, 1000, 1), |_| ());
        assert_eq!(text(&watcher), "skipped=3\nts=12.000345 gid=11 f0\n");
        assert_eq!(watchers.watcher_skipped.load(Ordering::Relaxed), 3);
        assert_eq!(watchers.watcher_sent.load(Ordering::Relaxed), 3);
        // A log has a limit, too: two of the four lines fit.
        watchers.publish(&mut log(&watchers, 50, 2), |_| ());
        assert_eq!(watchers.worker_dropped.load(Ordering::Relaxed), 2);
        assert_eq!(watchers.worker_written.load(Ordering::Relaxed), 14);
    }
}
