//! `flush_prefix`: the items of a prefix die, or turn stale. See `flushed.rs`.

use super::arena::ItemId;
use super::flushed::{Entry, FLUSHED_PREFIXES_MAX, Flush, Refused};
use super::item::{Item, STALE, WON};
use super::{Store, same};

/// Seconds that the stamps of a prefix may be ahead of the clock. A prefix gets one second ahead if it is flushed, an item
/// of it is stored and it is flushed again, all in one second.
const AHEAD_MAX: u32 = 1 << 20;

impl Store {
    /// Flushes the items whose keys begin with a prefix: see [`super::flushed::PrefixRule::is_prefix`]. Items that are
    /// stored later are not affected.
    ///
    /// # Errors
    /// If too many prefixes are flushed, or this one too often.
    pub fn flush_prefix(&mut self, prefix: &[u8], flush: Flush) -> Result<(), Refused> {
        debug_assert!(self.flushed.rule.is_prefix(prefix), "{}", prefix.escape_ascii());
        if self.index.len() == 0 {
            return Ok(());
        }
        self.end_copies();
        let current = self.stamps.current();
        let known = self.flushed.entries.get(prefix).copied();
        if known.is_none() && self.flushed.entries.len() >= FLUSHED_PREFIXES_MAX {
            return Err(Refused::TooMany);
        }
        let mut entry = known.unwrap_or_default();
        // An item whose stamp is ahead has noted that at each of its prefixes down to the deepest one that was flushed.
        let until = self.flushed.entries_of(prefix).fold(current, |until, entry| until.max(entry.ahead));
        if until - current > AHEAD_MAX {
            return Err(Refused::TooOften);
        }
        match flush {
            Flush::Kill => entry.dead_until = until,
            Flush::Stale => entry.stale_until = until,
        }
        entry.sweep = self.flushed.sweep + 1;
        self.flushed.put(prefix, entry);
        self.stamps.suspect(until);
        self.stamps.step(self.now);
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
        if self.flushed.entries.is_empty() {
            self.flushed.clear();
        }
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

    /// [`Store::stamp_for`] in a second of several flushes.
    #[cold]
    #[inline(never)]
    fn stamp_ahead(&mut self, id: ItemId) -> u32 {
        let current = self.stamps.current();
        let item = self.items.at(id);
        let key = item.key();
        let flushed = &mut self.flushed;
        let stamp = flushed.entries_of(key).fold(current, |stamp, entry| stamp.max(entry.until() + 1));
        if stamp > current {
            // Not below the deepest one that has an entry: clients may store any number of prefixes there.
            let sweep = flushed.sweep;
            let has_entry = |&(_, prefix): &(usize, &[u8])| flushed.entries.contains_key(prefix);
            let deepest = flushed.rule.prefixes_of(key).enumerate().filter(has_entry).last();
            let noting = deepest.map_or(0, |(depth, _)| depth + 1);
            for prefix in flushed.rule.prefixes_of(key).take(noting) {
                let known = flushed.entries.get(prefix).copied();
                let entry = known.unwrap_or(Entry { sweep, ..Entry::default() });
                flushed.put(prefix, Entry { ahead: entry.ahead.max(stamp), ..entry });
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

    /// Whether a hint names the live item with this key, and no flush of a prefix has touched it. Its stamp is suspect.
    pub(super) fn is_spared(&self, id: ItemId, key: &[u8]) -> bool {
        let item = self.items.at(id);
        !self.slabs.have_moved()
            && same(item.key(), key)
            && item.is_linked()
            && item.exptime().wrapping_sub(1) >= self.now
            && !self.stamps.is_flushed(item.stamp())
            && !self.flushed.touches(item.key(), item.stamp())
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
