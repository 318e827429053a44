//! Executes operations while clients watch. It looks at the item before an operation and at the counters after it, and
//! writes the lines that memcached would write.

use super::reply::{Reply, escape};
use super::shard::Shard;
use crate::clock::{Clock, NEVER};
use crate::protocol::packet::opcode;
use crate::protocol::token::KEY_LENGTH_MAX;
use crate::protocol::{Operation, Verb};
use crate::store::arena::ItemId;
use crate::store::gather::{Gathered, Gathering};
use crate::store::{Absent, Evicted, OutOfMemory, Store};
use crate::watch::{Categories, Log, put};

fn put_key(key: &[u8], out: &mut Vec<u8>) {
    let mut room = [0; 3 * KEY_LENGTH_MAX];
    let len = escape(key, &mut room);
    out.extend_from_slice(&room[..len]);
}

fn item_get(log: &mut Log<'_>, key: &[u8], seen: &Seen, fd: i32) {
    let Seen { status, class, size, .. } = seen;
    log.line(Categories::FETCHERS, |out| {
        out.extend_from_slice(b"type=item_get key=");
        put_key(key, out);
        put(out, format_args!(" status={status} clsid={class} cfd={fd} size={size}"));
    });
}

fn item_store(log: &mut Log<'_>, key: &[u8], status: &str, command: &str, stored: &Stored, fd: i32) {
    let Stored { ttl, class, size } = stored;
    log.line(Categories::MUTATIONS, |out| {
        out.extend_from_slice(b"type=item_store key=");
        put_key(key, out);
        put(out, format_args!(" status={status} cmd={command} ttl={ttl} clsid={class} cfd={fd} size={size}"));
    });
}

fn deleted(log: &mut Log<'_>, key: &[u8], command: &str, seen: &Seen) {
    log.line(Categories::DELETIONS, |out| {
        out.extend_from_slice(b"type=deleted key=");
        put_key(key, out);
        put(out, format_args!(" cmd={command} clsid={} size={}", seen.class, seen.size));
    });
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

/// Calls [`Store::housekeep`], and writes lines about its evictions and the page move that it begins.
pub fn housekeep(log: &mut Log<'_>, shard: &mut Shard, steps: u32, crawler_on: bool) -> bool {
    let busy = observe(log, shard, |shard| shard.store.housekeep(steps, crawler_on));
    if let Some((from, to)) = shard.store.page_move_begun() {
        page_move(log, from.0, to.map_or(0, |to| to.0));
    }
    busy
}

/// Calls [`execute`](super::execute), and writes lines about the operation. `fd` is the descriptor of the connection
/// that sent it.
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

/// Calls [`commit`](super::commit), and writes lines about the operation.
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
    let commit = |shard: &mut Shard| super::commit(shard, operation, input, id, clock, reply);
    tell(log, fd, shard, operation, input, clock, commit);
}

/// Calls [`reserve`](super::reserve). If the store has no room, this function writes lines about the operation.
/// Otherwise [`commit`] will write them.
///
/// # Errors
/// Those of [`reserve`](super::reserve).
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
    let reserved = observe(log, shard, |shard| super::reserve(shard, operation, input, wanted, so_far));
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
    observe(log, shard, act);
    let stored = shard.store.counters.total_items != seen.stored_before;
    if refusals(&shard.store) != seen.refused_before {
        tell_refusal(log, fd, shard, operation, key, &seen);
        return;
    }
    item_get(log, key, &seen, fd);
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
            item_store(log, key, status, command_name(operation), &stored_value, fd);
        }
        // If the command has created a missing number, the line calls it an `add`.
        Verb::MetaArithmetic | Verb::BinaryArithmetic if stored && !seen.found() => {
            item_get(log, key, &seen, fd);
            if let Ok(id) = shard.store.peek(operation.hash, key) {
                let item = shard.store.item(id);
                let ttl = ttl(shard, item.exptime());
                let stored = Stored { ttl, class: shard.store.class_of(id).0, size: item.value_len() };
                item_store(log, key, "stored", "add", &stored, fd);
            }
        }
        Verb::Delete | Verb::MetaDelete | Verb::BinaryDelete
            if seen.found() && shard.store.peek(operation.hash, key) == Err(Absent::Unknown) =>
        {
            deleted(log, key, if operation.verb == Verb::MetaDelete { "md" } else { "delete" }, &seen);
        }
        _ => {}
    }
}

/// Writes that a value is too large, or that the store has no memory for it. As in memcached, the line about the lookup
/// comes second: a failed `set` looks up the old value to remove it.
fn tell_refusal(log: &mut Log<'_>, fd: i32, shard: &Shard, operation: &Operation, key: &[u8], seen: &Seen) {
    let status = if operation.too_large { "too_large" } else { "no_memory" };
    debug_assert!(shard.store.counters.total_items >= seen.stored_before);
    let nothing = Stored { ttl: 0, class: 0, size: 0 };
    item_store(log, key, status, command_name(operation), &nothing, fd);
    if operation.verb == Verb::MetaSet || command_name(operation) == "set" {
        item_get(log, key, seen, fd);
    }
}

/// The value that a storage command has stored, or would have stored.
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
