//! A table for each workload, as text and as markdown: a line for each number of workers and server.

use std::fmt::Write;

use super::cores::Sharing;
use super::results::{Cell, Results, multiple};
use crate::pair::figure::{
    BATCHES_POSTED, CPU_PER_KEY, Figure, KEYS_PER_SECOND, LEASES_REFUSED, P50, P99, P999, REQUESTS_PER_SECOND, SIDES,
};
use crate::pair::text::number;

/// A line of a table: a server with one number of workers.
struct Line<'a> {
    row: &'a [Cell],
    place: usize,
    side: usize,
}

/// The title of a column, and the text of a line in it.
type Column = (&'static str, fn(&Line<'_>) -> String);

const COLUMNS: [Column; 15] = [
    ("workers", |line| line.cell().workers.to_string()),
    ("server", |line| SIDES[line.side].into()),
    ("requests/s", |line| line.figure(&REQUESTS_PER_SECOND)),
    ("keys/s", |line| line.figure(&KEYS_PER_SECOND)),
    ("ratio", |line| line.ratio()),
    ("keys/s ×", |line| line.multiple(&KEYS_PER_SECOND)),
    ("CPU µs/key", |line| line.figure(&CPU_PER_KEY)),
    ("CPU ×", |line| line.multiple(&CPU_PER_KEY)),
    ("p50 µs", |line| line.figure(&P50)),
    ("p99 µs", |line| line.figure(&P99)),
    ("p99.9 µs", |line| line.figure(&P999)),
    ("refused/M", |line| line.figure(&LEASES_REFUSED)),
    ("batches/M", |line| line.figure(&BATCHES_POSTED)),
    ("client %", |line| line.client()),
    ("", |line| line.marks()),
];

/// The columns that begin at the left.
const SERVER: usize = 1;
const MARKS: usize = COLUMNS.len() - 1;

/// The most threads of the client that a line shows one by one.
const THREADS_SHOWN: usize = 8;

const LEGEND: &str = "\
ratio: keys/s of the candidate as a multiple of the baseline's, with as many workers
keys/s ×, CPU ×: multiples of the same server's figure in its first line
refused/M, batches/M: leases of shards that another worker had, and batches of work posted to shards, per million keys
client %: how busy each thread of the client was; of more than eight, the least and the most
client: a thread of the client was busy all the time, so the client may have limited the throughput
shared: server and client shared cores
";

impl Line<'_> {
    fn cell(&self) -> &Cell {
        &self.row[self.place]
    }

    fn figure(&self, figure: &Figure) -> String {
        number(self.cell().outcome.median(self.side, figure), figure.precision)
    }

    fn multiple(&self, figure: &Figure) -> String {
        number(multiple(self.row, self.place, self.side, figure), 2)
    }

    fn client(&self) -> String {
        let threads: Vec<u32> =
            self.cell().threads_busy(self.side).iter().map(|busy| (busy * 100.0).round() as u32).collect();
        match (threads.iter().min(), threads.iter().max()) {
            (Some(least), Some(most)) if threads.len() > THREADS_SHOWN => format!("{least}-{most}"),
            (None, _) | (_, None) => number(None, 0),
            _ => threads.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        }
    }

    /// Only the candidate has one.
    fn ratio(&self) -> String {
        if self.side == 0 { String::new() } else { number(self.cell().outcome.ratio(&KEYS_PER_SECOND), 2) }
    }

    fn marks(&self) -> String {
        let client = self.cell().client_is_limit(self.side).then_some("client");
        let shared = (self.cell().sharing == Sharing::Shared).then_some("shared");
        client.into_iter().chain(shared).collect::<Vec<_>>().join(", ")
    }
}

/// The texts of a table, line by line, without the titles.
fn lines(row: &[Cell]) -> Vec<[String; COLUMNS.len()]> {
    let places = (0..row.len()).flat_map(|place| (0..SIDES.len()).map(move |side| Line { row, place, side }));
    places.map(|line| COLUMNS.map(|(_, text)| text(&line))).collect()
}

/// Remarks about the cells of a table.
fn remarks(row: &[Cell]) -> Vec<String> {
    let of = |cell: &Cell| {
        cell.remarks().into_iter().map(|remark| format!("-t {}: {remark}", cell.workers)).collect::<Vec<_>>()
    };
    row.iter().flat_map(of).collect()
}

pub fn text(results: &Results<'_>) -> String {
    let mut out = String::new();
    for row in &results.rows {
        out += &text_of(row);
        out.push('\n');
    }
    out + LEGEND
}

fn text_of(row: &[Cell]) -> String {
    let lines = lines(row);
    let width = |column: usize| {
        let texts = lines.iter().map(|line| line[column].as_str()).chain([COLUMNS[column].0]);
        texts.map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let padded = |column: usize, text: &str| match column {
        SERVER | MARKS => format!("{text:<width$}", width = width(column)),
        _ => format!("{text:>width$}", width = width(column)),
    };
    let outcome = &row[0].outcome;
    let mut out = format!("{}: {}\n", outcome.name, outcome.about);
    for line in std::iter::once(&COLUMNS.map(|(title, _)| title.to_owned())).chain(&lines) {
        let texts: Vec<String> = line.iter().enumerate().map(|(column, text)| padded(column, text)).collect();
        let _ = writeln!(out, "{}", texts.join("  ").trim_end());
    }
    for remark in remarks(row) {
        let _ = writeln!(out, "{remark}");
    }
    out
}

pub fn markdown(results: &Results<'_>) -> String {
    let scale = results.scale;
    let method = format!("medians of {} rounds of {} s, alternating", scale.rounds, scale.time.as_secs_f64());
    let mut out = format!("# Scaling over cores\n\n{}", results.machine.table(&scale.programs, &method));
    let _ = writeln!(out, "| cores | {} |", scale.cores.text());
    let _ = writeln!(out, "| load | {} keys, {} connections, in a closed loop |\n", scale.keys, scale.connections);
    for line in LEGEND.lines() {
        let _ = writeln!(out, "- {line}");
    }
    for row in &results.rows {
        out += &markdown_of(row);
    }
    out
}

fn markdown_of(row: &[Cell]) -> String {
    let outcome = &row[0].outcome;
    let mut out = format!("\n## {}: {}\n\n", outcome.name, outcome.about);
    let _ = writeln!(out, "| {} |", COLUMNS.map(|(title, _)| title).join(" | "));
    let _ = writeln!(out, "|--:|---|{}---|", "--:|".repeat(COLUMNS.len() - 3));
    for line in lines(row) {
        let _ = writeln!(out, "| {} |", line.join(" | "));
    }
    let remarks: String = remarks(row).iter().map(|remark| format!("- {}\n", remark.replace('\n', " "))).collect();
    if remarks.is_empty() { out } else { out + "\n" + &remarks }
}

#[cfg(test)]
mod tests {
    use super::super::stand::Measured;
    use super::super::work;
    use super::*;
    use crate::pair::figure::{CLIENT_BUSIEST, Sample};
    use crate::pair::measure::Failure;

    /// A measurement with so many keys per second, so much CPU time per key, and such threads of the client.
    fn measured(keys: f64, cpu: f64, busy: &[f64]) -> Result<Measured, Failure> {
        let busiest = busy.iter().copied().fold(0.0, f64::max);
        let sample: Sample = vec![
            (&REQUESTS_PER_SECOND, keys),
            (&KEYS_PER_SECOND, keys),
            (&CPU_PER_KEY, cpu),
            (&P50, 10.0),
            (&P99, 20.0),
            (&P999, 30.0),
            (&LEASES_REFUSED, 7.0),
            (&CLIENT_BUSIEST, busiest),
        ];
        Ok(Measured { sample, busy: busy.to_vec() })
    }

    /// `get-1` with one worker and with two, whose client was the limit at last, and which the candidate has refused.
    fn row() -> Vec<Cell> {
        let work = work::all(1000, 64).swap_remove(0);
        let mut cells = vec![Cell::new(&work, 1, Sharing::Apart), Cell::new(&work, 2, Sharing::Shared)];
        for (keys, busy) in [(90.0, 0.1), (100.0, 0.5), (300.0, 0.6)] {
            cells[0].take(0, measured(keys, 4.0, &[busy, 0.25]));
        }
        cells[0].take(1, measured(400.0, 1.0, &[0.5; 9]));
        cells[1].take(0, measured(150.0, 6.0, &[0.5, 0.96]));
        cells[1].take(1, Err(Failure::Refused("unknown flag".into())));
        cells
    }

    #[test]
    fn a_line_for_each_server_and_number_of_workers() {
        assert_eq!(
            text_of(&row()),
            "\
get-1: get, one at a time
workers  server     requests/s  keys/s  ratio  keys/s ×  CPU µs/key  CPU ×  p50 µs  p99 µs  p99.9 µs  refused/M  batches/M  client %
      1  baseline          100     100             1.00       4.000   1.00      10      20        30          7          -     50 25
      1  candidate         400     400   4.00      1.00       1.000   1.00      10      20        30          7          -     50-50
      2  baseline          150     150             1.50       6.000   1.50      10      20        30          7          -     50 96  client, shared
      2  candidate           -       -      -         -           -      -       -       -         -          -          -         -  shared
-t 2: candidate: refused: unknown flag
"
        );
    }

    #[test]
    fn markdown_has_a_cell_for_each_column() {
        let markdown = markdown_of(&row());
        let table: Vec<&str> = markdown.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(table.len(), 2 + 4);
        assert!(table.iter().all(|line| line.matches('|').count() == COLUMNS.len() + 1), "{markdown}");
        assert!(markdown.ends_with("\n\n- -t 2: candidate: refused: unknown flag\n"), "{markdown}");
    }
}
