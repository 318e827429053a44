//! Executes operations on one shard. [`execute`] lists the function for each operation on a key.
//!
//! This module applies the operations of `protocol/` to the items of `store/`; neither of the two knows the other. It
//! does no I/O, reads no clock and starts no thread. It appends the reply to a [`Reply`].

mod arithmetic;
pub mod big_keys;
pub mod binary;
pub mod copied;
mod delete;
mod get;
mod meta;
pub mod observed;
pub mod prefixes;
pub mod reply;
pub mod request;
mod set;
pub mod shard;

use crate::protocol::{Operation, Verb};
use crate::store::OutOfMemory;
use crate::store::arena::ItemId;
use crate::store::gather::{Announced, Gathered, Gathering};
use arithmetic::Direction;
use get::Cas;
use set::Value;

pub use reply::{Pinned, Reply};
pub use request::Request;
pub use shard::Shard;

/// Executes one operation and appends its reply.
///
/// It does not execute [`Verb::Admin`], which concerns more than one shard.
#[inline]
pub fn execute(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    if shard.store.is_copied() && copied::may_change(request.operation) {
        shard.store.end_copies_of(request.operation.hash);
    }
    match request.operation.verb {
        Verb::Get => get_one(shard, request, reply),
        Verb::Gets => get::gets(shard, request, reply),
        Verb::Gat => get::get_and_touch(shard, request, Cas::Hidden, reply),
        Verb::Gats => get::get_and_touch(shard, request, Cas::Shown, reply),
        Verb::Touch => get::touch(shard, request, reply),
        Verb::Set | Verb::Add | Verb::Replace | Verb::Append | Verb::Prepend | Verb::Cas => {
            set::store(shard, request, reply);
        }
        Verb::Delete => delete::delete(shard, request, reply),
        Verb::Incr => arithmetic::arithmetic(shard, request, Direction::Up, reply),
        Verb::Decr => arithmetic::arithmetic(shard, request, Direction::Down, reply),
        Verb::MetaGet => get::meta_get(shard, request, reply),
        Verb::MetaSet => set::meta_set(shard, request, reply),
        Verb::MetaDelete => delete::meta_delete(shard, request, reply),
        Verb::MetaArithmetic => arithmetic::meta_arithmetic(shard, request, reply),
        Verb::MetaDebug => get::meta_debug(shard, request, reply),
        Verb::BinaryGet => binary::get(shard, request, reply),
        Verb::BinarySet => binary::set(shard, request, reply),
        Verb::BinaryDelete => binary::delete(shard, request, reply),
        Verb::BinaryArithmetic => binary::arithmetic(shard, request, reply),
        Verb::End | Verb::BinarySay | Verb::Say | Verb::Admin => speak(request.operation, reply),
    }
}

/// [`get()`], out of line.
#[inline(never)]
fn get_one(shard: &mut Shard, request: &Request<'_>, reply: &mut Reply) {
    get(shard, request.key, request.operation.hash, request.hint, reply);
}

/// Executes a `get` of one key with this hash, without its end. Returns whether it hit. See [`Request::hint`].
#[inline(always)]
pub fn get(shard: &mut Shard, key: &[u8], hash: u64, hint: Option<ItemId>, reply: &mut Reply) -> bool {
    get::get(shard, get::Wanted { key, hash, hint }, Cas::Hidden, reply)
}

/// Appends the end of a retrieval.
#[inline]
pub fn end(reply: &mut Reply) {
    reply.out.put(b"END\r\n");
}

/// Appends the reply to an operation that concerns no key.
#[inline]
pub fn speak(operation: &Operation, reply: &mut Reply) {
    match operation.verb {
        Verb::End => end(reply),
        Verb::Say if !operation.quiet => reply.out.put(operation.text),
        Verb::BinarySay if !operation.quiet => binary::speak(operation, reply),
        _ => {}
    }
}

/// Makes room for the first `wanted` bytes of the value of a storage command. The value is too long for the request
/// buffer. The caller writes the value to [`crate::store::item::Items::room`]. Then it calls [`commit`], or `abandon`
/// if it gives the value up.
///
/// # Errors
/// If the store has no room for the value. The caller then calls [`refuse`], and must read the value and drop it.
pub fn reserve(
    shard: &mut Shard,
    request: &Request<'_>,
    wanted: usize,
    so_far: Option<Gathering>,
) -> Result<Gathered, OutOfMemory> {
    let Operation { client_flags, value, .. } = *request.operation;
    let item = Announced { key: request.key, client_flags, value_len: value.len as usize };
    let gathered = shard.store.gather(item, wanted, so_far);
    if gathered.is_err() {
        set::out_of_memory(shard, request);
    }
    gathered
}

/// Appends the reply to a command if the store has no room for its value.
pub fn refuse(operation: &Operation, reply: &mut Reply) {
    if operation.verb == Verb::BinarySet {
        binary::refuse(operation, reply);
    } else if !operation.quiet || operation.verb == Verb::MetaSet {
        reply.out.put(set::OUT_OF_MEMORY);
    }
}

/// Executes a storage command. The worker has received its value into the item `id`.
pub fn commit(shard: &mut Shard, request: &Request<'_>, id: ItemId, reply: &mut Reply) {
    shard.store.end_copies_of(request.operation.hash);
    let value = Value::Item(id);
    match request.operation.verb {
        Verb::MetaSet => set::meta_set_value(shard, request, value, reply),
        Verb::BinarySet => binary::set_value(shard, request, value, reply),
        _ => set::store_value(shard, request, value, reply),
    }
    let Operation { hash, value, .. } = *request.operation;
    shard.big_keys.note(&shard.store, request.key, hash, value.len as usize);
}
