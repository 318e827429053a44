//! Options of `loadtest run`: a [`Plan`].

use std::time::Duration;

use clap::Args;

use super::values::{Rate, Ratio, Seconds, SizeRange, Ttls};
use crate::address::Address;
use crate::cpus::Cpus;
use crate::plan::{Limit, Plan};
use crate::preset::Preset;
use crate::wire::TlsFlags;
use crate::workload::{Popularity, Protocol, Workload};

#[derive(Args)]
pub struct RunOptions {
    /// host, host:port, or the path of a unix socket (anything with a slash). Several addresses, separated by commas,
    /// get equal shares of the connections and keys
    #[arg(long, short, value_name = "ADDRESS", default_value = "127.0.0.1:11211", value_delimiter = ',')]
    server: Vec<String>,

    #[command(flatten)]
    tls: TlsFlags,

    /// Client threads; the connections are spread over them
    #[arg(long, short, value_name = "N", default_value_t = 1)]
    threads: usize,

    /// Connections, all threads together [default: 50]
    #[arg(long, short, value_name = "N")]
    connections: Option<usize>,

    /// Requests in flight per connection: one write sends them all, and the next write follows after all replies
    /// [default: 1]
    #[arg(long, short, value_name = "N")]
    pipeline: Option<usize>,

    /// Keys per get [default: 1]
    #[arg(long, value_name = "N")]
    keys_per_get: Option<usize>,

    /// Gets to sets, such as 9:1, 1:0 or 0:1 [default: 9:1]
    #[arg(long, value_name = "GET:SET")]
    ratio: Option<Ratio>,

    /// classic sends get and set, meta sends mg and ms, resp sends GET, MGET and SET [default: classic]
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

    /// Seconds until a key expires (above 30 days, a Unix time), 0 for never; or a weighted choice such as
    /// 60:0.7,3600:0.3 [default: 0]
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<Ttls>,

    /// Set every key once before the measured part
    #[arg(long)]
    prefill: bool,

    /// Requests per second over all connections. Latency counts from the time a request was due; sets by --cache-aside
    /// are extra. Without this option, the client sends as fast as replies come
    #[arg(long, short, value_name = "N")]
    rate: Option<Rate>,

    /// Length of the measured part [default: 10]
    #[arg(long, value_name = "SECONDS", conflicts_with = "count")]
    time: Option<Seconds>,

    /// End after this many requests instead
    #[arg(long, short = 'n', value_name = "REQUESTS")]
    count: Option<u64>,

    /// Set the keys that a get did not find
    #[arg(long)]
    cache_aside: bool,

    /// Seed of all random numbers and of the values [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Cores for the client threads, one each, such as 1 or 2,4-7
    #[arg(long, value_name = "LIST")]
    pin_cpus: Option<Cpus>,

    /// Check every byte of every value (the same seed and sizes must have been used to set it)
    #[arg(long)]
    verify: bool,

    /// Reopen lost connections, and go on
    #[arg(long)]
    reconnect: bool,

    /// Additional connections that send nothing
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle_connections: usize,

    /// Fail if the server is silent for so long while requests are in flight
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    patience: Seconds,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// No progress line
    #[arg(long, short)]
    pub quiet: bool,
}

impl RunOptions {
    /// The text that `--preset list` prints instead of a run; otherwise `None`.
    pub fn listing(&self) -> Option<String> {
        (self.preset.as_deref() == Some("list"))
            .then(|| Preset::all().iter().map(|preset| format!("{:<10} {}\n", preset.name, preset.about)).collect())
    }

    /// The plan that these options describe. Connects to the server once.
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
        let tls = self.tls.config()?;
        let address = |server: &String| Ok(Address::find(server)?.with_tls(tls.clone()));
        let addresses: Result<Vec<Address>, String> = self.server.iter().map(address).collect();
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

    /// Explicit options override the defaults and the preset.
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Command, Options};

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
