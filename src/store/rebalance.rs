//! Pages change hands: from a class with old items to one that starves ([`automove`](super::automove)), by request
//! (`slabs reassign`), and back to the budget when a limit was lowered, or when a class that had nothing to evict was
//! given a page on credit.
//!
//! ```text
//! close the page ──▶ a few chunks a turn: rescue what lives, reclaim what is dead ──▶ empty: hand it over
//!       ▲                          │ still busy after MOVE_SECONDS_MAX, or no memory for a rescue
//!       └──────── reopen ◀─────────┘
//! ```
//! A page that leaves does not take its items with it: each is copied to a free chunk of its class, or of a page that is
//! free. If there is none the class evicts as it always does, so that it loses as many items as the page holds, but its
//! coldest ones. Pages are taken first from classes that lose nothing by it. Items that are being received or sent are
//! waited for; a page with one that takes too long stays, and another is tried.
//!
//! A shard moves one page at a time, in steps of some hundred microseconds at most: see [`Store::move_pages`].

use super::Store;
use super::arena::{ItemId, PageId};
use super::gather::Pace;
use super::item::Chunk;
use super::room::RECLAIM_STEPS;
use super::slab::ClassId;
use super::stats::ClassCounters;

use std::cmp::Reverse;

/// Seconds that a page with busy items is waited for.
const MOVE_SECONDS_MAX: u32 = 5;
/// Pages compared to find the one with the fewest items.
const PAGES_COMPARED: usize = 64;
/// Pages of a class that are searched for one that can be emptied at once.
const PAGES_SEARCHED: usize = 256;
/// Evictions for one rescue. Those that free chunks of the page itself give the item no room, but are progress.
const RESCUE_EVICTIONS: u32 = 8;
/// Copying so many bytes is about as much work as looking at a chunk, or evicting an item.
const BYTES_PER_STEP: u32 = 2048;

/// What kept the last page that had to wait, by memcached's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Busy {
    /// Nothing yet.
    #[default]
    None,
    /// There was no memory to rescue an item to.
    NoMemory,
    /// An item was being received.
    Uploading,
    /// An item was being sent.
    Active,
    /// An item was being sent, and had been deleted meanwhile.
    Floating,
}

impl Busy {
    /// As `slab_reassign_last_busy_status` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Busy::None => "none",
            Busy::NoMemory => "busy",
            Busy::Uploading => "busy_uploading",
            Busy::Active => "busy_active",
            Busy::Floating => "busy_floating",
        }
    }
}

/// What `slabs reassign` comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reassigned {
    /// A page is on its way.
    Started,
    /// Another page is on its way.
    Busy,
    /// There are not so many classes.
    BadClass,
    /// There is no page that could go.
    NoSpare,
}

/// The page that is on its way.
#[derive(Debug)]
struct Move {
    /// Invariant: closed.
    page: PageId,
    /// The class that it goes to; none: the budget.
    to: Option<ClassId>,
    /// The chunk to look at next.
    place: u32,
    /// Chunks that had to be left in use so far in this round over the page.
    left_behind: u32,
    /// There was nowhere to rescue an item to.
    no_memory: bool,
    /// The next round begins when the clock has come here.
    resume_at: u32,
    /// The page stays if it is still in use then.
    give_up_at: u32,
}

/// What a shard knows of its moves.
#[derive(Debug, Default)]
pub(super) struct Mover {
    current: Option<Move>,
    /// A page that could not be emptied: not the one to try next.
    avoid: Option<PageId>,
    /// After a failure nothing is begun before this count of the clock.
    retry_at: u32,
    pub(super) last_busy: Busy,
    /// The classes of the move that was begun last, until [`Store::housekeep`] is called again.
    pub(super) begun: Option<(ClassId, Option<ClassId>)>,
}

impl Mover {
    /// Whether a page is on its way.
    pub(super) fn is_running(&self) -> bool {
        self.current.is_some()
    }
}

/// Room to rescue an item to.
enum Room {
    Found(ItemId),
    /// Not needed any more: the item was the coldest itself.
    Evicted,
    /// Not yet: all that was evicted lay on the page itself.
    Later,
    None,
}

/// What became of a chunk of the page that is on its way.
enum Cleared {
    Done,
    /// It is for the next round.
    Later,
    NoMemory,
}

impl Store {
    /// Gives back a page without items, unless it is the last that its class has room in. Says whether it did.
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

    /// Takes a page without items from whichever class has one.
    pub(super) fn take_empty_page(&mut self, class: ClassId) -> bool {
        if !self.slabs.has_empty_page() {
            return false;
        }
        let Some(page) = self.slabs.ids().find_map(|other| self.slabs.empty_page(other)) else { return false };
        self.slabs.give_up(page);
        self.slabs.adopt(class, page);
        true
    }

    /// Takes a page for a class that has neither a free chunk nor anything to evict: on credit, which housekeeping pays back
    /// in small steps; or, where there is none, from another class, at whose expense it is if that has no room for what the
    /// page holds: for a value that can wait in steps ([`Store::gather`]), for others at once, which takes up to 2 ms for a
    /// page of the smallest chunks (`benches/pauses.rs`).
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
        // The page that was on its way may have become empty meanwhile.
        if self.take_empty_page(class) {
            return true;
        }
        // The best one first; any other will do if that holds something that is being received or sent.
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

    /// Classes with items, but one, in the order in which they should give up a page: first those that have room elsewhere
    /// for whatever a page of theirs holds, then the one whose tail has idled longest, and of equals the one with most pages.
    /// Those with a single page come last: it may be the one that the class was just given.
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

    /// Empties a page at once, and closes it: an item finds room in its class, or is evicted. `can_empty` said yes.
    fn empty(&mut self, page: PageId) {
        let class = self.slabs.class_of(page);
        self.slabs.close(page);
        for id in self.slabs.chunks(page, &self.items) {
            while let Some(head) = self.head_of(id) {
                if self.items.chunk(head) == Chunk::Floating {
                    // The rest of a long item that was evicted for another of its chunks.
                    if !self.free_remains() {
                        return;
                    }
                } else if self.items.at(head).is_large() {
                    let cleared = self.rescue_large(head, class, page, &mut 0);
                    // The head itself may have found room, and a body none.
                    if matches!(cleared, Cleared::NoMemory)
                        && let Some(head) = self.head_of(id)
                    {
                        self.evict_for_move(head, class);
                    }
                } else if let Some(to) = self.slabs.allocate(class, &self.items) {
                    self.relocate(id, to, class);
                } else {
                    self.evict_for_move(id, class);
                }
            }
        }
    }

    /// The item that a chunk is part of.
    fn head_of(&self, id: ItemId) -> Option<ItemId> {
        match self.items.chunk(id) {
            Chunk::Free => None,
            Chunk::Linked | Chunk::Floating => Some(id),
            Chunk::Body(head) => Some(head),
        }
    }

    /// Whether no item on a page is being received or written.
    fn can_empty(&self, page: PageId) -> bool {
        self.slabs.chunks(page, &self.items).all(|id| match self.items.chunk(id) {
            Chunk::Free => true,
            Chunk::Linked => !self.is_pinned(id),
            Chunk::Body(head) => self.items.chunk(head) == Chunk::Linked && !self.is_pinned(head),
            Chunk::Floating => false,
        })
    }

    /// Evicts an item because of where it lies: not a sign that its class starves.
    fn evict_for_move(&mut self, id: ItemId, class: ClassId) {
        let before = self.class_counters[class.index()].evicted;
        self.evict_for_room(id, class);
        let counters = &mut self.class_counters[class.index()];
        counters.evicted_by_moves += counters.evicted - before;
    }

    /// `slabs reassign`: sends a page of a class that has another one (of any such class but the target, if none is named)
    /// to another class, or to the budget if that is 0. Class 0 as the source is the budget as well.
    pub fn reassign(&mut self, from: Option<ClassId>, to: ClassId) -> Reassigned {
        let large = self.slabs.large();
        if to > large || from.is_some_and(|from| from > large) {
            return Reassigned::BadClass;
        }
        if self.mover.is_running() {
            return Reassigned::Busy;
        }
        if from == Some(ClassId(0)) {
            let taken = self.budget.pool() > 0 && self.slabs.take_page(to, &self.budget);
            return if taken { Reassigned::Started } else { Reassigned::NoSpare };
        }
        let mut sources: Vec<ClassId> = match from {
            Some(from) => vec![from],
            None => self.donors(Some(to)),
        };
        sources.retain(|&class| self.slabs.page_count(class) > 1);
        let to = (to.index() != 0).then_some(to);
        if sources.into_iter().any(|class| self.start_move(class, to)) {
            Reassigned::Started
        } else if from.is_none() {
            // As memcached, which has found no class then.
            Reassigned::BadClass
        } else {
            Reassigned::NoSpare
        }
    }

    /// Begins to move a page of a class to another class, or to the budget. Says whether there was a page.
    pub(super) fn start_move(&mut self, from: ClassId, to: Option<ClassId>) -> bool {
        let Some(page) = self.page_to_move(from) else { return false };
        self.slabs.close(page);
        let give_up_at = self.now + MOVE_SECONDS_MAX;
        self.mover.current =
            Some(Move { page, to, place: 0, left_behind: 0, no_memory: false, resume_at: 0, give_up_at });
        self.mover.begun = Some((from, to));
        true
    }

    /// The move of a page that the last call of [`Store::housekeep`] began: from a class, to another or to the budget.
    pub fn page_move_begun(&self) -> Option<(ClassId, Option<ClassId>)> {
        self.mover.begun
    }

    /// Whether a move may begin: none is on its way, and none has just failed.
    pub(super) fn may_move(&self) -> bool {
        self.mover.current.is_none() && self.mover.retry_at <= self.now
    }

    /// The page of a class with the fewest items among some of them, and of equals the one of the coldest item: what was
    /// stored together has often cooled together, and what is cold need not be rescued.
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

    /// Goes on emptying the page that is on its way: about `steps` chunks are looked at, fewer where they are long. Says
    /// whether there was something to do.
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

    /// All chunks were looked at and some had to stay.
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
            }
            None => self.slabs.return_page(moving.page, &self.budget, &self.items),
        }
        self.mover.avoid = None;
        self.counters.slabs_moved += 1;
    }

    /// A free chunk of the page that is on its way, if it is one of this class: for when all that a class would evict lies
    /// there.
    pub(super) fn chunk_of_moving_page(&mut self, class: ClassId) -> Option<ItemId> {
        let page = self.mover.current.as_ref()?.page;
        if self.slabs.class_of(page) == class { self.slabs.allocate_on(page, &self.items) } else { None }
    }

    /// Leaves the page that is on its way where it is.
    pub fn stop_moving(&mut self) {
        if let Some(moving) = self.mover.current.take() {
            self.slabs.reopen(moving.page);
        }
    }

    /// Empties a chunk of the page that is on its way, if that can be done now. The work is taken off `steps`.
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
            self.evict_item(head, class);
            return;
        }
        let cleared = if item.is_large() {
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

    /// Why an item cannot be moved or evicted now.
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

    /// As `rescue`, with all chunks of a large item that lie on a page. It takes as long as freeing the item would.
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

    /// A free chunk for an item of its class: on another of its pages, on a free page, in place of a dead item, and if need
    /// be of one that is colder. The work, and that of copying the item there, is taken off `steps`.
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
            // To reclaim takes a look at chunks, and an eviction passes over what is in use.
            let work = |counters: &ClassCounters| {
                counters.crawler_items_checked + counters.moves_to_warm + counters.moves_to_cold
            };
            *steps = steps.saturating_sub(1 + (work(counters) - work(&before)) as u32);
            // Nothing was allocated since: the chunk of an item that has gone is free.
            if self.items.chunk(item) != Chunk::Linked {
                return Room::Evicted;
            }
        }
        Room::Later
    }

    /// Takes a page that costs nobody anything, but one that is kept free for new items.
    fn take_free_page(&mut self, class: ClassId) -> bool {
        let reserved = self.pages_reserved();
        (reserved == 0 || self.budget.free() > reserved) && self.slabs.take_page(class, &self.budget)
            || self.take_empty_page(class)
    }

    /// Copies the chunk in which an item begins to another, and makes the index and the list name that one.
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

    /// Begins to give a page back if more are in use than there may be: an empty one at once, or one of the class whose items
    /// have idled longest. Says whether there is more to do.
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
