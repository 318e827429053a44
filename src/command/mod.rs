//! What an operation means, on one shard: [`execute`] is the table of contents of the server.
//!
//! Words meet items here: the only place below the workers that knows both `protocol/` and `store/`. No I/O, no clock
//! read, no thread; the reply is appended to a [`Reply`].

pub mod admin;
mod arithmetic;
pub mod binary;
mod delete;
pub mod detail;
mod get;
pub mod login;
pub mod set;
pub mod stats;
pub mod walk;
pub mod watch;

use crate::clock::Clock;
use crate::protocol::encode::Output;
use crate::protocol::{Limits, Operation, Verb};
use crate::store::Store;
use crate::store::arena::ItemId;
use crate::store::item::{Cursor, KEY_BINARY};
use detail::Prefixes;

/// What a lease guards: one shard of the cache.
#[derive(Debug)]
pub struct Shard {
    /// Its number.
    pub number: u16,
    /// Its items.
    pub store: Store,
    /// Limits of items, as the parser has them.
    pub limits: Limits,
    /// Counts by key prefix, while `stats detail` is on.
    pub prefixes: Option<Prefixes>,
}

/// The replies to a run of operations: bytes, and values that stay where they are.
#[derive(Debug, Default)]
pub struct Reply {
    /// The bytes.
    pub out: Output,
    /// Values that belong between those bytes, in the order of their places.
    pub pinned: Vec<Pinned>,
}

/// A value that is written to the socket from where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Pinned {
    /// The value comes after this many bytes of the reply.
    pub at: usize,
    /// The shard it was pinned in, and must be unpinned in.
    pub shard: u16,
    /// The item.
    pub id: ItemId,
    /// What is still to be written of its value.
    pub value: Cursor,
}

impl Reply {
    /// An empty reply with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Reply {
        Reply { out: Output::with_capacity(capacity), pinned: Vec::new() }
    }

    /// Whether there is nothing to be sent.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty() && self.pinned.is_empty()
    }

    /// Bytes to be sent, with those of pinned values.
    pub fn len(&self) -> usize {
        self.out.len() + self.pinned.iter().map(|pinned| pinned.value.left()).sum::<usize>()
    }

    /// Appends another reply, or the part of it from byte `from` to byte `to` with the values in between.
    pub fn append(&mut self, other: &Reply, from: usize, to: usize) {
        let shift = self.out.len();
        self.out.put(&other.out.bytes()[from..to]);
        let between = other.pinned.iter().filter(|pinned| pinned.at > from && pinned.at <= to);
        self.pinned.extend(between.map(|pinned| Pinned { at: pinned.at - from + shift, ..*pinned }));
    }
}

/// Executes one operation, whose spans refer to `input`, and appends its reply. `hint`: the item that it probably finds,
/// as [`Store::prefetch_item`] gave it for this group, if it did.
///
/// [`Verb::Admin`] concerns more than a shard and is not executed here.
#[inline]
pub fn execute(
    shard: &mut Shard,
    operation: &Operation,
    hint: Option<ItemId>,
    input: &[u8],
    clock: &Clock,
    reply: &mut Reply,
) {
    match operation.verb {
        Verb::Get => get::get(shard, operation, hint, input, false, reply),
        Verb::Gets => get::get(shard, operation, hint, input, true, reply),
        Verb::Gat => get::get_and_touch(shard, operation, input, clock, false, reply),
        Verb::Gats => get::get_and_touch(shard, operation, input, clock, true, reply),
        Verb::Touch => get::touch(shard, operation, input, clock, reply),
        Verb::Set | Verb::Add | Verb::Replace | Verb::Append | Verb::Prepend | Verb::Cas => {
            set::store(shard, operation, hint, input, clock, reply);
        }
        Verb::Delete => delete::delete(shard, operation, input, reply),
        Verb::Incr => arithmetic::arithmetic(shard, operation, input, true, reply),
        Verb::Decr => arithmetic::arithmetic(shard, operation, input, false, reply),
        Verb::MetaGet => get::meta_get(shard, operation, hint, input, clock, reply),
        Verb::MetaSet => set::meta_set(shard, operation, hint, input, clock, reply),
        Verb::MetaDelete => delete::meta_delete(shard, operation, input, clock, reply),
        Verb::MetaArithmetic => arithmetic::meta_arithmetic(shard, operation, input, clock, reply),
        Verb::MetaDebug => get::meta_debug(shard, operation, input, reply),
        Verb::BinaryGet => binary::get(shard, operation, hint, input, clock, reply),
        Verb::BinarySet => binary::set(shard, operation, hint, input, clock, reply),
        Verb::BinaryDelete => binary::delete(shard, operation, input, reply),
        Verb::BinaryArithmetic => binary::arithmetic(shard, operation, input, clock, reply),
        Verb::End | Verb::BinarySay | Verb::Say | Verb::Admin => speak(operation, reply),
    }
}

/// The reply of an operation that concerns no key.
#[inline]
pub fn speak(operation: &Operation, reply: &mut Reply) {
    match operation.verb {
        Verb::End => reply.out.put(b"END\r\n"),
        Verb::Say if !operation.quiet => reply.out.put(operation.text),
        Verb::BinarySay if !operation.quiet => binary::speak(operation, reply),
        _ => {}
    }
}

/// Appends a fixed reply unless the client wants none.
#[inline]
fn say(operation: &Operation, reply: &mut Reply, text: &[u8]) {
    if !operation.quiet {
        reply.out.put(text);
    }
}

/// The flag tokens of a meta command, as sent.
fn tokens<'a>(operation: &Operation, input: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    operation.tokens.of(input).split(|&byte| byte == b' ').filter(|token| !token.is_empty())
}

/// ` O<opaque>` and ` k<key>`, with ` b` behind a binary key: the flags that every meta reply echoes, hit or miss.
fn echo(token: &[u8], key: &[u8], binary: bool, reply: &mut Reply) {
    match token[0] {
        b'O' => {
            reply.out.put(b" ");
            reply.out.put(token);
        }
        b'k' => {
            reply.out.put(b" k");
            put_key(key, binary, reply);
            if binary {
                reply.out.put(b" b");
            }
        }
        _ => {}
    }
}

/// A key as meta commands show it.
fn put_key(key: &[u8], binary: bool, reply: &mut Reply) {
    if binary {
        let len = key.len().div_ceil(3) * 4;
        crate::protocol::meta::base64_encode(key, reply.out.room(len));
        reply.out.advance(len);
    } else {
        reply.out.put(key);
    }
}

/// State bit for a key that was sent in base64.
#[inline]
fn key_state(operation: &Operation) -> u8 {
    if operation.has(b'b') { KEY_BINARY } else { 0 }
}
