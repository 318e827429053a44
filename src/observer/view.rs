//! What `/metrics` tells of, and the form of its tables.

use super::exposition::{Kind, Samples};
use super::keys::Keys;
use super::prefixes::PrefixTotals;
use super::reading::{Reading, Shards};
use crate::admin::ServerContext;
use crate::counters::WorkerCounters;
use crate::measure::samples::SampleReport;
use crate::store::Snapshot;
use crate::store::stats::ClassCounters;

/// Everything that `/metrics` tells of.
pub(super) struct View<'a> {
    pub(super) context: ServerContext<'a>,
    pub(super) reading: &'a Reading,
    pub(super) samples: &'a SampleReport,
    pub(super) prefixes: &'a PrefixTotals,
    pub(super) keys: &'a Keys<'a>,
    pub(super) late_workers: usize,
    pub(super) is_ready: bool,
    /// With `-e` or `--keep-memory`: whether the server has begun with the items of the last one.
    pub(super) is_warm: Option<bool>,
    /// When the process started, in Unix seconds.
    pub(super) started: f64,
}

/// A metric: its name, its type, its help, and what puts its samples. The function returns None if this server has no such
/// samples, or none now.
pub(super) struct Metric(
    pub(super) &'static str,
    pub(super) Kind,
    pub(super) &'static str,
    pub(super) fn(&View<'_>, &mut Samples<'_>) -> Option<()>,
);

impl View<'_> {
    /// Writes the metrics of a table.
    pub(super) fn write(&self, text: &mut String, metrics: &[Metric]) {
        for &Metric(name, kind, help, put) in metrics {
            // Without samples nothing is written.
            let _ = put(self, &mut Samples::new(text, name, kind, help));
        }
    }

    pub(super) fn shards(&self) -> Option<&Shards> {
        self.reading.shards.as_ref()
    }

    pub(super) fn total(&self) -> Option<&Snapshot> {
        self.shards().map(|shards| &shards.total)
    }

    pub(super) fn classes(&self) -> Option<&ClassCounters> {
        self.shards().map(|shards| &shards.classes)
    }

    /// The sum of a count over all workers.
    pub(super) fn workers(&self, count: fn(&WorkerCounters) -> u64) -> u64 {
        self.context.workers.iter().map(count).sum()
    }

    /// `Some` if a condition holds, so that a row of a table can end at once.
    pub(super) fn only_if(&self, condition: bool) -> Option<()> {
        condition.then_some(())
    }
}
