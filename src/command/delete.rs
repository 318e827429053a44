//! Deleting: delete, md.

use super::meta::put_status;
use super::reply::{Reply, say};
use super::request::Request;
use super::shard::Shard;
use crate::store::OutOfMemory;
use crate::store::arena::ItemId;
use crate::store::item::{STALE, WON};

pub(super) fn delete(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    shard.count_delete(request.key);
    match shard.store.find(request.operation.hash, request.key) {
        Ok(entry) => {
            shard.store.counters_of(entry.id).delete_hits += 1;
            shard.store.remove(entry);
            say(request.operation, reply, b"DELETED\r\n");
        }
        Err(_) => {
            shard.store.counters.delete_misses += 1;
            say(request.operation, reply, b"NOT_FOUND\r\n");
        }
    }
}

pub(super) fn meta_delete(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    let operation = request.operation;
    let Ok(entry) = shard.store.find(operation.hash, request.key) else {
        shard.store.counters.delete_misses += 1;
        put_status(request, b"NF", reply);
        return;
    };
    if operation.has(b'C') && shard.store.item(entry.id).cas() != operation.cas {
        shard.store.counters.delete_misses += 1;
        put_status(request, b"EX", reply);
        return;
    }
    if operation.has(b'I') || operation.has(b'x') {
        let Ok(()) = invalidate(shard, request, entry.id) else {
            reply.out.put(b"SERVER_ERROR out of memory\r\n");
            return;
        };
    } else {
        shard.store.counters_of(entry.id).delete_hits += 1;
        shard.store.remove(entry);
    }
    if !operation.quiet {
        put_status(request, b"HD", reply);
    }
}

/// `I` marks an item as stale, and `x` takes its value away.
fn invalidate(shard: &mut Shard, request: &Request<'_>, old: ItemId) -> Result<(), OutOfMemory> {
    let operation = request.operation;
    let kept_cas = shard.store.item(old).cas();
    let mut id = old;
    if operation.has(b'x') {
        if !operation.has(b'I') {
            shard.store.counters_of(old).delete_hits += 1;
        }
        // An empty item replaces the old one. It keeps only the CAS value of the old one, and not the stale mark.
        let deadline = request.deadline(if operation.has(b'T') { operation.exptime } else { 0 }, shard);
        let (key, flags) = (request.key, operation.client_flags);
        shard.store.pull_tail(key.len(), flags, 0, Some(old));
        id = shard.store.put(operation.hash, key, flags, deadline, b"", Some(old))?;
    } else if operation.has(b'T') {
        shard.store.set_deadline(old, request.deadline(operation.exptime, shard));
    }
    if operation.has(b'I') {
        shard.store.item(id).change_state(STALE, WON);
    }
    let cas = if operation.has(b'E') {
        operation.new_cas
    } else if operation.has(b'I') {
        shard.store.next_cas()
    } else {
        kept_cas
    };
    shard.store.item(id).set_cas(cas);
    Ok(())
}
