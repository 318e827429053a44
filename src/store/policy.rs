//! The eviction policy: a segmented LRU.
//!
//! ```text
//!              hit                         no hit, or list too long
//!   set ──▶ HOT ───────────▶ WARM ◀──┐ hit   HOT, WARM ─────────────────▶ COLD ──▶ evicted
//!    │                         └─────┘                                     │
//!    └─ short TTL ─▶ TEMP                                 WARM ◀───────────┘ hit
//! ```
//! As in memcached, new items enter HOT. An active item at the tail of HOT or COLD moves to WARM. An active item at the
//! tail of WARM moves to the head of WARM. Other items at the tails of HOT and WARM move to COLD, and the store evicts
//! from the tail of COLD. A hit only sets bits in the item. All moves start at tails: evictions make some, housekeeping
//! makes others in small steps.
//!
//! Here an item is active from its first hit on; in memcached, from its second. This lowers the misses in every row of
//! `benches/hit_ratio.rs`: by up to 2 % on the paper's trace, 1 to 4 % with the Zipf law, 3 to 9 % with scans. Another
//! policy would evict first the items that leave HOT without a hit. It gains 8 to 20 % with the Zipf law and nothing on
//! the trace, but it loses items whose first read comes late: without a record of evicted keys it cannot tell these
//! from the others.
//!
//! This file holds the whole policy: which segment an item enters, what a hit does, which item a class evicts next, and
//! when items move. [`lru`](super::lru) knows only lists, and [`eviction`](super::eviction) only how to evict.

use super::Store;
use super::arena::ItemId;
use super::item::{ACTIVE, FETCHED};
use super::lru::Segment;
use super::slab::ClassId;
use crate::clock::NEVER;

/// The segments in the order in which they give up items.
pub(super) const VICTIM_ORDER: [Segment; 4] = [Segment::Cold, Segment::Hot, Segment::Warm, Segment::Temp];

/// The state bits that an overwritten item gets. It keeps its place in its list. A move to the head would touch both
/// neighbours and the head, which are three cache misses (`benches/store.rs`, overwrite).
const OVERWRITTEN: u8 = ACTIVE;

/// Active and pinned items that an eviction passes over at the tails before it gives up on a class.
const EVICTION_TRIES: usize = 64;
/// The first of these tries, in which active items are spared.
const SECOND_CHANCES: usize = 48;
/// Items that an eviction first moves on from the tails of HOT and WARM: a few, or many when COLD is empty.
const BALANCE_MOVES: usize = 2;
const BALANCE_MOVES_EMPTY: usize = 256;

impl Store {
    /// Marks an item as fetched, and counts the hit for its segment.
    #[inline]
    pub fn hit(&mut self, id: ItemId) {
        self.count_hit(id);
        self.bump(id);
    }

    /// Counts a hit but does not renew the item's age (`mg` without bump).
    #[inline]
    pub fn count_hit(&mut self, id: ItemId) {
        let class = self.class_of(id);
        let counters = &mut self.class_counters[class.index()];
        match Segment::of(self.items.at(id).state()) {
            Segment::Hot => counters.hits_to_hot += 1,
            Segment::Warm => counters.hits_to_warm += 1,
            Segment::Cold => counters.hits_to_cold += 1,
            Segment::Temp => counters.hits_to_temp += 1,
        }
    }

    /// Marks an item as fetched, and renews its age.
    #[inline]
    pub fn bump(&mut self, id: ItemId) {
        let item = self.items.at(id);
        let state = item.state();
        if state & (FETCHED | ACTIVE) != FETCHED | ACTIVE {
            item.change_state(FETCHED | ACTIVE, 0);
        }
        if item.stamp() != self.stamps.current() {
            item.set_stamp(self.stamps.current());
        }
    }

    /// Renews an item's age but does not mark it as fetched, for a change or an attempt at one (memcached's
    /// `do_item_update`).
    #[inline]
    pub fn refresh(&mut self, id: ItemId) {
        self.items.at(id).set_stamp(self.stamps.current());
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
    pub(super) fn enlist(&mut self, id: ItemId, class: ClassId, deadline: u32) {
        self.lru.push(&self.items, class, self.segment_for(deadline), id);
    }

    /// Writes a new value of an item into the item's own chunk, and says which segment the item is in. The item keeps
    /// its place there.
    #[inline]
    pub(super) fn overwrite(&mut self, id: ItemId, key: &[u8], client_flags: u32, value: &[u8]) -> Segment {
        let item = self.items.at(id);
        let (next, prev, segment) = (item.next(), item.prev(), Segment::of(item.state()));
        let item = self.items.create(id, key, client_flags, value.len());
        item.set_value(value);
        item.set_next(next);
        item.set_prev(prev);
        item.change_state(segment as u8 | OVERWRITTEN, 0);
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

    /// Evicts the item of a class that is worth least. False: it found none.
    pub(super) fn evict(&mut self, class: ClassId) -> bool {
        if !self.options.evict {
            return false;
        }
        let starved = self.lru.count(class, Segment::Cold) == 0;
        self.balance(class, if starved { BALANCE_MOVES_EMPTY } else { BALANCE_MOVES });
        for attempt in 0..EVICTION_TRIES {
            let victim =
                VICTIM_ORDER.into_iter().find_map(|segment| self.lru.tail(class, segment).map(|id| (id, segment)));
            let Some((id, segment)) = victim else { return false };
            let item = self.items.at(id);
            let state = item.state();
            if self.is_pinned(id) {
                self.relist(class, id, segment);
            } else if state & ACTIVE != 0
                && segment != Segment::Temp
                && attempt < SECOND_CHANCES
                && self.death(&item).is_none()
            {
                item.change_state(0, ACTIVE);
                if self.options.tuning.lru.segmented {
                    self.class_counters[class.index()].moves_to_warm += 1;
                    self.relist(class, id, Segment::Warm);
                } else {
                    self.class_counters[class.index()].moves_within_lru += 1;
                    self.relist(class, id, Segment::Cold);
                }
            } else {
                self.evict_for_room(id, class);
                self.prefetch_victim(class);
                return true;
            }
        }
        false
    }

    /// Prefetches memory that the next eviction will need: the index bucket of its victim, and the item that comes
    /// after this victim. The eviction before has prefetched the victim itself. (`benches/store.rs`, insert with
    /// eviction: 30 % at a million items.)
    #[inline]
    fn prefetch_victim(&self, class: ClassId) {
        if let Some(next) = self.lru.tail(class, Segment::Cold) {
            let item = self.items.at(next);
            self.index.prefetch(self.hasher.hash(item.key()));
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

    /// Moves up to `moves` items from the tail of HOT, and as many from the tail of WARM, to the segments where they
    /// belong. Gives the number of items moved.
    pub(super) fn balance(&mut self, class: ClassId, moves: usize) -> usize {
        if !self.options.tuning.lru.segmented {
            return self.flatten(class, moves);
        }
        let mut moved = 0;
        let total = self.lru.total(class);
        let cold_age = self.tail_age(class, Segment::Cold);
        for (segment, percent, factor) in [
            (Segment::Hot, self.options.tuning.lru.hot_percent, self.options.tuning.lru.hot_max_factor),
            (Segment::Warm, self.options.tuning.lru.warm_percent, self.options.tuning.lru.warm_max_factor),
        ] {
            let limit = (u64::from(total) * u64::from(percent) / 100) as u32;
            let age_max = (f64::from(cold_age) * factor) as u32;
            for _ in 0..moves {
                let Some(id) = self.lru.tail(class, segment) else { break };
                let item = self.items.at(id);
                self.prefetch_raw(item.prev());
                let idle_seconds = self.idle_seconds(id);
                let counters = &mut self.class_counters[class.index()];
                if item.state() & ACTIVE != 0 {
                    item.change_state(0, ACTIVE);
                    if segment == Segment::Hot {
                        counters.moves_to_warm += 1;
                    } else {
                        counters.moves_within_lru += 1;
                    }
                    self.relist(class, id, Segment::Warm);
                } else if self.lru.count(class, segment) > limit || idle_seconds > age_max {
                    counters.moves_to_cold += 1;
                    self.relist(class, id, Segment::Cold);
                } else {
                    break;
                }
                moved += 1;
            }
        }
        moved
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
