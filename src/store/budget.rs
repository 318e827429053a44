//! The budget of pages: how many pages `-m` allows to all shards together, and which shard may take the next one.

use super::arena::{Arena, PageId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The pages of the cache, which its shards share and `-m` limits.
#[derive(Debug)]
pub struct Budget {
    pages: Mutex<Pages>,
    /// False when all pages are taken. With this hint a full cache does not take the lock for every eviction.
    open: AtomicBool,
    /// See [`Budget::lending`].
    credit_percent: u32,
    /// Bytes of a page.
    page_size: usize,
}

#[derive(Debug)]
struct Pages {
    limit: u32,
    /// By shard: bytes of its index, as far as the budget knows ([`Budget::take`]).
    index_bytes: Vec<usize>,
    taken: u32,
    /// By shard: its number of pages.
    held: Vec<u32>,
    /// Pages that shards gave back.
    free: Vec<PageId>,
    /// The first page that was never used.
    fresh: u32,
    /// Pages that the address space holds.
    reserved: u32,
    /// By shard: what the others know of it, so that pages move between shards.
    trades: Vec<Trade>,
    /// Bytes of a page.
    page_size: usize,
}

/// What other shards know of a shard.
#[derive(Clone, Copy, Debug, Default)]
struct Trade {
    /// Seconds that the items have idled which it would give up next; 0: it can spare none.
    age: u32,
    /// Another shard has asked it for a page.
    asked: bool,
    /// It has asked another shard for a page, and the next free page is its own.
    promised: bool,
}

/// An index of more than this part of the limit takes the place of pages: many small items need an index that may be a
/// quarter of their own size. A page that is in use stays if the index grows later.
const INDEX_SHARE: usize = 64;
/// Bytes of index that take the place of no page.
const INDEX_ALLOWED_MIN: usize = 1 << 20;

/// Whether a shard needs more pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Pages,
    Nothing,
}

/// What describes the pages of the cache to the next process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BudgetRoots {
    index_bytes: Vec<u64>,
    pub(super) held: Vec<u32>,
    pub(super) free: Vec<PageId>,
    pub(super) fresh: u32,
}

impl Budget {
    /// A budget of `limit` pages of an arena for `shards` shards.
    pub fn new(limit: u32, shards: usize, arena: &Arena) -> Budget {
        let pages = Pages {
            limit,
            index_bytes: vec![0; shards],
            taken: 0,
            held: vec![0; shards],
            free: Vec::new(),
            fresh: 1,
            reserved: arena.pages(),
            trades: vec![Trade::default(); shards],
            page_size: arena.page_size(),
        };
        Budget {
            pages: Mutex::new(pages),
            open: AtomicBool::new(true),
            credit_percent: 0,
            page_size: arena.page_size(),
        }
    }

    /// What describes the pages to the next process.
    pub(super) fn roots(&self) -> BudgetRoots {
        let pages = self.pages.lock();
        BudgetRoots {
            index_bytes: pages.index_bytes.iter().map(|&bytes| bytes as u64).collect(),
            held: pages.held.clone(),
            free: pages.free.clone(),
            fresh: pages.fresh,
        }
    }

    /// The pages of an earlier process, in place of none. The limit is that of this one.
    pub(super) fn attach(self, roots: BudgetRoots) -> Budget {
        let mut pages = self.pages.lock();
        pages.index_bytes = roots.index_bytes.iter().map(|&bytes| bytes as usize).collect();
        pages.taken = roots.held.iter().sum();
        (pages.held, pages.free, pages.fresh) = (roots.held, roots.free, roots.fresh);
        self.open.store(pages.taken < pages.room(), Relaxed);
        drop(pages);
        self
    }

    /// Makes the budget lend pages beyond the limit to classes in need ([`Budget::borrow_page`]): this percentage of
    /// the limit, rounded up. Housekeeping pays them back as if the limit had been lowered ([`Budget::surplus`]).
    pub fn lending(self, credit_percent: u32) -> Budget {
        Budget { credit_percent, ..self }
    }

    /// Takes a page for a shard. The budget keeps half of an equal share for each shard that has not taken so much yet,
    /// so that a shard that starts late finds pages as well. `index_bytes` is the size of the shard's index now: see
    /// [`INDEX_SHARE`].
    pub fn take(&self, shard: usize, index_bytes: usize) -> Option<PageId> {
        if !self.open.load(Relaxed) {
            return None;
        }
        let mut pages = self.pages.lock();
        pages.index_bytes[shard] = index_bytes;
        if pages.taken >= pages.room() {
            self.open.store(false, Relaxed);
            return None;
        }
        let is_free = pages.has_one_for(shard);
        pages.trades[shard].promised = false;
        if is_free { pages.hand_out(shard) } else { None }
    }

    /// For tests: whether [`Budget::take`] would give a shard a page.
    #[cfg(test)]
    pub(super) fn has_one_for(&self, shard: usize) -> bool {
        self.pages.lock().has_one_for(shard)
    }

    /// Takes a page beyond the limit for a shard, if the credit allows one.
    pub(super) fn borrow_page(&self, shard: usize) -> Option<PageId> {
        let mut pages = self.pages.lock();
        let credit = (u64::from(pages.limit) * u64::from(self.credit_percent)).div_ceil(100) as u32;
        if pages.taken >= pages.room() + credit { None } else { pages.hand_out(shard) }
    }

    /// Takes a page back from a shard.
    pub(super) fn give_back(&self, shard: usize, page: PageId) {
        let mut pages = self.pages.lock();
        pages.taken -= 1;
        pages.held[shard] -= 1;
        pages.free.push(page);
        self.open.store(pages.taken < pages.room(), Relaxed);
    }

    /// A shard tells the others how many seconds the items have idled that it would give up next (0: it can spare
    /// none), and whether it needs pages itself. True: another shard has asked it for a page.
    pub(super) fn report(&self, shard: usize, age: u32, need: Need) -> bool {
        let mut pages = self.pages.lock();
        // A shard keeps at least a quarter of an equal share.
        let floor = pages.limit / (4 * pages.held.len() as u32);
        let spare = pages.held[shard] > floor.max(1);
        let trade = &mut pages.trades[shard];
        trade.age = if spare { age } else { 0 };
        trade.promised &= need == Need::Pages;
        std::mem::take(&mut trade.asked) && spare
    }

    /// Asks the shard with the oldest items for a page, if these have idled for more than `age` seconds.
    pub(super) fn ask(&self, shard: usize, age: f64) {
        let mut pages = self.pages.lock();
        let others = pages.trades.iter_mut().enumerate().filter(|&(other, _)| other != shard).map(|(_, trade)| trade);
        let Some(oldest) = others.max_by_key(|trade| trade.age) else { return };
        if !oldest.asked && f64::from(oldest.age) > age {
            oldest.asked = true;
            pages.trades[shard].promised = true;
        }
    }

    /// Pages that shards gave back and no shard has taken since.
    pub fn pool(&self) -> u32 {
        self.pages.lock().free.len() as u32
    }

    /// Pages that a shard must give up so that the shards together keep the limit.
    pub fn surplus(&self, shard: usize) -> u32 {
        let pages = self.pages.lock();
        if pages.taken <= pages.limit {
            return 0;
        }
        (pages.taken - pages.limit).min(pages.held[shard].saturating_sub(pages.limit / pages.held.len() as u32))
    }

    /// Pages that are taken beyond the limit.
    pub fn lent(&self) -> u32 {
        let pages = self.pages.lock();
        pages.taken.saturating_sub(pages.limit)
    }

    /// Whether more pages are taken than the limit allows.
    pub fn is_exceeded(&self) -> bool {
        let pages = self.pages.lock();
        pages.taken > pages.limit
    }

    /// The limit, in pages.
    pub fn limit(&self) -> u32 {
        self.pages.lock().limit
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// The limit, in bytes.
    pub fn limit_bytes(&self) -> u64 {
        u64::from(self.limit()) * self.page_size as u64
    }

    /// Sets the limit, in bytes. False: the address space does not hold so many.
    pub fn set_limit_bytes(&self, limit: u64) -> bool {
        u32::try_from(limit / self.page_size as u64).is_ok_and(|pages| self.set_limit(pages))
    }

    /// Pages that may still be taken.
    pub fn free(&self) -> u32 {
        let pages = self.pages.lock();
        pages.room().saturating_sub(pages.taken)
    }

    /// Sets the limit, in pages. False: the address space does not hold so many.
    pub fn set_limit(&self, limit: u32) -> bool {
        let mut pages = self.pages.lock();
        if limit > pages.reserved {
            return false;
        }
        pages.limit = limit;
        self.open.store(pages.taken < pages.room(), Relaxed);
        true
    }
}

impl Pages {
    /// Pages that may be in use: the limit, less those whose place a large index takes, which are at most half of it.
    fn room(&self) -> u32 {
        let index: usize = self.index_bytes.iter().sum();
        let allowed = (self.limit as usize * self.page_size / INDEX_SHARE).max(INDEX_ALLOWED_MIN);
        let pages = index.saturating_sub(allowed) / self.page_size;
        self.limit.saturating_sub(u32::try_from(pages).unwrap_or(u32::MAX)).max(self.limit.div_ceil(2))
    }

    /// Whether a shard may have a page: one that the budget does not keep for another shard.
    fn has_one_for(&self, shard: usize) -> bool {
        let floor = self.limit / (2 * self.held.len() as u32);
        let others = || (0..self.held.len()).filter(|&other| other != shard);
        let owed: u32 = others().map(|other| floor.saturating_sub(self.held[other])).sum();
        let promises = others().filter(|&other| self.trades[other].promised).count() as u32;
        let kept = if self.trades[shard].promised || self.held[shard] < floor { 0 } else { owed.max(promises) };
        self.taken + kept < self.room()
    }

    /// Gives a shard a page that no shard has.
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
        let arena = Arena::reserve(16, 1 << 20).expect("address space");
        let budget = Budget::new(16, 2, &arena);
        let mut pages: Vec<PageId> = std::iter::from_fn(|| budget.take(0, 0)).collect();
        while budget.take(1, 0).is_some() {}
        assert_eq!(pages.len(), 12);
        // The budget asks a shard for a page only if the shard's items are older.
        assert!(!budget.report(0, 100, Need::Nothing));
        budget.ask(1, 100.0);
        assert!(!budget.report(0, 100, Need::Nothing));
        budget.ask(1, 99.0);
        assert!(budget.report(0, 100, Need::Pages));
        assert!(!budget.report(0, 100, Need::Pages), "it is asked once");
        budget.give_back(0, pages.pop().expect("twelve"));
        assert_eq!(budget.take(0, 0), None, "it is promised");
        assert!(budget.take(1, 0).is_some());
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
        let arena = Arena::reserve(10, 1 << 20).expect("address space");
        let budget = Budget::new(10, 2, &arena);
        let greedy = std::iter::from_fn(|| budget.take(0, 0)).count();
        let late = std::iter::from_fn(|| budget.take(1, 0)).count();
        assert_eq!((greedy, late, budget.free()), (8, 2, 0));
    }

    #[test]
    fn a_large_index_takes_the_place_of_pages() {
        let arena = Arena::reserve(96, 1 << 20).expect("address space");
        let budget = Budget::new(96, 1, &arena);
        let taken = |index_mib: usize| std::iter::from_fn(|| budget.take(0, index_mib << 20)).count();
        // 1.5 of 12 MiB are free, and the rest is rounded down.
        assert_eq!((taken(12), budget.free(), budget.is_exceeded()), (86, 0, false));
        assert!(budget.set_limit(86));
        assert_eq!((taken(11), budget.free()), (0, 0));
        assert!(budget.set_limit(96));
        assert_eq!((budget.free(), taken(2)), (0, 0));
        // The limit says what may be in use at all, so no page must leave when the index grows.
        assert_eq!((taken(40), budget.surplus(0)), (0, 0));
    }
}
