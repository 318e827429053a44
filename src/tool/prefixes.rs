//! `corecached prefixes`: traffic, hit rate and memory by the first part of the keys.

use super::client::Connection;
use super::columns::PREFIXES;
use super::failure::Failure;
use super::reply::{Row, Stats};
use super::show;
use super::table::{Format, Report, Table, report};
use super::target::ServerArgs;
use std::io;

/// Share of repeated misses from which a note says what helps.
const REPEATED_NOTE_PERCENT: f64 = 20.0;

/// List traffic, hit rate and memory by the prefix of keys
///
/// Lists traffic, hit rate, memory and worth by the prefix of keys (what comes before the first ":", see
/// --prefix-depth of the server). Counts are estimates from samples. Only corecached has them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What comes first
    #[arg(long, value_enum, default_value_t = Order::Traffic)]
    sort: Order,
    /// Most prefixes to list
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    servers: ServerArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Order {
    /// Most operations
    Traffic,
    /// Most memory
    Memory,
    /// Lowest hit rate
    Misses,
    /// Fewest hits for its memory: what is stored in vain
    Waste,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    report(&args.servers.targets()?, args.format, |_, connection| ask(args, connection))
}

fn ask(args: &Args, connection: &mut Connection) -> io::Result<Report> {
    match connection.stats("prefixes")? {
        None => Err(io::Error::other("it has no figures by prefix: only corecached counts them")),
        Some(stats) if stats.number("sample_mean") == Some(0.0) => {
            Err(io::Error::other("it samples nothing (--sample 0)"))
        }
        Some(stats) => Ok(sorted(args, &stats)),
    }
}

fn sorted(args: &Args, stats: &Stats) -> Report {
    let mut rows = rows(stats);
    let (field, is_rising) = match args.sort {
        Order::Traffic => ("ops_per_second", false),
        Order::Memory => ("bytes_held", false),
        Order::Misses => ("hit_percent", true),
        Order::Waste => ("hits_per_second_per_mib", true),
    };
    rows.sort_by(|one, other| {
        // Rows without the figure come last.
        let worst = if is_rising { f64::INFINITY } else { f64::NEG_INFINITY };
        let [one, other] = [one, other].map(|row| row.number(field).unwrap_or(worst));
        if is_rising { one.total_cmp(&other) } else { other.total_cmp(&one) }
    });
    rows.truncate(args.limit);
    let mut conclusion = Vec::new();
    if let Some(repeated) = stats.number("repeated_miss_percent") {
        let advice = match repeated >= REPEATED_NOTE_PERCENT {
            true => ": clients ask again for what is not there. Let them store that there is nothing, or fill it once.",
            false => ".",
        };
        conclusion.push(format!("{}% of misses repeat one of the last minute{advice}", show::percent(repeated)));
    }
    Report {
        tables: vec![Table { name: "prefixes", columns: PREFIXES, rows }],
        conclusion,
        json: stats.json(),
        ..Report::default()
    }
}

/// The rows of `stats prefixes`; row 0, all other prefixes, gets a name for people.
pub(super) fn rows(stats: &Stats) -> Vec<Row> {
    let rows = stats.rows("").into_iter().map(|(number, mut row)| {
        if number == 0 {
            row.insert("prefix", "(others)");
        }
        row
    });
    rows.collect()
}
