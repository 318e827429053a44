//! Housekeeping: the work that a store does between turns, in small steps.

use super::Store;
use super::slab::ClassId;

impl Store {
    /// Does a small bounded part of the work. For one class it searches about `steps` chunks for dead items and moves
    /// as many items between segments; it also clears four times as many chunks of a page that moves. Repeated calls
    /// visit every class, and once a second one of them decides which class needs pages.
    ///
    /// It searches for dead items only if `crawler_on` and [`StoreOptions::maintain`](super::StoreOptions::maintain)
    /// are true. It says whether it found work.
    pub fn housekeep(&mut self, steps: u32, crawler_on: bool) -> bool {
        let class = ClassId(self.housekeeping_next);
        self.counters.juggles += 1;
        self.mover.begun = None;
        self.housekeeping_next = if class >= self.slabs.largest() { 1 } else { class.0 + 1 };
        let mut busy = false;
        if self.slabs.page_count(class) > 0 {
            if crawler_on && self.options.maintain {
                busy |= self.reclaim_ahead(class, steps) > 0;
            }
            if self.options.maintain {
                busy |= self.balance(class, steps as usize) > 0;
            }
        }
        busy |= self.free_remains();
        busy |= self.return_an_empty_page();
        busy |= self.shrink() || self.automove();
        self.move_pages(4 * steps) || busy
    }

    /// Calls of [`Store::housekeep`] after which each class was visited once.
    pub fn housekeeping_round(&self) -> usize {
        usize::from(self.slabs.largest().0)
    }
}
