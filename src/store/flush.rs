//! `flush_all`: all items die at a time.

use super::Store;
use super::arena::ItemId;
use super::lru::Segment;
use crate::clock::Now;

/// Recently accessed items that a flush removes at once: see [`Store::flush_at`].
pub(super) const FLUSHED_AT_ONCE: usize = 512;

impl Store {
    /// `flush_all`: at this time, which may be now, all items of the store die. A later call replaces a flush that is
    /// planned.
    ///
    /// The store reclaims the memory later, with one exception. It removes items at once that were accessed at this
    /// time or later, if it finds them at the heads of their lists, and at most [`FLUSHED_AT_ONCE`] of them. As in
    /// memcached, a client that flushes items it has just stored sees the counts drop.
    pub fn flush_at(&mut self, at: Now) {
        self.end_copies();
        self.flush_at = 0;
        if at.0 > self.now {
            self.flush_at = at.0;
        } else if self.counters.total_items != self.total_items_flushed {
            self.total_items_flushed = self.counters.total_items;
            if self.stamps.are_worn() {
                self.unlink_heads(usize::MAX, |_, _| true);
            } else {
                self.unlink_heads(FLUSHED_AT_ONCE, |store, id| {
                    !store.stamps.is_flushed(store.item(id).stamp()) && store.last_access(id) >= at
                });
            }
            self.has_evicted = false;
            self.flushed.clear();
            if self.index.len() == 0 {
                self.stamps.restart(self.now);
            } else {
                self.stamps.flush(self.now);
                self.slabs.all_due();
            }
        }
    }

    /// Cancels a flush that is planned.
    pub fn forget_flush(&mut self) {
        self.flush_at = 0;
    }

    /// Removes up to `count` items from the heads of the lists. It leaves a list at the first item that is not wanted.
    fn unlink_heads(&mut self, mut count: usize, wanted: impl Fn(&Store, ItemId) -> bool) {
        for class in self.slabs.ids() {
            for segment in Segment::ALL {
                while count > 0
                    && let Some(id) = self.lru.head(class, segment)
                    && wanted(self, id)
                {
                    self.remove_by_id(id);
                    count -= 1;
                }
            }
        }
    }
}
