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
        self.counters.juggles += 1;
        self.mover.begun = None;
        self.found_dead = false;
        let mut busy = false;
        if let Some(class) = self.next_class() {
            if crawler_on && self.options.maintain {
                self.found_dead = self.reclaim_ahead(class, steps) > 0 || self.flushed.is_urgent();
                busy |= self.found_dead;
                self.follow_sweep();
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

    /// Whether the last call of [`Store::housekeep`] freed dead items, so that the next calls probably free more: after a
    /// flush, or when many items expire.
    pub fn has_found_dead(&self) -> bool {
        self.found_dead
    }

    /// The class that follows the last one in turn, of those with pages.
    fn next_class(&mut self) -> Option<ClassId> {
        let largest = self.slabs.largest().0;
        for _ in 0..largest {
            let class = ClassId(self.housekeeping_next);
            self.housekeeping_next = if class.0 >= largest { 1 } else { class.0 + 1 };
            if self.slabs.page_count(class) > 0 {
                return Some(class);
            }
        }
        None
    }

    /// Calls of [`Store::housekeep`] after which each class was visited once.
    pub fn housekeeping_round(&self) -> usize {
        usize::from(self.slabs.largest().0)
    }
}
