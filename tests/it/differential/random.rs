//! Random numbers that a seed determines: SplitMix64 (Steele, Lea & Flood 2014).

pub(super) struct Random(u64);

impl Random {
    /// The sequence of `seed`. Different seeds give unrelated sequences.
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

    /// True with this probability in percent.
    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of the choices, each with the same probability.
    pub(super) fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// One of the first `usual` choices with this probability in percent, otherwise one of all choices.
    pub(super) fn mostly<'a, T>(&mut self, percent: usize, usual: usize, choices: &'a [T]) -> &'a T {
        let among = if self.percent(percent) { &choices[..usual] } else { choices };
        self.one_of(among)
    }

    /// This many random bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
