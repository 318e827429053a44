//! `stats`, and its sub-commands that concern neither classes nor settings: `stats udp`, `stats uploads`, `stats leases`
//! and `stats evictions`.

use crate::admin::context::ServerContext;
use crate::admin::line::{Lines, Stats};
use crate::config::MEMCACHED_VERSION;
use crate::counters::{Definition, Place, WorkerCounters};
use crate::store::Snapshot;
use crate::store::stats::ClassCounters;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::sync::atomic::Ordering;

/// `stats` shows this library, which delivers the events, in place of libevent's version.
const EVENTS: &str = "mio-1.2";

/// Descriptors that a worker needs besides its connections: its poll and its waker.
const RESERVED_FDS_PER_WORKER: usize = 2;

/// `stats`
pub(crate) fn general(snapshot: &Snapshot, context: &ServerContext<'_>) -> Vec<u8> {
    let mut stats = Stats::default();
    put_general(snapshot, context, &mut stats);
    stats.end()
}

/// The names and values of `stats`.
pub fn general_pairs(snapshot: &Snapshot, context: &ServerContext<'_>) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    put_general(snapshot, context, &mut pairs);
    pairs
}

fn put_general(snapshot: &Snapshot, context: &ServerContext<'_>, stats: &mut impl Lines) {
    let ServerContext { config, settings, clock, now, budget, workers, server, .. } = *context;
    let worker_sum = |count: fn(&WorkerCounters) -> u64| workers.iter().map(count).sum::<u64>();
    let counters = &snapshot.counters;
    let mut classes = ClassCounters::default();
    for class in &snapshot.classes {
        classes += &class.counters;
    }
    let crawler = settings.lru_crawler.load(Ordering::Relaxed);
    let connections = worker_sum(WorkerCounters::connections);
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    let seconds =
        |time: fn(&Usage) -> TimeVal| usage.as_ref().map_or(String::from("0.000000"), |usage| micros(time(usage)));

    stats.put("pid", std::process::id());
    stats.put("uptime", now.uptime());
    stats.put("time", clock.unix(now));
    stats.put("version", MEMCACHED_VERSION);
    stats.put("libevent", EVENTS);
    stats.put("pointer_size", usize::BITS);
    stats.put("rusage_user", seconds(Usage::user_time));
    stats.put("rusage_system", seconds(Usage::system_time));
    stats.put("max_connections", config.connections.max);
    // memcached counts all listeners but one as connections; so do we.
    stats.put("curr_connections", connections + server.listeners.get().saturating_sub(1));
    stats.put("total_connections", server.total_connections.get());
    if config.connections.maxconns_fast {
        stats.put("rejected_connections", server.rejected_connections.get());
    }
    stats.put("connection_structures", connections + server.listeners.get());
    stats.put("response_obj_oom", 0);
    stats.put("response_obj_count", 0);
    stats.put("response_obj_bytes", 0);
    stats.put("read_buf_count", workers.len());
    stats.put("read_buf_bytes", worker_sum(|worker| worker.buffer_bytes.get()));
    stats.put("read_buf_bytes_free", 0);
    stats.put("read_buf_oom", 0);
    stats.put("reserved_fds", RESERVED_FDS_PER_WORKER * workers.len());
    stats.put("cmd_get", classes.get_hits() + counters.get_misses);
    stats.put("cmd_set", classes.cmd_set);
    stats.put("cmd_flush", worker_sum(|worker| worker.cmd_flush.get()));
    stats.put("cmd_touch", counters.cmd_touch);
    stats.put("cmd_meta", counters.cmd_meta);
    stats.put("get_hits", classes.get_hits());
    stats.put("get_misses", counters.get_misses);
    stats.put("get_expired", counters.get_expired);
    stats.put("get_flushed", counters.get_flushed);
    stats.put("delete_misses", counters.delete_misses);
    stats.put("delete_hits", classes.delete_hits);
    stats.put("incr_misses", counters.incr_misses);
    stats.put("incr_hits", classes.incr_hits);
    stats.put("decr_misses", counters.decr_misses);
    stats.put("decr_hits", classes.decr_hits);
    stats.put("cas_misses", counters.cas_misses);
    stats.put("cas_hits", classes.cas_hits);
    stats.put("cas_badval", classes.cas_badval);
    stats.put("touch_hits", classes.touch_hits);
    stats.put("touch_misses", counters.touch_misses);
    stats.put("store_too_large", counters.store_too_large);
    stats.put("store_no_memory", counters.store_no_memory);
    stats.put("auth_cmds", worker_sum(|worker| worker.auth_cmds.get()));
    stats.put("auth_errors", worker_sum(|worker| worker.auth_errors.get()));
    if config.connections.idle_timeout_seconds > 0 {
        stats.put("idle_kicks", worker_sum(|worker| worker.idle_kicks.get()));
    }
    stats.put("bytes_read", worker_sum(|worker| worker.bytes_read.get()));
    stats.put("bytes_written", worker_sum(|worker| worker.bytes_written.get()));
    stats.put("limit_maxbytes", budget.limit_bytes());
    stats.put("accepting_conns", 1 - server.listen_disabled.get());
    stats.put("listen_disabled_num", server.listen_disabled_num.get());
    stats.put("time_in_listen_disabled_us", server.listen_disabled_micros.get());
    stats.put("threads", config.workers.threads);
    stats.put("conn_yields", worker_sum(|worker| worker.conn_yields.get()));
    stats.put("hash_power_level", snapshot.hash_power);
    stats.put("hash_bytes", snapshot.hash_bytes);
    stats.put("hash_is_expanding", u8::from(snapshot.hash_is_expanding));
    if config.memory.slab_reassign {
        stats.put("slab_reassign_rescues", counters.reassign_rescues);
        stats.put("slab_reassign_chunk_rescues", counters.reassign_chunk_rescues);
        stats.put("slab_reassign_inline_reclaim", counters.reassign_inline_reclaim);
        stats.put("slab_reassign_busy_items", counters.reassign_busy_items);
        stats.put("slab_reassign_busy_deletes", counters.reassign_busy_deletes);
        stats.put("slab_reassign_busy_nomem", counters.reassign_busy_nomem);
        stats.put("slab_reassign_last_busy_status", snapshot.reassign_last_busy.name());
        stats.put("slab_reassign_running", u8::from(snapshot.reassign_is_running));
        stats.put("slabs_moved", counters.slabs_moved);
    }
    if crawler {
        stats.put("lru_crawler_running", u8::from(settings.lru_crawler_running.load(Ordering::Relaxed)));
        stats.put("lru_crawler_starts", settings.lru_crawler_starts.load(Ordering::Relaxed));
    }
    if config.memory.lru_maintainer {
        stats.put("lru_maintainer_juggles", counters.juggles);
    }
    stats.put("malloc_fails", 0);
    let watchers = &settings.watchers;
    stats.put("log_worker_dropped", watchers.worker_dropped.load(Ordering::Relaxed));
    stats.put("log_worker_written", watchers.worker_written.load(Ordering::Relaxed));
    stats.put("log_watcher_skipped", watchers.watcher_skipped.load(Ordering::Relaxed));
    stats.put("log_watcher_sent", watchers.watcher_sent.load(Ordering::Relaxed));
    stats.put("log_watchers", watchers.count());
    if config.tls.enabled {
        if config.tls.options.sessions_max > 0 {
            stats.put("ssl_new_sessions", worker_sum(|worker| worker.ssl_new_sessions.get()));
        }
        stats.put("ssl_handshake_errors", worker_sum(|worker| worker.ssl_handshake_errors.get()));
        stats.put("ssl_proto_errors", worker_sum(|worker| worker.ssl_proto_errors.get()));
        let read = server.certificates_read.get();
        stats.put("time_since_server_cert_refresh", u64::from(now.0).saturating_sub(read));
    }
    stats.put("unexpected_napi_ids", server.unexpected_napi_ids.get());
    stats.put("round_robin_fallback", server.round_robin_fallback.get());
    stats.put("bytes", snapshot.bytes);
    stats.put("curr_items", snapshot.curr_items);
    stats.put("total_items", counters.total_items);
    // The shards have given the memory of these pages back to the system.
    stats.put("slab_global_page_pool", budget.pool());
    stats.put("expired_unfetched", classes.expired_unfetched);
    stats.put("evicted_unfetched", classes.evicted_unfetched);
    if config.memory.lru_maintainer {
        stats.put("evicted_active", classes.evicted_active);
    }
    stats.put("evictions", classes.evicted);
    stats.put("reclaimed", classes.reclaimed);
    stats.put("crawler_reclaimed", classes.crawler_reclaimed);
    stats.put("crawler_items_checked", classes.crawler_items_checked);
    stats.put("lrutail_reflocked", 0);
    if config.memory.lru_maintainer {
        stats.put("moves_to_cold", classes.moves_to_cold);
        stats.put("moves_to_warm", classes.moves_to_warm);
        stats.put("moves_within_lru", classes.moves_within_lru);
        stats.put("direct_reclaims", classes.direct_reclaims);
        stats.put("lru_bumps_dropped", 0);
    }
}

/// Formats a time as seconds, a point and six digits. The exporter accepts no other form.
pub(super) fn micros(time: TimeVal) -> String {
    format!("{}.{:06}", time.tv_sec(), time.tv_usec())
}

/// `stats udp`, which memcached does not have.
pub(crate) fn udp(context: &ServerContext<'_>) -> Vec<u8> {
    let mut stats = Stats::default();
    put_counters(Place::Udp, context, &mut stats);
    stats.end()
}

/// `stats uploads`, which memcached does not have: long values that the server is still receiving.
pub(crate) fn uploads(context: &ServerContext<'_>) -> Vec<u8> {
    let mut stats = Stats::default();
    stats.put("uploads_bytes", context.uploads.bytes);
    stats.put("uploads_limit", context.uploads.limit);
    stats.put("uploads_waiting", context.uploads.waiting);
    put_counters(Place::Uploads, context, &mut stats);
    stats.end()
}

/// `stats leases`, which memcached does not have: how often a worker asked for the lease of a shard while another worker
/// had it, and how often it posted work to a shard for that reason.
pub(crate) fn leases(context: &ServerContext<'_>) -> Vec<u8> {
    let mut stats = Stats::default();
    put_counters(Place::Leases, context, &mut stats);
    stats.end()
}

/// Shows the counters of a place, of all workers together.
fn put_counters(place: Place, context: &ServerContext<'_>, stats: &mut Stats) {
    for Definition { name, counter, .. } in WorkerCounters::ALL.iter().filter(|definition| definition.place == place) {
        stats.put(name, context.workers.iter().map(|worker| counter(worker).get()).sum::<u64>());
    }
}

/// `stats evictions`, which memcached does not have. It splits the count `evictions` of `stats` by reason: the memory
/// was used up, the store had to free a page, or too many keys shared a chain of the index. Only keys that were chosen
/// for their hash fill a chain.
pub(crate) fn evictions(snapshot: &Snapshot) -> Vec<u8> {
    let mut classes = ClassCounters::default();
    for class in &snapshot.classes {
        classes += &class.counters;
    }
    let (moves, chains) = (classes.evicted_by_moves, classes.evicted_by_chains);
    let mut stats = Stats::default();
    stats.put("evictions_for_room", classes.evicted.saturating_sub(moves + chains));
    stats.put("evictions_by_moves", moves);
    stats.put("evictions_by_chains", chains);
    stats.end()
}
