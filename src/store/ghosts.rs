//! Ghosts: a record of the keys that the store has evicted lately. It tells an item that comes back from a new one.
//!
//! ```text
//! 0       4                                                     60      64
//! ├─ next ─┼─ 28 fingerprints of unproven items ────────────────┼─ 2 of proven ones
//! ```
//! A bucket is one cache line. It has two rings of 16-bit fingerprints: one of items that were evicted before they had
//! proven themselves, and one of items that had ([`policy`](super::policy)). Each ring overwrites its oldest slot, so
//! the place of a fingerprint tells its age. A record costs two bytes for each item of the cache, and one line when the
//! store evicts an item or stores a new one.
//!
//! The number of buckets follows the number of items: [`ITEMS_PER_BUCKET`]. They grow in place, and are never given back: a
//! call of `munmap` for a large record would be a pause.

use super::arena::{Region, RegionRoots, matching_words};
use super::memfd::Memfd;
use crate::hash;
use serde::{Deserialize, Serialize};
use std::io;

/// Slots of a bucket for items that had not proven themselves, and for those that had.
const UNPROVEN: usize = 28;
const PROVEN: usize = 2;

/// The items of the cache for each bucket. The unproven ghosts are nine tenths of this number: as many as the cache has
/// items, without the share that newcomers have at the least.
const ITEMS_PER_BUCKET: usize = 31;

/// The number of youngest slots of the unproven ring that count as near. It is the number of slots of the other ring,
/// so that both stand for the same number of evictions.
const NEAR: usize = PROVEN;

/// The first words of a bucket: the numbers of the slots that are written next.
const UNPROVEN_NEXT: usize = 0;
const PROVEN_NEXT: usize = 1;
/// The first slot of each ring, in words.
const UNPROVEN_SLOTS: usize = 2;
const PROVEN_SLOTS: usize = UNPROVEN_SLOTS + UNPROVEN;

/// A bucket: two numbers, then the slots. A fingerprint of 0 marks a free slot.
type Bucket = [u16; PROVEN_SLOTS + PROVEN];

const _: () = assert!(size_of::<Bucket>() == 64);

/// What the record knows of an evicted key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ghost {
    /// The item was evicted just now, before it had proven itself.
    Near,
    /// The same, longer ago.
    Far,
    /// The item had proven itself, and was evicted just now.
    Proven,
}

/// See the top of the file.
#[derive(Debug)]
pub(super) struct Ghosts {
    buckets: Region<Bucket>,
    /// The buckets in use; 0: the record has not begun.
    used: usize,
}

/// What describes the record to the next process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GhostsRoots {
    buckets: RegionRoots,
    used: u64,
}

impl Ghosts {
    /// A record that has not begun, with address space for a cache of up to `items_max` items, in a file if one is given.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub(super) fn new(memfd: Option<&Memfd>, items_max: usize) -> io::Result<Ghosts> {
        Ok(Ghosts { buckets: Region::reserve(memfd, count_for(items_max))?, used: 0 })
    }

    /// What describes the record to the next process; `None`: its memory belongs to this process alone.
    pub(super) fn roots(&self) -> Option<GhostsRoots> {
        Some(GhostsRoots { buckets: self.buckets.roots()?, used: self.used as u64 })
    }

    /// The record of an earlier process.
    ///
    /// # Errors
    /// Those of `mmap`, or if there is no such record.
    pub(super) fn attach(memfd: &Memfd, roots: &GhostsRoots) -> io::Result<Ghosts> {
        let buckets: Region<Bucket> = Region::attach(memfd, roots.buckets)?;
        if roots.used > buckets.len() as u64 {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(Ghosts { buckets, used: roots.used as usize })
    }

    /// Makes the record fit a cache of so many items, if it is much too small or too large for it. It forgets its keys then:
    /// they are in other buckets than they should be.
    #[inline]
    pub(super) fn fit(&mut self, items: usize) {
        let fitting = self.used * ITEMS_PER_BUCKET;
        if items > fitting + fitting / 2 || items + ITEMS_PER_BUCKET < fitting / 4 {
            self.resize(count_for(items));
        }
    }

    #[cold]
    fn resize(&mut self, count: usize) {
        // If the reserve does not hold as many, those that are there are enough.
        let _ = count <= self.buckets.len() || self.buckets.grow(count - self.buckets.len());
        self.used = count.min(self.buckets.len());
    }

    /// The bytes that buckets use.
    pub(super) fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    #[inline]
    fn bucket_of(&self, hash: u64) -> usize {
        ((hash::bucket_bits(hash) * self.used as u64) >> hash::BUCKET_BITS) as usize
    }

    /// Prefetches the bucket of a hash.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.buckets.prefetch(self.bucket_of(hash));
    }

    /// Records that an item was evicted.
    #[inline]
    pub(super) fn note(&mut self, hash: u64, proven: bool) {
        if self.used == 0 {
            return;
        }
        let at = self.bucket_of(hash);
        let bucket = &mut self.buckets[at];
        let (next, first, count) =
            if proven { (PROVEN_NEXT, PROVEN_SLOTS, PROVEN) } else { (UNPROVEN_NEXT, UNPROVEN_SLOTS, UNPROVEN) };
        let slot = usize::from(bucket[next]);
        bucket[first + slot] = fingerprint(hash);
        bucket[next] = if slot + 1 == count { 0 } else { slot as u16 + 1 };
    }

    /// Takes a key from the record, and says what was known of it. One key in two thousand is mistaken for another.
    #[inline]
    pub(super) fn take(&mut self, hash: u64) -> Option<Ghost> {
        if self.used == 0 {
            return None;
        }
        let at = self.bucket_of(hash);
        let bucket = &mut self.buckets[at];
        let found = matching_words(bucket, fingerprint(hash)) >> UNPROVEN_SLOTS;
        if found == 0 {
            return None;
        }
        let slot = found.trailing_zeros() as usize;
        bucket[UNPROVEN_SLOTS + slot] = 0;
        if slot >= UNPROVEN {
            return Some(Ghost::Proven);
        }
        let age = (usize::from(bucket[UNPROVEN_NEXT]) + UNPROVEN - 1 - slot) % UNPROVEN;
        Some(if age < NEAR { Ghost::Near } else { Ghost::Far })
    }
}

/// The number of buckets for a cache of so many items: a little more than it needs, so that a cache which still fills does
/// not outgrow the record at once.
fn count_for(items: usize) -> usize {
    (items + items / 8).div_ceil(ITEMS_PER_BUCKET).max(1)
}

/// The bits by which keys of a bucket differ. (The bucket depends on the upper of the bits that select one.)
#[inline]
fn fingerprint(hash: u64) -> u16 {
    (hash as u16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::KeyHasher;

    fn ghosts(items: usize) -> Ghosts {
        let mut ghosts = Ghosts::new(None, 1_000_000).expect("address space");
        ghosts.fit(items);
        ghosts
    }

    fn hash(key: u32) -> u64 {
        KeyHasher::seeded(1).hash(&key.to_le_bytes())
    }

    #[test]
    fn a_key_is_known_once_and_with_its_kind() {
        let mut ghosts = ghosts(1000);
        assert_eq!(ghosts.take(hash(1)), None);
        ghosts.note(hash(1), false);
        ghosts.note(hash(2), true);
        assert_eq!(ghosts.take(hash(1)), Some(Ghost::Near));
        assert_eq!(ghosts.take(hash(1)), None);
        assert_eq!(ghosts.take(hash(2)), Some(Ghost::Proven));
        assert_eq!(ghosts.take(hash(2)), None);
    }

    #[test]
    fn a_bucket_forgets_its_oldest_keys_and_knows_which_are_near() {
        // One bucket: all keys meet.
        let mut ghosts = ghosts(1);
        (0..1000).for_each(|key| ghosts.note(hash(key), false));
        assert_eq!(ghosts.take(hash(999 - 28)), None);
        let known: Vec<Option<Ghost>> = (0..28).map(|back| ghosts.take(hash(999 - back))).collect();
        let expected = |back: usize| Some(if back < 2 { Ghost::Near } else { Ghost::Far });
        assert_eq!(known, (0..28).map(expected).collect::<Vec<_>>());
        (0..3).for_each(|key| ghosts.note(hash(key), true));
        let known = [0, 1, 2].map(|key| ghosts.take(hash(key)));
        assert_eq!(known, [None, Some(Ghost::Proven), Some(Ghost::Proven)]);
    }

    #[test]
    fn the_record_holds_nine_tenths_of_the_items_that_it_was_made_for() {
        const ITEMS: u32 = 100_000;
        let mut ghosts = ghosts(ITEMS as usize);
        (0..3 * ITEMS).for_each(|key| ghosts.note(hash(key), false));
        let known = (0..3 * ITEMS).filter(|&key| ghosts.take(hash(key)).is_some()).count();
        assert!((90_000..115_000).contains(&known), "{known}");
        let strangers = (3 * ITEMS..4 * ITEMS).filter(|&key| ghosts.take(hash(key)).is_some()).count();
        assert!(strangers < 100, "{strangers}");
    }

    #[test]
    fn the_record_follows_the_number_of_items_and_keeps_its_memory() {
        let mut ghosts = Ghosts::new(None, 1_000_000).expect("address space");
        assert_eq!((ghosts.take(hash(1)), ghosts.bytes()), (None, 0));
        ghosts.note(hash(1), false);
        ghosts.fit(1000);
        let used = ghosts.used;
        ghosts.fit(1400);
        ghosts.fit(500);
        assert_eq!(ghosts.used, used);
        ghosts.fit(100_000);
        let (used, bytes) = (ghosts.used, ghosts.bytes());
        assert!(used > 3000 && bytes == used * 64);
        ghosts.fit(1000);
        assert!(ghosts.used < 100 && ghosts.bytes() == bytes);
        // No more than the reserve.
        ghosts.fit(10_000_000);
        ghosts.note(hash(2), false);
        assert_eq!((ghosts.bytes(), ghosts.take(hash(2))), (bytes, Some(Ghost::Near)));
    }
}
