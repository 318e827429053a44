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
        let head = self.chunk(self.slabs.largest()).ok_or(OutOfMemory)?;
        let mut parts = self.begin_large(head, key, client_flags, value_len);
        while parts.room < value_len {
            let next = parts.next(value_len, &self.slabs);
            let Some(body) = self.body(next) else {
                self.abandon(head);
                return Err(OutOfMemory);
            };
            parts.append(body, next.room, &self.items);
        }
        Ok(head)
    }

    /// Gets a chunk of a class.
    #[inline]
    pub(super) fn chunk(&mut self, class: ClassId) -> Option<ItemId> {
        match self.slabs.allocate(class, &self.items) {
            Some(id) => Some(id),
            None => self.make_room(class, true),
        }
    }

    /// Like [`Store::chunk`], but takes no page that another class needs.
    #[inline]
    pub(super) fn chunk_of_own(&mut self, class: ClassId) -> Option<ItemId> {
        match self.slabs.allocate(class, &self.items) {
            Some(id) => Some(id),
            None => self.make_room(class, false),
        }
    }

    /// Gets a chunk for a class without a free one: from a new page, from dead items, from live ones, or, if it may, from
    /// other classes.
    #[inline(never)]
    fn make_room(&mut self, class: ClassId, from_others: bool) -> Option<ItemId> {
        for _ in 0..CLOSED_PAGE_TRIES {
            let freed = self.take_page(class)
                || self.take_empty_page(class)
                || self.free_remains() && (self.slabs.has_room(class) || self.take_empty_page(class))
                || self.reclaim(class, RECLAIM_STEPS)
                || self.evict(class)
                || from_others && (self.take_from_other_class(class) || self.take_assigned_page(class));
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
        if chunk.is_some() || !from_others {
            return chunk;
        }
        self.class_counters[class.index()].outofmemory += u64::from(self.pace != Pace::Waiting);
        None
    }
}
