//! Storing: set, add, replace, append, prepend, cas, ms. The value is in the request buffer, or in an item that the
//! worker has received in place. `binary.rs` stores by functions of this file, too.

use super::reply::{Reply, echo, key_state, say, tokens};
use super::shard::Shard;
use crate::clock::{Clock, NEVER};
use crate::protocol::{Operation, Verb};
use crate::store::arena::ItemId;
use crate::store::item::{STALE, WON};
use crate::store::{Absent, OutOfMemory};

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

#[inline]
pub(super) fn store(
    shard: &mut Shard,
    operation: &Operation,
    hint: Option<ItemId>,
    input: &[u8],
    clock: &Clock,
    reply: &mut Reply,
) {
    if operation.too_large {
        count_by_prefix(shard, operation.key.of(input));
        refuse_large(shard, operation, operation.key.of(input), operation.verb == Verb::Set, reply);
        return;
    }
    let value = Value::Bytes(operation.value.of(input));
    store_value(shard, operation, hint, operation.key.of(input), value, clock, reply);
}

#[inline]
pub(super) fn store_value(
    shard: &mut Shard,
    operation: &Operation,
    hint: Option<ItemId>,
    key: &[u8],
    value: Value<'_>,
    clock: &Clock,
    reply: &mut Reply,
) {
    count_by_prefix(shard, key);
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
        deadline: clock.deadline(operation.exptime, shard.store.now()),
        vivify: None,
        new_cas: None,
        state: 0,
    };
    let text: &[u8] = match apply(shard, operation, hint, key, value, &change) {
        Outcome::Stored(_) => b"STORED\r\n",
        Outcome::NotStored => b"NOT_STORED\r\n",
        Outcome::Exists => b"EXISTS\r\n",
        Outcome::NotFound => b"NOT_FOUND\r\n",
        Outcome::OutOfMemory if matches!(mode, Mode::Append | Mode::Prepend) => b"NOT_STORED\r\n",
        Outcome::OutOfMemory => {
            out_of_memory(shard, operation, key, operation.verb == Verb::Set);
            b"SERVER_ERROR out of memory storing object\r\n"
        }
    };
    say(operation, reply, text);
}

/// Refuses a value that is larger than an item may be. By memcached's rule, it removes the old item if `forget`.
#[cold]
fn refuse_large(shard: &mut Shard, operation: &Operation, key: &[u8], forget: bool, reply: &mut Reply) {
    too_large(shard, operation, key, forget);
    say(operation, reply, b"SERVER_ERROR object too large for cache\r\n");
}

/// Counts a value that is larger than an item may be. If `forget`, it removes the old item, so that no client takes the
/// old value for the new one.
pub(super) fn too_large(shard: &mut Shard, operation: &Operation, key: &[u8], forget: bool) {
    // memcached does not count such values of the binary protocol.
    shard.store.counters.store_too_large += u64::from(operation.verb != Verb::BinarySet);
    if forget && let Ok(entry) = shard.store.find(operation.hash, key) {
        shard.store.remove(entry);
    }
}

/// Counts a new value that the store has no memory for. If `forget`, it removes the old item, so that no client takes
/// the old value for the new one.
#[cold]
pub(super) fn out_of_memory(shard: &mut Shard, operation: &Operation, key: &[u8], forget: bool) {
    shard.store.counters.store_no_memory += 1;
    if forget && let Ok(entry) = shard.store.find(operation.hash, key) {
        shard.store.remove(entry);
    }
}

/// Counts a storage command for `stats detail`, whether it succeeds or fails. As in memcached, meta commands do not
/// count.
#[inline]
pub(super) fn count_by_prefix(shard: &mut Shard, key: &[u8]) {
    if let Some(prefixes) = &mut shard.prefixes {
        prefixes.count_set(key);
    }
}

#[inline]
pub(super) fn apply(
    shard: &mut Shard,
    operation: &Operation,
    hint: Option<ItemId>,
    key: &[u8],
    value: Value<'_>,
    change: &Change,
) -> Outcome {
    let len = value.len(shard);
    shard.store.count_set(key.len(), operation.client_flags, len);
    shard.store.pull_tail(key.len(), operation.client_flags, len, None);
    let outcome = decide(shard, operation, hint, key, value, change);
    // If the command has not stored the item that received the value, the store frees this item.
    if let Value::Item(id) = value
        && outcome != Outcome::Stored(id)
    {
        shard.store.abandon(id);
    }
    outcome
}

#[inline]
fn decide(
    shard: &mut Shard,
    operation: &Operation,
    hint: Option<ItemId>,
    key: &[u8],
    value: Value<'_>,
    change: &Change,
) -> Outcome {
    let old = shard.store.seek(hint, operation.hash, key);
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
        (Mode::Append | Mode::Prepend, Ok(old)) => extend(shard, operation, key, value, &change, old),
        (Mode::Append | Mode::Prepend, Err(_)) => match change.vivify {
            Some(deadline) => put(shard, operation, key, value, &Change { deadline, ..change }, old),
            None => Outcome::NotStored,
        },
        (Mode::Set | Mode::Add | Mode::Replace, _) => put(shard, operation, key, value, &change, old),
    }
}

#[inline]
fn put(
    shard: &mut Shard,
    operation: &Operation,
    key: &[u8],
    value: Value<'_>,
    change: &Change,
    old: Result<ItemId, Absent>,
) -> Outcome {
    let id = match value {
        Value::Bytes(bytes) => {
            let stored = shard.store.put(operation.hash, key, operation.client_flags, change.deadline, bytes, old.ok());
            match stored {
                Ok(id) => id,
                Err(OutOfMemory) => return Outcome::OutOfMemory,
            }
        }
        Value::Item(id) => {
            shard.store.link(id, operation.hash, change.deadline);
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
fn extend(
    shard: &mut Shard,
    operation: &Operation,
    key: &[u8],
    value: Value<'_>,
    change: &Change,
    old: ItemId,
) -> Outcome {
    let store = &shard.store;
    let item = store.item(old);
    let (flags, deadline) = (item.client_flags(), item.exptime());
    let old_len = item.value_len();
    let added = match value {
        Value::Bytes(bytes) => bytes.len(),
        Value::Item(id) => store.item(id).value_len(),
    };
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
        store.link(id, operation.hash, deadline);
    }
    store.unpin(old);
    match allocated {
        // As in memcached, the longer value makes a new item, which is not stale and has no mark of a binary key.
        Ok(id) => finish(shard, id, &Change { state: 0, ..*change }),
        Err(OutOfMemory) => Outcome::OutOfMemory,
    }
}

pub(super) fn meta_set(
    shard: &mut Shard,
    operation: &Operation,
    hint: Option<ItemId>,
    input: &[u8],
    clock: &Clock,
    reply: &mut Reply,
) {
    if operation.too_large {
        // `q` never hides an error.
        let loud = Operation { quiet: false, ..*operation };
        refuse_large(shard, &loud, operation.key.of(input), true, reply);
        return;
    }
    meta_set_value(shard, operation, hint, input, Value::Bytes(operation.value.of(input)), clock, reply);
}

pub(super) fn meta_set_value(
    shard: &mut Shard,
    operation: &Operation,
    hint: Option<ItemId>,
    input: &[u8],
    value: Value<'_>,
    clock: &Clock,
    reply: &mut Reply,
) {
    let mode = match operation.mode.to_ascii_uppercase() {
        b'E' => Mode::Add,
        b'A' => Mode::Append,
        b'P' => Mode::Prepend,
        b'R' => Mode::Replace,
        _ => Mode::Set,
    };
    let now = shard.store.now();
    let change = Change {
        mode,
        compare: match mode {
            Mode::Add => None,
            // No item has the CAS value 0. With `C0`, append and prepend compare nothing, and set and replace fail.
            Mode::Append | Mode::Prepend if operation.cas == 0 => None,
            _ => operation.has(b'C').then_some(operation.cas),
        },
        invalidate: operation.has(b'I') && !matches!(mode, Mode::Append | Mode::Prepend),
        deadline: if operation.has(b'T') { clock.deadline(operation.exptime, now) } else { NEVER },
        vivify: operation.has(b'N').then(|| clock.deadline(operation.vivify, now)),
        new_cas: operation.has(b'E').then_some(operation.new_cas),
        state: key_state(operation),
    };
    let key = operation.key.of(input);
    let outcome = apply(shard, operation, hint, key, value, &change);
    let status: &[u8] = match outcome {
        Outcome::Stored(_) if operation.quiet => return,
        Outcome::Stored(_) => b"HD",
        Outcome::NotStored => b"NS",
        Outcome::Exists => b"EX",
        Outcome::NotFound => b"NF",
        Outcome::OutOfMemory if matches!(mode, Mode::Append | Mode::Prepend) => b"NS",
        Outcome::OutOfMemory => {
            out_of_memory(shard, operation, key, true);
            reply.out.put(b"SERVER_ERROR out of memory storing object\r\n");
            return;
        }
    };
    reply.out.put(status);
    for token in tokens(operation, input) {
        match (token[0], outcome) {
            (b'c', Outcome::Stored(id)) => {
                reply.out.put(b" c");
                reply.out.put_u64(shard.store.item(id).cas());
            }
            (b'c', _) => reply.out.put(b" c0"),
            (b's', Outcome::Stored(id)) => {
                reply.out.put(b" s");
                reply.out.put_u64(shard.store.item(id).value_len() as u64);
            }
            (b's', _) => {
                reply.out.put(b" s");
                reply.out.put_u64(u64::from(operation.value.len));
            }
            _ => echo(token, key, operation.has(b'b'), reply),
        }
    }
    reply.out.put(b"\r\n");
}
