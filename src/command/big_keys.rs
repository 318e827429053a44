//! The keys of the largest values of a shard, for `stats bigkeys`. Only values that are longer than the read buffer come
//! here, so short ones cost nothing.

use crate::clock::Now;
use crate::store::Store;

/// The most keys that a shard remembers.
pub const BIG_KEYS_MAX: usize = 16;
/// Shorter values are not big, in bytes.
const BIG_BYTES_MIN: usize = 64 << 10;

/// A key with a big value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BigKey {
    /// The key.
    pub key: Vec<u8>,
    /// The hash of the key.
    pub hash: u64,
    /// The length of the value.
    pub bytes: usize,
    /// When it was stored.
    pub stored: Now,
}

/// The keys of the largest values of a shard, the largest first.
#[derive(Clone, Debug, Default)]
pub struct BigKeys(Vec<BigKey>);

impl BigKeys {
    /// A client has stored a value in `store`, or tried to.
    pub(super) fn note(&mut self, store: &Store, key: &[u8], hash: u64, bytes: usize) {
        if bytes < BIG_BYTES_MIN {
            return;
        }
        self.0.retain(|big| big.hash != hash || big.key != key);
        if self.0.len() >= BIG_KEYS_MAX {
            // Values that are gone make room first.
            self.forget_gone(store);
        }
        let place = self.0.iter().position(|big| big.bytes < bytes).unwrap_or(self.0.len());
        if place < BIG_KEYS_MAX {
            self.0.truncate(BIG_KEYS_MAX - 1);
            self.0.insert(place, BigKey { key: key.to_vec(), hash, bytes, stored: store.now() });
        }
    }

    /// The values that are still in `store`.
    pub fn list(&mut self, store: &Store) -> Vec<BigKey> {
        self.forget_gone(store);
        self.0.clone()
    }

    fn forget_gone(&mut self, store: &Store) {
        self.0.retain(|big| store.peek(big.hash, &big.key).is_ok_and(|id| store.item(id).value_len() == big.bytes));
    }
}
