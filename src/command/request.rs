//! One operation, with all that a command needs to execute it.

use super::shard::Shard;
use crate::clock::Clock;
use crate::protocol::Operation;
use crate::store::arena::ItemId;

/// An operation of a client on a key, and what the worker knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The operation.
    pub operation: &'a Operation,
    /// Its key.
    pub key: &'a [u8],
    /// The buffer that the spans of the operation refer to.
    pub input: &'a [u8],
    /// The item that the operation probably finds, if [`Store::prefetch_item`](crate::store::Store::prefetch_item) gave
    /// one for this group.
    pub hint: Option<ItemId>,
    /// The clock that deadlines are reckoned by.
    pub clock: &'a Clock,
}

impl<'a> Request<'a> {
    /// Puts a request together. It has no hint.
    #[inline]
    pub fn new(operation: &'a Operation, input: &'a [u8], clock: &'a Clock) -> Request<'a> {
        Request { operation, key: operation.key.of(input), input, hint: None, clock }
    }

    /// The value that the client sent.
    #[inline]
    pub(super) fn value(&self) -> &'a [u8] {
        self.operation.value.of(self.input)
    }

    /// The deadline of the item for an exptime that the client sent, by the rules of the shard.
    #[inline]
    pub fn deadline(&self, exptime: i32, shard: &Shard) -> u32 {
        match shard.ttl_rules() {
            None => self.moment(exptime, shard),
            Some(rules) => rules.deadline(self.key, self.operation.hash, exptime, self.clock, shard.store.now()),
        }
    }

    /// The count of the clock that an exptime means, whatever the rules say.
    #[inline]
    pub(super) fn moment(&self, exptime: i32, shard: &Shard) -> u32 {
        self.clock.deadline(exptime, shard.store.now())
    }
}
