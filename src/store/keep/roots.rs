//! The roots: what a server knows of its memory outside of the file, as the next server reads it.

use super::super::arena::{ArenaRoots, ItemId, PageId};
use super::super::budget::BudgetRoots;
use super::super::flushed::{Entry, PrefixRule};
use super::super::ghosts::{Ghosts, GhostsRoots};
use super::super::index::{Index, IndexRoots};
use super::super::item::{Chunk, Items};
use super::super::lru::{List, Segment};
use super::super::memfd::Memfd;
use super::super::moves::Sample;
use super::super::slab::{ClassId, SlabRoots, Slabs};
use super::super::stamps::Stamps;
use super::super::{Shared, Store};
use super::facts::Facts;
use super::refusal::Refusal;
use crate::clock::Now;
use crate::hash::Seeds;
use serde::{Deserialize, Serialize};
use std::io;

/// The roots of a server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Roots {
    pub(super) facts: Facts,
    pub(super) seeds: Seeds,
    pub(super) cas: bool,
    pub(super) prefixes: PrefixRule,
    pub(super) arena: ArenaRoots,
    pub(super) budget: BudgetRoots,
    pub(super) shards: Vec<ShardRoots>,
}

/// The roots of a shard. The fields have the meanings of those of [`Store`] with the same names.
///
/// Counters of events are not among them: those of a new server begin at 0, as after any start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ShardRoots {
    now: u32,
    flush_at: u32,
    last_cas: u64,
    bytes: u64,
    has_evicted: bool,
    evictions: u64,
    /// The share of newcomers.
    share: f64,
    /// By class: whether proven items had hits lately.
    have_hits: Vec<bool>,
    housekeeping_next: u8,
    stamps: Stamps,
    pub(super) flushed: Vec<(Vec<u8>, Entry)>,
    sweep: u32,
    sweeping: bool,
    dropped_at: u32,
    slabs: SlabRoots,
    pub(super) index: IndexRoots,
    ghosts: GhostsRoots,
    /// By class and segment.
    lists: Vec<[List; 4]>,
    /// By class: `mem_requested`.
    requested: Vec<u64>,
    /// By class, for the automover.
    samples: Vec<Sample>,
    sampled_at: u32,
    earned: f64,
    /// Sets since the last sample.
    sets: u64,
}

/// Impossible roots.
const IMPOSSIBLE: Refusal = Refusal::Damaged("its roots do not fit together");

impl Roots {
    /// The roots of these stores.
    ///
    /// # Errors
    /// If the memory of the stores is no file, or they cannot be brought to rest.
    pub(super) fn of(stores: &mut [&mut Store], facts: Facts) -> io::Result<Roots> {
        for store in &mut *stores {
            if store.items.arena().memfd().is_none() {
                return Err(io::Error::other("it belongs to this process alone"));
            }
            store.set_now(Now(facts.clock));
            if !store.come_to_rest() {
                return Err(io::Error::other("some of it belongs to no item"));
            }
        }
        let roots: Option<Vec<ShardRoots>> = stores.iter().map(|store| ShardRoots::of(store)).collect();
        let shards = roots.ok_or_else(|| io::Error::other("it belongs to this process alone"))?;
        let first = &stores[0];
        Ok(Roots {
            facts,
            seeds: first.hasher.seeds(),
            cas: first.options.cas,
            prefixes: first.options.prefixes,
            arena: first.items.arena().roots(),
            budget: first.budget.roots(),
            shards,
        })
    }

    /// Checks that every page that was ever in use has one owner.
    pub(super) fn check_pages(&self, reserved: u32) -> Result<(), Refusal> {
        let BudgetRoots { held, free, fresh, .. } = &self.budget;
        let of_shards = self.shards.iter().map(|shard| shard.slabs.pages.len() as u64);
        if self.shards.is_empty() || !of_shards.eq(held.iter().map(|&held| u64::from(held))) {
            return Err(IMPOSSIBLE);
        }
        let owned = self.shards.iter().flat_map(|shard| shard.slabs.pages.iter().map(|(id, _)| id));
        let mut pages: Vec<u32> = owned.chain(free).map(|&PageId(page)| page).collect();
        pages.sort_unstable();
        if u64::from(*fresh) > u64::from(reserved) + 1 || !pages.into_iter().eq(1..*fresh) {
            return Err(IMPOSSIBLE);
        }
        Ok(())
    }
}

impl ShardRoots {
    /// The roots of a store at rest; `None`: its memory is no file.
    fn of(store: &Store) -> Option<ShardRoots> {
        let mut flushed: Vec<(Vec<u8>, Entry)> =
            store.flushed.entries.iter().map(|(prefix, &entry)| (prefix.to_vec(), entry)).collect();
        flushed.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Some(ShardRoots {
            now: store.now,
            flush_at: store.flush_at,
            last_cas: store.last_cas,
            bytes: store.bytes,
            has_evicted: store.has_evicted,
            evictions: store.evictions,
            share: store.newcomers.share(),
            have_hits: (0..store.class_hits.len())
                .map(|class| store.newcomers.has_hits(class, store.class_hits[class][Segment::Warm as usize]))
                .collect(),
            housekeeping_next: store.housekeeping_next,
            stamps: store.stamps,
            flushed,
            sweep: store.flushed.sweep,
            sweeping: store.flushed.sweeping,
            dropped_at: store.flushed.dropped_at,
            slabs: store.slabs.roots(),
            index: store.index.roots()?,
            ghosts: store.ghosts.roots()?,
            lists: store.lru.roots().to_vec(),
            requested: store.class_counters.iter().map(|counters| counters.mem_requested).collect(),
            samples: store.automover.samples.clone(),
            sampled_at: store.automover.sampled_at,
            earned: store.automover.earned,
            sets: store.counters.total_items.saturating_sub(store.automover.sets),
        })
    }

    /// The chunk sizes of the classes.
    pub(super) fn chunk_sizes(&self) -> Vec<u32> {
        self.slabs.classes.iter().skip(1).map(|class| class.size).collect()
    }

    /// The store of these roots.
    pub(super) fn attach(self, number: usize, memfd: &Memfd, shared: Shared) -> Result<Store, Refusal> {
        let sizes = self.chunk_sizes();
        let classes = sizes.len() + 1;
        let counts = [self.lists.len(), self.requested.len(), self.samples.len()];
        if sizes.is_empty() || classes > usize::from(u8::MAX) || counts.iter().any(|&count| count != classes) {
            return Err(IMPOSSIBLE);
        }
        if sizes.contains(&0) || !self.stamps.is_sound() {
            return Err(IMPOSSIBLE);
        }
        let slabs = Slabs::new(number, &sizes, shared.items.arena().page_size());
        let slabs = slabs.attach(self.slabs, &shared.items).ok_or(IMPOSSIBLE)?;
        let index = Index::attach(memfd, &self.index)?;
        let ghosts = Ghosts::attach(memfd, &self.ghosts)?;
        check_lists(&self.lists, index.len(), &slabs, &shared.items)?;
        let mut store = Store::with(slabs, index, ghosts, shared);
        for (class, lists) in self.lists.into_iter().enumerate().skip(1) {
            for (segment, list) in Segment::ALL.into_iter().zip(lists) {
                store.lru.adopt(ClassId(class as u8), segment, list);
            }
        }
        store.now = self.now;
        store.due_until = self.now;
        store.flush_at = self.flush_at;
        store.last_cas = self.last_cas;
        store.bytes = self.bytes;
        store.has_evicted = self.has_evicted;
        store.evictions = self.evictions;
        store.newcomers.resume(self.share, &self.have_hits);
        store.housekeeping_next = self.housekeeping_next.clamp(1, classes as u8 - 1);
        store.stamps = self.stamps;
        for (prefix, entry) in self.flushed {
            store.flushed.put(&prefix, entry);
        }
        store.flushed.sweep = self.sweep;
        store.flushed.sweeping = self.sweeping;
        store.flushed.dropped_at = self.dropped_at;
        for (counters, requested) in store.class_counters.iter_mut().zip(self.requested) {
            counters.mem_requested = requested;
        }
        store.counters.total_items = store.index.len() as u64;
        // As `Store::come_to_rest` has left it.
        store.total_items_flushed = u64::MAX;
        store.automover.samples = self.samples.into_iter().map(|sample| Sample { evicted: 0, ..sample }).collect();
        store.automover.sampled_at = self.sampled_at;
        store.automover.earned = self.earned.max(0.0);
        store.automover.sets = store.counters.total_items.saturating_sub(self.sets);
        Ok(store)
    }
}

/// Checks that the lists begin and end with items of their classes, and that together they have as many as the index.
fn check_lists(lists: &[[List; 4]], count: usize, slabs: &Slabs, items: &Items) -> Result<(), Refusal> {
    let mut listed = 0;
    for (class, lists) in lists.iter().enumerate() {
        let class = ClassId(class as u8);
        let is_item =
            |id: ItemId| class.0 != 0 && slabs.is_chunk_of(class, id, items) && items.chunk(id) == Chunk::Linked;
        if !lists.iter().all(|list| list.is_sound(is_item)) {
            return Err(IMPOSSIBLE);
        }
        listed += lists.iter().map(|list| list.count as usize).sum::<usize>();
    }
    if listed == count { Ok(()) } else { Err(IMPOSSIBLE) }
}
