//! `flush_all`: everything that is stored dies at a time.

use super::Store;
use super::arena::ItemId;
use super::lru::Segment;
use crate::clock::Now;

/// Items that a flush takes out at once, if they were accessed last: see [`Store::flush_at`].
pub(super) const FLUSHED_AT_ONCE: usize = 512;

impl Store {
    /// `flush_all`: when this time has come, which may be now, everything that is stored is dead. A later call replaces it.
    ///
    /// The memory is reclaimed later, but for items accessed since then that are found at the heads of their lists: as in
    /// memcached, who flushes what was just stored sees it gone from the counts. At most [`FLUSHED_AT_ONCE`] of them are
    /// looked for.
    pub fn flush_at(&mut self, at: Now) {
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
            if self.index.len() == 0 {
                self.stamps.restart(self.now);
            } else {
                self.stamps.flush(self.now);
                self.slabs.all_due();
            }
        }
    }

    /// No flush is to come.
    pub fn forget_flush(&mut self) {
        self.flush_at = 0;
    }

    /// Takes up to `count` items out, from the heads of lists as far as they are wanted.
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
