//! The last quarter of an hour, second by second.

use super::reading::{Reading, Shards, rate};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;

/// The seconds that are kept.
const SECONDS: usize = 900;

/// The series, in the order of [`Point::values`].
const SERIES: [&str; 16] = [
    "operations",
    "gets",
    "hits",
    "sets",
    "misses",
    "p50_us",
    "p99_us",
    "p999_us",
    "evictions",
    "evicted_age_seconds",
    "bytes_read",
    "bytes_written",
    "connections",
    "items",
    "memory_items",
    "busiest_worker",
];

/// The figures of a second.
#[derive(Debug)]
struct Point {
    /// Its end, in Unix seconds.
    unix: f64,
    /// None where the second has nothing to say.
    values: [Option<f64>; SERIES.len()],
}

/// The figures of the last seconds.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Point>);

impl History {
    /// Adds the time between two readings. `memory_items` is the memory of items at its end.
    pub(super) fn add(&mut self, reading: &Reading, earlier: &Reading, memory_items: Option<u64>) {
        if self.0.len() == SECONDS {
            self.0.pop_front();
        }
        self.0.push_back(Point { unix: reading.unix, values: values(reading, earlier, memory_items) });
    }

    /// The seconds that end after a time.
    pub(super) fn json(&self, since: f64) -> Value {
        let points = || self.0.iter().filter(|point| point.unix > since);
        let series: Map<String, Value> = SERIES
            .iter()
            .enumerate()
            .map(|(at, name)| ((*name).to_owned(), points().map(|point| point.values[at]).collect()))
            .collect();
        json!({ "step_seconds": 1, "times": points().map(|point| point.unix).collect::<Vec<_>>(), "series": series })
    }
}

fn values(reading: &Reading, earlier: &Reading, memory_items: Option<u64>) -> [Option<f64>; SERIES.len()] {
    let seconds = reading.seconds_since(earlier);
    let both = reading.shards.as_ref().zip(earlier.shards.as_ref());
    let per_second = |count: fn(&Shards) -> u64| both.map(|(now, then)| rate(count(now), count(then), seconds));
    let service = reading.times.since(&earlier.times).service();
    let percentile = |share: f64| (service.count() > 0).then(|| service.percentile_nanos(share) as f64 / 1000.0);
    let workers = || reading.workers.iter().zip(&earlier.workers);
    let bytes_read = workers().map(|(now, then)| rate(now.bytes_read, then.bytes_read, seconds)).sum();
    let bytes_written = workers().map(|(now, then)| rate(now.bytes_written, then.bytes_written, seconds)).sum();
    let busy = workers().map(|(now, then)| rate(now.busy_nanos, then.busy_nanos, seconds) / 1e9);
    let connections: u64 = reading.workers.iter().map(|worker| worker.connections).sum();
    let evicted_ages = both.into_iter().flat_map(|(now, then)| {
        let before =
            |id| then.total.classes.iter().find(move |class| class.id == id).map_or(0, |class| class.counters.evicted);
        let evicting = now.total.classes.iter().filter(move |class| class.counters.evicted > before(class.id));
        evicting.map(|class| f64::from(class.evicted_age))
    });
    [
        per_second(Shards::operations),
        per_second(|shards| shards.fetches().0 + shards.fetches().1),
        per_second(|shards| shards.fetches().0),
        per_second(|shards| shards.classes.cmd_set),
        per_second(|shards| shards.fetches().1),
        percentile(0.5),
        percentile(0.99),
        percentile(0.999),
        per_second(|shards| shards.classes.evicted),
        evicted_ages.reduce(f64::min),
        Some(bytes_read),
        Some(bytes_written),
        Some(connections as f64),
        reading.shards.as_ref().map(|shards| shards.total.curr_items as f64),
        memory_items.map(|bytes| bytes as f64),
        busy.reduce(f64::max).map(|busy| busy.min(1.0)),
    ]
}
