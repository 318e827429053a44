//! Pages change hands: an emptied page goes back to the budget, a class with nothing to evict takes a page from the
//! class whose items have idled longest, and a lowered limit is met page by page.

use super::Store;
use super::arena::{ItemId, PageId};
use super::item::Chunk;
use super::lru::Segment;
use super::slab::ClassId;

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

    /// Takes a page for a class that has neither a free chunk nor anything to evict.
    pub(super) fn take_from_other_class(&mut self, class: ClassId) -> bool {
        if !self.options.reassign {
            return false;
        }
        match self.empty_a_page(Some(class)) {
            Some(page) => {
                self.slabs.give_up(page);
                self.slabs.adopt(class, page);
                self.counters.slabs_moved += 1;
                true
            }
            None => false,
        }
    }

    /// Evicts all items of the page that holds the longest idle item of any class but `not`.
    fn empty_a_page(&mut self, not: Option<ClassId>) -> Option<PageId> {
        if !self.options.evict {
            return None;
        }
        let mut tails: Vec<(u32, ItemId)> = self
            .slabs
            .ids()
            .filter(|&class| Some(class) != not)
            .filter_map(|class| {
                [Segment::Cold, Segment::Hot, Segment::Warm, Segment::Temp]
                    .into_iter()
                    .find_map(|segment| self.lru.tail(class, segment))
            })
            .map(|id| (self.idle_seconds(id), id))
            .collect();
        tails.sort_unstable_by_key(|&(age, _)| std::cmp::Reverse(age));
        let page = tails.into_iter().map(|(_, id)| self.items.arena().page(id)).find(|&page| self.can_empty(page))?;
        self.empty(page);
        Some(page)
    }

    /// Evicts all items of a page; `can_empty` said yes.
    fn empty(&mut self, page: PageId) {
        let class = self.slabs.class_of(page);
        for id in self.slabs.chunks(page, &self.items) {
            match self.items.chunk(id) {
                Chunk::Free => {}
                Chunk::Linked => self.evict_item(id, class),
                Chunk::Body(head) => self.evict_item(head, class),
                Chunk::Floating => unreachable!("`can_empty` found none"),
            }
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

    /// Moves a page of a class that has another one (of any such class but the target, if none is named) to another class,
    /// or to the budget if that is 0. The items on it are evicted. Says whether there was such a page.
    pub fn reassign(&mut self, from: Option<ClassId>, to: ClassId) -> bool {
        if to > self.slabs.large() || !self.options.evict {
            return false;
        }
        let sources = self.slabs.ids().filter(|&class| from.is_none_or(|from| from == class) && class != to);
        let pages =
            sources.filter(|&class| self.slabs.page_count(class) > 1).flat_map(|class| self.slabs.pages_of(class));
        let Some(page) = pages.copied().find(|&page| self.can_empty(page)) else { return false };
        self.empty(page);
        self.counters.slabs_moved += 1;
        if to.index() == 0 {
            self.slabs.return_page(page, &self.budget, &self.items);
        } else {
            self.slabs.give_up(page);
            self.slabs.adopt(to, page);
        }
        true
    }

    /// Gives up to one page back if the limit was lowered. Says whether it did.
    pub(super) fn shrink(&mut self) -> bool {
        if self.budget.surplus(self.slabs.shard()) == 0 {
            return false;
        }
        let empty = self.slabs.ids().find_map(|class| self.slabs.empty_page(class));
        let Some(page) = empty.or_else(|| self.empty_a_page(None)) else { return false };
        self.slabs.return_page(page, &self.budget, &self.items);
        true
    }
}
