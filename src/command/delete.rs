//! Deleting: delete, md.

use super::reply::{Reply, echo, say, tokens};
use super::shard::Shard;
use crate::clock::{Clock, NEVER};
use crate::protocol::Operation;
use crate::store::item::{STALE, WON};

pub(super) fn delete(shard: &mut Shard, operation: &Operation, input: &[u8], reply: &mut Reply) {
    let key = operation.key.of(input);
    if let Some(prefixes) = &mut shard.prefixes {
        prefixes.count_delete(key);
    }
    match shard.store.find(operation.hash, key) {
        Ok(entry) => {
            shard.store.counters_of(entry.id).delete_hits += 1;
            shard.store.remove(entry);
            say(operation, reply, b"DELETED\r\n");
        }
        Err(_) => {
            shard.store.counters.delete_misses += 1;
            say(operation, reply, b"NOT_FOUND\r\n");
        }
    }
}

pub(super) fn meta_delete(shard: &mut Shard, operation: &Operation, input: &[u8], clock: &Clock, reply: &mut Reply) {
    let key = operation.key.of(input);
    let Ok(entry) = shard.store.find(operation.hash, key) else {
        shard.store.counters.delete_misses += 1;
        put_status(operation, input, key, b"NF", reply);
        return;
    };
    let item = shard.store.item(entry.id);
    if operation.has(b'C') && item.cas() != operation.cas {
        shard.store.counters.delete_misses += 1;
        put_status(operation, input, key, b"EX", reply);
        return;
    }
    if operation.has(b'I') || operation.has(b'x') {
        let kept_cas = item.cas();
        let mut id = entry.id;
        if operation.has(b'x') {
            if !operation.has(b'I') {
                shard.store.counters_of(id).delete_hits += 1;
            }
            // An empty item replaces the old one. It keeps only the CAS value of the old one, and not the stale mark.
            let deadline =
                if operation.has(b'T') { clock.deadline(operation.exptime, shard.store.now()) } else { NEVER };
            shard.store.pull_tail(key.len(), operation.client_flags, 0, Some(entry.id));
            match shard.store.put(operation.hash, key, operation.client_flags, deadline, b"", Some(entry.id)) {
                Ok(new) => id = new,
                Err(_) => {
                    reply.out.put(b"SERVER_ERROR out of memory\r\n");
                    return;
                }
            }
        } else if operation.has(b'T') {
            let deadline = clock.deadline(operation.exptime, shard.store.now());
            shard.store.set_deadline(id, deadline);
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
    } else {
        shard.store.counters_of(entry.id).delete_hits += 1;
        shard.store.remove(entry);
    }
    if !operation.quiet {
        put_status(operation, input, key, b"HD", reply);
    }
}

fn put_status(operation: &Operation, input: &[u8], key: &[u8], status: &[u8], reply: &mut Reply) {
    reply.out.put(status);
    for token in tokens(operation, input) {
        echo(token, key, operation.has(b'b'), reply);
    }
    reply.out.put(b"\r\n");
}
