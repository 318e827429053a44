//! The JSON of `/status.json`, and of the paths that show parts of it.

use super::keys::{Keys, readable};
use super::prefixes::SHOWN_MAX;
use super::process;
use super::reading::{Memory, Reading, rate, unix_seconds};
use crate::admin::{ServerContext, general_pairs, setting_pairs};
use crate::command::big_keys::BigKey;
use crate::config::MEMCACHED_VERSION;
use crate::measure::hot_keys::HotKey;
use crate::measure::latency::{Distribution, Times};
use crate::measure::prefixes::Use;
use crate::measure::samples::SampleReport;
use crate::measure::slow::Slow;
use crate::store::ClassSnapshot;
use crate::store::lru::Segment;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The slow requests that are shown, of all workers together.
const SLOW_SHOWN_MAX: usize = 128;

/// What the JSON is made of.
pub(super) struct Facts<'a> {
    pub(super) context: ServerContext<'a>,
    pub(super) reading: &'a Reading,
    /// The reading a second before. None: there is none yet.
    pub(super) earlier: Option<&'a Reading>,
    /// The times of ten seconds before, or of the start.
    pub(super) times_before: &'a Times,
    pub(super) samples: &'a SampleReport,
    pub(super) big_keys: &'a [BigKey],
    pub(super) keys: &'a Keys<'a>,
    pub(super) late_workers: Vec<usize>,
    pub(super) is_ready: bool,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    now: f64,
    server: Server,
    health: Health,
    stats: Map<String, Value>,
    memory: MemoryBytes,
    latency: BTreeMap<&'static str, Latency>,
    latency_recent: BTreeMap<&'static str, Latency>,
    workers: Vec<Worker>,
    classes: Vec<Class>,
    evictions: Option<Evictions>,
    misses: Option<Misses>,
    hot_keys: HotKeys,
    big_keys: Vec<BigKeyBytes>,
    prefixes: Vec<Prefix>,
    repeated_miss_ratio: Option<f64>,
    slow: Vec<SlowRequest>,
}

#[derive(Debug, Serialize)]
struct Server {
    version: &'static str,
    memcached_version: &'static str,
    pid: u32,
    uptime_seconds: u32,
    host: String,
    listen: Vec<String>,
    workers: usize,
    shards: usize,
}

#[derive(Debug, Serialize)]
struct Health {
    ready: bool,
    late_workers: Vec<usize>,
}

/// In bytes. None: the shards have not answered, or the system does not tell.
#[derive(Debug, Serialize)]
struct MemoryBytes {
    limit: u64,
    items: Option<u64>,
    index: Option<u64>,
    buffers: u64,
    tls: u64,
    lent: u64,
    free: Option<u64>,
    resident: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Latency {
    count: u64,
    mean_us: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

#[derive(Debug, Serialize)]
struct Worker {
    worker: usize,
    /// The part of the time that it did not wait, 0 to 1.
    busy: f64,
    operations_per_second: f64,
    turns_per_second: f64,
    connections: u64,
    leases_refused_per_second: f64,
    batches_posted_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Class {
    class: u8,
    chunk_size: u32,
    pages: u64,
    bytes: u64,
    chunks: u64,
    used_chunks: u64,
    items: u64,
    mem_requested: u64,
    hits_per_second: f64,
    sets_per_second: f64,
    evictions_per_second: f64,
    evicted: u64,
    evicted_age_seconds: u32,
    age_seconds: u32,
}

#[derive(Debug, Serialize)]
struct Evictions {
    room: u64,
    #[serde(rename = "move")]
    moves: u64,
    chain: u64,
}

#[derive(Debug, Serialize)]
struct Misses {
    absent: u64,
    expired: u64,
    flushed: u64,
    prefix: u64,
    early: u64,
}

/// The keys with the most operations.
#[derive(Debug, Serialize)]
pub(super) struct HotKeys {
    window_seconds: f64,
    samples: u64,
    operations_per_second: f64,
    /// Whether keys are shown as they are.
    named: bool,
    keys: Vec<Hot>,
}

#[derive(Debug, Serialize)]
struct Hot {
    key: String,
    ops_per_second: f64,
    share: f64,
    error: f64,
    read_share: f64,
    hit_ratio: Option<f64>,
    bytes_per_second: f64,
}

#[derive(Debug, Serialize)]
struct BigKeyBytes {
    key: String,
    bytes: usize,
    age_seconds: u32,
}

/// The use of a prefix.
#[derive(Debug, Serialize)]
pub(super) struct Prefix {
    /// None: all other keys.
    prefix: Option<String>,
    ops_per_second: f64,
    gets: f64,
    hits: f64,
    misses: f64,
    sets: f64,
    deletes: f64,
    hit_ratio: Option<f64>,
    bytes_sent_per_second: f64,
    bytes_held: f64,
    memory_share: f64,
    hits_per_second_per_mib: Option<f64>,
    ttl_none_share: Option<f64>,
    ttl_mean_seconds: Option<f64>,
    value_mean_bytes: Option<f64>,
}

#[derive(Debug, Serialize)]
struct SlowRequest {
    time: f64,
    worker: usize,
    service_us: f64,
    wait_us: f64,
    kind: &'static str,
    operations: u32,
    bytes: u64,
    command: String,
}

/// The times since the start, or since `stats reset`, and those of the last ten seconds.
#[derive(Debug, Serialize)]
pub(super) struct Latencies {
    latency: BTreeMap<&'static str, Latency>,
    latency_recent: BTreeMap<&'static str, Latency>,
}

/// What is at `/version`.
#[derive(Debug, Serialize)]
pub(super) struct Version {
    version: &'static str,
    memcached_version: &'static str,
}

/// The versions of the server.
pub(super) fn version() -> Version {
    Version { version: env!("CARGO_PKG_VERSION"), memcached_version: MEMCACHED_VERSION }
}

/// `stats settings`
pub(super) fn settings(context: &ServerContext<'_>) -> Map<String, Value> {
    values(setting_pairs(context))
}

impl Facts<'_> {
    /// Everything.
    pub(super) fn status(&self) -> Status {
        let Facts { context, reading, samples, keys, .. } = self;
        let shards = reading.shards.as_ref();
        let Latencies { latency, latency_recent } = self.latencies();
        Status {
            now: reading.unix,
            server: self.server(),
            health: Health { ready: self.is_ready, late_workers: self.late_workers.clone() },
            stats: shards.map_or_else(Map::new, |shards| values(general_pairs(&shards.total, context))),
            memory: self.memory(),
            latency,
            latency_recent,
            workers: self.workers(),
            classes: self.classes(),
            evictions: shards.map(|shards| {
                let [room, moves, chain] = shards.evictions();
                Evictions { room, moves, chain }
            }),
            misses: shards.map(|shards| {
                let [absent, expired, flushed, prefix, early] = shards.misses();
                Misses { absent, expired, flushed, prefix, early }
            }),
            hot_keys: self.hot_keys(),
            big_keys: self.big_keys(),
            prefixes: self.prefixes(),
            repeated_miss_ratio: samples.repeated_misses,
            slow: slow(context, keys),
        }
    }

    fn server(&self) -> Server {
        let context = &self.context;
        Server {
            version: env!("CARGO_PKG_VERSION"),
            memcached_version: MEMCACHED_VERSION,
            pid: std::process::id(),
            uptime_seconds: context.now.uptime(),
            host: nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            listen: context.listeners.iter().map(|(_, address)| plain_address(address)).collect(),
            workers: context.workers.len(),
            shards: self.reading.shards.as_ref().map_or(0, |shards| shards.each.len()),
        }
    }

    fn memory(&self) -> MemoryBytes {
        let Memory { limit, items, index, buffers, tls, lent, free } =
            Memory::new(&self.context, self.reading.shards.as_ref());
        let resident = process::memory().map(|(_, resident)| resident);
        MemoryBytes { limit, items, index, buffers, tls, lent, free, resident }
    }

    /// The times of requests.
    pub(super) fn latencies(&self) -> Latencies {
        let recent = self.reading.times.since(self.times_before);
        Latencies { latency: latencies(&self.reading.times), latency_recent: latencies(&recent) }
    }

    fn workers(&self) -> Vec<Worker> {
        let seconds = self.earlier.map_or(0.0, |earlier| self.reading.seconds_since(earlier));
        let before = |number: usize| self.earlier.and_then(|earlier| earlier.workers.get(number)).copied();
        let workers = self.reading.workers.iter().enumerate().map(|(number, now)| {
            let then = before(number).unwrap_or(*now);
            Worker {
                worker: number,
                busy: (rate(now.busy_nanos, then.busy_nanos, seconds) / 1e9).min(1.0),
                operations_per_second: rate(now.operations, then.operations, seconds),
                turns_per_second: rate(now.turns, then.turns, seconds),
                connections: now.connections,
                leases_refused_per_second: rate(now.leases_refused, then.leases_refused, seconds),
                batches_posted_per_second: rate(now.batches_posted, then.batches_posted, seconds),
            }
        });
        workers.collect()
    }

    fn classes(&self) -> Vec<Class> {
        let seconds = self.earlier.map_or(0.0, |earlier| self.reading.seconds_since(earlier));
        let before = self.earlier.and_then(|earlier| earlier.shards.as_ref()).map(|shards| &shards.total.classes);
        let class = |class: &ClassSnapshot| {
            let then = before.and_then(|classes| classes.iter().find(|other| other.id == class.id));
            let per_second =
                |count: fn(&ClassSnapshot) -> u64| then.map_or(0.0, |then| rate(count(class), count(then), seconds));
            let chunks = class.usage.total_pages * u64::from(class.usage.chunks_per_page);
            Class {
                class: class.id.0,
                chunk_size: class.usage.chunk_size,
                pages: class.usage.total_pages,
                bytes: class.usage.total_pages * self.context.budget.page_size() as u64,
                chunks,
                used_chunks: class.usage.used_chunks,
                items: class.counts.iter().sum(),
                mem_requested: class.counters.mem_requested,
                hits_per_second: per_second(|class| class.counters.get_hits()),
                sets_per_second: per_second(|class| class.counters.cmd_set),
                evictions_per_second: per_second(|class| class.counters.evicted),
                evicted: class.counters.evicted,
                evicted_age_seconds: class.evicted_age,
                age_seconds: class.ages[Segment::Cold as usize],
            }
        };
        let classes = self.reading.shards.iter().flat_map(|shards| &shards.total.classes);
        classes.filter(|class| class.usage.total_pages > 0).map(class).collect()
    }

    /// The keys with the most operations.
    pub(super) fn hot_keys(&self) -> HotKeys {
        let SampleReport { window_seconds, samples, operations_per_second, hot_keys, .. } = self.samples;
        let hot = |key: &HotKey| Hot {
            key: self.keys.show(&key.key, key.hash),
            ops_per_second: key.ops_per_second,
            share: key.share,
            error: key.error,
            read_share: key.read_share,
            hit_ratio: key.hit_ratio,
            bytes_per_second: key.bytes_per_second,
        };
        HotKeys {
            window_seconds: *window_seconds,
            samples: *samples,
            operations_per_second: *operations_per_second,
            named: self.keys.are_named(),
            keys: hot_keys.iter().map(hot).collect(),
        }
    }

    fn big_keys(&self) -> Vec<BigKeyBytes> {
        let big = |key: &BigKey| BigKeyBytes {
            key: self.keys.show(&key.key, key.hash),
            bytes: key.bytes,
            age_seconds: self.context.now.0.saturating_sub(key.stored.0),
        };
        self.big_keys.iter().map(big).collect()
    }

    /// The prefixes with the most operations, and all others.
    pub(super) fn prefixes(&self) -> Vec<Prefix> {
        let report = self.samples.prefixes.clone();
        let held: f64 = report.prefixes.values().chain([&report.other]).map(|usage| usage.memory).sum();
        let (top, other) = report.top(SHOWN_MAX);
        let (mean, seconds) = (self.samples.mean, self.samples.window_seconds.max(1.0));
        let named = top.iter().map(|(name, usage)| prefix(Some(readable(name)), usage, Scale { mean, seconds, held }));
        named.chain([prefix(None, &other, Scale { mean, seconds, held })]).collect()
    }
}

/// What turns samples into estimates.
#[derive(Clone, Copy)]
struct Scale {
    /// Operations that a sample stands for.
    mean: f64,
    /// The length of the window.
    seconds: f64,
    /// The bytes of all items.
    held: f64,
}

fn prefix(name: Option<String>, usage: &Use, scale: Scale) -> Prefix {
    let Scale { mean, seconds, held } = scale;
    let per_second = |count: u64| count as f64 * mean / seconds;
    let ratio = |part: u64, all: u64| (all > 0).then(|| part as f64 / all as f64);
    let mebibytes = usage.memory / f64::from(1 << 20);
    Prefix {
        prefix: name,
        ops_per_second: per_second(usage.last.operations),
        gets: usage.gets as f64 * mean,
        hits: usage.hits as f64 * mean,
        misses: usage.misses as f64 * mean,
        sets: usage.sets as f64 * mean,
        deletes: usage.deletes as f64 * mean,
        hit_ratio: ratio(usage.hits, usage.hits + usage.misses),
        bytes_sent_per_second: per_second(usage.last.bytes),
        bytes_held: usage.memory,
        memory_share: if held > 0.0 { usage.memory / held } else { 0.0 },
        hits_per_second_per_mib: (mebibytes > 0.0).then(|| per_second(usage.last.hits) / mebibytes),
        ttl_none_share: ratio(usage.ttl_none, usage.ttl_none + usage.ttl_some),
        ttl_mean_seconds: ratio(usage.ttl_seconds, usage.ttl_some),
        value_mean_bytes: ratio(usage.value_bytes, usage.values),
    }
}

fn latencies(times: &Times) -> BTreeMap<&'static str, Latency> {
    times.all.iter().map(|(name, times)| (*name, latency(times))).collect()
}

fn latency(times: &Distribution) -> Latency {
    let micros = |nanos: u64| nanos as f64 / 1000.0;
    let percentile = |share: f64| micros(times.percentile_nanos(share));
    Latency {
        count: times.count(),
        mean_us: micros(times.mean_nanos()),
        p50_us: percentile(0.5),
        p90_us: percentile(0.9),
        p99_us: percentile(0.99),
        p999_us: percentile(0.999),
        max_us: micros(times.max_nanos()),
    }
}

/// The slow requests of all workers, the newest first.
fn slow(context: &ServerContext<'_>, keys: &Keys<'_>) -> Vec<SlowRequest> {
    let mut all: Vec<(usize, Slow)> = Vec::new();
    for (worker, measures) in context.measures.iter().enumerate() {
        all.extend(measures.slow.lock().iter().map(|slow| (worker, slow.clone())));
    }
    all.sort_by_key(|(_, slow)| std::cmp::Reverse(slow.time));
    all.truncate(SLOW_SHOWN_MAX);
    let micros = |time: std::time::Duration| time.as_nanos() as f64 / 1000.0;
    let request = |(worker, slow): (usize, Slow)| SlowRequest {
        time: unix_seconds(slow.time),
        worker,
        service_us: micros(slow.service),
        wait_us: micros(slow.wait),
        kind: slow.kind.name(),
        operations: slow.operations,
        bytes: slow.bytes,
        command: keys.show_request(&slow),
    };
    all.into_iter().map(request).collect()
}

/// The address of a listener without the name of its transport; that of a Unix socket keeps it.
fn plain_address(address: &str) -> String {
    let tcp = address.strip_prefix("tcp6:").or_else(|| address.strip_prefix("tcp:"));
    tcp.unwrap_or(address).to_owned()
}

/// Statistics as JSON: numbers as numbers, everything else as strings.
fn values(pairs: Vec<(String, String)>) -> Map<String, Value> {
    let value = |text: String| match serde_json::from_str::<serde_json::Number>(&text) {
        Ok(number) => Value::Number(number),
        Err(_) => Value::String(text),
    };
    pairs.into_iter().map(|(name, text)| (name, value(text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_that_are_numbers_become_numbers() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let pairs = vec![
            pair("a", "18446744073709551615"),
            pair("b", "3.000045"),
            pair("c", "1.6.45"),
            pair("d", "0.20"),
            pair("e", "NULL"),
            pair("f", "-1"),
            pair("g", ""),
            pair("h", "true"),
        ];
        let json = serde_json::to_string(&values(pairs)).expect("plain values");
        assert_eq!(
            json,
            r#"{"a":18446744073709551615,"b":3.000045,"c":"1.6.45","d":0.2,"e":"NULL","f":-1,"g":"","h":"true"}"#
        );
    }

    #[test]
    fn addresses_are_those_that_clients_use() {
        let addresses = ["tcp:127.0.0.1:11211", "tcp6:[::1]:11211", "unix:/run/socket"];
        assert_eq!(addresses.map(plain_address), ["127.0.0.1:11211", "[::1]:11211", "unix:/run/socket"]);
    }
}
