//! Arithmetic on values that are decimal numbers: incr, decr, ma.

use super::reply::{Reply, echo, say, tokens};
use super::shard::Shard;
use crate::clock::{Clock, NEVER};
use crate::protocol::token::strto_u64;
use crate::protocol::{Limits, Operation};
use crate::store::arena::ItemId;
use crate::store::item::{FETCHED, Items, KEY_BINARY, STALE, WON};
use crate::store::{Entry, OutOfMemory};
use std::borrow::Cow;

const NON_NUMERIC: &[u8] = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";

/// The number of digits of the largest number.
const DIGITS_MAX: usize = 20;

pub(super) enum Outcome {
    Changed(ItemId, u64),
    NonNumeric,
    OutOfMemory,
}

pub(super) fn arithmetic(shard: &mut Shard, operation: &Operation, input: &[u8], up: bool, reply: &mut Reply) {
    let Ok(entry) = shard.store.find(operation.hash, operation.key.of(input)) else {
        count_miss(shard, up);
        say(operation, reply, b"NOT_FOUND\r\n");
        return;
    };
    if is_no_number(shard, operation, entry.id) {
        say(operation, reply, NON_NUMERIC);
        return;
    }
    match change(shard, operation, entry, up) {
        Outcome::Changed(_, number) if !operation.quiet => {
            reply.out.put_u64(number);
            reply.out.put(b"\r\n");
        }
        Outcome::Changed(..) => {}
        Outcome::NonNumeric => say(operation, reply, NON_NUMERIC),
        Outcome::OutOfMemory => say(operation, reply, b"SERVER_ERROR out of memory\r\n"),
    }
}

pub(super) fn count_miss(shard: &mut Shard, up: bool) {
    if up {
        shard.store.counters.incr_misses += 1;
    } else {
        shard.store.counters.decr_misses += 1;
    }
}

/// Adds or subtracts `operation.delta`. A result that is no longer than the old value replaces it in place, and spaces
/// fill the rest (protocol.txt, decr). A longer result takes a new item. So does any result if the value is pinned or
/// large.
pub(super) fn change(shard: &mut Shard, operation: &Operation, entry: Entry, up: bool) -> Outcome {
    let store = &mut shard.store;
    let item = store.item(entry.id);
    let (old_len, large) = (item.value_len(), item.is_large());
    let text = item.value().map_or_else(|| Cow::Owned(whole(store.items(), entry.id)), Cow::Borrowed);
    let Some(number) = number(&text) else { return Outcome::NonNumeric };
    let number = if up {
        store.counters_of(entry.id).incr_hits += 1;
        number.wrapping_add(operation.delta)
    } else {
        store.counters_of(entry.id).decr_hits += 1;
        number.saturating_sub(operation.delta)
    };
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    let item = store.item(entry.id);
    // A pinned value must not change: the server is still sending it to a client.
    let id = if digits.len() <= old_len && !large && !store.is_pinned(entry.id) {
        if old_len <= DIGITS_MAX {
            let mut value = [b' '; DIGITS_MAX];
            value[..digits.len()].copy_from_slice(digits);
            item.set_value(&value[..old_len]);
        } else {
            item.set_value(&padded(digits, old_len));
        }
        store.refresh(entry.id);
        entry.id
    } else {
        let mut key = [0; 250];
        let key = &mut key[..item.key().len()];
        key.copy_from_slice(item.key());
        let (flags, deadline, state) = (item.client_flags(), item.exptime(), item.state());
        let longer = digits.len() > old_len;
        let value = if longer { Cow::Borrowed(digits) } else { Cow::Owned(padded(digits, old_len)) };
        store.pull_tail(key.len(), flags, value.len(), Some(entry.id));
        match store.put(operation.hash, key, flags, deadline, &value, Some(entry.id)) {
            // In memcached, a longer value makes a new item. Any other value keeps the state of the old item.
            Ok(id) if longer => id,
            Ok(id) => {
                store.item(id).change_state(state & (KEY_BINARY | FETCHED | STALE | WON), 0);
                id
            }
            Err(OutOfMemory) => return Outcome::OutOfMemory,
        }
    };
    let cas = if operation.has(b'E') { operation.new_cas } else { store.next_cas() };
    store.item(id).set_cas(cas);
    Outcome::Changed(id, number)
}

/// Whether memcached would not look for a number in an item: the value is empty, or memcached would need several chunks
/// for the item, because it is larger than `-o slab_chunk_max`.
pub(super) fn is_no_number(shard: &Shard, operation: &Operation, id: ItemId) -> bool {
    let item = shard.store.item(id);
    let key_len = operation.key.len as usize;
    let chunked = Limits { item_size_max: shard.store.options().slabs.chunk_max as u32, ..shard.limits };
    item.value_len() == 0 || chunked.too_large(key_len, item.client_flags(), item.value_len())
}

/// Copies a value that is in several chunks. The first chunk alone does not show whether the value is a number: later
/// chunks may have bytes that no number has.
#[cold]
fn whole(items: &Items, id: ItemId) -> Vec<u8> {
    let mut cursor = items.value_cursor(id);
    let mut value = Vec::with_capacity(cursor.left());
    while cursor.left() > 0 {
        let bytes = items.bytes(&cursor);
        value.extend_from_slice(bytes);
        cursor = items.advance(cursor, bytes.len());
    }
    value
}

/// Pads a number with spaces to `len` bytes.
#[cold]
fn padded(digits: &[u8], len: usize) -> Vec<u8> {
    let mut value = digits.to_vec();
    value.resize(len, b' ');
    value
}

/// Reads the number at the start of a value. By memcached's rule, which is C's, a blank, a NUL or the end of the value
/// follows the number.
fn number(value: &[u8]) -> Option<u64> {
    strto_u64(value.split(|&byte| byte == 0).next().unwrap_or_default())
}

pub(super) fn meta_arithmetic(
    shard: &mut Shard,
    operation: &Operation,
    input: &[u8],
    clock: &Clock,
    reply: &mut Reply,
) {
    let up = !matches!(operation.mode, b'D' | b'd' | b'-');
    let key = operation.key.of(input);
    let outcome = match shard.store.find(operation.hash, key) {
        Ok(entry) if is_no_number(shard, operation, entry.id) => Outcome::NonNumeric,
        // `C0` compares nothing here, as in an append or a prepend by `ms`.
        Ok(entry) if operation.cas != 0 && shard.store.item(entry.id).cas() != operation.cas => {
            put_status(operation, input, b"EX", reply);
            return;
        }
        Ok(entry) => change(shard, operation, entry, up),
        Err(_) if operation.has(b'N') => {
            match create(shard, operation, key, NEVER) {
                Ok(id) => {
                    put_result(shard, operation, input, clock, (id, true), operation.initial, reply);
                }
                Err(OutOfMemory) => reply.out.put(b"SERVER_ERROR Out of memory allocating new item\r\n"),
            }
            return;
        }
        Err(_) => {
            count_miss(shard, up);
            put_status(operation, input, b"NF", reply);
            return;
        }
    };
    match outcome {
        Outcome::Changed(id, number) => {
            put_result(shard, operation, input, clock, (id, false), number, reply);
        }
        Outcome::NonNumeric => reply.out.put(NON_NUMERIC),
        Outcome::OutOfMemory => reply.out.put(b"SERVER_ERROR out of memory\r\n"),
    }
}

/// Creates the missing item, with the initial number.
pub(super) fn create(
    shard: &mut Shard,
    operation: &Operation,
    key: &[u8],
    deadline: u32,
) -> Result<ItemId, OutOfMemory> {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(operation.initial).as_bytes();
    shard.store.pull_tail(key.len(), 0, digits.len(), None);
    let id = shard.store.put(operation.hash, key, 0, deadline, digits, None)?;
    let cas = if operation.has(b'E') { operation.new_cas } else { shard.store.next_cas() };
    shard.store.item(id).set_cas(cas);
    Ok(id)
}

/// Appends the reply to a change: the number with `v`, and the flags in the order of the request. The flag `T` sets the
/// deadline at its place in this order, and so does `N` if the item was `created`.
fn put_result(
    shard: &mut Shard,
    operation: &Operation,
    input: &[u8],
    clock: &Clock,
    (id, created): (ItemId, bool),
    number: u64,
    reply: &mut Reply,
) {
    let start = reply.out.len();
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    if operation.has(b'v') {
        reply.out.put(b"VA ");
        reply.out.put_u64(digits.len() as u64);
    } else {
        reply.out.put(b"HD");
    }
    for token in tokens(operation, input) {
        match token[0] {
            b'T' => {
                let deadline = clock.deadline(operation.exptime, shard.store.now());
                shard.store.set_deadline(id, deadline);
            }
            b'N' if created => {
                let deadline = clock.deadline(operation.vivify, shard.store.now());
                shard.store.set_deadline(id, deadline);
            }
            b'c' => {
                reply.out.put(b" c");
                reply.out.put_u64(shard.store.item(id).cas());
            }
            b't' => match shard.store.item(id).exptime() {
                NEVER => reply.out.put(b" t-1"),
                deadline => {
                    reply.out.put(b" t");
                    reply.out.put_u64(u64::from(deadline.wrapping_sub(shard.store.now().0)));
                }
            },
            _ => echo(token, operation.key.of(input), operation.has(b'b'), reply),
        }
    }
    reply.out.put(b"\r\n");
    if operation.has(b'v') {
        reply.out.put(digits);
        reply.out.put(b"\r\n");
    }
    if operation.quiet {
        reply.out.truncate(start);
    }
}

fn put_status(operation: &Operation, input: &[u8], status: &[u8], reply: &mut Reply) {
    reply.out.put(status);
    for token in tokens(operation, input) {
        echo(token, operation.key.of(input), operation.has(b'b'), reply);
    }
    reply.out.put(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_what_memcached_takes_for_one() {
        for (value, expected) in [
            (&b"0"[..], Some(0)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"99  ", Some(99)),
            (b"1 2", Some(1)),
            (b"", None),
            (b"-1", None),
            (b"1x", None),
            (b"000000000000000000001", Some(1)),
            (b"7 1234567890123456789012", Some(7)),
            (b"1234567890123456789012 7", None),
            (b"5\0x", Some(5)),
            (b"\x005", None),
        ] {
            assert_eq!(number(value), expected, "{value:?}");
        }
    }
}
