//! Arithmetic on values that are decimal numbers: incr, decr, ma.

use super::{Reply, Shard, echo, key_state, say, tokens};
use crate::clock::{Clock, NEVER};
use crate::protocol::Operation;
use crate::protocol::token::strto_u64;
use crate::store::arena::ItemId;
use crate::store::{Entry, OutOfMemory};

const NON_NUMERIC: &[u8] = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";

/// Digits of 2^64, with one to spare for padding.
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

/// Adds or subtracts `operation.delta`. A result with fewer digits than before is padded with spaces behind it, in place
/// (protocol.txt, decr); one with more takes a new item.
pub(super) fn change(shard: &mut Shard, operation: &Operation, entry: Entry, up: bool) -> Outcome {
    let store = &mut shard.store;
    let item = store.item(entry.id);
    let old_len = item.value_len();
    let Some(number) = (!item.is_large()).then(|| number(item.value())).flatten() else {
        return Outcome::NonNumeric;
    };
    let number = if up {
        store.counters_of(entry.id).incr_hits += 1;
        number.wrapping_add(operation.delta)
    } else {
        store.counters_of(entry.id).decr_hits += 1;
        number.saturating_sub(operation.delta)
    };
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    let mut value = [b' '; DIGITS_MAX + 4];
    value[..digits.len()].copy_from_slice(digits);
    let item = store.item(entry.id);
    let value_len = digits.len().max(old_len);
    let id = if value_len == old_len {
        item.set_value(&value[..value_len]);
        store.bump(entry.id);
        entry.id
    } else {
        let mut key = [0; 250];
        let key = &mut key[..item.key().len()];
        key.copy_from_slice(item.key());
        let (flags, deadline, state) = (item.client_flags(), item.exptime(), item.state());
        match store.put(operation.hash, key, flags, deadline, &value[..value_len], Some(entry.id)) {
            Ok(id) => {
                store.item(id).change_state(state & super::set::LASTING_STATE, 0);
                id
            }
            Err(OutOfMemory) => return Outcome::OutOfMemory,
        }
    };
    let cas = if operation.has(b'E') { operation.new_cas } else { store.next_cas() };
    store.item(id).set_cas(cas);
    Outcome::Changed(id, number)
}

/// The number that a value is, after memcached's rule: at most 20 bytes, digits up to the end or a space.
fn number(value: &[u8]) -> Option<u64> {
    if value.len() > DIGITS_MAX { None } else { strto_u64(value) }
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
        Ok(entry) if operation.has(b'C') && shard.store.item(entry.id).cas() != operation.cas => {
            put_status(operation, input, b"EX", reply);
            return;
        }
        Ok(entry) => change(shard, operation, entry, up),
        Err(_) if operation.has(b'N') => {
            match create(shard, operation, key, clock) {
                Ok(id) => {
                    put_result(shard, operation, input, clock, id, operation.initial, reply);
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
            put_result(shard, operation, input, clock, id, number, reply);
        }
        Outcome::NonNumeric => reply.out.put(NON_NUMERIC),
        Outcome::OutOfMemory => reply.out.put(b"SERVER_ERROR out of memory\r\n"),
    }
}

/// An item with the initial number in place of the missing one.
pub(super) fn create(
    shard: &mut Shard,
    operation: &Operation,
    key: &[u8],
    clock: &Clock,
) -> Result<ItemId, OutOfMemory> {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(operation.initial).as_bytes();
    let deadline = clock.deadline(operation.vivify, shard.store.now());
    let id = shard.store.put(operation.hash, key, 0, deadline, digits, None)?;
    let cas = if operation.has(b'E') { operation.new_cas } else { shard.store.next_cas() };
    let item = shard.store.item(id);
    item.set_cas(cas);
    item.change_state(key_state(operation), 0);
    Ok(id)
}

/// The reply to a change: the number with `v`, and the flags in the order asked for, `T` taking effect among them.
fn put_result(
    shard: &mut Shard,
    operation: &Operation,
    input: &[u8],
    clock: &Clock,
    id: ItemId,
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
            b'c' => {
                reply.out.put(b" c");
                reply.out.put_u64(shard.store.item(id).cas());
            }
            b't' => match shard.store.item(id).exptime() {
                NEVER => reply.out.put(b" t-1"),
                deadline => {
                    reply.out.put(b" t");
                    reply.out.put_i64(i64::from(deadline) - i64::from(shard.store.now().0));
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
            (b"000000000000000000001", None),
        ] {
            assert_eq!(number(value), expected, "{value:?}");
        }
    }
}
