//! Random numbers that follow from a seed: SplitMix64 (Steele, Lea & Flood 2014).

/// A sequence of random numbers.
pub(super) struct Random(u64);

impl Random {
    /// The sequence of `seed`; different seeds give unrelated sequences.
    pub(super) fn new(seed: u64) -> Random {
        Random(mix(seed ^ 0x5851_f42d_4c95_7f2d))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in `0..bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// True in so many of a hundred cases.
    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of them, each as likely as the others.
    pub(super) fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// One of the first `usual` of them in so many of a hundred cases, and of all of them in the others.
    pub(super) fn mostly<'a, T>(&mut self, percent: usize, usual: usize, choices: &'a [T]) -> &'a T {
        let among = if self.percent(percent) { &choices[..usual] } else { choices };
        self.one_of(among)
    }

    /// So many bytes of any value.
    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
