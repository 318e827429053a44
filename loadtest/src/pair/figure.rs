//! Figures of a server, their targets, and the outcome of a row.

use std::fmt;

use serde_json::{Map, Value, json};

/// Baseline and candidate, in this order everywhere.
pub const SIDES: [&str; 2] = ["baseline", "candidate"];

/// A quantity that a measurement gives for a server.
#[derive(Debug)]
pub struct Figure {
    pub name: &'static str,
    /// Its name in JSON.
    pub key: &'static str,
    /// Digits after the decimal point.
    pub precision: usize,
    /// Whether tables show it; the others are for remarks and JSON.
    pub shown: bool,
}

const fn shown(name: &'static str, key: &'static str, precision: usize) -> Figure {
    Figure { name, key, precision, shown: true }
}

const fn hidden(key: &'static str) -> Figure {
    Figure { name: key, key, precision: 3, shown: false }
}

pub static REQUESTS_PER_SECOND: Figure = shown("requests/s", "requests_per_second", 0);
pub static KEYS_PER_SECOND: Figure = shown("keys/s", "keys_per_second", 0);
pub static CPU_PER_KEY: Figure = shown("CPU µs/key", "cpu_microseconds_per_key", 3);
pub static P50: Figure = shown("p50 µs", "p50_microseconds", 0);
pub static P90: Figure = shown("p90 µs", "p90_microseconds", 0);
pub static P99: Figure = shown("p99 µs", "p99_microseconds", 0);
pub static P999: Figure = shown("p99.9 µs", "p99.9_microseconds", 0);
pub static CPU_PER_HANDSHAKE: Figure = shown("CPU µs/handshake", "cpu_microseconds_per_handshake", 0);
pub static HANDSHAKES_PER_SECOND: Figure = shown("handshakes/s", "handshakes_per_second", 0);
pub static SLOWEST: Figure = shown("slowest ms", "slowest_connection_milliseconds", 1);
pub static ESTABLISHED_P99: Figure = shown("established p99 µs", "p99_of_an_established_connection_microseconds", 0);
pub static LONGEST_LOAD: Figure = shown("longest set µs", "longest_set_while_loading_microseconds", 0);
pub static ITEMS_PER_MIB: Figure = shown("items/MiB", "items_per_mib_resident", 0);
pub static CONNECTION_KIB: Figure = shown("KiB/connection", "kib_per_idle_connection", 2);
pub static ITEMS_HELD: Figure = shown("items", "items_held", 0);
pub static MEMORY_MIB: Figure = shown("MiB", "mib_resident", 1);
pub static MISSED_FIRST: Figure = shown("misses at first", "miss_ratio_at_first", 4);
pub static MISSED_LAST: Figure = shown("misses at last", "miss_ratio_at_last", 4);
pub static MOVES: Figure = shown("moves/1000 sets", "page_moves_per_thousand_sets", 2);
pub static HELD: Figure = shown("held % of -m", "item_bytes_percent_of_memory", 1);
pub static LEASES_REFUSED: Figure = shown("refused/M", "leases_refused_per_million_keys", 0);
pub static BATCHES_POSTED: Figure = shown("batches/M", "batches_posted_per_million_keys", 0);
pub static CLIENT_BUSIEST: Figure = hidden("client_busiest_core");
pub static MAX: Figure = shown("max µs", "max_microseconds", 0);
pub static OWN_P999: Figure = shown("own p99.9 µs", "own_p99.9_microseconds", 0);
pub static OWN_MAX: Figure = shown("own max µs", "own_max_microseconds", 0);
pub static LATE: Figure = shown("> 1 ms", "requests_late", 0);
pub static LATE_OWN: Figure = shown("own > 1 ms", "requests_late_for_no_cause_outside_the_server", 0);
pub static LATE_BY_GAP: Figure = hidden("requests_late_by_gaps_of_the_client_core");
pub static LATE_BY_WAIT: Figure = hidden("requests_late_while_the_server_waited_for_its_core");
pub static LATE_BY_BACKLOG: Figure = hidden("requests_late_in_the_backlog_after_these");
pub static REQUESTS: Figure = hidden("requests");
pub static OWN_REQUESTS: Figure = hidden("requests_without_a_cause_outside_the_server");
pub static CLIENT_GAP_LONGEST: Figure = hidden("longest_gap_of_the_client_core_microseconds");
pub static CLIENT_GAPS: Figure = hidden("gaps_of_the_client_core");
pub static SERVER_WAITED: Figure = hidden("server_waited_for_its_core_milliseconds");
pub static SERVER_PAUSED: Figure = hidden("server_core_paused_milliseconds");
pub static SERVER_STOLEN: Figure = hidden("stolen_from_the_server_core_milliseconds");
pub static CLIENT_STOLEN: Figure = hidden("stolen_from_the_client_core_milliseconds");
pub static IDLE_SERVER_LONGEST: Figure = hidden("idle_longest_gap_of_the_server_core_microseconds");
pub static IDLE_CLIENT_LONGEST: Figure = hidden("idle_longest_gap_of_the_client_core_microseconds");
pub static IDLE_SERVER_GAPS: Figure = hidden("idle_gaps_over_1_ms_of_the_server_core_per_second");
pub static IDLE_CLIENT_GAPS: Figure = hidden("idle_gaps_over_1_ms_of_the_client_core_per_second");
pub static PAGES_MOVED: Figure = hidden("pages_moved_per_second");
pub static DUMPED: Figure = hidden("dumped_mib_per_second");
pub static TLS_CONNECTIONS: Figure = hidden("tls_connections_per_second");
pub static MEMORY: Figure = hidden("memory_bytes");
pub static ITEMS: Figure = hidden("items");
pub static HIT_RATE: Figure = hidden("hit_rate");
pub static CLIENT_BUSY: Figure = hidden("client_busy");
pub static ERRORS: Figure = hidden("error_replies");
pub static UNWATCHED: Figure = hidden("established_connection_behind_the_client");
pub static LOST: Figure = hidden("requests_lost");
pub static UNSENT: Figure = hidden("requests_unsent");

/// One measurement of one server.
pub type Sample = Vec<(&'static Figure, f64)>;

/// A limit of the ratio of candidate to baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A figure, and the limit of its ratio.
pub type Target = (&'static Figure, Bound);

impl Bound {
    pub fn holds(self, ratio: f64) -> bool {
        match self {
            Bound::AtMost(bound) => ratio <= bound,
            Bound::AtLeast(bound) => ratio >= bound,
        }
    }

    /// `held` or `MISSED`; empty without a ratio.
    pub fn verdict(self, ratio: Option<f64>) -> &'static str {
        match ratio.map(|ratio| self.holds(ratio)) {
            Some(true) => "held",
            Some(false) => "MISSED",
            None => "",
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtMost(bound) => write!(f, "≤ {bound:.2}"),
            Bound::AtLeast(bound) => write!(f, "≥ {bound:.2}"),
        }
    }
}

/// All rounds of one row.
pub struct Outcome {
    pub set: &'static str,
    pub name: String,
    pub about: String,
    pub targets: Vec<Target>,
    /// Of baseline and candidate, one sample per round.
    pub samples: [Vec<Sample>; 2],
    /// Remarks that help to read the figures.
    pub remarks: Vec<String>,
    /// The reason why figures are missing.
    pub failure: Option<String>,
}

impl Outcome {
    /// The figures of the samples, in their order, without the hidden ones.
    pub fn figures(&self) -> Vec<&'static Figure> {
        let sample = self.samples.iter().flatten().next();
        sample.into_iter().flatten().map(|(figure, _)| *figure).filter(|figure| figure.shown).collect()
    }

    /// The median over the rounds of one side (0 is the baseline).
    pub fn median(&self, side: usize, figure: &Figure) -> Option<f64> {
        median(self.samples[side].iter().filter_map(|sample| value(sample, figure)).collect())
    }

    /// The ratio of candidate to baseline.
    pub fn ratio(&self, figure: &Figure) -> Option<f64> {
        Some(self.median(1, figure)? / self.median(0, figure)?)
    }

    pub fn target(&self, figure: &Figure) -> Option<Bound> {
        self.targets.iter().find(|(other, _)| other.key == figure.key).map(|(_, bound)| *bound)
    }

    /// The main figures of the row: those with a target, or else CPU time, or else the first one.
    pub fn leads(&self) -> Vec<&'static Figure> {
        if !self.targets.is_empty() {
            return self.targets.iter().map(|(figure, _)| *figure).collect();
        }
        let figures = self.figures();
        let cpu = figures.iter().find(|figure| figure.key == CPU_PER_KEY.key);
        cpu.or(figures.first()).copied().into_iter().collect()
    }

    pub fn json(&self) -> Value {
        let side = |side: usize| {
            let rounds: Vec<Map<String, Value>> = self.samples[side]
                .iter()
                .map(|sample| sample.iter().map(|(figure, value)| (figure.key.into(), (*value).into())).collect())
                .collect();
            json!({ "medians": self.by_figure(|figure| self.median(side, figure)), "rounds": rounds })
        };
        let target = |(figure, bound): &Target| {
            let (kind, limit) = match bound {
                Bound::AtMost(limit) => ("at_most", limit),
                Bound::AtLeast(limit) => ("at_least", limit),
            };
            let held = self.ratio(figure).map(|ratio| bound.holds(ratio));
            json!({ "figure": figure.key, kind: limit, "held": held })
        };
        json!({
            "set": self.set,
            "workload": self.name,
            "about": self.about,
            "baseline": side(0),
            "candidate": side(1),
            "ratio_of_medians": self.by_figure(|figure| self.ratio(figure)),
            "targets": self.targets.iter().map(target).collect::<Vec<_>>(),
            "remarks": self.remarks,
            "failure": self.failure,
        })
    }

    fn by_figure(&self, of: impl Fn(&Figure) -> Option<f64>) -> Map<String, Value> {
        self.figures().into_iter().map(|figure| (figure.key.to_owned(), of(figure).into())).collect()
    }
}

/// The value of a figure, if the sample has it.
pub fn value(sample: &Sample, figure: &Figure) -> Option<f64> {
    sample.iter().find(|(other, _)| other.key == figure.key).map(|(_, value)| *value)
}

/// `None` if `values` is empty.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An outcome with a target of 0.5 for CPU time, measured three times. With `None`, the candidate has refused the
    /// row.
    pub fn outcome(candidate: Option<f64>) -> Outcome {
        let sample = |cpu: f64| vec![(&KEYS_PER_SECOND, 1e6 / cpu), (&CPU_PER_KEY, cpu), (&HIT_RATE, 1.0)];
        Outcome {
            set: "throughput",
            name: "get-1".into(),
            about: "get, one at a time".into(),
            targets: vec![(&CPU_PER_KEY, Bound::AtMost(0.5))],
            samples: [
                [2.0, 9.0, 4.0].map(sample).to_vec(),
                candidate.map(|cpu| vec![sample(cpu); 3]).unwrap_or_default(),
            ],
            remarks: Vec::new(),
            failure: None,
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn ratios_and_targets() {
        for (cpu, ratio, verdict) in
            [(Some(2.0), Some(0.5), "held"), (Some(2.1), Some(0.525), "MISSED"), (None, None, "")]
        {
            let outcome = outcome(cpu);
            let bound = outcome.target(&CPU_PER_KEY).expect("it has one");
            assert_eq!((outcome.ratio(&CPU_PER_KEY), bound.verdict(outcome.ratio(&CPU_PER_KEY))), (ratio, verdict));
        }
        assert!(Bound::AtLeast(1.2).holds(1.2) && !Bound::AtLeast(1.2).holds(1.19));
        assert_eq!(outcome(None).figures().len(), 2);
        assert_eq!(outcome(Some(1.0)).json()["targets"][0]["held"], true);
    }
}
