//! Zipf's law: rank *k* of *n* has a probability proportional to *k*^-exponent.
//!
//! Rejection-inversion (W. Hörmann and G. Derflinger, "Rejection-inversion to generate variates from monotone discrete
//! distributions", ACM TOMACS 6(3), 1996): no table, constant time for any *n*, exact for every exponent ≥ 0. A
//! continuous integral H encloses the histogram of k^-exponent. The code inverts a uniform point under H, rounds it to
//! a rank, and rejects it where the curve lies above the histogram (a few per cent of the draws). H(x) = (x^(1-s) - 1)
//! / (1-s) is undefined at s = 1; `expm1` and `ln_1p` cover that case without a branch for it.

use crate::random::Random;

/// The distribution over ranks `0..n`, 0 the most popular.
#[derive(Clone, Debug)]
pub struct Zipf {
    ranks: f64,
    exponent: f64,
    /// H at the left end of rank 1 and the right end of the last rank.
    integral_first: f64,
    integral_last: f64,
    /// A rank this close to its point is accepted without a test.
    shortcut: f64,
}

impl Zipf {
    /// `ranks` ≥ 1, `exponent` ≥ 0 and finite.
    pub fn new(ranks: u64, exponent: f64) -> Zipf {
        assert!(ranks >= 1 && exponent >= 0.0 && exponent.is_finite());
        let ranks = ranks as f64;
        Zipf {
            ranks,
            exponent,
            integral_first: integral(1.5, exponent) - 1.0,
            integral_last: integral(ranks + 0.5, exponent),
            shortcut: 2.0 - integral_inverse(integral(2.5, exponent) - height(2.0, exponent), exponent),
        }
    }

    pub fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.integral_last + random.unit() * (self.integral_first - self.integral_last);
            let point = integral_inverse(area, self.exponent);
            let rank = (point + 0.5).floor().clamp(1.0, self.ranks);
            if rank - point <= self.shortcut
                || area >= integral(rank + 0.5, self.exponent) - height(rank, self.exponent)
            {
                return rank as u64 - 1;
            }
        }
    }
}

fn height(x: f64, exponent: f64) -> f64 {
    (-exponent * x.ln()).exp()
}

fn integral(x: f64, exponent: f64) -> f64 {
    let log = x.ln();
    exp_m1_over((1.0 - exponent) * log) * log
}

fn integral_inverse(area: f64, exponent: f64) -> f64 {
    // Rounding may push the product past -1, where the logarithm is undefined.
    let product = (area * (1.0 - exponent)).max(-1.0);
    (ln_1p_over(product) * area).exp()
}

/// (e^x - 1) / x, by its series near 0.
fn exp_m1_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.exp_m1() / x } else { 1.0 + x / 2.0 * (1.0 + x / 3.0) }
}

/// ln(1 + x) / x, by its series near 0.
fn ln_1p_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.ln_1p() / x } else { 1.0 - x * (0.5 - x / 3.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chi-square test against the exact probabilities. Ranks with few draws are taken together.
    fn check(ranks: u64, exponent: f64) {
        const DRAWS: u64 = 400_000;
        let zipf = Zipf::new(ranks, exponent);
        let mut random = Random::new(42);
        let mut counts = vec![0_u64; ranks as usize];
        for _ in 0..DRAWS {
            counts[zipf.draw(&mut random) as usize] += 1;
        }
        let weights: Vec<f64> = (1..=ranks).map(|k| (k as f64).powf(-exponent)).collect();
        let total: f64 = weights.iter().sum();
        let (mut chi, mut cells) = (0.0, 0);
        let (mut seen, mut expected) = (0.0, 0.0);
        for (count, weight) in counts.iter().zip(&weights) {
            seen += *count as f64;
            expected += weight / total * DRAWS as f64;
            if expected >= 20.0 {
                chi += (seen - expected) * (seen - expected) / expected;
                cells += 1;
                (seen, expected) = (0.0, 0.0);
            }
        }
        let freedom = f64::from(cells - 1);
        // Chi-square has mean f and deviation sqrt(2f): five deviations never happen by chance.
        let limit = freedom + 5.0 * (2.0 * freedom).sqrt() + 5.0;
        assert!(chi <= limit, "{ranks} ranks, exponent {exponent}: chi-square {chi} over {freedom}");
    }

    #[test]
    fn follows_the_law_below_at_and_above_one() {
        for exponent in [0.0, 0.3, 0.7, 0.99, 1.0, 1.000_000_001, 1.01, 1.5, 2.7] {
            for ranks in [1, 2, 3, 10, 1000, 50_000] {
                check(ranks, exponent);
            }
        }
    }

    #[test]
    fn stays_in_range_for_billions_of_ranks() {
        let mut random = Random::new(3);
        for exponent in [0.0, 0.9, 1.0, 1.2] {
            let zipf = Zipf::new(5_000_000_000, exponent);
            assert!((0..100_000).all(|_| zipf.draw(&mut random) < 5_000_000_000));
        }
    }
}
