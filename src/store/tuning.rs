//! The settings of a store that commands change while it runs.

/// The settings of a store that commands change while it runs. `--help` explains their flags.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tuning {
    /// The LRU: `lru tune`, `lru mode`.
    pub lru: LruTuning,
    /// The automover: `slabs automove`.
    pub automove: AutomoveTuning,
    /// `lru temp_ttl`: items with at most this many seconds to live enter TEMP. `None`: the LRU has no TEMP.
    pub temporary_ttl: Option<u32>,
}

/// The settings of the LRU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LruTuning {
    /// Use HOT, WARM, COLD and TEMP. Otherwise COLD is the only list, and a hit saves an item from the next eviction.
    pub segmented: bool,
    /// The shares of HOT and WARM in percent; 1 to 79, together at most 80. The rest is COLD. The policy finds the share of
    /// WARM itself, and divides the other items between HOT and COLD by these numbers.
    pub hot_percent: u32,
    /// See `hot_percent`.
    pub warm_percent: u32,
    /// An item leaves HOT when it has idled longer than this many times the tail of COLD; above 0.
    pub hot_max_factor: f64,
    /// Accepted as in memcached, and without effect.
    pub warm_max_factor: f64,
}

impl Default for LruTuning {
    fn default() -> LruTuning {
        LruTuning { segmented: true, hot_percent: 20, warm_percent: 40, hot_max_factor: 0.2, warm_max_factor: 2.0 }
    }
}

/// The settings of the automover.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutomoveTuning {
    /// 0 is off; 1 decides by a window of samples, 2 by every eviction.
    pub level: u8,
    /// A class gets pages while its items idle less than this share of the time that those of the donor idle; above 0, at
    /// most 1.
    pub ratio: f64,
    /// The length of the window of samples in seconds, 3 to 1800.
    pub window_seconds: u32,
    /// The share of all pages that is kept free for any class; 0 to below 1.
    pub free_ratio: f64,
}

impl Default for AutomoveTuning {
    fn default() -> AutomoveTuning {
        AutomoveTuning { level: 1, ratio: 0.8, window_seconds: 10, free_ratio: 0.0 }
    }
}
