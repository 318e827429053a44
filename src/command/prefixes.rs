//! `stats detail`: counts how often clients fetch, store and delete keys of each prefix. As in memcached, only commands
//! of the classic and the binary protocol count, and incr, decr and the classic touch do not.

use std::collections::HashMap;

/// The counts by prefix. The prefix of a key is the part before the delimiter.
#[derive(Clone, Debug)]
pub struct Prefixes {
    delimiter: u8,
    /// Whether commands count now (`stats detail on`). After `off`, the counts stay as they are.
    pub on: bool,
    /// The most prefixes with counts. Keys of further prefixes do not count.
    prefixes_max: usize,
    counts: HashMap<Vec<u8>, PrefixCounts>,
}

/// Counts of one prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "memcached's names")]
pub struct PrefixCounts {
    pub get: u64,
    pub hit: u64,
    pub set: u64,
    pub del: u64,
}

impl Prefixes {
    /// Starts without counts. `delimiter` is the one of `-D`. Only the keys of the first `prefixes_max` prefixes count.
    pub fn new(delimiter: u8, prefixes_max: usize) -> Prefixes {
        Prefixes { delimiter, on: true, prefixes_max, counts: HashMap::new() }
    }

    fn counts(&mut self, key: &[u8]) -> Option<&mut PrefixCounts> {
        if !self.on {
            return None;
        }
        // As in memcached, a delimiter behind a NUL does not count.
        let len = key.iter().position(|&byte| byte == self.delimiter || byte == 0).filter(|&len| key[len] != 0)?;
        let prefix = &key[..len];
        // Two look-ups by slice: `entry` would copy the prefix of every key.
        if !self.counts.contains_key(prefix) {
            if self.counts.len() >= self.prefixes_max {
                return None;
            }
            self.counts.insert(prefix.to_vec(), PrefixCounts::default());
        }
        self.counts.get_mut(prefix)
    }

    /// Counts a fetch, and a hit if it is one.
    pub fn count_get(&mut self, key: &[u8], hit: bool) {
        if let Some(counts) = self.counts(key) {
            counts.get += 1;
            counts.hit += u64::from(hit);
        }
    }

    /// Counts a storage command.
    pub fn count_set(&mut self, key: &[u8]) {
        if let Some(counts) = self.counts(key) {
            counts.set += 1;
        }
    }

    /// Counts a delete command.
    pub fn count_delete(&mut self, key: &[u8]) {
        if let Some(counts) = self.counts(key) {
            counts.del += 1;
        }
    }

    /// Forgets all counts. Does not change whether commands count.
    pub fn clear(&mut self) {
        self.counts = HashMap::new();
    }

    /// The counts, by prefix.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], PrefixCounts)> {
        self.counts.iter().map(|(prefix, &counts)| (prefix.as_slice(), counts))
    }
}
