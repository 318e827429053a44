//! The hash of a key, and the uses of its 64 bits.
//!
//! ```text
//!  63          48 47      40 39                                0
//! ├── shard ─────┼── tag ───┼── bucket ───────────────────────────┤
//! ```
//! The three uses share no bits. So keys fill the buckets of a shard evenly, and the tags in a bucket are independent
//! of the bucket's number.
//!
//! The server seeds the hash at its start with 256 random bits from the system. So no client can choose keys that all
//! belong to one bucket or one shard. (`ahash` as it is built here has no random bits of its own: its seeds would be
//! constants and an address.) If an attacker learns the seeds nevertheless, the index limits the cost: see
//! `store/index.rs`. The server writes the seeds to no file system. The image of a warm restart has the keys of the items, and
//! the next server hashes them anew when it reads the image. Kept memory (`store/keep`) has the seeds beside the items, and the
//! next server goes on with them, because the index stays as it is.

use ahash::{AHasher, RandomState};
use rustix::rand::{GetRandomFlags, getrandom};
use std::hash::{BuildHasher, Hasher};
use std::io;

/// The number of hash bits that select a bucket.
pub const BUCKET_BITS: u32 = 40;

/// The seeds of a hash function.
pub type Seeds = [u64; 4];

/// The hash function of one process, or of several that take over each other's memory.
#[derive(Clone)]
pub struct KeyHasher {
    state: RandomState,
    seeds: Seeds,
}

/// Without the seeds, which no log may show.
impl std::fmt::Debug for KeyHasher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KeyHasher").finish_non_exhaustive()
    }
}

impl KeyHasher {
    /// A hash function with random seeds.
    ///
    /// # Errors
    /// If the system has no random bits.
    pub fn random() -> io::Result<KeyHasher> {
        let mut bytes = [0; 32];
        let mut filled = 0;
        while filled < bytes.len() {
            match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let seed = |at: usize| u64::from_ne_bytes(*bytes[at..].first_chunk().expect("32 bytes make four seeds"));
        Ok(KeyHasher::from_seeds([seed(0), seed(8), seed(16), seed(24)]))
    }

    /// A hash function with a given seed, for tests and benches that must repeat themselves.
    pub fn seeded(seed: u64) -> KeyHasher {
        KeyHasher::from_seeds([seed, seed ^ 0x9e37, !seed, seed.rotate_left(32)])
    }

    /// The hash function with these seeds.
    pub fn from_seeds(seeds: Seeds) -> KeyHasher {
        let [a, b, c, d] = seeds;
        KeyHasher { state: RandomState::with_seeds(a, b, c, d), seeds }
    }

    /// The seeds, for the process that takes over the memory of this one. They are as secret as the keys of items.
    pub fn seeds(&self) -> Seeds {
        self.seeds
    }

    /// A number that differs between two builds of the server whose hash functions differ although their seeds are the same.
    pub fn probe() -> u64 {
        let hasher = KeyHasher::seeded(1);
        let text: [u8; 96] = std::array::from_fn(|at| at as u8);
        (0..=text.len()).fold(0, |sum: u64, len| sum.rotate_left(5) ^ hasher.hash(&text[..len]))
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

/// For tables whose keys clients choose.
impl BuildHasher for KeyHasher {
    type Hasher = AHasher;

    fn build_hasher(&self) -> AHasher {
        self.state.build_hasher()
    }
}

/// The number of the shard that owns a key. `shards` is the number of shards, 1–65536.
#[inline]
pub fn shard(hash: u64, shards: usize) -> usize {
    ((hash >> 48) as usize * shards) >> 16
}

/// The tag of a key, 1–255. The bucket has it beside the id of the item.
#[inline]
pub fn tag(hash: u64) -> u8 {
    ((hash >> BUCKET_BITS) as u8).max(1)
}

/// The hash bits that select a bucket.
#[inline]
pub fn bucket_bits(hash: u64) -> u64 {
    hash & ((1 << BUCKET_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_evenly_filled() {
        let hasher = KeyHasher::seeded(1);
        for shards in [1, 2, 3, 7, 64] {
            let mut counts = vec![0_u32; shards];
            for key in 0..64_000_u32 {
                counts[shard(hasher.hash(&key.to_le_bytes()), shards)] += 1;
            }
            let mean = 64_000 / shards as u32;
            assert!(counts.iter().all(|&count| count.abs_diff(mean) < mean / 5 + 50), "{shards}: {counts:?}");
        }
    }
}
