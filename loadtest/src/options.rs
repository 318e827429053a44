//! The command line, and what it means: options become a [`Plan`] once, and are not seen again.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::address::Address;
use crate::compare::sets::Set;
use crate::compare::{Comparison, Row};
use crate::cpus::Cpus;
use crate::plan::{Limit, Plan};
use crate::preset::Preset;
use crate::replay::{self, Column, Generated, Replay, ZipfScan};
use crate::workload::{Popularity, Protocol, Workload};

/// The largest value that is made: a gigabyte, as no memcached takes more.
const VALUE_SIZE_MAX: usize = 1 << 30;

/// Requests of a generated trace.
const GENERATED_DEFAULT: u64 = 2_000_000;

/// Load generator for memcached-protocol servers.
#[derive(Parser)]
#[command(version, max_term_width = 120)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Put load on a server and report throughput, hit rate and latency
    Run(RunOptions),
    /// Run the same workloads against two servers in turn, each freshly started on the same cores
    Compare(CompareOptions),
    /// Ask for the keys of a trace, set those that are missing, and report the miss ratio
    Replay(ReplayOptions),
}

#[derive(Args)]
pub struct RunOptions {
    /// host[:port], or the path of a unix socket (anything with a slash); of several, separated by commas, each has its
    /// share of connections and keys
    #[arg(long, short, value_name = "ADDRESS", default_value = "127.0.0.1:11211", value_delimiter = ',')]
    server: Vec<String>,

    /// Client threads; the connections are spread over them
    #[arg(long, short, value_name = "N", default_value_t = 1)]
    threads: usize,

    /// Connections, all threads together [default: 50]
    #[arg(long, short, value_name = "N")]
    connections: Option<usize>,

    /// Requests in flight per connection: sent in one write, the next when all are answered [default: 1]
    #[arg(long, short, value_name = "N")]
    pipeline: Option<usize>,

    /// Keys per get [default: 1]
    #[arg(long, value_name = "N")]
    keys_per_get: Option<usize>,

    /// Gets to sets, such as 9:1, 1:0 or 0:1 [default: 9:1]
    #[arg(long, value_name = "GET:SET")]
    ratio: Option<Ratio>,

    /// get and set, or mg and ms [default: classic]
    #[arg(long, value_name = "NAME")]
    protocol: Option<Protocol>,

    /// Number of keys [default: 100000]
    #[arg(long, short, value_name = "N")]
    keys: Option<u64>,

    /// uniform, zipf, zipf:EXPONENT (0.99 if left out) or sequential [default: uniform]
    #[arg(long, value_name = "NAME")]
    distribution: Option<Popularity>,

    /// Bytes of every key [default: 25]
    #[arg(long, value_name = "BYTES")]
    key_size: Option<usize>,

    /// Bytes of the values: 32, or 10-200 for lengths spread evenly between the two [default: 32]
    #[arg(long, value_name = "BYTES")]
    value_size: Option<SizeRange>,

    /// A production workload: key and value size, ratio, TTLs and distribution (`--preset list` shows them)
    #[arg(long, value_name = "clusterN")]
    preset: Option<String>,

    /// Seconds until a key expires (from 30 days on a Unix time), 0 for never; or a weighted choice such as 60:0.7,3600:0.3 [default: 0]
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<Ttls>,

    /// Set every key once before the measured part
    #[arg(long)]
    prefill: bool,

    /// Requests per second over all connections, with latency from the time each was due; sets by --cache-aside come
    /// on top. As fast as replies come if left out
    #[arg(long, short, value_name = "N")]
    rate: Option<Rate>,

    /// Length of the measured part [default: 10]
    #[arg(long, value_name = "SECONDS", conflicts_with = "count")]
    time: Option<Seconds>,

    /// End after so many requests instead
    #[arg(long, short = 'n', value_name = "REQUESTS")]
    count: Option<u64>,

    /// Set the keys that a get did not find
    #[arg(long)]
    cache_aside: bool,

    /// Start of all random numbers, and of the values [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Cores for the client threads, one each, such as 1 or 2,4-7
    #[arg(long, value_name = "LIST")]
    pin_cpus: Option<Cpus>,

    /// Check every byte of every value (it must have been set with the same seed and sizes)
    #[arg(long)]
    verify: bool,

    /// Open lost connections again, and go on
    #[arg(long)]
    reconnect: bool,

    /// Connections that are opened besides, and send nothing
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle_connections: usize,

    /// A server that is silent for so long, with requests in flight, has failed
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    patience: Seconds,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// No progress line
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Args)]
pub struct CompareOptions {
    /// Command that starts the one server. `-p PORT` is appended, and the -t, -m and -c that a row is about (see --list):
    /// they go over those in the command
    #[arg(long, value_name = "COMMAND", default_value = "memcached -u root -U 0 -t 1 -m 1024")]
    baseline: String,

    /// Command that starts the other, in the same way
    #[arg(long, value_name = "COMMAND", required_unless_present = "list")]
    candidate: Option<String>,

    /// Set of workloads, may be repeated [default: canonical]
    #[arg(long, value_name = "NAME", value_enum)]
    set: Vec<Set>,

    /// Workload of the set to run, may be repeated [default: all]
    #[arg(long, short, value_name = "NAME")]
    workload: Vec<String>,

    /// Show the workloads of the sets given with --set, or of all
    #[arg(long)]
    list: bool,

    /// Number of keys in the canonical set
    #[arg(long, short, value_name = "N", default_value_t = 100_000)]
    keys: u64,

    /// Leave out the rows of `growth` with more keys
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    keys_max: u64,

    /// Measurements of each server for each row, in turn. Servers are started anew for each, unless what they must hold
    /// first is costly: then both live on, and take turns. (Memory is measured once.)
    #[arg(long, short, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Length of each measurement
    #[arg(long, value_name = "SECONDS", default_value = "3")]
    seconds: Seconds,

    /// Cores for the server
    #[arg(long, value_name = "LIST", default_value = "0")]
    server_cpus: Cpus,

    /// Cores for the client, one thread each
    #[arg(long, value_name = "LIST", default_value = "1")]
    client_cpus: Cpus,

    /// Also write the tables to this file, as markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,

    /// Also write plots into this directory, as SVG
    #[arg(long, value_name = "DIRECTORY")]
    pub plots: Option<PathBuf>,

    /// Print one JSON object, with every round
    #[arg(long)]
    pub json: bool,

    /// No progress on the terminal
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Args)]
pub struct ReplayOptions {
    /// The trace: ARC's lines of `first count 0 sequence`, or with --key-column a CSV file; name.zst is decompressed by
    /// the program zstd
    #[arg(value_name = "FILE", required_unless_present = "generate", conflicts_with = "generate")]
    file: Option<PathBuf>,

    /// Where to replay it
    #[arg(long, short, value_name = "HOST:PORT", default_value = "127.0.0.1:11211")]
    server: String,

    /// Column of the key, by its name in the first line or by its number from 1 (then there is no such line)
    #[arg(long, value_name = "COLUMN")]
    key_column: Option<Column>,

    /// Column of the value's bytes
    #[arg(long, value_name = "COLUMN", requires = "key_column")]
    size_column: Option<Column>,

    /// Bytes of values whose size the trace does not tell
    #[arg(long, value_name = "BYTES", default_value_t = 32)]
    value_size: usize,

    /// Bytes of the keys of ARC and generated traces, with zeros in front
    #[arg(long, value_name = "BYTES", default_value_t = 25, value_parser = clap::value_parser!(u8).range(20..=250))]
    key_size: u8,

    /// Gets in flight, on one connection; sets of what was missing follow, in order, when all are answered. A batch ends
    /// early at a key that it already has; 1 is the trace to the letter
    #[arg(long, short, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pipeline: u16,

    /// End after so many requests [default: all; 2000000 of a generated trace]
    #[arg(long, short = 'n', value_name = "REQUESTS")]
    count: Option<u64>,

    /// Make the trace instead of reading it
    #[arg(long, value_name = "NAME", value_enum)]
    generate: Option<Generated>,

    /// Keys of a generated working set
    #[arg(long, short, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    keys: u64,

    /// Zipf exponent of a generated working set
    #[arg(long, value_name = "EXPONENT", default_value_t = 0.99)]
    zipf: f64,

    /// Length of a generated scan, and of the requests between two of them; 0 for none [default: as --keys]
    #[arg(long, value_name = "REQUESTS")]
    scan: Option<u64>,

    /// Start of all random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl RunOptions {
    /// Text to print instead of running, if that is what was asked for.
    pub fn listing(&self) -> Option<String> {
        (self.preset.as_deref() == Some("list"))
            .then(|| Preset::all().iter().map(|preset| format!("{:<10} {}\n", preset.name, preset.about)).collect())
    }

    /// The plan that these options describe. Finds the server.
    pub fn plan(self) -> Result<Plan, String> {
        let mut workload = Workload::default();
        if let Some(name) = &self.preset {
            Preset::find(name)?.apply(&mut workload);
        }
        self.apply(&mut workload);
        for (name, number) in [
            ("--pipeline", workload.pipeline),
            ("--keys-per-get", workload.keys_per_get),
            ("--connections", workload.connections),
            ("--threads", self.threads),
        ] {
            if number == 0 {
                return Err(format!("{name} must be at least 1"));
            }
        }
        let limit = match self.count {
            Some(count) => Limit::Count(count),
            None => Limit::Time(self.time.map_or(Duration::from_secs(10), |time| time.0)),
        };
        let addresses: Result<Vec<Address>, String> = self.server.iter().map(|server| Address::find(server)).collect();
        Ok(Plan {
            threads: self.threads,
            cpus: self.pin_cpus,
            prefill: if self.prefill { workload.keys } else { 0 },
            rate: self.rate.map(|rate| rate.0),
            verify: self.verify,
            reconnect: self.reconnect,
            idle_connections: self.idle_connections,
            patience: self.patience.0,
            ..Plan::new(addresses?, workload, limit)
        })
    }
}

impl RunOptions {
    /// Explicit options go over defaults and preset.
    fn apply(&self, workload: &mut Workload) {
        fn set<T>(field: &mut T, option: Option<T>) {
            if let Some(value) = option {
                *field = value;
            }
        }
        set(&mut workload.protocol, self.protocol);
        set(&mut workload.get, self.ratio.as_ref().map(|ratio| ratio.get));
        set(&mut workload.set, self.ratio.as_ref().map(|ratio| ratio.set));
        set(&mut workload.keys_per_get, self.keys_per_get);
        set(&mut workload.pipeline, self.pipeline);
        set(&mut workload.connections, self.connections);
        set(&mut workload.keys, self.keys);
        set(&mut workload.key_size, self.key_size);
        set(&mut workload.value_size, self.value_size.as_ref().map(|size| (size.min, size.max)));
        set(&mut workload.popularity, self.distribution);
        set(&mut workload.ttls, self.ttl.as_ref().map(|ttls| ttls.0.clone()));
        set(&mut workload.seed, self.seed);
        workload.cache_aside = self.cache_aside;
    }
}

impl CompareOptions {
    /// Text to print instead of running, if that is what was asked for.
    pub fn listing(&self) -> Option<String> {
        let line = |(set, row): (Set, Row)| {
            let targets: String =
                row.targets.iter().map(|(figure, bound)| format!("; {} {bound}", figure.name)).collect();
            format!("{:<11} {:<17} {}{targets}\n", set.name(), row.name, row.about())
        };
        self.list.then(|| self.rows(Set::All).into_iter().map(line).collect())
    }

    /// The rows of the sets, those of `default` if none is given, without what is left out.
    fn rows(&self, default: Set) -> Vec<(Set, Row)> {
        let wanted = if self.set.is_empty() { &[default] } else { self.set.as_slice() };
        let sets: Vec<Set> = wanted.iter().flat_map(|set| set.each()).collect();
        let rows = |set: &Set| set.rows(self.keys).into_iter().map(|row| (*set, row)).collect::<Vec<_>>();
        let mut rows: Vec<(Set, Row)> = sets.iter().flat_map(rows).collect();
        rows.retain(|(set, row)| *set != Set::Growth || row.keys() <= self.keys_max);
        rows
    }

    /// The comparison that these options describe.
    pub fn comparison(self) -> Result<Comparison, String> {
        let mut rows = self.rows(Set::Canonical);
        if let Some(unknown) = self.workload.iter().find(|name| rows.iter().all(|(_, row)| row.name != **name)) {
            return Err(format!("no workload \"{unknown}\" (see --list)"));
        }
        rows.retain(|(_, row)| self.workload.is_empty() || self.workload.contains(&row.name));
        Ok(Comparison {
            commands: [self.baseline, self.candidate.ok_or("no candidate")?],
            rows,
            rounds: self.rounds,
            time: self.seconds.0,
            server_cpus: self.server_cpus,
            client_cpus: self.client_cpus,
            quiet: self.quiet,
        })
    }
}

impl ReplayOptions {
    /// The replay that these options describe. Opens the trace.
    pub fn replay(self) -> Result<Replay, String> {
        if self.value_size > VALUE_SIZE_MAX || !(0.0..=20.0).contains(&self.zipf) {
            return Err(format!("values have up to {VALUE_SIZE_MAX} bytes, and exponents are from 0 to 20"));
        }
        let key_size = usize::from(self.key_size);
        let requests = match (self.generate, &self.file, &self.key_column) {
            (Some(Generated::ZipfScan), ..) => {
                let scan = ZipfScan {
                    requests: self.count.unwrap_or(GENERATED_DEFAULT).min(1 << 40),
                    keys: self.keys,
                    exponent: self.zipf,
                    scan: self.scan.unwrap_or(self.keys),
                    key_size,
                    seed: self.seed,
                };
                scan.requests()?
            }
            (None, None, _) => return Err("no trace".into()),
            (None, Some(file), None) => replay::arc(replay::open(file)?, key_size),
            (None, Some(file), Some(key)) => replay::csv(replay::open(file)?, key, self.size_column.as_ref())?,
        };
        let count = self.count.map_or(usize::MAX, |count| count as usize);
        Ok(Replay {
            server: self.server,
            requests: Box::new(requests.take(count)),
            value_size: self.value_size,
            pipeline: usize::from(self.pipeline),
        })
    }
}

/// Gets to sets, not both 0.
#[derive(Clone, Debug, PartialEq)]
struct Ratio {
    get: u32,
    set: u32,
}

impl FromStr for Ratio {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Ratio, &'static str> {
        let parts = text.split_once(':').and_then(|(get, set)| Some((get.parse().ok()?, set.parse().ok()?)));
        match parts {
            Some((0, 0)) => Err("one of the two must be more than 0"),
            Some((get, set)) => Ok(Ratio { get, set }),
            None => Err("expected gets to sets, such as 9:1"),
        }
    }
}

/// Smallest and largest size.
#[derive(Clone, Debug, PartialEq)]
struct SizeRange {
    min: usize,
    max: usize,
}

impl FromStr for SizeRange {
    type Err = String;

    fn from_str(text: &str) -> Result<SizeRange, String> {
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        match (min.parse(), max.parse()) {
            (Ok(min), Ok(max)) if min <= max && max <= VALUE_SIZE_MAX => Ok(SizeRange { min, max }),
            _ => Err(format!("expected bytes or a range, such as 32 or 10-200, up to {VALUE_SIZE_MAX}")),
        }
    }
}

impl FromStr for Popularity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Popularity, &'static str> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Popularity::Uniform),
            None if text == "sequential" => Ok(Popularity::Sequential),
            None if text == "zipf" => Ok(Popularity::Zipf(0.99)),
            Some(("zipf", exponent)) => match exponent.parse() {
                Ok(exponent) if (0.0..=20.0).contains(&exponent) => Ok(Popularity::Zipf(exponent)),
                _ => Err("the exponent is a number from 0 to 20"),
            },
            _ => Err("expected uniform, zipf, zipf:EXPONENT or sequential"),
        }
    }
}

/// Seconds and weights; one entry or several.
#[derive(Clone, Debug, PartialEq)]
struct Ttls(Vec<(u32, f64)>);

impl FromStr for Ttls {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Ttls, &'static str> {
        let entry = |entry: &str| {
            let (seconds, weight) = entry.split_once(':').unwrap_or((entry, "1"));
            let seconds = seconds.parse().ok().filter(|seconds| *seconds <= i32::MAX as u32)?;
            let weight = weight.parse().ok().filter(|weight: &f64| *weight > 0.0 && weight.is_finite())?;
            Some((seconds, weight))
        };
        let entries: Option<_> = text.split(',').map(entry).collect();
        entries.map(Ttls).ok_or("expected seconds, or a choice such as 60:0.7,3600:0.3")
    }
}

/// Requests per second, more than none.
#[derive(Clone, Debug)]
struct Rate(f64);

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Rate, &'static str> {
        text.parse().ok().filter(|rate| (1e-3..=1e9).contains(rate)).map(Rate).ok_or("expected requests per second")
    }
}

/// A span of time, more than none.
#[derive(Clone, Debug)]
struct Seconds(Duration);

impl FromStr for Seconds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Seconds, &'static str> {
        let seconds = text.parse().ok().filter(|seconds| (1e-3..=1e9).contains(seconds));
        seconds.map(|seconds| Seconds(Duration::from_secs_f64(seconds))).ok_or("expected a number of seconds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: FromStr>(text: &str) -> Option<T> {
        text.parse().ok()
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn values_of_options() {
        assert_eq!(parse("9:1"), Some(Ratio { get: 9, set: 1 }));
        assert_eq!(parse("0:1"), Some(Ratio { get: 0, set: 1 }));
        assert!(["0:0", "9", "a:b", "-1:1"].into_iter().all(|bad| parse::<Ratio>(bad).is_none()));

        assert_eq!(parse("32"), Some(SizeRange { min: 32, max: 32 }));
        assert_eq!(parse("10-200"), Some(SizeRange { min: 10, max: 200 }));
        assert!(["", "9-8", "x", "1-", "9999999999"].into_iter().all(|bad| parse::<SizeRange>(bad).is_none()));

        assert_eq!(parse("zipf"), Some(Popularity::Zipf(0.99)));
        assert_eq!(parse("zipf:1.2"), Some(Popularity::Zipf(1.2)));
        assert!(
            ["", "zipf:", "zipf:-1", "zipf:nan", "normal"].into_iter().all(|bad| parse::<Popularity>(bad).is_none())
        );

        assert_eq!(parse("60"), Some(Ttls(vec![(60, 1.0)])));
        assert_eq!(parse("60:0.5,0:2"), Some(Ttls(vec![(60, 0.5), (0, 2.0)])));
        assert!(["", "60:0", "60,", "-1", "1:nan"].into_iter().all(|bad| parse::<Ttls>(bad).is_none()));
    }

    #[test]
    fn explicit_options_go_over_the_preset() {
        let line = ["loadtest", "run", "--preset", "cluster12", "--value-size", "5", "--ttl", "0"];
        let Command::Run(options) = Options::parse_from(line).command else { panic!("run was asked for") };
        let mut workload = Workload::default();
        Preset::find("cluster12").expect("known").apply(&mut workload);
        options.apply(&mut workload);
        assert_eq!((workload.key_size, workload.value_size, workload.get, workload.set), (44, (5, 5), 20, 80));
        assert_eq!(workload.ttls, [(0, 1.0)]);
        assert!(Preset::all().iter().all(|preset| Preset::find(preset.name).is_ok()));
    }
}
