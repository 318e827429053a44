//! The numbers of a shard that `stats` shows.

use super::Store;
use super::lru::Segment;
use super::moves::Busy;
use super::slab::{ClassId, ClassUse};
use super::stats::{ClassCounters, Counters};

/// The numbers of a shard.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "memcached's names")]
pub struct Snapshot {
    pub counters: Counters,
    pub classes: Vec<ClassSnapshot>,
    pub curr_items: u64,
    pub bytes: u64,
    /// Bytes of the index and of the record of evicted keys.
    pub hash_bytes: u64,
    pub hash_power: u32,
    pub hash_is_expanding: bool,
    pub reassign_is_running: bool,
    pub reassign_last_busy: Busy,
}

/// The numbers of a slab class.
#[derive(Clone, Copy, Debug)]
pub struct ClassSnapshot {
    pub id: ClassId,
    pub usage: ClassUse,
    pub counters: ClassCounters,
    /// By segment: its items.
    pub counts: [u64; 4],
    /// By segment: seconds that its tail has idled.
    pub ages: [u32; 4],
    /// Seconds that the item evicted last had idled.
    pub evicted_age: u32,
}

impl Store {
    /// Copies the numbers for `stats`.
    pub fn snapshot(&self) -> Snapshot {
        let class = |id: ClassId| ClassSnapshot {
            id,
            usage: self.slabs.usage(id),
            counters: self.counters_with_hits(id),
            counts: Segment::ALL.map(|segment| u64::from(self.lru.count(id, segment))),
            ages: Segment::ALL.map(|segment| self.tail_age(id, segment)),
            evicted_age: self.evicted_age[id.index()],
        };
        Snapshot {
            counters: self.counters,
            classes: self.slabs.ids().map(class).collect(),
            curr_items: self.index.len() as u64,
            bytes: self.bytes,
            hash_bytes: self.index_bytes() as u64,
            hash_power: self.index.power(),
            hash_is_expanding: self.index.is_growing(),
            reassign_is_running: self.mover.is_running(),
            reassign_last_busy: self.mover.last_busy,
        }
    }

    fn counters_with_hits(&self, class: ClassId) -> ClassCounters {
        let [hits_to_hot, hits_to_warm, hits_to_cold, hits_to_temp] = self.class_hits[class.index()];
        let counters = self.class_counters[class.index()];
        ClassCounters { hits_to_hot, hits_to_warm, hits_to_cold, hits_to_temp, ..counters }
    }

    /// Bytes of the index, and of what the store remembers of evicted keys.
    pub(super) fn index_bytes(&self) -> usize {
        self.index.bytes() + self.ghosts.bytes()
    }

    /// `stats reset`: resets all counters of events. Counters of present state, such as memory in use, stay.
    pub fn reset_counters(&mut self) {
        self.counters = Counters::default();
        for counters in &mut self.class_counters {
            *counters = ClassCounters { mem_requested: counters.mem_requested, ..ClassCounters::default() };
        }
        self.class_hits.fill([0; 4]);
        // The number of items stored since the last flush is not known any more. Some may be there.
        self.total_items_flushed = u64::MAX;
        self.evicted_age.fill(0);
    }
}
