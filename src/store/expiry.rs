//! Dead items give their memory back: before a live one is evicted, and in small steps between turns.
//!
//! Every page knows when its first item dies, so that only pages with something to find are looked at, some chunks at a
//! time: there is no scan of everything, and items carry no links for it.

use super::item::{Chunk, FETCHED};
use super::slab::ClassId;
use super::{NEVER, Store};

impl Store {
    /// Frees dead items among the next `steps` chunks of a class; says whether there was one.
    pub(super) fn reclaim(&mut self, class: ClassId, steps: u32) -> bool {
        let freed = self.sweep(class, steps);
        let counters = &mut self.class_counters[class.index()];
        counters.reclaimed += freed;
        counters.direct_reclaims += u64::from(freed > 0);
        freed > 0
    }

    /// As [`Store::reclaim`], on behalf of the crawler.
    pub(super) fn crawl(&mut self, class: ClassId, steps: u32) -> u64 {
        let freed = self.sweep(class, steps);
        let counters = &mut self.class_counters[class.index()];
        counters.reclaimed += freed;
        counters.crawler_reclaimed += freed;
        freed
    }

    fn sweep(&mut self, class: ClassId, steps: u32) -> u64 {
        let mut freed = 0;
        for id in self.slabs.scan(class, self.now, steps, &self.items) {
            if self.items.chunk(id) != Chunk::Linked {
                continue;
            }
            self.class_counters[class.index()].crawler_items_checked += 1;
            let item = self.items.at(id);
            if self.death(&item).is_some() {
                let unfetched = item.state() & FETCHED == 0;
                self.class_counters[class.index()].expired_unfetched += u64::from(unfetched);
                self.remove_by_id(id);
                freed += 1;
            } else if item.exptime() != NEVER {
                self.slabs.note_deadline(self.items.arena().page(id), item.exptime());
            }
        }
        freed
    }

    /// A small bounded part of what is to be done between turns: about `steps` chunks looked at for dead items, as many
    /// tails settled, four times as many chunks of a page that changes hands. Called again and again it gets round to every
    /// class, and once a second it considers which class needs pages.
    /// `crawler_on`: look for dead items. Says whether there was something to do.
    pub fn housekeep(&mut self, steps: u32, crawler_on: bool) -> bool {
        let class = ClassId(self.housekeeping_next);
        self.counters.juggles += 1;
        self.mover.begun = None;
        self.housekeeping_next = if class >= self.slabs.large() { 1 } else { class.0 + 1 };
        let mut busy = false;
        if self.slabs.page_count(class) > 0 {
            if crawler_on {
                busy |= self.crawl(class, steps) > 0;
            }
            if self.options.maintain {
                busy |= self.settle(class, steps as usize) > 0;
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
