//! The store of a shard. It finds items by hash, keeps them in slab classes, and ages them in a segmented LRU.
//!
//! The code is single-threaded. It knows neither sockets nor the protocol. It reads no clock: its holder tells it the
//! time ([`Store::set_now`]). The only lock that it takes is that of the page budget, once for each page.
//!
//! These invariants hold between calls:
//! - An item is in the index exactly when it is in one LRU list, the list of its class and of the segment in its state.
//! - A floating item is in neither: a client is sending it, or it was unlinked while it was pinned.
//! - The store never gives out an item that has expired or was stored before the last flush.
//!
//! The store evicts an item only if two conditions hold. The class of the item has no free chunk, except on a page that
//! is about to leave it. And the shard can get no page: the budget has none for it, and no other class has an empty
//! one. Moves of pages keep this rule as well ([`rebalance`]).

#![allow(missing_docs, reason = "a name that says everything needs no comment")]

pub mod arena;
mod automove;
mod bucket;
pub mod budget;
pub mod copies;
mod copying;
mod eviction;
pub mod expiry;
mod flush;
mod flush_prefix;
pub mod flushed;
pub mod gather;
mod ghosts;
mod housekeeping;
pub mod image;
mod index;
pub mod item;
pub mod keep;
pub mod lru;
pub mod memfd;
pub mod moves;
mod newcomers;
mod options;
mod pins;
mod policy;
pub mod rebalance;
mod room;
pub mod slab;
mod snapshot;
mod stamps;
pub mod stats;
mod tuning;
pub mod walk;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(any(test, fuzzing))]
mod validate;

use crate::clock::{NEVER, Now};
use crate::hash::KeyHasher;
pub use options::StoreOptions;
pub use snapshot::{ClassSnapshot, Snapshot};
pub use tuning::{AutomoveTuning, LruTuning, Tuning};

use arena::ItemId;
use budget::Budget;
use copies::Copies;
use flushed::Flushed;
use ghosts::Ghosts;
use index::{Index, Place};
use item::{Item, Items};
use lru::Lru;
use moves::{Automover, Mover, Pace};
use newcomers::Newcomers;
use slab::{ClassId, Slabs};
use stamps::Stamps;
use stats::{ClassCounters, Counters};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// Workers pin values of at least this length and write them to sockets without a copy; they copy shorter values. With
/// 6 KB both cost the same (2 %). With 12 KB a copy costs 3 % one at a time and 8 % with 8 in flight; with 24 KB, 10 %
/// and 13 %.
pub const PIN_LEN_MIN: usize = 8 << 10;

/// Log2 of the slots that [`StoreOptions::hash_power`] counts for each bucket of the index.
const SLOTS_PER_BUCKET_LOG2: u32 = 3;

/// An item that was found, and its place in the index. Valid until the next change of the store.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub id: ItemId,
    place: Place,
}

/// Why the store has no item with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    Unknown,
    Expired,
    /// The item was stored before the last flush.
    Flushed,
    /// The item was stored before the last flush of its prefix.
    PrefixFlushed,
}

/// What [`Store::fetch`] found.
#[derive(Debug)]
pub enum Fetched<'a> {
    /// A live item. Its hit is counted.
    Hit(ItemId, Item<'a>),
    /// A live item that dies within the seconds of [`Store::set_due_seconds`]. The caller decides whether it is a hit.
    Due(ItemId),
    /// No live item.
    Absent,
}

/// A live item that the store evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    pub key: Box<[u8]>,
    /// Whether it was fetched since it was stored.
    pub fetched: bool,
    /// Seconds to its deadline; `None`: it had no deadline.
    pub ttl: Option<u32>,
    /// Seconds since its last access.
    pub idle_seconds: u32,
    pub class: ClassId,
    pub value_len: usize,
}

/// An item found no memory: the store may not evict (`-M`), or every chunk is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// The store of one shard. See the top of the file.
#[derive(Debug)]
pub struct Store {
    items: Items,
    budget: Arc<Budget>,
    hasher: KeyHasher,
    slabs: Slabs,
    index: Index,
    lru: Lru,
    /// The keys that the store has evicted.
    ghosts: Ghosts,
    /// Whether the store has evicted an item since it was empty, or flushed.
    has_evicted: bool,
    newcomers: Newcomers,
    /// Calls of [`Store::evict`], by which it chooses those that try WARM first.
    evictions: u64,
    options: StoreOptions,
    now: u32,
    /// An item is due if it dies within this many seconds. See [`Fetched::Due`].
    due_seconds: u32,
    /// `now + due_seconds`: items that are due die up to here.
    due_until: u32,
    stamps: Stamps,
    flushed: Flushed,
    copies: Copies,
    /// Count of the clock at which the next flush is due; 0: none is planned.
    flush_at: u32,
    /// `counters.total_items` at the last flush. If it has not changed, nothing was stored since.
    total_items_flushed: u64,
    last_cas: u64,
    /// Pinned items, by the bits of their ids.
    pins: HashMap<u32, Pin>,
    /// Large items that are freed in part.
    remains: Vec<ItemId>,
    /// How the operation that is running takes pages from other classes.
    pace: Pace,
    /// The class that housekeeping visits next.
    housekeeping_next: u8,
    /// See [`Store::has_found_dead`].
    found_dead: bool,
    mover: Mover,
    automover: Automover,
    bytes: u64,
    /// Commands count here as well.
    pub counters: Counters,
    class_counters: Vec<ClassCounters>,
    /// By class and by number of the segment: the hits, which [`Store::snapshot`] adds to the other counters.
    class_hits: Vec<[u64; 4]>,
    /// By class: seconds that the item evicted last had idled.
    evicted_age: Vec<u32>,
    /// Whether the store notes its evictions.
    notes: bool,
    noted: Vec<Evicted>,
    /// Evictions that the store did not note because it had noted enough.
    unnoted: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pin {
    count: u32,
    dead: bool,
}

/// The values that a store gets from its server.
struct Shared {
    options: StoreOptions,
    items: Items,
    budget: Arc<Budget>,
    hasher: KeyHasher,
}

impl Store {
    /// An empty store that takes its pages from `budget`, as shard number `shard` of it.
    ///
    /// # Errors
    /// If the system refuses address space for the index.
    pub fn new(
        shard: usize,
        options: StoreOptions,
        items: Items,
        budget: Arc<Budget>,
        hasher: KeyHasher,
    ) -> io::Result<Store> {
        let sizes = options.slabs.chunk_sizes(&items);
        let arena_bytes = items.arena().pages() as usize * items.arena().page_size();
        let level = options.hash_power.saturating_sub(SLOTS_PER_BUCKET_LOG2);
        let memfd = items.arena().memfd().map(Arc::as_ref);
        let index = Index::new(memfd, level, arena_bytes / sizes[0] as usize)?;
        let ghosts = Ghosts::new(memfd, arena_bytes / sizes[0] as usize)?;
        let slabs = Slabs::new(shard, &sizes, items.arena().page_size());
        Ok(Store::with(slabs, index, ghosts, Shared { options, items, budget, hasher }))
    }

    /// A store with these parts, and without items.
    fn with(slabs: Slabs, index: Index, ghosts: Ghosts, shared: Shared) -> Store {
        let Shared { options, items, budget, hasher } = shared;
        let classes = usize::from(slabs.largest().0);
        let flushed = Flushed::new(options.prefixes, hasher.clone());
        Store {
            slabs,
            lru: Lru::new(classes),
            ghosts,
            has_evicted: false,
            newcomers: Newcomers::new(classes),
            evictions: 0,
            class_counters: vec![ClassCounters::default(); classes + 1],
            class_hits: vec![[0; 4]; classes + 1],
            evicted_age: vec![0; classes + 1],
            items,
            budget,
            hasher,
            index,
            options,
            now: 2,
            due_seconds: 0,
            due_until: 2,
            stamps: Stamps::new(2),
            flushed,
            copies: Copies::default(),
            flush_at: 0,
            total_items_flushed: 0,
            last_cas: 0,
            pins: HashMap::new(),
            remains: Vec::new(),
            pace: Pace::AtOnce,
            housekeeping_next: 1,
            found_dead: false,
            mover: Mover::default(),
            automover: Automover::new(classes),
            bytes: 0,
            counters: Counters::default(),
            notes: false,
            noted: Vec::new(),
            unnoted: 0,
        }
    }

    /// The hash power at which the index holds this many items without growing.
    pub fn hash_power_for(items: u64) -> u32 {
        Index::level_for(items) + SLOTS_PER_BUCKET_LOG2
    }

    /// Tells the store the time, which is 2 or later. A flush that is due takes effect.
    #[inline]
    pub fn set_now(&mut self, now: Now) {
        if self.now != now.0 {
            self.now = now.0;
            self.due_until = now.0.saturating_add(self.due_seconds);
            self.stamps.set_now(now.0);
            if self.flush_at != 0 && self.flush_at <= now.0 {
                self.flush_at(Now(self.flush_at));
            }
        }
    }

    /// The time that the store was told last.
    #[inline]
    pub fn now(&self) -> Now {
        Now(self.now)
    }

    #[inline]
    pub fn items(&self) -> &Items {
        &self.items
    }

    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// Changes what commands may change.
    pub fn tune(&mut self, tuning: Tuning) {
        self.options.tuning = tuning;
    }

    /// Prefetches the index bucket of a hash. This is the first of two steps ahead of an operation;
    /// [`Store::prefetch_item`] is the second.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Begins a group of operations. Hints from earlier groups do not hold any more.
    #[inline]
    pub fn begin_group(&mut self) {
        self.slabs.forget_moves();
    }

    /// Prefetches the item that a hash probably names, once its bucket is in the cache. The result is a hint for
    /// [`Store::seek`] within this group.
    #[inline]
    pub fn prefetch_item(&self, hash: u64) -> Option<ItemId> {
        let candidate = self.index.candidate(hash);
        if let Some(id) = candidate {
            self.items.arena().prefetch(id, self.slabs.chunk_size(self.items.arena().page(id)));
        }
        candidate
    }

    /// Finds the live item with this key. A correct hint saves a second look at the bucket.
    ///
    /// A chunk began at the place of the hint when the group began. While no page has left its class, a chunk still
    /// begins there. If it holds a linked item with this key, this is the item: no key has two.
    #[inline(always)]
    pub fn seek(&mut self, hint: Option<ItemId>, hash: u64, key: &[u8]) -> Result<ItemId, Absent> {
        if let Some(id) = hint
            && !self.slabs.have_moved()
        {
            let item = self.items.at(id);
            if same(item.key(), key) && item.is_linked() && self.is_untouched(&item, self.now) {
                return Ok(id);
            }
        }
        self.seek_on(hint, hash, key)
    }

    /// [`Store::seek`] where the hint alone does not do, out of line.
    #[inline(never)]
    fn seek_on(&mut self, hint: Option<ItemId>, hash: u64, key: &[u8]) -> Result<ItemId, Absent> {
        if self.flushed.is_empty() {
            return self.find(hash, key).map(|entry| entry.id);
        }
        match hint.filter(|&id| self.is_spared(id, key)) {
            Some(id) => Ok(id),
            None => self.find(hash, key).map(|entry| entry.id),
        }
    }

    /// Finds an item like [`Store::seek`], and counts and marks the hit, unless the item is due.
    ///
    /// It compares the deadline once, with the end of the time in which items are due. So items that are not due cost
    /// nothing more.
    #[inline(always)]
    pub fn fetch(&mut self, hint: Option<ItemId>, hash: u64, key: &[u8]) -> Fetched<'_> {
        if let Some(id) = hint
            && !self.slabs.have_moved()
        {
            let item = self.items.at(id);
            if same(item.key(), key) && item.is_linked() && self.is_untouched(&item, self.due_until) {
                return Fetched::Hit(id, self.hit(id));
            }
        }
        match self.seek_on(hint, hash, key) {
            Ok(id) if self.is_due(id) => Fetched::Due(id),
            Ok(id) => Fetched::Hit(id, self.hit(id)),
            Err(_) => Fetched::Absent,
        }
    }

    /// Sets how many seconds before its deadline an item is due: see [`Fetched::Due`]. 0: never.
    pub fn set_due_seconds(&mut self, seconds: u32) {
        self.end_copies();
        self.due_seconds = seconds;
        self.due_until = self.now.saturating_add(seconds);
    }

    /// Whether a live item is due.
    #[inline]
    pub fn is_due(&self, id: ItemId) -> bool {
        self.items.at(id).exptime().wrapping_sub(1) < self.due_until
    }

    /// Finds the live item with this key. If the item is dead, it is freed.
    #[inline]
    pub fn find(&mut self, hash: u64, key: &[u8]) -> Result<Entry, Absent> {
        let items = &self.items;
        let Some((id, place)) = self.index.find(hash, |id| same(items.at(id).key(), key)) else {
            return Err(Absent::Unknown);
        };
        match self.death(&items.at(id)) {
            None => {
                self.settle(id);
                Ok(Entry { id, place })
            }
            Some(death) => {
                match death {
                    Absent::Flushed => self.counters.get_flushed += 1,
                    Absent::PrefixFlushed => {
                        self.counters.get_flushed += 1;
                        self.counters.get_prefix_flushed += 1;
                    }
                    Absent::Expired | Absent::Unknown => self.counters.get_expired += 1,
                }
                self.remove(Entry { id, place });
                Err(death)
            }
        }
    }

    /// Like [`Store::find`], but changes nothing.
    pub fn peek(&self, hash: u64, key: &[u8]) -> Result<ItemId, Absent> {
        let items = &self.items;
        let Some((id, _)) = self.index.find(hash, |id| same(items.at(id).key(), key)) else {
            return Err(Absent::Unknown);
        };
        self.death(&items.at(id)).map_or(Ok(id), Err)
    }

    #[inline]
    pub fn item(&self, id: ItemId) -> Item<'_> {
        self.items.at(id)
    }

    /// When an item was last fetched or stored.
    #[inline]
    pub fn last_access(&self, id: ItemId) -> Now {
        // A stamp may be ahead of the clock.
        Now(self.stamps.time(self.items.at(id).stamp()).min(self.now))
    }

    /// Seconds since an item was last accessed.
    #[inline]
    pub fn idle_seconds(&self, id: ItemId) -> u32 {
        self.now.saturating_sub(self.last_access(id).0)
    }

    /// Sets the deadline of an item: a count of the clock, or [`NEVER`].
    pub fn set_deadline(&mut self, id: ItemId, deadline: u32) {
        self.items.at(id).set_exptime(deadline);
        self.note_deadline(id, deadline);
    }

    /// A new CAS value, larger than all before it.
    #[inline]
    pub fn next_cas(&mut self) -> u64 {
        self.last_cas += 1;
        self.last_cas
    }

    /// The counters of an item's class.
    #[inline]
    pub fn counters_of(&mut self, id: ItemId) -> &mut ClassCounters {
        let class = self.class_of(id);
        &mut self.class_counters[class.index()]
    }

    /// Counts a storage command in the class that its item belongs to, whether the item is stored or not.
    #[inline]
    pub fn count_set(&mut self, key_len: usize, client_flags: u32, value_len: usize) {
        let size = self.items.size(key_len, client_flags, value_len);
        let class = self.slabs.class_for(size).unwrap_or_else(|| self.slabs.largest());
        self.class_counters[class.index()].cmd_set += 1;
    }

    /// The class that an item of this key, flags and value length belongs to.
    pub fn class_for(&self, key_len: usize, client_flags: u32, value_len: usize) -> ClassId {
        let size = self.items.size(key_len, client_flags, value_len);
        self.slabs.class_for(size).unwrap_or_else(|| self.slabs.largest())
    }

    /// Stores a value with a deadline under a key. `old` is the item that the caller has just found there, which this
    /// one replaces. The new item has no CAS value yet, and no state but its segment and that of the LRU.
    ///
    /// It has seven parameters because callers have none of them together in one place.
    #[inline]
    pub fn put(
        &mut self,
        hash: u64,
        key: &[u8],
        client_flags: u32,
        deadline: u32,
        value: &[u8],
        old: Option<ItemId>,
    ) -> Result<ItemId, OutOfMemory> {
        if let Some(id) = old
            && let size = self.items.size(key.len(), client_flags, value.len())
            && let Some(class) = self.slabs.class_for(size)
            && class == self.class_of(id)
            && !self.items.at(id).is_large()
            && !self.is_pinned(id)
        {
            let item = self.items.at(id);
            let change = (size as u64).wrapping_sub(self.items.size_of(&item) as u64);
            self.bytes = self.bytes.wrapping_add(change);
            let requested = &mut self.class_counters[class.index()].mem_requested;
            *requested = requested.wrapping_add(change);
            self.counters.total_items += 1;
            let segment = self.overwrite(id, key, client_flags, value);
            let item = self.items.at(id);
            item.set_exptime(deadline);
            let stamp = self.stamp_for(id);
            self.items.at(id).set_stamp(stamp);
            self.note_deadline(id, deadline);
            self.refile(id, class, segment, deadline);
            return Ok(id);
        }
        self.prefetch_ghost(hash);
        let id = self.allocate(key, client_flags, value.len())?;
        self.items.fill(self.items.value_cursor(id), value);
        self.link(id, hash, deadline);
        Ok(id)
    }

    /// Puts a floating item into the cache. It replaces the item with its key.
    #[inline]
    pub fn link(&mut self, id: ItemId, hash: u64, deadline: u32) {
        let items = &self.items;
        let key = items.at(id).key();
        match self.index.find(hash, |other| items.at(other).key() == key) {
            Some((old, place)) => {
                self.index.replace(place, id);
                self.unlist(old);
                self.release(old);
            }
            None => {
                if !self.index_item(id, hash) {
                    self.evict_of_chain(hash);
                    let placed = self.index_item(id, hash);
                    assert!(placed, "a chain that has lost an entry has room for one");
                }
            }
        }
        let class = self.class_of(id);
        self.enlist(id, class, hash, deadline);
        self.date(id, class, deadline);
    }

    /// Bytes of an item's header, key and value, as `me` and `metadump` report them.
    #[inline]
    pub fn size_of(&self, id: ItemId) -> u64 {
        self.items.size_of(&self.items.at(id)) as u64
    }

    #[inline]
    pub fn class_of(&self, id: ItemId) -> ClassId {
        self.slabs.class_of(self.items.arena().page(id))
    }

    /// Takes an item out of the cache and frees it. If it is pinned, the last [`Store::unpin`] frees it.
    pub fn remove(&mut self, entry: Entry) {
        self.index.remove(entry.place);
        self.unlist(entry.id);
        self.release(entry.id);
    }

    /// Frees a floating item that is not going to be stored.
    pub fn abandon(&mut self, id: ItemId) {
        self.release(id);
    }
}

impl Store {
    /// Why an item is dead; `None` if it is alive.
    #[inline]
    fn death(&self, item: &Item<'_>) -> Option<Absent> {
        // NEVER is 0 and wraps round to a time that the clock never reaches.
        const _: () = assert!(NEVER == 0);
        if item.exptime().wrapping_sub(1) < self.now {
            Some(Absent::Expired)
        } else if self.stamps.is_suspect(item.stamp()) {
            self.death_by_flush(item)
        } else {
            None
        }
    }

    /// The same for an item that may be flushed.
    fn death_by_flush(&self, item: &Item<'_>) -> Option<Absent> {
        if self.stamps.is_flushed(item.stamp()) {
            Some(Absent::Flushed)
        } else {
            self.is_killed(item).then_some(Absent::PrefixFlushed)
        }
    }

    /// Whether an item has not expired by a count of the clock, and certainly no flush has touched it.
    #[inline(always)]
    fn is_untouched(&self, item: &Item<'_>, count: u32) -> bool {
        item.exptime().wrapping_sub(1) >= count && !self.stamps.is_suspect(item.stamp())
    }

    #[inline]
    fn note_deadline(&mut self, id: ItemId, deadline: u32) {
        if deadline != NEVER {
            self.slabs.note_deadline(self.items.arena().page(id), deadline);
        }
    }

    /// Adds an item to the index, which has none with its key. False: its chain is full.
    #[inline]
    fn index_item(&mut self, id: ItemId, hash: u64) -> bool {
        let (items, hasher) = (&self.items, &self.hasher);
        self.index.insert(
            hash,
            id,
            |other| hasher.hash(items.at(other).key()),
            |other| items.arena().prefetch(other, 64),
        )
    }

    /// Sets the times of an item with a new value, and counts it.
    #[inline]
    fn date(&mut self, id: ItemId, class: ClassId, deadline: u32) {
        let stamp = self.stamp_for(id);
        let item = self.items.at(id);
        item.set_exptime(deadline);
        item.set_stamp(stamp);
        self.note_deadline(id, deadline);
        let size = self.size_of(id);
        self.bytes += size;
        self.class_counters[class.index()].mem_requested += size;
        self.counters.total_items += 1;
    }

    #[inline]
    fn uncount(&mut self, id: ItemId, class: ClassId) {
        let size = self.size_of(id);
        self.bytes -= size;
        self.class_counters[class.index()].mem_requested -= size;
    }

    fn unlist(&mut self, id: ItemId) {
        self.end_copies_of_item(id);
        let class = self.class_of(id);
        self.lru.unlink(&self.items, class, id);
        self.uncount(id, class);
    }

    /// Like [`Store::remove`], for an item whose place in the index the caller does not know.
    fn remove_by_id(&mut self, id: ItemId) {
        let hash = self.hasher.hash(self.items.at(id).key());
        self.remove_by_hash(id, hash);
    }

    fn remove_by_hash(&mut self, id: ItemId, hash: u64) {
        let (_, place) = self.index.find(hash, |other| other == id).expect("a linked item is in the index");
        self.remove(Entry { id, place });
    }

    fn release(&mut self, id: ItemId) {
        self.items.at(id).set_floating();
        if let Some(pin) = self.pins.get_mut(&id.bits()) {
            pin.dead = true;
            return;
        }
        if self.items.first_body(id).is_some() {
            self.free_large(id);
        } else {
            self.free_chunk(id);
        }
    }

    #[inline]
    fn free_chunk(&mut self, id: ItemId) {
        self.slabs.free(id, &self.items);
    }
}

/// Whether two keys are the same. For short keys this is faster than a call of the library's comparison.
#[inline(always)]
fn same(one: &[u8], other: &[u8]) -> bool {
    let len = one.len();
    if len != other.len() {
        return false;
    }
    match (one.first_chunk::<16>(), other.first_chunk::<16>(), one.last_chunk::<16>(), other.last_chunk::<16>()) {
        (Some(one), Some(other), Some(one_end), Some(other_end)) if len <= 32 => {
            let differ = |one: &[u8; 16], other: &[u8; 16]| u128::from_ne_bytes(*one) ^ u128::from_ne_bytes(*other);
            differ(one, other) | differ(one_end, other_end) == 0
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests;
