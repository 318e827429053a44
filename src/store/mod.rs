//! A shard's store: items, found by hash, kept in slab classes, aged in a segmented LRU.
//!
//! Plain single-threaded code: it knows neither sockets nor words of the protocol, reads no clock (its holder says what
//! time it is, [`Store::set_now`]) and takes no lock but the one of the page budget, once per MiB.
//!
//! What holds between calls:
//! - an item is in the index exactly when it is in one LRU list, that of its class and of the segment in its state;
//! - a floating item is in neither: it is being received, or it was unlinked while pinned;
//! - an item whose time is over, or that was stored before the last flush, is never given out.
//!
//! And of evictions: an item is evicted only where its class has no free chunk, but on a page that is about to leave it,
//! and the shard can have no page: neither one of the budget nor an empty one of another class. A page that moves is no
//! exception ([`rebalance`]).

pub mod arena;
mod automove;
mod bucket;
pub mod budget;
mod eviction;
pub mod expiry;
mod flush;
pub mod gather;
mod housekeeping;
pub mod image;
mod index;
pub mod item;
pub mod lru;
mod options;
mod pins;
mod policy;
pub mod rebalance;
mod room;
pub mod slab;
mod snapshot;
mod stamps;
pub mod stats;
pub mod walk;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(any(test, fuzzing))]
mod validate;

use crate::clock::{NEVER, Now};
use crate::hash::KeyHasher;
pub use eviction::Evicted;
pub use options::StoreOptions;
pub use snapshot::{ClassSnapshot, Snapshot};

use arena::ItemId;
use automove::Automover;
use gather::Pace;
use index::{Index, Place};
use item::{Item, Items};
use lru::{Lru, Segment};
use pins::Pin;
use policy::OVERWRITTEN;
use rebalance::Mover;
use slab::{Budget, ClassId, Slabs};
use stamps::Stamps;
use stats::{ClassCounters, Counters};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// Values from this length on are written to sockets from where they lie, pinned meanwhile; shorter ones are copied. For
/// values of 6 KB it makes no difference (2 %); of 12 KB copying costs 3 % one at a time and 8 % with 8 in flight, of 24 KB
/// 10 % and 13 %.
pub const PIN_LEN_MIN: usize = 8 << 10;

/// What [`StoreOptions::hash_power`] counts as the slots of a bucket of the index, as log2.
const SLOTS_PER_BUCKET_LOG2: u32 = 3;

/// An item that was found, and where the index has it. Valid until the next change of the store.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The item.
    pub id: ItemId,
    place: Place,
}

/// Why there is no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// There was none.
    Unknown,
    /// Its time was over.
    Expired,
    /// It was stored before the last flush.
    Flushed,
}

/// No memory for an item: nothing may be evicted (`-M`), or what there is is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// One shard. See the top of the file.
#[derive(Debug)]
pub struct Store {
    items: Items,
    budget: Arc<Budget>,
    hasher: KeyHasher,
    slabs: Slabs,
    index: Index,
    lru: Lru,
    options: StoreOptions,
    now: u32,
    /// When items were accessed, and which of them are flushed.
    stamps: Stamps,
    /// When the next flush is due; 0: none.
    flush_at: u32,
    /// `counters.total_items` at the last flush: as long as it is the same, there is nothing to flush.
    total_items_flushed: u64,
    last_cas: u64,
    /// Items that are being written to sockets: how often, and whether they died meanwhile.
    pins: HashMap<u32, Pin>,
    /// Large items of which a part is still to be freed.
    remains: Vec<ItemId>,
    /// How pages are taken from other classes just now.
    pace: Pace,
    /// Class whose housekeeping is next.
    housekeeping_next: u8,
    mover: Mover,
    automover: Automover,
    bytes: u64,
    /// Counted by whoever executes commands.
    pub counters: Counters,
    class_counters: Vec<ClassCounters>,
    /// Seconds since the last access of the item evicted last, by class.
    evicted_age: Vec<u32>,
    /// Evictions are noted.
    notes: bool,
    noted: Vec<Evicted>,
    /// Evictions that there was no room to note.
    unnoted: u64,
}

impl Store {
    /// An empty store that takes its pages from `budget`, as shard number `shard` of it.
    ///
    /// # Errors
    /// When the system refuses address space for the index.
    pub fn new(
        shard: usize,
        options: StoreOptions,
        items: Items,
        budget: Arc<Budget>,
        hasher: KeyHasher,
    ) -> io::Result<Store> {
        let sizes = slab::chunk_sizes(&options.slabs, items.size(0, 0, 0), items.arena().granule());
        let arena_bytes = items.arena().pages() as usize * arena::PAGE_SIZE;
        let level = options.hash_power.saturating_sub(SLOTS_PER_BUCKET_LOG2);
        let index = Index::new(level, arena_bytes / sizes[0] as usize)?;
        Ok(Store {
            slabs: Slabs::new(shard, &sizes),
            lru: Lru::new(sizes.len()),
            class_counters: vec![ClassCounters::default(); sizes.len() + 1],
            evicted_age: vec![0; sizes.len() + 1],
            items,
            budget,
            hasher,
            index,
            options,
            now: 2,
            stamps: Stamps::new(2),
            flush_at: 0,
            total_items_flushed: 0,
            last_cas: 0,
            pins: HashMap::new(),
            remains: Vec::new(),
            pace: Pace::AtOnce,
            housekeeping_next: 1,
            mover: Mover::default(),
            automover: Automover::new(sizes.len()),
            bytes: 0,
            counters: Counters::default(),
            notes: false,
            noted: Vec::new(),
            unnoted: 0,
        })
    }

    /// The hash power with which so many items need no growth of the index.
    pub fn hash_power_for(items: u64) -> u32 {
        Index::level_for(items) + SLOTS_PER_BUCKET_LOG2
    }

    /// Tells the store what time it is, 2 or later. A flush that is due takes effect.
    #[inline]
    pub fn set_now(&mut self, now: Now) {
        if self.now != now.0 {
            self.now = now.0;
            self.stamps.set_now(now.0);
            if self.flush_at != 0 && self.flush_at <= now.0 {
                self.flush_at(Now(self.flush_at));
            }
        }
    }

    /// The time it was told.
    #[inline]
    pub fn now(&self) -> Now {
        Now(self.now)
    }

    /// Access to items by id.
    #[inline]
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// Its options.
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// Changes the options of the LRU. Sizes, CAS and hash power keep their values from the start.
    pub fn options_mut(&mut self) -> &mut StoreOptions {
        &mut self.options
    }

    /// Asks the processor for the index bucket of a hash: the first of the two steps ahead of an operation.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// A group of operations begins: hints given before do not hold any more.
    #[inline]
    pub fn begin_group(&mut self) {
        self.slabs.forget_moves();
    }

    /// Asks for the item that a hash probably names, once its bucket has come, and gives its id as a hint for
    /// [`Store::seek`] within this group.
    #[inline]
    pub fn prefetch_item(&self, hash: u64) -> Option<ItemId> {
        let candidate = self.index.candidate(hash);
        if let Some(id) = candidate {
            self.items.arena().prefetch(id, self.slabs.chunk_size(self.items.arena().page(id)));
        }
        candidate
    }

    /// The live item with this key, found by the hint if it is the one, which saves a second look at its bucket.
    ///
    /// A hint names a place where a chunk began when the group did. As long as no page has changed hands one still does, and
    /// if it holds a linked item with this key, that is the only one.
    #[inline]
    pub fn seek(&mut self, hint: Option<ItemId>, hash: u64, key: &[u8]) -> Result<ItemId, Absent> {
        if let Some(id) = hint
            && !self.slabs.have_moved()
        {
            let item = self.items.at(id);
            if same(item.key(), key) && item.is_linked() && self.death(&item).is_none() {
                return Ok(id);
            }
        }
        self.find(hash, key).map(|entry| entry.id)
    }

    /// The live item with this key. A dead one is freed on the way.
    #[inline]
    pub fn find(&mut self, hash: u64, key: &[u8]) -> Result<Entry, Absent> {
        let items = &self.items;
        let Some((id, place)) = self.index.find(hash, |id| same(items.at(id).key(), key)) else {
            return Err(Absent::Unknown);
        };
        match self.death(&items.at(id)) {
            None => Ok(Entry { id, place }),
            Some(death) => {
                match death {
                    Absent::Flushed => self.counters.get_flushed += 1,
                    _ => self.counters.get_expired += 1,
                }
                self.remove(Entry { id, place });
                Err(death)
            }
        }
    }

    /// As `find`, without any effect.
    pub fn peek(&self, hash: u64, key: &[u8]) -> Result<ItemId, Absent> {
        let items = &self.items;
        let Some((id, _)) = self.index.find(hash, |id| same(items.at(id).key(), key)) else {
            return Err(Absent::Unknown);
        };
        self.death(&items.at(id)).map_or(Ok(id), Err)
    }

    /// The item behind an id.
    #[inline]
    pub fn item(&self, id: ItemId) -> Item<'_> {
        self.items.at(id)
    }

    /// When an item was last fetched or stored.
    #[inline]
    pub fn last_access(&self, id: ItemId) -> Now {
        Now(self.stamps.time(self.items.at(id).stamp()))
    }

    /// Seconds since an item was last accessed.
    #[inline]
    pub fn idle_seconds(&self, id: ItemId) -> u32 {
        self.now.saturating_sub(self.last_access(id).0)
    }

    /// Gives an item another deadline, a count of the clock or [`NEVER`].
    pub fn set_deadline(&mut self, id: ItemId, deadline: u32) {
        self.items.at(id).set_exptime(deadline);
        self.note_deadline(id, deadline);
    }

    /// A CAS value that was not used before, larger than all before it.
    #[inline]
    pub fn next_cas(&mut self) -> u64 {
        self.last_cas += 1;
        self.last_cas
    }

    /// The class counters of an item.
    #[inline]
    pub fn counters_of(&mut self, id: ItemId) -> &mut ClassCounters {
        let class = self.class_of(id);
        &mut self.class_counters[class.index()]
    }

    /// Counts a storage command in the class that its item goes to, or would go to.
    #[inline]
    pub fn count_set(&mut self, key_len: usize, client_flags: u32, value_len: usize) {
        let size = self.items.size(key_len, client_flags, value_len);
        let class = self.slabs.class_for(size).unwrap_or_else(|| self.slabs.large());
        self.class_counters[class.index()].cmd_set += 1;
    }

    /// The class that an item of this key, flags and value length belongs to.
    pub fn class_for(&self, key_len: usize, client_flags: u32, value_len: usize) -> ClassId {
        let size = self.items.size(key_len, client_flags, value_len);
        self.slabs.class_for(size).unwrap_or_else(|| self.slabs.large())
    }

    /// Stores a value under a key, in place of `old` (what was just found, or none), with a deadline. The new
    /// item has no CAS value yet, and no state but its segment.
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
            && let Some(class) = self.slabs.class_for(self.items.size(key.len(), client_flags, value.len()))
            && class == self.class_of(id)
            && !self.is_pinned(id)
        {
            self.uncount(id, class);
            let segment = self.overwrite(id, key, client_flags, value);
            self.refile(id, class, segment, deadline);
            self.date(id, class, deadline);
            return Ok(id);
        }
        let id = self.allocate(key, client_flags, value.len())?;
        self.items.fill(self.items.value_cursor(id), value);
        self.link(id, hash, deadline);
        Ok(id)
    }

    /// Puts a floating item into the cache, in place of the one with its key if there is one.
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
                    assert!(placed, "there is room in a chain of which an entry was taken out");
                }
            }
        }
        let class = self.class_of(id);
        self.enlist(id, class, deadline);
        self.date(id, class, deadline);
    }

    /// Bytes of an item: header, key, value. As `me` and `metadump` report it.
    #[inline]
    pub fn size_of(&self, id: ItemId) -> u64 {
        let item = self.items.at(id);
        self.items.size(item.key().len(), item.client_flags(), item.value_len()) as u64
    }

    /// The slab class of an item.
    #[inline]
    pub fn class_of(&self, id: ItemId) -> ClassId {
        self.slabs.class_of(self.items.arena().page(id))
    }

    /// Takes an item out of the cache and frees it, or leaves that to the last [`Store::unpin`].
    pub fn remove(&mut self, entry: Entry) {
        self.index.remove(entry.place);
        self.unlist(entry.id);
        self.release(entry.id);
    }

    /// Frees a floating item that will not be stored after all.
    pub fn abandon(&mut self, id: ItemId) {
        self.release(id);
    }
}

impl Store {
    /// Why an item is dead, if it is.
    #[inline]
    fn death(&self, item: &Item<'_>) -> Option<Absent> {
        // NEVER is 0 and wraps round to a time that never comes.
        const _: () = assert!(NEVER == 0);
        if item.exptime().wrapping_sub(1) < self.now {
            Some(Absent::Expired)
        } else if self.stamps.is_flushed(item.stamp()) {
            Some(Absent::Flushed)
        } else {
            None
        }
    }

    #[inline]
    fn note_deadline(&mut self, id: ItemId, deadline: u32) {
        if deadline != NEVER {
            self.slabs.note_deadline(self.items.arena().page(id), deadline);
        }
    }

    /// Into the index, where no item has its key. False when its chain is full.
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

    /// Writes another value of an item into its own chunk. The item stays at its place in its list, whose segment this gives.
    #[inline]
    fn overwrite(&mut self, id: ItemId, key: &[u8], client_flags: u32, value: &[u8]) -> Segment {
        let item = self.items.at(id);
        let (next, prev, segment) = (item.next(), item.prev(), Segment::of(item.state()));
        let item = self.items.create(id, key, client_flags, value.len());
        item.set_value(value);
        item.set_next(next);
        item.set_prev(prev);
        item.change_state(segment as u8 | OVERWRITTEN, 0);
        segment
    }

    /// The dates of a new value, and its share of the counts.
    #[inline]
    fn date(&mut self, id: ItemId, class: ClassId, deadline: u32) {
        let item = self.items.at(id);
        item.set_exptime(deadline);
        item.set_stamp(self.stamps.current());
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
        let class = self.class_of(id);
        self.lru.unlink(&self.items, class, id);
        self.uncount(id, class);
    }

    /// As `remove`, for an item that was not just looked up.
    fn remove_by_id(&mut self, id: ItemId) {
        let hash = self.hasher.hash(self.items.at(id).key());
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

/// Whether two keys are the same. They are short, and a call of the library's comparison would cost more than this.
#[inline(always)]
fn same(one: &[u8], other: &[u8]) -> bool {
    let len = one.len();
    if len != other.len() {
        return false;
    }
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("8 bytes from here"));
    if len < 8 {
        return one == other;
    }
    let mut differences = word(one, len - 8) ^ word(other, len - 8);
    let mut at = 0;
    while at + 8 < len {
        differences |= word(one, at) ^ word(other, at);
        at += 8;
    }
    differences == 0
}

#[cfg(test)]
mod tests;
