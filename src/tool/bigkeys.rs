//! `corecached bigkeys`: the largest values, from the server's own list, or by reading the list of all items.

use super::client::Connection;
use super::columns::{BIG_KEYS, Column, SCANNED_KEYS};
use super::failure::Failure;
use super::reply::{Row, Stats};
use super::show::{bytes, count};
use super::table::{Format, Report, Table, report};
use super::target::ServerArgs;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// List the largest values
///
/// Lists the largest values. corecached keeps a list of values of at least 64 KiB; for other servers, and with --scan,
/// this reads the list of all items ("lru_crawler metadump all"), where sizes include key and header.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Read the list of all items, also of a server that keeps a list of large ones
    #[arg(long)]
    scan: bool,
    /// Most keys to list
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    servers: ServerArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let targets = args.servers.targets()?;
    let limit = args.limit as usize;
    report(&targets, args.format, |target, connection| {
        match if args.scan { None } else { connection.stats("bigkeys")? } {
            Some(stats) => Ok(kept(&stats, limit)),
            None => scan(connection, limit, target.timeout),
        }
    })
}

fn kept(stats: &Stats, limit: usize) -> Report {
    let mut rows: Vec<Row> = stats.rows("").into_iter().map(|(_, row)| row).collect();
    rows.truncate(limit);
    let conclusion = match rows.is_empty() {
        true => vec!["No value of 64 KiB or more was stored. --scan reads the list of all items.".into()],
        false => Vec::new(),
    };
    Report { tables: tables(BIG_KEYS, rows), conclusion, json: stats.json(), ..Report::default() }
}

fn tables(columns: &'static [Column], rows: Vec<Row>) -> Vec<Table> {
    if rows.is_empty() { Vec::new() } else { vec![Table { name: "keys", columns, rows }] }
}

/// The largest items seen so far: a heap with the smallest of them on top.
#[derive(Debug, Default)]
struct Largest {
    heap: BinaryHeap<Reverse<(u64, String)>>,
    items: u64,
    bytes: u64,
}

fn scan(connection: &mut Connection, limit: usize, patience: Duration) -> io::Result<Report> {
    let mut largest = Largest::default();
    connection.send("lru_crawler metadump all")?;
    loop {
        // Each line has as long as an answer, for a large cache takes its time.
        connection.wait_until(Instant::now() + patience);
        let line = connection.line()?;
        match line.as_str() {
            "END" => break,
            "OK" => {}
            _ if line.starts_with("key=") => largest.add(&line, limit),
            _ => return Err(io::Error::other(format!("to \"lru_crawler metadump all\" it says \"{line}\""))),
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    Ok(largest.report(now))
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

impl Largest {
    /// Counts a line of the list: `key=a exp=-1 la=1795835473 cas=2 fetch=yes cls=1 size=67`.
    fn add(&mut self, line: &str, limit: usize) {
        let size = field(line, "size").and_then(|size| size.parse().ok()).unwrap_or(0);
        self.items += 1;
        self.bytes += size;
        let is_large = self.heap.len() < limit || self.heap.peek().is_some_and(|Reverse((least, _))| size > *least);
        if is_large {
            self.heap.push(Reverse((size, line.to_owned())));
            if self.heap.len() > limit {
                self.heap.pop();
            }
        }
    }

    fn report(self, now: f64) -> Report {
        let row = |Reverse((size, line)): Reverse<(u64, String)>| {
            let number = |name| field(&line, name).and_then(|value| value.parse::<f64>().ok());
            let mut row = Row::default();
            row.insert("key", field(&line, "key").unwrap_or_default());
            row.set("bytes", size as f64);
            if let Some(access) = number("la") {
                row.set("idle_seconds", (now - access).max(0.0).round());
            }
            if let Some(expiry) = number("exp").filter(|expiry| *expiry > 0.0) {
                row.set("expires_in_seconds", (expiry - now).max(0.0).round());
            }
            if let Some(class) = number("cls") {
                row.set("class", class);
            }
            row
        };
        // Sorted from the least `Reverse`, which is the largest size.
        let rows: Vec<Row> = self.heap.into_sorted_vec().into_iter().map(row).collect();
        let introduction = vec![format!("{} items of {} together", count(self.items as f64), bytes(self.bytes as f64))];
        let json = [("items".to_owned(), self.items.into()), ("item_bytes".to_owned(), self.bytes.into())];
        Report {
            introduction,
            tables: tables(SCANNED_KEYS, rows),
            conclusion: Vec::new(),
            json: json.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_keeps_the_largest_items() {
        let mut largest = Largest::default();
        for (key, size) in [("a", 70), ("b", 900), ("c", 10), ("d", 500), ("e", 80)] {
            let exp = if key == "d" { 1100 } else { -1 };
            largest.add(&format!("key={key} exp={exp} la=940 cas=2 fetch=yes cls=3 size={size} flags=0 "), 2);
        }
        let report = largest.report(1000.0);
        let rows = &report.tables[0].rows;
        assert_eq!(rows.iter().map(|row| row.text("key").unwrap_or_default()).collect::<Vec<_>>(), ["b", "d"]);
        assert_eq!((rows[0].number("idle_seconds"), rows[0].number("expires_in_seconds")), (Some(60.0), None));
        assert_eq!(rows[1].number("expires_in_seconds"), Some(100.0));
        assert_eq!(report.introduction, ["5 items of 1.5K together"]);
    }
}
