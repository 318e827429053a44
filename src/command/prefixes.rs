//! `stats detail`: how often keys of a prefix were fetched, stored and deleted. As in memcached, by the classic and the
//! binary protocol only, and not by incr, decr and the classic touch.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Counts by prefix: what stands in a key before the delimiter.
#[derive(Clone, Debug)]
pub struct Prefixes {
    delimiter: u8,
    /// Whether it counts now (`stats detail on`), or only keeps what it has (`off`).
    pub on: bool,
    /// Prefixes counted at most; keys of further ones are not counted.
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
    /// No counts yet. `delimiter` is that of `-D`; keys of more than `prefixes_max` prefixes are not counted.
    pub fn new(delimiter: u8, prefixes_max: usize) -> Prefixes {
        Prefixes { delimiter, on: true, prefixes_max, counts: HashMap::new() }
    }

    fn counts(&mut self, key: &[u8]) -> Option<&mut PrefixCounts> {
        if !self.on {
            return None;
        }
        // As memcached: behind a NUL, nothing is a delimiter.
        let len = key.iter().position(|&byte| byte == self.delimiter || byte == 0).filter(|&len| key[len] != 0)?;
        let full = self.counts.len() >= self.prefixes_max;
        match self.counts.entry(key[..len].to_vec()) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(_) if full => None,
            Entry::Vacant(entry) => Some(entry.insert(PrefixCounts::default())),
        }
    }

    /// A fetch, and whether it hit.
    pub fn count_get(&mut self, key: &[u8], hit: bool) {
        if let Some(counts) = self.counts(key) {
            counts.get += 1;
            counts.hit += u64::from(hit);
        }
    }

    /// A storage command.
    pub fn count_set(&mut self, key: &[u8]) {
        if let Some(counts) = self.counts(key) {
            counts.set += 1;
        }
    }

    /// A deletion.
    pub fn count_delete(&mut self, key: &[u8]) {
        if let Some(counts) = self.counts(key) {
            counts.del += 1;
        }
    }

    /// Forgets all counts, and goes on as it was: counting, or not.
    pub fn clear(&mut self) {
        self.counts = HashMap::new();
    }

    /// The counts, by prefix.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], PrefixCounts)> {
        self.counts.iter().map(|(prefix, &counts)| (prefix.as_slice(), counts))
    }
}
