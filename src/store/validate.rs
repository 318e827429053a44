//! For tests and fuzzing: checks of the invariants that hold between calls.

use super::lru::Segment;
use super::{Store, item};

impl Store {
    /// Checks the invariants at the top of the module.
    pub(crate) fn validate(&self) {
        self.lru.validate(&self.items);
        let listed: u64 = self.slabs.ids().map(|class| u64::from(self.lru.total(class))).sum();
        assert_eq!(listed, self.index.len() as u64);
        let (mut bytes, mut count) = (0, 0);
        for class in self.slabs.ids() {
            for segment in Segment::ALL {
                for id in self.lru.first_of(&self.items, class, segment, usize::MAX) {
                    assert_eq!((self.items.chunk(id), self.class_of(id)), (item::Chunk::Linked, class));
                    let key = self.items.at(id).key();
                    let found = self.index.find(self.hasher.hash(key), |other| self.items.at(other).key() == key);
                    assert_eq!(found.map(|(found, _)| found), Some(id));
                    bytes += self.size_of(id);
                    count += 1;
                }
            }
        }
        assert_eq!((bytes, count), (self.bytes, listed));
        for class in self.slabs.ids() {
            let mut used = 0;
            for &page in self.slabs.pages_of(class) {
                let in_use =
                    self.slabs.chunks(page, &self.items).filter(|&id| self.items.chunk(id) != item::Chunk::Free);
                let in_use = in_use.count() as u32;
                assert_eq!(in_use, self.slabs.used(page));
                used += in_use;
            }
            assert_eq!(u64::from(used), self.slabs.usage(class).used_chunks);
        }
    }

    /// Checks the invariants of a store without users as well: no value is pinned, and every chunk in use belongs to a
    /// linked item.
    pub(crate) fn validate_at_rest(&mut self) {
        while self.free_remains() {}
        self.validate();
        assert!(self.pins.is_empty(), "a value is still pinned");
        let mut linked = 0;
        for class in self.slabs.ids() {
            for id in Segment::ALL.iter().flat_map(|&of| self.lru.first_of(&self.items, class, of, usize::MAX)) {
                linked += 1 + std::iter::successors(self.items.first_body(id), |&id| self.items.next_chunk(id)).count();
            }
        }
        let used: u64 = self.slabs.ids().map(|class| self.slabs.usage(class).used_chunks).sum();
        assert_eq!(used, linked as u64, "an item has leaked");
    }
}
