//! A walk over all items of a shard, in pieces as long as the caller likes: what the crawler and the dumps are made of.
//!
//! It goes through the index, bucket by bucket (see [`Index::gather`](super::index::Index::gather)). A key that is in the
//! cache from the first piece to the last is met exactly once, although the index grows, its value is set anew or its page
//! moves between two pieces: where it is met depends on its hash alone. A key that comes or goes meanwhile is met once or
//! not at all. All that is remembered between two pieces is a [`Place`].

use super::Store;
use super::arena::ItemId;
use super::item::FETCHED;
use super::slab::ClassId;

/// Items whose memory is asked for before the first of them is looked at.
const GROUP: usize = 32;

/// How far a walk has come in a shard. The default is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(u64);

impl Store {
    /// A piece of a walk, from a place on: about `count` items or empty buckets are looked at, or fewer when `visit` says
    /// that it has had enough. Of the items in a class that is `wanted`, `visit` is called for those alive; the dead are
    /// freed, as the crawler does. Gives the place to go on from; `None`: all were met.
    pub fn walk(
        &mut self,
        place: Place,
        count: usize,
        mut wanted: impl FnMut(ClassId) -> bool,
        mut visit: impl FnMut(&Store, ItemId) -> bool,
    ) -> Option<Place> {
        let mut next = Some(place.0);
        let (mut left, mut go_on) = (count, true);
        let mut ids = Vec::with_capacity(2 * GROUP);
        while next.is_some() && left > 0 && go_on {
            ids.clear();
            while ids.len() < GROUP
                && left > 0
                && let Some(at) = next
            {
                let before = ids.len();
                next = self.index.gather(at, &mut ids);
                left = left.saturating_sub((ids.len() - before).max(1));
            }
            for &id in &ids {
                self.items.arena().prefetch(id, 64);
            }
            for &id in &ids {
                let class = self.class_of(id);
                if !wanted(class) {
                    continue;
                }
                self.class_counters[class.index()].crawler_items_checked += 1;
                if self.death(&self.items.at(id)).is_some() {
                    self.bury(id, class);
                } else {
                    go_on &= visit(self, id);
                }
            }
        }
        next.map(Place)
    }

    /// Frees an item that the crawler found dead.
    pub(super) fn bury(&mut self, id: ItemId, class: ClassId) {
        let unfetched = self.items.at(id).state() & FETCHED == 0;
        let counters = &mut self.class_counters[class.index()];
        counters.expired_unfetched += u64::from(unfetched);
        counters.reclaimed += 1;
        counters.crawler_reclaimed += 1;
        self.remove_by_id(id);
    }
}
