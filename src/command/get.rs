//! Fetching: get, gets, gat, gats, touch, mg, me.

use super::meta::{KeyForm, Target, flag_of_item, put_key, put_number, put_status, tokens};
use super::reply::{Pinned, Reply, say};
use super::request::Request;
use super::shard::Shard;
use crate::clock::NEVER;
use crate::protocol::encode::{self, copy_short};
use crate::store::arena::ItemId;
use crate::store::item::{FETCHED, Item, STALE, WON};
use crate::store::{Fetched, OutOfMemory, PIN_LEN_MIN};
use std::fmt::Write;

/// Whether a `VALUE` line shows the CAS value of the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cas {
    Hidden,
    Shown,
}

/// A key that a client wants the value of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) key: &'a [u8],
    pub(super) hash: u64,
    /// See [`Request::hint`].
    pub(super) hint: Option<ItemId>,
}

/// Appends the value of a key, without the end of the command. Returns whether there is one.
#[inline(always)]
pub(super) fn get(shard: &mut Shard, wanted: Wanted<'_>, cas: Cas, reply: &mut Reply) -> bool {
    let Wanted { key, hash, hint } = wanted;
    match shard.store.fetch(hint, hash, key) {
        Fetched::Hit(id, item) => {
            if !put_if_short(&item, key, cas, reply) {
                put_pinned_value(shard, id, key, cas, reply);
            }
            shard.count_get(key, true);
            true
        }
        Fetched::Due(id) => get_due(shard, id, key, cas, reply),
        Fetched::Absent => {
            shard.store.counters.get_misses += 1;
            shard.count_get(key, false);
            false
        }
    }
}

/// [`get`] of an item that is due: a hit, or an early miss.
#[cold]
#[inline(never)]
fn get_due(shard: &mut Shard, id: ItemId, key: &[u8], cas: Cas, reply: &mut Reply) -> bool {
    let hits = !shard.takes_early_miss(key, id);
    shard.count_get(key, hits);
    if !hits {
        shard.store.counters.get_misses += 1;
        return false;
    }
    let item = shard.store.hit(id);
    if !put_if_short(&item, key, cas, reply) {
        put_pinned_value(shard, id, key, cas, reply);
    }
    true
}

pub(super) fn gets(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    let wanted = Wanted { key: request.key, hash: request.operation.hash, hint: request.hint };
    get(shard, wanted, Cas::Shown, reply);
}

/// Appends `VALUE …` and the value if the value is short, and says whether it did.
#[inline(always)]
fn put_if_short(item: &Item<'_>, key: &[u8], cas: Cas, reply: &mut Reply) -> bool {
    let Some(value) = short_value(item) else { return false };
    let cas = (cas == Cas::Shown).then(|| item.cas());
    encode::value(&mut reply.out, key, item.client_flags(), cas, value);
    true
}

/// Appends `VALUE …` and a value that is not short.
#[inline(never)]
fn put_pinned_value(shard: &mut Shard, id: ItemId, key: &[u8], cas: Cas, reply: &mut Reply) {
    let item = shard.store.item(id);
    let cas = (cas == Cas::Shown).then(|| item.cas());
    encode::value_header(&mut reply.out, key, item.client_flags(), item.value_len(), cas);
    pin(shard, id, reply);
    reply.out.put(b"\r\n");
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

pub(super) fn get_and_touch(shard: &mut Shard, request: &Request<'_>, cas: Cas, reply: &mut Reply) {
    let found = shard.store.find(request.operation.hash, request.key);
    shard.count_get(request.key, found.is_ok());
    shard.store.counters.cmd_touch += 1;
    match found {
        Ok(entry) => {
            shard.touch(entry.id, request.key, request.deadline(request.operation.exptime, shard));
            if !put_if_short(&shard.store.item(entry.id), request.key, cas, reply) {
                put_pinned_value(shard, entry.id, request.key, cas, reply);
            }
        }
        Err(_) => shard.store.counters.touch_misses += 1,
    }
}

pub(super) fn touch(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    shard.store.counters.cmd_touch += 1;
    match shard.store.find(request.operation.hash, request.key) {
        Ok(entry) => {
            shard.touch(entry.id, request.key, request.deadline(request.operation.exptime, shard));
            say(request.operation, reply, b"TOUCHED\r\n");
        }
        Err(_) => {
            shard.store.counters.touch_misses += 1;
            say(request.operation, reply, b"NOT_FOUND\r\n");
        }
    }
}

pub(super) fn meta_get(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    let found = match shard.store.seek(request.hint, request.operation.hash, request.key) {
        Ok(id) => Some((id, false)),
        Err(_) if request.operation.has(b'N') => match vivify(shard, request) {
            // As in memcached, an item that was created counts as a hit.
            Ok(id) => Some((id, true)),
            Err(OutOfMemory) => {
                reply.out.put(b"SERVER_ERROR out of memory\r\n");
                return;
            }
        },
        Err(_) => None,
    };
    match found {
        Some((id, created)) => {
            let key_form = KeyForm::stored(&shard.store.item(id));
            meta_hit(shard, request, Target { id, created, key_form }, reply);
        }
        None => {
            shard.store.counters.get_misses += 1;
            if !request.operation.quiet {
                put_status(request, b"EN", reply);
            }
        }
    }
}

/// `N`: creates an empty item in place of the missing one. The item has no deadline until [`meta_hit`] comes to the
/// flag `N`.
fn vivify(shard: &mut Shard, request: &Request<'_>) -> Result<ItemId, OutOfMemory> {
    let operation = request.operation;
    shard.store.pull_tail(request.key.len(), 0, 0, None);
    let id = shard.store.put(operation.hash, request.key, 0, NEVER, b"", None)?;
    let cas = if operation.has(b'E') { operation.new_cas } else { shard.store.next_cas() };
    shard.store.item(id).set_cas(cas);
    Ok(id)
}

#[inline(always)]
fn meta_hit(shard: &mut Shard, request: &Request<'_>, target: Target, reply: &mut Reply) {
    let (operation, id) = (request.operation, target.id);
    let item = shard.store.item(id);
    let withheld = operation.has(b'C') && item.cas() == operation.cas && shard.store.options().cas;
    let with_value = operation.has(b'v') && !withheld;
    if with_value {
        reply.out.put(b"VA ");
        reply.out.put_u64(item.value_len() as u64);
    } else {
        reply.out.put(b"HD");
    }
    put_flags(shard, request, target, reply);
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

/// Executes and answers the flags of a hit, and appends the marks `W`, `X` and `Z`.
#[inline(always)]
fn put_flags(shard: &mut Shard, request: &Request<'_>, target: Target, reply: &mut Reply) {
    let Target { id, created, .. } = target;
    let state = shard.store.item(id).state();
    let mut won = created;
    for token in tokens(request) {
        match token[0] {
            b'v' | b'q' | b'u' => {}
            b'k' if target.key_form == KeyForm::Text => {
                reply.out.put(b" k");
                reply.out.put_short(request.key);
            }
            b'R' => won |= state & WON == 0 && !created && expires_before(shard, request, id),
            b's' => put_number(reply, b" s", shard.store.item(id).value_len() as u64),
            b'f' => put_number(reply, b" f", u64::from(shard.store.item(id).client_flags())),
            b'l' => put_number(reply, b" l", u64::from(shard.store.idle_seconds(id))),
            b'h' => put_number(reply, b" h", u64::from(state & FETCHED != 0)),
            _ => flag_of_item(shard, request, target, token, reply),
        }
    }
    if state & (STALE | WON) == 0 && !won {
        reply.out.put(b"\r\n");
        return;
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
}

/// Whether an item expires before the exptime of the flag `R`, which is relative or Unix time, like any exptime.
fn expires_before(shard: &Shard, request: &Request<'_>, id: ItemId) -> bool {
    let (deadline, recache) = (shard.store.item(id).exptime(), request.operation.recache);
    deadline != NEVER && recache != 0 && deadline < request.moment(recache, shard)
}

pub(super) fn meta_debug(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    shard.store.counters.cmd_meta += 1;
    let Ok(entry) = shard.store.find(request.operation.hash, request.key) else {
        reply.out.put(b"EN\r\n");
        return;
    };
    let item = shard.store.item(entry.id);
    reply.out.put(b"ME ");
    put_key(request.key, KeyForm::stored(&item), reply);
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
