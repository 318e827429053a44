//! The parts that the replies to meta commands have in common.

use super::reply::Reply;
use super::request::Request;
use super::shard::Shard;
use crate::clock::NEVER;
use crate::protocol::Operation;
use crate::protocol::meta::base64_encode;
use crate::store::arena::ItemId;
use crate::store::item::{Item, KEY_BINARY};

/// The form in which a reply shows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyForm {
    Text,
    Base64,
}

impl KeyForm {
    /// The form in which the client sent the key.
    #[inline]
    pub(super) fn sent(operation: &Operation) -> KeyForm {
        if operation.has(b'b') { KeyForm::Base64 } else { KeyForm::Text }
    }

    /// The form in which the client that stored an item sent its key.
    #[inline]
    pub(super) fn stored(item: &Item<'_>) -> KeyForm {
        if item.state() & KEY_BINARY == 0 { KeyForm::Text } else { KeyForm::Base64 }
    }

    /// The state bits that a new item remembers the form by.
    #[inline]
    pub(super) fn state(self) -> u8 {
        if self == KeyForm::Base64 { KEY_BINARY } else { 0 }
    }
}

/// The item that a meta command works on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) id: ItemId,
    /// Whether the command has created the item, by the flag `N`.
    pub(super) created: bool,
    pub(super) key_form: KeyForm,
}

/// The flag tokens of a meta command, as the client sent them.
#[inline]
pub(super) fn tokens<'a>(request: &Request<'a>) -> Tokens<'a> {
    Tokens { rest: request.operation.tokens.of(request.input) }
}

/// See [`tokens`].
#[derive(Clone, Debug)]
pub(super) struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    /// Most tokens are a letter with a space before and behind it.
    #[inline(always)]
    fn next(&mut self) -> Option<&'a [u8]> {
        while let [b' ', rest @ ..] = self.rest {
            self.rest = rest;
        }
        let len = match self.rest {
            [] => return None,
            [_] | [_, b' ', ..] => 1,
            longer => longer.iter().position(|&byte| byte == b' ').unwrap_or(longer.len()),
        };
        let (token, rest) = self.rest.split_at(len);
        self.rest = rest;
        Some(token)
    }
}

/// Executes and answers one flag of a command that has found or created an item: `T` and `N` set the deadline at their
/// place among the flags, `t` and `c` show the deadline and the CAS value.
#[inline]
pub(super) fn flag_of_item(shard: &mut Shard, request: &Request<'_>, target: Target, token: &[u8], reply: &mut Reply) {
    match token[0] {
        b'T' => {
            let deadline = request.deadline(request.operation.exptime, shard);
            shard.set_deadline(target.id, request.key, deadline);
        }
        b'N' if target.created => {
            let deadline = request.deadline(request.operation.vivify, shard);
            shard.store.set_deadline(target.id, deadline);
        }
        b'c' => put_number(reply, b" c", shard.store.item(target.id).cas()),
        b't' => match shard.store.item(target.id).exptime() {
            NEVER => reply.out.put(b" t-1"),
            // If `T` made the item expire, memcached prints the wrapped difference; so do we.
            deadline => put_number(reply, b" t", u64::from(deadline.wrapping_sub(shard.store.now().0))),
        },
        _ => echo(request, token, target.key_form, reply),
    }
}

/// Appends a reply that has no value: the status, and the flags that every reply repeats.
pub(super) fn put_status(request: &Request<'_>, status: &[u8], reply: &mut Reply) {
    reply.out.put(status);
    for token in tokens(request) {
        echo(request, token, KeyForm::sent(request.operation), reply);
    }
    reply.out.put(b"\r\n");
}

/// Appends ` O<opaque>` or ` k<key>`, with ` b` behind a key in base64. Every reply repeats these flags, after a hit
/// and after a miss.
#[inline]
pub(super) fn echo(request: &Request<'_>, token: &[u8], key_form: KeyForm, reply: &mut Reply) {
    match token[0] {
        b'O' => {
            reply.out.put(b" ");
            reply.out.put(token);
        }
        b'k' => {
            reply.out.put(b" k");
            put_key(request.key, key_form, reply);
            if key_form == KeyForm::Base64 {
                reply.out.put(b" b");
            }
        }
        _ => {}
    }
}

/// Appends a return flag with a number.
#[inline]
pub(super) fn put_number(reply: &mut Reply, name: &[u8], number: u64) {
    reply.out.put(name);
    reply.out.put_u64(number);
}

/// Appends a key.
pub(super) fn put_key(key: &[u8], form: KeyForm, reply: &mut Reply) {
    match form {
        KeyForm::Text => reply.out.put_short(key),
        KeyForm::Base64 => {
            let len = key.len().div_ceil(3) * 4;
            base64_encode(key, reply.out.room(len));
            reply.out.advance(len);
        }
    }
}
