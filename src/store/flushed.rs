//! Flushed prefixes: the namespaces whose items die, or turn stale, without a look at each item.
//!
//! A prefix is the first part of a key, or the first parts, each with its delimiter: `user:` and `user:42:` of the key
//! `user:42:name`. A flush notes for its prefix the latest stamp that an item of the prefix can have (see `stamps.rs`).
//! Items of the prefix with this stamp or an earlier one were there before the flush. So a flush takes the same short
//! time for any number of items, and no item has a byte for it.
//!
//! An item that is stored later must have a later stamp, even in the second of the flush. Then its stamp is ahead of the
//! clock. The entries of all its prefixes remember that, so that the next flush of one of them covers it.
//!
//! After a flush the search for dead items visits every page. It frees the items that the flush has killed, and marks
//! those that it has made stale. When all pages are visited, no item needs the entry any more, and it is dropped. So the
//! table is mostly empty. While it has entries, only items are looked up whose stamp is not later than all flushes.

use super::Store;
use super::arena::ItemId;
use super::item::{Item, STALE, WON};
use crate::hash::KeyHasher;
use std::collections::HashMap;

/// The most prefixes of a shard that are flushed and not yet swept.
pub const FLUSHED_PREFIXES_MAX: usize = 65_536;

/// With so many prefixes the sweep goes on without a rest.
const PREFIXES_MANY: usize = FLUSHED_PREFIXES_MAX / 8;

/// Seconds that the stamps of a prefix may be ahead of the clock. A prefix gets one second ahead if it is flushed, an item
/// of it is stored and it is flushed again, all in one second.
const AHEAD_MAX: u32 = 1 << 20;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Items with this stamp or an earlier one are dead.
    dead_until: u32,
    /// Items with this stamp or an earlier one turn stale.
    stale_until: u32,
    /// The latest stamp ahead of the clock that an item of the prefix got.
    ahead: u32,
    /// The sweep after which no item needs the entry.
    sweep: u32,
}

impl Entry {
    fn until(&self) -> u32 {
        self.dead_until.max(self.stale_until)
    }
}

/// The flushed prefixes of a shard.
#[derive(Debug)]
pub(super) struct Flushed {
    rule: PrefixRule,
    entries: HashMap<Box<[u8]>, Entry, KeyHasher>,
    /// The number of the sweep that is under way, or of the last one.
    sweep: u32,
    /// Whether a sweep is under way.
    sweeping: bool,
    /// The time at which entries were dropped last.
    dropped_at: u32,
}

impl Flushed {
    pub(super) fn new(rule: PrefixRule, hasher: KeyHasher) -> Flushed {
        Flushed { rule, entries: HashMap::with_hasher(hasher), sweep: 0, sweeping: false, dropped_at: 0 }
    }

    /// The entries of the prefixes of a key.
    fn entries_of(&self, key: &[u8]) -> impl Iterator<Item = &Entry> {
        self.rule.prefixes_of(key).filter_map(|prefix| self.entries.get(prefix))
    }

    /// Whether an item with this key and stamp is dead.
    pub(super) fn kills(&self, key: &[u8], stamp: u32) -> bool {
        self.entries_of(key).any(|entry| stamp <= entry.dead_until)
    }

    /// Whether an item with this key and stamp must turn stale.
    fn stales(&self, key: &[u8], stamp: u32) -> bool {
        self.entries_of(key).any(|entry| stamp <= entry.stale_until)
    }

    /// The latest stamp of all flushes.
    fn until(&self) -> u32 {
        self.entries.values().map(Entry::until).max().unwrap_or(0)
    }

    /// Whether the sweep should not rest.
    pub(super) fn is_urgent(&self) -> bool {
        self.entries.len() >= PREFIXES_MANY
    }

    /// Forgets all prefixes: every item is dead.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

impl Store {
    /// Flushes the items whose keys begin with a prefix (see [`PrefixRule::is_prefix`]). Items that are stored later are not
    /// affected.
    ///
    /// # Errors
    /// If too many prefixes are flushed, or this one too often.
    pub fn flush_prefix(&mut self, prefix: &[u8], flush: Flush) -> Result<(), Refused> {
        debug_assert!(self.flushed.rule.is_prefix(prefix), "{}", prefix.escape_ascii());
        if self.index.len() == 0 {
            return Ok(());
        }
        let current = self.stamps.current();
        let known = self.flushed.entries.get(prefix).copied();
        if known.is_none() && self.flushed.entries.len() >= FLUSHED_PREFIXES_MAX {
            return Err(Refused::TooMany);
        }
        let mut entry = known.unwrap_or_default();
        let until = current.max(entry.ahead);
        if until - current > AHEAD_MAX {
            return Err(Refused::TooOften);
        }
        match flush {
            Flush::Kill => entry.dead_until = until,
            Flush::Stale => entry.stale_until = until,
        }
        entry.sweep = self.flushed.sweep + 1;
        self.flushed.entries.insert(prefix.into(), entry);
        self.stamps.suspect(until);
        if !self.flushed.sweeping {
            self.begin_sweep();
        }
        Ok(())
    }

    /// The number of prefixes that are flushed and not yet swept.
    pub fn flushed_prefixes(&self) -> usize {
        self.flushed.entries.len()
    }

    fn begin_sweep(&mut self) {
        self.flushed.sweep += 1;
        self.flushed.sweeping = true;
        self.slabs.visit_all();
    }

    /// Ends the sweep when every page is visited, drops the prefixes that no item needs any more, and begins the next sweep
    /// if there were flushes meanwhile.
    pub(super) fn follow_sweep(&mut self) {
        if self.flushed.sweeping && self.slabs.visits_left() == 0 {
            self.flushed.sweeping = false;
            self.flushed.dropped_at = 0;
        }
        if self.flushed.entries.is_empty() || self.flushed.sweeping || self.flushed.dropped_at == self.now {
            return;
        }
        let (current, swept) = (self.stamps.current(), self.flushed.sweep);
        self.flushed.dropped_at = self.now;
        self.flushed.entries.retain(|_, entry| entry.sweep > swept || entry.until().max(entry.ahead) >= current);
        self.stamps.suspect_only(self.flushed.until());
        if self.flushed.entries.values().any(|entry| entry.sweep > swept) {
            self.begin_sweep();
        }
    }

    /// The stamp for a new item with this key.
    #[inline]
    pub(super) fn stamp_for(&mut self, id: ItemId) -> u32 {
        let current = self.stamps.current();
        if self.stamps.is_suspect(current) { self.stamp_ahead(id) } else { current }
    }

    /// [`Store::stamp_for`] in the second of a flush.
    #[cold]
    #[inline(never)]
    fn stamp_ahead(&mut self, id: ItemId) -> u32 {
        let current = self.stamps.current();
        let item = self.items.at(id);
        let key = item.key();
        let flushed = &mut self.flushed;
        let stamp = flushed.entries_of(key).fold(current, |stamp, entry| stamp.max(entry.until() + 1));
        if stamp > current {
            let sweep = flushed.sweep;
            for prefix in flushed.rule.prefixes_of(key) {
                if !flushed.entries.contains_key(prefix) {
                    flushed.entries.insert(prefix.into(), Entry { sweep, ..Entry::default() });
                }
                let entry = flushed.entries.get_mut(prefix).expect("it was inserted");
                entry.ahead = entry.ahead.max(stamp);
            }
            self.stamps.hand_out(stamp);
        }
        stamp
    }

    /// Whether a flush of a prefix has killed an item whose stamp is suspect.
    #[cold]
    #[inline(never)]
    pub(super) fn is_killed(&self, item: &Item<'_>) -> bool {
        self.flushed.kills(item.key(), item.stamp())
    }

    /// Marks a live item as stale if a flush of a prefix has made it so. Whoever finds an item calls this first.
    #[inline]
    pub(super) fn settle(&mut self, id: ItemId) {
        if self.stamps.is_suspect(self.items.at(id).stamp()) {
            self.settle_suspect(id);
        }
    }

    #[cold]
    #[inline(never)]
    fn settle_suspect(&mut self, id: ItemId) {
        let item = self.items.at(id);
        if !self.flushed.stales(item.key(), item.stamp()) {
            return;
        }
        item.change_state(STALE, WON);
        let (cas, stamp) = (self.next_cas(), self.stamp_for(id));
        let item = self.items.at(id);
        item.set_cas(cas);
        item.set_stamp(stamp);
    }
}
