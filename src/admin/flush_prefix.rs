//! `flush_prefix`, and the forms of it that clients without a word for it can send: `stats flush_prefix`, which most
//! libraries pass on to all servers of a pool, and the deletion of a key that begins with `-o flush_prefix_key`.

use super::context::ServerContext;
use super::line::{ERROR, OK};
use super::query::{Action, Answer, Query, ReplyKind, say};
use super::rights;
use crate::auth::user::User;
use crate::protocol::encode::Output;
use crate::protocol::packet::{self, HEADER_LEN, Head, Header, Status, opcode};
use crate::protocol::token::Tokens;
use crate::store::flushed::{Flush, PrefixRule, Refused};

const USAGE: &[u8] = b"CLIENT_ERROR usage: flush_prefix <prefix> [stale] [noreply]\r\n";
const NOT_ALLOWED: &[u8] = b"CLIENT_ERROR flush_prefix not allowed\r\n";

/// `flush_prefix <prefix> [stale] [noreply]`
pub(super) fn command(arguments: &[&[u8]], noreply: bool, context: &ServerContext<'_>) -> Action {
    let arguments = &arguments[..arguments.len() - usize::from(noreply)];
    match order(arguments, context) {
        Ok((prefix, flush)) => ask(vec![prefix], flush, if noreply { b"" } else { OK }, None),
        Err(_) if noreply => say(b""),
        Err(text) => Action::Say(text),
    }
}

/// `stats flush_prefix <prefix> [stale]`
pub(super) fn statistic(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    match order(arguments, context) {
        Ok((prefix, flush)) => {
            let reply = [b"STAT flushed ", &prefix[..], b"\r\nEND\r\n"].concat();
            ask(vec![prefix], flush, &reply, None)
        }
        Err(text) => Action::Say(text),
    }
}

/// The same in a packet, whose key is `flush_prefix <prefix> [stale]`.
pub(super) fn packet_statistic(head: Head, arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    let mut out = Output::default();
    match order(arguments, context) {
        Ok((prefix, flush)) => {
            packet::named(&mut out, head, Status::SUCCESS, b"flushed", &prefix);
            packet::success(&mut out, head, b"", 0);
            ask(vec![prefix], flush, &out.take(), Some(head))
        }
        Err(text) => refuse(head, &text),
    }
}

/// `delete <key>` and `md <key>`, with a key that begins with `-o flush_prefix_key`. `tokens` is the whole command, which
/// the parser has found to be right.
pub(super) fn delete(tokens: &[&[u8]], noreply: bool, context: &ServerContext<'_>) -> Action {
    let [command, key, flags @ ..] = tokens else { return say(ERROR) };
    let Some(prefix) = magic(key, context) else { return say(ERROR) };
    let is_meta = *command == b"md";
    let reply = if is_meta {
        let mut reply = b"HD".to_vec();
        for flag in flags {
            match flag[0] {
                b'O' => reply.extend([b" ", *flag].concat()),
                b'k' => reply.extend([b" k", *key].concat()),
                _ => {}
            }
        }
        reply.extend(b"\r\n");
        reply
    } else {
        b"DELETED\r\n".to_vec()
    };
    let is_quiet = if is_meta { flags.contains(&&b"q"[..]) } else { noreply };
    match order(&[prefix], context) {
        Ok((prefix, flush)) => ask(vec![prefix], flush, if is_quiet { b"" } else { &reply }, None),
        Err(_) if is_quiet && !is_meta => say(b""),
        Err(text) => Action::Say(text),
    }
}

/// The same in a packet.
pub(super) fn delete_packet(head: Head, key: &[u8], context: &ServerContext<'_>) -> Action {
    let Some(prefix) = magic(key, context) else { return refuse(head, USAGE) };
    let mut out = Output::default();
    match order(&[prefix], context) {
        Ok((prefix, flush)) => {
            if head.opcode != opcode::DELETEQ {
                packet::success(&mut out, head, b"", 0);
            }
            ask(vec![prefix], flush, &out.take(), Some(head))
        }
        Err(text) => refuse(head, &text),
    }
}

/// `flush_all` of a user with prefixes: flushes these, at once.
pub fn own_keys(line: &[u8], user: &User, context: &ServerContext<'_>) -> Action {
    let tokens = Tokens::new(line);
    let is_delayed = tokens.all().get(1).is_some_and(|token| !matches!(*token, b"0" | b"noreply"));
    match own_prefixes(user, context).filter(|_| !is_delayed) {
        Some(prefixes) => ask(prefixes, Flush::Kill, if tokens.noreply() { b"" } else { OK }, None),
        None => Action::Say(rights::refusal(line).to_vec()),
    }
}

/// The same in a packet.
pub fn own_keys_packet(bytes: &[u8], user: &User, context: &ServerContext<'_>) -> Action {
    let header = bytes.first_chunk().and_then(Header::read).expect("the parser has read this header");
    let head = Head { opcode: header.opcode, opaque: header.opaque };
    let is_delayed = bytes[HEADER_LEN..].iter().any(|&byte| byte != 0);
    match own_prefixes(user, context).filter(|_| !is_delayed) {
        Some(prefixes) => {
            let mut out = Output::default();
            if header.opcode != opcode::FLUSHQ {
                packet::success(&mut out, head, b"", 0);
            }
            ask(prefixes, Flush::Kill, &out.take(), Some(head))
        }
        None => Action::Say(rights::packet_refusal(bytes)),
    }
}

/// The prefixes of a user, if all of them can be flushed.
fn own_prefixes(user: &User, context: &ServerContext<'_>) -> Option<Vec<Vec<u8>>> {
    context.workers[context.worker].cmd_flush.add(1);
    let rule = rule(context);
    let can_all = context.config.permissions.flush && user.prefixes.iter().all(|prefix| rule.is_prefix(prefix.bytes()));
    can_all.then(|| user.prefixes.iter().map(|prefix| prefix.bytes().to_vec()).collect())
}

fn rule(context: &ServerContext<'_>) -> PrefixRule {
    PrefixRule { delimiter: context.config.detail.delimiter, parts_max: context.config.measuring.prefix_depth }
}

/// Flushes all prefixes of a list, each with its last delimiter.
fn ask(prefixes: Vec<Vec<u8>>, flush: Flush, reply: &[u8], head: Option<Head>) -> Action {
    Action::Ask(
        Query::FlushPrefixes { prefixes: prefixes.into(), flush, reply: reply.into() },
        ReplyKind::Flushed(head),
    )
}

/// Writes the reply when all shards have answered.
pub(super) fn finish(answers: Vec<Answer>, head: Option<Head>) -> Vec<u8> {
    let (mut reply, mut refused) = (Vec::new(), None);
    for answer in answers {
        if let Answer::Flushed(text, result) = answer {
            reply = text.to_vec();
            refused = refused.or(result.err());
        }
    }
    let text = match refused {
        None => return reply,
        Some(Refused::TooMany) => "SERVER_ERROR out of memory for flushed prefixes\r\n",
        Some(Refused::TooOften) => "SERVER_ERROR flush_prefix too often\r\n",
    };
    match head {
        Some(head) => {
            let mut out = Output::default();
            packet::message(&mut out, head, Status::OUT_OF_MEMORY, text.trim_end().as_bytes());
            out.take()
        }
        None if reply.is_empty() => reply,
        None => text.into(),
    }
}

/// Reads the arguments: the prefix with its last delimiter, and what happens to the items.
fn order(arguments: &[&[u8]], context: &ServerContext<'_>) -> Result<(Vec<u8>, Flush), Vec<u8>> {
    context.workers[context.worker].cmd_flush_prefix.add(1);
    if !context.config.permissions.flush {
        return Err(NOT_ALLOWED.to_vec());
    }
    let (word, flush) = match *arguments {
        [word] => (word, Flush::Kill),
        [word, b"stale"] => (word, Flush::Stale),
        _ => return Err(USAGE.to_vec()),
    };
    let rule = rule(context);
    let mut prefix = word.to_vec();
    if prefix.last() != Some(&rule.delimiter) {
        prefix.push(rule.delimiter);
    }
    if word.is_empty() {
        Err(USAGE.to_vec())
    } else if rule.is_prefix(&prefix) {
        Ok((prefix, flush))
    } else {
        let parts = rule.parts_max;
        Err(format!("CLIENT_ERROR a prefix has at most {parts} parts (see --prefix-depth)\r\n").into_bytes())
    }
}

/// The rest of a key that begins with `-o flush_prefix_key`.
fn magic<'a>(key: &'a [u8], context: &ServerContext<'_>) -> Option<&'a [u8]> {
    key.strip_prefix(context.config.permissions.flush_prefix_key.as_deref()?)
}

/// An error in a packet. `text` is a line.
fn refuse(head: Head, text: &[u8]) -> Action {
    let mut out = Output::default();
    let status = if text == NOT_ALLOWED { Status::AUTH_ERROR } else { Status::INVALID };
    packet::message(&mut out, head, status, text.trim_ascii_end());
    Action::Say(out.take())
}
