//! The memory of a server with these flags: shards, pages, options.

use crate::clock::Clock;
use crate::config::Config;
use crate::exit::Exit;
use crate::hash::KeyHasher;
use crate::protocol::Limits;
use crate::store::arena::{Arena, PAGE_SIZE_MAX, page_size};
use crate::store::budget::Budget;
use crate::store::flushed::PrefixRule;
use crate::store::item::Items;
use crate::store::keep::Wanted;
use crate::store::memfd::Memfd;
use crate::store::slab::SlabOptions;
use crate::store::{Store, StoreOptions};
use std::io;
use std::sync::Arc;

/// The least memory for each shard, in bytes. With less memory the server has fewer shards than workers: each shard has
/// pages for all slab classes in use, and evicts by itself.
const BYTES_PER_SHARD_MIN: u64 = 64 << 20;
/// The least number of items of the largest size that a shard has memory for.
const ITEMS_PER_SHARD_MIN: u64 = 64;

/// With `-o slab_sizes`, pages are so many times as large: chunks of given sizes leave a rest at the end of each page.
const GIVEN_SIZES: usize = 16;

/// With `-k`, `cache_memlimit` may raise the limit to this many times `-m`.
const LOCKED_REACH: usize = 4;

/// The number of shards.
pub(super) fn shard_count(config: &Config) -> usize {
    if config.workers.port_per_core {
        return config.workers.threads;
    }
    let by_memory = config.memory.limit_bytes / BYTES_PER_SHARD_MIN;
    let by_item = config.memory.limit_bytes / (ITEMS_PER_SHARD_MIN * config.memory.item_size_max);
    (config.workers.threads as u64).min(by_memory).min(by_item).max(1) as usize
}

/// The number of ports that an image of the cache belongs to: 0 without `--port-per-core`, where keys are spread by hash.
pub(super) fn image_ports(config: &Config) -> u32 {
    if config.workers.port_per_core { shard_count(config) as u32 } else { 0 }
}

/// The limits of an item.
pub(super) fn item_limits(config: &Config) -> Limits {
    Limits {
        item_size_max: config.memory.item_size_max as u32,
        cas: config.memory.cas_enabled,
        inline_max: config.workers.inline_value_max as u32,
    }
}

fn store_options(config: &Config, shards: usize) -> StoreOptions {
    StoreOptions {
        slabs: SlabOptions {
            growth_factor: config.memory.growth_factor,
            size_min: config.memory.chunk_size_min as usize,
            chunk_max: config.memory.chunk_max_bytes as usize,
            sizes: config.memory.slab_sizes.clone(),
        },
        cas: config.memory.cas_enabled,
        evict: config.memory.evictions,
        hash_power: config.memory.hash_power.unwrap_or(16).saturating_sub(shards.ilog2()),
        maintain: config.memory.lru_maintainer,
        reassign: config.memory.slab_reassign,
        prefixes: PrefixRule { delimiter: config.detail.delimiter, parts_max: config.measuring.prefix_depth },
        tuning: config.tuning,
        evictions_noted_max: config.watch.evictions_max,
    }
}

/// The least memory of the index beyond `-m`, in bytes.
const INDEX_BYTES_MIN: u64 = 1 << 20;
/// The program, its stacks, and a few hundred connections, in bytes.
const PROGRAM_BYTES: u64 = 12 << 20;

/// The memory of a server whose cache is full, in bytes: that of items, of the index beyond them, and of buffers. Replies
/// that clients do not take come on top of it.
fn full_bytes(config: &Config) -> u64 {
    let items = config.memory.limit_bytes;
    let lent = items / 100 * u64::from(config.memory.credit_percent);
    let index = (items / 64).max(INDEX_BYTES_MIN);
    let buffers = (config.workers.threads * config.workers.read_buffer_bytes) as u64;
    items + lent + index + buffers + PROGRAM_BYTES
}

/// A line if the memory limit of the cgroup is too low for a full cache.
pub(super) fn cgroup_warning(config: &Config, limit: Option<u64>) -> Option<String> {
    let (needed, limit) = (full_bytes(config), limit?);
    let beyond = needed - config.memory.limit_bytes;
    (needed > limit).then(|| {
        format!(
            "-m {}: a full cache takes {} MiB with its index and buffers, but the memory limit of the cgroup is {} MiB: \
             the kernel will slow the server down or kill it (-m {} fits, or a higher limit)",
            config.memory.limit_bytes >> 20,
            needed.div_ceil(1 << 20),
            limit >> 20,
            limit.saturating_sub(beyond) >> 20,
        )
    })
}

/// The stores of a server, and the values that they share.
pub(super) struct Memory {
    pub(super) stores: Vec<Store>,
    pub(super) items: Items,
    pub(super) budget: Arc<Budget>,
}

fn page_size_of(config: &Config) -> usize {
    let given = config.memory.slab_sizes.is_some();
    (page_size(config.memory.limit_bytes) * if given { GIVEN_SIZES } else { 1 }).min(PAGE_SIZE_MAX)
}

/// Bytes of address space for items. The system counts all of it as locked memory, which may have a limit.
fn reach(config: &Config) -> usize {
    if config.memory.locked { LOCKED_REACH * config.memory.limit_bytes as usize } else { usize::MAX }
}

/// Passes on what these flags ask for.
pub(super) fn wanted<T>(config: &Config, shards: usize, then: impl FnOnce(Wanted<'_>) -> T) -> T {
    then(Wanted {
        options: &store_options(config, shards),
        shards,
        limit_bytes: config.memory.limit_bytes,
        page_size: page_size_of(config),
        // A few pages more than `-m` may be needed.
        reach: reach(config).saturating_add(PAGE_SIZE_MAX),
        item_size_max: config.memory.item_size_max,
    })
}

/// Makes empty stores. Each has an index for its share of `items_expected`.
pub(super) fn memory(config: &Config, shards: usize, hasher: &KeyHasher, items_expected: u64) -> Result<Memory, Exit> {
    let no_memory = |error| Exit::system("failed to reserve memory", error);
    let page_size = page_size_of(config);
    let pages = (config.memory.limit_bytes / page_size as u64) as u32;
    let arena = if config.memory.keep {
        let memfd = Memfd::create().map_err(|error| Exit::system("--keep-memory: memfd_create()", error))?;
        Arena::reserve_in(Arc::new(memfd), reach(config), pages, page_size)
    } else {
        Arena::reserve_up_to(reach(config), pages, page_size)
    };
    let arena = Arc::new(arena.map_err(no_memory)?);
    if config.memory.large_pages {
        arena.commit(pages).map_err(no_memory)?;
    }
    let budget = Arc::new(Budget::new(pages, shards, &arena).lending(config.memory.credit_percent));
    let items = Items::new(arena, config.memory.cas_enabled);
    let mut options = store_options(config, shards);
    options.hash_power = options.hash_power.max(Store::hash_power_for(items_expected / shards as u64));
    let store = |number| Store::new(number, options.clone(), items.clone(), Arc::clone(&budget), hasher.clone());
    let stores = (0..shards).map(store).collect::<io::Result<_>>().map_err(no_memory)?;
    Ok(Memory { stores, items, budget })
}

/// Whether the server starts with the items of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Warmth {
    Cold,
    Warm,
}

/// What the server starts with.
pub(super) struct Begun {
    pub(super) memory: Memory,
    pub(super) clock: Clock,
    pub(super) hasher: KeyHasher,
    pub(super) warmth: Warmth,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_a_full_cache_exceeds_is_reported() {
        let mut config = Config::default();
        config.memory.limit_bytes = 1000 << 20;
        config.workers.threads = 4;
        // 20 MiB are lent to classes, 15.6 are the index, 0.25 buffers, and 12 the rest.
        assert_eq!(full_bytes(&config) >> 20, 1047);
        assert_eq!(cgroup_warning(&config, None), None);
        assert_eq!(cgroup_warning(&config, Some(1048 << 20)), None);
        let line = cgroup_warning(&config, Some(1040 << 20)).expect("too little");
        assert!(line.starts_with("-m 1000: a full cache takes 1048 MiB") && line.contains("is 1040 MiB"), "{line}");
        assert!(line.contains("(-m 992 fits"), "{line}");
        assert!(cgroup_warning(&config, Some(1 << 20)).is_some_and(|line| line.contains("(-m 0 fits")));
    }
}
