//! The hash of a key, and which of its 64 bits mean what.
//!
//! ```text
//!  63          48 47      40 39                                0
//! ├── shard ─────┼── tag ───┼── bucket ───────────────────────────┤
//! ```
//! The three uses are disjoint, so that within a shard the buckets are evenly filled, and within a bucket the
//! tags are independent of the bucket's number.
//!
//! The hash is keyed with 256 random bits of the system at start: nobody outside can aim keys at one bucket or one shard.
//! (`ahash` as it is built here has no random bits of its own: its keys would be constants and an address.) Should the
//! keys become known nevertheless, the index bounds what it costs: see `store/index.rs`. They are kept nowhere: the image
//! of a warm restart has the items' own keys, which are hashed anew when it is read.

use ahash::RandomState;
use rustix::rand::{GetRandomFlags, getrandom};
use std::hash::{BuildHasher, Hasher};
use std::io;

/// Bits of the hash that number a bucket.
pub const BUCKET_BITS: u32 = 40;

/// The hash function of one process.
#[derive(Clone, Debug)]
pub struct KeyHasher(RandomState);

impl KeyHasher {
    /// Keyed at random.
    ///
    /// # Errors
    /// When the system has no random bits.
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
        Ok(KeyHasher(RandomState::with_seeds(seed(0), seed(8), seed(16), seed(24))))
    }

    /// Keyed with a seed: for tests and benches, which repeat themselves.
    pub fn seeded(seed: u64) -> KeyHasher {
        KeyHasher(RandomState::with_seeds(seed, seed ^ 0x9e37, !seed, seed.rotate_left(32)))
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

/// The shard, of `shards` (1–65536), that owns a key.
#[inline]
pub fn shard(hash: u64, shards: usize) -> usize {
    ((hash >> 48) as usize * shards) >> 16
}

/// The tag that stands beside an item's id in its bucket: 1–255.
#[inline]
pub fn tag(hash: u64) -> u8 {
    ((hash >> BUCKET_BITS) as u8).max(1)
}

/// The bits that number a bucket.
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
