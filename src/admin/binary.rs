//! The binary protocol: this module plans packets that concern the connection or the whole cache, as `plan` in `mod.rs`
//! plans lines.

use super::context::ServerContext;
use super::query::{Action, ReplyKind};
use super::stats::{self, settings::settings};
use super::{flush_prefix, login, server};
use crate::auth::scram;
use crate::config::MEMCACHED_VERSION;
use crate::protocol::binary::{Access, exptime};
use crate::protocol::encode::Output;
use crate::protocol::packet::{self, HEADER_LEN, Head, Header, Status, opcode};

/// Decides the action for a packet that concerns the connection or the whole cache. `packet` is the header and as many
/// bytes after it as the header announces. `scram` is the login by SCRAM that is under way on this connection.
pub fn plan(
    packet: &[u8],
    access: Access,
    scram: &mut Option<Box<scram::Login>>,
    context: &ServerContext<'_>,
) -> Action {
    let header = packet.first_chunk().and_then(Header::read).expect("the parser has read this header");
    let head = Head { opcode: header.opcode, opaque: header.opaque };
    let body = &packet[HEADER_LEN..];
    match header.opcode {
        opcode::FLUSH | opcode::FLUSHQ => flush(head, body, context),
        opcode::STAT => stat(head, body, context),
        opcode::DELETE | opcode::DELETEQ => {
            flush_prefix::delete_packet(head, &body[usize::from(header.extras_len)..], context)
        }
        opcode::VERSION => say(|out| packet::success(out, head, MEMCACHED_VERSION.as_bytes(), 0)),
        opcode::SASL_LIST => login::mechanisms(head, context),
        opcode::SASL_AUTH | opcode::SASL_STEP => {
            let (mechanism, message) = body.split_at(usize::from(header.key_len));
            login::sasl(login::Request { head, mechanism, message }, access, scram, context)
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
    if !context.config.permissions.flush {
        return say(|out| packet::failure(out, head, Status::AUTH_ERROR));
    }
    let seconds = extras.first_chunk().map_or(0, |&bytes| u32::from_be_bytes(bytes));
    let report = if head.opcode == opcode::FLUSHQ { &ReplyKind::Text(b"") } else { &ReplyKind::Text(b"OK\r\n") };
    Action::Ask(server::flush(exptime(seconds), context), ReplyKind::Packets(head, report))
}

/// Plans the statistics of the binary protocol. A key may continue after its first word where memcached allows it.
fn stat(head: Head, key: &[u8], context: &ServerContext<'_>) -> Action {
    let unknown = || say(|out| packet::failure(out, head, Status::NOT_FOUND));
    let ask = |words: &[&[u8]], report| match stats::plan(words, context) {
        Action::Ask(query, _) => Action::Ask(query, ReplyKind::Packets(head, report)),
        Action::Say(text) => Action::Say(packets(head, report, &text)),
        // No statistic is any of the others.
        plan => plan,
    };
    match key {
        b"" => ask(&[], &ReplyKind::General),
        b"items" => ask(&[key], &ReplyKind::Items),
        b"slabs" => ask(&[key], &ReplyKind::Slabs),
        b"sizes" => ask(&[key], &ReplyKind::Sizes),
        _ if key.starts_with(b"flush_prefix ") => {
            let words: Vec<&[u8]> = key.split(|&byte| byte == b' ').skip(1).collect();
            flush_prefix::packet_statistic(head, &words, context)
        }
        _ if key.starts_with(b"reset") => ask(&[b"reset"], &ReplyKind::Text(b"")),
        _ if key.starts_with(b"settings") => Action::Say(packets(head, &ReplyKind::Lines, &settings(context))),
        [b'd', b'e', b't', b'a', b'i', b'l', ..] if !context.config.permissions.dump => {
            say(|out| packet::failure(out, head, Status::AUTH_ERROR))
        }
        _ if key.starts_with(b"detail dump") => ask(&[b"detail", b"dump"], &ReplyKind::Detail),
        _ if key.starts_with(b"detail on") => ask(&[b"detail", b"on"], &ReplyKind::Text(b"")),
        _ if key.starts_with(b"detail off") => ask(&[b"detail", b"off"], &ReplyKind::Text(b"")),
        _ => unknown(),
    }
}

/// Puts the reply to a query into packets. `text` is the reply in the classic protocol.
pub(super) fn packets(head: Head, report: &ReplyKind, text: &[u8]) -> Vec<u8> {
    let mut out = Output::default();
    if head.opcode != opcode::STAT {
        // A quiet flush has no reply.
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
    // A statistic without a name ends the reply.
    packet::success(&mut out, head, b"", 0);
    out.take()
}
