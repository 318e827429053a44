//! What the workers measure, which memcached does not have: `stats latency`, `stats slow`, `stats hotkeys`, `stats bigkeys`
//! and `stats prefixes`.

use crate::admin::context::ServerContext;
use crate::admin::line::{Lines, Stats};
use crate::admin::query::Answer;
use crate::command::big_keys::{BIG_KEYS_MAX, BigKey};
use crate::command::reply::escape;
use crate::measure::hot_keys::HotKey;
use crate::measure::latency::{Distribution, Times};
use crate::measure::prefixes::Use;
use crate::measure::samples::{SampleReport, hidden_name};
use crate::measure::slow::Slow;
use std::time::{Instant, UNIX_EPOCH};

/// The most prefixes that `stats prefixes` shows apart.
const PREFIXES_SHOWN: usize = 100;

fn times(context: &ServerContext<'_>) -> Times {
    Times::read(context.measures.iter().map(|measures| &measures.latency))
}

fn report(context: &ServerContext<'_>) -> SampleReport {
    SampleReport::read(context.measures.iter().map(|measures| &measures.samples), Instant::now())
}

/// A key as statistics show it: escaped as in `metadump`, or its prefix and hash with `--hide-keys` or `-X`.
fn key_name(key: &[u8], hash: u64, context: &ServerContext<'_>) -> String {
    if context.config.measuring.hide_keys || !context.config.permissions.dump {
        return escaped(hidden_name(key, hash, &context.config.samples()).as_bytes());
    }
    escaped(key)
}

fn escaped(bytes: &[u8]) -> String {
    let mut room = vec![0; 3 * bytes.len()];
    let len = escape(bytes, &mut room);
    room.truncate(len);
    String::from_utf8(room).expect("escapes are ASCII")
}

fn micros(nanos: u64) -> String {
    format!("{:.1}", nanos as f64 / 1000.0)
}

/// A share of 0 to 1 in percent.
fn percent(share: f64) -> String {
    format!("{:.1}", share * 100.0)
}

/// `part` of `whole` in percent; none of nothing.
fn percent_of(part: u64, whole: u64) -> Option<String> {
    (whole > 0).then(|| percent(part as f64 / whole as f64))
}

/// `stats latency`: percentiles since the start or `stats reset`, in microseconds.
pub(crate) fn latency(context: &ServerContext<'_>) -> Vec<u8> {
    let mut stats = Stats::default();
    for (name, all) in &times(context).all {
        stats.put(format_args!("{name}_count"), all.count());
        stats.put(format_args!("{name}_mean_us"), micros(all.mean_nanos()));
        for (percentile, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)] {
            stats.put(format_args!("{name}_{percentile}_us"), micros(all.percentile_nanos(share)));
        }
        stats.put(format_args!("{name}_max_us"), micros(all.max_nanos()));
    }
    let latency = || context.measures.iter().map(|measures| &measures.latency);
    stats.put("replies_blocked", latency().map(|latency| latency.replies_blocked.get()).sum::<u64>());
    stats.put("slow_requests", latency().map(|latency| latency.slow_requests.get()).sum::<u64>());
    stats.end()
}

/// `stats latency histogram`: how many took less than 1, 2, 4 … microseconds.
pub(crate) fn histogram(context: &ServerContext<'_>) -> Vec<u8> {
    let mut stats = Stats::default();
    let times = times(context);
    for (name, all) in times.all.iter().filter(|(_, all)| all.count() > 0) {
        for (at, count) in Distribution::cumulative(all).into_iter().enumerate() {
            stats.put(format_args!("{name}:le_{}", 1_u64 << at), count);
        }
        stats.put(format_args!("{name}:le_inf"), all.count());
    }
    stats.end()
}

/// `stats slow`: the requests that took longer than `--slow-log`, the newest first.
pub(crate) fn slow(context: &ServerContext<'_>) -> Vec<u8> {
    let mut all: Vec<(usize, Slow)> = Vec::new();
    for (worker, measures) in context.measures.iter().enumerate() {
        all.extend(measures.slow.lock().iter().map(|slow| (worker, slow.clone())));
    }
    all.sort_by_key(|(_, slow)| std::cmp::Reverse(slow.time));
    let mut stats = Stats::default();
    for (at, (worker, slow)) in all.iter().enumerate() {
        let mut put = |name: &str, value: &dyn std::fmt::Display| stats.put(format_args!("{}:{name}", at + 1), value);
        let seconds = slow.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        put("time", &format_args!("{seconds:.3}"));
        put("worker", worker);
        put("service_us", &slow.service.as_micros());
        put("wait_us", &slow.wait.as_micros());
        put("kind", &slow.kind.name());
        put("operations", &slow.operations);
        put("bytes", &slow.bytes);
        put("connection", &slow.connection);
        put("command", &escaped(&slow.command));
        if !slow.key.is_empty() {
            put("key", &key_name(&slow.key, slow.hash, context));
        }
    }
    stats.end()
}

/// The lists of `stats hotkeys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HotList {
    Operations,
    Bytes,
    Peaks,
}

/// `stats hotkeys`
pub(crate) fn hot_keys(list: HotList, context: &ServerContext<'_>) -> Vec<u8> {
    let report = report(context);
    let mut stats = Stats::default();
    stats.put("sample_mean", report.mean);
    stats.put("window_seconds", format_args!("{:.1}", report.window_seconds));
    stats.put("samples", report.samples);
    stats.put("operations_per_second", format_args!("{:.0}", report.operations_per_second));
    match list {
        HotList::Peaks => {
            let now = Instant::now();
            for (at, peak) in report.peaks.iter().enumerate() {
                let mut put = |name: &str, value: String| stats.put(format_args!("{}:{name}", at + 1), value);
                put("key", key_name(&peak.key.key, peak.key.hash, context));
                put("ops_per_second", format!("{:.0}", peak.key.ops_per_second));
                put("share_percent", percent(peak.key.share));
                put("age_seconds", now.saturating_duration_since(peak.at).as_secs().to_string());
            }
        }
        HotList::Operations => put_keys(&report.hot_keys, context, &mut stats),
        HotList::Bytes => put_keys(&report.hot_by_bytes, context, &mut stats),
    }
    stats.end()
}

fn put_keys(keys: &[HotKey], context: &ServerContext<'_>, stats: &mut Stats) {
    for (at, key) in keys.iter().enumerate() {
        let mut put = |name: &str, value: String| stats.put(format_args!("{}:{name}", at + 1), value);
        put("key", key_name(&key.key, key.hash, context));
        put("ops_per_second", format!("{:.0}", key.ops_per_second));
        put("share_percent", percent(key.share));
        put("error_percent", percent(key.error));
        put("read_percent", percent(key.read_share));
        if let Some(ratio) = key.hit_ratio {
            put("hit_percent", percent(ratio));
        }
        put("bytes_per_second", format!("{:.0}", key.bytes_per_second));
    }
}

/// The largest values of all shards, the largest first.
pub fn merge_big_keys(answers: Vec<Answer>) -> Vec<BigKey> {
    let mut keys = Vec::new();
    for answer in answers {
        if let Answer::BigKeys(some) = answer {
            keys.extend(some);
        }
    }
    keys.sort_by_key(|key: &BigKey| std::cmp::Reverse(key.bytes));
    keys.truncate(BIG_KEYS_MAX);
    keys
}

/// `stats bigkeys`
pub(crate) fn big_keys(answers: Vec<Answer>, context: &ServerContext<'_>) -> Vec<u8> {
    let mut stats = Stats::default();
    for (at, big) in merge_big_keys(answers).iter().enumerate() {
        stats.put(format_args!("{}:key", at + 1), key_name(&big.key, big.hash, context));
        stats.put(format_args!("{}:bytes", at + 1), big.bytes);
        stats.put(format_args!("{}:age_seconds", at + 1), context.now.0.saturating_sub(big.stored.0));
    }
    stats.end()
}

/// `stats prefixes`: estimates from the sample. `0` stands for all keys without a prefix of the list.
pub(crate) fn prefixes(context: &ServerContext<'_>) -> Vec<u8> {
    let report = report(context);
    let mut stats = Stats::default();
    stats.put("sample_mean", report.mean);
    if let Some(ratio) = report.repeated_misses {
        stats.put("repeated_miss_percent", percent(ratio));
    }
    let (mean, seconds) = (report.mean, report.window_seconds);
    let (list, other) = report.prefixes.top(PREFIXES_SHOWN);
    let held = list.iter().map(|(_, prefix)| prefix.memory).sum::<f64>() + other.memory;
    for (at, (name, prefix)) in list.iter().enumerate() {
        stats.put(format_args!("{}:prefix", at + 1), escaped(name));
        put_prefix(at + 1, prefix, Scale { mean, seconds, held }, &mut stats);
    }
    stats.put("0:prefix", "other");
    put_prefix(0, &other, Scale { mean, seconds, held }, &mut stats);
    stats.end()
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

fn put_prefix(at: usize, prefix: &Use, scale: Scale, stats: &mut Stats) {
    let mut put = |name: &str, value: String| stats.put(format_args!("{at}:{name}"), value);
    let total = |samples: u64| format!("{:.0}", samples as f64 * scale.mean);
    let rate = |samples: u64| samples as f64 * scale.mean / scale.seconds.max(1.0);
    put("gets", total(prefix.gets));
    put("hits", total(prefix.hits));
    put("misses", total(prefix.misses));
    put("sets", total(prefix.sets));
    put("deletes", total(prefix.deletes));
    put("ops_per_second", format!("{:.0}", rate(prefix.last.operations)));
    if let Some(ratio) = percent_of(prefix.hits, prefix.hits + prefix.misses) {
        put("hit_percent", ratio);
    }
    put("bytes_sent", total(prefix.bytes));
    put("bytes_held", format!("{:.0}", prefix.memory));
    if scale.held > 0.0 {
        put("memory_percent", percent(prefix.memory / scale.held));
    }
    if prefix.memory >= 1.0 {
        put("hits_per_second_per_mib", format!("{:.1}", rate(prefix.last.hits) / (prefix.memory / 1_048_576.0)));
    }
    if let Some(share) = percent_of(prefix.ttl_none, prefix.ttl_none + prefix.ttl_some) {
        put("ttl_none_percent", share);
    }
    if let Some(mean) = prefix.ttl_seconds.checked_div(prefix.ttl_some) {
        put("ttl_mean_seconds", mean.to_string());
    }
    if let Some(mean) = prefix.value_bytes.checked_div(prefix.values) {
        put("value_mean_bytes", mean.to_string());
    }
}
