//! The figures of the server at a moment.

use crate::admin::{Answer, ServerContext, merge_snapshots};
use crate::measure::Measures;
use crate::measure::latency::Times;
use crate::store::Snapshot;
use crate::store::stats::ClassCounters;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The figures of the server at a moment.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) at: Instant,
    /// The same moment in Unix seconds.
    pub(super) unix: f64,
    /// None: the shards have not answered in time.
    pub(super) shards: Option<Shards>,
    pub(super) times: Times,
    pub(super) workers: Vec<WorkerFigures>,
}

/// The figures of the shards.
#[derive(Debug)]
pub(super) struct Shards {
    /// Of each, by its number.
    pub(super) each: Vec<(u16, Snapshot)>,
    /// Of all together.
    pub(super) total: Snapshot,
    /// Of all classes together.
    pub(super) classes: ClassCounters,
}

/// The counts of a worker since its start, of which rates are made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WorkerFigures {
    pub(super) busy_nanos: u64,
    pub(super) turns: u64,
    pub(super) operations: u64,
    /// The number of open connections now.
    pub(super) connections: u64,
    pub(super) leases_refused: u64,
    pub(super) batches_posted: u64,
    pub(super) hot_copy_hits: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
}

impl Reading {
    /// Reads the counters. `answers` are those of the shards, if they have come.
    pub(super) fn take(context: &ServerContext<'_>, answers: Option<Vec<Answer>>) -> Reading {
        let workers =
            context.workers.iter().zip(context.measures).map(|(counters, Measures { latency, .. })| WorkerFigures {
                busy_nanos: latency.busy_nanos.get(),
                turns: latency.turns.get(),
                operations: latency.operations.get(),
                connections: counters.connections(),
                leases_refused: counters.leases_refused.get(),
                batches_posted: counters.batches_posted.get(),
                hot_copy_hits: counters.hot_copy_hits.get(),
                bytes_read: counters.bytes_read.get(),
                bytes_written: counters.bytes_written.get(),
            });
        Reading {
            at: Instant::now(),
            unix: unix_seconds(SystemTime::now()),
            shards: answers.map(Shards::new),
            times: Times::read(context.measures.iter().map(|measures| &measures.latency)),
            workers: workers.collect(),
        }
    }

    /// The seconds since an earlier reading.
    pub(super) fn seconds_since(&self, earlier: &Reading) -> f64 {
        self.at.saturating_duration_since(earlier.at).as_secs_f64()
    }
}

/// Unix time in seconds, with milliseconds.
pub(super) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_millis() as f64 / 1000.0)
}

impl Shards {
    fn new(answers: Vec<Answer>) -> Shards {
        let snapshots = answers.into_iter().filter_map(|answer| match answer {
            Answer::Snapshot(number, snapshot) => Some((number, *snapshot)),
            _ => None,
        });
        let mut each: Vec<(u16, Snapshot)> = snapshots.collect();
        each.sort_by_key(|(number, _)| *number);
        let total = merge_snapshots(each.iter().map(|(_, snapshot)| snapshot));
        let mut classes = ClassCounters::default();
        total.classes.iter().for_each(|class| classes += &class.counters);
        Shards { each, total, classes }
    }

    /// Fetches that hit, and fetches that missed.
    pub(super) fn fetches(&self) -> (u64, u64) {
        (self.classes.get_hits(), self.total.counters.get_misses)
    }

    /// Evictions by reason: for room, by moves of pages, by chains of the index.
    pub(super) fn evictions(&self) -> [u64; 3] {
        let (moves, chains) = (self.classes.evicted_by_moves, self.classes.evicted_by_chains);
        [self.classes.evicted.saturating_sub(moves + chains), moves, chains]
    }

    /// Misses by reason: there was no item, it was expired, everything was flushed, its prefix was flushed, a rule of `--ttl`
    /// wanted an early miss.
    pub(super) fn misses(&self) -> [u64; 5] {
        let counters = &self.total.counters;
        let (expired, early, prefix) = (counters.get_expired, counters.get_early, counters.get_prefix_flushed);
        let flushed = counters.get_flushed.saturating_sub(prefix);
        [counters.get_misses.saturating_sub(expired + flushed + prefix + early), expired, flushed, prefix, early]
    }

    /// Operations on keys.
    pub(super) fn operations(&self) -> u64 {
        let (counters, classes) = (&self.total.counters, &self.classes);
        let (hits, misses) = self.fetches();
        let deletes = classes.delete_hits + counters.delete_misses;
        let arithmetic = classes.incr_hits + counters.incr_misses + classes.decr_hits + counters.decr_misses;
        hits + misses + classes.cmd_set + deletes + arithmetic + counters.cmd_touch
    }
}

/// Memory in bytes, by what holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) limit: u64,
    /// Chunks that items hold.
    pub(super) items: Option<u64>,
    pub(super) index: Option<u64>,
    /// Of connections, without TLS.
    pub(super) buffers: u64,
    pub(super) tls: u64,
    /// Pages beyond the limit.
    pub(super) lent: u64,
    /// Chunks that no item holds, and pages that no shard has taken yet.
    pub(super) free: Option<u64>,
}

impl Memory {
    pub(super) fn new(context: &ServerContext<'_>, shards: Option<&Shards>) -> Memory {
        let budget = context.budget;
        let page = budget.page_size() as u64;
        let sum = |count: fn(&crate::counters::WorkerCounters) -> u64| context.workers.iter().map(count).sum::<u64>();
        let tls = sum(|worker| worker.tls_buffer_bytes.get());
        let classes = shards.map(|shards| &shards.total.classes);
        let items = classes.map(|classes| {
            classes.iter().map(|class| class.usage.used_chunks * u64::from(class.usage.chunk_size)).sum::<u64>()
        });
        let pages = classes.map(|classes| classes.iter().map(|class| class.usage.total_pages).sum::<u64>() * page);
        Memory {
            limit: budget.limit_bytes(),
            items,
            index: shards.map(|shards| shards.total.hash_bytes),
            buffers: sum(|worker| worker.buffer_bytes.get()).saturating_sub(tls),
            tls,
            lent: u64::from(budget.lent()) * page,
            free: pages.zip(items).map(|(pages, items)| pages.saturating_sub(items) + u64::from(budget.free()) * page),
        }
    }
}

/// The rate of a count per second. If the count was reset meanwhile, that of the counts since the reset.
pub(super) fn rate(now: u64, before: u64, seconds: f64) -> f64 {
    let count = if now < before { now } else { now - before };
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_use_the_true_distance_and_survive_a_reset() {
        assert_eq!((rate(30, 10, 2.0), rate(5, 10, 0.5), rate(30, 10, 0.0)), (10.0, 10.0, 0.0));
    }
}
