//! The share of newcomers in each class: of the items that have not proven themselves ([`policy`](super::policy)).

use super::slab::ClassId;

/// The share at the start, the least and the most, and the most that it changes at a time.
const SHARE: f64 = 0.1;
const SHARE_MIN: f64 = 0.02;
const SHARE_MAX: f64 = 0.9;
const STEP: f64 = 0.0005;

/// The part of a step for an item that only a much larger share would have saved.
const FAR: f64 = 0.06;

/// In a larger cache, the share changes by so many items at a time.
const STEP_ITEMS: f64 = 10.0;

/// See the top of the file.
#[derive(Debug)]
pub(super) struct Newcomers {
    share: f64,
    /// By class: the hits of proven items so far, when a key came back that was evicted long ago.
    hits: Vec<u64>,
}

impl Newcomers {
    pub(super) fn new(classes: usize) -> Newcomers {
        Newcomers { share: SHARE, hits: vec![0; classes + 1] }
    }

    /// The share, for the next process.
    pub(super) fn share(&self) -> f64 {
        self.share
    }

    /// Whether proven items of a class had hits since a key came back that was evicted long ago. `hits` counts theirs.
    pub(super) fn has_hits(&self, class: usize, hits: u64) -> bool {
        self.hits[class] != hits
    }

    /// Continues with the share of an earlier process. `have_hits` has what [`Newcomers::has_hits`] said there, by class. The
    /// counts of hits begin at 0 again.
    pub(super) fn resume(&mut self, share: f64, have_hits: &[bool]) {
        self.share = if share.is_nan() { SHARE } else { share.clamp(SHARE_MIN, SHARE_MAX) };
        for (hits, &have_hits) in self.hits.iter_mut().zip(have_hits) {
            *hits = if have_hits { u64::MAX } else { 0 };
        }
    }

    /// The number of newcomers that a class of so many items should have.
    #[inline]
    pub(super) fn wanted(&self, items: u32) -> u32 {
        (items as f64 * self.share) as u32
    }

    /// A slightly larger share would have saved an item of a cache of so many.
    pub(super) fn grow(&mut self, items: usize) {
        self.share = (self.share + step(items)).min(SHARE_MAX);
    }

    /// A much larger share would have saved an item. The share grows a little if proven items of the class had no hit
    /// since the last call; `hits` counts theirs.
    pub(super) fn grow_far(&mut self, items: usize, class: ClassId, hits: u64) {
        if std::mem::replace(&mut self.hits[class.index()], hits) == hits {
            self.share = (self.share + FAR * step(items)).min(SHARE_MAX);
        }
    }

    /// A smaller share would have saved an item of a cache of so many.
    pub(super) fn shrink(&mut self, items: usize) {
        self.share = (self.share - step(items)).max(SHARE_MIN);
    }
}

fn step(items: usize) -> f64 {
    STEP.min(STEP_ITEMS / items as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_stays_within_its_bounds() {
        let mut newcomers = Newcomers::new(1);
        assert_eq!(newcomers.wanted(1000), 100);
        (0..10_000).for_each(|_| newcomers.grow(100));
        assert_eq!(newcomers.wanted(1000), 900);
        (0..10_000).for_each(|_| newcomers.shrink(100));
        assert_eq!(newcomers.wanted(1000), 20);
        // In a large cache a step is as many items as in a small one.
        newcomers.grow(1_000_000);
        assert!((20_005..=20_015).contains(&newcomers.wanted(1_000_000)));
    }

    #[test]
    fn hits_of_proven_items_keep_the_share_small() {
        let mut newcomers = Newcomers::new(1);
        (1..10_000).for_each(|hits| newcomers.grow_far(100, ClassId(1), hits));
        assert_eq!(newcomers.wanted(1000), 100);
        (1..100_000).for_each(|_| newcomers.grow_far(100, ClassId(1), 9999));
        assert_eq!(newcomers.wanted(1000), 900);
    }

    #[test]
    fn the_smallest_steps_of_the_largest_cache_count() {
        const ITEMS: usize = 100_000_000;
        let mut newcomers = Newcomers { share: 0.5, ..Newcomers::new(1) };
        let before = newcomers.wanted(ITEMS as u32);
        (0..1000).for_each(|_| newcomers.grow_far(ITEMS, ClassId(1), 0));
        assert!((590..=610).contains(&(newcomers.wanted(ITEMS as u32) - before)));
    }
}
