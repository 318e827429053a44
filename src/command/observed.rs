//! Executes operations while clients watch. It looks at the item before an operation and at the counters after it, and
//! writes the lines that memcached would write.

use super::reply::{Reply, escape};
use super::request::Request;
use super::shard::Shard;
use crate::clock::NEVER;
use crate::protocol::packet::opcode;
use crate::protocol::token::KEY_LENGTH_MAX;
use crate::protocol::{Operation, Verb};
use crate::store::arena::ItemId;
use crate::store::gather::{Gathered, Gathering};
use crate::store::{Absent, Evicted, OutOfMemory, Store};
use crate::watch::{Categories, Log, put};

/// Executes the operations of one connection, and writes the lines about them.
#[derive(Debug)]
pub struct Observer<'a, 'b> {
    /// The lines of this turn.
    pub log: &'a mut Log<'b>,
    /// The descriptor of the connection.
    pub fd: i32,
}

impl Observer<'_, '_> {
    /// Calls [`execute`](super::execute), and writes lines about the operation.
    #[inline(never)]
    pub fn execute(&mut self, shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
        self.tell(shard, request, |shard| super::execute(shard, request, reply));
    }

    /// Calls [`commit`](super::commit), and writes lines about the operation.
    pub fn commit(&mut self, shard: &mut Shard, request: &Request<'_>, id: ItemId, reply: &mut Reply) {
        self.tell(shard, request, |shard| super::commit(shard, request, id, reply));
    }

    /// Calls [`reserve`](super::reserve). If the store has no room, this function writes lines about the operation.
    /// Otherwise [`commit`](Observer::commit) will write them.
    ///
    /// # Errors
    /// Those of [`reserve`](super::reserve).
    pub fn reserve(
        &mut self,
        shard: &mut Shard,
        request: &Request<'_>,
        wanted: usize,
        so_far: Option<Gathering>,
    ) -> Result<Gathered, OutOfMemory> {
        let seen = Seen::new(&shard.store, request);
        let reserved = observe(self.log, shard, |shard| super::reserve(shard, request, wanted, so_far));
        if reserved.is_err() {
            self.tell_refusal(request, &seen);
        }
        reserved
    }

    fn tell(&mut self, shard: &mut Shard, request: &Request<'_>, act: impl FnOnce(&mut Shard)) {
        let Request { operation, key, .. } = *request;
        let mut seen = Seen::new(&shard.store, request);
        observe(self.log, shard, act);
        if shard.store.counters.get_early != seen.early_before {
            (seen.status, seen.class, seen.size) = ("early", 0, 0);
        }
        let stored = shard.store.counters.total_items != seen.stored_before;
        if refusals(&shard.store) != seen.refused_before {
            self.tell_refusal(request, &seen);
            return;
        }
        self.item_get(key, &seen);
        match operation.verb {
            verb if verb.is_storage() => {
                let compares = verb == Verb::Cas || operation.has(b'C');
                let status = match (stored, compares, seen.found()) {
                    (true, ..) => "stored",
                    (false, true, true) => "exists",
                    (false, true, false) => "not_found",
                    (false, false, _) => "not_stored",
                };
                let value = if stored { Stored::joined(shard, request, &seen) } else { Stored::sent(shard, request) };
                self.item_store(key, status, command_name(operation), &value);
            }
            // If the command has created a missing number, the line calls it an `add`.
            Verb::MetaArithmetic | Verb::BinaryArithmetic if stored && !seen.found() => {
                self.item_get(key, &seen);
                if let Ok(id) = shard.store.peek(operation.hash, key) {
                    let item = shard.store.item(id);
                    let ttl = ttl(shard, item.exptime());
                    let value = Stored { ttl, class: shard.store.class_of(id).0, size: item.value_len() };
                    self.item_store(key, "stored", "add", &value);
                }
            }
            Verb::Delete | Verb::MetaDelete | Verb::BinaryDelete
                if seen.found() && shard.store.peek(operation.hash, key) == Err(Absent::Unknown) =>
            {
                self.deleted(key, if operation.verb == Verb::MetaDelete { "md" } else { "delete" }, &seen);
            }
            _ => {}
        }
    }

    /// Writes that a value is too large, or that the store has no memory for it. As in memcached, the line about the
    /// lookup comes second: a failed `set` looks up the old value to remove it.
    fn tell_refusal(&mut self, request: &Request<'_>, seen: &Seen) {
        let Request { operation, key, .. } = *request;
        let status = if operation.too_large { "too_large" } else { "no_memory" };
        let command = command_name(operation);
        self.item_store(key, status, command, &Stored { ttl: 0, class: 0, size: 0 });
        if operation.verb == Verb::MetaSet || command == "set" {
            self.item_get(key, seen);
        }
    }

    fn item_get(&mut self, key: &[u8], seen: &Seen) {
        let (Seen { status, class, size, .. }, fd) = (seen, self.fd);
        self.log.line(Categories::FETCHERS, |out| {
            out.extend_from_slice(b"type=item_get key=");
            put_key(key, out);
            put(out, format_args!(" status={status} clsid={class} cfd={fd} size={size}"));
        });
    }

    fn item_store(&mut self, key: &[u8], status: &str, command: &str, value: &Stored) {
        let (Stored { ttl, class, size }, fd) = (value, self.fd);
        self.log.line(Categories::MUTATIONS, |out| {
            out.extend_from_slice(b"type=item_store key=");
            put_key(key, out);
            put(out, format_args!(" status={status} cmd={command} ttl={ttl} clsid={class} cfd={fd} size={size}"));
        });
    }

    fn deleted(&mut self, key: &[u8], command: &str, seen: &Seen) {
        self.log.line(Categories::DELETIONS, |out| {
            out.extend_from_slice(b"type=deleted key=");
            put_key(key, out);
            put(out, format_args!(" cmd={command} clsid={} size={}", seen.class, seen.size));
        });
    }
}

fn put_key(key: &[u8], out: &mut Vec<u8>) {
    let mut room = [0; 3 * KEY_LENGTH_MAX];
    let len = escape(key, &mut room);
    out.extend_from_slice(&room[..len]);
}

fn eviction(log: &mut Log<'_>, evicted: &Evicted) {
    let Evicted { key, fetched, ttl, idle_seconds, class, value_len } = evicted;
    log.line(Categories::EVICTIONS, |out| {
        out.extend_from_slice(b"type=eviction key=");
        put_key(key, out);
        let (fetched, ttl) = (if *fetched { "yes" } else { "no" }, ttl.map_or(-1, i64::from));
        put(out, format_args!(" fetch={fetched} ttl={ttl} la={idle_seconds} clsid={} size={value_len}", class.0));
    });
}

/// Writes that the store begins to move a page from one class to another. Class 0 as the destination is none.
fn page_move(log: &mut Log<'_>, from: u8, to: u8) {
    log.line(Categories::SYSEVENTS, |out| {
        put(out, format_args!("type=slab_move src={from} dst={to} state=ok"));
    });
}

/// Calls `act`, which may evict items, and writes a line about each eviction.
pub fn observe<T>(log: &mut Log<'_>, shard: &mut Shard, act: impl FnOnce(&mut Shard) -> T) -> T {
    if !log.wants(Categories::EVICTIONS) {
        return act(shard);
    }
    shard.store.note_evictions(true);
    let result = act(shard);
    let (noted, unnoted) = shard.store.take_noted();
    shard.store.note_evictions(false);
    for evicted in &noted {
        eviction(log, evicted);
    }
    log.count_dropped(unnoted);
    result
}

/// The state of a key and of some counters before an operation.
#[derive(Debug)]
struct Seen {
    status: &'static str,
    class: u8,
    size: usize,
    exptime: u32,
    stored_before: u64,
    refused_before: u64,
    /// The early misses. If the operation is one, its line says so.
    early_before: u64,
}

impl Seen {
    fn new(store: &Store, request: &Request<'_>) -> Seen {
        let (stored_before, refused_before) = (store.counters.total_items, refusals(store));
        let early_before = store.counters.get_early;
        let nothing = Seen {
            status: "not_found",
            class: 0,
            size: 0,
            exptime: NEVER,
            stored_before,
            refused_before,
            early_before,
        };
        match store.peek(request.operation.hash, request.key) {
            Ok(id) => {
                let (item, class) = (store.item(id), store.class_of(id).0);
                Seen { status: "found", class, size: item.value_len(), exptime: item.exptime(), ..nothing }
            }
            Err(Absent::Unknown) => nothing,
            Err(Absent::Expired) => Seen { status: "expired", ..nothing },
            Err(Absent::Flushed | Absent::PrefixFlushed) => Seen { status: "flushed", ..nothing },
        }
    }

    fn found(&self) -> bool {
        self.status == "found"
    }
}

fn refusals(store: &Store) -> u64 {
    store.counters.store_too_large + store.counters.store_no_memory
}

/// A value that a command has stored, or would have stored.
#[derive(Debug)]
struct Stored {
    ttl: u32,
    class: u8,
    size: usize,
}

impl Stored {
    /// The value as the client sent it.
    fn sent(shard: &Shard, request: &Request<'_>) -> Stored {
        let operation = request.operation;
        let exptime = match operation.verb {
            Verb::MetaSet if !operation.has(b'T') => request.deadline(0, shard),
            _ => request.deadline(operation.exptime, shard),
        };
        Stored::new(shard, request, exptime, operation.value.len as usize)
    }

    /// The value as the store has it now: an append or a prepend has joined it to the old one.
    fn joined(shard: &Shard, request: &Request<'_>, seen: &Seen) -> Stored {
        let operation = request.operation;
        if !matches!(command_name(operation), "append" | "prepend") {
            return Stored::sent(shard, request);
        }
        let exptime = if seen.found() { seen.exptime } else { request.deadline(operation.vivify, shard) };
        Stored::new(shard, request, exptime, operation.value.len as usize + seen.size)
    }

    fn new(shard: &Shard, request: &Request<'_>, exptime: u32, size: usize) -> Stored {
        let class = shard.store.class_for(request.key.len(), request.operation.client_flags, size).0;
        Stored { ttl: ttl(shard, exptime), class, size }
    }
}

/// Calls [`Store::housekeep`], and writes lines about its evictions and the page move that it begins.
pub fn housekeep(log: &mut Log<'_>, shard: &mut Shard, steps: u32, crawler_on: bool) -> bool {
    let busy = observe(log, shard, |shard| shard.store.housekeep(steps, crawler_on));
    if let Some((from, to)) = shard.store.page_move_begun() {
        page_move(log, from.0, to.map_or(0, |to| to.0));
    }
    busy
}

/// The seconds to live, as memcached prints them. The number 0 means that the item never expires. The number has no
/// sign: if the item has expired, it is the wrapped difference.
fn ttl(shard: &Shard, exptime: u32) -> u32 {
    if exptime == NEVER { 0 } else { exptime.wrapping_sub(shard.store.now().0) }
}

/// memcached's name for the effect of a storage command.
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
