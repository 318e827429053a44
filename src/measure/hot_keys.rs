//! The keys that many requests are for, or that many bytes of replies are for, found by Space-Saving (Metwally, Agrawal and
//! El Abbadi, 2005) over a sample of the operations.
//!
//! A table has sets of slots, chosen by the hash of the key. A key that has no slot takes over the one with the least count
//! of its set, with that count as its error: the true count is between `count - error` and `count`. A key with more than an
//! eighth of the traffic of its set always has a slot; there are as many sets as share the traffic, so about 1/256 of all
//! traffic is enough.

use super::sample::{Purpose, Sample};

/// The longest key, in bytes.
const KEY_MAX: usize = 250;
const SETS: usize = 32;
const WAYS: usize = 8;

/// A key is hot if it surely has this share of the traffic.
const SHARE_MIN: f64 = 0.005;
/// Fewer samples than this, beyond the error, say nothing.
const SAMPLES_MIN: f64 = 8.0;
/// The most keys of a report.
pub const KEYS_MAX: usize = 16;

/// What a table weighs keys by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Operations.
    Operations,
    /// Bytes of replies.
    Bytes,
}

/// A set of slots: what is looked at to find a key.
#[derive(Clone, Copy, Debug, Default)]
struct Set {
    hashes: [u64; WAYS],
    /// The weights, at most.
    counts: [u64; WAYS],
}

/// What a table knows of a key. Hash and count are those of its set.
#[derive(Clone, Debug)]
pub struct Slot {
    hash: u64,
    /// The weight, at most.
    count: u64,
    /// The part of `count` that may belong to others.
    error: u64,
    /// Samples since the key took over the slot, by what they were.
    samples: u32,
    reads: u32,
    hits: u32,
    misses: u32,
    bytes: u64,
    key_len: u8,
    key: [u8; KEY_MAX],
}

impl Default for Slot {
    fn default() -> Slot {
        Slot {
            hash: 0,
            count: 0,
            error: 0,
            samples: 0,
            reads: 0,
            hits: 0,
            misses: 0,
            bytes: 0,
            key_len: 0,
            key: [0; KEY_MAX],
        }
    }
}

impl Slot {
    fn key(&self) -> &[u8] {
        &self.key[..self.key_len.into()]
    }

    /// A key takes over the slot.
    fn begin(&mut self, key: &[u8], error: u64) {
        let len = key.len().min(KEY_MAX);
        self.key[..len].copy_from_slice(&key[..len]);
        self.key_len = len as u8;
        self.error = error;
        (self.samples, self.reads, self.hits, self.misses, self.bytes) = (0, 0, 0, 0, 0);
    }

    fn append(&mut self, other: &Slot) {
        self.count += other.count;
        self.error += other.error;
        self.samples += other.samples;
        self.reads += other.reads;
        self.hits += other.hits;
        self.misses += other.misses;
        self.bytes += other.bytes;
    }
}

/// The keys of a window.
#[derive(Clone, Debug)]
pub struct Table {
    sets: Vec<Set>,
    /// `WAYS` for each set. Their hashes and counts are not used.
    slots: Vec<Slot>,
    /// The weight of all keys.
    total: u64,
}

impl Default for Table {
    fn default() -> Table {
        Table { sets: vec![Set::default(); SETS], slots: vec![Slot::default(); SETS * WAYS], total: 0 }
    }
}

impl Table {
    /// Adds a sample.
    pub fn add(&mut self, sample: &Sample<'_>, weight: u64) {
        self.total += weight;
        let number = (sample.hash % SETS as u64) as usize;
        let set = &mut self.sets[number];
        let slots = &mut self.slots[number * WAYS..][..WAYS];
        let known = set.hashes.iter().position(|&hash| hash == sample.hash);
        let at = known.filter(|&at| slots[at].key() == sample.key).unwrap_or_else(|| {
            let least = (0..WAYS).min_by_key(|&at| set.counts[at]).expect("a set has ways");
            set.hashes[least] = sample.hash;
            slots[least].begin(sample.key, set.counts[least]);
            least
        });
        set.counts[at] += weight;
        let slot = &mut slots[at];
        slot.samples += 1;
        slot.reads += u32::from(sample.purpose == Purpose::Get);
        slot.hits += u32::from(sample.purpose == Purpose::Get && sample.hit == Some(true));
        slot.misses += u32::from(sample.purpose == Purpose::Get && sample.hit == Some(false));
        slot.bytes += sample.reply_bytes;
    }

    /// Forgets all keys.
    pub fn clear(&mut self) {
        self.sets.fill(Set::default());
        self.slots.iter_mut().for_each(|slot| slot.begin(b"", 0));
        self.total = 0;
    }

    /// The slots in use, and the weight of all keys.
    pub fn view(&self) -> View {
        let heads = self.sets.iter().flat_map(|set| set.hashes.into_iter().zip(set.counts));
        let used = heads.zip(&self.slots).filter(|((_, count), _)| *count > 0);
        let slots = used.map(|((hash, count), slot)| Slot { hash, count, ..slot.clone() }).collect();
        View { slots, total: self.total }
    }
}

/// The used slots of a table.
#[derive(Clone, Debug, Default)]
pub struct View {
    slots: Vec<Slot>,
    total: u64,
}

/// A key in a report. Rates are per second.
#[derive(Clone, Debug, PartialEq)]
pub struct HotKey {
    /// The key, of any bytes.
    pub key: Vec<u8>,
    /// The hash of the key, which names it where the key itself may not be shown.
    pub hash: u64,
    /// Operations, estimated.
    pub ops_per_second: f64,
    /// Its share of the weight of all keys, 0 to 1: the middle between the least and the most that it can be.
    pub share: f64,
    /// The share may be that much less or more.
    pub error: f64,
    /// The part of its operations that fetch, 0 to 1.
    pub read_share: f64,
    /// The part of its fetches that hit, 0 to 1; none if no outcome is known.
    pub hit_ratio: Option<f64>,
    /// Bytes of replies, estimated.
    pub bytes_per_second: f64,
}

/// The hot keys of the workers together, the hottest first. `seconds` is the length of the window, and each sample stands for
/// `mean` operations.
pub fn merge(views: Vec<View>, weight: Weight, seconds: f64, mean: f64) -> Vec<HotKey> {
    let mut total = 0;
    let mut slots: Vec<Slot> = Vec::new();
    for view in views {
        total += view.total;
        slots.extend(view.slots);
    }
    slots.sort_by(|one, other| (one.hash, one.key()).cmp(&(other.hash, other.key())));
    slots.dedup_by(|slot, kept| {
        let is_same = slot.hash == kept.hash && slot.key() == kept.key();
        if is_same {
            kept.append(slot);
        }
        is_same
    });
    let total = total.max(1) as f64;
    let mut keys: Vec<HotKey> = slots
        .iter()
        .filter(|slot| {
            let surely = (slot.count - slot.error) as f64;
            let samples = if weight == Weight::Operations { surely } else { slot.samples.into() };
            surely / total >= SHARE_MIN && samples >= SAMPLES_MIN
        })
        .map(|slot| hot_key(slot, weight, total, mean / seconds))
        .collect();
    keys.sort_by(|one, other| other.share.total_cmp(&one.share));
    keys.truncate(KEYS_MAX);
    keys
}

/// `scale` is the number of operations per second that a sample stands for.
fn hot_key(slot: &Slot, weight: Weight, total: f64, scale: f64) -> HotKey {
    let middle = slot.count as f64 - slot.error as f64 / 2.0;
    // The samples since the key took over the slot stand for those before as well.
    let grown = match weight {
        Weight::Operations => middle / f64::from(slot.samples).max(1.0),
        Weight::Bytes => 1.0,
    };
    let outcomes = slot.hits + slot.misses;
    HotKey {
        key: slot.key().to_vec(),
        hash: slot.hash,
        ops_per_second: f64::from(slot.samples) * grown * scale,
        share: middle / total,
        error: slot.error as f64 / 2.0 / total,
        read_share: f64::from(slot.reads) / f64::from(slot.samples).max(1.0),
        hit_ratio: (outcomes > 0).then(|| f64::from(slot.hits) / f64::from(outcomes)),
        bytes_per_second: slot.bytes as f64 * grown * scale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::samples::tests::Random;

    fn sample(key: &[u8], hash: u64) -> Sample<'_> {
        Sample { key, hash, purpose: Purpose::Get, hit: Some(hash.is_multiple_of(2)), item: None, reply_bytes: 100 }
    }

    /// The keys that a table reports for a stream of numbers; the hash of a number is a mix of it.
    fn hot(numbers: impl Iterator<Item = u64>) -> Vec<HotKey> {
        let mut table = Table::default();
        for number in numbers {
            let key = format!("key:{number}");
            table.add(&sample(key.as_bytes(), number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)), 1);
        }
        merge(vec![table.view()], Weight::Operations, 1.0, 1.0)
    }

    #[test]
    fn planted_keys_are_found_with_their_shares() {
        const SAMPLES: usize = 8000;
        for seed in 0..100 {
            let mut random = Random(seed);
            let mut counts = [0_u32; 3];
            let keys = hot((0..SAMPLES)
                .map(|_| match random.below(1000) {
                    0..300 => 0,
                    300..330 => 1,
                    330..331 => 2,
                    _ => 1000 + random.below(10_000_000),
                })
                .inspect(|&number| {
                    if number < 3 {
                        counts[number as usize] += 1;
                    }
                }));
            for (number, count) in counts.into_iter().enumerate() {
                let key = format!("key:{number}");
                let found = keys.iter().find(|hot| hot.key == key.as_bytes());
                let share = f64::from(count) / SAMPLES as f64;
                match found {
                    Some(hot) if number < 2 => {
                        assert!((hot.share - share).abs() <= hot.error + 1e-9, "seed {seed}: {hot:?}, truly {share}");
                        assert!((hot.share / share - 1.0).abs() < 0.2, "seed {seed}: {hot:?}, truly {share}");
                    }
                    found => assert_eq!(found.is_some(), number < 2, "seed {seed}, {key}"),
                }
            }
            assert_eq!(keys.len(), 2, "seed {seed}: {keys:?}");
        }
    }

    #[test]
    fn new_keys_do_not_drive_out_a_hot_one() {
        let keys = hot((0..40_000).map(|at| if at % 20 == 0 { 7 } else { 1_000_000 + at }));
        assert_eq!(keys.first().map(|hot| hot.key.as_slice()), Some(&b"key:7"[..]));
        assert!((0.04..0.06).contains(&keys[0].share), "{keys:?}");
    }

    #[test]
    fn workers_are_added_up() {
        let mut tables = [Table::default(), Table::default()];
        for table in &mut tables {
            for at in 0..100_u64 {
                table.add(&sample(b"same", 2), 1);
                table.add(&sample(format!("other {at}").as_bytes(), 3 + at), 1);
            }
        }
        let keys = merge(tables.iter().map(Table::view).collect(), Weight::Operations, 10.0, 128.0);
        assert_eq!(keys.len(), 1);
        let HotKey { ops_per_second, share, hit_ratio, read_share, bytes_per_second, .. } = keys[0];
        assert_eq!((ops_per_second, share, hit_ratio, read_share), (2560.0, 0.5, Some(1.0), 1.0));
        assert_eq!(bytes_per_second, 256_000.0);
    }
}
