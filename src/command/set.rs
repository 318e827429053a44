//! Storing: set, add, replace, append, prepend, cas, ms. The value is in the request buffer, or in an item that the
//! worker has received in place. `binary.rs` stores by functions of this file, too.

use super::meta::{KeyForm, echo, put_number, tokens};
use super::reply::{Reply, say};
use super::request::Request;
use super::shard::Shard;
use crate::protocol::packet::opcode;
use crate::protocol::{Operation, Verb};
use crate::store::arena::ItemId;
use crate::store::item::{STALE, WON};
use crate::store::{Absent, OutOfMemory};

pub(super) const OUT_OF_MEMORY: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";
const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";

/// The place of a storage command's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// In the request buffer.
    Bytes(&'a [u8]),
    /// In a floating item with the command's key and client flags.
    Item(ItemId),
}

impl Value<'_> {
    fn len(&self, shard: &Shard) -> usize {
        match self {
            Value::Bytes(bytes) => bytes.len(),
            Value::Item(id) => shard.store.item(*id).value_len(),
        }
    }
}

/// The result of a storage command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Stored(ItemId),
    NotStored,
    Exists,
    NotFound,
    OutOfMemory,
}

/// The way in which a storage command treats an old or a missing item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
}

/// The part of a storage command that all protocols have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) mode: Mode,
    /// Store only if the item has this CAS value.
    pub(super) compare: Option<u64>,
    /// `ms I`: if the compared CAS value is older than the item's, store a stale item.
    pub(super) invalidate: bool,
    pub(super) deadline: u32,
    /// Append and prepend: create the item if it is missing, with this deadline.
    pub(super) vivify: Option<u32>,
    pub(super) new_cas: Option<u64>,
    pub(super) state: u8,
}

/// Whether a storage command that fails removes the old item, so that no client takes the old value for the new one. By
/// memcached's rule, only a command that stores its value regardless of the old one does.
fn removes_old_item(operation: &Operation) -> bool {
    match operation.verb {
        Verb::BinarySet => matches!(operation.mode, opcode::SET | opcode::SETQ),
        verb => matches!(verb, Verb::Set | Verb::MetaSet),
    }
}

#[inline(always)]
pub(super) fn store(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    if request.operation.too_large {
        shard.count_set(request.key);
        too_large(shard, request);
        say(request.operation, reply, TOO_LARGE);
        return;
    }
    if request.operation.verb == Verb::Set {
        set(shard, request, reply);
    } else {
        store_value(shard, request, Value::Bytes(request.value()), reply);
    }
}

/// `set`, which most storage commands are: [`store_value`] without the questions that only other commands raise.
#[inline(always)]
fn set(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    let (Operation { hash, client_flags, exptime, .. }, key) = (*request.operation, request.key);
    let value = request.value();
    shard.count_set(key);
    shard.store.count_set(key.len(), client_flags, value.len());
    shard.store.pull_tail(key.len(), client_flags, value.len(), None);
    let old = shard.store.seek(request.hint, hash, key).ok();
    match shard.store.put(hash, key, client_flags, request.deadline(exptime, shard), value, old) {
        Ok(id) => {
            let cas = shard.store.next_cas();
            shard.store.item(id).set_cas(cas);
            say(request.operation, reply, b"STORED\r\n");
        }
        Err(OutOfMemory) => {
            out_of_memory(shard, request);
            say(request.operation, reply, OUT_OF_MEMORY);
        }
    }
}

#[inline(never)]
pub(super) fn store_value(shard: &mut Shard, request: &Request<'_>, value: Value<'_>, reply: &mut Reply) {
    let operation = request.operation;
    shard.count_set(request.key);
    let mode = match operation.verb {
        Verb::Add => Mode::Add,
        Verb::Replace => Mode::Replace,
        Verb::Append => Mode::Append,
        Verb::Prepend => Mode::Prepend,
        _ => Mode::Set,
    };
    let change = Change {
        mode,
        compare: (operation.verb == Verb::Cas).then_some(operation.cas),
        invalidate: false,
        deadline: request.deadline(operation.exptime, shard),
        vivify: None,
        new_cas: None,
        state: 0,
    };
    let text: &[u8] = match apply(shard, request, value, &change) {
        Outcome::Stored(_) => b"STORED\r\n",
        Outcome::NotStored => b"NOT_STORED\r\n",
        Outcome::Exists => b"EXISTS\r\n",
        Outcome::NotFound => b"NOT_FOUND\r\n",
        Outcome::OutOfMemory if matches!(mode, Mode::Append | Mode::Prepend) => b"NOT_STORED\r\n",
        Outcome::OutOfMemory => {
            out_of_memory(shard, request);
            OUT_OF_MEMORY
        }
    };
    say(operation, reply, text);
}

/// Counts a value that is larger than an item may be, and does to the old item what memcached does.
#[cold]
pub(super) fn too_large(shard: &mut Shard, request: &Request<'_>) {
    // memcached does not count such values of the binary protocol.
    shard.store.counters.store_too_large += u64::from(request.operation.verb != Verb::BinarySet);
    fail(shard, request);
}

/// Counts a new value that the store has no memory for, and does to the old item what memcached does.
#[cold]
pub(super) fn out_of_memory(shard: &mut Shard, request: &Request<'_>) {
    shard.store.counters.store_no_memory += 1;
    fail(shard, request);
}

/// Removes the old item of a command that failed, if memcached does so.
fn fail(shard: &mut Shard, request: &Request<'_>) {
    if removes_old_item(request.operation)
        && let Ok(entry) = shard.store.find(request.operation.hash, request.key)
    {
        shard.store.remove(entry);
    }
}

#[inline]
pub(super) fn apply(shard: &mut Shard, request: &Request<'_>, value: Value<'_>, change: &Change) -> Outcome {
    let (key_len, client_flags, len) = (request.key.len(), request.operation.client_flags, value.len(shard));
    shard.store.count_set(key_len, client_flags, len);
    shard.store.pull_tail(key_len, client_flags, len, None);
    let outcome = decide(shard, request, value, change);
    // If the command has not stored the item that received the value, the store frees this item.
    if let Value::Item(id) = value
        && outcome != Outcome::Stored(id)
    {
        shard.store.abandon(id);
    }
    outcome
}

#[inline]
fn decide(shard: &mut Shard, request: &Request<'_>, value: Value<'_>, change: &Change) -> Outcome {
    let old = shard.store.seek(request.hint, request.operation.hash, request.key);
    let mut change = *change;
    if let Some(compare) = change.compare {
        // Append and prepend compare the CAS value, but do not count as a `cas`.
        let counts = !matches!(change.mode, Mode::Append | Mode::Prepend);
        match old {
            Ok(old) => {
                let item = shard.store.item(old);
                if item.cas() == compare && shard.store.options().cas {
                    shard.store.counters_of(old).cas_hits += u64::from(counts);
                } else if change.invalidate && compare != 0 && compare < item.cas() {
                    change.deadline = item.exptime();
                    change.state |= STALE | item.state() & WON;
                    shard.store.counters_of(old).cas_hits += u64::from(counts);
                } else {
                    shard.store.counters_of(old).cas_badval += u64::from(counts);
                    return Outcome::Exists;
                }
            }
            Err(_) if counts => {
                shard.store.counters.cas_misses += 1;
                return Outcome::NotFound;
            }
            // If the item is missing, append and prepend fail or create it, as they do without a CAS value.
            Err(_) => {}
        }
    }
    match (change.mode, old) {
        (Mode::Add, Ok(old)) => {
            // As in memcached, a failed add counts as a use of the old item.
            shard.store.refresh(old);
            Outcome::NotStored
        }
        (Mode::Replace, Err(_)) => Outcome::NotStored,
        (Mode::Append | Mode::Prepend, Ok(old)) => extend(shard, request, value, &change, old),
        (Mode::Append | Mode::Prepend, Err(_)) => match change.vivify {
            Some(deadline) => put(shard, request, value, &Change { deadline, ..change }, old),
            None => Outcome::NotStored,
        },
        (Mode::Set | Mode::Add | Mode::Replace, _) => put(shard, request, value, &change, old),
    }
}

#[inline]
fn put(
    shard: &mut Shard,
    request: &Request<'_>,
    value: Value<'_>,
    change: &Change,
    old: Result<ItemId, Absent>,
) -> Outcome {
    let Operation { hash, client_flags, .. } = *request.operation;
    let id = match value {
        Value::Bytes(bytes) => {
            match shard.store.put(hash, request.key, client_flags, change.deadline, bytes, old.ok()) {
                Ok(id) => id,
                Err(OutOfMemory) => return Outcome::OutOfMemory,
            }
        }
        Value::Item(id) => {
            shard.store.link(id, hash, change.deadline);
            id
        }
    };
    finish(shard, id, change)
}

#[inline]
fn finish(shard: &mut Shard, id: ItemId, change: &Change) -> Outcome {
    let cas = match change.new_cas {
        Some(cas) => cas,
        None => shard.store.next_cas(),
    };
    let item = shard.store.item(id);
    item.set_cas(cas);
    if change.state != 0 {
        item.change_state(change.state, 0);
    }
    Outcome::Stored(id)
}

/// Append and prepend. The new item keeps the client flags and the deadline of the old one.
fn extend(shard: &mut Shard, request: &Request<'_>, value: Value<'_>, change: &Change, old: ItemId) -> Outcome {
    let (key, store) = (request.key, &shard.store);
    let item = store.item(old);
    let (flags, deadline) = (item.client_flags(), item.exptime());
    let old_len = item.value_len();
    let added = value.len(shard);
    let store = &mut shard.store;
    if shard.limits.too_large(key.len(), flags, old_len + added) {
        return Outcome::OutOfMemory;
    }
    // The store must not evict the old value to make room for the new one.
    store.pin(old);
    store.pull_tail(key.len(), flags, old_len + added, None);
    let allocated = store.allocate(key, flags, old_len + added);
    if let Ok(id) = allocated {
        let items = store.items();
        let mut cursor = items.value_cursor(id);
        if change.mode == Mode::Append {
            cursor = items.copy_value(cursor, old);
        }
        cursor = match value {
            Value::Bytes(bytes) => items.fill(cursor, bytes),
            Value::Item(from) => items.copy_value(cursor, from),
        };
        if change.mode == Mode::Prepend {
            items.copy_value(cursor, old);
        }
        store.link(id, request.operation.hash, deadline);
    }
    store.unpin(old);
    match allocated {
        // As in memcached, the longer value makes a new item, which is not stale and has no mark of a binary key.
        Ok(id) => finish(shard, id, &Change { state: 0, ..*change }),
        Err(OutOfMemory) => Outcome::OutOfMemory,
    }
}

pub(super) fn meta_set(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    if request.operation.too_large {
        too_large(shard, request);
        // `q` never hides an error.
        reply.out.put(TOO_LARGE);
        return;
    }
    meta_set_value(shard, request, Value::Bytes(request.value()), reply);
}

pub(super) fn meta_set_value(shard: &mut Shard, request: &Request<'_>, value: Value<'_>, reply: &mut Reply) {
    let operation = request.operation;
    let mode = match operation.mode.to_ascii_uppercase() {
        b'E' => Mode::Add,
        b'A' => Mode::Append,
        b'P' => Mode::Prepend,
        b'R' => Mode::Replace,
        _ => Mode::Set,
    };
    let change = Change {
        mode,
        compare: match mode {
            Mode::Add => None,
            // No item has the CAS value 0. With `C0`, append and prepend compare nothing, and set and replace fail.
            Mode::Append | Mode::Prepend if operation.cas == 0 => None,
            _ => operation.has(b'C').then_some(operation.cas),
        },
        invalidate: operation.has(b'I') && !matches!(mode, Mode::Append | Mode::Prepend),
        deadline: request.deadline(if operation.has(b'T') { operation.exptime } else { 0 }, shard),
        vivify: operation.has(b'N').then(|| request.deadline(operation.vivify, shard)),
        new_cas: operation.has(b'E').then_some(operation.new_cas),
        state: KeyForm::sent(operation).state(),
    };
    let outcome = apply(shard, request, value, &change);
    let status: &[u8] = match outcome {
        Outcome::Stored(_) if operation.quiet => return,
        Outcome::Stored(_) => b"HD",
        Outcome::NotStored => b"NS",
        Outcome::Exists => b"EX",
        Outcome::NotFound => b"NF",
        Outcome::OutOfMemory if matches!(mode, Mode::Append | Mode::Prepend) => b"NS",
        Outcome::OutOfMemory => {
            out_of_memory(shard, request);
            reply.out.put(OUT_OF_MEMORY);
            return;
        }
    };
    reply.out.put(status);
    for token in tokens(request) {
        match (token[0], outcome) {
            (b'c', Outcome::Stored(id)) => put_number(reply, b" c", shard.store.item(id).cas()),
            (b'c', _) => reply.out.put(b" c0"),
            (b's', Outcome::Stored(id)) => put_number(reply, b" s", shard.store.item(id).value_len() as u64),
            (b's', _) => put_number(reply, b" s", u64::from(operation.value.len)),
            _ => echo(request, token, KeyForm::sent(operation), reply),
        }
    }
    reply.out.put(b"\r\n");
}
