//! Evictions: an item leaves the cache before its time, and is counted, and noted for whoever watches.

use super::Store;
use super::arena::ItemId;
use super::item::{ACTIVE, FETCHED};
use super::slab::ClassId;
use crate::clock::NEVER;
use std::cmp::Reverse;

/// A live item that made room for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Its key.
    pub key: Box<[u8]>,
    /// It was fetched since it was stored.
    pub fetched: bool,
    /// Seconds it would have lived on; none: for ever.
    pub ttl: Option<u32>,
    /// Seconds since it was last accessed.
    pub idle_seconds: u32,
    /// Its class.
    pub class: ClassId,
    /// Bytes of its value.
    pub value_len: usize,
}

impl Store {
    /// From now on evictions are noted, or not any more.
    pub fn note_evictions(&mut self, notes: bool) {
        self.notes = notes;
    }

    /// The evictions that were noted since this was last asked, and how many more there were.
    pub fn take_noted(&mut self) -> (Vec<Evicted>, u64) {
        (std::mem::take(&mut self.noted), std::mem::take(&mut self.unnoted))
    }

    /// Evicts of the items that share a full chain of the index the one that has not been asked for the longest, or one
    /// that is dead. Also with `-M`: only keys that were chosen to be in one chain come here, and they are not to make
    /// the requests of all others slow.
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

    /// As [`Store::evict_item`], where there is no other memory for what is to be stored or moved.
    #[inline]
    pub(super) fn evict_for_room(&mut self, id: ItemId, class: ClassId) {
        #[cfg(test)]
        if self.death(&self.items.at(id)).is_none() {
            self.assert_that_eviction_is_needed(class);
        }
        self.evict_item(id, class);
    }

    /// Evicts an item, or reclaims it if it is dead.
    pub(super) fn evict_item(&mut self, id: ItemId, class: ClassId) {
        let item = self.items.at(id);
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
        }
        self.remove_by_id(id);
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
