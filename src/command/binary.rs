//! Executes the operations of the binary protocol, with memcached's replies. Operations of all protocols use the same
//! functions for the work that they share.

use super::arithmetic::{self, Direction, Outcome as Arithmetic};
use super::get::{pin, short_value};
use super::reply::Reply;
use super::request::Request;
use super::set::{self, Change, Mode, Outcome, Value};
use super::shard::Shard;
use crate::protocol::Operation;
use crate::protocol::packet::{self, Head, Status, opcode};
use crate::store::OutOfMemory;

#[inline]
pub(super) fn get(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    let Request { operation, key, .. } = *request;
    let touches = !matches!(operation.mode, opcode::GET | opcode::GETQ | opcode::GETK | opcode::GETKQ);
    let found = shard.store.seek(request.hint, operation.hash, key).ok();
    let found = found.filter(|&id| touches || !shard.store.is_due(id) || !shard.takes_early_miss(key, id));
    shard.count_get(key, found.is_some());
    shard.store.counters.cmd_touch += u64::from(touches);
    let with_key = matches!(operation.mode, opcode::GETK | opcode::GETKQ | opcode::GATK | opcode::GATKQ);
    let shown_key = if with_key { key } else { b"" };
    let Some(id) = found else {
        if touches {
            shard.store.counters.touch_misses += 1;
        } else {
            shard.store.counters.get_misses += 1;
        }
        match operation.quiet {
            true => {}
            false if with_key => packet::named(&mut reply.out, Head::new(operation), Status::NOT_FOUND, key, b""),
            false => packet::failure(&mut reply.out, Head::new(operation), Status::NOT_FOUND),
        }
        return;
    };
    if touches {
        shard.touch(id, key, request.deadline(operation.exptime, shard));
    } else {
        shard.store.hit(id);
    }
    let item = shard.store.item(id);
    let (client_flags, cas) = (item.client_flags(), item.cas());
    // The reply to a touch has the client flags, too.
    let (value, len) = match operation.mode {
        opcode::TOUCH => (Some(&b""[..]), 0),
        _ => (short_value(&item), item.value_len()),
    };
    let shown_value = value.unwrap_or_default();
    let item = packet::Item { client_flags, cas, key: shown_key, value: shown_value, value_len: len };
    packet::item(&mut reply.out, Head::new(operation), &item);
    if value.is_none() {
        pin(shard, id, reply);
    }
}

#[inline]
pub(super) fn set(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    if request.operation.too_large {
        shard.count_set(request.key);
        set::too_large(shard, request);
        packet::failure(&mut reply.out, Head::new(request.operation), Status::TOO_LARGE);
        return;
    }
    set_value(shard, request, Value::Bytes(request.value()), reply);
}

pub(super) fn set_value(shard: &mut Shard, request: &Request<'_>, value: Value<'_>, reply: &mut Reply) {
    let operation = request.operation;
    shard.count_set(request.key);
    let compare = (operation.has(b'C') && shard.store.options().cas).then_some(operation.cas);
    let mode = match operation.mode {
        opcode::APPEND | opcode::APPENDQ => Mode::Append,
        opcode::PREPEND | opcode::PREPENDQ => Mode::Prepend,
        // As in memcached, an add or a replace with a CAS value is a `cas`.
        opcode::ADD | opcode::ADDQ if compare.is_none() => Mode::Add,
        opcode::REPLACE | opcode::REPLACEQ if compare.is_none() => Mode::Replace,
        _ => Mode::Set,
    };
    let change = Change {
        mode,
        compare,
        invalidate: false,
        deadline: request.deadline(operation.exptime, shard),
        vivify: None,
        new_cas: None,
        state: 0,
    };
    let status = match (set::apply(shard, request, value, &change), mode) {
        (Outcome::Stored(_), _) if operation.quiet => return,
        (Outcome::Stored(id), _) => {
            let cas = shard.store.item(id).cas();
            packet::success(&mut reply.out, Head::new(operation), b"", cas);
            return;
        }
        (Outcome::Exists, _) | (Outcome::NotStored, Mode::Add) => Status::EXISTS,
        (Outcome::NotFound, _) | (Outcome::NotStored, Mode::Replace) => Status::NOT_FOUND,
        (Outcome::NotStored, _) | (Outcome::OutOfMemory, Mode::Append | Mode::Prepend) => Status::NOT_STORED,
        (Outcome::OutOfMemory, _) => {
            set::out_of_memory(shard, request);
            refuse(operation, reply);
            return;
        }
    };
    packet::failure(&mut reply.out, Head::new(operation), status);
}

/// Replies that the store has no room for a value.
pub(super) fn refuse(operation: &Operation, reply: &mut Reply) {
    packet::message(&mut reply.out, Head::new(operation), Status::OUT_OF_MEMORY, b"Out of memory allocating item");
}

pub(super) fn delete(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    let operation = request.operation;
    shard.count_delete(request.key);
    let status = match shard.store.find(operation.hash, request.key) {
        Ok(entry) if operation.has(b'C') && shard.store.item(entry.id).cas() != operation.cas => Status::EXISTS,
        Ok(entry) => {
            shard.store.counters_of(entry.id).delete_hits += 1;
            shard.store.remove(entry);
            if !operation.quiet {
                packet::success(&mut reply.out, Head::new(operation), b"", 0);
            }
            return;
        }
        Err(_) => {
            shard.store.counters.delete_misses += 1;
            Status::NOT_FOUND
        }
    };
    packet::failure(&mut reply.out, Head::new(operation), status);
}

pub(super) fn arithmetic(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    let operation = request.operation;
    let head = Head::new(operation);
    let direction = match operation.mode {
        opcode::INCREMENT | opcode::INCREMENTQ => Direction::Up,
        _ => Direction::Down,
    };
    let (id, number) = match shard.store.find(operation.hash, request.key) {
        Ok(entry) if arithmetic::is_no_number(shard, entry.id) => {
            packet::failure(&mut reply.out, head, Status::NON_NUMERIC);
            return;
        }
        Ok(entry) if operation.has(b'C') && shard.store.item(entry.id).cas() != operation.cas => {
            packet::failure(&mut reply.out, head, Status::EXISTS);
            return;
        }
        Ok(entry) => match arithmetic::change(shard, request, entry, direction) {
            Arithmetic::Changed(id, number) => (id, number),
            Arithmetic::NonNumeric => {
                packet::failure(&mut reply.out, head, Status::NON_NUMERIC);
                return;
            }
            Arithmetic::OutOfMemory => {
                let text = b"Out of memory incrementing value";
                packet::message(&mut reply.out, head, Status::OUT_OF_MEMORY, text);
                return;
            }
        },
        Err(_) if operation.has(b'N') => {
            let deadline = request.deadline(operation.vivify, shard);
            match arithmetic::create(shard, request, deadline) {
                Ok(id) => (id, operation.initial),
                Err(OutOfMemory) => {
                    let text = b"Out of memory allocating new item";
                    packet::message(&mut reply.out, head, Status::OUT_OF_MEMORY, text);
                    return;
                }
            }
        }
        Err(_) => {
            arithmetic::count_miss(shard, direction);
            packet::failure(&mut reply.out, head, Status::NOT_FOUND);
            return;
        }
    };
    if !operation.quiet {
        let cas = shard.store.item(id).cas();
        packet::success(&mut reply.out, head, &number.to_be_bytes(), cas);
    }
}

/// Appends the reply to a packet that concerns no key. This function is never inlined: if it were, the compiler would
/// no longer inline [`super::speak`].
#[cold]
#[inline(never)]
pub(super) fn speak(operation: &Operation, reply: &mut Reply) {
    let status = Status(operation.client_flags as u16);
    packet::message(&mut reply.out, Head::new(operation), status, status.message());
}
