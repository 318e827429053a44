//! The shard of the cache that a lease guards.

use super::big_keys::BigKeys;
use super::prefixes::Prefixes;
use crate::protocol::Limits;
use crate::store::Store;
use crate::store::arena::ItemId;

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
}

impl Shard {
    /// A shard that counts by no prefix.
    pub fn new(number: u16, store: Store, limits: Limits) -> Shard {
        Shard { number, store, limits, big_keys: BigKeys::default(), prefixes: None }
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

    /// Gives an item a deadline because a client touches it.
    #[inline]
    pub(super) fn touch(&mut self, id: ItemId, deadline: u32) {
        self.store.set_deadline(id, deadline);
        self.store.bump(id);
        self.store.counters_of(id).touch_hits += 1;
    }
}
