//! The sample of a worker's operations: one in 128 or so (`--sample`), at random distances, so that no rhythm of a client
//! hides from it.

use super::hot_keys::{self, HotKey, Table, Weight};
use super::prefixes::{self, Prefixes};
use super::sample::Sample;
use std::time::{Duration, Instant};

/// How long the workers count hot keys before they begin anew.
pub const WINDOW: Duration = Duration::from_secs(10);
/// The most peaks that a worker remembers, and for how long.
const PEAKS_MAX: usize = 16;
const PEAK_AGE_MAX: Duration = Duration::from_secs(15 * 60);
/// Of the keys that clients look for in vain, one in so many is followed.
const FOLLOWED: u64 = 1024;
/// The number of missed keys that a worker remembers.
const MISSED_MAX: usize = 1024;
/// A miss of a key that was missed so shortly before is repeated.
const REPEAT_SECONDS_MAX: u32 = 60;

/// How to sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleOptions {
    /// The mean number of operations between two samples; 0: take none.
    pub mean: u32,
    /// The end of a prefix in a key.
    pub delimiter: u8,
    /// The number of delimiters in a prefix, and one.
    pub prefix_depth: usize,
}

impl Default for SampleOptions {
    fn default() -> SampleOptions {
        SampleOptions { mean: 128, delimiter: b':', prefix_depth: 1 }
    }
}

/// Chooses the operations of a sample.
#[derive(Debug)]
pub struct Countdown {
    mean: u32,
    random: u64,
    /// The number of operations up to the next sample, which counts.
    left: u64,
}

impl Countdown {
    /// Chooses one of `mean` operations on average; 0: none. `seed` makes workers differ.
    pub fn new(mean: u32, seed: u64) -> Countdown {
        let mut countdown = Countdown { mean, random: (seed << 1) | 1, left: u64::MAX };
        if mean > 0 {
            countdown.draw();
        }
        countdown
    }

    /// Passes `count` operations, and says whether any of them belongs to the sample: [`Countdown::next_of`] gives them.
    #[inline]
    pub fn passes(&mut self, count: usize) -> bool {
        if count as u64 >= self.left {
            return true;
        }
        self.left -= count as u64;
        false
    }

    /// After [`Countdown::passes`] has said yes: the place of the next sample among the `count` operations, from `at` on.
    /// None at the end.
    pub fn next_of(&mut self, at: usize, count: usize) -> Option<usize> {
        let place = (at as u64).saturating_add(self.left);
        if place > count as u64 {
            self.left = place - count as u64;
            return None;
        }
        self.draw();
        Some(place as usize - 1)
    }

    fn draw(&mut self) {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.left = 1 + (self.random >> 11) % (2 * u64::from(self.mean) - 1);
    }
}

/// What was sampled in a window.
#[derive(Clone, Debug, Default)]
struct Window {
    operations: Table,
    bytes: Table,
    samples: u64,
    /// Its length once it has ended.
    length: Duration,
}

/// The hottest moment of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Peak {
    /// The key and its figures then.
    pub key: HotKey,
    /// When the window ended.
    pub at: Instant,
}

/// The samples of a worker, added up.
#[derive(Debug)]
pub struct Samples {
    options: SampleOptions,
    live: Window,
    last: Window,
    live_since: Instant,
    prefixes: Prefixes,
    peaks: Vec<Peak>,
    /// By hash: the key that was missed last, and the second of the clock.
    missed: Vec<(u64, u32)>,
    misses: u64,
    repeated: u64,
}

impl Samples {
    /// No samples yet.
    pub fn new(options: SampleOptions, now: Instant) -> Samples {
        Samples {
            options,
            live: Window::default(),
            last: Window::default(),
            live_since: now,
            prefixes: Prefixes::new(options.delimiter, options.prefix_depth),
            peaks: Vec::new(),
            missed: vec![(0, 0); MISSED_MAX],
            misses: 0,
            repeated: 0,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, now: Instant) {
        *self = Samples::new(self.options, now);
    }

    /// Adds a sample.
    pub fn add(&mut self, sample: &Sample<'_>) {
        self.live.samples += 1;
        self.live.operations.add(sample, 1);
        if sample.reply_bytes > 0 {
            self.live.bytes.add(sample, sample.reply_bytes);
        }
        self.prefixes.add(sample);
    }

    /// Counts samples of memory: see [`Prefixes::add_memory`].
    pub fn add_memory<'k>(&mut self, samples: impl Iterator<Item = (Option<&'k [u8]>, f64)>, page_bytes: u64) {
        self.prefixes.add_memory(samples, page_bytes);
    }

    /// Ends the window if its time is over.
    pub fn rotate(&mut self, now: Instant) {
        let length = now.saturating_duration_since(self.live_since);
        if length < WINDOW {
            return;
        }
        std::mem::swap(&mut self.live, &mut self.last);
        self.last.length = length;
        self.live.operations.clear();
        self.live.bytes.clear();
        self.live.samples = 0;
        self.live_since = now;
        self.prefixes.rotate();
        self.note_peaks(now);
    }

    fn note_peaks(&mut self, now: Instant) {
        let view = self.last.operations.view();
        let keys = hot_keys::merge(vec![view], Weight::Operations, self.last.length.as_secs_f64(), self.mean());
        self.peaks.retain(|peak| now.saturating_duration_since(peak.at) <= PEAK_AGE_MAX);
        for key in keys {
            match self.peaks.iter_mut().find(|peak| peak.key.key == key.key) {
                Some(peak) if peak.key.ops_per_second < key.ops_per_second => *peak = Peak { key, at: now },
                Some(_) => {}
                None => self.peaks.push(Peak { key, at: now }),
            }
        }
        self.peaks.sort_by(|one, other| other.key.ops_per_second.total_cmp(&one.key.ops_per_second));
        self.peaks.truncate(PEAKS_MAX);
    }

    fn mean(&self) -> f64 {
        self.options.mean.into()
    }

    /// Whether the misses of a key are followed.
    #[inline]
    pub fn follows(hash: u64) -> bool {
        (hash >> 30).is_multiple_of(FOLLOWED)
    }

    /// Counts a miss of a key that is followed, at a second of the clock, which is not 0.
    pub fn add_miss(&mut self, hash: u64, now: u32) {
        self.misses += 1;
        // The hashes of keys that are followed have the same bits from 30 to 39.
        let slot = &mut self.missed[(hash % MISSED_MAX as u64) as usize];
        let is_repeated = slot.0 == hash && slot.1 != 0 && now.saturating_sub(slot.1) <= REPEAT_SECONDS_MAX;
        self.repeated += u64::from(is_repeated);
        *slot = (hash, now);
    }

    /// The window to report: the last whole one, or, before there is one, the one under way. With its length.
    fn reported(&self, now: Instant) -> (&Window, Duration) {
        let age = now.saturating_duration_since(self.live_since);
        if self.last.length.is_zero() || age >= WINDOW * 2 { (&self.live, age) } else { (&self.last, self.last.length) }
    }
}

/// A name for a key that may not be shown: its prefix, and a part of its hash.
pub fn hidden_name(key: &[u8], hash: u64, options: &SampleOptions) -> String {
    let short = hash >> 32;
    match prefixes::prefix(key, options.delimiter, options.prefix_depth) {
        Some(prefix) => format!("{}{}#{short:08x}", String::from_utf8_lossy(prefix), char::from(options.delimiter)),
        None => format!("#{short:08x}"),
    }
}

/// What the samples of all workers say.
#[derive(Clone, Debug, Default)]
pub struct SampleReport {
    /// The mean number of operations that a sample stands for; 0: no samples are taken.
    pub mean: f64,
    /// The length of the window of hot keys, in seconds.
    pub window_seconds: f64,
    /// The number of samples in the window.
    pub samples: u64,
    /// Operations on keys per second in the window, estimated.
    pub operations_per_second: f64,
    /// The keys that most operations are for.
    pub hot_keys: Vec<HotKey>,
    /// The keys that most bytes of replies are for.
    pub hot_by_bytes: Vec<HotKey>,
    /// The hottest moments of the last quarter of an hour.
    pub peaks: Vec<Peak>,
    /// By prefix.
    pub prefixes: prefixes::Report,
    /// The part of the misses that followed another one of the same key within a minute, 0 to 1; none without misses.
    pub repeated_misses: Option<f64>,
}

impl SampleReport {
    /// Merges the samples of workers. The caller takes their locks one after another.
    pub fn read<'a>(workers: impl Iterator<Item = &'a parking_lot::Mutex<Samples>>, now: Instant) -> SampleReport {
        let mut report = SampleReport::default();
        let (mut operations, mut bytes) = (Vec::new(), Vec::new());
        let (mut misses, mut repeated) = (0, 0);
        for samples in workers {
            let samples = samples.lock();
            let (window, length) = samples.reported(now);
            let seconds = length.as_secs_f64().max(1.0);
            report.mean = samples.mean();
            report.window_seconds = report.window_seconds.max(seconds);
            report.samples += window.samples;
            report.operations_per_second += window.samples as f64 * samples.mean() / seconds;
            operations.push(window.operations.view());
            bytes.push(window.bytes.view());
            let recent = samples.peaks.iter().filter(|peak| now.saturating_duration_since(peak.at) <= PEAK_AGE_MAX);
            report.peaks.extend(recent.cloned());
            samples.prefixes.add_to(&mut report.prefixes, std::ptr::eq(window, &samples.live));
            misses += samples.misses;
            repeated += samples.repeated;
        }
        report.hot_keys = hot_keys::merge(operations, Weight::Operations, report.window_seconds, report.mean);
        report.hot_by_bytes = hot_keys::merge(bytes, Weight::Bytes, report.window_seconds, report.mean);
        report.peaks.sort_by(|one, other| other.key.ops_per_second.total_cmp(&one.key.ops_per_second));
        report.repeated_misses = (misses > 0).then(|| repeated as f64 / misses as f64);
        report
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::measure::sample::Purpose;

    /// xorshift64*
    pub(crate) struct Random(pub(crate) u64);

    impl Random {
        pub(crate) fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            (mixed >> 20) % limit
        }
    }

    fn sample(key: &[u8]) -> Sample<'_> {
        Sample { key, hash: key.len() as u64, purpose: Purpose::Get, hit: Some(true), item: None, reply_bytes: 50 }
    }

    #[test]
    fn a_rhythm_hides_nothing() {
        // Groups of 128 operations, in which every one is of its own kind.
        let mut countdown = Countdown::new(128, 3);
        let mut counts = [0_u32; 128];
        for _ in 0..128 * 1000 {
            if countdown.passes(128) {
                let mut at = 0;
                while let Some(place) = countdown.next_of(at, 128) {
                    counts[place] += 1;
                    at = place + 1;
                }
            }
        }
        let total: u32 = counts.iter().sum();
        assert!((total as f64 / 128_000.0 - 1.0).abs() < 0.02, "{total} samples of 128,000");
        assert!(counts.iter().all(|&count| (800..1200).contains(&count)), "{counts:?}");
        let mut off = Countdown::new(0, 3);
        assert!(!off.passes(1 << 40));
        let mut every = Countdown::new(1, 3);
        assert!(every.passes(2));
        assert_eq!((every.next_of(0, 2), every.next_of(1, 2), every.next_of(2, 2)), (Some(0), Some(1), None));
    }

    #[test]
    fn windows_have_their_true_length() {
        let begun = Instant::now();
        let second = Duration::from_secs(1);
        let samples = parking_lot::Mutex::new(Samples::new(SampleOptions::default(), begun));
        let read = |seconds: u32| {
            let report = SampleReport::read([&samples].into_iter(), begun + second * seconds);
            (report.window_seconds, report.samples, report.hot_keys.first().map(|key| key.ops_per_second))
        };
        assert_eq!(read(5), (5.0, 0, None));
        for _ in 0..100 {
            samples.lock().add(&sample(b"a"));
        }
        // Before the first window is over: what there is.
        assert_eq!(read(5), (5.0, 100, Some(2560.0)));
        // The window ends late, and has its true length.
        samples.lock().rotate(begun + second * 16);
        assert_eq!(read(17), (16.0, 100, Some(800.0)));
        assert_eq!(read(35), (16.0, 100, Some(800.0)));
        // Nothing came for two windows.
        assert_eq!(read(40), (24.0, 0, None));
        let peaks = SampleReport::read([&samples].into_iter(), begun + second * 900).peaks;
        assert_eq!(peaks.len(), 1);
        assert!(SampleReport::read([&samples].into_iter(), begun + second * 917).peaks.is_empty());
        samples.lock().clear(begun);
        assert_eq!(read(1), (1.0, 0, None));
    }

    #[test]
    fn misses_that_come_back_are_told() {
        let begun = Instant::now();
        let mut samples = Samples::new(SampleOptions::default(), begun);
        let hash = |number: u64| number | number << 40;
        assert!(Samples::follows(hash(5)) && !Samples::follows(hash(5) | 1 << 30));
        for (number, seconds) in [(1, 0), (1, 59), (2, 59), (1, 130), (2, 100)] {
            samples.add_miss(hash(number), 2 + seconds);
        }
        let report = SampleReport::read([&parking_lot::Mutex::new(samples)].into_iter(), begun);
        assert_eq!(report.repeated_misses, Some(0.4));
    }
}
