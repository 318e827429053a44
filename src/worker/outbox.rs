//! The replies that a connection has still to send: bytes, and values that the worker writes from where they are stored.

use crate::command::{Pinned, Reply};
use crate::store::item::Items;
use std::io::IoSlice;

/// The most parts of one write.
const SLICES_MAX: usize = 64;

/// A reply that is not sent yet. Takes no memory while there is none.
#[derive(Debug, Default)]
pub(super) struct Outbox(Option<Box<Unsent>>);

#[derive(Debug, Default)]
struct Unsent {
    reply: Reply,
    /// The number of bytes of the reply that were sent. Invariant: it is not beyond the place of the first pinned value.
    sent: usize,
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.sent == self.reply.out.len() && self.reply.pinned.is_empty()
    }
}

impl Outbox {
    /// Whether everything is sent.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|unsent| unsent.is_empty())
    }

    /// The number of bytes that are not sent, with those of values.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |unsent| unsent.reply.len() - unsent.sent)
    }

    /// The reply that further replies are added to.
    pub(super) fn reply(&mut self) -> &mut Reply {
        &mut self.0.get_or_insert_default().reply
    }

    /// The parts to be written next.
    pub(super) fn slices<'a>(&'a self, items: &'a Items) -> Vec<IoSlice<'a>> {
        let mut slices = Vec::new();
        let Some(unsent) = &self.0 else { return slices };
        let bytes = unsent.reply.out.bytes();
        let mut at = unsent.sent;
        for pinned in &unsent.reply.pinned {
            if pinned.at > at {
                slices.push(IoSlice::new(&bytes[at..pinned.at]));
                at = pinned.at;
            }
            let mut value = pinned.value;
            while value.left() > 0 {
                if slices.len() >= SLICES_MAX {
                    return slices;
                }
                let part = items.bytes(&value);
                slices.push(IoSlice::new(part));
                value = items.advance(value, part.len());
            }
        }
        if at < bytes.len() {
            slices.push(IoSlice::new(&bytes[at..]));
        }
        slices
    }

    /// `count` bytes were written. Values that are written as a whole go to `done`.
    pub(super) fn advance(&mut self, items: &Items, mut count: usize, mut done: impl FnMut(Pinned)) {
        let Some(unsent) = &mut self.0 else { return };
        let mut finished = 0;
        for pinned in &mut unsent.reply.pinned {
            let step = count.min(pinned.at - unsent.sent);
            unsent.sent += step;
            count -= step;
            let step = count.min(pinned.value.left());
            pinned.value = items.advance(pinned.value, step);
            count -= step;
            if unsent.sent < pinned.at || pinned.value.left() > 0 {
                break;
            }
            done(*pinned);
            finished += 1;
        }
        unsent.reply.pinned.drain(..finished);
        unsent.sent += count;
        if unsent.is_empty() {
            unsent.sent = 0;
            unsent.reply.out.clear();
        }
    }

    /// Gives up everything. The caller unpins the values in it.
    pub(super) fn take(&mut self) -> Reply {
        self.0.take().map_or_else(Reply::default, |unsent| unsent.reply)
    }

    /// Frees the memory if everything is sent.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.0 = None;
        }
    }
}
