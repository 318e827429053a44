//! The eviction policy: a segmented LRU.
//!
//! ```text
//!              hit                         no hit, or list too long
//!   set ──▶ HOT ───────────▶ WARM ◀──┐ hit   HOT, WARM ─────────────────▶ COLD ──▶ evicted
//!    │                         └─────┘                                     │
//!    └─ short TTL ─▶ TEMP                                 WARM ◀───────────┘ hit
//! ```
//! As in memcached new items enter HOT; active tails of HOT and COLD move to WARM, an active tail of WARM goes round again,
//! and other tails of HOT and WARM move to COLD, where victims are taken. A hit only sets bits in the item. All moves are
//! at tails: on eviction, and in small steps in between.
//!
//! An item is active from its first hit on; in memcached from its second. That misses less in every row of
//! `benches/hit_ratio.rs`: up to 2 % less on the paper's trace, 1 to 4 % with the Zipf law, 3 to 9 % through scans. (To evict
//! first what leaves HOT without a hit gains 8 to 20 % with the Zipf law and nothing on the trace, but loses what is read
//! for the first time after a while: without a memory of what was evicted nothing tells the two apart.)

use super::Store;
use super::arena::ItemId;
use super::item::{ACTIVE, FETCHED};
use super::lru::Segment;
use super::slab::ClassId;
use crate::clock::NEVER;

/// The segments in the order in which they give up items.
pub(super) const VICTIM_ORDER: [Segment; 4] = [Segment::Cold, Segment::Hot, Segment::Warm, Segment::Temp];

/// Marks that an item gets whose value was overwritten. It stays where it is in its list instead of moving to the head:
/// that would touch both neighbours and the head, three cache misses (`benches/store.rs`, overwrite).
pub(super) const OVERWRITTEN: u8 = ACTIVE;

/// How many tails an eviction passes over (active, pinned) before it gives up on a class.
const EVICTION_TRIES: usize = 64;
/// How many of those may be active items that get another round.
const SECOND_CHANCES: usize = 48;
/// Tails of HOT and WARM moved on before an eviction: a few each time, many when COLD has run empty.
const BALANCE_MOVES: usize = 2;
const BALANCE_MOVES_EMPTY: usize = 256;

impl Store {
    /// Marks an item as fetched once more, and counts the hit for its segment.
    #[inline]
    pub fn hit(&mut self, id: ItemId) {
        self.count_hit(id);
        self.bump(id);
    }

    /// Counts a fetch that leaves the item's age as it is (`mg` without bump).
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

    /// Marks an item as fetched once more.
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

    /// Marks an item as accessed, but not as fetched: a change, or an attempt at one (memcached's `do_item_update`).
    #[inline]
    pub fn refresh(&mut self, id: ItemId) {
        self.items.at(id).set_stamp(self.stamps.current());
    }

    /// Seconds since the last access of the item at the tail of a segment; 0 when it is empty.
    pub fn tail_age(&self, class: ClassId, segment: Segment) -> u32 {
        self.lru.tail(class, segment).map_or(0, |id| self.idle_seconds(id))
    }

    /// The items of a class, from the one that it would evict next on, as far as they are in the same list.
    pub(super) fn coldest(&self, class: ClassId) -> impl Iterator<Item = ItemId> {
        let segment = VICTIM_ORDER.into_iter().find(|&segment| self.lru.count(class, segment) > 0);
        self.lru.last_of(&self.items, class, segment.unwrap_or(Segment::Cold))
    }

    /// Puts a new item into a list of its class.
    #[inline]
    pub(super) fn enlist(&mut self, id: ItemId, class: ClassId, deadline: u32) {
        self.lru.push(&self.items, class, self.segment_for(deadline), id);
    }

    /// Moves an item whose value was overwritten to another segment if its new deadline demands that.
    #[inline]
    pub(super) fn refile(&mut self, id: ItemId, class: ClassId, segment: Segment, deadline: u32) {
        let wanted = self.segment_for(deadline);
        if (wanted == Segment::Temp) != (segment == Segment::Temp) {
            self.relist(class, id, wanted);
        }
    }

    /// The segment that a new item goes to.
    #[inline]
    fn segment_for(&self, deadline: u32) -> Segment {
        match self.options.temporary_ttl {
            _ if !self.options.segmented => Segment::Cold,
            Some(ttl) if deadline != NEVER && deadline.saturating_sub(self.now) <= ttl => Segment::Temp,
            _ => Segment::Hot,
        }
    }

    /// Frees at least one chunk of a class at the expense of the item that is worth least.
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
                if self.options.segmented {
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

    /// Asks for what the next eviction will need: the bucket of the next victim, whose own lines were asked for the time
    /// before, and the lines of the one after it (`benches/store.rs`, insert with eviction: 30 % at a million items).
    #[inline]
    fn prefetch_victim(&self, class: ClassId) {
        if let Some(next) = self.lru.tail(class, Segment::Cold) {
            let item = self.items.at(next);
            self.index.prefetch(self.hasher.hash(item.key()));
            self.prefetch_raw(item.prev());
        }
    }

    /// Asks for the header and the key of an item that is to be moved or removed.
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

    /// Moves up to `moves` tails of HOT, and as many of WARM, where they belong; says how many.
    pub(super) fn balance(&mut self, class: ClassId, moves: usize) -> usize {
        if !self.options.segmented {
            return self.flatten(class, moves);
        }
        let mut moved = 0;
        let total = self.lru.total(class);
        let cold_age = self.tail_age(class, Segment::Cold);
        for (segment, percent, factor) in [
            (Segment::Hot, self.options.hot_percent, self.options.hot_max_factor),
            (Segment::Warm, self.options.warm_percent, self.options.warm_max_factor),
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

    /// Moves up to `moves` items of the other segments to COLD, as a flat LRU has no others; says how many.
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
