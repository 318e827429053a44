//! Walks over all items of a shard. The crawler and the dumps use them, in pieces as long as they like.
//!
//! A walk goes through the index, bucket by bucket (see [`Index::collect`](super::index::Index::collect)). It meets a
//! key that is in the cache from the first piece to the last exactly once: the place of a key depends on its hash
//! alone, even if the index grows, the value changes or the page of the item moves between two pieces. It meets a key
//! that comes or goes meanwhile once or not at all. Between two pieces the caller keeps only a [`Place`].

use super::Store;
use super::arena::ItemId;
use super::item::{Chunk, FETCHED, SEGMENT_MASK};
use super::lru::Segment;
use super::slab::ClassId;

/// Items that a walk prefetches before it looks at the first of them.
const GROUP: usize = 32;

/// The place that a walk has reached in a shard. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(u64);

/// A reader of the lists of a class, with the place that it has reached. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    /// Lists that it has read to their end.
    lists: usize,
    /// The items that it passed last, by their number modulo [`Reader::MARKS`].
    marks: [u32; Reader::MARKS],
    /// Items that it has passed in this list.
    passed: usize,
}

impl Reader {
    /// Items that it remembers.
    const MARKS: usize = 8;
}

impl Store {
    /// Does a piece of a walk, from a place on. It looks at about `count` items or empty buckets, or at fewer if
    /// `visit` returns false. In classes that are `wanted` it calls `visit` for each live item, and frees dead items,
    /// as the crawler does. Gives the place where the next piece begins; `None`: the walk is complete.
    pub fn walk(
        &mut self,
        place: Place,
        count: usize,
        mut wanted: impl FnMut(ClassId) -> bool,
        mut visit: impl FnMut(&Store, ItemId) -> bool,
    ) -> Option<Place> {
        let mut next = Some(place.0);
        let (mut left, mut go_on) = (count, true);
        let mut ids = Vec::with_capacity(2 * GROUP);
        while next.is_some() && left > 0 && go_on {
            self.next_group(&mut next, &mut left, &mut ids);
            for &id in &ids {
                let class = self.class_of(id);
                if !wanted(class) {
                    continue;
                }
                self.class_counters[class.index()].crawler_items_checked += 1;
                let item = self.items.at(id);
                if self.is_dead_by(&item, self.now - 1) {
                    self.discard(id, class);
                } else if self.death(&item).is_none() {
                    go_on &= visit(self, id);
                }
            }
        }
        next.map(Place)
    }

    /// Like [`Store::walk`], for all live items, but changes nothing. Histograms use it.
    pub fn survey(&self, place: Place, count: usize, mut visit: impl FnMut(ItemId)) -> Option<Place> {
        let (mut next, mut left) = (Some(place.0), count);
        let mut ids = Vec::with_capacity(2 * GROUP);
        while next.is_some() && left > 0 {
            self.next_group(&mut next, &mut left, &mut ids);
            ids.iter().copied().filter(|&id| self.death(&self.items.at(id)).is_none()).for_each(&mut visit);
        }
        next.map(Place)
    }

    /// Replaces `ids` by the next ids from a place on, and the place by that behind them. Subtracts the items and empty
    /// buckets from `left`.
    fn next_group(&self, next: &mut Option<u64>, left: &mut usize, ids: &mut Vec<ItemId>) {
        ids.clear();
        while ids.len() < GROUP
            && *left > 0
            && let Some(at) = *next
        {
            let before = ids.len();
            *next = self.index.collect(at, ids);
            *left = left.saturating_sub((ids.len() - before).max(1));
        }
        for &id in &*ids {
            self.items.arena().prefetch(id, 64);
        }
    }

    /// Reads on in the lists of a class: HOT, WARM, COLD, TEMP, each from its most recent item on. It looks at about
    /// `count` items, and calls `visit` for each live one. False: it has read all lists.
    ///
    /// The lists change between two pieces. If the last [`Reader::MARKS`] items that the reader passed in a list are
    /// all gone, it leaves that list. It may meet an item that moves to a head meanwhile twice, or not at all.
    pub fn read_class(&self, class: ClassId, reader: &mut Reader, count: usize, mut visit: impl FnMut(ItemId)) -> bool {
        if class.index() == 0 || class > self.slabs.largest() {
            return false;
        }
        let mut left = count;
        while let Some(&segment) = Segment::ALL.get(reader.lists) {
            let mut at = match reader.passed {
                0 => self.lru.head(class, segment),
                passed => {
                    let marks =
                        (1..=passed.min(Reader::MARKS)).map(|back| reader.marks[(passed - back) % Reader::MARKS]);
                    let mut marks = marks.filter_map(ItemId::from_raw).filter(|&id| self.is_in(class, segment, id));
                    marks.next().and_then(|id| ItemId::from_raw(self.items.at(id).next()))
                }
            };
            while let Some(id) = at {
                if left == 0 {
                    return true;
                }
                left -= 1;
                let item = self.items.at(id);
                reader.marks[reader.passed % Reader::MARKS] = id.bits();
                reader.passed += 1;
                at = ItemId::from_raw(item.next());
                if self.death(&item).is_none() {
                    visit(id);
                }
            }
            *reader = Reader { lists: reader.lists + 1, ..Reader::default() };
        }
        false
    }

    /// Whether an id that once named an item of a class names one now, and this item is in a segment.
    fn is_in(&self, class: ClassId, segment: Segment, id: ItemId) -> bool {
        self.slabs.is_chunk_of(class, id, &self.items)
            && self.items.chunk(id) == Chunk::Linked
            && self.items.at(id).state() & SEGMENT_MASK == segment as u8
    }

    /// The bytes of all pages of the shard.
    pub fn page_bytes(&self) -> u64 {
        let pages: usize = self.slabs.ids().map(|class| self.slabs.page_count(class)).sum();
        (pages * self.items.arena().page_size()) as u64
    }

    /// The key of the live item that holds a byte of the shard's pages, or none if no item does. `random` chooses the byte:
    /// each is as likely as any other.
    pub fn key_at_random(&self, random: u64) -> Option<&[u8]> {
        let page_size = self.items.arena().page_size() as u64;
        let byte = ((u128::from(random) * u128::from(self.page_bytes())) >> 64) as u64;
        let (mut page, offset) = ((byte / page_size) as usize, (byte % page_size) as u32);
        for class in self.slabs.ids() {
            let pages = self.slabs.pages_of(class);
            if let Some(&found) = pages.get(page) {
                let place = offset / self.slabs.usage(class).chunk_size;
                let chunk = self.slabs.chunk(found, place, &self.items)?;
                let id = match self.items.chunk(chunk) {
                    Chunk::Linked => chunk,
                    Chunk::Body(owner) if self.items.chunk(owner) == Chunk::Linked => owner,
                    _ => return None,
                };
                let item = self.items.at(id);
                return self.death(&item).is_none().then(|| item.key());
            }
            page -= pages.len();
        }
        None
    }

    /// Frees an item that the crawler found dead.
    pub(super) fn discard(&mut self, id: ItemId, class: ClassId) {
        let unfetched = self.items.at(id).state() & FETCHED == 0;
        let counters = &mut self.class_counters[class.index()];
        counters.expired_unfetched += u64::from(unfetched);
        counters.crawler_reclaimed += 1;
        self.remove_by_id(id);
    }
}
