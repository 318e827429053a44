//! The store reclaims the memory of dead items: before it evicts a live one, and in small steps between turns.
//!
//! Every page knows when its first item dies. So the store searches only pages that have a dead item, a few chunks at a
//! time. It never scans all pages, and items need no links for this.
//!
//! Code that frees dead items ahead of need spares items that died within this second, as memcached does. A client that
//! asks for such an item then counts in `get_expired`.

use super::arena::ItemId;
use super::item::{Chunk, FETCHED, Item};
use super::lru::Segment;
use super::slab::ClassId;
use super::{NEVER, Store};

/// Items that memcached examines when it pulls the tail of a list.
const PULLED: usize = 5;

/// Items whose index buckets are fetched while others are freed.
const SWEPT_AHEAD: usize = 8;

/// Why the store frees dead items.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A class needs a chunk now.
    Room,
    /// Later items will need chunks.
    Ahead,
}

impl Store {
    /// Frees dead items among the next `steps` chunks of a class. Says whether it found one.
    pub(super) fn reclaim(&mut self, class: ClassId, steps: u32) -> bool {
        let freed = self.sweep(class, steps, Purpose::Room);
        self.class_counters[class.index()].direct_reclaims += u64::from(freed > 0);
        freed > 0
    }

    /// Like [`Store::reclaim`], ahead of need. Gives the number of items freed.
    pub(super) fn reclaim_ahead(&mut self, class: ClassId, steps: u32) -> u64 {
        self.sweep(class, steps, Purpose::Ahead)
    }

    /// With a flat LRU, frees dead items at the tail of the list for an item of this size: up to [`PULLED`] items, and
    /// none behind a live one. memcached does this before it takes a chunk. The search skips `held` and pinned items.
    #[inline]
    pub fn pull_tail(&mut self, key_len: usize, client_flags: u32, value_len: usize, held: Option<ItemId>) {
        if !self.options.tuning.lru.segmented {
            self.pull(self.class_for(key_len, client_flags, value_len), held);
        }
    }

    #[inline(never)]
    fn pull(&mut self, class: ClassId, held: Option<ItemId>) {
        let mut next = self.lru.tail(class, Segment::Cold);
        for _ in 0..PULLED {
            let Some(id) = next else { return };
            let item = self.items.at(id);
            next = ItemId::from_raw(item.prev());
            if held == Some(id) || self.is_pinned(id) {
                continue;
            }
            if !self.is_dead_by(&item, self.now - 1) {
                return;
            }
            let unfetched = item.state() & FETCHED == 0;
            let counters = &mut self.class_counters[class.index()];
            counters.reclaimed += 1;
            counters.expired_unfetched += u64::from(unfetched);
            self.remove_by_id(id);
        }
    }

    /// Whether an item is flushed, or has expired by a count of the clock.
    #[inline]
    pub(super) fn is_dead_by(&self, item: &Item<'_>, count: u32) -> bool {
        item.exptime().wrapping_sub(1) < count
            || self.stamps.is_suspect(item.stamp()) && self.death_by_flush(item).is_some()
    }

    /// Frees dead items among the next `steps` chunks of a class, and gives their number. Ahead of need, an item at the
    /// tail of its list counts as reclaimed, and any other as found by the crawler: memcached's maintainer takes items
    /// at tails before its crawler reaches them.
    fn sweep(&mut self, class: ClassId, steps: u32, purpose: Purpose) -> u64 {
        let by = if purpose == Purpose::Ahead { self.now - 1 } else { self.now };
        let mut freed = 0;
        // After a flush all items are dead: their index buckets are fetched some items ahead.
        let mut ahead: [Option<(ItemId, u64)>; SWEPT_AHEAD] = [None; SWEPT_AHEAD];
        let scanned = self.slabs.scan(class, by, steps, &self.items).map(Some).chain([None; SWEPT_AHEAD]);
        for (at, id) in scanned.enumerate() {
            let next = id.and_then(|id| self.look_ahead(id, by));
            let Some((id, hash)) = std::mem::replace(&mut ahead[at % SWEPT_AHEAD], next) else { continue };
            let item = self.items.at(id);
            let crawled = purpose == Purpose::Ahead && item.next() != 0;
            let dead = self.is_dead_by(&item, by);
            let counters = &mut self.class_counters[class.index()];
            counters.crawler_items_checked += u64::from(crawled);
            if dead {
                counters.crawler_reclaimed += u64::from(crawled);
                counters.reclaimed += u64::from(!crawled);
                counters.expired_unfetched += u64::from(item.state() & FETCHED == 0);
                self.remove_by_hash(id, hash);
                freed += 1;
            } else {
                if item.exptime() != NEVER {
                    self.slabs.note_deadline(self.items.arena().page(id), item.exptime());
                }
                self.settle(id);
            }
        }
        freed
    }

    /// Says whether a chunk has an item in the cache. Fetches the index bucket of one that is dead, whose hash it gives.
    #[inline]
    fn look_ahead(&self, id: ItemId, by: u32) -> Option<(ItemId, u64)> {
        if self.items.chunk(id) != Chunk::Linked {
            return None;
        }
        let item = self.items.at(id);
        if !self.is_dead_by(&item, by) {
            return Some((id, 0));
        }
        let hash = self.hasher.hash(item.key());
        self.index.prefetch(hash);
        Some((id, hash))
    }
}
