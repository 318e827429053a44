//! How long requests take, from the last byte in to the last byte out.
//!
//! All replies that a connection gets in a turn leave in one write, so all its requests of that turn took the same time. The
//! worker reads the clock once for each connection and turn, and adds the number of requests of each [`Kind`] to one bucket
//! of the kind's [`Histogram`].
//!
//! ```text
//!  poll returns ── connection 1 ──┬── connection 2 ──┬── housekeeping ── poll entered
//!  ├─ service of 1 ───────────────┤                  │
//!  ├─ wait of 2 ──────────────────┼─ service of 2 ───┤
//!  ├─ turn ──────────────────────────────────────────────────────────────┤
//! ```

use crate::counters::Counter;
use std::array;

/// Buckets of an octave: the error of a percentile is less than an eighth.
const PER_OCTAVE: usize = 8;
/// Octaves from 1 µs to 67 s.
const OCTAVES: usize = 26;
/// The number of buckets: below 1 µs, each 125 ns wide; and those of the octaves. Longer times are in the last one.
pub const BUCKETS: usize = PER_OCTAVE * (OCTAVES + 1);
/// Nanoseconds in the unit of the buckets. Borders of buckets are whole powers of two of microseconds.
const UNIT_NANOS: u64 = 1000 / PER_OCTAVE as u64;
/// The number of powers of two of microseconds that a cumulative histogram shows: 1 µs to 8.4 s.
pub const BOUNDS: usize = 24;

/// What kind of operation a request is. Each key of a list of keys is an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Kind {
    /// A fetch that found its item.
    GetHit,
    /// A fetch that found nothing.
    GetMiss,
    /// A storage command.
    Set,
    /// A deletion.
    Delete,
    /// `incr`, `decr` and their like.
    Arithmetic,
    /// A touch without a fetch.
    Touch,
    /// Anything else.
    Other,
}

impl Kind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Kind; 7] =
        [Kind::GetHit, Kind::GetMiss, Kind::Set, Kind::Delete, Kind::Arithmetic, Kind::Touch, Kind::Other];

    /// The name of the kind in statistics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::GetHit => "get_hit",
            Kind::GetMiss => "get_miss",
            Kind::Set => "set",
            Kind::Delete => "delete",
            Kind::Arithmetic => "arithmetic",
            Kind::Touch => "touch",
            Kind::Other => "other",
        }
    }
}

/// How many operations of each kind a connection had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally([u32; Kind::ALL.len()]);

impl Tally {
    /// Counts operations.
    #[inline]
    pub fn add(&mut self, kind: Kind, count: u32) {
        self.0[kind as usize] += count;
    }

    /// Adds another tally.
    pub fn append(&mut self, other: &Tally) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// The number of all operations.
    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }

    /// The kind with the most operations.
    pub fn main_kind(&self) -> Kind {
        Kind::ALL.into_iter().rev().max_by_key(|&kind| self.0[kind as usize]).expect("there are kinds")
    }

    /// Whether there are no operations.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |all, count| all | count) == 0
    }
}

/// A histogram of times, which one thread writes.
#[derive(Debug)]
pub struct Histogram {
    counts: [Counter; BUCKETS],
    sum_nanos: Counter,
    max_nanos: Counter,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: array::from_fn(|_| Counter::default()),
            sum_nanos: Counter::default(),
            max_nanos: Counter::default(),
        }
    }
}

impl Histogram {
    /// Adds `count` requests that took `nanos` nanoseconds each.
    #[inline]
    pub fn record(&self, nanos: u64, count: u64) {
        self.counts[bucket(nanos)].add(count);
        self.sum_nanos.add(nanos * count);
        if nanos > self.max_nanos.get() {
            self.max_nanos.set(nanos);
        }
    }

    fn reset(&self) {
        self.counts.iter().chain([&self.sum_nanos, &self.max_nanos]).for_each(|counter| counter.set(0));
    }
}

/// The bucket of a time.
#[inline]
fn bucket(nanos: u64) -> usize {
    let units = nanos / UNIT_NANOS;
    if units < PER_OCTAVE as u64 {
        return units as usize;
    }
    let octave = (units.ilog2() - PER_OCTAVE.ilog2()) as usize;
    let within = (units >> octave) as usize - PER_OCTAVE;
    (PER_OCTAVE * (octave + 1) + within).min(BUCKETS - 1)
}

/// The shortest time of a bucket, in nanoseconds. That of the bucket behind the last one ends the last one.
fn lower_bound(bucket: usize) -> u64 {
    match (bucket / PER_OCTAVE, bucket % PER_OCTAVE) {
        (0, within) => within as u64 * UNIT_NANOS,
        (octave, within) => ((PER_OCTAVE + within) as u64 * UNIT_NANOS) << (octave - 1),
    }
}

/// The contents of histograms at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    counts: Vec<u64>,
    sum_nanos: u64,
    max_nanos: u64,
}

impl Default for Distribution {
    fn default() -> Distribution {
        Distribution { counts: vec![0; BUCKETS], sum_nanos: 0, max_nanos: 0 }
    }
}

impl Distribution {
    /// Adds the contents of a histogram.
    pub fn add(&mut self, histogram: &Histogram) {
        self.counts.iter_mut().zip(&histogram.counts).for_each(|(count, more)| *count += more.get());
        self.sum_nanos += histogram.sum_nanos.get();
        self.max_nanos = self.max_nanos.max(histogram.max_nanos.get());
    }

    /// Adds another distribution.
    pub fn append(&mut self, other: &Distribution) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.sum_nanos += other.sum_nanos;
        self.max_nanos = self.max_nanos.max(other.max_nanos);
    }

    /// What came since an `earlier` moment. If a reset came between, this is everything since the reset. The longest time is
    /// the end of the highest bucket that got something.
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        if self.counts.iter().zip(&earlier.counts).any(|(count, before)| count < before) {
            return self.clone();
        }
        let counts: Vec<u64> = self.counts.iter().zip(&earlier.counts).map(|(count, before)| count - before).collect();
        let highest = counts.iter().rposition(|&count| count > 0);
        let max_nanos = highest.map_or(0, |highest| lower_bound(highest + 1).min(self.max_nanos));
        Distribution { counts, sum_nanos: self.sum_nanos.saturating_sub(earlier.sum_nanos), max_nanos }
    }

    /// The number of requests.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time of all requests together, in nanoseconds.
    pub fn sum_nanos(&self) -> u64 {
        self.sum_nanos
    }

    /// The longest time, in nanoseconds; 0 without requests.
    pub fn max_nanos(&self) -> u64 {
        self.max_nanos
    }

    /// The mean time, in nanoseconds; 0 without requests.
    pub fn mean_nanos(&self) -> u64 {
        self.sum_nanos.checked_div(self.count()).unwrap_or(0)
    }

    /// The time, in nanoseconds, that a `share` (0 to 1) of the requests did not exceed, interpolated within its bucket; 0
    /// without requests.
    pub fn percentile_nanos(&self, share: f64) -> u64 {
        let rank = (share * self.count() as f64).ceil().max(1.0) as u64;
        let mut before = 0;
        for (at, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            if before + count >= rank {
                let (from, to) = (lower_bound(at), lower_bound(at + 1));
                let within = (to - from) as f64 * (rank - before) as f64 / count as f64;
                return (from + within as u64).min(self.max_nanos);
            }
            before += count;
        }
        0
    }

    /// The number of requests below 1, 2, 4 … microseconds.
    pub fn cumulative(&self) -> [u64; BOUNDS] {
        let mut total = 0;
        let mut octaves = self.counts.chunks(PER_OCTAVE);
        array::from_fn(|_| {
            total += octaves.next().map_or(0, |octave| octave.iter().sum());
            total
        })
    }
}

/// The times of a worker. With `--no-latency` they stay empty.
#[derive(Debug, Default)]
pub struct Latency {
    /// By [`Kind`]: from the last byte in to the last byte out. If the client does not take a reply at once, up to the first
    /// write.
    service: [Histogram; Kind::ALL.len()],
    /// How long a connection that was ready waited for others of its turn.
    pub wait: Histogram,
    /// How long turns took. A request that comes at the beginning of a turn waits for its end.
    pub turn: Histogram,
    /// The time of all turns together, in nanoseconds.
    pub busy_nanos: Counter,
    /// The number of turns.
    pub turns: Counter,
    /// The number of operations.
    pub operations: Counter,
    /// Times that a client did not take all replies of a turn at once.
    pub replies_blocked: Counter,
    /// Requests that took longer than `--slow-log`: times of connections and turns.
    pub slow_requests: Counter,
}

impl Latency {
    /// Records the operations that a connection had in a turn, and the nanoseconds of their service.
    #[inline]
    pub fn record(&self, tally: &Tally, nanos: u64) {
        for (service, count) in self.service.iter().zip(tally.0) {
            if count > 0 {
                service.record(nanos, count.into());
                self.operations.add(count.into());
            }
        }
    }

    /// The times of a kind.
    pub fn service(&self, kind: Kind) -> &Histogram {
        &self.service[kind as usize]
    }

    /// `stats reset`. The totals of turns stay: they serve rates.
    pub fn reset(&self) {
        self.service.iter().chain([&self.wait, &self.turn]).for_each(Histogram::reset);
        self.replies_blocked.set(0);
        self.slow_requests.set(0);
    }
}

/// The times of all workers at a moment.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// The distributions, by name: those of the kinds, then `wait` and `turn`.
    pub all: Vec<(&'static str, Distribution)>,
}

impl Times {
    /// Reads the times of all workers.
    pub fn read<'a>(workers: impl Iterator<Item = &'a Latency> + Clone) -> Times {
        let sum = |name: &'static str, part: &dyn Fn(&'a Latency) -> &'a Histogram| {
            let mut sum = Distribution::default();
            workers.clone().for_each(|latency| sum.add(part(latency)));
            (name, sum)
        };
        let mut all: Vec<_> =
            Kind::ALL.into_iter().map(|kind| sum(kind.name(), &move |latency| latency.service(kind))).collect();
        all.push(sum("wait", &|latency| &latency.wait));
        all.push(sum("turn", &|latency| &latency.turn));
        Times { all }
    }

    /// What came since an earlier moment: see [`Distribution::since`].
    pub fn since(&self, earlier: &Times) -> Times {
        let pairs = self.all.iter().zip(&earlier.all);
        Times { all: pairs.map(|((name, now), (_, before))| (*name, now.since(before))).collect() }
    }

    /// The service of all kinds together.
    pub fn service(&self) -> Distribution {
        let mut sum = Distribution::default();
        self.all.iter().take(Kind::ALL.len()).for_each(|(_, kind)| sum.append(kind));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other() {
        for at in 0..BUCKETS {
            let (from, to) = (lower_bound(at), lower_bound(at + 1));
            assert_eq!((bucket(from), bucket(to - 1)), (at, at), "bucket {at}: {from} to {to} ns");
            if at >= PER_OCTAVE {
                assert!((to - from) * 8 <= from, "bucket {at} is wider than an eighth");
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!((lower_bound(8), lower_bound(16), lower_bound(BUCKETS)), (1000, 2000, 67_108_864_000));
    }

    #[test]
    fn percentiles_are_within_an_eighth() {
        let mut state = 7_u64;
        let mut times: Vec<u64> = (0..10_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                1000 + (state >> 40) % (1 << (10 + (state >> 59)))
            })
            .collect();
        let histogram = Histogram::default();
        times.iter().for_each(|&nanos| histogram.record(nanos, 1));
        times.sort_unstable();
        let mut all = Distribution::default();
        all.add(&histogram);
        assert_eq!((all.count(), all.sum_nanos(), all.max_nanos()), (10_000, times.iter().sum(), times[9_999]));
        for share in [0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let exact = times[((share * 10_000.0) as usize).max(1) - 1] as f64;
            let found = all.percentile_nanos(share) as f64;
            assert!((found / exact - 1.0).abs() <= 0.125, "{share}: {found} in place of {exact}");
        }
    }

    #[test]
    fn bounds_are_powers_of_two_of_microseconds() {
        let histogram = Histogram::default();
        for (nanos, count) in [(999, 1), (1000, 2), (1999, 4), (2000, 8), (8_388_607_999, 16), (8_388_608_000, 32)] {
            histogram.record(nanos, count);
        }
        let mut all = Distribution::default();
        all.add(&histogram);
        let cumulative = all.cumulative();
        assert_eq!((cumulative[0], cumulative[1], cumulative[2]), (1, 7, 15));
        assert_eq!((cumulative[22], cumulative[23], all.count()), (15, 31, 63));
    }

    #[test]
    fn a_difference_survives_a_reset() {
        let latency = Latency::default();
        let mut tally = Tally::default();
        tally.add(Kind::Set, 3);
        tally.add(Kind::GetHit, 5);
        latency.record(&tally, 10_000);
        let before = Times::read([&latency].into_iter());
        latency.record(&tally, 100_000);
        let after = Times::read([&latency].into_iter());
        let set = |times: &Times| times.all[2].1.clone();
        assert_eq!(after.all[2].0, "set");
        assert_eq!((set(&after).count(), set(&after.since(&before)).count()), (6, 3));
        let recent = set(&after.since(&before)).percentile_nanos(0.5);
        assert!((90_000..=100_000).contains(&recent), "{recent}");
        assert_eq!(after.service().count(), 16);
        latency.reset();
        latency.record(&tally, 1000);
        let reset = Times::read([&latency].into_iter());
        assert_eq!(set(&reset.since(&after)).count(), 3);
        assert_eq!((tally.main_kind(), tally.total()), (Kind::GetHit, 8));
        assert_eq!(Distribution::default().percentile_nanos(0.5), 0);
    }
}
