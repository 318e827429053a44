//! Loads an image into an empty store. Items come in the order of their old pages, and the loader puts them into the
//! order of their old lists.
//!
//! Until the last item has come, each list consists of [`AGES`] parts by age. In whatever order items come, one step
//! puts an item into its part, and one step finds the coldest item when memory is full. In the end the loader joins the
//! parts.

use super::super::Store;
use super::super::arena::ItemId;
use super::super::item::{Cursor, SEGMENT_MASK};
use super::super::lru::{List, Segment};
use super::super::policy::VICTIM_ORDER;
use super::super::slab::ClassId;
use super::{Header, Record, Refusal};
use crate::clock::Now;

/// The parts of a list by age. A list with at most this many items comes back as it was; a longer one, nearly so.
const AGES: usize = 1024;
const _: () = assert!(AGES.is_power_of_two() && AGES <= 1 << 16);

/// No server gives out this many CAS values. An image with a larger one is wrong, and the loader takes this one
/// instead.
const LAST_CAS_MAX: u64 = u64::MAX / 2;

/// The loader prefetches the bucket of the item that comes this many items later.
const AHEAD: usize = 12;

/// The items of an image, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Items that are in the store.
    pub items: u64,
    /// Items that have expired since the image was written.
    pub expired: u64,
    /// Items without room.
    pub dropped: u64,
}

impl std::ops::AddAssign for Loaded {
    fn add_assign(&mut self, other: Loaded) {
        self.items += other.items;
        self.expired += other.expired;
        self.dropped += other.dropped;
    }
}

/// The parts of a list while it is loaded.
#[derive(Debug, Default)]
struct Ages {
    /// By age, the coldest first. The vector is empty until the first item comes.
    parts: Vec<List>,
    /// Invariant: no part before this one has an item.
    coldest: usize,
}

/// A store into which an image is loaded.
#[derive(Debug)]
pub struct Loader {
    store: Store,
    /// By class and segment.
    ages: Vec<[Ages; 4]>,
    flush_at: u32,
    loaded: Loaded,
}

/// An item whose value is loaded.
#[derive(Debug)]
pub struct Filling {
    id: ItemId,
    cursor: Cursor,
}

impl Filling {
    /// Bytes of the value that have not come yet.
    pub fn left(&self) -> usize {
        self.cursor.left()
    }
}

impl Loader {
    /// A loader for an empty store. `now` is the count of the clock, which continues that of the image.
    pub fn new(mut store: Store, header: &Header, now: Now) -> Loader {
        debug_assert_eq!(store.index.len(), 0);
        store.set_now(now);
        store.last_cas = store.last_cas.max(header.last_cas.min(LAST_CAS_MAX));
        let ages = store.slabs.ids().map(|_| Default::default());
        let ages = std::iter::once(Default::default()).chain(ages).collect();
        Loader { ages, flush_at: header.flush_at, loaded: Loaded::default(), store }
    }

    /// Puts a run of items into the store, by their hashes and records. Each record has its whole value.
    pub fn load<'a>(
        &mut self,
        run: &[u64],
        record: impl Fn(usize) -> Result<Record<'a>, Refusal>,
    ) -> Result<(), Refusal> {
        for &hash in run.iter().take(AHEAD) {
            self.store.index.prefetch(hash);
        }
        for (at, &hash) in run.iter().enumerate() {
            if let Some(&ahead) = run.get(at + AHEAD) {
                self.store.index.prefetch(ahead);
            }
            let record = record(at)?;
            if let Some(mut filling) = self.begin(&record) {
                self.fill(&mut filling, record.value);
                self.end(filling, hash, &record)?;
            }
        }
        Ok(())
    }

    /// Makes room for an item. The caller then passes its value to [`Loader::fill`], and the item to [`Loader::end`].
    /// `None`: the item is dead, or the store has no room for it.
    pub fn begin(&mut self, record: &Record<'_>) -> Option<Filling> {
        if record.exptime.wrapping_sub(1) < self.store.now {
            self.loaded.expired += 1;
            return None;
        }
        match self.allocate(record) {
            Some(id) => Some(Filling { id, cursor: self.store.items.value_cursor(id) }),
            None => {
                self.loaded.dropped += 1;
                None
            }
        }
    }

    /// Writes the next bytes of the value. It ignores bytes behind the end of the value.
    pub fn fill(&self, filling: &mut Filling, bytes: &[u8]) {
        let count = bytes.len().min(filling.left());
        filling.cursor = self.store.items.fill(filling.cursor, &bytes[..count]);
    }

    /// Puts an item with its whole value into the index and into its list.
    pub fn end(&mut self, filling: Filling, hash: u64, record: &Record<'_>) -> Result<(), Refusal> {
        let Filling { id, cursor } = filling;
        let store = &mut self.store;
        let items = &store.items;
        if cursor.left() != 0 || store.index.find(hash, |other| items.at(other).key() == record.key).is_some() {
            return Err(Refusal::Damaged("an item is there twice, or not all of it"));
        }
        let hasher = &store.hasher;
        let placed = store.index.insert(
            hash,
            id,
            |other| hasher.hash(items.at(other).key()),
            |other| items.arena().prefetch(other, 64),
        );
        if !placed {
            store.release(id);
            self.loaded.dropped += 1;
            return Ok(());
        }
        // The item's own value may be any number, because meta commands choose values. It does not tell which ones the
        // store gave out.
        let cas = if record.cas != 0 { record.cas } else { store.next_cas() };
        let item = store.items.at(id);
        item.change_state(record.state & !SEGMENT_MASK, 0);
        item.set_cas(cas);
        item.set_exptime(record.exptime);
        // The minimum corrects a wrong image. Without a flush so far, a stamp is the time.
        item.set_stamp(record.last_access.min(store.now));
        store.note_deadline(id, record.exptime);
        let size = store.size_of(id);
        let class = store.class_of(id);
        store.bytes += size;
        store.class_counters[class.index()].mem_requested += size;
        store.counters.total_items += 1;
        self.loaded.items += 1;
        let segment = Segment::of(record.state);
        let ages = &mut self.ages[class.index()][segment as usize];
        if ages.parts.is_empty() {
            ages.parts = vec![List::default(); AGES];
        }
        let part = part(record.age);
        ages.coldest = ages.coldest.min(part);
        ages.parts[part].push(&store.items, segment, id);
        Ok(())
    }

    /// Joins the parts of the lists, so that the store is in order, and plans the flush of the image. A flush whose
    /// time has come takes effect.
    pub fn finish(mut self) -> (Store, Loaded) {
        for (class, segments) in self.ages.iter_mut().enumerate().skip(1) {
            for (segment, ages) in Segment::ALL.into_iter().zip(segments) {
                let mut whole = List::default();
                for part in ages.parts.drain(..).rev() {
                    whole.append(&self.store.items, part);
                }
                self.store.lru.adopt(ClassId(class as u8), segment, whole);
            }
        }
        if self.flush_at != 0 {
            self.store.flush_at(Now(self.flush_at));
        }
        (self.store, self.loaded)
    }

    fn allocate(&mut self, record: &Record<'_>) -> Option<ItemId> {
        let (key_len, flags, value_len) = (record.key.len(), record.client_flags, record.value_len);
        let size = self.store.items.size(key_len, flags, value_len);
        if let Some(class) = self.store.slabs.class_for(size) {
            let id = self.chunk(class, record)?;
            self.store.items.create(id, record.key, flags, value_len);
            return Some(id);
        }
        // No code looks at the item before it is complete.
        let head = self.chunk(self.store.slabs.largest(), record)?;
        let mut parts = self.store.begin_large(head, record.key, flags, value_len);
        while parts.room < value_len {
            let next = parts.next(value_len, &self.store.slabs);
            let largest = self.store.slabs.largest();
            let Some(body) = self.chunk(next.class, record).or_else(|| self.chunk(largest, record)) else {
                self.store.abandon(head);
                return None;
            };
            parts.append(body, next.room, &self.store.items);
        }
        Some(head)
    }

    /// Gets a chunk for an item: a free one, one of a new page, or that of an item that is worth less.
    fn chunk(&mut self, class: ClassId, record: &Record<'_>) -> Option<ItemId> {
        loop {
            if let Some(id) = self.store.slabs.allocate(class, &self.store.items) {
                return Some(id);
            }
            if !self.store.take_page(class) && !self.evict(class, record) {
                return None;
            }
        }
    }

    /// Drops the coldest item of a class, if it is colder than the item that has come.
    fn evict(&mut self, class: ClassId, than: &Record<'_>) -> bool {
        let newcomer = Segment::of(than.state);
        for segment in VICTIM_ORDER {
            let ages = &mut self.ages[class.index()][segment as usize];
            let Some(at) = ages.parts.iter().skip(ages.coldest).position(|part| part.count > 0) else {
                ages.coldest = ages.parts.len().min(AGES - 1);
                if segment == newcomer {
                    return false;
                }
                continue;
            };
            ages.coldest += at;
            if segment == newcomer && part(than.age) <= ages.coldest {
                return false;
            }
            let part = &mut ages.parts[ages.coldest];
            let id = part.tail().expect("a list with items has a tail");
            part.unlink(&self.store.items, id);
            let store = &mut self.store;
            let items = &store.items;
            let hash = store.hasher.hash(items.at(id).key());
            let (_, place) = store.index.find(hash, |other| other == id).expect("a loaded item is in the index");
            store.index.remove(place);
            store.uncount(id, class);
            store.release(id);
            self.loaded.items -= 1;
            self.loaded.dropped += 1;
            return true;
        }
        false
    }
}

/// The part of a list to which an age belongs.
fn part(age: u16) -> usize {
    (usize::from(age) * AGES) >> 16
}
