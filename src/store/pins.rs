//! Pins. A pinned value neither moves nor changes while workers write it to sockets.

use super::Store;
use super::arena::ItemId;

impl Store {
    /// Pins an item until [`Store::unpin`]: its value neither moves nor changes, so that a worker can write it to a
    /// socket without the lease.
    pub fn pin(&mut self, id: ItemId) {
        self.pins.entry(id.bits()).or_default().count += 1;
    }

    /// Undoes one [`Store::pin`].
    pub fn unpin(&mut self, id: ItemId) {
        let pin = self.pins.get_mut(&id.bits()).expect("an item is unpinned as often as it was pinned");
        pin.count -= 1;
        if pin.count == 0 {
            let dead = pin.dead;
            self.pins.remove(&id.bits());
            if dead {
                self.release(id);
            }
        }
    }

    /// Whether an item is pinned: its value may not be changed in place.
    #[inline]
    pub fn is_pinned(&self, id: ItemId) -> bool {
        !self.pins.is_empty() && self.pins.contains_key(&id.bits())
    }
}
