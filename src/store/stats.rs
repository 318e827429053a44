//! Counters of a shard. They are plain numbers: only the holder of the lease changes them, and `stats` copies them.
//! Their names are those in `stats`, `stats items` and `stats slabs`.

#![allow(missing_docs, reason = "the fields have the names of memcached's statistics, which its protocol.txt explains")]

use std::ops::AddAssign;

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($field:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name { $(pub $field: u64),* }

        impl AddAssign<&$name> for $name {
            fn add_assign(&mut self, other: &$name) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

counters! {
    /// What a shard counts for all its classes together.
    Counters {
        cmd_touch, cmd_meta, get_misses, get_expired, get_flushed, get_prefix_flushed, get_early, touch_misses,
        delete_misses, incr_misses, decr_misses,
        cas_misses, store_too_large, store_no_memory, total_items,
        slabs_moved, juggles, reassign_rescues, reassign_chunk_rescues, reassign_inline_reclaim, reassign_busy_items,
        reassign_busy_deletes, reassign_busy_nomem,
    }
}

counters! {
    /// What a shard counts for each slab class.
    ClassCounters {
        hits_to_hot, hits_to_warm, hits_to_cold, hits_to_temp,
        cmd_set, delete_hits, incr_hits, decr_hits, cas_hits, cas_badval, touch_hits,
        evicted, evicted_nonzero, outofmemory, reclaimed, expired_unfetched, evicted_unfetched, evicted_active,
        crawler_reclaimed, crawler_items_checked, moves_to_cold, moves_to_warm, moves_within_lru, direct_reclaims,
        mem_requested, evicted_by_moves, evicted_by_chains,
    }
}

impl ClassCounters {
    /// Hits of commands that fetch, without those that only touch.
    pub fn get_hits(&self) -> u64 {
        self.hits_to_hot + self.hits_to_warm + self.hits_to_cold + self.hits_to_temp
    }
}
