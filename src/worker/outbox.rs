//! What a connection has still to send: bytes, and values that are written from where they lie.

use crate::command::{Pinned, Reply};
use crate::store::item::Items;
use std::io::IoSlice;

/// At most so many parts in one write.
const SLICES_MAX: usize = 64;

/// A reply on its way out.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    reply: Reply,
    /// Bytes of the reply that were sent. Invariant: no further than the place of the first pinned value.
    sent: usize,
}

impl Outbox {
    /// Whether everything was sent.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.reply.out.len() && self.reply.pinned.is_empty()
    }

    /// Bytes to be sent.
    pub(super) fn len(&self) -> usize {
        self.reply.len() - self.sent
    }

    /// Where further replies go.
    pub(super) fn reply(&mut self) -> &mut Reply {
        &mut self.reply
    }

    /// The parts to be written next.
    pub(super) fn slices<'a>(&'a self, items: &'a Items) -> Vec<IoSlice<'a>> {
        let mut slices = Vec::new();
        let bytes = self.reply.out.bytes();
        let mut at = self.sent;
        for pinned in &self.reply.pinned {
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

    /// `count` bytes were written. Values that are done with are handed to `done`.
    pub(super) fn advance(&mut self, items: &Items, mut count: usize, mut done: impl FnMut(Pinned)) {
        let mut finished = 0;
        for pinned in &mut self.reply.pinned {
            let step = count.min(pinned.at - self.sent);
            self.sent += step;
            count -= step;
            let step = count.min(pinned.value.left());
            pinned.value = items.advance(pinned.value, step);
            count -= step;
            if self.sent < pinned.at || pinned.value.left() > 0 {
                break;
            }
            done(*pinned);
            finished += 1;
        }
        self.reply.pinned.drain(..finished);
        self.sent += count;
        if self.is_empty() {
            self.sent = 0;
            self.reply.out.clear();
        }
    }

    /// Gives up everything, for the values that are pinned in it.
    pub(super) fn take(&mut self) -> Reply {
        self.sent = 0;
        std::mem::take(&mut self.reply)
    }

    /// Gives the memory back when nothing is left to be sent.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            *self = Outbox::default();
        }
    }
}
