//! Settings that commands change while the server runs.

use crate::config::{self, Config};
use crate::store::Tuning;
use crate::watch::Watchers;
use parking_lot::Mutex;
use std::sync::Arc;
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
    /// Settings of the store. Every shard is sent the latest, whatever the order in which it is told of changes.
    pub tuning: Arc<Mutex<Tuning>>,
    /// `temporary_ttl` in `stats settings`: as in memcached, the latest seconds, though there be no TEMP any more.
    pub temporary_ttl_shown: AtomicU32,
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
}

impl Settings {
    /// Those of the command line.
    pub fn new(config: &Config) -> Settings {
        Settings {
            verbosity: AtomicU8::new(config.process.verbosity),
            oldest: AtomicU32::new(0),
            detail_enabled: AtomicBool::new(config.detail.enabled),
            tuning: Arc::new(Mutex::new(config.tuning)),
            temporary_ttl_shown: AtomicU32::new(config.tuning.temporary_ttl.unwrap_or(TEMPORARY_TTL_UNUSED)),
            lru_crawler: AtomicBool::new(config.crawler.enabled),
            lru_crawler_sleep: AtomicU32::new(config.crawler.sleep_micros),
            lru_crawler_tocrawl: AtomicU32::new(config.crawler.tocrawl),
            lru_crawler_starts: AtomicU64::new(0),
            lru_crawler_running: AtomicBool::new(false),
            watchers: Watchers::new(config.watch.watchers_max),
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
