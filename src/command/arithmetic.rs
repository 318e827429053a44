//! Arithmetic on values that are decimal numbers: incr, decr, ma.

use super::meta::{KeyForm, Target, flag_of_item, put_status, tokens};
use super::reply::{Reply, say};
use super::request::Request;
use super::shard::Shard;
use crate::clock::NEVER;
use crate::protocol::Limits;
use crate::protocol::token::strto_u64;
use crate::store::arena::ItemId;
use crate::store::item::{FETCHED, KEY_BINARY, STALE, WON};
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

/// The direction in which a command changes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

pub(super) fn arithmetic(shard: &mut Shard, request: &Request<'_>, direction: Direction, reply: &mut Reply) {
    let operation = request.operation;
    let Ok(entry) = shard.store.find(operation.hash, request.key) else {
        count_miss(shard, direction);
        say(operation, reply, b"NOT_FOUND\r\n");
        return;
    };
    if is_no_number(shard, entry.id) {
        say(operation, reply, NON_NUMERIC);
        return;
    }
    match change(shard, request, entry, direction) {
        Outcome::Changed(_, number) if !operation.quiet => {
            reply.out.put_u64(number);
            reply.out.put(b"\r\n");
        }
        Outcome::Changed(..) => {}
        Outcome::NonNumeric => say(operation, reply, NON_NUMERIC),
        Outcome::OutOfMemory => say(operation, reply, b"SERVER_ERROR out of memory\r\n"),
    }
}

pub(super) fn count_miss(shard: &mut Shard, direction: Direction) {
    let counters = &mut shard.store.counters;
    let misses = match direction {
        Direction::Up => &mut counters.incr_misses,
        Direction::Down => &mut counters.decr_misses,
    };
    *misses += 1;
}

/// Adds or subtracts `operation.delta`. A result that is no longer than the old value replaces it in place, and spaces
/// fill the rest (protocol.txt, decr). A longer result takes a new item. So does any result if the value is pinned or
/// large.
pub(super) fn change(shard: &mut Shard, request: &Request<'_>, entry: Entry, direction: Direction) -> Outcome {
    let (operation, key, store) = (request.operation, request.key, &mut shard.store);
    let item = store.item(entry.id);
    let (old_len, large) = (item.value_len(), item.is_large());
    // The first chunk alone does not show whether the value is a number: later chunks may have bytes that no number has.
    let text = item.value().map_or_else(|| Cow::Owned(store.items().value_to_vec(entry.id)), Cow::Borrowed);
    let Some(number) = number(&text) else { return Outcome::NonNumeric };
    let number = match direction {
        Direction::Up => {
            store.counters_of(entry.id).incr_hits += 1;
            number.wrapping_add(operation.delta)
        }
        Direction::Down => {
            store.counters_of(entry.id).decr_hits += 1;
            number.saturating_sub(operation.delta)
        }
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
pub(super) fn is_no_number(shard: &Shard, id: ItemId) -> bool {
    let item = shard.store.item(id);
    let chunked = Limits { item_size_max: shard.store.options().slabs.chunk_max as u32, ..shard.limits };
    item.value_len() == 0 || chunked.too_large(item.key().len(), item.client_flags(), item.value_len())
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

pub(super) fn meta_arithmetic(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    let operation = request.operation;
    let direction = if matches!(operation.mode, b'D' | b'd' | b'-') { Direction::Down } else { Direction::Up };
    let key_form = KeyForm::sent(operation);
    let outcome = match shard.store.find(operation.hash, request.key) {
        Ok(entry) if is_no_number(shard, entry.id) => Outcome::NonNumeric,
        // `C0` compares nothing here, as in an append or a prepend by `ms`.
        Ok(entry) if operation.cas != 0 && shard.store.item(entry.id).cas() != operation.cas => {
            put_status(request, b"EX", reply);
            return;
        }
        Ok(entry) => change(shard, request, entry, direction),
        Err(_) if operation.has(b'N') => {
            match create(shard, request, NEVER) {
                Ok(id) => put_result(shard, request, Target { id, created: true, key_form }, operation.initial, reply),
                Err(OutOfMemory) => reply.out.put(b"SERVER_ERROR Out of memory allocating new item\r\n"),
            }
            return;
        }
        Err(_) => {
            count_miss(shard, direction);
            put_status(request, b"NF", reply);
            return;
        }
    };
    match outcome {
        Outcome::Changed(id, number) => {
            put_result(shard, request, Target { id, created: false, key_form }, number, reply);
        }
        Outcome::NonNumeric => reply.out.put(NON_NUMERIC),
        Outcome::OutOfMemory => reply.out.put(b"SERVER_ERROR out of memory\r\n"),
    }
}

/// Creates the missing item, with the initial number.
pub(super) fn create(shard: &mut Shard, request: &Request<'_>, deadline: u32) -> Result<ItemId, OutOfMemory> {
    let operation = request.operation;
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(operation.initial).as_bytes();
    shard.store.pull_tail(request.key.len(), 0, digits.len(), None);
    let id = shard.store.put(operation.hash, request.key, 0, deadline, digits, None)?;
    let cas = if operation.has(b'E') { operation.new_cas } else { shard.store.next_cas() };
    shard.store.item(id).set_cas(cas);
    Ok(id)
}

/// Executes and answers the flags in the order of the request, and appends the number with `v`.
fn put_result(shard: &mut Shard, request: &Request<'_>, target: Target, number: u64, reply: &mut Reply) {
    let operation = request.operation;
    let start = reply.out.len();
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    if operation.has(b'v') {
        reply.out.put(b"VA ");
        reply.out.put_u64(digits.len() as u64);
    } else {
        reply.out.put(b"HD");
    }
    for token in tokens(request) {
        flag_of_item(shard, request, target, token, reply);
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
