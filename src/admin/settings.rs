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
    /// The clock count up to which the last `flush_all` flushes. 0: no flush. Only `stats settings` reads it.
    pub oldest: AtomicU32,
    /// `stats detail on`: shards count by prefix.
    pub detail_enabled: AtomicBool,
    /// Settings of the store. Every shard takes the latest ones, whatever the order in which it learns of changes.
    pub tuning: Arc<Mutex<Tuning>>,
    /// `temporary_ttl` in `stats settings`. As in memcached, it shows the latest seconds even after TEMP was switched
    /// off.
    pub temporary_ttl_shown: AtomicU32,
    /// `lru_crawler enable`: housekeeping looks for dead items.
    pub lru_crawler: AtomicBool,
    /// `lru_crawler sleep`, in microseconds.
    pub lru_crawler_sleep: AtomicU32,
    /// `lru_crawler tocrawl`
    pub lru_crawler_tocrawl: AtomicU32,
    /// The number of [`Walk`](super::walk::Walk)s that have begun.
    pub lru_crawler_starts: AtomicU64,
    /// A [`Walk`](super::walk::Walk) is under way. A server never runs two at a time.
    pub lru_crawler_running: AtomicBool,
    /// The connections that watch.
    pub watchers: Watchers,
}

impl Settings {
    /// Takes the settings of the command line.
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

    /// Sets how much the server logs from now on, as `-v` and `-vv` do. More than 2 counts as 2, as in memcached.
    pub fn set_verbosity(&self, verbosity: u32) {
        let verbosity = verbosity.min(2) as u8;
        self.verbosity.store(verbosity, Ordering::Relaxed);
        log::set_max_level(config::log_level(verbosity));
    }
}

/// memcached shows this as `temporary_ttl` as long as TEMP is off.
const TEMPORARY_TTL_UNUSED: u32 = 61;
