//! Executes operations on one shard. [`execute`] lists the function for each operation on a key.
//!
//! This module applies the operations of `protocol/` to the items of `store/`; neither of the two knows the other. It
//! does no I/O, reads no clock and starts no thread. It appends the reply to a [`Reply`].

mod arithmetic;
pub mod binary;
mod delete;
mod get;
pub mod observed;
pub mod prefixes;
pub mod reply;
mod set;
pub mod shard;

use crate::clock::Clock;
use crate::protocol::{Operation, Verb};
use crate::store::OutOfMemory;
use crate::store::arena::ItemId;
use crate::store::gather::{Announced, Gathered, Gathering};
use set::Value;

pub use reply::{Pinned, Reply};
pub use shard::Shard;

/// Executes one operation and appends its reply. The spans of the operation refer to `input`. `hint` is the item that
/// the operation probably finds, if [`Store::prefetch_item`](crate::store::Store::prefetch_item) gave one for this
/// group.
///
/// It does not execute [`Verb::Admin`], which concerns more than one shard.
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

/// Appends the reply to an operation that concerns no key.
#[inline]
pub fn speak(operation: &Operation, reply: &mut Reply) {
    match operation.verb {
        Verb::End => reply.out.put(b"END\r\n"),
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
    operation: &Operation,
    input: &[u8],
    wanted: usize,
    so_far: Option<Gathering>,
) -> Result<Gathered, OutOfMemory> {
    let key = operation.key.of(input);
    let value_len = operation.value.len as usize;
    let item = Announced { key, client_flags: operation.client_flags, value_len };
    match shard.store.gather(item, wanted, so_far) {
        Ok(gathered) => Ok(gathered),
        Err(OutOfMemory) => {
            let forget = match operation.verb {
                Verb::BinarySet => binary::is_set(operation),
                verb => matches!(verb, Verb::Set | Verb::MetaSet),
            };
            set::out_of_memory(shard, operation, key, forget);
            Err(OutOfMemory)
        }
    }
}

/// Appends the reply to a command if the store has no room for its value.
pub fn refuse(operation: &Operation, reply: &mut Reply) {
    if operation.verb == Verb::BinarySet {
        binary::refuse(operation, reply);
    } else if !operation.quiet || operation.verb == Verb::MetaSet {
        reply.out.put(b"SERVER_ERROR out of memory storing object\r\n");
    }
}

/// Executes a storage command. The worker has received its value into the item `id`.
pub fn commit(shard: &mut Shard, operation: &Operation, input: &[u8], id: ItemId, clock: &Clock, reply: &mut Reply) {
    let (key, value) = (operation.key.of(input), Value::Item(id));
    match operation.verb {
        Verb::MetaSet => set::meta_set_value(shard, operation, None, input, value, clock, reply),
        Verb::BinarySet => binary::set_value(shard, operation, None, key, value, clock, reply),
        _ => set::store_value(shard, operation, None, key, value, clock, reply),
    }
}
