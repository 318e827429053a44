//! The budget of pages: what `-m` allows all shards together, and which shard may have the next page.

use super::arena::{Arena, PageId};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The pages of the cache, shared by its shards: what `-m` limits.
#[derive(Debug)]
pub struct Budget {
    pages: Mutex<Pages>,
    /// A hint, so that a full cache does not take the lock for each eviction: false when all pages are taken.
    open: AtomicBool,
    /// See [`Budget::lending`].
    credit_percent: u32,
}

#[derive(Debug)]
struct Pages {
    limit: u32,
    taken: u32,
    /// Pages of each shard.
    held: Vec<u32>,
    /// Pages that were given back.
    free: Vec<PageId>,
    /// The first page that was never used.
    fresh: u32,
    /// Pages there is address space for.
    reserved: u32,
    /// What shards tell each other, so that pages move between them.
    trades: Vec<Trade>,
}

/// A shard, as the others see it.
#[derive(Clone, Copy, Debug, Default)]
struct Trade {
    /// Seconds that the items idle which it would give up next; 0: it can spare none.
    age: u32,
    /// A page that it is asked to give up.
    asked: bool,
    /// A page that another was asked to give up for it.
    promised: bool,
}

/// Whether a shard needs more pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Pages,
    Nothing,
}

impl Budget {
    /// A budget of `limit` pages for `shards` shards, out of an arena.
    pub fn new(limit: u32, shards: usize, arena: &Arena) -> Budget {
        let pages = Pages {
            limit,
            taken: 0,
            held: vec![0; shards],
            free: Vec::new(),
            fresh: 1,
            reserved: arena.pages(),
            trades: vec![Trade::default(); shards],
        };
        Budget { pages: Mutex::new(pages), open: AtomicBool::new(true), credit_percent: 0 }
    }

    /// Lends pages beyond the limit, as many percent of it rounded up, to classes in need ([`Budget::borrow_page`]). Housekeeping pays
    /// them back as it does when the limit was lowered ([`Budget::surplus`]).
    pub fn lending(self, credit_percent: u32) -> Budget {
        Budget { credit_percent, ..self }
    }

    /// A page for a shard. Half of an equal share is kept for each shard that has not taken it yet, so that a shard that
    /// starts late is not left without.
    pub fn take(&self, shard: usize) -> Option<PageId> {
        if !self.open.load(Relaxed) {
            return None;
        }
        let mut pages = self.pages.lock();
        if pages.taken >= pages.limit {
            self.open.store(false, Relaxed);
            return None;
        }
        let is_free = pages.has_one_for(shard);
        pages.trades[shard].promised = false;
        if is_free { pages.hand_out(shard) } else { None }
    }

    /// Whether [`Budget::take`] would give a shard a page: for tests.
    #[cfg(test)]
    pub(super) fn has_one_for(&self, shard: usize) -> bool {
        self.pages.lock().has_one_for(shard)
    }

    /// A page beyond the limit, if there is credit for one.
    pub(super) fn borrow_page(&self, shard: usize) -> Option<PageId> {
        let mut pages = self.pages.lock();
        let credit = (u64::from(pages.limit) * u64::from(self.credit_percent)).div_ceil(100) as u32;
        if pages.taken >= pages.limit + credit { None } else { pages.hand_out(shard) }
    }

    /// Takes a page back from a shard.
    pub(super) fn give_back(&self, shard: usize, page: PageId) {
        let mut pages = self.pages.lock();
        pages.taken -= 1;
        pages.held[shard] -= 1;
        pages.free.push(page);
        self.open.store(pages.taken < pages.limit, Relaxed);
    }

    /// A shard tells the others how many seconds the items have idled that it would give up next (0: it can spare none), and
    /// whether it needs pages itself. True: another shard has asked it for a page.
    pub(super) fn report(&self, shard: usize, age: u32, need: Need) -> bool {
        let mut pages = self.pages.lock();
        // What has been given up already leaves a shard with at least a quarter of an equal share.
        let floor = pages.limit / (4 * pages.held.len() as u32);
        let spare = pages.held[shard] > floor.max(1);
        let trade = &mut pages.trades[shard];
        trade.age = if spare { age } else { 0 };
        trade.promised &= need == Need::Pages;
        std::mem::take(&mut trade.asked) && spare
    }

    /// Asks the shard with the oldest items for a page, if they have idled for longer than `age` seconds.
    pub(super) fn ask(&self, shard: usize, age: f64) {
        let mut pages = self.pages.lock();
        let others = pages.trades.iter_mut().enumerate().filter(|&(other, _)| other != shard).map(|(_, trade)| trade);
        let Some(oldest) = others.max_by_key(|trade| trade.age) else { return };
        if !oldest.asked && f64::from(oldest.age) > age {
            oldest.asked = true;
            pages.trades[shard].promised = true;
        }
    }

    /// Pages that were in use and are not now.
    pub fn pool(&self) -> u32 {
        self.pages.lock().free.len() as u32
    }

    /// How many pages a shard must give up for the budget to be kept.
    pub fn surplus(&self, shard: usize) -> u32 {
        let pages = self.pages.lock();
        if pages.taken <= pages.limit {
            return 0;
        }
        (pages.taken - pages.limit).min(pages.held[shard].saturating_sub(pages.limit / pages.held.len() as u32))
    }

    /// Whether more pages are taken than there may be.
    pub fn is_exceeded(&self) -> bool {
        let pages = self.pages.lock();
        pages.taken > pages.limit
    }

    /// The limit, in pages.
    pub fn limit(&self) -> u32 {
        self.pages.lock().limit
    }

    /// Pages that may still be taken.
    pub fn free(&self) -> u32 {
        let pages = self.pages.lock();
        pages.limit.saturating_sub(pages.taken)
    }

    /// Sets the limit, in pages; false when there is no address space for it.
    pub fn set_limit(&self, limit: u32) -> bool {
        let mut pages = self.pages.lock();
        if limit > pages.reserved {
            return false;
        }
        pages.limit = limit;
        self.open.store(pages.taken < limit, Relaxed);
        true
    }
}

impl Pages {
    /// Whether a shard may have a page: not one that is kept for others.
    fn has_one_for(&self, shard: usize) -> bool {
        let floor = self.limit / (2 * self.held.len() as u32);
        let others = || (0..self.held.len()).filter(|&other| other != shard);
        let owed: u32 = others().map(|other| floor.saturating_sub(self.held[other])).sum();
        let promises = others().filter(|&other| self.trades[other].promised).count() as u32;
        let kept = if self.trades[shard].promised || self.held[shard] < floor { 0 } else { owed.max(promises) };
        self.taken + kept < self.limit
    }

    /// A page that nobody has, as one of a shard.
    fn hand_out(&mut self, shard: usize) -> Option<PageId> {
        let page = match self.free.pop() {
            Some(page) => page,
            None if self.fresh <= self.reserved => {
                self.fresh += 1;
                PageId(self.fresh - 1)
            }
            None => return None,
        };
        self.taken += 1;
        self.held[shard] += 1;
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_goes_to_the_shard_it_was_asked_for() {
        let arena = Arena::reserve(16, false).expect("address space");
        let budget = Budget::new(16, 2, &arena);
        let mut pages: Vec<PageId> = std::iter::from_fn(|| budget.take(0)).collect();
        while budget.take(1).is_some() {}
        assert_eq!(pages.len(), 12);
        // Nobody is asked for what is not older.
        assert!(!budget.report(0, 100, Need::Nothing));
        budget.ask(1, 100.0);
        assert!(!budget.report(0, 100, Need::Nothing));
        budget.ask(1, 99.0);
        assert!(budget.report(0, 100, Need::Pages));
        assert!(!budget.report(0, 100, Need::Pages), "it is asked once");
        budget.give_back(0, pages.pop().expect("twelve"));
        assert_eq!(budget.take(0), None, "it is promised");
        assert!(budget.take(1).is_some());
        // A shard keeps a quarter of an equal share.
        for _ in 0..9 {
            budget.give_back(0, pages.pop().expect("eleven"));
        }
        budget.report(0, 100, Need::Nothing);
        budget.ask(1, 10.0);
        assert!(!budget.report(0, 100, Need::Nothing));
    }

    #[test]
    fn a_late_shard_gets_half_of_its_share() {
        let arena = Arena::reserve(10, false).expect("address space");
        let budget = Budget::new(10, 2, &arena);
        let greedy = std::iter::from_fn(|| budget.take(0)).count();
        let late = std::iter::from_fn(|| budget.take(1)).count();
        assert_eq!((greedy, late, budget.free()), (8, 2, 0));
    }
}
