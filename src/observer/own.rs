//! The metrics that memcached_exporter does not have.

use super::exposition::Kind::{Counter, Gauge, Histogram};
use super::exposition::{Number, Samples};
use super::prefixes::{COUNTED, OTHER};
use super::process;
use super::reading::{Memory, WorkerFigures};
use super::view::{Metric, View};
use crate::auth::user::User;
use crate::config::COMMIT;
use crate::counters::WorkerCounters;
use crate::measure::latency::{Kind, Latency};
use std::env::consts::{ARCH, OS};
use std::sync::atomic::Ordering;

/// The keys that `hottest_key_ratio` ranks.
const RANKS: usize = 10;

/// Of requests and of the server as a whole.
pub(super) const SERVER: &[Metric] = &[
    Metric("corecached_build_info", Gauge, "The version of the server, and what it was built for.", |_, out| {
        let library = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
        let target = format!("{ARCH}-{OS}-{library}");
        out.put(&[("version", env!("CARGO_PKG_VERSION")), ("commit", COMMIT), ("target", &target)], 1_u64)
    }),
    Metric("corecached_ready", Gauge, "Whether the server serves and is not about to stop.", |view, out| {
        out.one(view.is_ready)
    }),
    Metric(
        "corecached_started_warm",
        Gauge,
        "Whether the server began with the items of the last one (-e, --keep-memory).",
        |view, out| out.one(view.is_warm?),
    ),
    Metric("corecached_late_workers", Gauge, "Workers that have not opened a ping for 5 seconds.", |view, out| {
        out.one(view.late_workers as u64)
    }),
    Metric("corecached_request_duration_seconds", Histogram, "From the last byte in to the last byte out.", requests),
    Metric(
        "corecached_wait_duration_seconds",
        Histogram,
        "How long a ready connection waited for others.",
        |view, out| times(view, out, "wait", &[]),
    ),
    Metric("corecached_turn_duration_seconds", Histogram, "How long the turns of workers took.", |view, out| {
        times(view, out, "turn", &[])
    }),
    Metric(
        "corecached_replies_blocked_total",
        Counter,
        "Turns whose replies a client did not take at once.",
        |view, out| latency(view, out, |latency| latency.replies_blocked.get()),
    ),
    Metric("corecached_slow_requests_total", Counter, "Requests that took longer than --slow-log.", |view, out| {
        latency(view, out, |latency| latency.slow_requests.get())
    }),
    Metric("corecached_get_misses_total", Counter, "Fetches that missed, by reason.", |view, out| {
        reasons(out, &["absent", "expired", "flushed", "prefix", "early"], view.shards()?.misses())
    }),
    Metric("corecached_evictions_total", Counter, "Evictions, by what needed the memory.", |view, out| {
        reasons(out, &["room", "move", "chain"], view.shards()?.evictions())
    }),
    Metric(
        "corecached_slab_evicted_age_seconds",
        Gauge,
        "Seconds that the item evicted last had idled.",
        |view, out| {
            for class in view.total()?.classes.iter().filter(|class| class.counters.evicted > 0) {
                out.put(&[("slab", &class.id.0.to_string())], class.evicted_age);
            }
            Some(())
        },
    ),
    Metric("corecached_connections", Gauge, "Open connections, by what carries them.", connections),
    Metric(
        "corecached_tls_handshakes_total",
        Counter,
        "TLS handshakes: full ones, and those that failed.",
        |view, out| {
            out.put(&[("result", "full")], view.workers(|worker| worker.ssl_new_sessions.get()));
            out.put(&[("result", "failed")], view.workers(|worker| worker.ssl_handshake_errors.get()))
        },
    ),
    Metric("corecached_prefix_flushes_total", Counter, "Flushes of prefixes, in all their forms.", |view, out| {
        out.one(view.workers(|worker| worker.cmd_flush_prefix.get()))
    }),
    Metric("corecached_nodes", Gauge, "Nodes that clients discover (--nodes).", |view, out| {
        out.one(view.context.nodes?.count() as u64)
    }),
    Metric(
        "corecached_auth_total",
        Counter,
        "Attempts to log in. Crowded: the password was not checked, too many others waited.",
        |view, out| {
            let failures = view.workers(|worker| worker.auth_errors.get());
            let attempts = view.workers(|worker| worker.auth_cmds.get());
            let crowded = view.workers(|worker| worker.auth_crowded.get());
            out.put(&[("result", "success")], attempts.saturating_sub(failures));
            out.put(&[("result", "failure")], failures.saturating_sub(crowded));
            out.put(&[("result", "crowded")], crowded)
        },
    ),
    Metric("corecached_user_refusals_total", Counter, "Operations and commands refused to a user.", |view, out| {
        each_user(view, out, |user| user.tally.refusals.load(Ordering::Relaxed))
    }),
    Metric("corecached_user_connections", Gauge, "Open connections of a user.", |view, out| {
        each_user(view, out, |user| user.tally.connections.load(Ordering::Relaxed))
    }),
];

/// Of each worker and each shard, and of memory.
pub(super) const PARTS: &[Metric] = &[
    Metric("corecached_worker_busy_seconds_total", Counter, "Seconds that the worker did not wait.", |view, out| {
        each_worker(view, out, |worker| (worker.busy_nanos as f64 / 1e9).into())
    }),
    Metric("corecached_worker_turns_total", Counter, "Turns of the worker.", |view, out| {
        each_worker(view, out, |worker| worker.turns.into())
    }),
    Metric("corecached_worker_operations_total", Counter, "Operations of connections of the worker.", |view, out| {
        each_worker(view, out, |worker| worker.operations.into())
    }),
    Metric(
        "corecached_worker_batches_posted_total",
        Counter,
        "Batches posted to shards that another worker held.",
        |view, out| each_worker(view, out, |worker| worker.batches_posted.into()),
    ),
    Metric(
        "corecached_worker_leases_refused_total",
        Counter,
        "Leases of shards that another worker had.",
        |view, out| each_worker(view, out, |worker| worker.leases_refused.into()),
    ),
    Metric(
        "corecached_worker_hot_copy_hits_total",
        Counter,
        "Hits that the worker answered from its own copies of hot items.",
        |view, out| each_worker(view, out, |worker| worker.hot_copy_hits.into()),
    ),
    Metric("corecached_worker_connections", Gauge, "Open connections of the worker.", |view, out| {
        each_worker(view, out, |worker| worker.connections.into())
    }),
    Metric("corecached_shard_items", Gauge, "Items of the shard.", |view, out| {
        for (number, shard) in &view.shards()?.each {
            out.put(&[("shard", &number.to_string())], shard.curr_items);
        }
        Some(())
    }),
    Metric("corecached_shard_evictions_total", Counter, "Evictions of the shard.", |view, out| {
        for (number, shard) in &view.shards()?.each {
            let evicted: u64 = shard.classes.iter().map(|class| class.counters.evicted).sum();
            out.put(&[("shard", &number.to_string())], evicted);
        }
        Some(())
    }),
    Metric("corecached_memory_bytes", Gauge, "Memory by what holds it.", |view, out| {
        let Memory { items, index, buffers, tls, lent, free, .. } = Memory::new(&view.context, view.shards());
        for (kind, bytes) in [
            ("items", items),
            ("index", index),
            ("buffers", Some(buffers)),
            ("tls", Some(tls)),
            ("lent", Some(lent)),
            ("free", free),
        ] {
            bytes.map(|bytes| out.put(&[("kind", kind)], bytes));
        }
        Some(())
    }),
    Metric("corecached_memory_limit_bytes", Gauge, "Memory for items (-m).", |view, out| {
        out.one(view.context.budget.limit_bytes())
    }),
];

/// Of keys, from samples.
pub(super) const KEYS: &[Metric] = &[
    Metric(
        "corecached_hottest_key_ratio",
        Gauge,
        "The share of operations of the keys with most of them.",
        |view, out| {
            for (at, key) in view.samples.hot_keys.iter().take(RANKS).enumerate() {
                out.put(&[("rank", &(at + 1).to_string())], key.share);
            }
            Some(())
        },
    ),
    Metric("corecached_hot_key_ratio", Gauge, "The same by key (--metrics-key-names).", |view, out| {
        view.only_if(view.keys.are_named())?;
        let mut shown: Vec<String> = Vec::new();
        for key in &view.samples.hot_keys {
            let name = view.keys.show(&key.key, key.hash);
            // Two keys with odd bytes may look the same, and a series must not come twice.
            if !shown.contains(&name) {
                out.put(&[("key", &name)], key.share);
                shown.push(name);
            }
        }
        Some(())
    }),
    Metric(
        "corecached_repeated_miss_ratio",
        Gauge,
        "Misses that follow one of the same key within a minute.",
        |view, out| out.one(view.samples.repeated_misses?),
    ),
    Metric(
        "corecached_prefix_operations_total",
        Counter,
        "Operations by prefix of the key, estimated.",
        prefix_operations,
    ),
    Metric("corecached_prefix_bytes", Gauge, "Memory of items by prefix of the key, estimated.", |view, out| {
        view.only_if(view.samples.mean > 0.0)?;
        for (prefix, total) in &view.prefixes.shown {
            out.put(&[("prefix", prefix)], total.bytes.round());
        }
        out.put(&[("prefix", OTHER)], view.prefixes.other.bytes.round())
    }),
];

/// Of the process, by the names that Prometheus' clients use.
pub(super) const PROCESS: &[Metric] = &[
    Metric("process_cpu_seconds_total", Counter, "CPU time in user mode and in the kernel.", |_, out| {
        let (user, system) = process::cpu_seconds()?;
        out.one(user + system)
    }),
    Metric("process_resident_memory_bytes", Gauge, "Resident memory.", |_, out| out.one(process::memory()?.1)),
    Metric("process_virtual_memory_bytes", Gauge, "Address space.", |_, out| out.one(process::memory()?.0)),
    Metric("process_open_fds", Gauge, "Open descriptors.", |_, out| out.one(process::open_files()?)),
    Metric("process_max_fds", Gauge, "The limit of open descriptors.", |_, out| out.one(process::files_max()?)),
    Metric("process_start_time_seconds", Gauge, "When the process started, in Unix seconds.", |view, out| {
        out.one(view.started)
    }),
];

fn requests(view: &View<'_>, out: &mut Samples<'_>) -> Option<()> {
    for kind in Kind::ALL {
        let (command, result) = match kind {
            Kind::GetHit => ("get", "hit"),
            Kind::GetMiss => ("get", "miss"),
            kind => (kind.name(), ""),
        };
        times(view, out, kind.name(), &[("command", command), ("result", result)])?;
    }
    Some(())
}

fn times(view: &View<'_>, out: &mut Samples<'_>, name: &str, labels: &[(&str, &str)]) -> Option<()> {
    view.only_if(view.context.config.measuring.latency)?;
    let (_, times) = view.reading.times.all.iter().find(|(other, _)| *other == name)?;
    out.distribution(labels, times);
    Some(())
}

fn latency(view: &View<'_>, out: &mut Samples<'_>, count: fn(&Latency) -> u64) -> Option<()> {
    view.only_if(view.context.config.measuring.latency)?;
    out.one(view.context.measures.iter().map(|measures| count(&measures.latency)).sum::<u64>())
}

fn reasons<const COUNT: usize>(out: &mut Samples<'_>, names: &[&str; COUNT], counts: [u64; COUNT]) -> Option<()> {
    for (reason, count) in names.iter().zip(counts) {
        out.put(&[("reason", reason)], count);
    }
    Some(())
}

fn connections(view: &View<'_>, out: &mut Samples<'_>) -> Option<()> {
    let (tls, unix) = (view.workers(WorkerCounters::tls_connections), view.workers(WorkerCounters::unix_connections));
    let tcp = view.workers(WorkerCounters::connections).saturating_sub(tls + unix);
    for (transport, count) in [("tcp", tcp), ("tls", tls), ("unix", unix)] {
        out.put(&[("transport", transport)], count);
    }
    Some(())
}

/// A number of each user of `--users`: the file bounds their number.
fn each_user(view: &View<'_>, out: &mut Samples<'_>, number: fn(&User) -> u64) -> Option<()> {
    for user in view.context.auth?.users()?.users().iter() {
        out.put(&[("user", &user.name)], number(user));
    }
    Some(())
}

fn each_worker(view: &View<'_>, out: &mut Samples<'_>, value: fn(&WorkerFigures) -> Number) -> Option<()> {
    for (number, worker) in view.reading.workers.iter().enumerate() {
        out.put(&[("worker", &number.to_string())], value(worker));
    }
    Some(())
}

fn prefix_operations(view: &View<'_>, out: &mut Samples<'_>) -> Option<()> {
    view.only_if(view.samples.mean > 0.0)?;
    let shown = view.prefixes.shown.iter().map(|(prefix, total)| (prefix.as_str(), total));
    for (prefix, total) in shown.chain([(OTHER, &view.prefixes.other)]) {
        let counts = COUNTED.into_iter().zip(total.operations);
        for ((command, status), count) in counts.filter(|((_, status), count)| *status != "unknown" || *count > 0.0) {
            out.put(&[("prefix", prefix), ("command", command), ("status", status)], count);
        }
    }
    Some(())
}
