//! What a store does for copies of its items: see `copies.rs`.

use super::Store;
use super::arena::ItemId;
use super::copies::Validity;
use super::item::{KEY_BINARY, STALE, WON};
use super::lru::Segment;
use super::slab::ClassId;
use crate::clock::NEVER;

impl Store {
    /// Whoever copies the live item that was just found under this hash may use the copy as long as this holds. None: the
    /// next fetch may change the item, or its reply would not be the same for all.
    pub fn validity(&mut self, hash: u64, id: ItemId) -> Option<Validity> {
        let item = self.items.at(id);
        if item.state() & (STALE | WON | KEY_BINARY) != 0 {
            return None;
        }
        // From here on the item is due, and later it is dead.
        let until = if item.exptime() == NEVER { u32::MAX } else { item.exptime().saturating_sub(self.due_seconds) };
        let until = if self.flush_at == 0 { until } else { until.min(self.flush_at) };
        Some(self.copies.rely_on(hash, until))
    }

    /// Whether there may be copies that hold.
    #[inline(always)]
    pub fn is_copied(&self) -> bool {
        self.copies.are_relied_on()
    }

    /// The item with this hash is about to change, if there is one: copies of it do not hold any more.
    #[inline(always)]
    pub fn end_copies_of(&mut self, hash: u64) {
        if self.is_copied() {
            self.copies.end_of(hash);
        }
    }

    /// No copy of any item holds any more.
    #[inline]
    pub fn end_copies(&mut self) {
        if self.is_copied() {
            self.copies.end(u64::MAX);
        }
    }

    /// The same for an item that leaves the cache.
    #[inline(always)]
    pub(super) fn end_copies_of_item(&mut self, id: ItemId) {
        if self.is_copied() {
            let hash = self.hasher.hash(self.items.at(id).key());
            self.end_copies_of(hash);
        }
    }

    /// Counts hits that a copy of an item has had, and renews the age of the item if it is still the one that was copied.
    /// `class` was its class then, and counts the hits otherwise.
    pub fn count_copied_hits(&mut self, hash: u64, key: &[u8], (class, validity): &(ClassId, Validity), count: u64) {
        let copied = self.peek(hash, key).ok().filter(|_| validity.holds(self.now()));
        let (class, segment) = copied.map_or((*class, Segment::Hot), |id| {
            self.bump(id);
            (self.class_of(id), Segment::of(self.items.at(id).state()))
        });
        self.class_hits[class.index()][segment as usize] += count;
    }
}
