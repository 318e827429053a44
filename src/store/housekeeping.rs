//! What a store does between turns, in small steps.

use super::Store;
use super::slab::ClassId;

impl Store {
    /// A small bounded part of what is to be done between turns: about `steps` chunks looked at for dead items, as many
    /// tails settled, four times as many chunks of a page that changes hands. Called again and again it gets round to every
    /// class, and once a second it considers which class needs pages.
    /// `crawler_on`: look for dead items, if the segments are settled, too. Says whether there was something to do.
    pub fn housekeep(&mut self, steps: u32, crawler_on: bool) -> bool {
        let class = ClassId(self.housekeeping_next);
        self.counters.juggles += 1;
        self.mover.begun = None;
        self.housekeeping_next = if class >= self.slabs.large() { 1 } else { class.0 + 1 };
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

    /// Number of calls of [`Store::housekeep`] that reach every class once.
    pub fn housekeeping_round(&self) -> usize {
        usize::from(self.slabs.large().0)
    }
}
