//! The tables: the rows of each set, and their target ratios.

use super::row::{Job, Load, Row};
use crate::datagrams::Datagrams;
use crate::disturb::Kind;
use crate::mix::Mix;
use crate::mix::sizes::Sizes;
use crate::mix::traffic::Traffic;
use crate::pair::figure::{Bound, ITEMS_HELD, ITEMS_PER_MIB, MISSED_FIRST, MISSED_LAST, P50, P99, P999};
use crate::pair::flags::{ROOMY, roomy};
use crate::random::Random;
use crate::storm::Storm;
use crate::workload::{Popularity, Protocol, Workload};

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Set {
    /// A quick comparison: six workloads, with the commands as they are
    Canonical,
    /// CPU time per key over all kinds of work, with targets
    Throughput,
    /// CPU time per key with values of 10 KiB to 1 MB, with targets
    Large,
    /// Percentiles of latency, one request at a time and at a fixed rate, with targets
    Latency,
    /// Items per MiB, with targets, and KiB per idle connection
    Memory,
    /// Items of one size that fit, for many sizes and flags, with targets (some 1900 rows of 4 seconds; see -w)
    Fit,
    /// Misses of a cache-aside client with many sizes, with targets (some 1000 rows of a minute; see -w)
    Mixes,
    /// Misses of a cache-aside client with one size and many kinds of traffic, with targets
    Policy,
    /// CPU time per key as keys and connections grow
    Growth,
    /// Over TLS: requests, handshakes one by one and a thousand at once, and memory
    Tls,
    /// Over UDP: CPU time per get
    Udp,
    /// The slowest requests at a fixed rate, while pages move, keys are dumped and TLS handshakes come, with targets
    Tails,
    /// What servers of any protocol do: CPU time per get and per set, latency at a fixed rate, and items per MiB
    Peers,
    /// All of these but `fit`, `mixes`, `policy`, `tails` and `peers`
    All,
}

/// How much work rows do, as far as options say.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Keys of the rows whose work is not about a number of keys.
    pub keys: u64,
    /// Requests of a row that counts misses.
    pub requests: u64,
}

/// Numbers of keys in the rows of `growth`, as far as the options allow.
const GROWTH_KEYS: [(u64, &str); 5] =
    [(10_000, "10k"), (100_000, "100k"), (1_000_000, "1M"), (10_000_000, "10M"), (100_000_000, "100M")];
const GROWTH_CONNECTIONS: [usize; 4] = [1, 50, 1000, 10_000];

const MILLION: u64 = 1_000_000;

/// `-m` of the rows that count items.
const FILL: u64 = 256;

/// Connections besides those of a storm.
const STORM_BESIDES: usize = 100;

/// Lower bound of the bytes that any server needs for an item, besides key and value.
const OVERHEAD_MIN: u64 = 20;

/// Bytes of the keys of `fit`, and the seed of its sizes.
const FIT_KEY_SIZE: usize = 10;
const FIT_SEED: u64 = 1;

/// `-m` of the rows of `tails`, and the keys that the gets ask for, few enough that either server has them all.
const TAILS: u64 = 64;
const TAILS_ASKED: u64 = 50_000;

/// Flags of `fit`: their name, themselves, `-m`, and the largest value.
const FIT_FLAGS: [(&str, &str, u64, usize); 23] = [
    ("default", "", 64, 1_000_000),
    ("f1.02", "-f 1.02", 64, 1_000_000),
    ("f1.05", "-f 1.05", 64, 1_000_000),
    ("f1.07", "-f 1.07", 64, 1_000_000),
    ("f1.1", "-f 1.1", 64, 1_000_000),
    ("f1.5", "-f 1.5", 64, 1_000_000),
    ("f2", "-f 2", 64, 1_000_000),
    ("n5", "-n 5", 64, 1_000_000),
    ("n256", "-n 256", 64, 1_000_000),
    ("n1024", "-n 1024", 64, 1_000_000),
    ("I1k", "-I 1k -o slab_chunk_max=1", 64, 900),
    ("I8k", "-I 8k -o slab_chunk_max=8", 64, 8000),
    ("I5m", "-I 5m", 64, 5_000_000),
    ("I128m", "-I 128m", 512, 130_000_000),
    ("chunk1", "-o slab_chunk_max=1", 64, 1_000_000),
    ("chunk4", "-o slab_chunk_max=4", 64, 1_000_000),
    ("chunk8", "-o slab_chunk_max=8", 64, 1_000_000),
    ("chunk16", "-o slab_chunk_max=16", 64, 1_000_000),
    ("chunk64", "-o slab_chunk_max=64", 64, 1_000_000),
    ("f1.05-n5-chunk8", "-f 1.05 -n 5 -o slab_chunk_max=8", 64, 1_000_000),
    ("sizes", "-o slab_sizes=96-200-400-1000-3000-12000-60000", 64, 1_000_000),
    ("C", "-C", 64, 1_000_000),
    ("m8", "", 8, 500_000),
];

impl Set {
    /// The sets that this value stands for.
    pub fn each(self) -> Vec<Set> {
        match self {
            Set::All => {
                vec![
                    Set::Canonical,
                    Set::Throughput,
                    Set::Large,
                    Set::Latency,
                    Set::Memory,
                    Set::Growth,
                    Set::Tls,
                    Set::Udp,
                ]
            }
            one => vec![one],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Set::Canonical => "canonical",
            Set::Throughput => "throughput",
            Set::Large => "large",
            Set::Latency => "latency",
            Set::Memory => "memory",
            Set::Fit => "fit",
            Set::Mixes => "mixes",
            Set::Policy => "policy",
            Set::Growth => "growth",
            Set::Tls => "tls",
            Set::Udp => "udp",
            Set::Tails => "tails",
            Set::Peers => "peers",
            Set::All => "all",
        }
    }

    /// The rows, in the order in which they run.
    pub fn rows(self, scale: Scale) -> Vec<Row> {
        let Scale { keys, requests } = scale;
        match self {
            Set::Canonical => canonical(keys),
            Set::Throughput => throughput(),
            Set::Large => large(),
            Set::Latency => latency(),
            Set::Memory => memory(),
            Set::Fit => fit(),
            Set::Mixes => mixes(requests),
            Set::Policy => policy(requests),
            Set::Growth => growth(),
            Set::Tls => tls(keys),
            Set::Udp => udp(),
            Set::Tails => tails(),
            Set::Peers => peers(keys),
            Set::All => self.each().into_iter().flat_map(|set| set.rows(scale)).collect(),
        }
    }
}

fn gets(keys: u64) -> Workload {
    Workload { get: 1, set: 0, keys, ..Workload::default() }
}

fn sets(keys: u64) -> Workload {
    Workload { get: 0, set: 1, pipeline: 32, keys, ..Workload::default() }
}

fn canonical(keys: u64) -> Vec<Row> {
    let mix = Workload { pipeline: 32, popularity: Popularity::Zipf(0.99), keys, ..Workload::default() };
    vec![
        Row::load("get-1", "get, one at a time", gets(keys)),
        Row::load("get-32", "get, 32 in flight", Workload { pipeline: 32, ..gets(keys) }),
        Row::load("get-50keys", "get of 50 keys", Workload { keys_per_get: 50, ..gets(keys) }),
        Row::load("set-32", "set, 32 in flight", sets(keys)),
        Row::load("mg-32", "mg, 32 in flight", Workload { protocol: Protocol::Meta, pipeline: 32, ..gets(keys) }),
        Row::load("mix-zipf", "get and set 9:1, Zipf 0.99, 32 in flight", mix),
    ]
}

fn throughput() -> Vec<Row> {
    let get_32 = || Workload { pipeline: 32, ..gets(MILLION) };
    let get_50 = |keys| Workload { keys_per_get: 50, ..gets(keys) };
    let mg_50 = Workload { protocol: Protocol::Meta, ..get_50(MILLION) };
    let get_1k = Workload { value_size: (1024, 1024), ..get_32() };
    // With this many keys, hardly any set replaces an earlier value of its key.
    let evicting = Row::load("set-evict", "set, 32 in flight, each evicts an item", sets(100 * MILLION));
    let mix = Workload {
        pipeline: 32,
        popularity: Popularity::Zipf(0.99),
        keys: 10 * MILLION,
        cache_aside: true,
        ..Workload::default()
    };
    let mut ports =
        Row::load("get-50keys-ports", "get of 50 keys, 2 workers, keys of a port per worker", get_50(MILLION));
    ports.flags.port_per_core = true;
    vec![
        Row::load("get-1", "get, one at a time", gets(MILLION)).on(1, ROOMY).at_most(0.68),
        Row::load("get-32", "get, 32 in flight", get_32()).on(1, ROOMY).at_most(0.14),
        Row::load("get-50keys", "get of 50 keys", get_50(MILLION)).on(1, ROOMY).at_most(0.14),
        Row::load("mg-50keys", "50 quiet mg and an mn", mg_50).on(1, ROOMY).at_most(0.16),
        Row::load("set-32", "set, 32 in flight", sets(MILLION)).on(1, ROOMY).at_most(0.13),
        Row::load("get-50keys-10M", "get of 50 keys", get_50(10 * MILLION)).on(1, 4 * ROOMY).at_most(0.17),
        evicting.with(|load| (load.prefill, load.full) = (2 * MILLION, true)).on(1, 64).at_most(0.25),
        Row::load("get-50keys-2", "get of 50 keys, 2 workers", get_50(MILLION)).on(2, ROOMY).at_most(0.30),
        Row::load("get-1-2", "get, one at a time, 2 workers", gets(MILLION)).on(2, ROOMY).at_most(0.75),
        Row::load("get-32-2", "get, 32 in flight, 2 workers", get_32()).on(2, ROOMY).at_most(0.30),
        Row::load("get-1KiB", "get of 1 KiB values, 32 in flight", get_1k).on(1, 4 * ROOMY).at_most(0.35),
        Row::load("mix-full", "get and set 9:1, Zipf 0.99, cache-aside, not all keys fit", mix)
            .with(|load| (load.warm_up, load.full) = (5 * MILLION, true))
            .on(1, 512)
            .at_most(0.22),
        ports.on(2, ROOMY),
    ]
}

/// Values from which on copies in the kernel are most of the work. The last size is near the largest item.
fn large() -> Vec<Row> {
    let row = |name: &str, size: usize, load: fn(u64) -> Workload, at_most| {
        let workload = Workload { value_size: (size, size), pipeline: 1, ..load((200 << 20) / size as u64) };
        let verb = if workload.set == 0 { "get" } else { "set" };
        let about = format!("{verb} of values of {size} bytes, one at a time");
        Row::load(format!("{verb}-{name}"), about, workload).on(1, ROOMY).at_most(at_most)
    };
    let sizes = [("10KiB", 10 << 10), ("100KiB", 100 << 10), ("1MB", 1_000_000)];
    sizes.into_iter().flat_map(|(name, size)| [row(name, size, gets, 0.97), row(name, size, sets, 0.95)]).collect()
}

fn latency() -> Vec<Row> {
    let alone = Workload { connections: 1, ..gets(100_000) };
    vec![
        Row::load("alone", "get, one connection, one at a time, 2 workers", alone)
            .on(2, ROOMY)
            .target((&P50, Bound::AtMost(1.05)))
            .target((&P99, Bound::AtMost(1.05))),
        rate_70(MILLION).target((&P99, Bound::AtMost(0.8))).target((&P999, Bound::AtMost(0.8))),
    ]
}

/// Gets in an open loop.
fn rate_70(keys: u64) -> Row {
    let steady = Workload { pipeline: 32, ..gets(keys) };
    Row::load("rate-70", "get at 70 % of the rate that the baseline holds", steady)
        .with(|load| load.rate_share = Some(0.7))
        .on(1, ROOMY)
}

/// A row that counts items per MiB, with a target for their ratio.
fn fill(name: &str, key_size: usize, value_size: (usize, usize), at_least: f64) -> Row {
    let size = (key_size + value_size.0.midpoint(value_size.1)) as u64 + OVERHEAD_MIN;
    // One and a half times the keys that would fit without any overhead, so that the server evicts.
    let keys = (FILL << 20) * 3 / 2 / size;
    let workload = Workload { get: 0, set: 1, keys, key_size, value_size, ..Workload::default() };
    let values = match value_size {
        (min, max) if min == max => format!("{min}"),
        (min, max) => format!("{min} to {max}"),
    };
    let about = format!("filled with more than fits, keys of {key_size} bytes, values of {values}");
    let row = Row::new(name, about, Job::Fill(workload)).on(1, FILL);
    row.target((&ITEMS_PER_MIB, Bound::AtLeast(at_least)))
}

fn memory() -> Vec<Row> {
    let mut idle = Row::new("idle", "5000 connections, each used once", Job::Idle(5000)).on(1, 64);
    idle.flags.connections = Some(6000);
    vec![
        fill("value-2", 25, (2, 2), 1.40),
        fill("value-32", 25, (32, 32), 1.22),
        fill("value-100", 25, (100, 100), 1.10),
        fill("value-500", 25, (500, 500), 1.03),
        // Mean sizes of Twitter's cluster 19.
        fill("cluster19", 42, (2, 200), 1.15),
        idle,
    ]
}

fn fit() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, others, memory, largest) in FIT_FLAGS {
        for size in fit_sizes(largest) {
            // Keys, and so work, beyond those that fit, but never fewer than a few: large items leave large gaps.
            let keys = ((memory << 20) * 13 / 10 / (size as u64 + OVERHEAD_MIN + FIT_KEY_SIZE as u64)).max(memory * 2);
            let workload = Workload {
                get: 0,
                set: 1,
                keys,
                key_size: FIT_KEY_SIZE,
                value_size: (size, size),
                ..Workload::default()
            };
            let about = format!("filled with more than fits, values of {size}");
            let mut row = Row::new(format!("{name}/{size}"), about, Job::Fit(workload)).on(1, memory);
            row.flags.others = others;
            rows.push(row.target((&ITEMS_HELD, Bound::AtLeast(1.0))));
        }
    }
    rows
}

/// Sizes of values from 1 byte to `largest`: powers of two, each a byte less, a byte more and 100 bytes more, and twenty
/// others.
fn fit_sizes(largest: usize) -> Vec<usize> {
    let mut random = Random::new(FIT_SEED);
    let mut sizes: Vec<usize> = (0..28)
        .flat_map(|power| [-1, 0, 1, 100].map(|more| (1 << power) + more))
        .map(|size: i64| size as usize)
        .collect();
    sizes.extend((0..20).map(|_| (largest as f64).powf(random.unit()) as usize));
    sizes.retain(|size| (1..=largest).contains(size));
    sizes.push(largest);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn mixes(requests: u64) -> Vec<Row> {
    let medians = [100.0, 300.0, 1000.0, 3000.0, 10_000.0];
    let deviations = [0.02, 0.4, 1.0, 1.5, 2.0];
    let spread = medians.into_iter().flat_map(|median| deviations.map(|deviation| Sizes::LogNormal(median, deviation)));
    let sizes: Vec<Sizes> = spread.chain([5, 30, 60].map(Sizes::Exact)).collect();
    let mut rows = Vec::new();
    for memory in [8, 16, 32, 64, 256, 1024] {
        for threads in [1, 2] {
            for &sizes in &sizes {
                for exponent in [0.7, 0.9, 1.1] {
                    let mix = Mix { sizes, traffic: Traffic::Zipf(exponent), memory, requests };
                    rows.push(misses(format!("m{memory}-t{threads}/{sizes}/z{exponent}"), mix, threads));
                }
            }
        }
    }
    rows
}

fn policy(requests: u64) -> Vec<Row> {
    let zipf = [0.7, 0.9, 1.1].map(Traffic::Zipf);
    let loops = [1.2, 2.0, 5.0].map(Traffic::Loop);
    let others = [Traffic::Scans, Traffic::Once(0.3), Traffic::Once(0.7), Traffic::Shifting];
    let twice = [0.3, 0.7, 1.5].map(Traffic::Twice);
    let all = zipf.into_iter().chain(loops).chain(others).chain(twice);
    let mix = |traffic| Mix { sizes: Sizes::LogNormal(500.0, 0.0), traffic, memory: 16, requests };
    all.map(|traffic| misses(traffic.to_string(), mix(traffic), 1)).collect()
}

/// A row that counts the misses of a cache-aside client.
fn misses(name: String, mix: Mix, threads: usize) -> Row {
    let about = format!("cache-aside, sizes {}, {}", mix.sizes, mix.traffic);
    let memory = mix.memory;
    let row = Row::new(name, about, Job::Mix(mix)).on(threads, memory);
    row.target((&MISSED_FIRST, Bound::AtMost(0.98))).target((&MISSED_LAST, Bound::AtMost(0.98)))
}

fn growth() -> Vec<Row> {
    let keys = GROWTH_KEYS.map(|(keys, text)| {
        let workload = Workload { keys_per_get: 50, ..gets(keys) };
        let memory = roomy(keys);
        Row::load(format!("keys-{text}"), "get of 50 keys", workload)
            .with(|load| load.watch_prefill = true)
            .on(1, memory)
    });
    let connections = GROWTH_CONNECTIONS.map(|connections| {
        let workload = Workload { connections, ..gets(100_000) };
        let mut row = Row::load(format!("conns-{connections}"), "get, one at a time", workload).on(1, ROOMY);
        row.flags.connections = Some(connections + 100);
        row
    });
    keys.into_iter().chain(connections).collect()
}

fn tls(keys: u64) -> Vec<Row> {
    let storm = |name: &str, about: &str, connections, resumed| {
        let mut row = Row::new(name, about, Job::Storm(Storm { connections, resumed })).on(1, ROOMY);
        row.flags.connections = Some(connections + STORM_BESIDES);
        row
    };
    let mut idle = Row::new("idle", "1000 connections, each used once", Job::Idle(1000)).on(1, 64);
    idle.flags.connections = Some(1000 + STORM_BESIDES);
    let get_32 = Workload { pipeline: 32, ..gets(keys) };
    let rows = [
        Row::load("get-1", "get, one at a time", gets(keys)).on(1, ROOMY),
        Row::load("get-32", "get, 32 in flight", get_32).on(1, ROOMY),
        Row::load("set-32", "set, 32 in flight", sets(keys)).on(1, ROOMY),
        storm("handshake", "a connection, full handshake and first reply, one at a time", 1, false),
        storm("handshake-resumed", "the same, session resumed", 1, true),
        storm("storm", "1000 connections at once, full handshakes and first replies", 1000, false),
        storm("storm-resumed", "the same, sessions resumed", 1000, true),
        idle,
    ];
    rows.map(Row::by_tls).into()
}

fn udp() -> Vec<Row> {
    let row = |name: &str, about: &str, in_flight, threads| {
        let datagrams = Datagrams { sockets: 50, in_flight, keys: 10_000 };
        let mut row = Row::new(name, about, Job::Datagrams(datagrams)).on(threads, 64);
        row.flags.udp = true;
        row
    };
    vec![
        row("udp-1", "get by UDP from 50 sockets, one at a time", 1, 1),
        row("udp-4", "get by UDP from 50 sockets, 4 in flight", 4, 1),
        row("udp-1-2", "get by UDP from 50 sockets, one at a time, 2 workers", 1, 2),
        row("udp-4-2", "get by UDP from 50 sockets, 4 in flight, 2 workers", 4, 2),
    ]
}

fn tails() -> Vec<Row> {
    let disturbances: [(&str, &str, &[Kind]); 5] = [
        ("evict", "", &[]),
        ("moves", ", pages move", &[Kind::Moves]),
        ("dumps", ", keys are dumped", &[Kind::Dumps]),
        ("tls", ", TLS handshakes", &[Kind::Handshakes]),
        ("all", ", pages move, keys are dumped, TLS handshakes", &Kind::ALL),
    ];
    let mut rows = Vec::new();
    for (name, about, kinds) in disturbances {
        for (get, set) in [(9, 1), (1, 1)] {
            for percent in [70, 90] {
                let load = strained(get, set, f64::from(percent) / 100.0);
                let about =
                    format!("get and set {get}:{set} at {percent} % of the baseline's rate, each set evicts{about}");
                let job = Job::Strain(load, kinds.to_vec());
                let mut row = Row::new(format!("{name}-{get}to{set}-{percent}"), about, job).on(1, TAILS);
                row.flags.tls = kinds.contains(&Kind::Handshakes);
                rows.push(row.target((&P999, Bound::AtMost(0.7))));
            }
        }
    }
    rows
}

/// A load at a share of the baseline's rate, whose sets are all of new keys, on a server with more keys than fit.
fn strained(get: u32, set: u32, share: f64) -> Load {
    let workload = Workload { get, set, pipeline: 32, keys: 100 * MILLION, ..Workload::default() };
    let prefill = (TAILS << 20) * 11 / 10 / ((workload.key_size + workload.value_size.0) as u64 + OVERHEAD_MIN);
    let popularity = Popularity::Newest { first: prefill, span: TAILS_ASKED };
    let workload = Workload { popularity, ..workload };
    Load { workload, prefill, warm_up: 0, rate_share: Some(share), full: true, watch_prefill: false }
}

/// The targets say that no peer does better.
fn peers(keys: u64) -> Vec<Row> {
    let get_32 = Workload { pipeline: 32, ..gets(keys) };
    let set_1 = Workload { pipeline: 1, ..sets(keys) };
    vec![
        Row::load("get-1", "get, one at a time", gets(keys)).on(1, ROOMY).at_most(1.0),
        Row::load("get-32", "get, 32 in flight", get_32).on(1, ROOMY).at_most(1.0),
        Row::load("set-1", "set, one at a time", set_1).on(1, ROOMY).at_most(1.0),
        Row::load("set-32", "set, 32 in flight", sets(keys)).on(1, ROOMY).at_most(1.0),
        rate_70(keys).target((&P50, Bound::AtMost(1.0))).target((&P99, Bound::AtMost(1.0))),
        fill("value-32", 25, (32, 32), 1.0),
        fill("value-100", 25, (100, 100), 1.0),
        fill("value-500", 25, (500, 500), 1.0),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::keys::Keys;

    #[test]
    fn rows_have_names_of_their_own_and_keys_that_fit_their_size() {
        let others = [Set::Fit, Set::Mixes, Set::Policy, Set::Tails, Set::Peers];
        for set in Set::All.each().into_iter().chain(others) {
            let rows = set.rows(Scale { keys: 1000, requests: 1000 });
            let names: HashSet<&String> = rows.iter().map(|row| &row.name).collect();
            assert_eq!(names.len(), rows.len(), "{}", set.name());
            for row in rows {
                if let Job::Load(Load { workload, .. })
                | Job::Strain(Load { workload, .. }, _)
                | Job::Fill(workload)
                | Job::Fit(workload) = &row.job
                {
                    assert!(Keys::new(row.keys(), workload.key_size, workload.value_size, 1).is_ok(), "{}", row.name);
                }
            }
        }
    }
}
