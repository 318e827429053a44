//! A walk over all items of a shard, in pieces as long as the caller likes: what the crawler and the dumps are made of.
//!
//! It goes through the index, bucket by bucket (see [`Index::collect`](super::index::Index::collect)). A key that is in the
//! cache from the first piece to the last is met exactly once, although the index grows, its value is set anew or its page
//! moves between two pieces: where it is met depends on its hash alone. A key that comes or goes meanwhile is met once or
//! not at all. All that is remembered between two pieces is a [`Place`].

use super::Store;
use super::arena::ItemId;
use super::item::{Chunk, FETCHED, SEGMENT_MASK};
use super::lru::Segment;
use super::slab::ClassId;

/// Items whose memory is asked for before the first of them is looked at.
const GROUP: usize = 32;

/// How far a walk has come in a shard. The default is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(u64);

/// How far somebody has come in reading the lists of a class. The default is their beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    /// Lists read to their end.
    lists: usize,
    /// The items passed last, by their number modulo [`Reader::MARKS`].
    marks: [u32; Reader::MARKS],
    /// Items passed in this list.
    passed: usize,
}

impl Reader {
    /// Items that it remembers.
    const MARKS: usize = 8;
}

impl Store {
    /// A piece of a walk, from a place on: about `count` items or empty buckets are looked at, or fewer when `visit` says
    /// that it has had enough. Of the items in a class that is `wanted`, `visit` is called for those alive; the dead are
    /// freed, as the crawler does. Gives the place to go on from; `None`: all were met.
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

    /// As [`Store::walk`], for all live items, and without any effect: for histograms.
    pub fn survey(&self, place: Place, count: usize, mut visit: impl FnMut(ItemId)) -> Option<Place> {
        let (mut next, mut left) = (Some(place.0), count);
        let mut ids = Vec::with_capacity(2 * GROUP);
        while next.is_some() && left > 0 {
            self.next_group(&mut next, &mut left, &mut ids);
            ids.iter().copied().filter(|&id| self.death(&self.items.at(id)).is_none()).for_each(&mut visit);
        }
        next.map(Place)
    }

    /// The next ids from a place on, in place of those that are there, and the place behind them. What was looked at is
    /// taken off `left`.
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

    /// Items of a class, HOT, WARM, COLD, TEMP, most recent first in each, from where a reader has come to: about `count` are
    /// looked at and `visit` is called for those alive. False: that was the last of them.
    ///
    /// The lists change between two pieces. A reader that finds the items it has passed last gone from one, all
    /// [`Reader::MARKS`] of them, has come to its end; an item that is put at a head meanwhile may be met twice, or not.
    pub fn read_class(&self, class: ClassId, reader: &mut Reader, count: usize, mut visit: impl FnMut(ItemId)) -> bool {
        if class.index() == 0 || class > self.slabs.large() {
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

    /// Whether an id that once named an item of a class does so still, or again, and the item is in this segment.
    fn is_in(&self, class: ClassId, segment: Segment, id: ItemId) -> bool {
        self.slabs.is_chunk_of(class, id, &self.items)
            && self.items.chunk(id) == Chunk::Linked
            && self.items.at(id).state() & SEGMENT_MASK == segment as u8
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
