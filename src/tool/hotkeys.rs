//! `corecached hotkeys`: the keys with the most operations, from the server's sampler, or by watching a server that has
//! none.

use super::client::Connection;
use super::columns::{HOT_KEYS, PEAKS, WATCHED_KEYS};
use super::failure::Failure;
use super::reply::{Row, Stats};
use super::show::{self, count, span};
use super::table::{Format, Report, Table, report};
use super::target::{ServerArgs, Target};
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

/// Most different keys that are counted while watching. Further ones count as others.
const WATCHED_KEYS_MAX: usize = 1_000_000;
/// Shares above which a note says what helps.
const SHARE_NOTE_PERCENT: f64 = 10.0;

/// List the keys with the most operations
///
/// Lists the keys with the most operations, as corecached samples them all the time. Other servers are watched for some
/// seconds ("watch fetchers"), which costs them time for each get.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// List by bytes of replies: what fills the network
    #[arg(long, conflicts_with = "peaks")]
    bytes: bool,
    /// List the hottest moments of the last 15 minutes
    #[arg(long)]
    peaks: bool,
    /// How long to watch a server that does not sample
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = show::seconds)]
    seconds: Duration,
    /// Most keys to list
    #[arg(long, value_name = "N", default_value_t = 16)]
    limit: usize,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    servers: ServerArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    report(&args.servers.targets()?, args.format, |target, connection| ask(args, target, connection))
}

fn ask(args: &Args, target: &Target, connection: &mut Connection) -> io::Result<Report> {
    let which = match args {
        Args { bytes: true, .. } => "hotkeys bytes",
        Args { peaks: true, .. } => "hotkeys peaks",
        _ => "hotkeys",
    };
    match connection.stats(which)? {
        Some(stats) if stats.number("sample_mean") == Some(0.0) => {
            Err(io::Error::other("it samples nothing (--sample 0)"))
        }
        Some(stats) => Ok(sampled(args, &stats)),
        None if args.bytes || args.peaks => {
            Err(io::Error::other("it samples no keys, so --bytes and --peaks have no answer"))
        }
        None => watch(args, target, connection),
    }
}

fn sampled(args: &Args, stats: &Stats) -> Report {
    let mut rows: Vec<Row> = stats.rows("").into_iter().map(|(_, row)| row).collect();
    rows.truncate(args.limit);
    let mut introduction = Vec::new();
    if let (Some(samples), Some(seconds)) = (stats.number("samples"), stats.number("window_seconds")) {
        let rate = show::or_nothing(stats.number("operations_per_second"), count);
        introduction.push(format!("{} samples in {}, {rate} operations a second", count(samples), span(seconds)));
    }
    let mut conclusion = Vec::new();
    if rows.is_empty() {
        conclusion.push("No key stands out.".into());
    }
    if !args.peaks && !args.bytes {
        conclusion.extend(advice(&rows));
    }
    let columns = if args.peaks { PEAKS } else { HOT_KEYS };
    Report { introduction, tables: tables(columns, rows), conclusion, json: stats.json() }
}

fn tables(columns: &'static [super::columns::Column], rows: Vec<Row>) -> Vec<Table> {
    if rows.is_empty() { Vec::new() } else { vec![Table { name: "keys", columns, rows }] }
}

/// What helps against a key that is too hot.
fn advice(rows: &[Row]) -> Option<String> {
    let hottest = rows.iter().filter_map(|row| row.number("share_percent")).fold(0.0, f64::max);
    (hottest >= SHARE_NOTE_PERCENT).then(|| {
        format!(
            "A key with {}% of all operations keeps one shard busy. Clients that keep it for a second, or copies under \
             several names, spread its load.",
            show::percent(hottest)
        )
    })
}

/// The gets of a key while the server was watched.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    gets: u64,
    hits: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Tally {
    keys: HashMap<String, Watched>,
    gets: u64,
    skipped: u64,
}

fn watch(args: &Args, target: &Target, connection: &mut Connection) -> io::Result<Report> {
    eprintln!(
        "corecached: {} does not sample its keys: watching its gets for {}, which slows it down meanwhile",
        target.name,
        span(args.seconds.as_secs_f64())
    );
    match connection.ask("watch fetchers")?.as_str() {
        "OK" => {}
        other => return Err(io::Error::other(format!("to \"watch fetchers\" it says \"{other}\""))),
    }
    let start = Instant::now();
    connection.wait_until(start + args.seconds);
    let mut tally = Tally::default();
    loop {
        match connection.line() {
            Ok(line) => tally.count(&line),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => break,
            Err(error) => return Err(error),
        }
        // A server that always has a line ready would never reach the time-out.
        if start.elapsed() >= args.seconds {
            break;
        }
    }
    if tally.skipped > 0 {
        eprintln!(
            "corecached: {} left out {} lines, because they came faster than it sends them: rates are too low, shares \
             are right",
            target.name, tally.skipped
        );
    }
    Ok(tally.report(start.elapsed().as_secs_f64(), args.limit))
}

impl Tally {
    /// Counts a line of the watcher: `ts=… type=item_get key=… status=found … size=…`, or `skipped=…`.
    fn count(&mut self, line: &str) {
        let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        if let Some(skipped) = field("skipped").and_then(|count| count.parse::<u64>().ok()) {
            self.skipped += skipped;
        }
        let (Some("item_get"), Some(key)) = (field("type"), field("key")) else { return };
        self.gets += 1;
        if self.keys.len() >= WATCHED_KEYS_MAX && !self.keys.contains_key(key) {
            return;
        }
        let counted = self.keys.entry(key.to_owned()).or_default();
        counted.gets += 1;
        counted.hits += u64::from(field("status") == Some("found"));
        counted.bytes += field("size").and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
    }

    fn report(self, seconds: f64, limit: usize) -> Report {
        let mut keys: Vec<(String, Watched)> = self.keys.into_iter().collect();
        keys.sort_by(|(key, one), (other_key, other)| other.gets.cmp(&one.gets).then_with(|| key.cmp(other_key)));
        let row = |(key, counted): (String, Watched)| {
            let mut row = Row::default();
            row.insert("key", &key);
            row.set("ops_per_second", counted.gets as f64 / seconds);
            row.set("share_percent", 100.0 * counted.gets as f64 / self.gets as f64);
            row.set("hit_percent", 100.0 * counted.hits as f64 / counted.gets as f64);
            row.set("bytes_per_second", counted.bytes as f64 / seconds);
            row
        };
        let rows: Vec<Row> = keys.into_iter().take(limit).map(row).collect();
        let introduction = vec![format!("{} gets watched in {}", count(self.gets as f64), span(seconds))];
        let conclusion =
            if rows.is_empty() { vec!["No get was seen.".into()] } else { advice(&rows).into_iter().collect() };
        let json = [("window_seconds", seconds.into()), ("gets", self.gets.into()), ("skipped", self.skipped.into())];
        let json = json.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        Report { introduction, tables: tables(WATCHED_KEYS, rows), conclusion, json }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_watcher_are_counted_by_key() {
        let mut tally = Tally::default();
        for line in [
            "ts=1.5 gid=2 type=item_get key=foo%3Aa status=found clsid=1 cfd=29 size=300",
            "ts=1.5 gid=3 type=item_get key=foo%3Aa status=not_found clsid=0 cfd=29 size=0",
            "ts=1.5 gid=3 type=item_get key=b status=found clsid=0 cfd=29 size=10",
            "ts=1.5 gid=4 type=conn_new rip=unix rport=0 transport=unix cfd=1",
            "skipped=12",
        ] {
            tally.count(line);
        }
        assert_eq!((tally.gets, tally.skipped), (3, 12));
        let report = tally.report(2.0, 1);
        let rows = &report.tables[0].rows;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].text("key"), Some("foo%3Aa"));
        assert_eq!(rows[0].number("ops_per_second"), Some(1.0));
        assert_eq!(rows[0].number("hit_percent"), Some(50.0));
        assert_eq!(rows[0].number("bytes_per_second"), Some(150.0));
        assert!(report.conclusion[0].starts_with("A key with 66.7% of all operations"));
    }
}
