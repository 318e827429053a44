//! Rules that change how long items live: `--ttl`. `config/ttl.rs` reads them, and `command/` obeys them whenever a client
//! sets a deadline.
//!
//! A deadline follows from an exptime in four steps:
//! 1. `default` takes the place of exptime 0.
//! 2. `max` shortens what is longer, or has no end.
//! 3. `jitter` shortens a relative time of at least [`JITTERED_SECONDS_MIN`] by up to its share. The hash of the key and
//!    the second choose how much, so that items stored together expire apart.
//! 4. With `early`, the parity of the deadline says whether the item lives long enough for an early miss: see
//!    [`TtlRule::early_seconds`].
//!
//! No step lengthens a life: an item is gone when the client has asked for it. An exptime that is over already stays so.

use crate::clock::{Clock, NEVER, Now, RELATIVE_SECONDS_MAX};

/// Shorter times are not jittered.
pub const JITTERED_SECONDS_MIN: u32 = 10;

/// How long items live whose keys begin with a prefix. 0 in a field: the rule says nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TtlRule {
    /// The first bytes of the keys. Empty: all keys that no other rule is for.
    pub prefix: Box<[u8]>,
    /// The largest part of a relative time to live that is taken away, in percent, at most 90.
    pub jitter_percent: u32,
    /// The time to live, in seconds, of an item with exptime 0.
    pub default_seconds: u32,
    /// The longest time to live in seconds.
    pub max_seconds: u32,
    /// In so many seconds before the deadline, at least 2, one fetch gets a miss. Its client then stores the value anew,
    /// while the others still get the old one. The last second does not count: the item may be gone before a client acts.
    ///
    /// An item that lives less than twice as long is left alone. Otherwise an item that is stored for less than this
    /// would be missing at once, again and again. No bit of an item is free to remember it. So the deadline itself does: it
    /// is even if the item may get an early miss, and odd if not. This costs every second item one second of its life.
    pub early_seconds: u32,
}

impl TtlRule {
    /// The deadline for an exptime. `asked` is the deadline that follows from the exptime alone.
    fn deadline(&self, exptime: i32, asked: u32, hash: u64, now: Now) -> u32 {
        if asked != NEVER && asked <= now.0 {
            return asked;
        }
        let mut deadline = asked;
        let mut is_relative = (1..=RELATIVE_SECONDS_MAX).contains(&i64::from(exptime));
        if deadline == NEVER && self.default_seconds != 0 {
            deadline = now.0.saturating_add(self.default_seconds);
            is_relative = true;
        }
        let latest = now.0.saturating_add(self.max_seconds);
        if self.max_seconds != 0 && (deadline == NEVER || deadline > latest) {
            deadline = latest;
            is_relative = true;
        }
        if deadline == NEVER {
            return NEVER;
        }
        if is_relative {
            deadline -= self.jitter(deadline - now.0, hash, now);
        }
        if self.early_seconds != 0 { self.with_parity(deadline, now) } else { deadline }
    }

    /// The seconds to take from a relative time: 0 to `jitter_percent` of it, all equally likely.
    fn jitter(&self, seconds: u32, hash: u64, now: Now) -> u32 {
        if seconds < JITTERED_SECONDS_MIN || self.jitter_percent == 0 {
            return 0;
        }
        let choices = u64::from(seconds) * u64::from(self.jitter_percent) / 100 + 1;
        // Keys of one shard have the same top bits. The product spreads all bits over its upper half.
        let mixed = hash.wrapping_add(u64::from(now.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        ((mixed * choices) >> 32) as u32
    }

    /// The deadline, or the second before it, by its meaning for [`allows_early_miss`].
    fn with_parity(&self, deadline: u32, now: Now) -> u32 {
        let is_long = deadline - now.0 >= 2 * self.early_seconds;
        let earlier = deadline - u32::from(is_long != allows_early_miss(deadline));
        // A second is not worth a life.
        if earlier > now.0 { earlier } else { deadline }
    }
}

/// Whether an item with this deadline may get an early miss, if a rule asks for one.
#[inline]
pub fn allows_early_miss(deadline: u32) -> bool {
    deadline.is_multiple_of(2)
}

/// Rules by prefix. The longest prefix that a key begins with decides, and its rule alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TtlRules {
    /// The rules with a prefix, by the first byte of the prefix, and those with the same one by length, the longest first.
    prefixed: Vec<TtlRule>,
    /// The rules whose prefix begins with byte *b* are at `starts[b]..starts[b + 1]`.
    starts: Vec<u16>,
    /// The rule for all other keys.
    other: Option<TtlRule>,
    early_seconds_max: u32,
}

impl TtlRules {
    /// The most rules.
    pub const COUNT_MAX: usize = 1000;

    /// Puts rules together, at most [`TtlRules::COUNT_MAX`], each with another prefix. None if there are none.
    pub fn new(rules: &[TtlRule]) -> Option<TtlRules> {
        let (others, mut prefixed): (Vec<TtlRule>, Vec<TtlRule>) =
            rules.iter().take(TtlRules::COUNT_MAX).cloned().partition(|rule| rule.prefix.is_empty());
        prefixed.sort_by_key(|rule| (rule.prefix[0], std::cmp::Reverse(rule.prefix.len())));
        let start = |byte: u16| prefixed.partition_point(|rule| u16::from(rule.prefix[0]) < byte) as u16;
        let starts = (0..=256).map(start).collect();
        let early_seconds_max = rules.iter().map(|rule| rule.early_seconds).max()?;
        Some(TtlRules { starts, prefixed, other: others.into_iter().next(), early_seconds_max })
    }

    /// The rule for a key.
    #[inline]
    fn rule_for(&self, key: &[u8]) -> Option<&TtlRule> {
        let first = usize::from(*key.first()?);
        let alike = &self.prefixed[usize::from(self.starts[first])..usize::from(self.starts[first + 1])];
        alike.iter().find(|rule| key.starts_with(&rule.prefix)).or(self.other.as_ref())
    }

    /// The deadline of an item with this key and hash, for an exptime that the client sent at `now`.
    #[inline(never)]
    pub fn deadline(&self, key: &[u8], hash: u64, exptime: i32, clock: &Clock, now: Now) -> u32 {
        let asked = clock.deadline(exptime, now);
        self.rule_for(key).map_or(asked, |rule| rule.deadline(exptime, asked, hash, now))
    }

    /// The seconds before the deadline of a key in which one fetch gets a miss; 0: none does.
    pub fn early_seconds(&self, key: &[u8]) -> u32 {
        self.rule_for(key).map_or(0, |rule| rule.early_seconds)
    }

    /// The longest [`TtlRules::early_seconds`] of any key.
    pub fn early_seconds_max(&self) -> u32 {
        self.early_seconds_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::KeyHasher;

    const NOW: Now = Now(1000);

    fn rule(prefix: &str, [jitter_percent, default_seconds, max_seconds, early_seconds]: [u32; 4]) -> TtlRule {
        TtlRule { prefix: prefix.as_bytes().into(), jitter_percent, default_seconds, max_seconds, early_seconds }
    }

    /// The seconds that an item lives by a rule, `None` if for ever.
    fn life(rule: TtlRule, exptime: i32) -> Option<i64> {
        let rules = TtlRules::new(&[rule]).expect("a rule");
        match rules.deadline(b"key", 7, exptime, &Clock::start(), NOW) {
            NEVER => None,
            deadline => Some(i64::from(deadline) - i64::from(NOW.0)),
        }
    }

    #[test]
    fn default_comes_before_max_and_max_before_jitter() {
        for (fields, exptime, expected) in [
            ([0, 60, 0, 0], 0, Some(60)),
            ([0, 60, 0, 0], 30, Some(30)),
            ([0, 60, 0, 0], 90, Some(90)),
            ([0, 60, 0, 0], -1, Some(1 - 1000)),
            ([0, 0, 50, 0], 0, Some(50)),
            ([0, 0, 50, 0], 49, Some(49)),
            ([0, 0, 50, 0], 51, Some(50)),
            ([0, 0, 50, 0], i32::MAX, Some(50)),
            ([0, 0, 50, 0], -1, Some(1 - 1000)),
            ([0, 40, 50, 0], 0, Some(40)),
            ([90, 0, 0, 0], 0, None),
            ([90, 0, 0, 0], 9, Some(9)),
            ([90, 0, 0, 0], -5, Some(1 - 1000)),
        ] {
            assert_eq!(life(rule("", fields), exptime), expected, "{fields:?} {exptime}");
        }
        for (fields, exptime) in [([50, 60, 0, 0], 0), ([50, 0, 60, 0], 0), ([50, 0, 60, 0], 100), ([50, 0, 0, 0], 60)]
        {
            let lives = life(rule("", fields), exptime).expect("it ends");
            assert!((30..=60).contains(&lives), "{fields:?} {exptime}: {lives}");
        }
    }

    #[test]
    fn absolute_times_are_not_jittered_unless_max_cuts_them() {
        let clock = Clock::start();
        let at = |seconds: i64| (clock.unix(NOW) + seconds) as i32;
        let rules = |fields| TtlRules::new(&[rule("", fields)]).expect("a rule");
        for key in 0..1000 {
            assert_eq!(rules([90, 0, 0, 0]).deadline(b"k", key << 40, at(5000), &clock, NOW), NOW.0 + 5000);
        }
        let cut = (0..1000).map(|key| rules([50, 0, 1000, 0]).deadline(b"k", key << 40, at(5000), &clock, NOW) - NOW.0);
        let (least, most) = cut.fold((u32::MAX, 0), |(least, most), life| (least.min(life), most.max(life)));
        assert!(least < 550 && (951..=1000).contains(&most), "{least} {most}");
    }

    #[test]
    fn items_stored_together_expire_evenly_apart_and_never_late() {
        const KEYS: usize = 100_000;
        let (rules, hasher, clock) =
            (TtlRules::new(&[rule("", [5, 0, 0, 0])]).expect("a rule"), KeyHasher::seeded(1), Clock::start());
        let mut expiries = [0_usize; 3600];
        for number in 0..KEYS {
            let key = format!("key:{number}");
            let deadline = rules.deadline(key.as_bytes(), hasher.hash(key.as_bytes()), 3600, &clock, NOW);
            expiries[(NOW.0 + 3600 - deadline) as usize] += 1;
        }
        let (window, none) = expiries.split_at(181);
        let mean = KEYS / window.len();
        assert!(none.iter().all(|&count| count == 0));
        assert!(window.iter().all(|&count| count.abs_diff(mean) <= mean / 5), "{mean}: {window:?}");
    }

    #[test]
    fn a_key_is_jittered_anew_in_each_second_but_not_within_one() {
        let (rules, clock) = (TtlRules::new(&[rule("", [50, 0, 0, 0])]).expect("a rule"), Clock::start());
        let lives: Vec<u32> = (0..100).map(|n| rules.deadline(b"k", 99, 1000, &clock, Now(50 + n)) - 50 - n).collect();
        let different = lives.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(different > 80, "{lives:?}");
        assert_eq!(rules.deadline(b"k", 99, 1000, &clock, NOW), rules.deadline(b"k", 99, 1000, &clock, NOW));
    }

    #[test]
    fn the_longest_prefix_decides_alone() {
        let rules = TtlRules::new(&[
            rule("p", [0, 1, 0, 0]),
            rule("", [0, 2, 0, 0]),
            rule("page:", [0, 0, 3, 0]),
            rule("page:x", [0, 0, 0, 4]),
            rule("\u{ff}", [0, 5, 0, 0]),
            rule("q", [0, 6, 0, 0]),
        ])
        .expect("rules");
        let clock = Clock::start();
        for (key, expected) in
            [("p", 1), ("pa", 1), ("page", 1), ("page:1", 3), ("q:page:", 6), ("x", 2), ("\u{ff}", 5), ("", 0)]
        {
            let deadline = rules.deadline(key.as_bytes(), 0, 0, &clock, NOW);
            assert_eq!(deadline.saturating_sub(NOW.0), expected, "{key}");
        }
        assert_eq!(rules.deadline(b"page:x1", 0, 0, &clock, NOW), NEVER, "the shorter prefixes do not count");
        assert_eq!(
            (rules.early_seconds(b"page:x1"), rules.early_seconds(b"page:"), rules.early_seconds_max()),
            (4, 0, 4)
        );
        assert_eq!(TtlRules::new(&[]), None);
    }

    #[test]
    fn parity_remembers_whether_an_item_lives_long_enough_for_an_early_miss() {
        let (rules, clock) = (TtlRules::new(&[rule("", [0, 0, 0, 30])]).expect("a rule"), Clock::start());
        for now in [Now(1000), Now(1001)] {
            for exptime in 1..200 {
                let deadline = rules.deadline(b"k", 0, exptime, &clock, now);
                let asked = now.0 + exptime as u32;
                assert!(deadline > now.0 && (asked - 1..=asked).contains(&deadline), "{exptime}: {deadline}");
                // Nobody gets a miss in the last second.
                if exptime > 1 {
                    assert_eq!(allows_early_miss(deadline), exptime >= 60, "{exptime}: {deadline}");
                }
            }
        }
    }
}
