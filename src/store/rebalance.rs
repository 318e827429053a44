//! Moves of pages. A page moves from a class with old items to one that starves ([`automove`](super::automove)), or at
//! the request of a client (`slabs reassign`). It moves to the budget if the limit was lowered, or if a class without
//! anything to evict got a page on credit.
//!
//! ```text
//! close the page ──▶ a few chunks a turn: rescue what lives, reclaim what is dead ──▶ empty: hand it over
//!       ▲                          │ still busy after MOVE_SECONDS_MAX, or no memory for a rescue
//!       └──────── reopen ◀─────────┘
//! ```
//! The items of a page stay in their class: each is copied to a free chunk of its class, or to one of a free page.
//! Without such a chunk the class evicts as always. So it loses as many items as the page holds, but these are its
//! coldest ones. Classes that lose nothing give up pages first. The mover waits for items that a client is sending or
//! reading. If this takes too long the page stays, and the mover tries another.
//!
//! A shard moves one page at a time, in steps of some hundred microseconds at most: see [`Store::move_pages`].

use super::Store;
use super::arena::{ItemId, PageId};
use super::item::Chunk;
use super::moves::{Busy, Move, Pace};
use super::room::RECLAIM_STEPS;
use super::slab::{ClassId, Slabs};
use super::stats::ClassCounters;

use std::cmp::Reverse;

/// Seconds that the mover waits for the busy items of a page.
const MOVE_SECONDS_MAX: u32 = 5;
/// Pages compared to find the one with the fewest items.
const PAGES_COMPARED: usize = 64;
/// Pages of a class that are searched for one that can be emptied at once.
const PAGES_SEARCHED: usize = 256;
/// Evictions for one rescue. An eviction that frees a chunk of the page itself makes no room for the item, but it is
/// progress.
const RESCUE_EVICTIONS: u32 = 8;
/// To copy this many bytes takes about as long as to look at a chunk or to evict an item.
const BYTES_PER_STEP: u32 = 2048;

/// The result of `slabs reassign`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reassigned {
    /// A page has begun to move.
    Started,
    /// Another page is moving.
    Busy,
    /// A class does not exist.
    BadClass,
    /// No page can move.
    NoSpare,
}

/// The result of a search for room to rescue an item.
enum Room {
    Found(ItemId),
    /// The item needs no room any more: it was evicted, as the coldest one.
    Evicted,
    /// Not yet: all evicted items were on the page itself.
    Later,
    None,
}

/// The result of an attempt to clear a chunk of the page that is moving.
enum Cleared {
    Done,
    /// The next round tries again.
    Later,
    NoMemory,
}

/// Steps for moving an item in a list, which touches its neighbours.
const RELIST_STEPS: u64 = 8;

impl Store {
    /// Gives a page without items back to the budget, unless its class has no room on another page. Says whether it
    /// did.
    pub(super) fn return_an_empty_page(&mut self) -> bool {
        if !self.slabs.has_empty_page() {
            return false;
        }
        let spare = self
            .slabs
            .ids()
            .find_map(|class| self.slabs.empty_page(class).filter(|&page| self.slabs.has_other_room(class, page)));
        if let Some(page) = spare {
            self.slabs.return_page(page, &self.budget, &self.items);
        }
        spare.is_some()
    }

    /// Takes a page without items from any class that has one.
    pub(super) fn take_empty_page(&mut self, class: ClassId) -> bool {
        self.take_page_of_class(class, Slabs::empty_page)
    }

    /// Takes an empty page that a client has assigned to another class. Without it, the class would have no memory.
    pub(super) fn take_assigned_page(&mut self, class: ClassId) -> bool {
        self.take_page_of_class(class, Slabs::assigned_page)
    }

    fn take_page_of_class(&mut self, class: ClassId, page_of: fn(&Slabs, ClassId) -> Option<PageId>) -> bool {
        if !self.slabs.has_empty_page() {
            return false;
        }
        let Some(page) = self.slabs.ids().find_map(|other| page_of(&self.slabs, other)) else { return false };
        self.slabs.give_up(page);
        self.slabs.adopt(class, page);
        true
    }

    /// Takes a page for a class that has neither a free chunk nor an item to evict. It takes the page on credit, which
    /// housekeeping pays back in small steps. Without credit it takes a page of another class, and evicts its items if
    /// that class has no room for them. For a value that can wait ([`Store::gather`]) it empties the page in steps; for
    /// other items, at once, which takes up to 2 ms for a page of the smallest chunks (`benches/pauses.rs`).
    pub(super) fn take_from_other_class(&mut self, class: ClassId) -> bool {
        if !self.options.reassign || !self.options.evict {
            return false;
        }
        if self.slabs.borrow_page(class, &self.budget) {
            return true;
        }
        if self.pace != Pace::AtOnce {
            return self.hasten_page(class);
        }
        self.stop_moving();
        // The page that was moving may have become empty meanwhile.
        if self.take_empty_page(class) {
            return true;
        }
        // The best page first. If it holds an item that a client is sending or reading, any other page will do.
        let pages_of = |from| {
            let coldest = self.coldest(from).next().map(|id| self.items.arena().page(id));
            let some = self.slabs.pages_of(from).iter().copied().take(PAGES_SEARCHED);
            self.page_to_move(from).into_iter().chain(coldest).chain(some)
        };
        let page = self.donors(Some(class)).into_iter().flat_map(pages_of).find(|&page| self.can_empty(page));
        let Some(page) = page else { return false };
        self.empty(page);
        if self.slabs.used(page) > 0 {
            self.slabs.reopen(page);
            return false;
        }
        self.slabs.give_up(page);
        self.slabs.adopt(class, page);
        self.counters.slabs_moved += 1;
        true
    }

    /// All classes with items, except one, in the order in which they should give up a page. Classes come first that
    /// have room for the items of a page elsewhere. Then the class comes first whose coldest item has idled longest,
    /// and of equal ones, the class with the most pages. Classes with a single page come last: they may have just
    /// received it.
    pub(super) fn donors(&self, not: Option<ClassId>) -> Vec<ClassId> {
        let classes = self.slabs.ids().filter(|&class| Some(class) != not);
        let mut donors: Vec<ClassId> = classes.filter(|&class| self.coldest(class).next().is_some()).collect();
        donors.sort_by_cached_key(|&class| {
            let pages = self.slabs.page_count(class);
            let is_full = self.slabs.free_chunks(class) < self.slabs.usage(class).chunks_per_page;
            let age = self.coldest(class).next().map_or(0, |id| self.idle_seconds(id));
            (pages == 1, is_full, Reverse(age), Reverse(pages))
        });
        donors
    }

    /// Closes a page and empties it at once: it moves each item to a free chunk of its class, or evicts it.
    /// [`Store::can_empty`] is true for the page.
    fn empty(&mut self, page: PageId) {
        let class = self.slabs.class_of(page);
        self.slabs.close(page);
        for id in self.slabs.chunks(page, &self.items) {
            while let Some(head) = self.head_of(id) {
                if self.items.chunk(head) == Chunk::Floating {
                    // The rest of a long item, which another of its chunks caused to be evicted.
                    if !self.free_remains() {
                        return;
                    }
                } else if self.items.at(head).is_large() {
                    let cleared = self.rescue_large(head, class, page, &mut 0);
                    // The head itself may have found room, and a body may have found none.
                    if matches!(cleared, Cleared::NoMemory)
                        && let Some(head) = self.head_of(id)
                        && !self.take_empty_page(class)
                    {
                        self.evict_for_move(head, class);
                    }
                } else if let Some(to) = self.slabs.allocate(class, &self.items) {
                    self.relocate(id, to, class);
                } else if !self.take_empty_page(class) {
                    // A large item that was evicted may have left another page empty.
                    self.evict_for_move(id, class);
                }
            }
        }
    }

    /// The item to which a chunk belongs.
    fn head_of(&self, id: ItemId) -> Option<ItemId> {
        match self.items.chunk(id) {
            Chunk::Free => None,
            Chunk::Linked | Chunk::Floating => Some(id),
            Chunk::Body(head) => Some(head),
        }
    }

    /// Whether a page can be emptied: no client is sending or reading one of its items.
    fn can_empty(&self, page: PageId) -> bool {
        self.slabs.chunks(page, &self.items).all(|id| match self.items.chunk(id) {
            Chunk::Free => true,
            Chunk::Linked => !self.is_pinned(id),
            Chunk::Body(head) => self.items.chunk(head) == Chunk::Linked && !self.is_pinned(head),
            Chunk::Floating => false,
        })
    }

    /// Evicts an item because its page has to be emptied, and `needed`, the class of the page, has no room for it. This is
    /// no sign that the item's class starves.
    fn evict_for_move(&mut self, id: ItemId, needed: ClassId) {
        self.assert_that_eviction_is_needed(needed);
        let class = self.class_of(id);
        let before = self.class_counters[class.index()].evicted;
        self.evict_item(id, class);
        let counters = &mut self.class_counters[class.index()];
        counters.evicted_by_moves += counters.evicted - before;
    }

    /// `slabs reassign`: begins to move a page from a class with more than one page. If `from` is `None`, the store
    /// chooses the class. Class 0 stands for the budget, as the source and as the target.
    pub fn reassign(&mut self, from: Option<ClassId>, to: ClassId) -> Reassigned {
        let largest = self.slabs.largest();
        if to > largest || from.is_some_and(|from| from > largest) {
            return Reassigned::BadClass;
        }
        if self.mover.is_running() {
            return Reassigned::Busy;
        }
        if from == Some(ClassId(0)) {
            let page =
                if self.budget.pool() > 0 { self.budget.take(self.slabs.shard(), self.index_bytes()) } else { None };
            let Some(page) = page else { return Reassigned::NoSpare };
            self.slabs.adopt(to, page);
            self.slabs.assign(page);
            return Reassigned::Started;
        }
        let mut sources: Vec<ClassId> = match from {
            Some(from) => vec![from],
            None => self.donors(Some(to)),
        };
        sources.retain(|&class| self.slabs.page_count(class) > 1);
        let to = (to.index() != 0).then_some(to);
        if sources.into_iter().any(|class| self.start_move(class, to)) {
            if let Some(moving) = &mut self.mover.current {
                moving.is_requested = true;
            }
            Reassigned::Started
        } else if from.is_none() {
            // The answer of memcached, which found no class.
            Reassigned::BadClass
        } else {
            Reassigned::NoSpare
        }
    }

    /// Begins to move a page of a class to another class, or to the budget. Says whether it found a page.
    pub(super) fn start_move(&mut self, from: ClassId, to: Option<ClassId>) -> bool {
        let Some(page) = self.page_to_move(from) else { return false };
        self.slabs.close(page);
        let give_up_at = self.now + MOVE_SECONDS_MAX;
        self.mover.current = Some(Move {
            page,
            to,
            is_requested: false,
            place: 0,
            left_behind: 0,
            no_memory: false,
            resume_at: 0,
            give_up_at,
        });
        self.mover.begun = Some((from, to));
        true
    }

    /// The move that the last call of [`Store::housekeep`] began: from a class, to another class or (`None`) to the
    /// budget.
    pub fn page_move_begun(&self) -> Option<(ClassId, Option<ClassId>)> {
        self.mover.begun
    }

    /// Whether a move may begin: no page is moving, and no move has just failed.
    pub(super) fn may_move(&self) -> bool {
        self.mover.current.is_none() && self.mover.retry_at <= self.now
    }

    /// The page that a class gives up next. Of some of its pages it is the one with the fewest items, and of equal
    /// ones, the page of the coldest item: items stored together often cool together, and cold items need no rescue.
    fn page_to_move(&self, class: ClassId) -> Option<PageId> {
        let pages = self.slabs.pages_of(class);
        let coldest = self.coldest(class).next().map(|id| self.items.arena().page(id));
        let start = self.now as usize * PAGES_COMPARED;
        let some = (0..pages.len().min(PAGES_COMPARED)).map(|nth| pages[(start + nth) % pages.len()]);
        coldest
            .into_iter()
            .chain(some)
            .filter(|&page| Some(page) != self.mover.avoid)
            .min_by_key(|&p| self.slabs.used(p))
    }

    /// Continues to empty the page that is moving. It looks at about `steps` chunks, or at fewer if they are long. Says
    /// whether it had work to do.
    pub fn move_pages(&mut self, steps: u32) -> bool {
        let Some(mut moving) = self.mover.current.take() else { return false };
        if self.now < moving.resume_at {
            self.mover.current = Some(moving);
            return false;
        }
        let mut left = steps;
        while left > 0 && self.slabs.used(moving.page) > 0 {
            let Some(id) = self.slabs.chunk(moving.page, moving.place, &self.items) else {
                return self.end_round(moving);
            };
            moving.place += 1;
            left = left.saturating_sub(1);
            self.clear(id, &mut moving, &mut left);
        }
        if self.slabs.used(moving.page) == 0 {
            self.hand_over(&moving);
        } else {
            self.mover.current = Some(moving);
        }
        true
    }

    /// Ends a round over all chunks of a page, some of which had to stay.
    fn end_round(&mut self, mut moving: Move) -> bool {
        if moving.no_memory || self.now >= moving.give_up_at {
            self.mover.avoid = Some(moving.page);
            self.mover.retry_at = self.now + 1;
            self.slabs.reopen(moving.page);
            return false;
        }
        moving.place = 0;
        if moving.left_behind > 0 {
            moving.resume_at = self.now + 1;
        }
        moving.left_behind = 0;
        self.mover.current = Some(moving);
        true
    }

    fn hand_over(&mut self, moving: &Move) {
        match moving.to {
            Some(class) => {
                self.slabs.give_up(moving.page);
                self.slabs.adopt(class, moving.page);
                if moving.is_requested {
                    self.slabs.assign(moving.page);
                }
            }
            None => self.slabs.return_page(moving.page, &self.budget, &self.items),
        }
        self.mover.avoid = None;
        self.counters.slabs_moved += 1;
    }

    /// Takes a free chunk of the page that is moving, if the page is one of this class. A class needs this if all items
    /// that it would evict are on this page.
    pub(super) fn chunk_of_moving_page(&mut self, class: ClassId) -> Option<ItemId> {
        let page = self.mover.current.as_ref()?.page;
        if self.slabs.class_of(page) == class { self.slabs.allocate_on(page, &self.items) } else { None }
    }

    /// Stops the move of a page. It stays in its class.
    pub fn stop_moving(&mut self) {
        if let Some(moving) = self.mover.current.take() {
            self.slabs.reopen(moving.page);
        }
    }

    /// Clears a chunk of the page that is moving, if this is possible now. Subtracts the work from `steps`.
    fn clear(&mut self, id: ItemId, moving: &mut Move, steps: &mut u32) {
        let Some(head) = self.head_of(id) else { return };
        if let Some(busy) = self.busy(head) {
            moving.left_behind += 1;
            self.mover.last_busy = busy;
            self.counters.reassign_busy_items += 1;
            self.counters.reassign_busy_deletes += u64::from(busy == Busy::Floating);
            return;
        }
        let class = self.slabs.class_of(moving.page);
        let item = self.items.at(head);
        if self.death(&item).is_some() {
            self.evict_item(head, self.class_of(head));
            return;
        }
        self.settle(head);
        let cleared = if self.items.at(head).is_large() {
            self.rescue_large(head, class, moving.page, steps)
        } else {
            self.rescue(id, class, steps)
        };
        if matches!(cleared, Cleared::NoMemory) {
            moving.no_memory = true;
            self.mover.last_busy = Busy::NoMemory;
            self.counters.reassign_busy_nomem += 1;
        }
    }

    /// Why an item can be neither moved nor evicted now; `None`: it can.
    fn busy(&self, head: ItemId) -> Option<Busy> {
        let floating = self.items.chunk(head) == Chunk::Floating;
        match (self.is_pinned(head), floating) {
            (true, true) => Some(Busy::Floating),
            (true, false) => Some(Busy::Active),
            (false, true) => Some(Busy::Uploading),
            (false, false) => None,
        }
    }

    /// Copies a small item to another chunk.
    fn rescue(&mut self, id: ItemId, class: ClassId, steps: &mut u32) -> Cleared {
        match self.room_for(id, class, steps) {
            Room::Found(to) => {
                self.counters.reassign_rescues += 1;
                self.relocate(id, to, class);
                Cleared::Done
            }
            Room::Evicted => Cleared::Done,
            Room::Later => Cleared::Later,
            Room::None => Cleared::NoMemory,
        }
    }

    /// Copies all chunks of a large item that are on a page. This takes as long as to free the item.
    fn rescue_large(&mut self, mut head: ItemId, class: ClassId, page: PageId, steps: &mut u32) -> Cleared {
        if self.items.arena().page(head) == page {
            let to = match self.room_for(head, class, steps) {
                Room::Found(to) => to,
                Room::Evicted => return Cleared::Done,
                Room::Later => return Cleared::Later,
                Room::None => return Cleared::NoMemory,
            };
            let mut body = self.items.first_body(head);
            while let Some(chunk) = body {
                self.items.set_head(chunk, to);
                body = self.items.next_chunk(chunk);
            }
            self.relocate(head, to, class);
            self.counters.reassign_rescues += 1;
            head = to;
        }
        let mut before = head;
        let mut body = self.items.first_body(head);
        while let Some(chunk) = body {
            body = self.items.next_chunk(chunk);
            if self.items.arena().page(chunk) != page {
                before = chunk;
                continue;
            }
            let to = match self.room_for(head, class, steps) {
                Room::Found(to) => to,
                Room::Evicted => return Cleared::Done,
                Room::Later => return Cleared::Later,
                Room::None => return Cleared::NoMemory,
            };
            self.items.copy_chunk(chunk, to);
            self.items.set_next_body(before, to);
            self.free_chunk(chunk);
            self.counters.reassign_chunk_rescues += 1;
            before = to;
        }
        Cleared::Done
    }

    /// Finds a free chunk for an item of a class: on another page of the class, on a free page, or in place of a dead
    /// item or, if necessary, of a colder one. Subtracts this work, and the work of the copy to come, from `steps`.
    fn room_for(&mut self, item: ItemId, class: ClassId, steps: &mut u32) -> Room {
        for attempt in 0..RESCUE_EVICTIONS {
            if let Some(to) = self.slabs.allocate(class, &self.items) {
                *steps = steps.saturating_sub(1 + self.slabs.usage(class).chunk_size / BYTES_PER_STEP);
                return Room::Found(to);
            }
            self.counters.reassign_inline_reclaim += u64::from(attempt > 0);
            let before = self.class_counters[class.index()];
            if self.take_free_page(class) {
                continue;
            }
            if !self.reclaim(class, RECLAIM_STEPS) && !self.evict(class) {
                return Room::None;
            }
            let counters = &mut self.class_counters[class.index()];
            counters.evicted_by_moves += counters.evicted - before.evicted;
            // A search for dead items looks at chunks, and an eviction passes over items in use.
            let work = |counters: &ClassCounters| {
                counters.crawler_items_checked + RELIST_STEPS * (counters.moves_to_warm + counters.moves_within_lru)
            };
            *steps = steps.saturating_sub(1 + (work(counters) - work(&before)) as u32);
            // No chunk was allocated since: if the item is gone, its chunk is free.
            if self.items.chunk(item) != Chunk::Linked {
                return Room::Evicted;
            }
        }
        Room::Later
    }

    /// Takes a page from the budget for a class.
    pub(super) fn take_page(&mut self, class: ClassId) -> bool {
        let index_bytes = self.index_bytes();
        self.slabs.take_page(class, &self.budget, index_bytes)
    }

    /// Takes a page that no class loses, but none that is kept free for new items.
    fn take_free_page(&mut self, class: ClassId) -> bool {
        let reserved = self.pages_reserved();
        (reserved == 0 || self.budget.free() > reserved) && self.take_page(class) || self.take_empty_page(class)
    }

    /// Copies the chunk in which an item begins to another chunk, and puts that one into the index and the list.
    fn relocate(&mut self, from: ItemId, to: ItemId, class: ClassId) {
        let item = self.items.at(from);
        let hash = self.hasher.hash(item.key());
        let (_, place) = self.index.find(hash, |other| other == from).expect("a linked item is in the index");
        self.items.copy_chunk(from, to);
        self.index.replace(place, to);
        self.lru.replace(&self.items, class, from, to);
        self.note_deadline(to, item.exptime());
        self.free_chunk(from);
    }

    /// If more pages are in use than the limit allows, gives an empty page back at once, or begins to move a page of
    /// the class whose items have idled longest. Says whether it did either.
    pub(super) fn shrink(&mut self) -> bool {
        if !self.may_move() || self.budget.surplus(self.slabs.shard()) == 0 {
            return false;
        }
        let of_class = |class| self.slabs.empty_page(class).map(|page| (class, page));
        if let Some((class, page)) = self.slabs.ids().find_map(of_class) {
            self.slabs.return_page(page, &self.budget, &self.items);
            self.mover.begun = Some((class, None));
            return true;
        }
        self.donors(None).into_iter().any(|class| self.start_move(class, None))
    }
}
