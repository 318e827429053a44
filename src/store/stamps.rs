//! Stamps. The stamp of an item tells the time of its last access, and whether a flush has killed it.
//!
//! A stamp is a count of the clock plus a lead. Each flush adds one to the lead. So an item stored after a flush has a
//! later stamp than any item stored before it, even within the same second. All live items got their stamps after the
//! last flush, with the same lead, and so their times are exact, but for flushes of prefixes. Of dead items, the store
//! may know only an upper bound of the time.
//!
//! The first flush of a prefix in a second lets the stamps go one second ahead of the clock ([`Stamps::step`]), so that
//! whatever is accessed after it is not suspect. The clock then catches up. Items may seem a second younger than they are.
//! A further flush in this second lets items of its prefix get stamps that are ahead of all others: see `flushed.rs`.
//!
//! Stamps cannot run out. After [`LEAD_MAX`] flushes they are [worn](Stamps::are_worn); the store is then emptied, and
//! [`Stamps::restart`] resets the lead.

use serde::{Deserialize, Serialize};

/// Flushes after which the store must be emptied. As many seconds remain for the clock, which are 68 years.
const LEAD_MAX: u32 = 1 << 31;

/// See the top of the file.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Stamps {
    /// The stamp of an item that is accessed now.
    /// Invariant: `current` is `now + lead` for the latest `now`, or one more, but never as low as `flushed_until`.
    current: u32,
    /// Items with this stamp or an earlier one are flushed.
    flushed_until: u32,
    /// Items with this stamp or an earlier one are flushed, or their prefix may be (`flushed.rs`).
    /// Invariant: at least `flushed_until`.
    suspect_until: u32,
    /// The latest stamp ahead of `current` that an item got.
    ahead: u32,
    /// How far stamps are ahead of the clock.
    lead: u32,
    /// `flushed_until` before the last flush, the time of the flush that set it, and `lead` before the last flush.
    flushed_before: (u32, u32, u32),
    /// The time of the last flush.
    flushed_at: u32,
}

impl Stamps {
    pub(super) fn new(now: u32) -> Stamps {
        Stamps {
            current: now,
            flushed_until: 0,
            suspect_until: 0,
            ahead: 0,
            lead: 0,
            flushed_before: (0, 0, 0),
            flushed_at: 0,
        }
    }

    #[inline]
    pub(super) fn current(&self) -> u32 {
        self.current
    }

    /// Whether the stamps of an earlier process are possible.
    pub(super) fn is_sound(&self) -> bool {
        self.flushed_until < self.current && self.flushed_until <= self.suspect_until && self.lead <= self.current
    }

    /// Tells the stamps the time. They never go back: the clock of one worker may be a turn behind that of another, and
    /// a flush must cover what the other has stored.
    #[inline]
    pub(super) fn set_now(&mut self, now: u32) {
        self.current = now.saturating_add(self.lead).max(self.current).max(self.flushed_until + 1);
    }

    /// Whether an item with this stamp was stored before the last flush.
    #[inline]
    pub(super) fn is_flushed(&self, stamp: u32) -> bool {
        stamp <= self.flushed_until
    }

    /// Whether an item with this stamp is flushed, or its prefix may be.
    #[inline]
    pub(super) fn is_suspect(&self, stamp: u32) -> bool {
        stamp <= self.suspect_until
    }

    /// Items with this stamp or an earlier one are suspect.
    pub(super) fn suspect(&mut self, until: u32) {
        self.suspect_until = self.suspect_until.max(until);
    }

    /// What is accessed from now on gets a later stamp than what was accessed before, unless the stamps are ahead already.
    pub(super) fn step(&mut self, now: u32) {
        if self.current == now.saturating_add(self.lead) {
            self.current += 1;
        }
    }

    /// No items but those with this stamp or an earlier one are suspect, and those that are flushed.
    pub(super) fn suspect_only(&mut self, until: u32) {
        self.suspect_until = self.flushed_until.max(until);
    }

    /// An item gets a stamp that is ahead of the clock.
    pub(super) fn hand_out(&mut self, stamp: u32) {
        self.ahead = self.ahead.max(stamp);
    }

    /// Flushes all items stamped so far.
    pub(super) fn flush(&mut self, now: u32) {
        self.flushed_before = (self.flushed_until, self.flushed_at, self.lead);
        self.flushed_at = now;
        self.flushed_until = self.current.max(self.ahead);
        self.suspect_until = self.flushed_until;
        self.lead += 1 + (self.flushed_until - self.current);
        self.set_now(now);
    }

    /// Whether the store must be emptied after so many flushes.
    pub(super) fn are_worn(&self) -> bool {
        self.lead >= LEAD_MAX
    }

    /// For tests: does what so many flushes would do.
    #[cfg(test)]
    pub(super) fn wear_out(&mut self, now: u32) {
        self.lead = LEAD_MAX - 1;
        self.set_now(now);
        self.flush(now);
    }

    /// Starts again. The store has no item.
    pub(super) fn restart(&mut self, now: u32) {
        *self = Stamps::new(now);
    }

    /// The time that a stamp stands for. For an item that was already dead at the last flush, it is the time of the
    /// flush that killed the item, or of a later one.
    #[inline]
    pub(super) fn time(&self, stamp: u32) -> u32 {
        if stamp > self.flushed_until {
            return stamp.saturating_sub(self.lead);
        }
        let (flushed_before, at, lead) = self.flushed_before;
        if stamp > flushed_before { stamp.saturating_sub(lead) } else { at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares stamps with a model that knows the true times.
    #[test]
    fn times_are_true_whatever_was_flushed() {
        let mut random: u64 = 7;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % limit
        };
        let (mut stamps, mut now) = (Stamps::new(2), 2);
        let mut live: Vec<(u32, u32)> = Vec::new();
        let mut dead: Vec<(u32, u32)> = Vec::new();
        for _ in 0..20_000 {
            match below(20) {
                0 => {
                    now += below(3) as u32;
                    stamps.set_now(now);
                }
                1..4 => {
                    stamps.flush(now);
                    dead.append(&mut live);
                }
                4 if dead.len() > 100 => {
                    stamps.restart(now);
                    live.clear();
                    dead.clear();
                }
                _ => live.push((stamps.current(), now)),
            }
            assert!(live.iter().all(|&(stamp, at)| !stamps.is_flushed(stamp) && stamps.time(stamp) == at));
            assert!(dead.iter().all(|&(stamp, _)| stamps.is_flushed(stamp) && stamps.time(stamp) <= now));
            assert!(dead.iter().all(|&(stamp, at)| stamps.time(stamp) >= at));
        }
    }

    #[test]
    fn times_of_items_that_the_last_flush_killed_are_exact() {
        let mut stamps = Stamps::new(2);
        let old = stamps.current();
        stamps.set_now(10);
        stamps.flush(10);
        assert_eq!((stamps.time(old), stamps.time(stamps.current())), (2, 10));
        for _ in 0..200_000 {
            stamps.flush(10);
        }
        assert_eq!((stamps.time(old), stamps.time(stamps.current())), (10, 10));
    }

    #[test]
    fn a_clock_that_is_set_back_resurrects_nothing() {
        let mut stamps = Stamps::new(100);
        let before = stamps.current();
        stamps.flush(100);
        stamps.set_now(10);
        assert!(stamps.is_flushed(before) && !stamps.is_flushed(stamps.current()));
    }

    #[test]
    fn nothing_overflows_before_stamps_are_worn() {
        let mut stamps = Stamps::new(1 << 31);
        stamps.lead = LEAD_MAX - 1;
        stamps.set_now(1 << 30);
        assert!(!stamps.are_worn());
        stamps.flush(1 << 30);
        assert!(stamps.are_worn());
        stamps.restart(1 << 30);
        assert_eq!((stamps.are_worn(), stamps.time(stamps.current())), (false, 1 << 30));
    }
}
