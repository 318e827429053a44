//! The measurements of all rounds, and the figures that follow from them.

use std::path::Path;

use serde_json::{Value, json};

use super::cores::Sharing;
use super::stand::Measured;
use super::work::Work;
use super::{Scale, plots, table};
use crate::pair::figure::{
    BATCHES_POSTED, CLIENT_BUSIEST, CLIENT_BUSY, CPU_PER_KEY, ERRORS, Figure, HIT_RATE, KEYS_PER_SECOND,
    LEASES_REFUSED, Outcome, SIDES, median,
};
use crate::pair::files;
use crate::pair::machine::Machine;
use crate::pair::measure::{CLIENT_BUSY_MAX, Failure};

/// One workload with one number of workers.
pub struct Cell {
    pub workers: usize,
    pub sharing: Sharing,
    pub outcome: Outcome,
    /// For each side and round, the share of time that each client thread spent on a core.
    pub busy: [Vec<Vec<f64>>; 2],
    /// The reason why a side does not take the workload.
    refused: [Option<String>; 2],
}

impl Cell {
    pub fn new(work: &Work, workers: usize, sharing: Sharing) -> Cell {
        let outcome = Outcome {
            set: "scale",
            name: work.name.into(),
            about: work.about.into(),
            targets: Vec::new(),
            samples: [Vec::new(), Vec::new()],
            remarks: Vec::new(),
            failure: None,
        };
        Cell { workers, sharing, outcome, busy: [Vec::new(), Vec::new()], refused: [None, None] }
    }

    /// Whether a side is still to be measured: it has not refused the workload, and nothing has failed.
    pub fn is_wanted(&self, side: usize) -> bool {
        self.outcome.failure.is_none() && self.refused[side].is_none()
    }

    /// Adds a measurement of a side, or remembers why there is none.
    pub fn take(&mut self, side: usize, measured: Result<Measured, Failure>) {
        match measured {
            Ok(Measured { sample, busy }) => {
                self.outcome.samples[side].push(sample);
                self.busy[side].push(busy);
            }
            Err(Failure::Refused(why)) => self.refused[side] = Some(why),
            Err(Failure::Broken(why)) => self.outcome.failure = Some(format!("{}: {why}", SIDES[side])),
        }
    }

    /// How busy each client thread was, as medians over the rounds.
    pub fn threads_busy(&self, side: usize) -> Vec<f64> {
        let rounds = &self.busy[side];
        let of = |thread| median(rounds.iter().filter_map(|busy: &Vec<f64>| busy.get(thread).copied()).collect());
        (0..rounds.iter().map(Vec::len).max().unwrap_or(0)).filter_map(of).collect()
    }

    /// Whether a thread of the client was busy all the time, so that the client may have limited the throughput.
    pub fn client_is_limit(&self, side: usize) -> bool {
        self.outcome.median(side, &CLIENT_BUSIEST).is_some_and(|busiest| busiest > CLIENT_BUSY_MAX)
    }

    /// Sentences that say why figures are missing, or not comparable.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> = self.outcome.failure.iter().map(|why| format!("failed: {why}")).collect();
        for (side, name) in SIDES.iter().enumerate() {
            remarks.extend(self.refused[side].iter().map(|why| format!("{name}: refused: {why}")));
            let of = |figure| self.outcome.median(side, figure);
            if let Some(hits) = of(&HIT_RATE).filter(|hits| *hits < 1.0) {
                remarks.push(format!("{name}: {:.2} % hits", hits * 100.0));
            }
            if let Some(errors) = of(&ERRORS).filter(|errors| *errors > 0.0) {
                remarks.push(format!("{name}: {errors:.0} error replies"));
            }
        }
        remarks
    }
}

/// All measurements, and the machine they were made on.
pub struct Results<'a> {
    pub scale: &'a Scale,
    pub machine: Machine,
    /// For each workload, the cells by ascending number of workers.
    pub rows: Vec<Vec<Cell>>,
}

/// The median of a cell of `row`, as a multiple of that of the same side in the first cell.
pub fn multiple(row: &[Cell], place: usize, side: usize, figure: &Figure) -> Option<f64> {
    Some(row[place].outcome.median(side, figure)? / row.first()?.outcome.median(side, figure)?)
}

impl Results<'_> {
    /// Names of the workloads that failed, with `-t`.
    pub fn failed(&self) -> Vec<String> {
        let failed = self.rows.iter().flatten().filter(|cell| cell.outcome.failure.is_some());
        failed.map(|cell| format!("{} with -t {}", cell.outcome.name, cell.workers)).collect()
    }

    /// A table for each workload, for a terminal.
    pub fn text(&self) -> String {
        table::text(self)
    }

    /// Writes all tables.
    pub fn write_markdown(&self, path: &Path) -> Result<(), String> {
        files::write(path, &table::markdown(self))
    }

    /// Writes all plots into a directory, and creates it if needed.
    pub fn write_plots(&self, directory: &Path) -> Result<(), String> {
        files::write_all(directory, &plots::all(&self.rows))
    }

    /// All measurements as one JSON object.
    pub fn json(&self) -> Value {
        let Scale { programs, rounds, time, connections, keys, .. } = self.scale;
        json!({
            "baseline": programs[0].command,
            "candidate": programs[1].command,
            "versions": self.machine.versions,
            "cpu": self.machine.cpu,
            "kernel": self.machine.kernel,
            "date": self.machine.date,
            "cores": self.scale.cores.text(),
            "rounds": rounds,
            "seconds": time.as_secs_f64(),
            "connections": connections,
            "keys": keys,
            "rows": self.rows.iter().flat_map(|row| (0..row.len()).map(|place| json_of(row, place))).collect::<Value>(),
        })
    }
}

fn json_of(row: &[Cell], place: usize) -> Value {
    let cell = &row[place];
    let derived = |side| {
        let median = |figure| cell.outcome.median(side, figure);
        json!({
            // The baseline may lack these, so that the outcome has no medians of them.
            LEASES_REFUSED.key: median(&LEASES_REFUSED),
            BATCHES_POSTED.key: median(&BATCHES_POSTED),
            "client_busy": median(&CLIENT_BUSY),
            "client_busy_by_thread": cell.threads_busy(side),
            "client_is_limit": cell.client_is_limit(side),
            "cpu_multiple_of_first": multiple(row, place, side, &CPU_PER_KEY),
            "keys_multiple_of_first": multiple(row, place, side, &KEYS_PER_SECOND),
        })
    };
    let derived: serde_json::Map<String, Value> =
        SIDES.iter().enumerate().map(|(side, name)| ((*name).to_owned(), derived(side))).collect();
    json!({
        "workers": cell.workers,
        "shares_cores": cell.sharing == Sharing::Shared,
        "derived": derived,
        "remarks": cell.remarks(),
        "outcome": cell.outcome.json(),
    })
}
