//! The last step of a store before it is frozen: it frees what belongs to clients.
//!
//! When the workers have ended, no client reads or sends a value. But a client that was cut off may have left a pin, or an
//! item of which it had sent only a part. No list leads to such an item.

use super::super::Store;
use super::super::arena::ItemId;
use super::super::item::Chunk;
use super::super::lru::Segment;
use super::super::moves::Mover;

impl Store {
    /// Frees everything that is not an item of the cache, and says whether that is now so.
    pub(super) fn come_to_rest(&mut self) -> bool {
        self.stop_moving();
        self.mover = Mover::default();
        (self.automover.plan, self.automover.quota) = (None, 0);
        // The next process counts sets from 0: whether something was stored since the last flush is not known there.
        self.total_items_flushed = u64::MAX;
        for (raw, pin) in std::mem::take(&mut self.pins) {
            if let Some(id) = ItemId::from_raw(raw).filter(|_| pin.dead) {
                self.release(id);
            }
        }
        while self.free_remains() {}
        if self.has_orphans() {
            self.free_orphans();
        }
        !self.has_orphans()
    }

    /// Whether a class has more chunks in use than the items of the lists have. Large items are counted one by one; all of
    /// them are in the lists of the largest class.
    fn has_orphans(&self) -> bool {
        let mut listed: Vec<u64> =
            std::iter::once(0).chain(self.slabs.ids().map(|class| u64::from(self.lru.total(class)))).collect();
        for segment in Segment::ALL {
            for id in self.lru.last_of(&self.items, self.slabs.largest(), segment) {
                for body in std::iter::successors(self.items.first_body(id), |&id| self.items.next_chunk(id)) {
                    listed[self.class_of(body).index()] += 1;
                }
            }
        }
        self.slabs.ids().any(|class| self.slabs.usage(class).used_chunks != listed[class.index()])
    }

    /// Looks at every chunk for an item that is in no list, and frees it.
    fn free_orphans(&mut self) {
        for class in self.slabs.ids() {
            for page in self.slabs.pages_of(class).to_vec() {
                for id in self.slabs.chunks(page, &self.items) {
                    if self.items.chunk(id) == Chunk::Floating && !self.remains.contains(&id) {
                        self.release(id);
                    }
                }
            }
        }
        while self.free_remains() {}
    }
}
