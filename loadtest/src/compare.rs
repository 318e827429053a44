//! Two servers, the same workloads: each server in turn, fresh, alone, on the same cores.
//!
//! Machines are noisy, most of all in throughput. Hence rounds that alternate, medians, and first of all the server's
//! CPU time per key, which a busy neighbour or a slow client changes least.

use std::fmt::Write;
use std::fs;
use std::io::{IsTerminal, Write as _, stderr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};

use crate::address::Address;
use crate::cpus::Cpus;
use crate::plan::{Limit, Plan};
use crate::report::microseconds;
use crate::run::Session;
use crate::server::Server;
use crate::workload::{Named, Workload};

/// Above this share of busy time the client, not the server, may have set the throughput.
const CLIENT_BUSY_MAX: f64 = 0.95;

/// What to compare, and how.
pub struct Comparison {
    /// The commands, baseline first.
    pub commands: [String; 2],
    pub workloads: Vec<Named>,
    pub rounds: u32,
    pub time: Duration,
    pub server_cpus: Cpus,
    pub client_cpus: Cpus,
    pub quiet: bool,
}

/// One measurement of one server.
struct Sample {
    keys_per_second: f64,
    cpu_microseconds_per_key: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    hit_rate: Option<f64>,
    memory: u64,
    client_busy: f64,
}

/// A figure of a sample.
struct Figure {
    name: &'static str,
    /// Its name in JSON.
    key: &'static str,
    of: fn(&Sample) -> f64,
    /// Digits behind the point.
    precision: usize,
}

const FIGURES: [Figure; 5] = [
    Figure { name: "keys/s", key: "keys_per_second", of: |sample| sample.keys_per_second, precision: 0 },
    Figure {
        name: "CPU µs/key",
        key: "cpu_microseconds_per_key",
        of: |sample| sample.cpu_microseconds_per_key,
        precision: 3,
    },
    Figure { name: "p50 µs", key: "p50_microseconds", of: |sample| sample.p50, precision: 0 },
    Figure { name: "p99 µs", key: "p99_microseconds", of: |sample| sample.p99, precision: 0 },
    Figure { name: "p99.9 µs", key: "p99.9_microseconds", of: |sample| sample.p999, precision: 0 },
];

const SIDES: [&str; 2] = ["baseline", "candidate"];

/// All rounds of one workload.
pub struct Outcome {
    named: Named,
    /// Baseline and candidate; one sample per round.
    samples: [Vec<Sample>; 2],
}

impl Comparison {
    /// Runs everything. `each` is given every workload's outcome as soon as it is there.
    pub fn run(&self, stop: &Arc<AtomicBool>, mut each: impl FnMut(&Outcome)) -> Result<Vec<Outcome>, String> {
        let mut outcomes = Vec::new();
        for named in &self.workloads {
            let mut samples = [Vec::new(), Vec::new()];
            for round in 1..=self.rounds {
                for side in 0..SIDES.len() {
                    self.show(&format!("{}, round {round} of {}, {}", named.name, self.rounds, SIDES[side]));
                    let sample = self.measure(&self.commands[side], &named.workload, stop);
                    self.show("");
                    samples[side].push(sample.map_err(|why| format!("{}, {}: {why}", named.name, SIDES[side]))?);
                }
            }
            let outcome = Outcome { named: named.clone(), samples };
            each(&outcome);
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn measure(&self, command: &str, workload: &Workload, stop: &Arc<AtomicBool>) -> Result<Sample, String> {
        let mut server = Server::start(command, &self.server_cpus, stop)?;
        let session = Session::open(self.plan(&server, workload)?, stop, |_| ());
        // A server that has died is the better explanation of whatever else went wrong.
        server.check()?;
        let session = session?;
        let cpu_before = server.cpu();
        let report = session.measure(|_| ());
        let cpu_after = server.cpu();
        let memory = server.memory();
        server.check()?;
        if !report.is_clean() {
            return Err(report.complaints().join("\n"));
        }
        if stop.load(Relaxed) {
            return Err("interrupted".into());
        }
        let cpu = cpu_after.zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
        let cpu = cpu.ok_or("the server's CPU time is not to be found in /proc")?;
        let latency = report.latency();
        Ok(Sample {
            keys_per_second: report.keys_per_second(),
            cpu_microseconds_per_key: cpu.as_secs_f64() * 1e6 / report.keys().max(1) as f64,
            p50: microseconds(&latency, 0.5),
            p99: microseconds(&latency, 0.99),
            p999: microseconds(&latency, 0.999),
            hit_rate: report.hit_rate(),
            memory: memory.unwrap_or(0),
            client_busy: report.client_busy(),
        })
    }

    /// Values are verified: a fast wrong answer is no answer.
    fn plan(&self, server: &Server, workload: &Workload) -> Result<Plan, String> {
        Ok(Plan {
            threads: self.client_cpus.count(),
            cpus: Some(self.client_cpus.clone()),
            prefill: true,
            verify: true,
            ..Plan::new(Address::find(&server.address())?, workload.clone(), Limit::Time(self.time))
        })
    }

    fn show(&self, text: &str) {
        if !self.quiet && stderr().is_terminal() {
            let _ = write!(stderr(), "\r\x1b[K{text}");
        }
    }
}

impl Outcome {
    /// Median over the rounds of one side, 0 the baseline.
    fn median(&self, side: usize, figure: fn(&Sample) -> f64) -> f64 {
        median(self.samples[side].iter().map(figure).collect())
    }

    /// Candidate over baseline.
    fn ratio(&self, figure: fn(&Sample) -> f64) -> f64 {
        self.median(1, figure) / self.median(0, figure)
    }

    /// What a reader of the figures must know.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for (side, name) in SIDES.iter().enumerate() {
            let busy = self.median(side, |sample| sample.client_busy);
            if busy > CLIENT_BUSY_MAX {
                remarks.push(format!("{name}: the client was {:.0} % busy and may be the limit", busy * 100.0));
            }
            let hits = self.median(side, |sample| sample.hit_rate.unwrap_or(1.0));
            if hits < 1.0 {
                remarks.push(format!("{name}: only {:.2} % hits", hits * 100.0));
            }
        }
        remarks
    }

    /// Three lines to read: both sides and their ratio.
    pub fn text(&self) -> String {
        let mut out = format!("{:<12}", self.named.name);
        for figure in &FIGURES {
            let _ = write!(out, " {:>12}", figure.name);
        }
        for (side, name) in SIDES.iter().enumerate() {
            let _ = write!(out, "\n  {name:<10}");
            for Figure { of, precision, .. } in FIGURES {
                let _ = write!(out, " {:>12.precision$}", self.median(side, of));
            }
        }
        let _ = write!(out, "\n  {:<10}", "ratio");
        for figure in &FIGURES {
            let _ = write!(out, " {:>12.2}", self.ratio(figure.of));
        }
        for remark in self.remarks() {
            let _ = write!(out, "\n  {remark}");
        }
        out + "\n"
    }

    fn markdown(&self) -> String {
        let mut out = format!("| {} |", self.named.name);
        for Figure { of, precision, .. } in FIGURES {
            let (baseline, candidate) = (self.median(0, of), self.median(1, of));
            let _ = write!(out, " {baseline:.precision$} | {candidate:.precision$} | {:.2} |", self.ratio(of));
        }
        out + "\n"
    }

    fn json(&self) -> Value {
        let figures = |of: &dyn Fn(&Figure) -> f64| -> serde_json::Map<String, Value> {
            FIGURES.iter().map(|figure| (figure.key.to_owned(), of(figure).into())).collect()
        };
        let side = |side: usize| {
            let rounds = self.samples[side].iter().map(|sample| {
                let mut round = figures(&|figure| (figure.of)(sample));
                round.insert("hit_rate".into(), sample.hit_rate.into());
                round.insert("memory_bytes".into(), sample.memory.into());
                round.insert("client_busy".into(), sample.client_busy.into());
                round
            });
            json!({ "medians": figures(&|figure| self.median(side, figure.of)), "rounds": rounds.collect::<Vec<_>>() })
        };
        json!({
            "workload": self.named.name,
            "about": self.named.workload.to_string(),
            "baseline": side(0),
            "candidate": side(1),
            "ratio_of_medians": figures(&|figure| self.ratio(figure.of)),
            "remarks": self.remarks(),
        })
    }
}

/// All outcomes as one JSON object.
pub fn json(comparison: &Comparison, outcomes: &[Outcome]) -> Value {
    json!({
        "baseline": comparison.commands[0],
        "candidate": comparison.commands[1],
        "rounds": comparison.rounds,
        "seconds": comparison.time.as_secs_f64(),
        "workloads": outcomes.iter().map(Outcome::json).collect::<Value>(),
    })
}

/// All outcomes as a table: three columns per figure, baseline, candidate, ratio.
pub fn write_markdown(comparison: &Comparison, outcomes: &[Outcome], path: &PathBuf) -> Result<(), String> {
    let mut out = format!(
        "Baseline `{}`, candidate `{}`; medians of {} rounds of {} s; ratio is candidate to baseline.\n\n| workload |",
        comparison.commands[0],
        comparison.commands[1],
        comparison.rounds,
        comparison.time.as_secs_f64(),
    );
    for figure in &FIGURES {
        let _ = write!(out, " {}: baseline | candidate | ratio |", figure.name);
    }
    out += "\n|---|";
    out += &"--:|".repeat(3 * FIGURES.len());
    out.push('\n');
    out.extend(outcomes.iter().map(Outcome::markdown));
    for outcome in outcomes {
        out.extend(outcome.remarks().iter().map(|remark| format!("\n{}: {remark}\n", outcome.named.name)));
    }
    fs::write(path, out).map_err(|error| format!("{}: {error}", path.display()))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), 3.0);
    }
}
