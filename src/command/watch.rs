//! `watch`: what happens, told as lines to the connections that asked for it.
//!
//! ```text
//! a worker's turn                            watchers
//! ┌──────────────────────────────┐           ┌─ queue ─┐
//! │ Log: lines of this turn,     │  publish  ├─────────┤ ──▶ the outbox of its connection, when that is empty
//! │ each of a category           │ ────────▶ ├─ queue ─┤
//! └──────────────────────────────┘           └─────────┘
//! ```
//! A worker looks once in a turn whether anything is watched. If not, there is no [`Log`], and commands are executed by
//! code that knows nothing of all this. If so, they are executed through [`execute`], which looks at the item before and
//! at the counters after, and writes the lines that memcached would.
//!
//! Nobody waits for a watcher. A log and a queue have a limit; a line that does not fit is lost and counted, and a watcher
//! that has lost lines is told how many (`skipped=N`) before the next one.
//!
//! Lines and categories are memcached's. `rawcmds` and the categories of its proxy are accepted and stay silent, as they
//! do in memcached without a proxy. `sysevents` tells of pages that are moved because their memory is needed elsewhere; of a
//! crawler there is nothing to tell, since expired items are found without walks through all. Wanted differences: the fraction of `ts` always has six digits, so that it can be read
//! as one; all lines of a worker's turn have the same `ts` (`gid` gives their order); `type=item_store` of a value that is
//! too large names the connection, where memcached prints another number.

use super::walk::put_escaped;
use super::{Reply, Shard};
use crate::clock::{Clock, NEVER};
use crate::protocol::encode::Output;
use crate::protocol::packet::opcode;
use crate::protocol::{Operation, Verb};
use crate::store::arena::ItemId;
use crate::store::gather::{Gathered, Gathering};
use crate::store::{Absent, Evicted, OutOfMemory, Store};
use parking_lot::Mutex;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// A set of categories of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Categories(u16);

impl Categories {
    /// Items that are looked up.
    pub const FETCHERS: Categories = Categories(1);
    /// Storage commands.
    pub const MUTATIONS: Categories = Categories(1 << 1);
    /// Live items that make room for others.
    pub const EVICTIONS: Categories = Categories(1 << 2);
    /// Connections that come and go.
    pub const CONNEVENTS: Categories = Categories(1 << 3);
    /// Items that are deleted by a command.
    pub const DELETIONS: Categories = Categories(1 << 4);
    /// What happens in the background.
    pub const SYSEVENTS: Categories = Categories(1 << 5);
    /// Categories of which there is nothing to tell.
    const SILENT: Categories = Categories(1 << 6);

    /// Those that the arguments of `watch` name; `fetchers` if there are none. `None`: a word is no category. As in
    /// memcached, a word may be cut short.
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

    /// Whether there are none.
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
    /// What is watched by anyone: what workers look at once in a turn.
    watched: AtomicU16,
    list: Mutex<Vec<Arc<Watcher>>>,
    count_max: usize,
    /// Lines so far: their number is the `gid` of the last.
    lines: AtomicU64,
    /// Lines that workers wrote.
    pub worker_written: AtomicU64,
    /// Lines that workers had no room for.
    pub worker_dropped: AtomicU64,
    /// Lines that were put into queues.
    pub watcher_sent: AtomicU64,
    /// Lines that queues had no room for.
    pub watcher_skipped: AtomicU64,
}

/// A connection that watches.
#[derive(Debug)]
pub struct Watcher {
    /// Its worker.
    pub worker: usize,
    /// Its token there.
    pub token: usize,
    /// And its generation.
    pub generation: u64,
    categories: Categories,
    /// It is told of lines after this one.
    since: u64,
    queue: Mutex<Queue>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    /// Invariant: at most `bytes_max`, and the line that tells of skipped ones.
    lines: Vec<u8>,
    /// Lines lost since the last one that was not.
    skipped: u64,
}

impl Watchers {
    /// Nobody watches yet; at most so many can.
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

    /// What is watched by anyone.
    #[inline]
    pub fn watched(&self) -> Categories {
        Categories(self.watched.load(Ordering::Relaxed))
    }

    /// How many watch.
    pub fn count(&self) -> usize {
        self.list.lock().len()
    }

    /// A connection watches from now on, with a queue of so many bytes. `None`: there are too many already.
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

    /// A connection does not watch any more.
    pub fn remove(&self, watcher: &Arc<Watcher>) {
        let mut list = self.list.lock();
        list.retain(|other| !Arc::ptr_eq(other, watcher));
        let watched = list.iter().fold(0, |watched, watcher| watched | watcher.categories.0);
        self.watched.store(watched, Ordering::Relaxed);
    }

    /// Puts the lines of a turn into the queues of those who watch their categories, and empties the log. `tell` is called
    /// for each watcher whose queue was empty before.
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
                let line = &log.out.bytes()[from..to];
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

    /// Forgets what was counted.
    pub fn reset_counters(&self) {
        for counter in [&self.worker_written, &self.worker_dropped, &self.watcher_sent, &self.watcher_skipped] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

impl Watcher {
    /// Takes all lines out of its queue and appends them.
    pub fn take(&self, out: &mut Output) {
        let lines = std::mem::take(&mut self.queue.lock().lines);
        out.put(&lines);
    }
}

impl Queue {
    /// Appends a line, unless it makes the queue longer than it may be.
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

/// What a worker has to tell at the end of its turn. There is one only while somebody watches.
#[derive(Debug)]
pub struct Log<'a> {
    watchers: &'a Watchers,
    watched: Categories,
    /// Wall-clock time of this turn, as lines tell it.
    time: String,
    out: Output,
    /// Category and number of each line, and where it ends in `out`.
    lines: Vec<(Categories, u64, usize)>,
    bytes_max: usize,
    /// Lines there was no room for.
    dropped: u64,
}

/// Why a connection closes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseReason {
    /// It is broken, or was a watcher's.
    #[default]
    Error,
    /// `quit`, or the other side closed it.
    Normal,
    /// `idle_timeout`
    IdleTimeout,
    /// The server stops.
    Shutdown,
}

impl<'a> Log<'a> {
    /// An empty log of so many bytes.
    pub fn new(watchers: &'a Watchers, bytes_max: usize) -> Log<'a> {
        Log {
            watchers,
            watched: Categories::default(),
            time: String::new(),
            out: Output::default(),
            lines: Vec::new(),
            bytes_max,
            dropped: 0,
        }
    }

    /// A turn begins, at a time in microseconds since 1970: what is watched, and when.
    pub fn begin(&mut self, watched: Categories, micros: u128) {
        self.watched = watched;
        self.time = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    }

    fn wants(&self, category: Categories) -> bool {
        self.watched.meets(category)
    }

    /// Writes a line, if its category is watched and there is room.
    fn line(&mut self, category: Categories, write: impl FnOnce(&mut Output)) {
        if !self.wants(category) {
            return;
        }
        let start = self.out.len();
        let number = self.watchers.lines.fetch_add(1, Ordering::Relaxed) + 1;
        put(&mut self.out, format_args!("ts={} gid={number} ", self.time));
        write(&mut self.out);
        self.out.put(b"\n");
        if self.out.len() > self.bytes_max {
            self.out.truncate(start);
            self.dropped += 1;
        } else {
            self.lines.push((category, number, self.out.len()));
        }
    }

    fn item_get(&mut self, key: &[u8], seen: &Seen, fd: i32) {
        let Seen { status, class, size, .. } = seen;
        self.line(Categories::FETCHERS, |out| {
            out.put(b"type=item_get key=");
            put_escaped(key, out);
            put(out, format_args!(" status={status} clsid={class} cfd={fd} size={size}"));
        });
    }

    fn item_store(&mut self, key: &[u8], status: &str, command: &str, stored: &Stored, fd: i32) {
        let Stored { ttl, class, size } = stored;
        self.line(Categories::MUTATIONS, |out| {
            out.put(b"type=item_store key=");
            put_escaped(key, out);
            put(out, format_args!(" status={status} cmd={command} ttl={ttl} clsid={class} cfd={fd} size={size}"));
        });
    }

    fn deleted(&mut self, key: &[u8], command: &str, seen: &Seen) {
        self.line(Categories::DELETIONS, |out| {
            out.put(b"type=deleted key=");
            put_escaped(key, out);
            put(out, format_args!(" cmd={command} clsid={} size={}", seen.class, seen.size));
        });
    }

    fn eviction(&mut self, evicted: &Evicted) {
        let Evicted { key, fetched, ttl, idle_seconds, class, value_len } = evicted;
        self.line(Categories::EVICTIONS, |out| {
            out.put(b"type=eviction key=");
            put_escaped(key, out);
            let (fetched, ttl) = (if *fetched { "yes" } else { "no" }, ttl.map_or(-1, i64::from));
            put(out, format_args!(" fetch={fetched} ttl={ttl} la={idle_seconds} clsid={} size={value_len}", class.0));
        });
    }

    /// A connection has come. `peer`: of a TCP connection.
    pub fn connection_new(&mut self, peer: Option<SocketAddr>, is_local: bool, fd: i32) {
        self.line(Categories::CONNEVENTS, |out| {
            out.put(b"type=conn_new ");
            put_peer(out, peer, is_local);
            put(out, format_args!(" cfd={fd}"));
        });
    }

    /// TLS failed on a connection, which is closed for it. memcached has OpenSSL's words for the reason.
    pub fn connection_tls_error(&mut self, fd: i32, error: &std::io::Error) {
        self.line(Categories::CONNEVENTS, |out| {
            // One line, whatever the other side has sent.
            put(out, format_args!("type=conntlserr fd={fd} msg={}", error.to_string().escape_debug()));
        });
    }

    /// A connection closes.
    pub fn connection_close(&mut self, peer: Option<SocketAddr>, is_local: bool, reason: CloseReason, fd: i32) {
        let reason = match reason {
            CloseReason::Error => "error",
            CloseReason::Normal => "normal",
            CloseReason::IdleTimeout => "idle_timeout",
            CloseReason::Shutdown => "shutdown",
        };
        self.line(Categories::CONNEVENTS, |out| {
            out.put(b"type=conn_close ");
            put_peer(out, peer, is_local);
            put(out, format_args!(" reason={reason} cfd={fd}"));
        });
    }

    /// A page is to change hands: from a class, to another or, 0, to none.
    fn page_move(&mut self, from: u8, to: u8) {
        self.line(Categories::SYSEVENTS, |out| {
            put(out, format_args!("type=slab_move src={from} dst={to} state=ok"));
        });
    }

    /// Does something to a store that may evict, and tells of what it did.
    pub fn observe<T>(&mut self, shard: &mut Shard, act: impl FnOnce(&mut Shard) -> T) -> T {
        if !self.wants(Categories::EVICTIONS) {
            return act(shard);
        }
        shard.store.note_evictions(true);
        let result = act(shard);
        let (noted, unnoted) = shard.store.take_noted();
        shard.store.note_evictions(false);
        for evicted in &noted {
            self.eviction(evicted);
        }
        self.dropped += unnoted;
        result
    }
}

fn put(out: &mut Output, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory cannot fail");
}

/// `rip=<address> rport=<port> transport=tcp|local`; an address that the system does not know any more is `unknown`.
fn put_peer(out: &mut Output, peer: Option<SocketAddr>, is_local: bool) {
    match peer {
        Some(peer) => put(out, format_args!("rip={} rport={} transport=tcp", peer.ip(), peer.port())),
        None if is_local => out.put(b"rip=unix rport=0 transport=local"),
        None => out.put(b"rip=unknown rport=0 transport=tcp"),
    }
}

/// What was there before an operation.
#[derive(Debug)]
struct Seen {
    status: &'static str,
    class: u8,
    size: usize,
    exptime: u32,
    stored_before: u64,
    refused_before: u64,
}

impl Seen {
    fn of(store: &Store, hash: u64, key: &[u8]) -> Seen {
        let (stored_before, refused_before) = (store.counters.total_items, refusals(store));
        let nothing = Seen { status: "not_found", class: 0, size: 0, exptime: NEVER, stored_before, refused_before };
        match store.peek(hash, key) {
            Ok(id) => {
                let (item, class) = (store.item(id), store.class_of(id).0);
                Seen { status: "found", class, size: item.value_len(), exptime: item.exptime(), ..nothing }
            }
            Err(Absent::Unknown) => nothing,
            Err(Absent::Expired) => Seen { status: "expired", ..nothing },
            Err(Absent::Flushed) => Seen { status: "flushed", ..nothing },
        }
    }

    fn found(&self) -> bool {
        self.status == "found"
    }
}

fn refusals(store: &Store) -> u64 {
    store.counters.store_too_large + store.counters.store_no_memory
}

/// The value of a storage command.
#[derive(Debug)]
struct Stored {
    ttl: u32,
    class: u8,
    size: usize,
}

/// [`Store::housekeep`], and tells of it.
pub fn housekeep(log: &mut Log<'_>, shard: &mut Shard, steps: u32, crawler_on: bool) -> bool {
    let busy = log.observe(shard, |shard| shard.store.housekeep(steps, crawler_on));
    if let Some((from, to)) = shard.store.page_move_begun() {
        log.page_move(from.0, to.map_or(0, |to| to.0));
    }
    busy
}

/// [`execute`](super::execute), and tells of it. `fd`: of the connection that sent the operation.
#[inline(never)]
pub fn execute(
    log: &mut Log<'_>,
    fd: i32,
    shard: &mut Shard,
    operation: &Operation,
    input: &[u8],
    clock: &Clock,
    reply: &mut Reply,
) {
    tell(log, fd, shard, operation, input, clock, |shard| super::execute(shard, operation, None, input, clock, reply));
}

/// [`commit`](super::set::commit), and tells of it.
#[allow(clippy::too_many_arguments, reason = "those of the function that it wraps, and two")]
pub fn commit(
    log: &mut Log<'_>,
    fd: i32,
    shard: &mut Shard,
    operation: &Operation,
    input: &[u8],
    id: ItemId,
    clock: &Clock,
    reply: &mut Reply,
) {
    let commit = |shard: &mut Shard| super::set::commit(shard, operation, input, id, clock, reply);
    tell(log, fd, shard, operation, input, clock, commit);
}

/// [`reserve`](super::set::reserve), and tells of it when there is no room; otherwise [`commit`] will.
///
/// # Errors
/// Those of what it wraps.
pub fn reserve(
    log: &mut Log<'_>,
    fd: i32,
    shard: &mut Shard,
    operation: &Operation,
    input: &[u8],
    wanted: usize,
    so_far: Option<Gathering>,
) -> Result<Gathered, OutOfMemory> {
    let key = operation.key.of(input);
    let seen = Seen::of(&shard.store, operation.hash, key);
    let reserved = log.observe(shard, |shard| super::set::reserve(shard, operation, input, wanted, so_far));
    if reserved.is_err() {
        tell_refusal(log, fd, shard, operation, key, &seen);
    }
    reserved
}

fn tell(
    log: &mut Log<'_>,
    fd: i32,
    shard: &mut Shard,
    operation: &Operation,
    input: &[u8],
    clock: &Clock,
    act: impl FnOnce(&mut Shard),
) {
    let key = operation.key.of(input);
    let seen = Seen::of(&shard.store, operation.hash, key);
    log.observe(shard, act);
    let stored = shard.store.counters.total_items != seen.stored_before;
    if refusals(&shard.store) != seen.refused_before {
        tell_refusal(log, fd, shard, operation, key, &seen);
        return;
    }
    log.item_get(key, &seen, fd);
    match operation.verb {
        verb if verb.is_storage() => {
            let stored_value = stored_value(shard, operation, key, clock, &seen, stored);
            let compares = verb == Verb::Cas || operation.has(b'C');
            let status = match (stored, compares, seen.found()) {
                (true, ..) => "stored",
                (false, true, true) => "exists",
                (false, true, false) => "not_found",
                (false, false, _) => "not_stored",
            };
            log.item_store(key, status, command_name(operation), &stored_value, fd);
        }
        // A number that was not there is stored as `add` does.
        Verb::MetaArithmetic | Verb::BinaryArithmetic if stored && !seen.found() => {
            log.item_get(key, &seen, fd);
            if let Ok(id) = shard.store.peek(operation.hash, key) {
                let item = shard.store.item(id);
                let ttl = ttl(shard, item.exptime());
                let stored = Stored { ttl, class: shard.store.class_of(id).0, size: item.value_len() };
                log.item_store(key, "stored", "add", &stored, fd);
            }
        }
        Verb::Delete | Verb::MetaDelete | Verb::BinaryDelete
            if seen.found() && shard.store.peek(operation.hash, key) == Err(Absent::Unknown) =>
        {
            log.deleted(key, if operation.verb == Verb::MetaDelete { "md" } else { "delete" }, &seen);
        }
        _ => {}
    }
}

/// A value that is too large, or that there is no memory for. As in memcached the lookup comes second: it is that of the
/// old value, which must not outlive a `set`.
fn tell_refusal(log: &mut Log<'_>, fd: i32, shard: &Shard, operation: &Operation, key: &[u8], seen: &Seen) {
    let status = if operation.too_large { "too_large" } else { "no_memory" };
    debug_assert!(shard.store.counters.total_items >= seen.stored_before);
    let nothing = Stored { ttl: 0, class: 0, size: 0 };
    log.item_store(key, status, command_name(operation), &nothing, fd);
    if operation.verb == Verb::MetaSet || command_name(operation) == "set" {
        log.item_get(key, seen, fd);
    }
}

/// What a storage command has stored, or would have.
fn stored_value(shard: &Shard, operation: &Operation, key: &[u8], clock: &Clock, seen: &Seen, stored: bool) -> Stored {
    let store = &shard.store;
    let extends = matches!(command_name(operation), "append" | "prepend");
    let sent = match operation.verb {
        Verb::MetaSet if !operation.has(b'T') => NEVER,
        _ => clock.deadline(operation.exptime, store.now()),
    };
    let size = operation.value.len as usize + if extends && stored { seen.size } else { 0 };
    let exptime = match (extends && stored, seen.found()) {
        (true, true) => seen.exptime,
        (true, false) => clock.deadline(operation.vivify, store.now()),
        (false, _) => sent,
    };
    let class = store.class_for(key.len(), operation.client_flags, size).0;
    Stored { ttl: ttl(shard, exptime), class, size }
}

/// Seconds to live, as memcached prints them: 0 for ever; without a sign, however little is left.
fn ttl(shard: &Shard, exptime: u32) -> u32 {
    if exptime == NEVER { 0 } else { exptime.wrapping_sub(shard.store.now().0) }
}

/// memcached's name of what a storage command does.
fn command_name(operation: &Operation) -> &'static str {
    match operation.verb {
        Verb::Set => "set",
        Verb::Add => "add",
        Verb::Replace => "replace",
        Verb::Append => "append",
        Verb::Prepend => "prepend",
        Verb::Cas => "cas",
        Verb::BinarySet => match operation.mode {
            opcode::APPEND | opcode::APPENDQ => "append",
            opcode::PREPEND | opcode::PREPENDQ => "prepend",
            _ if operation.has(b'C') => "cas",
            opcode::ADD | opcode::ADDQ => "add",
            opcode::REPLACE | opcode::REPLACEQ => "replace",
            _ => "set",
        },
        _ => match operation.mode.to_ascii_uppercase() {
            b'E' => "add",
            b'A' => "append",
            b'P' => "prepend",
            b'R' => "replace",
            _ if operation.has(b'C') => "cas",
            _ => "set",
        },
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

    /// Lines of a log, of one letter and a number each.
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
        let mut out = Output::default();
        watcher.take(&mut out);
        String::from_utf8(out.take()).expect("text")
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
        // A log has its limit, too: two lines of four fit.
        watchers.publish(&mut log(&watchers, 50, 2), |_| ());
        assert_eq!(watchers.worker_dropped.load(Ordering::Relaxed), 2);
        assert_eq!(watchers.worker_written.load(Ordering::Relaxed), 14);
    }
}
