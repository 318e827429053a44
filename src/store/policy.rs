//! The eviction policy: a segmented LRU that knows which keys it has evicted.
//!
//! ```text
//!            ┌────────── newcomers ───────────┐            ┌─── proven ───┐
//!   set ──▶ HOT ─────────────────────────▶ COLD ──▶ evicted     WARM ──▶ evicted
//!    │       └── hit, at the tail of either ──┴───────────────▶ ▲  └─ hit ─┘
//!    ├─ evicted lately ─────────────────────────────────────────┘
//!    └─ short TTL ─▶ TEMP
//! ```
//! A new item enters HOT, and moves on to COLD: together they are one queue of newcomers. An item that has been hit when
//! it comes to the end of the queue has proven itself, and enters WARM. Any other is evicted there. In WARM, an item
//! that has been hit since it was last at the tail goes back to the head, and any other is evicted. A hit only sets bits
//! in the item.
//!
//! Newcomers have a small share of each class, so that what is read once soon makes room (as in S3-FIFO, Yang et al.
//! 2023). How large the share should be depends on the traffic, and [`ghosts`](super::ghosts) tell it: if a key comes
//! back just after its item was evicted as a newcomer, a larger share would have saved it, and the share grows; if the
//! item was evicted from WARM, the share shrinks. If a key comes back long after, the share grows as well, but only while
//! nothing in WARM is hit. With keys that are read exactly twice it comes near to the whole class, which is then a plain
//! LRU.
//!
//! A key that comes back has proven itself as well, and its item enters WARM if WARM has an item to spare: one at its tail
//! without a hit. If WARM has none, newcomers get no larger share, either. Otherwise a loop over more keys than fit would
//! drive all of them out in turn.
//!
//! Two rules are about proven items that are not. While nothing has been evicted yet, the class cannot tell, and lets new
//! items fill WARM too: a loop then keeps them. And one eviction in [`PROBE_EVERY`] tries the tail of WARM first, so that
//! items without hits do not stay for ever because no newcomer proves itself.
//!
//! `benches/hit_ratio.rs` compares the misses with those of LRU, S3-FIFO and SIEVE.
//!
//! This file holds the whole policy: which segment an item enters, what a hit does, which item a class evicts next, and
//! when items move. [`lru`](super::lru) knows only lists, and [`eviction`](super::eviction) only how to evict.

use super::Store;
use super::arena::ItemId;
use super::ghosts::Ghost;
use super::item::{ACTIVE, FETCHED, Item};
use super::lru::Segment;
use super::slab::ClassId;
use super::tuning::LruTuning;
use crate::clock::NEVER;
use std::cmp::Reverse;

/// The segments in the order in which they give up items, if newcomers have their share.
pub(super) const VICTIM_ORDER: [Segment; 4] = [Segment::Cold, Segment::Hot, Segment::Warm, Segment::Temp];

/// Newcomers of a class that fills for the first time, before others enter WARM.
const NEWCOMERS_FEW: u32 = 16;
/// Items at the end of a list of which the longest is evicted.
const NEARBY: usize = 8;
/// One eviction in so many tries WARM first.
const PROBE_EVERY: u64 = 32;

/// The state bits that an overwritten item gets. It keeps its place in its list. A move to the head would touch both
/// neighbours and the head, which are three cache misses (`benches/store.rs`, overwrite).
const OVERWRITTEN: u8 = ACTIVE;

/// Active and pinned items that an eviction passes over at the tails before it gives up on a class.
const EVICTION_TRIES: usize = 224;
/// The first of these tries, which may concern WARM although there are newcomers.
const WARM_TRIES: usize = 128;
/// The first of these tries, in which active items are spared.
const SECOND_CHANCES: usize = 192;

impl Store {
    /// Marks an item as fetched, and counts the hit for its segment.
    #[inline(always)]
    pub fn hit(&mut self, id: ItemId) -> Item<'_> {
        let class = self.class_of(id);
        let item = self.items.at(id);
        self.class_hits[class.index()][Segment::number_in(item.state())] += 1;
        self.renew(&item);
        item
    }

    /// Counts a hit but does not renew the item's age (`mg` without bump).
    #[inline]
    pub fn count_hit(&mut self, id: ItemId) {
        let class = self.class_of(id);
        self.class_hits[class.index()][Segment::number_in(self.items.at(id).state())] += 1;
    }

    /// Marks an item as fetched, and renews its age.
    #[inline]
    pub fn bump(&mut self, id: ItemId) {
        self.renew(&self.items.at(id));
    }

    #[inline(always)]
    fn renew(&self, item: &Item<'_>) {
        let state = item.state();
        if state & (FETCHED | ACTIVE) != FETCHED | ACTIVE {
            item.change_state(FETCHED | ACTIVE, 0);
        }
        // A stamp that is ahead of the clock stays.
        if item.stamp() < self.stamps.current() {
            item.set_stamp(self.stamps.current());
        }
    }

    /// Renews an item's age but does not mark it as fetched, for a change or an attempt at one (memcached's
    /// `do_item_update`).
    #[inline]
    pub fn refresh(&mut self, id: ItemId) {
        let item = self.items.at(id);
        item.set_stamp(item.stamp().max(self.stamps.current()));
    }

    /// Seconds that the item at the tail of a segment has idled; 0 if the segment is empty.
    pub fn tail_age(&self, class: ClassId, segment: Segment) -> u32 {
        self.lru.tail(class, segment).map_or(0, |id| self.idle_seconds(id))
    }

    /// The item that a class would evict next, and those that follow it in the same list.
    pub(super) fn coldest(&self, class: ClassId) -> impl Iterator<Item = ItemId> {
        let segment = VICTIM_ORDER.into_iter().find(|&segment| self.lru.count(class, segment) > 0);
        self.lru.last_of(&self.items, class, segment.unwrap_or(Segment::Cold))
    }

    /// Puts a new item into a list of its class.
    #[inline]
    pub(super) fn enlist(&mut self, id: ItemId, class: ClassId, hash: u64, deadline: u32) {
        let segment = match self.segment_for(deadline) {
            Segment::Hot if self.is_proven(class, hash) => Segment::Warm,
            segment => segment,
        };
        self.lru.push(&self.items, class, segment, id);
    }

    /// Whether a new item enters WARM at once.
    #[inline]
    fn is_proven(&mut self, class: ClassId, hash: u64) -> bool {
        let items = self.index.len();
        if !self.has_evicted {
            return self.newcomers_of(class) > self.newcomers_wanted(class).max(NEWCOMERS_FEW);
        }
        let Some(ghost) = self.ghosts.take(hash) else { return false };
        if ghost == Ghost::Proven {
            self.newcomers.shrink(items);
        }
        if let Some(tail) = self.lru.tail(class, Segment::Warm)
            && self.items.at(tail).state() & ACTIVE != 0
        {
            self.spare(tail, class);
            return false;
        }
        match ghost {
            Ghost::Near => self.newcomers.grow(items),
            Ghost::Far => {
                let hits = self.class_hits[class.index()][Segment::Warm as usize];
                self.newcomers.grow_far(items, class, hits);
            }
            Ghost::Proven => {}
        }
        true
    }

    /// Prefetches what the record of evicted keys may know of a new item.
    #[inline]
    pub(super) fn prefetch_ghost(&self, hash: u64) {
        if self.has_evicted {
            self.ghosts.prefetch(hash);
        }
    }

    /// Records that an item of a segment is evicted.
    #[inline]
    pub(super) fn leave_ghost(&mut self, id: ItemId, hash: u64) {
        if !self.options.tuning.lru.segmented {
            return;
        }
        self.has_evicted = true;
        self.ghosts.fit(self.index.len());
        match Segment::of(self.items.at(id).state()) {
            Segment::Hot | Segment::Cold => self.ghosts.note(hash, false),
            Segment::Warm => self.ghosts.note(hash, true),
            Segment::Temp => {}
        }
    }

    /// Writes a new value of an item into the item's own chunk, and says which segment the item is in. The item keeps
    /// its place there.
    #[inline]
    pub(super) fn overwrite(&self, id: ItemId, key: &[u8], client_flags: u32, value: &[u8]) -> Segment {
        let item = self.items.at(id);
        let segment = Segment::of(item.state());
        item.overwrite(key, client_flags, value, segment as u8 | OVERWRITTEN);
        segment
    }

    /// Moves an overwritten item from its segment to another one if its new deadline requires it.
    #[inline]
    pub(super) fn refile(&mut self, id: ItemId, class: ClassId, segment: Segment, deadline: u32) {
        let wanted = self.segment_for(deadline);
        if (wanted == Segment::Temp) != (segment == Segment::Temp) {
            self.relist(class, id, wanted);
        }
    }

    /// The segment that a new item enters.
    #[inline]
    fn segment_for(&self, deadline: u32) -> Segment {
        match self.options.tuning.temporary_ttl {
            _ if !self.options.tuning.lru.segmented => Segment::Cold,
            Some(ttl) if deadline != NEVER && deadline.saturating_sub(self.now) <= ttl => Segment::Temp,
            _ => Segment::Hot,
        }
    }

    /// The number of newcomers in a class.
    #[inline]
    fn newcomers_of(&self, class: ClassId) -> u32 {
        self.lru.count(class, Segment::Hot) + self.lru.count(class, Segment::Cold)
    }

    /// The number of newcomers that a class should have.
    #[inline]
    fn newcomers_wanted(&self, class: ClassId) -> u32 {
        self.newcomers.wanted(self.newcomers_of(class) + self.lru.count(class, Segment::Warm))
    }

    /// The segment that gives up the next item of a class, and the item at its tail.
    #[inline]
    fn victim(&self, class: ClassId) -> Option<(ItemId, Segment)> {
        let proven = self.lru.tail(class, Segment::Warm).map(|id| (id, Segment::Warm));
        proven
            .filter(|_| self.newcomers_of(class) < self.newcomers_wanted(class))
            .or_else(|| self.victim_in_order(class))
    }

    /// The item that a class gives up if its newcomers have their share.
    #[inline]
    fn victim_in_order(&self, class: ClassId) -> Option<(ItemId, Segment)> {
        VICTIM_ORDER.into_iter().find_map(|segment| self.lru.tail(class, segment).map(|id| (id, segment)))
    }

    /// Evicts the item of a class that is worth least. False: it found none.
    pub(super) fn evict(&mut self, class: ClassId) -> bool {
        if !self.options.evict {
            return false;
        }
        self.evictions = self.evictions.wrapping_add(1);
        let probed =
            if self.evictions.is_multiple_of(PROBE_EVERY) { self.lru.tail(class, Segment::Warm) } else { None };
        let mut first = probed.map(|id| (id, Segment::Warm));
        for attempt in 0..EVICTION_TRIES {
            let next = || if attempt < WARM_TRIES { self.victim(class) } else { self.victim_in_order(class) };
            let Some((id, segment)) = first.take().or_else(next) else { return false };
            let item = self.items.at(id);
            if self.is_pinned(id) {
                self.relist(class, id, segment);
            } else if item.state() & ACTIVE != 0
                && segment != Segment::Temp
                && attempt < SECOND_CHANCES
                && self.death(&item).is_none()
            {
                self.spare(id, class);
            } else {
                let id = if class == self.slabs.largest() { self.longest_nearby(id) } else { id };
                self.evict_for_room(id, class);
                self.prefetch_victim(class);
                return true;
            }
        }
        false
    }

    /// The longest of the items without a hit at the end of a list of the largest class, where values of all lengths meet.
    /// One long item takes the memory of many shorter ones, which bring more hits.
    fn longest_nearby(&self, tail: ItemId) -> ItemId {
        let from_tail = std::iter::successors(Some(tail), |&id| ItemId::from_raw(self.items.at(id).prev()));
        let idle = from_tail.take(NEARBY).filter(|&id| self.items.at(id).state() & ACTIVE == 0 && !self.is_pinned(id));
        idle.min_by_key(|&id| Reverse(self.items.at(id).value_len())).unwrap_or(tail)
    }

    /// Moves an active item, which is at the tail of a list, to where active items belong. It is not active any more.
    #[inline]
    fn spare(&mut self, id: ItemId, class: ClassId) {
        let item = self.items.at(id);
        let segment = Segment::of(item.state());
        item.change_state(0, ACTIVE);
        let counters = &mut self.class_counters[class.index()];
        if !self.options.tuning.lru.segmented {
            counters.moves_within_lru += 1;
            return self.relist(class, id, Segment::Cold);
        }
        if segment == Segment::Warm {
            counters.moves_within_lru += 1;
        } else {
            counters.moves_to_warm += 1;
        }
        self.relist(class, id, Segment::Warm);
    }

    /// Prefetches memory that the next eviction will need: the index bucket of its victim, and the item that comes
    /// after this victim. The eviction before has prefetched the victim itself. (`benches/store.rs`, insert with
    /// eviction: 30 % at a million items.)
    #[inline]
    fn prefetch_victim(&self, class: ClassId) {
        if let Some((next, _)) = self.victim(class) {
            let item = self.items.at(next);
            let hash = self.hasher.hash(item.key());
            self.index.prefetch(hash);
            self.prefetch_ghost(hash);
            self.prefetch_raw(item.prev());
        }
    }

    /// Prefetches the header and the key of an item that will be moved or removed.
    #[inline]
    pub(super) fn prefetch_raw(&self, raw: u32) {
        if let Some(id) = ItemId::from_raw(raw) {
            self.items.arena().prefetch(id, 64);
        }
    }

    /// Moves an item to the head of a segment.
    #[inline]
    pub(super) fn relist(&mut self, class: ClassId, id: ItemId, to: Segment) {
        self.lru.unlink(&self.items, class, id);
        self.lru.push(&self.items, class, to, id);
    }

    /// Moves up to `moves` items from the tail of HOT to the segments where they belong. Gives the number of items moved.
    pub(super) fn balance(&mut self, class: ClassId, moves: usize) -> usize {
        if !self.options.tuning.lru.segmented {
            return self.flatten(class, moves);
        }
        let LruTuning { hot_percent, warm_percent, .. } = self.options.tuning.lru;
        let limit = u64::from(self.newcomers_of(class)) * u64::from(hot_percent) / u64::from(100 - warm_percent);
        let cold_age = self.tail_age(class, Segment::Cold);
        let age_max = (f64::from(cold_age) * self.options.tuning.lru.hot_max_factor) as u32;
        for moved in 0..moves {
            let Some(id) = self.lru.tail(class, Segment::Hot) else { return moved };
            let item = self.items.at(id);
            self.prefetch_raw(item.prev());
            if item.state() & ACTIVE != 0 {
                self.spare(id, class);
            } else if u64::from(self.lru.count(class, Segment::Hot)) > limit || self.idle_seconds(id) > age_max {
                self.class_counters[class.index()].moves_to_cold += 1;
                self.relist(class, id, Segment::Cold);
            } else {
                return moved;
            }
        }
        moves
    }

    /// Moves up to `moves` items of other segments to COLD, the only segment of a flat LRU. Gives the number of items
    /// moved.
    fn flatten(&mut self, class: ClassId, moves: usize) -> usize {
        for moved in 0..moves {
            let next =
                [Segment::Temp, Segment::Hot, Segment::Warm].into_iter().find_map(|from| self.lru.tail(class, from));
            let Some(id) = next else { return moved };
            self.class_counters[class.index()].moves_to_cold += 1;
            self.relist(class, id, Segment::Cold);
        }
        moves
    }
}
