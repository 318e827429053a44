//! The copies of hot items that a worker keeps, so that it answers for them without their shards.
//!
//! A key becomes hot if it has much of the worker's sample while other workers hold its shard. The worker copies its item
//! when it next has the lease, and answers reads from the copy as long as that holds ([`crate::store::copies`]). Once a
//! second it tells the shard how often the item was fetched. A key that is not read often any more is forgotten.
//!
//! A copy of an item that is written often is worth little: the more copies in a row have had few reads, the more reads the
//! worker lets pass before it makes the next one.

use super::sampler::sampled;
use crate::clock::Now;
use crate::command::Shard;
use crate::command::copied::Copied;
use crate::measure::sample::SampledItem;
use crate::store::copies::Validity;
use crate::store::slab::ClassId;

/// How many operations of a window a hot key has at least: one in so many.
const SHARE: u32 = 20;
/// A copy that has had fewer reads than this was not worth its making.
const READS_WORTHWHILE: u32 = 4;
/// The most reads that the worker lets pass before it makes the next copy.
const PASSED_MAX: u32 = 1 << 10;
/// The most keys whose share is counted. Any key with one operation in as many is counted.
const CANDIDATES: usize = SHARE as usize + 4;
const PLACES: usize = 256;

/// When a worker copies items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CopyPolicy {
    /// The most keys, at most 255; 0: none.
    pub(super) keys_max: usize,
    /// A hot key has at least so many samples in a second.
    pub(super) samples_min: u32,
    /// The lease of its shard was refused at least so often in this second.
    pub(super) refusals_min: u32,
    /// A key is forgotten if its copies had fewer reads in a second.
    pub(super) reads_min: u64,
}

impl CopyPolicy {
    /// A policy for up to this number of keys.
    pub(super) fn new(keys_max: usize) -> CopyPolicy {
        CopyPolicy { keys_max, samples_min: 8, refusals_min: 4, reads_min: 1000 }
    }
}

/// A hot key.
#[derive(Debug)]
struct Hot {
    hash: u64,
    shard: usize,
    copied: Option<Copied>,
    /// The reads of this copy.
    reads: u32,
    /// The reads that are to pass before the next copy is made, and how many may pass after that.
    passes: u32,
    passes_next: u32,
    /// The reads of all copies since the shard was told.
    untold: u64,
}

/// Reads of copies of an item, of which its shard does not know.
#[derive(Debug)]
pub(super) struct Reads {
    pub(super) shard: usize,
    pub(super) hash: u64,
    pub(super) key: Box<[u8]>,
    /// [`Copied::origin`] of the last copy.
    pub(super) origin: (ClassId, Validity),
    pub(super) count: u64,
}

/// The copies of a worker.
#[derive(Debug)]
pub(super) struct Copies {
    policy: CopyPolicy,
    hot: Vec<Hot>,
    /// By bits of the hash: the number of the hot key plus one, or 0.
    places: [u8; PLACES],
    /// Keys that may be hot, and their samples in this second, by Misra and Gries (1982).
    candidates: Vec<(u64, u32)>,
    samples: u32,
}

impl Default for Copies {
    /// Copies nothing.
    fn default() -> Copies {
        Copies::new(CopyPolicy::new(0))
    }
}

fn place_of(hash: u64) -> usize {
    (hash >> 8) as usize % PLACES
}

impl Copies {
    pub(super) fn new(policy: CopyPolicy) -> Copies {
        Copies { policy, hot: Vec::new(), places: [0; PLACES], candidates: Vec::new(), samples: 0 }
    }

    /// The number of the hot key with this hash.
    #[inline]
    pub(super) fn find(&self, hash: u64) -> Option<usize> {
        let number = usize::from(self.places[place_of(hash)]).checked_sub(1)?;
        (self.hot[number].hash == hash).then_some(number)
    }

    /// Whether the copy of a hot key, which should be this one, holds.
    #[inline]
    pub(super) fn hold(&self, number: usize, key: &[u8], now: Now) -> bool {
        self.hot[number].copied.as_ref().is_some_and(|copied| copied.holds(key, now))
    }

    /// The copy of a hot key, which holds. Counts a read.
    #[inline]
    pub(super) fn read(&mut self, number: usize) -> &Copied {
        let hot = &mut self.hot[number];
        hot.reads = hot.reads.saturating_add(1);
        hot.untold += 1;
        hot.copied.as_ref().expect("a copy that holds")
    }

    /// The item of a hot key, for the sample of a read that a copy has answered.
    pub(super) fn item(&self, hash: u64, now: Now) -> Option<SampledItem> {
        let copied = self.hot[self.find(hash)?].copied.as_ref()?;
        Some(sampled(copied.value_len(), copied.exptime(), now))
    }

    /// Makes a new copy for a hot key whose copy does not hold, unless this one is to pass. The shard is the key's.
    pub(super) fn renew(&mut self, number: usize, key: &[u8], shard: &mut Shard) {
        let hot = &mut self.hot[number];
        if hot.passes > 0 {
            hot.passes -= 1;
            return;
        }
        if hot.copied.is_some() && hot.reads < READS_WORTHWHILE {
            hot.passes_next = (hot.passes_next * 2 + 1).min(PASSED_MAX);
        } else {
            hot.passes_next = 0;
        }
        hot.passes = hot.passes_next;
        if let Some(copied) = Copied::of(shard, hot.hash, key) {
            hot.copied = Some(copied);
            hot.reads = 0;
        }
    }

    /// A read is in the sample. Its shard was refused so often in this second.
    pub(super) fn consider(&mut self, hash: u64, shard: usize, refusals: u32) {
        if self.policy.keys_max == 0 {
            return;
        }
        self.samples += 1;
        let Some(count) = self.count(hash) else { return };
        let is_hot = count >= self.policy.samples_min && count * SHARE >= self.samples;
        if is_hot && refusals >= self.policy.refusals_min && self.hot.len() < self.policy.keys_max {
            let place = &mut self.places[place_of(hash)];
            // Of two hot keys in one place, the first has it.
            if *place == 0 {
                self.hot.push(Hot { hash, shard, copied: None, reads: 0, passes: 0, passes_next: 0, untold: 0 });
                *place = self.hot.len() as u8;
            }
        }
    }

    /// Counts a sample of a key. Its count, at least.
    fn count(&mut self, hash: u64) -> Option<u32> {
        if let Some((_, count)) = self.candidates.iter_mut().find(|(known, _)| *known == hash) {
            *count += 1;
            return Some(*count);
        }
        if self.candidates.len() < CANDIDATES {
            self.candidates.push((hash, 1));
            return Some(1);
        }
        self.candidates.retain_mut(|(_, count)| {
            *count -= 1;
            *count > 0
        });
        None
    }

    /// A second has passed: tells the reads of each key, and forgets those that are not hot any more.
    pub(super) fn tick(&mut self, mut tell: impl FnMut(Reads)) {
        self.candidates.clear();
        self.samples = 0;
        if self.hot.is_empty() {
            return;
        }
        let reads_min = self.policy.reads_min;
        self.hot.retain_mut(|hot| {
            let count = std::mem::take(&mut hot.untold);
            if let Some(copied) = hot.copied.as_ref().filter(|_| count > 0) {
                let (key, origin) = (copied.key().into(), copied.origin());
                tell(Reads { shard: hot.shard, hash: hot.hash, key, origin, count });
            }
            count >= reads_min
        });
        self.places = [0; PLACES];
        for (number, hot) in self.hot.iter().enumerate() {
            self.places[place_of(hot.hash)] = number as u8 + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of reads: one in `rest` is of the key, the others are of many keys.
    fn sample(copies: &mut Copies, key: u64, count: u64, rest: u64, refusals: u32) {
        for number in 0..count {
            let hash = if number % rest == 0 { key } else { number << 16 | 1 << 60 };
            copies.consider(hash, 0, refusals);
        }
    }

    #[test]
    fn a_key_is_hot_if_it_has_its_share_and_its_shard_is_wanted() {
        let is_hot = |count, rest, refusals| {
            let mut copies = Copies::new(CopyPolicy::new(64));
            sample(&mut copies, 7, count, rest, refusals);
            copies.find(7).is_some()
        };
        assert!(is_hot(200, 10, 4));
        assert!(!is_hot(200, 10, 3), "the shard is free, nearly always");
        assert!(!is_hot(2000, 40, 4), "the key has too small a share");
        assert!(!is_hot(50, 10, 4), "too few samples say nothing");
        let mut none = Copies::new(CopyPolicy::new(0));
        sample(&mut none, 7, 200, 1, 1000);
        assert!(none.find(7).is_none() && none.hot.is_empty());
    }

    #[test]
    fn no_more_keys_than_allowed_are_hot_and_cold_ones_are_forgotten() {
        let mut copies = Copies::new(CopyPolicy::new(3));
        for key in 0..5 {
            copies.hot.iter_mut().for_each(|hot| hot.untold = 1000);
            copies.tick(|_| unreachable!("nothing was copied"));
            sample(&mut copies, key << 8, 100, 1, 9);
        }
        assert_eq!(
            (0..5).map(|key| copies.find(key << 8)).collect::<Vec<_>>(),
            [Some(0), Some(1), Some(2), None, None]
        );
        copies.hot.iter_mut().zip([1000, 999, 1000]).for_each(|(hot, reads)| hot.untold = reads);
        copies.tick(|_| {});
        assert_eq!([0, 1, 2].map(|key| copies.find(key << 8)), [Some(0), None, Some(1)]);
        copies.tick(|_| {});
        assert!(copies.hot.is_empty() && copies.places == [0; PLACES]);
    }
}
