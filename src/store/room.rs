//! Room for an item: how the store gets the chunks that it needs.

use super::arena::ItemId;
use super::moves::Pace;
use super::slab::ClassId;
use super::{OutOfMemory, Store};

/// Evictions for one chunk, if all of them free chunks on the page that is about to leave the class.
const CLOSED_PAGE_TRIES: usize = 16;
/// Chunks that the store searches for dead items before it evicts a live one.
pub(super) const RECLAIM_STEPS: u32 = 256;

impl Store {
    /// Makes room for an item, and writes its header and key. It floats until [`Store::link`] or [`Store::abandon`]. To
    /// get memory the store takes a page, reclaims dead items or evicts, in this order. Other items may be gone
    /// afterwards.
    pub fn allocate(&mut self, key: &[u8], client_flags: u32, value_len: usize) -> Result<ItemId, OutOfMemory> {
        let size = self.items.size(key.len(), client_flags, value_len);
        if let Some(class) = self.slabs.class_for(size) {
            let id = self.chunk(class).ok_or(OutOfMemory)?;
            self.items.create(id, key, client_flags, value_len);
            return Ok(id);
        }
        let class = self.slabs.large();
        let mut chunks = Vec::new();
        for _ in 0..self.items.chunks(key.len(), client_flags, value_len) {
            match self.chunk(class) {
                Some(id) => {
                    // Code that frees or moves pages must see that the chunk is in use.
                    self.items.create(id, key, 0, 0);
                    chunks.push(id);
                }
                None => {
                    for id in chunks {
                        self.free_chunk(id);
                    }
                    return Err(OutOfMemory);
                }
            }
        }
        self.items.create(chunks[0], key, client_flags, 0);
        self.items.spread(chunks[0], value_len, &chunks[1..]);
        Ok(chunks[0])
    }

    /// Gets a chunk of a class.
    #[inline]
    pub(super) fn chunk(&mut self, class: ClassId) -> Option<ItemId> {
        match self.slabs.allocate(class, &self.items) {
            Some(id) => Some(id),
            None => self.make_room(class),
        }
    }

    /// Gets a chunk for a class without a free one: from a new page, from dead items, from live ones, or from other
    /// classes.
    #[inline(never)]
    fn make_room(&mut self, class: ClassId) -> Option<ItemId> {
        for _ in 0..CLOSED_PAGE_TRIES {
            let freed = self.slabs.take_page(class, &self.budget)
                || self.take_empty_page(class)
                || self.free_remains() && (class == self.slabs.large() || self.take_empty_page(class))
                || self.reclaim(class, RECLAIM_STEPS)
                || self.evict(class)
                || self.take_from_other_class(class);
            if !freed {
                break;
            }
            let chunk = self.slabs.allocate(class, &self.items);
            if chunk.is_some() {
                return chunk;
            }
            // The free chunk lies on a page that is about to leave the class. The mover has to empty this page anyway.
        }
        let chunk = self.chunk_of_moving_page(class);
        if chunk.is_some() {
            return chunk;
        }
        self.class_counters[class.index()].outofmemory += u64::from(self.pace != Pace::Waiting);
        None
    }
}
