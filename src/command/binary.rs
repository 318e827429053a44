//! The binary protocol: what its operations mean, with memcached's replies. What they share with the other protocols they
//! do by the same functions; what concerns the connection or the whole cache is planned as in `admin.rs`.

use super::admin::{self, Action, ReplyKind, ServerContext};
use super::arithmetic::{self, Outcome as Arithmetic};
use super::set::{self, Change, Mode, Outcome, Value};
use super::{Reply, Shard, get, login, stats};
use crate::clock::Clock;
use crate::config::MEMCACHED_VERSION;
use crate::protocol::Operation;
use crate::protocol::binary::{Access, exptime};
use crate::protocol::encode::Output;
use crate::protocol::packet::{self, HEADER_LEN, Head, Header, Status, opcode};
use crate::store::OutOfMemory;
use crate::store::arena::ItemId;

#[inline]
pub(super) fn get(
    shard: &mut Shard,
    operation: &Operation,
    hint: Option<ItemId>,
    input: &[u8],
    clock: &Clock,
    reply: &mut Reply,
) {
    let key = operation.key.of(input);
    let found = shard.store.seek(hint, operation.hash, key);
    if let Some(prefixes) = &mut shard.prefixes {
        prefixes.count_get(key, found.is_ok());
    }
    let touches = !matches!(operation.mode, opcode::GET | opcode::GETQ | opcode::GETK | opcode::GETKQ);
    shard.store.counters.cmd_touch += u64::from(touches);
    let with_key = matches!(operation.mode, opcode::GETK | opcode::GETKQ | opcode::GATK | opcode::GATKQ);
    let shown_key = if with_key { key } else { b"" };
    let Ok(id) = found else {
        if touches {
            shard.store.counters.touch_misses += 1;
        } else {
            shard.store.counters.get_misses += 1;
        }
        match operation.quiet {
            true => {}
            false if with_key => packet::named(&mut reply.out, Head::of(operation), Status::NOT_FOUND, key, b""),
            false => packet::failure(&mut reply.out, Head::of(operation), Status::NOT_FOUND),
        }
        return;
    };
    if touches {
        let deadline = clock.deadline(operation.exptime, shard.store.now());
        shard.store.set_deadline(id, deadline);
        shard.store.bump(id);
        shard.store.counters_of(id).touch_hits += 1;
    } else {
        shard.store.hit(id);
    }
    let item = shard.store.item(id);
    let (client_flags, cas) = (item.client_flags(), item.cas());
    // A touch shows the client flags, too.
    let (value, len) = match operation.mode {
        opcode::TOUCH => (Some(&b""[..]), 0),
        _ => (get::short_value(&item), item.value_len()),
    };
    packet::item(&mut reply.out, Head::of(operation), client_flags, cas, shown_key, value.unwrap_or_default(), len);
    if value.is_none() {
        get::pin(shard, id, reply);
    }
}

/// Whether it stores whatever there was: then a value that cannot be stored must not leave the old one behind.
pub(super) fn is_set(operation: &Operation) -> bool {
    matches!(operation.mode, opcode::SET | opcode::SETQ)
}

#[inline]
pub(super) fn set(
    shard: &mut Shard,
    operation: &Operation,
    hint: Option<ItemId>,
    input: &[u8],
    clock: &Clock,
    reply: &mut Reply,
) {
    let key = operation.key.of(input);
    if operation.too_large {
        set::count_by_prefix(shard, key);
        set::too_large(shard, operation, key, is_set(operation));
        packet::failure(&mut reply.out, Head::of(operation), Status::TOO_LARGE);
        return;
    }
    let value = Value::Bytes(operation.value.of(input));
    set_value(shard, operation, hint, key, value, clock, reply);
}

pub(super) fn set_value(
    shard: &mut Shard,
    operation: &Operation,
    hint: Option<ItemId>,
    key: &[u8],
    value: Value<'_>,
    clock: &Clock,
    reply: &mut Reply,
) {
    set::count_by_prefix(shard, key);
    let compare = (operation.has(b'C') && shard.store.options().cas).then_some(operation.cas);
    let mode = match operation.mode {
        opcode::APPEND | opcode::APPENDQ => Mode::Append,
        opcode::PREPEND | opcode::PREPENDQ => Mode::Prepend,
        // As memcached: with a CAS value, an add and a replace are a `cas`, too.
        opcode::ADD | opcode::ADDQ if compare.is_none() => Mode::Add,
        opcode::REPLACE | opcode::REPLACEQ if compare.is_none() => Mode::Replace,
        _ => Mode::Set,
    };
    let change = Change {
        mode,
        compare,
        invalidate: false,
        deadline: clock.deadline(operation.exptime, shard.store.now()),
        vivify: None,
        new_cas: None,
        state: 0,
    };
    let status = match (set::apply(shard, operation, hint, key, value, &change), mode) {
        (Outcome::Stored(_), _) if operation.quiet => return,
        (Outcome::Stored(id), _) => {
            let cas = shard.store.item(id).cas();
            packet::success(&mut reply.out, Head::of(operation), b"", cas);
            return;
        }
        (Outcome::Exists, _) | (Outcome::NotStored, Mode::Add) => Status::EXISTS,
        (Outcome::NotFound, _) | (Outcome::NotStored, Mode::Replace) => Status::NOT_FOUND,
        (Outcome::NotStored, _) | (Outcome::OutOfMemory, Mode::Append | Mode::Prepend) => Status::NOT_STORED,
        (Outcome::OutOfMemory, _) => {
            set::out_of_memory(shard, operation, key, is_set(operation));
            refuse(operation, reply);
            return;
        }
    };
    packet::failure(&mut reply.out, Head::of(operation), status);
}

/// There is no room for a value.
pub(super) fn refuse(operation: &Operation, reply: &mut Reply) {
    packet::message(&mut reply.out, Head::of(operation), Status::OUT_OF_MEMORY, b"Out of memory allocating item");
}

pub(super) fn delete(shard: &mut Shard, operation: &Operation, input: &[u8], reply: &mut Reply) {
    let key = operation.key.of(input);
    if let Some(prefixes) = &mut shard.prefixes {
        prefixes.count_delete(key);
    }
    let status = match shard.store.find(operation.hash, key) {
        Ok(entry) if operation.has(b'C') && shard.store.item(entry.id).cas() != operation.cas => Status::EXISTS,
        Ok(entry) => {
            shard.store.counters_of(entry.id).delete_hits += 1;
            shard.store.remove(entry);
            if !operation.quiet {
                packet::success(&mut reply.out, Head::of(operation), b"", 0);
            }
            return;
        }
        Err(_) => {
            shard.store.counters.delete_misses += 1;
            Status::NOT_FOUND
        }
    };
    packet::failure(&mut reply.out, Head::of(operation), status);
}

pub(super) fn arithmetic(shard: &mut Shard, operation: &Operation, input: &[u8], clock: &Clock, reply: &mut Reply) {
    let head = Head::of(operation);
    let up = matches!(operation.mode, opcode::INCREMENT | opcode::INCREMENTQ);
    let key = operation.key.of(input);
    let (id, number) = match shard.store.find(operation.hash, key) {
        Ok(entry) if arithmetic::is_no_number(shard, operation, entry.id) => {
            packet::failure(&mut reply.out, head, Status::NON_NUMERIC);
            return;
        }
        Ok(entry) if operation.has(b'C') && shard.store.item(entry.id).cas() != operation.cas => {
            packet::failure(&mut reply.out, head, Status::EXISTS);
            return;
        }
        Ok(entry) => match arithmetic::change(shard, operation, entry, up) {
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
            let deadline = clock.deadline(operation.vivify, shard.store.now());
            match arithmetic::create(shard, operation, key, deadline) {
                Ok(id) => (id, operation.initial),
                Err(OutOfMemory) => {
                    let text = b"Out of memory allocating new item";
                    packet::message(&mut reply.out, head, Status::OUT_OF_MEMORY, text);
                    return;
                }
            }
        }
        Err(_) => {
            arithmetic::count_miss(shard, up);
            packet::failure(&mut reply.out, head, Status::NOT_FOUND);
            return;
        }
    };
    if !operation.quiet {
        let cas = shard.store.item(id).cas();
        packet::success(&mut reply.out, head, &number.to_be_bytes(), cas);
    }
}

/// The reply of a packet that concerns no key. Never inline: it would keep [`super::speak`] from being so.
#[cold]
#[inline(never)]
pub(super) fn speak(operation: &Operation, reply: &mut Reply) {
    let status = Status(operation.client_flags as u16);
    packet::message(&mut reply.out, Head::of(operation), status, status.message());
}

/// What is to be done about a packet that concerns the connection or the whole cache: with its header, and with as many
/// bytes behind it as that announces.
pub fn plan(packet: &[u8], access: Access, context: &ServerContext<'_>) -> Action {
    let header = packet.first_chunk().and_then(Header::read).expect("the parser has read this header");
    let head = Head { opcode: header.opcode, opaque: header.opaque };
    let body = &packet[HEADER_LEN..];
    match header.opcode {
        opcode::FLUSH | opcode::FLUSHQ => flush(head, body, context),
        opcode::STAT => stat(head, body, context),
        opcode::VERSION => say(|out| packet::success(out, head, MEMCACHED_VERSION.as_bytes(), 0)),
        opcode::SASL_LIST => login::mechanisms(head),
        opcode::SASL_AUTH | opcode::SASL_STEP => {
            let (mechanism, message) = body.split_at(usize::from(header.key_len));
            login::sasl(head, mechanism, message, access, context)
        }
        _ => say(|out| packet::failure(out, head, Status::UNKNOWN_COMMAND)),
    }
}

fn say(write: impl FnOnce(&mut Output)) -> Action {
    let mut out = Output::default();
    write(&mut out);
    Action::Say(out.take())
}

fn flush(head: Head, extras: &[u8], context: &ServerContext<'_>) -> Action {
    context.workers[context.worker].cmd_flush.add(1);
    if !context.config.flush_enabled {
        return say(|out| packet::failure(out, head, Status::AUTH_ERROR));
    }
    let seconds = extras.first_chunk().map_or(0, |&bytes| u32::from_be_bytes(bytes));
    let report = if head.opcode == opcode::FLUSHQ { &ReplyKind::Text(b"") } else { &ReplyKind::Text(b"OK\r\n") };
    Action::Ask(admin::flush(exptime(seconds), context), ReplyKind::Packets(head, report))
}

/// The statistics that there are in binary; a key may go on behind its first word where memcached's may.
fn stat(head: Head, key: &[u8], context: &ServerContext<'_>) -> Action {
    let unknown = || say(|out| packet::failure(out, head, Status::NOT_FOUND));
    let ask = |words: &[&[u8]], report| match admin::stats(words, context) {
        Action::Ask(query, _) => Action::Ask(query, ReplyKind::Packets(head, report)),
        Action::Say(text) => Action::Say(packets(head, report, &text)),
        plan @ (Action::Quit | Action::Walk(_) | Action::Watch(_) | Action::Access(..) | Action::Stop { .. }) => plan,
    };
    match key {
        b"" => ask(&[], &ReplyKind::General),
        b"items" => ask(&[key], &ReplyKind::Items),
        b"slabs" => ask(&[key], &ReplyKind::Slabs),
        b"sizes" => ask(&[key], &ReplyKind::Sizes),
        _ if key.starts_with(b"reset") => ask(&[b"reset"], &ReplyKind::Text(b"")),
        _ if key.starts_with(b"settings") => Action::Say(packets(head, &ReplyKind::Lines, &stats::settings(context))),
        [b'd', b'e', b't', b'a', b'i', b'l', ..] if !context.config.dump_enabled => {
            say(|out| packet::failure(out, head, Status::AUTH_ERROR))
        }
        _ if key.starts_with(b"detail dump") => ask(&[b"detail", b"dump"], &ReplyKind::Detail),
        _ if key.starts_with(b"detail on") => ask(&[b"detail", b"on"], &ReplyKind::Text(b"")),
        _ if key.starts_with(b"detail off") => ask(&[b"detail", b"off"], &ReplyKind::Text(b"")),
        _ => unknown(),
    }
}

/// The reply to a query, which reads `text` in the classic protocol, in packets.
pub(super) fn packets(head: Head, report: &ReplyKind, text: &[u8]) -> Vec<u8> {
    let mut out = Output::default();
    if head.opcode != opcode::STAT {
        // A flush that is quiet has no reply.
        if *report != ReplyKind::Text(b"") {
            packet::success(&mut out, head, b"", 0);
        }
        return out.take();
    }
    if *report == ReplyKind::Detail {
        packet::named(&mut out, head, Status::SUCCESS, b"detailed", text);
    } else {
        let lines = text.split(|&byte| byte == b'\n').filter_map(|line| line.strip_prefix(b"STAT "));
        for line in lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)) {
            let name_len = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
            let (name, value) = line.split_at(name_len);
            packet::named(&mut out, head, Status::SUCCESS, name, value.get(1..).unwrap_or_default());
        }
    }
    // A statistic without a name is the end.
    packet::success(&mut out, head, b"", 0);
    out.take()
}
