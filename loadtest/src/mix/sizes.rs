//! Sizes of values. The number of a key alone determines the size of its value.

use std::fmt;

use crate::random::{Random, mix};

/// The longest value: an item of a server without flags has at most 1 MiB.
const SIZE_MAX: f64 = 1_000_000.0;

/// Draws that estimate the mean.
const SAMPLE: u64 = 100_000;

/// The range of exact sizes.
const EXACT: (u64, u64) = (32, 4300);

/// A distribution of sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sizes {
    /// Log-normal, with this median in bytes and this deviation of the logarithm.
    LogNormal(f64, f64),
    /// So many sizes, whose shares follow Zipf's law with exponent 1.
    Exact(usize),
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sizes::LogNormal(median, deviation) => write!(f, "ln{median}-{deviation}"),
            Sizes::Exact(count) => write!(f, "exact{count}"),
        }
    }
}

/// The sizes of a run.
pub struct Drawn {
    sizes: Sizes,
    seed: u64,
    /// The exact sizes, and the sums of their shares.
    exact: Vec<(f64, usize)>,
}

impl Sizes {
    /// The sizes for a seed.
    pub fn drawn(self, seed: u64) -> Drawn {
        let mut random = Random::new(seed);
        let mut sum = 0.0;
        let mut share = |rank: usize| {
            sum += 1.0 / rank as f64;
            (sum, (EXACT.0 + random.below(EXACT.1 - EXACT.0)) as usize)
        };
        let count = if let Sizes::Exact(count) = self { count } else { 0 };
        let exact = (1..=count).map(&mut share).collect();
        Drawn { sizes: self, seed: mix(seed), exact }
    }
}

impl Drawn {
    /// Bytes of the value of a key.
    pub fn of(&self, id: u64) -> usize {
        let mut random = Random::new(self.seed ^ id);
        match self.sizes {
            Sizes::LogNormal(median, deviation) => {
                // Box and Muller.
                let normal = (-2.0 * (1.0 - random.unit()).ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos();
                (median * (deviation * normal).exp()).clamp(1.0, SIZE_MAX) as usize
            }
            Sizes::Exact(_) => {
                let point = random.unit() * self.exact.last().map_or(0.0, |(sum, _)| *sum);
                let at = self.exact.partition_point(|(sum, _)| *sum <= point);
                self.exact[at.min(self.exact.len() - 1)].1
            }
        }
    }

    /// The mean in bytes, about.
    pub fn mean(&self) -> f64 {
        (0..SAMPLE).map(|id| self.of(id) as f64).sum::<f64>() / SAMPLE as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_their_law_and_repeat() {
        let sizes = Sizes::LogNormal(1000.0, 0.4).drawn(7);
        let mut drawn: Vec<usize> = (0..10_001).map(|id| sizes.of(id)).collect();
        assert_eq!(drawn, (0..10_001).map(|id| Sizes::LogNormal(1000.0, 0.4).drawn(7).of(id)).collect::<Vec<_>>());
        drawn.sort_unstable();
        // The deviation of the logarithm is 0.4: 84 % of the sizes are below 1000 * e^0.4.
        assert!((970..1030).contains(&drawn[5000]) && (1440..1550).contains(&drawn[8413]), "{}", drawn[8413]);
        assert!((1070.0..1100.0).contains(&sizes.mean()));
    }

    #[test]
    fn exact_sizes_are_as_many_as_wanted() {
        let sizes = Sizes::Exact(30).drawn(7);
        let drawn: std::collections::HashSet<usize> = (0..100_000).map(|id| sizes.of(id)).collect();
        assert!((28..=30).contains(&drawn.len()), "{}", drawn.len());
    }
}
