//! The index: it maps a hash to the ids of the items that may have it.
//!
//! A bucket is one cache line, with twelve 8-bit tags and twelve ids. So a miss costs one line, and a hit costs one
//! line and the item. A full bucket continues in an overflow bucket.
//!
//! ```text
//! 0            12     16                                                            64
//! ├─ 12 tags ───┼─ link ┼─ 12 ids ───────────────────────────────────────────────────┤
//! ```
//!
//! The index grows by linear hashing (Litwin 1980). An insertion divides at most one bucket, in place: it moves a part
//! of the entries of bucket `split` to bucket `split + 2^level`. Once the load passes [`LOAD_MAX`], each insertion
//! divides a bucket until all are divided. So the index is between 40 and 85 percent full, except at the very start. At
//! 85 percent a fifth of the buckets overflow, and lookups in these cost a second line. At 75 percent an eighth would
//! overflow, for 1.6 bytes more per item. A division needs the hashes of the items in the bucket. The caller computes
//! them from the keys, which the insertion before has prefetched.
//!
//! No chain is longer than [`CHAIN_MAX`] buckets, whatever the keys are. The index refuses an insertion that needs one
//! bucket more, and the caller then removes an entry of the chain first ([`Index::chain`]). Chance alone does not fill
//! a chain: with 11 entries on average, one chain in 10^16 has as many as fill four buckets. Keys chosen for their hash
//! do. Against these, more buckets do not help, because all bits of the hashes agree. A new hash function for all keys
//! does not help either: the change is a pause, and an attacker who found the first hash can find the second. So such
//! keys evict each other, and no other client waits for the search of a long chain.

use super::arena::{ItemId, Region, RegionRoots, matching_bytes};
use super::bucket::{Bucket, EMPTY, SLOTS};
use super::memfd::Memfd;
use crate::hash;
use serde::{Deserialize, Serialize};
use std::io;

/// The mean number of items in a bucket at which a round of growth begins.
const LOAD_MAX: usize = 10;

/// Log2 of the most buckets that an index begins with. Ids have 32 bits, so it does not grow to 2^40.
const LEVEL_MAX: u32 = 30;

/// The buckets of a chain, with the first: as many as one search visits at most.
const CHAIN_MAX: usize = 4;

/// The place of an entry. Valid until the next change of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    bucket: BucketId,
    slot: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BucketId {
    Main(u32),
    Overflow(u32),
}

/// See the top of the file.
#[derive(Debug)]
pub(super) struct Index {
    /// Invariant: `2^level + split` buckets.
    buckets: Region<Bucket>,
    overflow: Region<Bucket>,
    /// The first free overflow bucket, plus 1. Free ones are linked like those in use.
    overflow_free: u32,
    level: u32,
    /// Invariant: `2^level - 1`, the bits of a hash that number a bucket if it is not divided yet.
    low_bits: u64,
    split: usize,
    growing: bool,
    count: usize,
}

/// What describes an index to the next process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct IndexRoots {
    buckets: RegionRoots,
    overflow: RegionRoots,
    overflow_free: u32,
    level: u32,
    split: u64,
    growing: bool,
    pub(super) count: u64,
}

impl Index {
    /// An empty index of `2^level` buckets, with address space for `items_max` items, in a file if one is given.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub(super) fn new(memfd: Option<&Memfd>, level: u32, items_max: usize) -> io::Result<Index> {
        let level = level.clamp(4, LEVEL_MAX);
        let capacity = (2 * items_max / LOAD_MAX).max(2 << level);
        let mut buckets = Region::reserve(memfd, capacity)?;
        if !buckets.grow(1 << level) {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        }
        let overflow = Region::reserve(memfd, capacity)?;
        Ok(Index {
            buckets,
            overflow,
            overflow_free: 0,
            level,
            low_bits: (1 << level) - 1,
            split: 0,
            growing: false,
            count: 0,
        })
    }

    /// What describes the index to the next process; `None`: its memory belongs to this process alone.
    pub(super) fn roots(&self) -> Option<IndexRoots> {
        Some(IndexRoots {
            buckets: self.buckets.roots()?,
            overflow: self.overflow.roots()?,
            overflow_free: self.overflow_free,
            level: self.level,
            split: self.split as u64,
            growing: self.growing,
            count: self.count as u64,
        })
    }

    /// The index of an earlier process.
    ///
    /// # Errors
    /// Those of `mmap`, or if there is no such index.
    pub(super) fn attach(memfd: &Memfd, roots: &IndexRoots) -> io::Result<Index> {
        let &IndexRoots { overflow_free, level, split, growing, count, .. } = roots;
        let buckets: Region<Bucket> = Region::attach(memfd, roots.buckets)?;
        let overflow: Region<Bucket> = Region::attach(memfd, roots.overflow)?;
        let is_sound = level < hash::BUCKET_BITS
            && split < 1 << level
            && buckets.len() as u64 == (1 << level) + split
            && overflow_free as usize <= overflow.len()
            && count <= ((buckets.len() + overflow.len()) * SLOTS) as u64;
        if !is_sound {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let (split, count, low_bits) = (split as usize, count as usize, (1 << level) - 1);
        Ok(Index { buckets, overflow, overflow_free, level, low_bits, split, growing, count })
    }

    /// The level at which an index holds this many entries without growing.
    pub(super) fn level_for(entries: u64) -> u32 {
        entries.div_ceil(LOAD_MAX as u64).next_power_of_two().ilog2()
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The bytes that buckets use.
    pub(super) fn bytes(&self) -> usize {
        (self.buckets.len() + self.overflow.len()) * size_of::<Bucket>()
    }

    /// Log2 of the number of slots, rounded down.
    pub(super) fn power(&self) -> u32 {
        (self.buckets.len() * SLOTS).ilog2()
    }

    /// Whether insertions divide buckets.
    pub(super) fn is_growing(&self) -> bool {
        self.growing
    }

    #[inline]
    fn bucket_of(&self, hash: u64) -> usize {
        const _: () = assert!(LEVEL_MAX < hash::BUCKET_BITS, "the bits of a bucket are those that the hash has for it");
        let bucket = (hash & self.low_bits) as usize;
        if bucket < self.split { (hash & (2 * self.low_bits + 1)) as usize } else { bucket }
    }

    /// Prefetches the bucket of a hash.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.buckets.prefetch(self.bucket_of(hash));
    }

    /// The first entry with the tag of a hash in the bucket of this hash. If the index has the item, this is very
    /// likely it.
    #[inline]
    pub(super) fn candidate(&self, hash: u64) -> Option<ItemId> {
        let bucket = &self.buckets[self.bucket_of(hash)];
        let slots = bucket.matches(hash::tag(hash));
        if slots == 0 { None } else { ItemId::from_raw(bucket.ids[slot(slots)]) }
    }

    /// The entry with the tag of this hash for which `is_it` is true.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(ItemId) -> bool) -> Option<(ItemId, Place)> {
        let tag = hash::tag(hash);
        let mut at = BucketId::Main(self.bucket_of(hash) as u32);
        loop {
            let bucket = self.bucket(at);
            let mut slots = bucket.matches(tag);
            while slots != 0 {
                let slot = slot(slots);
                if let Some(id) = ItemId::from_raw(bucket.ids[slot])
                    && is_it(id)
                {
                    return Some((id, Place { bucket: at, slot: slot as u8 }));
                }
                slots &= slots - 1;
            }
            match bucket.link() {
                0 => return None,
                link => at = BucketId::Overflow(link - 1),
            }
        }
    }

    #[inline]
    fn bucket(&self, id: BucketId) -> &Bucket {
        match id {
            BucketId::Main(at) => &self.buckets[at as usize],
            BucketId::Overflow(at) => &self.overflow[at as usize],
        }
    }

    #[inline]
    fn bucket_mut(&mut self, id: BucketId) -> &mut Bucket {
        match id {
            BucketId::Main(at) => &mut self.buckets[at as usize],
            BucketId::Overflow(at) => &mut self.overflow[at as usize],
        }
    }

    /// Adds an entry. When the index grows, it calls `hash_of` for the hash of an item and `prefetch` for its cache
    /// lines. False: the chain of the entry is full. It has room again once an entry of [`Index::chain`] is removed.
    #[inline]
    #[must_use]
    pub(super) fn insert(
        &mut self,
        hash: u64,
        id: ItemId,
        hash_of: impl Fn(ItemId) -> u64,
        prefetch: impl Fn(ItemId),
    ) -> bool {
        if self.growing {
            self.divide(hash_of, prefetch);
        }
        if !self.place(self.bucket_of(hash), hash::tag(hash), id) {
            return false;
        }
        self.count += 1;
        if self.count > self.buckets.len() * LOAD_MAX {
            self.growing = true;
        }
        true
    }

    #[inline]
    fn place(&mut self, bucket: usize, tag: u8, id: ItemId) -> bool {
        let mut at = BucketId::Main(bucket as u32);
        let mut length = 1;
        loop {
            let bucket = self.bucket_mut(at);
            let free = bucket.matches(0);
            if free != 0 {
                let slot = slot(free);
                bucket.head[slot] = tag;
                bucket.ids[slot] = id.bits();
                return true;
            }
            match bucket.link() {
                0 => return length < CHAIN_MAX && self.place_in_overflow(at, tag, id),
                link => at = BucketId::Overflow(link - 1),
            }
            length += 1;
        }
    }

    #[cold]
    fn place_in_overflow(&mut self, full: BucketId, tag: u8, id: ItemId) -> bool {
        let number = if self.overflow_free != 0 {
            let number = self.overflow_free;
            self.overflow_free = self.overflow[number as usize - 1].link();
            number
        } else if self.overflow.grow(1) {
            self.overflow.len() as u32
        } else {
            return false;
        };
        let bucket = &mut self.overflow[number as usize - 1];
        *bucket = EMPTY;
        bucket.head[0] = tag;
        bucket.ids[0] = id.bits();
        self.bucket_mut(full).set_link(number);
        true
    }

    /// The entries in the chain of this hash.
    pub(super) fn chain(&self, hash: u64) -> Vec<ItemId> {
        let mut ids = Vec::with_capacity(CHAIN_MAX * SLOTS);
        self.collect_chain(self.bucket_of(hash), &mut ids);
        ids
    }

    fn collect_chain(&self, bucket: usize, ids: &mut Vec<ItemId>) {
        let mut at = BucketId::Main(bucket as u32);
        loop {
            let bucket = self.bucket(at);
            ids.extend(bucket.ids.iter().filter_map(|&raw| ItemId::from_raw(raw)));
            match bucket.link() {
                0 => return,
                link => at = BucketId::Overflow(link - 1),
            }
        }
    }

    /// Adds the ids of one bucket to `ids`: of the bucket that holds the hashes at a place of a walk. Gives the place
    /// where the next bucket begins; `None`: this was the last bucket.
    ///
    /// A place consists of the bits of a hash that number buckets, in reversed order. A bucket holds an interval of
    /// places, and its division divides the interval. So a walk from interval to interval meets every entry exactly
    /// once that is in the index all the time, however much the index grows meanwhile. The index never shrinks.
    pub(super) fn collect(&self, place: u64, ids: &mut Vec<ItemId>) -> Option<u64> {
        let bits = reversed(place) as usize;
        let divided = bits & ((1 << self.level) - 1) < self.split;
        self.collect_chain(self.bucket_of(reversed(place)), ids);
        let width = 1 << (hash::BUCKET_BITS - self.level - u32::from(divided));
        let next = (place & !(width - 1)) + width;
        if next >> hash::BUCKET_BITS != 0 {
            return None;
        }
        self.prefetch(reversed(next));
        Some(next)
    }

    /// Replaces the item of an entry by another with the same hash.
    #[inline]
    pub(super) fn replace(&mut self, place: Place, id: ItemId) {
        self.bucket_mut(place.bucket).ids[usize::from(place.slot)] = id.bits();
    }

    /// Removes an entry.
    #[inline]
    pub(super) fn remove(&mut self, place: Place) {
        let bucket = self.bucket_mut(place.bucket);
        bucket.head[usize::from(place.slot)] = 0;
        bucket.ids[usize::from(place.slot)] = 0;
        self.count -= 1;
    }

    /// Divides bucket `split`: its entries whose next hash bit is set move to the new bucket.
    #[cold]
    fn divide(&mut self, hash_of: impl Fn(ItemId) -> u64, prefetch: impl Fn(ItemId)) {
        if !self.buckets.grow(1) {
            self.growing = false;
            return;
        }
        let (old, new) = (self.split, self.split + (1 << self.level));
        let mut entries = Entries::take(self, old);
        for id in entries.ids() {
            let hash = hash_of(id);
            let bit = hash::bucket_bits(hash) as usize & (1 << self.level);
            let placed = self.place(if bit == 0 { old } else { new }, hash::tag(hash), id);
            // `Entries::take` has just freed the overflow buckets that held them.
            assert!(placed, "a divided bucket has room for its own entries");
        }
        self.split += 1;
        if self.split == 1 << self.level {
            self.split = 0;
            self.level += 1;
            self.low_bits = (1 << self.level) - 1;
            self.growing = false;
            return;
        }
        self.buckets.prefetch(self.split + 1);
        for raw in self.buckets[self.split].ids {
            if let Some(id) = ItemId::from_raw(raw) {
                prefetch(id);
            }
        }
    }
}

/// The bits that number a bucket, in reversed order.
fn reversed(bits: u64) -> u64 {
    bits.reverse_bits() >> (u64::BITS - hash::BUCKET_BITS)
}

/// The entries of a bucket under division.
struct Entries {
    inline: [u32; SLOTS],
    /// The entries of its overflow buckets, which it seldom has.
    more: Vec<u32>,
}

impl Entries {
    /// Empties a bucket and frees its overflow buckets.
    fn take(index: &mut Index, bucket: usize) -> Entries {
        let taken = std::mem::replace(&mut index.buckets[bucket], EMPTY);
        let mut entries = Entries { inline: taken.ids, more: Vec::new() };
        let mut link = taken.link();
        while link != 0 {
            let overflow = &mut index.overflow[link as usize - 1];
            entries.more.extend_from_slice(&overflow.ids);
            let next = overflow.link();
            overflow.set_link(index.overflow_free);
            index.overflow_free = link;
            link = next;
        }
        entries
    }

    fn ids(&mut self) -> impl Iterator<Item = ItemId> {
        self.inline.iter().chain(&self.more).filter_map(|&raw| ItemId::from_raw(raw))
    }
}

impl Bucket {
    /// A mask of the slots with this tag: bit *n* for slot *n*.
    #[inline]
    fn matches(&self, tag: u8) -> u32 {
        matching_bytes(&self.head, tag) & ((1 << SLOTS) - 1)
    }
}

#[inline]
fn slot(mask: u32) -> usize {
    mask.trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::super::arena::{Arena, PAGE_SIZE_MAX, PageId};
    use super::*;
    use std::collections::HashMap;

    /// Compares insertions and removals with a `HashMap`. The hash of an id is a function of its bits.
    #[test]
    fn agrees_with_a_hash_map() {
        for seed in 1..6_u64 {
            let arena = Arena::reserve(8, PAGE_SIZE_MAX).expect("address space");
            let spread = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(seed | 1);
            let hash_of = |id: ItemId| spread(u64::from(id.bits()));
            let ids: Vec<ItemId> =
                (0..60_000).map(|n| arena.id(PageId(1 + n / 130_000), n as usize % 130_000 * 8)).collect();
            let mut index = Index::new(None, 4, 100_000).expect("address space");
            let mut model = HashMap::new();
            let mut state = seed;
            for step in 0..150_000_usize {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let id = ids[(state >> 33) as usize % ids.len()];
                let found = index.find(hash_of(id), |other| other == id);
                assert_eq!(found.is_some(), model.contains_key(&id.bits()), "seed {seed} step {step}");
                match found {
                    Some((_, place)) if state >> 62 == 0 => {
                        index.remove(place);
                        model.remove(&id.bits());
                    }
                    Some(_) => {}
                    None => {
                        assert!(index.insert(hash_of(id), id, hash_of, |_| ()));
                        model.insert(id.bits(), ());
                    }
                }
                assert_eq!(index.len(), model.len());
            }
            for id in &ids {
                assert_eq!(index.find(hash_of(*id), |other| other == *id).is_some(), model.contains_key(&id.bits()));
            }
        }
    }

    /// The hashes are: one for all ids; hashes that differ only in bits that do not choose the bucket; and one hash for
    /// many ids, while other ids make the index grow. A search must find every entry of the index.
    #[test]
    fn no_chain_is_longer_than_its_limit() {
        let arena = Arena::reserve(8, PAGE_SIZE_MAX).expect("address space");
        let ids: Vec<ItemId> = (0..20_000).map(|n| arena.id(PageId(1), n * 8)).collect();
        let number = |id: ItemId| u64::from(id.bits() - ids[0].bits());
        let spread = |id: ItemId| number(id).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
        type HashOf<'a> = &'a dyn Fn(ItemId) -> u64;
        let hashes: [HashOf<'_>; 4] =
            [&|_| 7 << 40 | 5, &|id| number(id) << 40 | 5, &|id| 7 << 40 | number(id) << 14 | number(id) & 3, &|id| {
                if number(id) % 4 == 0 { 7 << 40 | 5 } else { spread(id) }
            }];
        for (at, hash_of) in hashes.into_iter().enumerate() {
            let mut index = Index::new(None, 4, 100_000).expect("address space");
            let mut present = HashMap::new();
            for &id in &ids {
                if !index.insert(hash_of(id), id, hash_of, |_| ()) {
                    let chain = index.chain(hash_of(id));
                    assert_eq!(chain.len(), CHAIN_MAX * SLOTS, "{at}");
                    let (gone, place) = index.find(hash_of(chain[0]), |other| other == chain[0]).expect("it is there");
                    index.remove(place);
                    present.remove(&gone.bits());
                    assert!(index.insert(hash_of(id), id, hash_of, |_| ()), "{at}: there is room again");
                }
                present.insert(id.bits(), id);
            }
            assert_eq!(index.len(), present.len(), "{at}");
            for &id in &ids {
                let mut looked_at = 0;
                let found = index.find(hash_of(id), |other| {
                    looked_at += 1;
                    other == id
                });
                assert_eq!(found.is_some(), present.contains_key(&id.bits()), "{at}");
                assert!(looked_at <= CHAIN_MAX * SLOTS, "{at}");
            }
            // With the last hash, the test may have removed other entries that share the chain by chance.
            let full = CHAIN_MAX * SLOTS;
            let expected = [full..=full, full..=full, 4 * full..=4 * full, 15_000..=15_000 + full];
            assert!(expected[at].contains(&present.len()), "{at}: {}", present.len());
        }
    }
}
