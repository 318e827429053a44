//! `corecached latency`: round trips from here, beside the server's own latencies: how much of it is the network?

use super::client::Connection;
use super::columns::LATENCIES;
use super::failure::Failure;
use super::histogram::Latency;
use super::reply::{Row, Stats};
use super::show::{self, micros};
use super::table::{Format, Report, Table, report};
use super::target::ServerArgs;
use std::io;
use std::time::{Duration, Instant};

/// Pause between two round trips, so that measuring is no load.
const PAUSE: Duration = Duration::from_millis(1);
/// The kind of operation that counts `mn`.
const KIND_OF_PING: &str = "other";
const SHARES: [(&str, f64); 4] = [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999)];

/// Measure round trips from here, beside the server's own latencies
///
/// Measures round trips from here ("mn", the shortest request), and shows them beside the latencies that the server
/// itself has recorded since its start: from the last byte of a request read to its reply written. The difference is the
/// network, the kernels, and this program.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = show::seconds)]
    seconds: Duration,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    servers: ServerArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    report(&args.servers.targets()?, args.format, |_, connection| ask(args, connection))
}

fn ask(args: &Args, connection: &mut Connection) -> io::Result<Report> {
    let before = histograms(connection)?;
    let trips = round_trips(connection, args.seconds)?;
    let after = histograms(connection)?;
    let own = connection.stats("latency")?;
    let during = after.map(|after| before.map_or(after.clone(), |before| after.since(&before)));
    Ok(findings(&trips, during.as_ref(), own.as_ref()))
}

fn histograms(connection: &mut Connection) -> io::Result<Option<Latency>> {
    Ok(connection.stats("latency histogram")?.map(|stats| Latency::from_stats(&stats)))
}

/// Times of round trips in microseconds, in rising order; at least one.
fn round_trips(connection: &mut Connection, time: Duration) -> io::Result<Vec<f64>> {
    // The first one finds out what the server answers to.
    connection.ping()?;
    let start = Instant::now();
    let mut trips = Vec::new();
    while trips.is_empty() || start.elapsed() < time {
        trips.push(connection.ping()?.as_secs_f64() * 1e6);
        std::thread::sleep(PAUSE);
    }
    trips.sort_by(f64::total_cmp);
    Ok(trips)
}

/// The value of a sorted list that this share of it does not exceed.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// `trips`: sorted. `during`: the server's histograms while we measured. `own`: its `stats latency`.
fn findings(trips: &[f64], during: Option<&Latency>, own: Option<&Stats>) -> Report {
    let mut here = Row::default();
    here.insert("what", "round trip from here");
    here.set("count", trips.len() as f64);
    SHARES.iter().for_each(|(field, share)| here.set(field, percentile(trips, *share)));
    here.set("max_us", percentile(trips, 1.0));
    let mut rows = vec![here];
    let pings = during.and_then(|during| during.kind(KIND_OF_PING)).filter(|pings| pings.count() > 0);
    if let Some(pings) = pings {
        let mut row = Row::default();
        row.insert("what", "of these, inside the server");
        row.set("count", pings.count() as f64);
        SHARES.iter().for_each(|(field, share)| row.set(field, pings.percentile(*share).unwrap_or(0.0)));
        rows.push(row);
    }
    rows.extend(own.map(since_start).unwrap_or_default());
    let median = percentile(trips, 0.5);
    let inside = pings.and_then(|pings| pings.percentile(0.5)).map(|inside| inside.min(median));
    let conclusion = match inside {
        Some(inside) => format!(
            "Of a median round trip of {}, the server takes {}; the other {} ({:.0}%) are network, kernels and this program.",
            micros(median),
            micros(inside),
            micros(median - inside),
            100.0 * (median - inside) / median.max(f64::MIN_POSITIVE)
        ),
        None => "The server has no latencies of its own, so which part is the network cannot be said.".to_owned(),
    };
    let network = inside.map(|inside| median - inside);
    Report {
        tables: vec![Table { name: "latencies", columns: LATENCIES, rows }],
        conclusion: vec![conclusion],
        json: [("median_outside_server_us".to_owned(), network.into())].into_iter().collect(),
        ..Report::default()
    }
}

/// The rows of `stats latency`, in which each kind has its fields after its name.
fn since_start(own: &Stats) -> Vec<Row> {
    const FIELDS: [&str; 6] = ["count", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"];
    let kinds = ["get_hit", "get_miss", "set", "delete", "arithmetic", "touch", "other", "wait", "turn"];
    let row = |kind: &str| {
        own.number(&format!("{kind}_count")).filter(|count| *count > 0.0)?;
        let mut row = Row::default();
        let what = match kind {
            "wait" => "server: wait, from ready to read",
            "turn" => "server: a turn of its loop",
            _ => kind,
        };
        let what = if what == kind { format!("server: {}", kind.replace('_', " ")) } else { what.to_owned() };
        row.insert("what", &what);
        for field in FIELDS {
            if let Some(value) = own.text(&format!("{kind}_{field}")) {
                row.insert(field, value);
            }
        }
        Some(row)
    };
    kinds.into_iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool::recorded;

    #[test]
    fn the_network_is_what_the_server_does_not_take() {
        let trips: Vec<f64> = (1..=100).map(f64::from).collect();
        let during =
            Latency::from_stats(&Stats::from_text("STAT other:le_4 0\nSTAT other:le_8 10\nSTAT other:le_inf 10\n"));
        let report = findings(&trips, Some(&during), Some(&Stats::from_text(recorded::LATENCY)));
        // 10 requests of 5 to 8 µs: the median is 6 µs.
        assert_eq!(
            report.conclusion,
            [
                "Of a median round trip of 50µs, the server takes 6.0µs; the other 44µs (88%) are network, kernels and this \
              program."
            ]
        );
        let rows = &report.tables[0].rows;
        assert_eq!(rows[0].number("p99_us"), Some(99.0));
        assert_eq!(rows[1].number("count"), Some(10.0));
        assert_eq!(rows[2].text("what"), Some("server: get hit"));
        assert_eq!(report.json["median_outside_server_us"], 44.0);
    }

    #[test]
    fn a_server_without_latencies_leaves_the_question_open() {
        let report = findings(&[1.0], None, None);
        assert_eq!(report.tables[0].rows.len(), 1);
        assert!(report.conclusion[0].starts_with("The server has no latencies"));
        assert!(report.json["median_outside_server_us"].is_null());
    }
}
