//! How a store behaves.

use super::slab::SlabOptions;

/// How a store behaves. See `Config` for the flags.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Sizes of chunks.
    pub slabs: SlabOptions,
    /// Keep CAS values (no `-C`).
    pub cas: bool,
    /// Evict when memory is used up (no `-M`).
    pub evict: bool,
    /// Log2 of the number of index slots to begin with.
    pub hash_power: u32,
    /// Share of a class that may be HOT, in percent.
    pub hot_percent: u32,
    /// Share of a class that may be WARM, in percent.
    pub warm_percent: u32,
    /// An item of HOT moves on when it is older than this many times the age of COLD's tail.
    pub hot_max_factor: f64,
    /// As `hot_max_factor`, for WARM.
    pub warm_max_factor: f64,
    /// HOT, WARM, COLD and TEMP (`lru mode segmented`), or one list for all: COLD, where a hit saves from the next
    /// eviction.
    pub segmented: bool,
    /// Settle the segments between turns (`-o lru_maintainer`); without it only evictions do.
    pub maintain: bool,
    /// Take pages from one class for another (`-o slab_reassign`).
    pub reassign: bool,
    /// `-o slab_automove`: 0 off, 1 by a window of samples, 2 on every eviction.
    pub automove: u8,
    /// `-o slab_automove_ratio`: a class is given pages as long as its items idle less than this share of the donor's.
    pub automove_ratio: f64,
    /// `-o slab_automove_window`, in seconds.
    pub automove_window: u32,
    /// `-o slab_automove_freeratio`: share of all pages that is kept free for whichever class needs one.
    pub automove_free_ratio: f64,
    /// Items that live at most this many seconds go to TEMP.
    pub temporary_ttl: Option<u32>,
    /// Evictions noted at most by one operation that is watched.
    pub evictions_noted_max: usize,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            slabs: SlabOptions::default(),
            cas: true,
            evict: true,
            hash_power: 16,
            hot_percent: 20,
            warm_percent: 40,
            hot_max_factor: 0.2,
            warm_max_factor: 2.0,
            segmented: true,
            maintain: true,
            reassign: true,
            automove: 1,
            automove_ratio: 0.8,
            automove_window: 10,
            automove_free_ratio: 0.0,
            temporary_ttl: None,
            evictions_noted_max: 1024,
        }
    }
}
