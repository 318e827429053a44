//! Which keys a client asks for. Every kind is about keys of which only a part fits, so its measure is the number of
//! items that fit.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use crate::keys::Keys;
use crate::random::{Random, mix};
use crate::zipf::Zipf;

/// The keys of a working set, as a multiple of those that fit.
const KEYS_PER_FIT: u64 = 10;

/// The exponent of kinds that do not name one.
const EXPONENT: f64 = 0.9;

/// Requests between two scans, and requests of a scan.
const SCAN: u64 = 50_000;

/// Requests until a fifth of the working set is replaced by new keys.
const SHIFT: u64 = 100_000;

/// Numbers of keys that are asked for once, or twice.
const NEW: u64 = 1 << 40;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Traffic {
    /// Zipf's law with this exponent, over ten times the keys that fit.
    Zipf(f64),
    /// Zipf's law, and every second stretch of requests asks for new keys only.
    Scans,
    /// A loop over this multiple of the keys that fit.
    Loop(f64),
    /// Zipf's law, but this share of requests is for new keys.
    Once(f64),
    /// Each key twice; the second time after as many new keys as this multiple of those that fit, on average.
    Twice(f64),
    /// Zipf's law over keys of which a fifth is replaced at a time.
    Shifting,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Traffic::Zipf(exponent) => write!(f, "zipf{exponent}"),
            Traffic::Scans => write!(f, "scans"),
            Traffic::Loop(times) => write!(f, "loop{times}"),
            Traffic::Once(share) => write!(f, "once{share}"),
            Traffic::Twice(times) => write!(f, "twice{times}"),
            Traffic::Shifting => write!(f, "shifting"),
        }
    }
}

/// An endless sequence of keys.
pub struct Sequence {
    traffic: Traffic,
    random: Random,
    zipf: Zipf,
    /// Makes popular keys of a working set others than the first ones.
    places: Keys,
    keys: u64,
    fits: u64,
    asked: u64,
    new: u64,
    /// Keys that are asked for again: when, in requests for new keys, and which.
    due: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Traffic {
    /// The keys for a server on which `fits` items fit.
    pub fn keys(self, fits: u64, seed: u64) -> Sequence {
        let fits = fits.max(1);
        let keys = KEYS_PER_FIT * fits;
        let exponent = if let Traffic::Zipf(exponent) = self { exponent } else { EXPONENT };
        Sequence {
            traffic: self,
            random: Random::new(mix(seed)),
            zipf: Zipf::new(keys, exponent),
            places: Keys::new(keys, 20, (0, 0), seed).expect("20 digits are enough"),
            keys,
            fits,
            asked: 0,
            new: NEW,
            due: BinaryHeap::new(),
        }
    }
}

impl Sequence {
    /// The next key.
    pub fn next(&mut self) -> u64 {
        let number = self.asked;
        self.asked += 1;
        match self.traffic {
            Traffic::Zipf(_) => self.popular(),
            Traffic::Scans if number / SCAN % 2 == 1 => self.unseen(),
            Traffic::Scans => self.popular(),
            Traffic::Loop(times) => number % ((self.fits as f64 * times) as u64).max(1),
            Traffic::Once(share) if self.random.unit() < share => self.unseen(),
            Traffic::Once(_) => self.popular(),
            Traffic::Twice(times) => {
                if let Some(Reverse((when, key))) = self.due.peek().copied()
                    && when <= self.new
                {
                    self.due.pop();
                    return key;
                }
                let key = self.unseen();
                let apart = (self.random.unit() * 2.0 * times * self.fits as f64) as u64;
                self.due.push(Reverse((self.new + apart, key)));
                key
            }
            Traffic::Shifting => {
                let key = self.popular();
                let generation = (number / SHIFT + mix(key) % 5) / 5;
                key + generation * self.keys
            }
        }
    }

    fn popular(&mut self) -> u64 {
        self.places.at_rank(self.zipf.draw(&mut self.random))
    }

    fn unseen(&mut self) -> u64 {
        self.new += 1;
        self.new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn counts(traffic: Traffic, requests: usize) -> HashMap<u64, usize> {
        let mut keys = traffic.keys(1000, 1);
        let mut counts = HashMap::new();
        (0..requests).for_each(|_| *counts.entry(keys.next()).or_default() += 1);
        counts
    }

    #[test]
    fn kinds_are_what_they_say() {
        let zipf = counts(Traffic::Zipf(0.9), 100_000);
        assert!(zipf.len() <= 10_000 && zipf.values().max() > Some(&4000) && zipf.keys().all(|key| *key < 10_000));
        let loops = counts(Traffic::Loop(2.0), 10_000);
        assert!(loops.len() == 2000 && loops.values().all(|&count| count == 5));
        let once = counts(Traffic::Once(0.3), 100_000);
        let new = once.iter().filter(|(key, _)| **key > NEW);
        assert!((29_000..31_000).contains(&new.clone().count()) && new.clone().all(|(_, &count)| count == 1));
        let twice = counts(Traffic::Twice(0.7), 100_000);
        assert!(twice.values().all(|&count| count <= 2));
        assert!(twice.values().filter(|&&count| count == 2).count() > 48_000);
        let scans = counts(Traffic::Scans, 100_000);
        assert_eq!(scans.keys().filter(|key| **key > NEW).count(), 50_000);
        assert!(counts(Traffic::Shifting, 1_000_000).keys().any(|key| *key >= 10_000));
    }

    #[test]
    fn a_seed_repeats_its_keys() {
        for traffic in [Traffic::Zipf(1.1), Traffic::Once(0.7), Traffic::Twice(0.3), Traffic::Shifting] {
            let (mut one, mut other) = (traffic.keys(100, 3), traffic.keys(100, 3));
            assert!((0..10_000).all(|_| one.next() == other.next()));
        }
    }
}
