//! How servers scale over cores: the same workloads for a baseline and a candidate, with one worker, two, four and so on.
//!
//! ```text
//! round ▶ number of workers ▶ new servers, filled ▶ workload ▶ baseline, candidate
//! ```
//! Rounds are outermost, so that a change of the machine meets all numbers of workers alike; medians count.
//!
//! Reading order: [`cores`] and [`work`] are the task; [`stand`] measures; [`results`] derives figures, and [`table`] and
//! [`plots`] show them.

pub mod cores;
pub mod work;

mod stand;

mod results;

mod plots;
mod table;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::pair::figure::SIDES;
use crate::pair::flags::taken;
use crate::pair::machine::{self, Machine, available_mib};
use crate::pair::progress::{Progress, clock};
use crate::program::Program;
use cores::Cores;
use results::{Cell, Results};
use stand::Stand;
use work::{Doors, Work};

/// A measurement takes longer than the time of its load by about this, and by less than a start of a server.
const BESIDE_LOAD: Duration = Duration::from_millis(50);
/// About what a server takes to start, and to become idle after it is filled.
const START: Duration = Duration::from_millis(1500);
/// About as many keys are set in a second.
const FILL_PER_SECOND: f64 = 500_000.0;

/// Parameters of the task.
pub struct Scale {
    /// Baseline first.
    pub programs: [Program; 2],
    pub cores: Cores,
    /// Numbers of workers, ascending, at least one.
    pub workers: Vec<usize>,
    /// At least one.
    pub works: Vec<Work>,
    pub connections: usize,
    pub keys: u64,
    pub rounds: u32,
    pub time: Duration,
    pub quiet: bool,
}

impl Scale {
    /// What is measured, on which cores, and how long it takes.
    pub fn head(&self) -> String {
        let workers: Vec<String> = self.workers.iter().map(usize::to_string).collect();
        format!(
            "workers: {}\ncores: {}\nload: {} workloads, {} keys, {} connections; rounds: {}, seconds of each: {}\n\
             expected to end in {}\n",
            workers.join(", "),
            self.cores.text(),
            self.works.len(),
            self.keys,
            self.connections,
            self.rounds,
            self.time.as_secs_f64(),
            clock(self.expected()),
        )
    }

    /// Measures everything, or what comes before `stop` is set. If a workload fails, the others still run.
    pub fn run(&self, stop: &Arc<AtomicBool>) -> Result<Results<'_>, String> {
        self.check_memory()?;
        let version = |side: usize| machine::version(&self.programs[side], &self.cores.of_server(1), stop);
        let versions = [version(0)?, version(1)?];
        let cell = |work, count| Cell::new(work, count, self.cores.sharing(count));
        let row = |work| self.workers.iter().map(|count| cell(work, *count)).collect();
        let mut rows: Vec<Vec<Cell>> = self.works.iter().map(row).collect();
        let total = self.workers.len() * self.works.len() * SIDES.len() * self.rounds as usize;
        let mut progress = Progress::new(total, self.quiet);
        'rounds: for round in 1..=self.rounds {
            for (place, workers) in self.workers.iter().enumerate() {
                let what = format!("round {round} of {}, -t {workers}", self.rounds);
                let stand = Stand::new(self, *workers, round, stop);
                let mut cells: Vec<&mut Cell> = rows.iter_mut().map(|row| &mut row[place]).collect();
                if measure(stand, &mut cells, &mut progress, &what).is_break() {
                    break 'rounds;
                }
            }
        }
        progress.clear();
        Ok(Results { scale: self, machine: Machine::here(versions), rows })
    }

    /// About how long all measurements take.
    fn expected(&self) -> Duration {
        let measurement = self.time + BESIDE_LOAD;
        let start = START + Duration::from_secs_f64(self.keys as f64 / FILL_PER_SECOND);
        let each = measurement * (SIDES.len() * self.works.len()) as u32 + start * self.servers() as u32;
        each * self.workers.len() as u32 * self.rounds
    }

    /// Servers that run at the same time.
    fn servers(&self) -> usize {
        let needs = |doors| self.works.iter().any(|work| work.doors == doors);
        1 + usize::from(needs(Doors::One)) + usize::from(needs(Doors::EachWorker))
    }

    fn check_memory(&self) -> Result<(), String> {
        let needed = self.servers() as u64 * taken(self.keys);
        match available_mib() {
            Some(available) if available < needed => Err(format!(
                "{} servers with {} keys need {needed} MiB, and {available} are available (see --keys)",
                self.servers(),
                self.keys
            )),
            _ => Ok(()),
        }
    }
}

/// Measures all workloads with one number of workers in one round. Breaks off if the program is to stop.
fn measure(mut stand: Stand<'_>, cells: &mut [&mut Cell], progress: &mut Progress, what: &str) -> ControlFlow<()> {
    for (number, cell) in cells.iter_mut().enumerate() {
        for (side, name) in SIDES.iter().enumerate() {
            progress.show(&format!("{what}, {}, {name}", cell.outcome.name), (number, side) == (0, 0));
            if cell.is_wanted(side) {
                cell.take(side, stand.measure(side, number));
            }
            progress.advance(1);
            if stand.is_stopped() {
                return ControlFlow::Break(());
            }
        }
    }
    ControlFlow::Continue(())
}
