//! `corecached stat`: a line for each interval, as vmstat prints it.

use super::client::Connection;
use super::failure::{Failure, in_words};
use super::figures::{Ask, Rates, Snapshot};
use super::show::{self, bytes, count, micros, or_nothing, percent};
use super::table::Style;
use super::target::{ServerArgs, Target};
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Lines between two headers.
const HEADER_EVERY: u64 = 20;

/// Print a line a second with rates and latencies, as vmstat does
///
/// Prints a line after each interval: operations, gets and sets per second, percent of gets that hit, median and 99th
/// percentile of the server's own latency, evictions per second, memory of items, connections, bytes in and out per
/// second, and CPU time in percent of one CPU. Servers without latencies show "-" there.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  corecached stat            a line a second\n  corecached stat 10 6       six lines, one \
    in ten seconds\n  corecached stat --server a:11211,b:11211"
)]
pub(super) struct Args {
    /// Length of an interval
    #[arg(value_name = "SECONDS", default_value = "1", value_parser = show::seconds)]
    interval: Duration,
    /// Number of lines of each server [default: no end]
    #[arg(value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    servers: ServerArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let targets = args.servers.targets()?;
    let mut watched: Vec<Watched> = targets.into_iter().map(Watched::new).collect();
    let name_width = match &watched[..] {
        [_] => 0,
        many => many.iter().map(|one| one.target.name.chars().count()).max().unwrap_or(0).max("server".len()),
    };
    let mut at = Instant::now();
    for one in &mut watched {
        one.last = one.take();
    }
    // A server that does not answer at the start is a mistake of the caller. Later it may come back.
    if watched.iter().all(|one| one.last.is_none()) {
        return Err(Failure::Reported);
    }
    let style = Style::of_stdout();
    let lines_each = args.count.unwrap_or(u64::MAX);
    let mut until_header = 0;
    for _ in 0..lines_each {
        at += args.interval;
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if until_header == 0 {
            writeln!(io::stdout(), "{}", style.title(&header(name_width)))?;
            until_header = HEADER_EVERY.div_ceil(watched.len() as u64);
        }
        until_header -= 1;
        for one in &mut watched {
            if let Some(rates) = one.next() {
                writeln!(io::stdout(), "{}", line(&one.target.name, name_width, &rates))?;
            }
        }
    }
    // A server that is gone at the end fails the command.
    if watched.iter().any(|one| one.last.is_none()) { Err(Failure::Reported) } else { Ok(()) }
}

/// A server, and what it said last.
#[derive(Debug)]
struct Watched {
    target: Target,
    connection: Option<Connection>,
    last: Option<Snapshot>,
}

impl Watched {
    fn new(target: Target) -> Watched {
        Watched { target, connection: None, last: None }
    }

    /// What happened since the last call, or `None` if the server did not answer now or then.
    fn next(&mut self) -> Option<Rates> {
        let now = self.take();
        let rates = self.last.as_ref().zip(now.as_ref()).map(|(before, now)| Rates::between(before, now));
        self.last = now;
        rates
    }

    fn take(&mut self) -> Option<Snapshot> {
        match self.try_take() {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                self.connection = None;
                eprintln!("corecached: {}: {}", self.target.name, in_words(&error));
                None
            }
        }
    }

    fn try_take(&mut self) -> io::Result<Snapshot> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.target)?),
        };
        // A server that had no latencies a second ago has none now, unless it is another one.
        let has_none = self.last.as_ref().is_some_and(|last| last.latency.is_none());
        Snapshot::take(connection, if has_none { Ask::NoLatency } else { Ask::All })
    }
}

const WIDTHS: [usize; 12] = [7, 7, 7, 6, 6, 6, 9, 6, 6, 7, 7, 6];

fn header(name_width: usize) -> String {
    let titles = ["ops/s", "get/s", "set/s", "hit%", "p50", "p99", "evict/s", "mem", "conn", "in/s", "out/s", "cpu%"];
    row("server", name_width, titles.map(str::to_owned))
}

fn line(name: &str, name_width: usize, rates: &Rates) -> String {
    let cells = [
        count(rates.operations),
        count(rates.gets),
        count(rates.sets),
        or_nothing(rates.hit_percent, percent),
        or_nothing(rates.percentile(0.5), micros),
        or_nothing(rates.percentile(0.99), micros),
        count(rates.evictions),
        bytes(rates.memory_bytes),
        count(rates.connections),
        bytes(rates.bytes_in),
        bytes(rates.bytes_out),
        format!("{:.0}", rates.cpu_percent),
    ];
    row(name, name_width, cells)
}

fn row(name: &str, name_width: usize, cells: [String; 12]) -> String {
    let cells: String = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:>width$}")).collect();
    if name_width > 0 { format!("{name:name_width$}{cells}") } else { cells }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_stand_under_the_header_and_fit_80_columns() {
        let rates = Rates {
            operations: 1234.0,
            hit_percent: Some(98.76),
            memory_bytes: 67108864.0,
            cpu_percent: 31.2,
            ..Rates::default()
        };
        assert_eq!(
            format!("{}\n{}", header(0), line("a", 0, &rates)),
            "  ops/s  get/s  set/s  hit%   p50   p99  evict/s   mem  conn   in/s  out/s  cpu%\n   \
             1.2k      0      0  98.8     -     -        0   64M     0      0      0    31"
        );
        assert!(header(0).chars().count() <= 80);
        assert!(line("a", 6, &rates).starts_with("a        1.2k"));
    }
}
