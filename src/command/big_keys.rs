//! The keys of the largest values of a shard, for `stats bigkeys`. Only values that are longer than the read buffer come
//! here, so short ones cost nothing.

use super::shard::Shard;
use crate::clock::Now;

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

impl Shard {
    /// A client has stored a long value, or tried to.
    pub(super) fn note_big(&mut self, key: &[u8], hash: u64, bytes: usize) {
        if bytes < BIG_BYTES_MIN {
            return;
        }
        let stored = self.store.now();
        self.big_keys.retain(|big| big.hash != hash || big.key != key);
        if self.big_keys.len() >= BIG_KEYS_MAX {
            // Values that are gone make room first.
            self.forget_gone();
        }
        let smaller = self.big_keys.iter().position(|big| big.bytes < bytes).unwrap_or(self.big_keys.len());
        if smaller < BIG_KEYS_MAX {
            self.big_keys.truncate(BIG_KEYS_MAX - 1);
            self.big_keys.insert(smaller, BigKey { key: key.to_vec(), hash, bytes, stored });
        }
    }

    /// The largest values that are still there, the largest first.
    pub fn big_keys(&mut self) -> Vec<BigKey> {
        self.forget_gone();
        self.big_keys.clone()
    }

    fn forget_gone(&mut self) {
        let store = &self.store;
        self.big_keys
            .retain(|big| store.peek(big.hash, &big.key).is_ok_and(|id| store.item(id).value_len() == big.bytes));
    }
}
