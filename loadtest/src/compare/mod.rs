//! The same work for two servers: each in turn, alone, on the same cores.
//!
//! Machines are noisy, most of all in throughput. Hence rounds alternate, and medians count. The main figure is the
//! server's CPU time per key, because a busy neighbour or a slow client changes it least.
//!
//! Reading order: [`sets`] are tables of [`row`]s; [`mod@bench`], [`memory`] and [`tails`] measure; [`crate::pair`] holds figures and
//! outcomes; [`markdown`] and [`plots`] show them.

mod row;
pub mod sets;

mod bench;
mod memory;
mod tails;

mod markdown;
mod plots;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};

use crate::certificate::Certificate;
use crate::cpus::Cpus;
use crate::pair::figure::{Outcome, SIDES};
use crate::pair::files;
use crate::pair::machine::{self, Machine};
use crate::pair::measure::{self, Failure};
use crate::pair::progress::Progress;
use crate::program::Program;
use bench::Bench;
use row::Job;
pub use row::Row;
use sets::Set;

/// Parameters of a comparison.
pub struct Comparison {
    /// Baseline first.
    pub programs: [Program; 2],
    pub rows: Vec<(Set, Row)>,
    pub rounds: u32,
    /// Rounds for which the servers of a row with load keep running.
    pub keep: u32,
    pub time: Duration,
    pub server_cpus: Cpus,
    pub client_cpus: Cpus,
    pub quiet: bool,
    /// The certificate of both servers, for rows by TLS.
    pub certificate: Option<Certificate>,
}

/// All outcomes, and the machine they were measured on.
pub struct Results<'a> {
    comparison: &'a Comparison,
    machine: Machine,
    outcomes: Vec<Outcome>,
}

impl Comparison {
    /// Runs all rows, or those before `stop` is set. Passes each outcome to `each` at once. If a row fails, the others
    /// still run.
    pub fn run(&self, stop: &Arc<AtomicBool>, mut each: impl FnMut(&Outcome)) -> Result<Results<'_>, String> {
        let version = |side: usize| machine::version(&self.programs[side], &self.server_cpus, stop);
        let versions = [version(0)?, version(1)?];
        let mut outcomes = Vec::new();
        let total: u32 = self.rows.iter().map(|(_, row)| 2 * row.rounds(self.rounds)).sum();
        let mut progress = Progress::new(total as usize, self.quiet);
        for (index, (set, row)) in self.rows.iter().enumerate() {
            let place = format!("row {} of {}, {}", index + 1, self.rows.len(), row.name);
            let outcome = self.row(*set, row, &place, &mut progress, stop);
            progress.clear();
            each(&outcome);
            outcomes.push(outcome);
            if stop.load(Relaxed) {
                break;
            }
        }
        Ok(Results { comparison: self, machine: Machine::here(versions), outcomes })
    }

    /// All rounds of one row.
    fn row(&self, set: Set, row: &Row, place: &str, progress: &mut Progress, stop: &Arc<AtomicBool>) -> Outcome {
        let rounds = row.rounds(self.rounds);
        let mut outcome = Outcome {
            set: set.name(),
            name: row.name.clone(),
            about: row.about(),
            targets: row.targets.clone(),
            samples: [Vec::new(), Vec::new()],
            remarks: Vec::new(),
            failure: None,
        };
        if let Some(why) = row.refusal(&self.programs).or_else(|| row.does_not_fit()) {
            outcome.remarks.push(why);
            progress.advance(2 * rounds as usize);
            return outcome;
        }
        let mut bench = Bench::new(self, row, stop);
        let mut refused = [false; 2];
        'rounds: for round in 1..=rounds {
            for side in 0..SIDES.len() {
                progress.show(&format!("{place}, round {round} of {rounds}, {}", SIDES[side]), (round, side) == (1, 0));
                let sample = match &row.job {
                    _ if refused[side] => None,
                    Job::Load(load) => Some(bench.measure(side, load, round)),
                    Job::Strain(load, kinds) => Some(tails::strain(&mut bench, side, load, kinds, round)),
                    Job::Fill(workload) => Some(memory::fill(&bench, side, workload)),
                    Job::Fit(workload) => Some(memory::fit(&bench, side, workload)),
                    Job::Mix(mix) => Some(memory::mix(&bench, side, mix)),
                    Job::Idle(count) => Some(memory::idle(&bench, side, *count)),
                    Job::Storm(storm) => Some(bench.storm(side, storm)),
                    Job::Datagrams(datagrams) => Some(bench.datagrams(side, datagrams)),
                };
                progress.advance(1);
                match sample {
                    None => {}
                    Some(Ok(sample)) => outcome.samples[side].push(sample),
                    Some(Err(Failure::Broken(why))) => {
                        outcome.failure = Some(format!("{}: {why}", SIDES[side]));
                        break 'rounds;
                    }
                    Some(Err(Failure::Refused(why))) => {
                        outcome.remarks.push(format!("{}: refused: {why}", SIDES[side]));
                        refused[side] = true;
                    }
                }
            }
        }
        outcome.remarks.extend(bench.rate_remark());
        outcome.remarks.extend(tails::remarks(&outcome.samples));
        outcome.remarks.extend(measure::remarks(&outcome.samples));
        outcome.remarks.extend(outcome.failure.iter().map(|why| format!("failed: {why}")));
        outcome
    }
}

impl Results<'_> {
    /// Names of the rows that failed.
    pub fn failed(&self) -> Vec<&str> {
        let failed = self.outcomes.iter().filter(|outcome| outcome.failure.is_some());
        failed.map(|outcome| outcome.name.as_str()).collect()
    }

    /// All outcomes as one JSON object.
    pub fn json(&self) -> Value {
        json!({
            "baseline": self.comparison.programs[0].command,
            "candidate": self.comparison.programs[1].command,
            "versions": self.machine.versions,
            "cpu": self.machine.cpu,
            "kernel": self.machine.kernel,
            "date": self.machine.date,
            "rounds": self.comparison.rounds,
            "keep": self.comparison.keep,
            "seconds": self.comparison.time.as_secs_f64(),
            "workloads": self.outcomes.iter().map(Outcome::json).collect::<Value>(),
        })
    }

    /// Writes all tables.
    pub fn write_markdown(&self, path: &Path) -> Result<(), String> {
        files::write(path, &markdown::page(self))
    }

    /// Writes all plots into a directory, and creates it if needed.
    pub fn write_plots(&self, directory: &Path) -> Result<(), String> {
        files::write_all(directory, &plots::all(&self.outcomes))
    }
}
