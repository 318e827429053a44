//! Fetching: get, gets, gat, gats, touch, mg, me.

use super::reply::{Pinned, Reply, echo, put_key, say, tokens};
use super::shard::Shard;
use crate::clock::{Clock, NEVER};
use crate::protocol::Operation;
use crate::protocol::encode::{copy_short, value, value_header};
use crate::store::PIN_LEN_MIN;
use crate::store::arena::ItemId;
use crate::store::item::{FETCHED, Item, KEY_BINARY, STALE, WON};
use std::fmt::Write;

#[inline]
pub(super) fn get(
    shard: &mut Shard,
    operation: &Operation,
    hint: Option<ItemId>,
    input: &[u8],
    with_cas: bool,
    reply: &mut Reply,
) {
    let key = operation.key.of(input);
    let found = shard.store.seek(hint, operation.hash, key);
    if let Some(prefixes) = &mut shard.prefixes {
        prefixes.count_get(key, found.is_ok());
    }
    match found {
        Ok(id) => {
            shard.store.hit(id);
            put_value(shard, id, key, with_cas, reply);
        }
        Err(_) => shard.store.counters.get_misses += 1,
    }
}

/// Appends `VALUE …` and the value.
#[inline]
fn put_value(shard: &mut Shard, id: ItemId, key: &[u8], with_cas: bool, reply: &mut Reply) {
    let item = shard.store.item(id);
    let cas = with_cas.then(|| item.cas());
    match short_value(&item) {
        Some(short) => value(&mut reply.out, key, item.client_flags(), cas, short),
        None => {
            value_header(&mut reply.out, key, item.client_flags(), item.value_len(), cas);
            pin(shard, id, reply);
            reply.out.put(b"\r\n");
        }
    }
}

/// The value of an item, if it is short and in one chunk. Replies copy such a value, and pin any other.
#[inline]
pub(super) fn short_value<'a>(item: &Item<'a>) -> Option<&'a [u8]> {
    item.value().filter(|value| value.len() < PIN_LEN_MIN)
}

/// Copies or pins the value, and appends the end of line.
#[inline]
fn put_data(shard: &mut Shard, id: ItemId, reply: &mut Reply) {
    match short_value(&shard.store.item(id)) {
        Some(value) => {
            let room = reply.out.room(value.len() + 2);
            let (text, end) = room.split_at_mut(value.len());
            copy_short(text, value);
            end.copy_from_slice(b"\r\n");
            reply.out.advance(value.len() + 2);
        }
        None => {
            pin(shard, id, reply);
            reply.out.put(b"\r\n");
        }
    }
}

/// Pins a value, so that the worker can send it from the item, without a copy.
pub(super) fn pin(shard: &mut Shard, id: ItemId, reply: &mut Reply) {
    shard.store.pin(id);
    let value = shard.store.items().value_cursor(id);
    reply.pinned.push(Pinned { at: reply.out.len(), shard: shard.number, id, value });
}

pub(super) fn get_and_touch(
    shard: &mut Shard,
    operation: &Operation,
    input: &[u8],
    clock: &Clock,
    with_cas: bool,
    reply: &mut Reply,
) {
    let key = operation.key.of(input);
    let found = shard.store.find(operation.hash, key);
    if let Some(prefixes) = &mut shard.prefixes {
        prefixes.count_get(key, found.is_ok());
    }
    shard.store.counters.cmd_touch += 1;
    match found {
        Ok(entry) => {
            let deadline = clock.deadline(operation.exptime, shard.store.now());
            shard.store.set_deadline(entry.id, deadline);
            shard.store.bump(entry.id);
            shard.store.counters_of(entry.id).touch_hits += 1;
            put_value(shard, entry.id, key, with_cas, reply);
        }
        Err(_) => shard.store.counters.touch_misses += 1,
    }
}

pub(super) fn touch(shard: &mut Shard, operation: &Operation, input: &[u8], clock: &Clock, reply: &mut Reply) {
    shard.store.counters.cmd_touch += 1;
    match shard.store.find(operation.hash, operation.key.of(input)) {
        Ok(entry) => {
            let deadline = clock.deadline(operation.exptime, shard.store.now());
            shard.store.set_deadline(entry.id, deadline);
            shard.store.bump(entry.id);
            shard.store.counters_of(entry.id).touch_hits += 1;
            say(operation, reply, b"TOUCHED\r\n");
        }
        Err(_) => {
            shard.store.counters.touch_misses += 1;
            say(operation, reply, b"NOT_FOUND\r\n");
        }
    }
}

pub(super) fn meta_get(
    shard: &mut Shard,
    operation: &Operation,
    hint: Option<ItemId>,
    input: &[u8],
    clock: &Clock,
    reply: &mut Reply,
) {
    let key = operation.key.of(input);
    let found = shard.store.seek(hint, operation.hash, key);
    match found {
        Ok(id) => meta_hit(shard, operation, input, clock, id, false, reply),
        Err(_) => match vivify(shard, operation, key) {
            // As in memcached, an item that was created counts as a hit.
            Some(Ok(id)) => meta_hit(shard, operation, input, clock, id, true, reply),
            Some(Err(())) => reply.out.put(b"SERVER_ERROR out of memory\r\n"),
            None => {
                shard.store.counters.get_misses += 1;
                meta_miss(operation, input, key, reply);
            }
        },
    }
}

/// `N`: creates an empty item in place of the missing one. The item has no deadline until [`meta_hit`] comes to the
/// flag `N`.
fn vivify(shard: &mut Shard, operation: &Operation, key: &[u8]) -> Option<Result<ItemId, ()>> {
    if !operation.has(b'N') {
        return None;
    }
    shard.store.pull_tail(key.len(), 0, 0, None);
    let Ok(id) = shard.store.put(operation.hash, key, 0, NEVER, b"", None) else {
        return Some(Err(()));
    };
    let cas = if operation.has(b'E') { operation.new_cas } else { shard.store.next_cas() };
    shard.store.item(id).set_cas(cas);
    Some(Ok(id))
}

fn meta_miss(operation: &Operation, input: &[u8], key: &[u8], reply: &mut Reply) {
    if operation.quiet {
        return;
    }
    reply.out.put(b"EN");
    for token in tokens(operation, input) {
        echo(token, key, operation.has(b'b'), reply);
    }
    reply.out.put(b"\r\n");
}

#[inline]
fn meta_hit(
    shard: &mut Shard,
    operation: &Operation,
    input: &[u8],
    clock: &Clock,
    id: ItemId,
    created: bool,
    reply: &mut Reply,
) {
    let item = shard.store.item(id);
    let state = item.state();
    let withheld = operation.has(b'C') && item.cas() == operation.cas && shard.store.options().cas;
    let with_value = operation.has(b'v') && !withheld;
    if with_value {
        reply.out.put(b"VA ");
        reply.out.put_u64(item.value_len() as u64);
    } else {
        reply.out.put(b"HD");
    }
    let mut won = created;
    for token in tokens(operation, input) {
        let item = shard.store.item(id);
        match token[0] {
            b'T' => {
                let deadline = clock.deadline(operation.exptime, shard.store.now());
                shard.store.set_deadline(id, deadline);
            }
            b'N' if created => {
                let deadline = clock.deadline(operation.vivify, shard.store.now());
                shard.store.set_deadline(id, deadline);
            }
            b'R' => won |= state & WON == 0 && !created && expires_before(shard, id, operation.recache, clock),
            b's' => put_flag(reply, b" s", item.value_len() as i64),
            b't' => match item.exptime() {
                NEVER => reply.out.put(b" t-1"),
                // If `T` made the item expire, memcached prints the wrapped difference; so do we.
                deadline => put_flag(reply, b" t", i64::from(deadline.wrapping_sub(shard.store.now().0))),
            },
            b'c' => {
                reply.out.put(b" c");
                reply.out.put_u64(item.cas());
            }
            b'f' => put_flag(reply, b" f", i64::from(item.client_flags())),
            b'l' => put_flag(reply, b" l", i64::from(shard.store.idle_seconds(id))),
            b'h' => put_flag(reply, b" h", i64::from(state & FETCHED != 0)),
            _ => echo(token, item.key(), state & KEY_BINARY != 0, reply),
        }
    }
    // If the server has told no client yet to recache the stale item, it tells this one.
    won |= state & (STALE | WON) == STALE;
    if state & WON != 0 {
        reply.out.put(b" Z");
    }
    if state & STALE != 0 {
        reply.out.put(b" X");
    }
    if won {
        shard.store.item(id).change_state(WON, 0);
        reply.out.put(b" W");
    }
    reply.out.put(b"\r\n");
    if operation.has(b'T') {
        shard.store.counters.cmd_touch += 1;
        shard.store.counters_of(id).touch_hits += 1;
    } else {
        shard.store.count_hit(id);
    }
    if !operation.has(b'u') {
        shard.store.bump(id);
    }
    if with_value {
        put_data(shard, id, reply);
    }
}

fn put_flag(reply: &mut Reply, name: &[u8], number: i64) {
    reply.out.put(name);
    reply.out.put_i64(number);
}

/// Whether an item expires before `exptime`, which is relative or Unix time, like any exptime.
fn expires_before(shard: &Shard, id: ItemId, exptime: i32, clock: &Clock) -> bool {
    let deadline = shard.store.item(id).exptime();
    deadline != NEVER && exptime != 0 && deadline < clock.deadline(exptime, shard.store.now())
}

pub(super) fn meta_debug(shard: &mut Shard, operation: &Operation, input: &[u8], reply: &mut Reply) {
    shard.store.counters.cmd_meta += 1;
    let key = operation.key.of(input);
    let Ok(entry) = shard.store.find(operation.hash, key) else {
        reply.out.put(b"EN\r\n");
        return;
    };
    let item = shard.store.item(entry.id);
    reply.out.put(b"ME ");
    put_key(key, item.state() & KEY_BINARY != 0, reply);
    let exptime = match item.exptime() {
        NEVER => -1,
        deadline => i64::from(deadline) - i64::from(shard.store.now().0),
    };
    let written = write!(
        reply.out,
        " exp={exptime} la={} cas={} fetch={} cls={} size={}\r\n",
        shard.store.idle_seconds(entry.id),
        item.cas(),
        if item.state() & FETCHED == 0 { "no" } else { "yes" },
        shard.store.class_of(entry.id).0,
        shard.store.size_of(entry.id),
    );
    written.expect("writing to memory cannot fail");
}
