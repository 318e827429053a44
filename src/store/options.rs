//! Options of a store.

use super::flushed::PrefixRule;
use super::slab::SlabOptions;
use super::tuning::Tuning;

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
    /// Move items between segments between turns (`-o lru_maintainer`). Otherwise only evictions move them.
    pub maintain: bool,
    /// Move pages from one class to another (`-o slab_reassign`).
    pub reassign: bool,
    /// The prefixes that can be flushed.
    pub prefixes: PrefixRule,
    /// Settings that commands change.
    pub tuning: Tuning,
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
            maintain: true,
            reassign: true,
            prefixes: PrefixRule::default(),
            tuning: Tuning::default(),
            evictions_noted_max: 1024,
        }
    }
}
