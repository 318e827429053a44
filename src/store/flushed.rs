//! Flushed prefixes: the namespaces whose items die, or turn stale, without a look at each item.
//!
//! A prefix is the first part of a key, or the first parts, each with its delimiter: `user:` and `user:42:` of the key
//! `user:42:name`. A flush notes for its prefix the latest stamp that an item of the prefix can have (see `stamps.rs`).
//! Items of the prefix with this stamp or an earlier one were there before the flush. So a flush takes the same short
//! time for any number of items, and no item has a byte for it.
//!
//! An item that is stored later must have a later stamp, even in the second of the flush. After the first flush of a second
//! all stamps are later. After a further one the stamp of the item is ahead of all others; the entries of its prefixes
//! remember that, so that the next flush of one of them covers it.
//!
//! After a flush the search for dead items visits every page. It frees the items that the flush has killed, and marks
//! those that it has made stale. When all pages are visited, no item needs the entry any more, and it is dropped. So the
//! table is mostly empty. While it has entries, only items are looked up whose stamp is not later than all flushes.

use crate::hash::KeyHasher;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The most prefixes of a shard that are flushed and not yet swept.
pub const FLUSHED_PREFIXES_MAX: usize = 65_536;

/// With so many prefixes the sweep goes on without a rest.
const PREFIXES_MANY: usize = FLUSHED_PREFIXES_MAX / 8;

/// What a flush does to the items of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// They are gone.
    Kill,
    /// They are stale, as after `md` with the flag `I`: meta commands say so, and one client wins the right to recache.
    Stale,
}

/// Why a prefix cannot be flushed. It is not flushed in this shard then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// [`FLUSHED_PREFIXES_MAX`] others are flushed and not yet swept.
    TooMany,
    /// The prefix was flushed so often within seconds that its stamps are too far ahead of the clock.
    TooOften,
}

/// How keys are divided into parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixRule {
    /// The byte that ends a part.
    pub delimiter: u8,
    /// The most parts of a prefix.
    pub parts_max: usize,
}

impl Default for PrefixRule {
    fn default() -> PrefixRule {
        PrefixRule { delimiter: b':', parts_max: 1 }
    }
}

impl PrefixRule {
    /// The prefixes of a key, shortest first, each with its last delimiter.
    pub fn prefixes_of(self, key: &[u8]) -> impl Iterator<Item = &[u8]> {
        memchr::memchr_iter(self.delimiter, key).take(self.parts_max).map(|at| &key[..=at])
    }

    /// Whether a text is a prefix: it ends with a delimiter, and has not more parts than a prefix may have.
    pub fn is_prefix(self, text: &[u8]) -> bool {
        text.last() == Some(&self.delimiter) && memchr::memchr_iter(self.delimiter, text).count() <= self.parts_max
    }
}

/// The stamps of a flushed prefix.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Items with this stamp or an earlier one are dead.
    pub(super) dead_until: u32,
    /// Items with this stamp or an earlier one turn stale.
    pub(super) stale_until: u32,
    /// The latest stamp ahead of the clock that an item of the prefix got.
    pub(super) ahead: u32,
    /// The sweep after which no item needs the entry.
    pub(super) sweep: u32,
}

impl Entry {
    pub(super) fn until(&self) -> u32 {
        self.dead_until.max(self.stale_until)
    }
}

/// The first two bytes of prefixes, by a hash. It spares most keys of other prefixes the search for their own.
#[derive(Debug)]
struct Filter([u64; 64]);

impl Default for Filter {
    fn default() -> Filter {
        Filter([0; 64])
    }
}

impl Filter {
    /// The word and the bit of a prefix or a key. A key of one byte has no prefix but the delimiter.
    #[inline]
    fn place(key: &[u8]) -> (usize, u32) {
        let first = key
            .first_chunk()
            .map_or_else(|| u16::from(key.first().copied().unwrap_or(0)), |two| u16::from_le_bytes(*two));
        let hash = u32::from(first).wrapping_mul(0x9e37_79b1) >> 20;
        ((hash >> 6) as usize, hash & 63)
    }

    #[inline]
    fn may_have(&self, key: &[u8]) -> bool {
        let (word, bit) = Filter::place(key);
        self.0[word] >> bit & 1 == 1
    }

    /// Adds a prefix. A prefix of one byte, the delimiter alone, stands before any second byte.
    fn add(&mut self, prefix: &[u8]) {
        if let [only] = *prefix {
            (0..=u8::MAX).for_each(|second| self.add(&[only, second]));
        }
        let (word, bit) = Filter::place(prefix);
        self.0[word] |= 1 << bit;
    }
}

/// The flushed prefixes of a shard.
#[derive(Debug)]
pub(super) struct Flushed {
    pub(super) rule: PrefixRule,
    pub(super) entries: HashMap<Box<[u8]>, Entry, KeyHasher>,
    /// Has the prefixes of `entries`, and perhaps earlier ones.
    filter: Filter,
    /// The number of the sweep that is under way, or of the last one.
    pub(super) sweep: u32,
    /// Whether a sweep is under way.
    pub(super) sweeping: bool,
    /// The time at which entries were dropped last.
    pub(super) dropped_at: u32,
}

impl Flushed {
    pub(super) fn new(rule: PrefixRule, hasher: KeyHasher) -> Flushed {
        Flushed {
            rule,
            entries: HashMap::with_hasher(hasher),
            filter: Filter::default(),
            sweep: 0,
            sweeping: false,
            dropped_at: 0,
        }
    }

    /// The entries of the prefixes of a key.
    pub(super) fn entries_of(&self, key: &[u8]) -> impl Iterator<Item = &Entry> {
        self.rule.prefixes_of(key).filter_map(|prefix| self.entries.get(prefix))
    }

    /// Whether no flush is remembered.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a flush touches an item with this key and stamp.
    #[inline]
    pub(super) fn touches(&self, key: &[u8], stamp: u32) -> bool {
        self.filter.may_have(key) && self.entries_of(key).any(|entry| stamp <= entry.until())
    }

    /// Adds a prefix, or changes its entry.
    pub(super) fn put(&mut self, prefix: &[u8], entry: Entry) {
        self.filter.add(prefix);
        self.entries.insert(prefix.into(), entry);
    }

    /// Whether an item with this key and stamp is dead.
    pub(super) fn kills(&self, key: &[u8], stamp: u32) -> bool {
        self.filter.may_have(key) && self.entries_of(key).any(|entry| stamp <= entry.dead_until)
    }

    /// Whether an item with this key and stamp must turn stale.
    pub(super) fn stales(&self, key: &[u8], stamp: u32) -> bool {
        self.filter.may_have(key) && self.entries_of(key).any(|entry| stamp <= entry.stale_until)
    }

    /// The latest stamp of all flushes.
    pub(super) fn until(&self) -> u32 {
        self.entries.values().map(Entry::until).max().unwrap_or(0)
    }

    /// Whether the sweep should not rest.
    pub(super) fn is_urgent(&self) -> bool {
        self.sweeping && self.entries.len() >= PREFIXES_MANY
    }

    /// Forgets all prefixes: every item is dead.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.filter = Filter::default();
    }
}
