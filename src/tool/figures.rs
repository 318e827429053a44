//! What a server says at one moment, and what happened between two such moments.

use super::client::Connection;
use super::histogram::Latency;
use super::reply::Stats;
use std::io;
use std::time::Instant;

/// Counters of operations. Those of `gat` are in `cmd_touch`, and those of `cas` are in `cmd_set`.
const OPERATIONS: [&str; 9] = [
    "cmd_get",
    "cmd_set",
    "cmd_touch",
    "delete_hits",
    "delete_misses",
    "incr_hits",
    "incr_misses",
    "decr_hits",
    "decr_misses",
];

/// The general statistics of a server and, if it has them, its latencies.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) at: Instant,
    pub(super) stats: Stats,
    pub(super) latency: Option<Latency>,
}

/// Whether a server is asked for its latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    All,
    /// It has said that it has none.
    NoLatency,
}

impl Snapshot {
    pub(super) fn take(connection: &mut Connection, ask: Ask) -> io::Result<Snapshot> {
        let stats = connection.stats("")?.ok_or_else(|| io::Error::other("it knows no stats"))?;
        let at = Instant::now();
        let latency = match ask {
            Ask::All => connection.stats("latency histogram")?.map(|stats| Latency::from_stats(&stats)),
            Ask::NoLatency => None,
        };
        Ok(Snapshot { at, stats, latency })
    }
}

/// What happened between two snapshots; rates are per second of measured time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) operations: f64,
    pub(super) gets: f64,
    pub(super) sets: f64,
    /// Percent of gets; `None` without gets.
    pub(super) hit_percent: Option<f64>,
    /// The latencies of the requests in between; `None` if the server has none.
    pub(super) latency: Option<Latency>,
    pub(super) evictions: f64,
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
    /// CPU time, in percent of one CPU.
    pub(super) cpu_percent: f64,
    /// At the second snapshot.
    pub(super) connections: f64,
    pub(super) memory_bytes: f64,
    pub(super) memory_limit_bytes: f64,
}

impl Rates {
    pub(super) fn between(before: &Snapshot, after: &Snapshot) -> Rates {
        let seconds = after.at.saturating_duration_since(before.at).as_secs_f64().max(1e-6);
        let added = |names: &[&str]| {
            let (before, after) = (before.stats.sum(names), after.stats.sum(names));
            // A counter that has become smaller began anew: the server was started again, or its statistics were reset.
            if after < before { after } else { after - before }
        };
        let rate = |names: &[&str]| added(names) / seconds;
        let (hits, misses) = (added(&["get_hits"]), added(&["get_misses"]));
        let latency = after.latency.as_ref().map(|after| match &before.latency {
            Some(before) => after.since(before),
            None => after.clone(),
        });
        Rates {
            operations: rate(&OPERATIONS),
            gets: rate(&["cmd_get"]),
            sets: rate(&["cmd_set"]),
            hit_percent: (hits + misses > 0.0).then(|| 100.0 * hits / (hits + misses)),
            latency,
            evictions: rate(&["evictions"]),
            bytes_in: rate(&["bytes_read"]),
            bytes_out: rate(&["bytes_written"]),
            cpu_percent: 100.0 * rate(&["rusage_user", "rusage_system"]),
            connections: after.stats.sum(&["curr_connections"]),
            memory_bytes: after.stats.sum(&["bytes"]),
            memory_limit_bytes: after.stats.sum(&["limit_maxbytes"]),
        }
    }

    /// A percentile of all requests in microseconds, if the server has latencies and there were requests.
    pub(super) fn percentile(&self, share: f64) -> Option<f64> {
        self.latency.as_ref()?.requests().percentile(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn snapshot(at: Instant, text: &str) -> Snapshot {
        Snapshot { at, stats: Stats::from_text(text), latency: None }
    }

    #[test]
    fn rates_are_per_measured_second() {
        let start = Instant::now();
        let before = snapshot(start, "STAT cmd_get 100\nSTAT get_hits 90\nSTAT get_misses 10\nSTAT cmd_set 5\n");
        let after = snapshot(
            start + Duration::from_secs(2),
            "STAT cmd_get 300\nSTAT get_hits 240\nSTAT get_misses 60\nSTAT cmd_set 25\nSTAT bytes 7\n\
             STAT delete_hits 4\nSTAT rusage_user 0.5\nSTAT rusage_system 0.5\nSTAT curr_connections 3\n",
        );
        let rates = Rates::between(&before, &after);
        assert_eq!((rates.gets, rates.sets, rates.operations), (100.0, 10.0, 112.0));
        assert_eq!((rates.hit_percent, rates.cpu_percent), (Some(75.0), 50.0));
        assert_eq!((rates.memory_bytes, rates.connections), (7.0, 3.0));
        assert_eq!(rates.percentile(0.5), None);
    }

    #[test]
    fn a_server_that_was_restarted_has_no_negative_rates() {
        let start = Instant::now();
        let before = snapshot(start, "STAT cmd_get 100\n");
        let after = snapshot(start + Duration::from_secs(1), "STAT cmd_get 3\n");
        assert_eq!(Rates::between(&before, &after).gets, 3.0);
        assert_eq!(Rates::between(&before, &after).hit_percent, None);
    }
}
