//! The shard of the cache that a lease guards.

use super::big_keys::BigKeys;
use super::prefixes::Prefixes;
use crate::protocol::Limits;
use crate::store::Store;
use crate::store::arena::ItemId;
use crate::store::item::{STALE, WON};
use crate::ttl::{TtlRules, allows_early_miss};
use std::sync::Arc;

/// One shard of the cache. A lease guards it.
#[derive(Debug)]
pub struct Shard {
    /// The number of the shard.
    pub number: u16,
    /// The items of the shard.
    pub store: Store,
    /// The limits of items. The parser has the same ones.
    pub limits: Limits,
    /// The keys of the largest values.
    pub big_keys: BigKeys,
    /// The counts by key prefix. None until `stats detail` is on for the first time.
    pub prefixes: Option<Prefixes>,
    /// The rules for the time to live of items (`--ttl`).
    ttl: Option<Arc<TtlRules>>,
}

impl Shard {
    /// A shard that counts by no prefix, and has no rules for the time to live.
    pub fn new(number: u16, store: Store, limits: Limits) -> Shard {
        Shard { number, store, limits, big_keys: BigKeys::default(), prefixes: None, ttl: None }
    }

    /// Makes the shard obey rules for the time to live of items that are stored or touched from now on.
    pub fn set_ttl_rules(&mut self, rules: Arc<TtlRules>) {
        self.store.set_due_seconds(rules.early_seconds_max());
        self.ttl = Some(rules);
    }

    /// The rules for the time to live.
    #[inline]
    pub(super) fn ttl_rules(&self) -> Option<&TtlRules> {
        self.ttl.as_deref()
    }

    /// Whether a fetch of an item that is due gets an early miss (`--ttl early=`). If so, it counts the miss in
    /// `get_early`, and no other fetch gets one until the item is stored or touched.
    ///
    /// The mark `WON` remembers the miss. A client of the meta commands that has received `W` therefore counts as well:
    /// it is already storing the value anew. A stale item gets no early miss, since the first `mg` gets its `W`.
    #[cold]
    #[inline(never)]
    pub(super) fn takes_early_miss(&mut self, key: &[u8], id: ItemId) -> bool {
        let Some(rules) = &self.ttl else { return false };
        let item = self.store.item(id);
        let left = item.exptime().saturating_sub(self.store.now().0);
        let is_early = (2..=rules.early_seconds(key)).contains(&left) && allows_early_miss(item.exptime());
        if !is_early || item.state() & (STALE | WON) != 0 {
            return false;
        }
        item.change_state(WON, 0);
        self.store.counters.get_early += 1;
        true
    }

    /// Counts a fetch for `stats detail`, and a hit if it is one.
    #[inline]
    pub(super) fn count_get(&mut self, key: &[u8], hit: bool) {
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.count_get(key, hit);
        }
    }

    /// Counts a storage command for `stats detail`, whether it succeeds or fails.
    #[inline]
    pub(super) fn count_set(&mut self, key: &[u8]) {
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.count_set(key);
        }
    }

    /// Counts a delete command for `stats detail`.
    #[inline]
    pub(super) fn count_delete(&mut self, key: &[u8]) {
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.count_delete(key);
        }
    }

    /// Gives an item another deadline. If a rule has early misses for its key, the item may get one before the new
    /// deadline, too.
    #[inline]
    pub(super) fn set_deadline(&mut self, id: ItemId, key: &[u8], deadline: u32) {
        self.store.set_deadline(id, deadline);
        if let Some(rules) = &self.ttl {
            let item = self.store.item(id);
            if item.state() & (STALE | WON) == WON && rules.early_seconds(key) != 0 {
                item.change_state(0, WON);
            }
        }
    }

    /// Gives an item another deadline because a client touches it.
    #[inline]
    pub(super) fn touch(&mut self, id: ItemId, key: &[u8], deadline: u32) {
        self.set_deadline(id, key, deadline);
        self.store.bump(id);
        self.store.counters_of(id).touch_hits += 1;
    }
}
