//! Options of a store.

use super::slab::SlabOptions;

/// Options of a store. `--help` explains the flags.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The chunk sizes.
    pub slabs: SlabOptions,
    /// Keep CAS values (no `-C`).
    pub cas: bool,
    /// Evict items if memory is full (no `-M`).
    pub evict: bool,
    /// Log2 of the number of index slots at the start.
    pub hash_power: u32,
    /// The share of a class that may be HOT, in percent.
    pub hot_percent: u32,
    /// The share of a class that may be WARM, in percent.
    pub warm_percent: u32,
    /// An item leaves HOT when it has idled longer than this many times the tail of COLD.
    pub hot_max_factor: f64,
    /// Like `hot_max_factor`, for WARM.
    pub warm_max_factor: f64,
    /// Use HOT, WARM, COLD and TEMP (`lru mode segmented`). Otherwise COLD is the only list, and a hit saves an item
    /// from the next eviction.
    pub segmented: bool,
    /// Move items between segments between turns (`-o lru_maintainer`). Otherwise only evictions move them.
    pub maintain: bool,
    /// Move pages from one class to another (`-o slab_reassign`).
    pub reassign: bool,
    /// `-o slab_automove`: 0 is off; 1 decides by a window of samples, 2 by every eviction.
    pub automove: u8,
    /// `-o slab_automove_ratio`: a class gets pages while its items idle less than this share of the time that those of
    /// the donor idle.
    pub automove_ratio: f64,
    /// `-o slab_automove_window`, in seconds.
    pub automove_window: u32,
    /// `-o slab_automove_freeratio`: the share of all pages that is kept free for any class.
    pub automove_free_ratio: f64,
    /// Items with at most this many seconds to live enter TEMP.
    pub temporary_ttl: Option<u32>,
    /// The evictions that one watched operation notes at most.
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
