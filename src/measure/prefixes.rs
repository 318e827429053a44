//! What the keys of each prefix are used for, and how much memory they hold, from samples.

use super::sample::{Purpose, Sample};
use ahash::RandomState;
use std::collections::HashMap;
use std::hash::BuildHasher;

/// The most prefixes that a worker keeps apart. Keys of further ones count together, like keys without a prefix.
pub const PREFIXES_MAX: usize = 1024;
/// The prefixes that stay when a table that is full is thinned out.
const KEPT: usize = PREFIXES_MAX / 2;
/// The part of the samples of memory that is left after a second: half after a minute.
const DECAY: f64 = 0.988_514;

/// Counts of samples of one prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Use {
    pub gets: u64,
    /// Fetches whose outcome is known.
    pub hits: u64,
    pub misses: u64,
    pub sets: u64,
    pub deletes: u64,
    pub others: u64,
    /// Bytes of replies.
    pub bytes: u64,
    /// Values that were stored, and their bytes.
    pub values: u64,
    pub value_bytes: u64,
    /// Values that were stored without a deadline, and with one, and the seconds to these deadlines.
    pub ttl_none: u64,
    pub ttl_some: u64,
    pub ttl_seconds: u64,
    /// Operations and hits and bytes of replies in the window that is under way, and in the last one.
    pub live: Recent,
    pub last: Recent,
    /// Samples of memory: they decay.
    pub memory: f64,
}

/// What a window had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Recent {
    pub operations: u64,
    pub hits: u64,
    pub bytes: u64,
}

impl Recent {
    fn append(&mut self, other: Recent) {
        self.operations += other.operations;
        self.hits += other.hits;
        self.bytes += other.bytes;
    }
}

impl Use {
    fn add(&mut self, sample: &Sample<'_>) {
        match sample.purpose {
            Purpose::Get => {
                self.gets += 1;
                self.hits += u64::from(sample.hit == Some(true));
                self.misses += u64::from(sample.hit == Some(false));
            }
            Purpose::Set => self.sets += 1,
            Purpose::Delete => self.deletes += 1,
            Purpose::Other => self.others += 1,
        }
        self.bytes += sample.reply_bytes;
        self.live.operations += 1;
        self.live.bytes += sample.reply_bytes;
        self.live.hits += u64::from(sample.purpose == Purpose::Get && sample.hit == Some(true));
        if let (Purpose::Set, Some(item)) = (sample.purpose, sample.item) {
            self.values += 1;
            self.value_bytes += item.value_len as u64;
            match item.ttl {
                None => self.ttl_none += 1,
                Some(seconds) => {
                    self.ttl_some += 1;
                    self.ttl_seconds += u64::from(seconds);
                }
            }
        }
    }

    /// Adds the counts of another one.
    pub fn append(&mut self, other: &Use) {
        self.gets += other.gets;
        self.hits += other.hits;
        self.misses += other.misses;
        self.sets += other.sets;
        self.deletes += other.deletes;
        self.others += other.others;
        self.bytes += other.bytes;
        self.values += other.values;
        self.value_bytes += other.value_bytes;
        self.ttl_none += other.ttl_none;
        self.ttl_some += other.ttl_some;
        self.ttl_seconds += other.ttl_seconds;
        self.live.append(other.live);
        self.last.append(other.last);
        self.memory += other.memory;
    }

    /// How much it matters that the prefix is known.
    fn weight(&self) -> f64 {
        (self.live.operations + self.last.operations) as f64 + self.memory
    }
}

/// The prefixes of a worker.
#[derive(Clone, Debug)]
pub struct Prefixes {
    delimiter: u8,
    depth: usize,
    uses: HashMap<Box<[u8]>, Use, RandomState>,
    other: Use,
    /// The samples of memory that no item held.
    free: f64,
    /// The bytes of the pages that the memory was sampled from.
    page_bytes: u64,
}

impl Prefixes {
    /// Without counts. A prefix is what stands before the delimiter, or before its occurrence number `depth` if the key has
    /// so many.
    pub fn new(delimiter: u8, depth: usize) -> Prefixes {
        // The library's own hash has random keys, but takes ten times as long.
        let seed = || std::hash::RandomState::new().hash_one(0);
        let hash = RandomState::with_seeds(seed(), seed(), seed(), seed());
        Prefixes { delimiter, depth, uses: HashMap::with_hasher(hash), other: Use::default(), free: 0.0, page_bytes: 0 }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Prefixes::new(self.delimiter, self.depth);
    }

    /// Counts a sample.
    pub fn add(&mut self, sample: &Sample<'_>) {
        self.entry(sample.key).add(sample);
    }

    /// Counts samples of memory, of which there are a second's: for each the key of the item that holds it, if any does, and
    /// how many bytes it stands for. `page_bytes` are all bytes that were sampled from.
    pub fn add_memory<'k>(&mut self, samples: impl Iterator<Item = (Option<&'k [u8]>, f64)>, page_bytes: u64) {
        self.page_bytes = page_bytes;
        self.uses.values_mut().chain([&mut self.other]).for_each(|prefix| prefix.memory *= DECAY);
        self.free *= DECAY;
        for (key, bytes) in samples {
            match key {
                Some(key) => self.entry(key).memory += bytes,
                None => self.free += bytes,
            }
        }
    }

    fn entry(&mut self, key: &[u8]) -> &mut Use {
        let Some(prefix) = prefix(key, self.delimiter, self.depth) else { return &mut self.other };
        if self.uses.contains_key(prefix) {
            return self.uses.get_mut(prefix).expect("it is there");
        }
        if self.uses.len() >= PREFIXES_MAX {
            return &mut self.other;
        }
        self.uses.entry(prefix.into()).or_default()
    }

    /// A window ends.
    pub fn rotate(&mut self) {
        self.uses.values_mut().chain([&mut self.other]).for_each(|prefix| {
            prefix.last = std::mem::take(&mut prefix.live);
        });
        if self.uses.len() >= PREFIXES_MAX {
            self.thin_out();
        }
    }

    /// Makes room for new prefixes: many a key has something like a prefix of its own. Those that matter least join the rest.
    fn thin_out(&mut self) {
        let mut weights: Vec<f64> = self.uses.values().map(Use::weight).collect();
        weights.sort_by(|one, other| other.total_cmp(one));
        let least = weights[KEPT];
        let other = &mut self.other;
        self.uses.retain(|_, prefix| {
            let stays = prefix.weight() > least;
            if !stays {
                other.append(prefix);
            }
            stays
        });
    }

    /// Adds the counts to those of other workers. Their last window is the one that is under way if `is_live`.
    pub fn add_to(&self, report: &mut Report, is_live: bool) {
        let sampled: f64 = self.uses.values().chain([&self.other]).map(|prefix| prefix.memory).sum();
        let bytes = if sampled > 0.0 { self.page_bytes as f64 / (sampled + self.free) } else { 0.0 };
        let scaled = |prefix: &Use| {
            let last = if is_live { prefix.live } else { prefix.last };
            Use { memory: prefix.memory * bytes, last, ..*prefix }
        };
        report.other.append(&scaled(&self.other));
        for (name, prefix) in &self.uses {
            match report.prefixes.get_mut(name) {
                Some(sum) => sum.append(&scaled(prefix)),
                None => {
                    report.prefixes.insert(name.clone(), scaled(prefix));
                }
            }
        }
    }
}

/// A prefix, and what it is used for.
pub type Named = (Box<[u8]>, Use);

/// The prefixes of all workers. The counts are of samples, but for `memory`, which is in bytes.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By prefix.
    pub prefixes: HashMap<Box<[u8]>, Use>,
    /// All other keys.
    pub other: Use,
}

impl Report {
    /// The `most` prefixes with the most operations, the most first. All others join [`Report::other`].
    pub fn top(self, most: usize) -> (Vec<Named>, Use) {
        let Report { prefixes, mut other } = self;
        let operations = |prefix: &Use| prefix.gets + prefix.sets + prefix.deletes + prefix.others;
        let mut list: Vec<_> = prefixes.into_iter().collect();
        list.sort_by(|(name, one), (other_name, other)| {
            let key = |prefix: &Use| (prefix.last.operations, operations(prefix));
            key(other).cmp(&key(one)).then_with(|| name.cmp(other_name))
        });
        list.iter().skip(most).for_each(|(_, prefix)| other.append(prefix));
        list.truncate(most);
        (list, other)
    }
}

/// The prefix of a key: what stands before the delimiter number `depth`, or before the last one if there are fewer. None
/// without a delimiter.
pub fn prefix(key: &[u8], delimiter: u8, depth: usize) -> Option<&[u8]> {
    memchr::memchr_iter(delimiter, key).take(depth).last().map(|end| &key[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::sample::SampledItem;

    fn sample(key: &[u8], purpose: Purpose, hit: Option<bool>) -> Sample<'_> {
        let item = Some(SampledItem { value_len: 100, ttl: Some(60) });
        Sample { key, hash: 1, purpose, hit, item, reply_bytes: 10 }
    }

    #[test]
    fn prefixes_end_at_delimiters() {
        for (key, depth, expected) in [
            (&b"user:1"[..], 1, Some(&b"user"[..])),
            (b"a:b:c:d", 1, Some(b"a")),
            (b"a:b:c:d", 2, Some(b"a:b")),
            (b"a:b", 4, Some(b"a")),
            (b"plain", 1, None),
            (b":x", 1, Some(b"")),
            (b"", 1, None),
        ] {
            assert_eq!(prefix(key, b':', depth), expected, "{key:?}, {depth}");
        }
    }

    #[test]
    fn uses_are_counted_by_prefix() {
        let mut prefixes = Prefixes::new(b':', 1);
        for at in 0..10 {
            prefixes.add(&sample(b"a:1", Purpose::Get, Some(at < 9)));
            prefixes.add(&sample(b"b:1", Purpose::Set, None));
            prefixes.add(&sample(b"none", Purpose::Delete, None));
        }
        prefixes.rotate();
        prefixes.add_memory([(Some(&b"a:9"[..]), 30.0), (Some(b"b:9"), 10.0), (None, 40.0)].into_iter(), 8000);
        let mut report = Report::default();
        prefixes.add_to(&mut report, false);
        let (list, other) = report.top(5);
        let names: Vec<&[u8]> = list.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, [b"a", b"b"]);
        let (a, b) = (&list[0].1, &list[1].1);
        assert_eq!((a.gets, a.hits, a.misses, a.memory, a.last.operations), (10, 9, 1, 3000.0, 10));
        assert_eq!(
            (b.sets, b.values, b.value_bytes, b.ttl_some, b.ttl_seconds, b.memory),
            (10, 10, 1000, 10, 600, 1000.0)
        );
        assert_eq!((other.deletes, other.memory), (10, 0.0));
    }

    #[test]
    fn keys_with_prefixes_of_their_own_do_not_hide_others() {
        let mut prefixes = Prefixes::new(b':', 1);
        for round in 0..20 {
            for at in 0..50_000_u64 {
                prefixes.add(&sample(format!("{round}-{at}:x").as_bytes(), Purpose::Get, Some(false)));
                if at % 10 == 0 {
                    prefixes.add(&sample(b"real:1", Purpose::Get, Some(true)));
                }
            }
            prefixes.rotate();
        }
        assert!(prefixes.uses.len() <= PREFIXES_MAX);
        let mut report = Report::default();
        prefixes.add_to(&mut report, false);
        let (list, other) = report.top(1);
        assert_eq!(&*list[0].0, b"real");
        // It may have come first when the first window had filled the table.
        assert!(list[0].1.gets >= 19 * 5000, "{:?}", list[0]);
        assert_eq!(list[0].1.gets + other.gets, 20 * 55_000);
    }

    #[test]
    fn memory_follows_what_is_held_now() {
        let mut prefixes = Prefixes::new(b':', 1);
        for second in 0..600 {
            let key: &[u8] = if second < 300 { b"old:1" } else { b"new:1" };
            prefixes.add_memory((0..64).map(|_| (Some(key), 1.0)), 1 << 20);
        }
        let mut report = Report::default();
        prefixes.add_to(&mut report, false);
        let share = |name: &[u8]| report.prefixes[name].memory / f64::from(1 << 20);
        assert!(share(b"new") > 0.95 && share(b"old") < 0.05, "{report:?}");
    }
}
