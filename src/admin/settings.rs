//! Settings that commands change while the server runs.

use crate::config::{self, Config};
use crate::watch::Watchers;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Settings that commands change while the server runs.
#[derive(Debug)]
pub struct Settings {
    /// `verbosity`, 0–2 (3 from the command line). Change it by [`Settings::set_verbosity`].
    pub verbosity: AtomicU8,
    /// Count of the clock up to which the last `flush_all` flushes; 0: there was none. For `stats settings` only.
    pub oldest: AtomicU32,
    /// `stats detail on`: counting by prefix.
    pub detail_enabled: AtomicBool,
    /// `slabs automove`, 0–2.
    pub slab_automove: AtomicU8,
    /// `slabs automove ratio`
    pub slab_automove_ratio: AtomicF64,
    /// `slabs automove window`, in seconds.
    pub slab_automove_window: AtomicU32,
    /// `slabs automove freeratio`; 0: no page is kept free.
    pub slab_automove_free_ratio: AtomicF64,
    /// `lru mode segmented`
    pub lru_segmented: AtomicBool,
    /// `lru_crawler enable`: whether housekeeping looks for dead items.
    pub lru_crawler: AtomicBool,
    /// `lru_crawler sleep`, in microseconds.
    pub lru_crawler_sleep: AtomicU32,
    /// `lru_crawler tocrawl`
    pub lru_crawler_tocrawl: AtomicU32,
    /// Times a [`Walk`](super::walk::Walk) was begun.
    pub lru_crawler_starts: AtomicU64,
    /// A [`Walk`](super::walk::Walk) is under way: there is never another one.
    pub lru_crawler_running: AtomicBool,
    /// Who watches.
    pub watchers: Watchers,
    /// `lru tune`, in percent.
    pub hot_percent: AtomicU32,
    /// `lru tune`, in percent.
    pub warm_percent: AtomicU32,
    /// `lru tune`
    pub hot_max_factor: AtomicF64,
    /// `lru tune`
    pub warm_max_factor: AtomicF64,
    /// `lru temp_ttl`: there is a TEMP.
    pub temp_lru: AtomicBool,
    /// `lru temp_ttl`, in seconds.
    pub temporary_ttl: AtomicU32,
}

impl Settings {
    /// Those of the command line.
    pub fn new(config: &Config) -> Settings {
        Settings {
            verbosity: AtomicU8::new(config.verbosity),
            oldest: AtomicU32::new(0),
            detail_enabled: AtomicBool::new(config.detail_enabled),
            slab_automove: AtomicU8::new(config.slab_automove),
            slab_automove_ratio: AtomicF64::new(config.slab_automove_ratio),
            slab_automove_window: AtomicU32::new(config.slab_automove_window_seconds),
            slab_automove_free_ratio: AtomicF64::new(config.slab_automove_free_ratio),
            lru_segmented: AtomicBool::new(config.lru_maintainer),
            lru_crawler: AtomicBool::new(config.lru_crawler),
            lru_crawler_sleep: AtomicU32::new(config.lru_crawler_sleep_micros),
            lru_crawler_tocrawl: AtomicU32::new(config.lru_crawler_tocrawl),
            lru_crawler_starts: AtomicU64::new(0),
            lru_crawler_running: AtomicBool::new(false),
            watchers: Watchers::new(config.watchers_max),
            hot_percent: AtomicU32::new(config.hot_lru_percent),
            warm_percent: AtomicU32::new(config.warm_lru_percent),
            hot_max_factor: AtomicF64::new(config.hot_max_factor),
            warm_max_factor: AtomicF64::new(config.warm_max_factor),
            temp_lru: AtomicBool::new(config.temporary_ttl_seconds.is_some()),
            temporary_ttl: AtomicU32::new(config.temporary_ttl_seconds.unwrap_or(TEMPORARY_TTL_UNUSED)),
        }
    }

    /// As `-v` and `-vv`: what is logged from now on. More than 2 is 2, as in memcached.
    pub fn set_verbosity(&self, verbosity: u32) {
        let verbosity = verbosity.min(2) as u8;
        self.verbosity.store(verbosity, Ordering::Relaxed);
        log::set_max_level(config::log_level(verbosity));
    }
}

/// What memcached shows as `temporary_ttl` as long as there is no TEMP.
const TEMPORARY_TTL_UNUSED: u32 = 61;

/// A number that commands change now and then.
#[derive(Debug)]
pub struct AtomicF64(AtomicU64);

impl AtomicF64 {
    fn new(value: f64) -> AtomicF64 {
        AtomicF64(AtomicU64::new(value.to_bits()))
    }

    /// Its value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}
