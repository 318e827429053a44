//! The lists of the segmented LRU. Each slab class has four; items link to each other by id. The
//! [`policy`](super::policy) decides when an item moves to another list.

use super::arena::ItemId;
use super::item::{Items, SEGMENT_MASK};
use super::slab::ClassId;
use serde::{Deserialize, Serialize};

/// A segment; the numbers are those of memcached's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "memcached's names")]
#[repr(u8)]
pub enum Segment {
    Hot = 0,
    Warm = 1,
    Cold = 2,
    Temp = 3,
}

impl Segment {
    /// All segments, by number.
    pub const ALL: [Segment; 4] = [Segment::Hot, Segment::Warm, Segment::Cold, Segment::Temp];

    /// The segment that an item's state names.
    #[inline]
    pub fn of(state: u8) -> Segment {
        Segment::ALL[Segment::number_in(state)]
    }

    /// The number of the segment that an item's state names.
    #[inline]
    pub(super) fn number_in(state: u8) -> usize {
        usize::from(state & SEGMENT_MASK)
    }
}

/// A doubly linked list of items.
///
/// Invariant: `head`, `tail` and `count` are all zero, or none is. The items between are linked both ways.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct List {
    head: u32,
    tail: u32,
    pub(super) count: u32,
}

impl List {
    #[inline]
    pub(super) fn tail(&self) -> Option<ItemId> {
        ItemId::from_raw(self.tail)
    }

    /// Adds an item, which is in no list, at the head. Writes the segment of the list into its state.
    #[inline]
    pub(super) fn push(&mut self, items: &Items, segment: Segment, id: ItemId) {
        let item = items.at(id);
        item.change_state(segment as u8, SEGMENT_MASK);
        item.set_prev(0);
        item.set_next(self.head);
        match ItemId::from_raw(self.head) {
            Some(head) => items.at(head).set_prev(id.bits()),
            None => self.tail = id.bits(),
        }
        self.head = id.bits();
        self.count += 1;
    }

    /// Removes an item.
    #[inline]
    pub(super) fn unlink(&mut self, items: &Items, id: ItemId) {
        let item = items.at(id);
        let (prev, next) = (item.prev(), item.next());
        match ItemId::from_raw(prev) {
            Some(prev) => items.at(prev).set_next(next),
            None => self.head = next,
        }
        match ItemId::from_raw(next) {
            Some(next) => items.at(next).set_prev(prev),
            None => self.tail = prev,
        }
        self.count -= 1;
    }

    /// Whether the list is empty, or `is_item` says that both of its ends are items.
    pub(super) fn is_sound(&self, is_item: impl Fn(ItemId) -> bool) -> bool {
        match (ItemId::from_raw(self.head), ItemId::from_raw(self.tail)) {
            (None, None) => self.count == 0,
            (Some(head), Some(tail)) => self.count > 0 && is_item(head) && is_item(tail),
            _ => false,
        }
    }

    /// Appends another list behind the tail.
    pub(super) fn append(&mut self, items: &Items, other: List) {
        match (ItemId::from_raw(self.tail), ItemId::from_raw(other.head)) {
            (_, None) => {}
            (None, _) => *self = other,
            (Some(tail), Some(head)) => {
                items.at(tail).set_next(head.bits());
                items.at(head).set_prev(tail.bits());
                self.tail = other.tail;
                self.count += other.count;
            }
        }
    }
}

/// The lists of all classes of a shard.
#[derive(Debug)]
pub(super) struct Lru {
    lists: Vec<[List; 4]>,
}

impl Lru {
    pub(super) fn new(classes: usize) -> Lru {
        Lru { lists: vec![[List::default(); 4]; classes + 1] }
    }

    /// The lists by class, for the next process.
    pub(super) fn roots(&self) -> &[[List; 4]] {
        &self.lists
    }

    #[inline]
    pub(super) fn count(&self, class: ClassId, segment: Segment) -> u32 {
        self.lists[class.index()][segment as usize].count
    }

    /// The number of items of a class.
    pub(super) fn total(&self, class: ClassId) -> u32 {
        self.lists[class.index()].iter().map(|list| list.count).sum()
    }

    #[inline]
    pub(super) fn tail(&self, class: ClassId, segment: Segment) -> Option<ItemId> {
        ItemId::from_raw(self.lists[class.index()][segment as usize].tail)
    }

    /// The item at the head, which came into the list last.
    pub(super) fn head(&self, class: ClassId, segment: Segment) -> Option<ItemId> {
        ItemId::from_raw(self.lists[class.index()][segment as usize].head)
    }

    /// Adds an item, which is in no list, at the head of a list. Writes the segment into its state.
    #[inline]
    pub(super) fn push(&mut self, items: &Items, class: ClassId, segment: Segment, id: ItemId) {
        self.lists[class.index()][segment as usize].push(items, segment, id);
    }

    /// Removes an item from its list.
    #[inline]
    pub(super) fn unlink(&mut self, items: &Items, class: ClassId, id: ItemId) {
        let segment = items.at(id).state() & SEGMENT_MASK;
        self.lists[class.index()][usize::from(segment)].unlink(items, id);
    }

    /// Replaces an empty list of a class by one that was built elsewhere.
    pub(super) fn adopt(&mut self, class: ClassId, segment: Segment, list: List) {
        let place = &mut self.lists[class.index()][segment as usize];
        debug_assert_eq!(place.count, 0);
        *place = list;
    }

    /// Replaces an item in its list by a copy, which has the state and the links of the item.
    pub(super) fn replace(&mut self, items: &Items, class: ClassId, old: ItemId, new: ItemId) {
        let item = items.at(old);
        let list = &mut self.lists[class.index()][usize::from(item.state() & SEGMENT_MASK)];
        match ItemId::from_raw(item.prev()) {
            Some(prev) => items.at(prev).set_next(new.bits()),
            None => list.head = new.bits(),
        }
        match ItemId::from_raw(item.next()) {
            Some(next) => items.at(next).set_prev(new.bits()),
            None => list.tail = new.bits(),
        }
    }

    /// The items of a list, from the tail on.
    pub(super) fn last_of<'a>(
        &self,
        items: &'a Items,
        class: ClassId,
        segment: Segment,
    ) -> impl Iterator<Item = ItemId> + use<'a> {
        let tail = ItemId::from_raw(self.lists[class.index()][segment as usize].tail);
        std::iter::successors(tail, |&id| ItemId::from_raw(items.at(id).prev()))
    }

    /// For tests: the first `count` items of a list, from the head on.
    #[cfg(any(test, fuzzing))]
    pub(super) fn first_of(&self, items: &Items, class: ClassId, segment: Segment, count: usize) -> Vec<ItemId> {
        let mut at = ItemId::from_raw(self.lists[class.index()][segment as usize].head);
        std::iter::from_fn(|| {
            let id = at?;
            at = ItemId::from_raw(items.at(id).next());
            Some(id)
        })
        .take(count)
        .collect()
    }

    /// For tests: checks the links of all lists.
    #[cfg(any(test, fuzzing))]
    pub(super) fn validate(&self, items: &Items) {
        for lists in &self.lists {
            for (segment, list) in lists.iter().enumerate() {
                let (mut at, mut prev, mut count) = (list.head, 0, 0);
                while let Some(id) = ItemId::from_raw(at) {
                    let item = items.at(id);
                    assert_eq!((item.prev(), usize::from(item.state() & SEGMENT_MASK)), (prev, segment));
                    (prev, at, count) = (at, item.next(), count + 1);
                }
                assert_eq!((list.tail, list.count), (prev, count));
            }
        }
    }
}
