//! Evictions. The store removes an item, counts it, and notes it if a client watches evictions.
//!
//! The [`policy`](super::policy) chooses the items.

use super::arena::ItemId;
use super::item::{ACTIVE, FETCHED};
use super::slab::ClassId;
use super::{Evicted, Store};
use crate::clock::NEVER;
use std::cmp::Reverse;

impl Store {
    /// Begins to note evictions, or stops it.
    pub fn note_evictions(&mut self, notes: bool) {
        self.notes = notes;
    }

    /// Takes the evictions noted since the last call, and the number of those that were not noted.
    pub fn take_noted(&mut self) -> (Vec<Evicted>, u64) {
        (std::mem::take(&mut self.noted), std::mem::take(&mut self.unnoted))
    }

    /// Evicts one of the items in a full chain of the index: a dead one, or the one that has idled longest. It does so
    /// with `-M` as well: only keys chosen for their hash fill a chain, and they must not slow down other clients.
    #[cold]
    pub(super) fn evict_of_chain(&mut self, hash: u64) {
        let rank = |id: &ItemId| (self.death(&self.items.at(*id)).is_none(), Reverse(self.idle_seconds(*id)));
        let victim = self.index.chain(hash).into_iter().min_by_key(rank).expect("a full chain has entries");
        let class = self.class_of(victim);
        let before = self.class_counters[class.index()].evicted;
        self.evict_item(victim, class);
        let counters = &mut self.class_counters[class.index()];
        counters.evicted_by_chains += counters.evicted - before;
    }

    /// Like [`Store::evict_item`], for an eviction that makes room because the store has no other memory.
    #[inline]
    pub(super) fn evict_for_room(&mut self, id: ItemId, class: ClassId) {
        if cfg!(test) && self.death(&self.items.at(id)).is_none() {
            self.assert_that_eviction_is_needed(class);
        }
        self.evict_item(id, class);
    }

    /// Tests check with every eviction that the store could not do without it.
    #[cfg(not(test))]
    #[inline(always)]
    pub(super) fn assert_that_eviction_is_needed(&self, _: ClassId) {}

    /// Removes an item and counts it: as evicted, or as reclaimed if it was dead.
    pub(super) fn evict_item(&mut self, id: ItemId, class: ClassId) {
        let item = self.items.at(id);
        let hash = self.hasher.hash(item.key());
        let dead = self.death(&item).is_some();
        let idle_seconds = self.idle_seconds(id);
        let counters = &mut self.class_counters[class.index()];
        let unfetched = item.state() & FETCHED == 0;
        if dead {
            counters.reclaimed += 1;
            counters.expired_unfetched += u64::from(unfetched);
        } else {
            counters.evicted += 1;
            counters.evicted_nonzero += u64::from(item.exptime() != NEVER);
            counters.evicted_unfetched += u64::from(unfetched);
            counters.evicted_active += u64::from(item.state() & ACTIVE != 0);
            self.evicted_age[class.index()] = idle_seconds;
            if self.notes {
                self.note_eviction(id, class);
            }
            self.leave_ghost(id, hash);
        }
        self.remove_by_hash(id, hash);
    }

    #[cold]
    fn note_eviction(&mut self, id: ItemId, class: ClassId) {
        if self.noted.len() >= self.options.evictions_noted_max {
            self.unnoted += 1;
            return;
        }
        let item = self.items.at(id);
        self.noted.push(Evicted {
            key: item.key().into(),
            fetched: item.state() & FETCHED != 0,
            ttl: (item.exptime() != NEVER).then(|| item.exptime() - self.now),
            idle_seconds: self.idle_seconds(id),
            class,
            value_len: item.value_len(),
        });
    }
}
