//! The results of a run, as text and as JSON.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::plan::Plan;
use crate::tally::Tally;
use crate::workload::Operation;

/// Quantiles that are shown.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// The figures of a run.
pub struct Report {
    server: String,
    workload: String,
    threads: usize,
    rate: Option<f64>,
    idle_connections: usize,
    /// Idle connections that the server has closed.
    pub idle_lost: usize,
    /// The counts of the prefill, if the run had one.
    pub prefill: Option<Tally>,
    /// The counts of the measured part.
    pub tally: Tally,
    /// Share of time that each client thread spent on a core. Near 1, the thread limits the throughput.
    pub threads_busy: Vec<f64>,
}

impl Report {
    /// A report of `plan`'s run.
    pub fn new(plan: &Plan, prefill: Option<Tally>, tally: Tally, threads_busy: Vec<f64>, idle_lost: usize) -> Report {
        Report {
            server: plan.server(),
            workload: plan.workload.to_string(),
            threads: plan.threads,
            rate: plan.rate,
            idle_connections: plan.idle_connections,
            idle_lost,
            prefill,
            tally,
            threads_busy,
        }
    }

    /// Whether every request had the right answer. A request lost with its connection counts only if it ended the run:
    /// with `--reconnect`, the user wants the run to survive that.
    pub fn is_clean(&self) -> bool {
        self.is_right() && self.errors() == 0
    }

    /// Like `is_clean`, but a reply that reports an error is right, too, such as that of a full cache.
    pub fn is_right(&self) -> bool {
        let right = |tally: &Tally| tally.wrong == 0 && tally.failures.is_empty();
        right(&self.tally) && self.prefill.as_ref().is_none_or(right) && self.idle_lost == 0
    }

    /// Replies that reported an error.
    pub fn errors(&self) -> u64 {
        self.tally.errors + self.prefill.as_ref().map_or(0, |prefill| prefill.errors)
    }

    pub fn seconds(&self) -> f64 {
        self.tally.elapsed.max(1) as f64 / 1e9
    }

    /// Keys looked up or stored.
    pub fn keys(&self) -> u64 {
        self.tally.hits + self.tally.misses + self.tally.stored
    }

    pub fn requests_per_second(&self) -> f64 {
        self.tally.completed as f64 / self.seconds()
    }

    pub fn keys_per_second(&self) -> f64 {
        self.keys() as f64 / self.seconds()
    }

    /// Share of looked-up keys that the server had; `None` without gets.
    pub fn hit_rate(&self) -> Option<f64> {
        let keys = self.tally.hits + self.tally.misses;
        (keys > 0).then(|| self.tally.hits as f64 / keys as f64)
    }

    /// Share of time that the client threads spent on a core. Near 1, the client limits the throughput.
    pub fn client_busy(&self) -> f64 {
        self.tally.cpu as f64 / (self.tally.elapsed.max(1) * self.threads as u64) as f64
    }

    /// Latencies of all requests, in nanoseconds.
    pub fn latency(&self) -> Histogram<u64> {
        let mut all = self.tally.latency(Operation::Get).clone();
        all.add(self.tally.latency(Operation::Set)).expect("histograms of equal bounds");
        all
    }

    /// Everything that went wrong, one line each.
    pub fn complaints(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (part, tally) in [("prefill", self.prefill.as_ref()), ("run", Some(&self.tally))] {
            let Some(tally) = tally else { continue };
            lines.extend(tally.failures.iter().cloned());
            for (count, what) in [(tally.errors, "error replies"), (tally.wrong, "wrong replies or values")] {
                if count > 0 {
                    lines.push(format!("{part}: {count} {what}"));
                }
            }
            lines.extend(tally.samples.iter().map(|sample| format!("  {sample}")));
        }
        if self.idle_lost > 0 {
            lines.push(format!("{} of {} idle connections were closed", self.idle_lost, self.idle_connections));
        }
        lines
    }

    /// The report as text.
    pub fn text(&self) -> String {
        let tally = &self.tally;
        let mut lines = vec![("server", self.server.clone()), ("workload", self.workload.clone())];
        if let Some(prefill) = &self.prefill {
            let seconds = prefill.elapsed as f64 / 1e9;
            let rate = prefill.stored as f64 / seconds;
            lines.push(("prefill", format!("{} keys in {seconds:.2} s, {rate:.0} keys/s", prefill.stored)));
        }
        if self.idle_connections > 0 {
            let open = self.idle_connections - self.idle_lost;
            lines.push(("idle", format!("{} connections, {open} open to the end", self.idle_connections)));
        }
        lines.push(("duration", format!("{:.2} s", self.seconds())));
        lines.push(("requests", format!("{} ({:.0}/s)", tally.completed, self.requests_per_second())));
        if let Some(rate) = self.rate {
            lines.push(("rate", format!("{rate}/s, {} requests due but not sent by the end", tally.unsent)));
        }
        lines.push(("keys", format!("{} ({:.0}/s)", self.keys(), self.keys_per_second())));
        if let Some(rate) = self.hit_rate() {
            lines.push(("hit rate", format!("{:.3} %", rate * 100.0)));
        }
        let errors = format!("{} error replies, {} wrong, {} lost", tally.errors, tally.wrong, tally.lost);
        lines.push(("errors", errors));
        if tally.connections_lost + tally.reconnects > 0 {
            let text = format!("{} lost, {} opened again", tally.connections_lost, tally.reconnects);
            lines.push(("connections", text));
        }
        let per_key = tally.cpu as f64 / 1e3 / self.keys().max(1) as f64;
        lines.push(("client", format!("{:.0} % busy, {per_key:.3} µs/key", self.client_busy() * 100.0)));
        let mut out = String::new();
        for (name, text) in lines {
            let _ = writeln!(out, "{name:<12} {text}");
        }
        let _ = write!(out, "\n{:<12} {:>12}", "latency, µs", "requests");
        for (name, _) in QUANTILES {
            let _ = write!(out, " {name:>10}");
        }
        out.push('\n');
        for (name, operation) in OPERATIONS {
            let latency = tally.latency(operation);
            if !latency.is_empty() {
                let _ = write!(out, "{name:<12} {:>12}", latency.len());
                for (_, quantile) in QUANTILES {
                    let _ = write!(out, " {:>10.1}", microseconds(latency, quantile));
                }
                out.push('\n');
            }
        }
        out
    }

    /// The report as one JSON object.
    pub fn json(&self) -> Value {
        let tally = &self.tally;
        let mut latency = serde_json::Map::new();
        for (name, operation) in OPERATIONS {
            let histogram = tally.latency(operation);
            if !histogram.is_empty() {
                let mut figures = serde_json::Map::new();
                figures.insert("requests".into(), histogram.len().into());
                for (quantile, value) in QUANTILES {
                    figures.insert(quantile.into(), microseconds(histogram, value).into());
                }
                latency.insert(name.into(), figures.into());
            }
        }
        json!({
            "server": self.server,
            "workload": self.workload,
            "threads": self.threads,
            "prefill": self.prefill.as_ref().map(|prefill| json!({
                "keys": prefill.stored,
                "seconds": prefill.elapsed as f64 / 1e9,
            })),
            "seconds": self.seconds(),
            "requests": tally.completed,
            "requests_per_second": self.requests_per_second(),
            "rate": self.rate,
            "requests_unsent": tally.unsent,
            "keys": self.keys(),
            "keys_per_second": self.keys_per_second(),
            "hits": tally.hits,
            "misses": tally.misses,
            "hit_rate": self.hit_rate(),
            "stored": tally.stored,
            "errors": tally.errors,
            "wrong": tally.wrong,
            "requests_lost": tally.lost,
            "connections_lost": tally.connections_lost,
            "reconnects": tally.reconnects,
            "idle_connections": self.idle_connections,
            "idle_connections_lost": self.idle_lost,
            "client_busy": self.client_busy(),
            "client_busy_by_thread": self.threads_busy,
            "client_cpu_seconds": tally.cpu as f64 / 1e9,
            "latency_microseconds": latency,
            "clean": self.is_clean(),
            "complaints": self.complaints(),
        })
    }
}

const OPERATIONS: [(&str, Operation); 2] = [("get", Operation::Get), ("set", Operation::Set)];

/// The latency in microseconds that a share `quantile` of all requests did not exceed; 1.0 gives the longest.
pub fn microseconds(latency: &Histogram<u64>, quantile: f64) -> f64 {
    latency.value_at_quantile(quantile) as f64 / 1e3
}
