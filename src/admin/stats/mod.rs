//! What `stats` and its sub-commands show: memcached's names, in memcached's order, with true values.
//!
//! Tools count these names and parse the values (the exporter's `rusage_*`, collectd's buffer of 4096 bytes), so there is
//! not one more and not one less. What memcached counts and we have nothing of stays 0: its response objects.

use super::{Answer, AtomicF64, Description, ServerContext};
use crate::command::prefixes::PrefixCounts;
use crate::config::{Config, Listen, MEMCACHED_VERSION};
use crate::counters::{Counter, WorkerCounters};
use crate::net::certificates::KeyFormat;
use crate::store::lru::Segment;
use crate::store::rebalance::Busy;
use crate::store::slab::CHUNK_MAX;
use crate::store::stats::{ClassCounters, Counters};
use crate::store::{ClassSnapshot, Snapshot};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a page, what `limit_maxbytes` and `total_malloced` are multiples of.
const PAGE_BYTES: u64 = 1 << 20;

/// In place of libevent's version: what events come from.
const EVENTS: &str = "mio-1.2";

/// Descriptors of a worker besides its connections: its poll, and what wakes it.
const RESERVED_FDS_PER_WORKER: usize = 2;

/// Longest reply to `stats cachedump`.
pub(super) const COLD_ITEMS_BYTES_MAX: usize = 2 << 20;

const END: &[u8] = b"END\r\n";

/// A reply of `STAT` lines.
#[derive(Debug, Default)]
struct Stats(Vec<u8>);

impl Stats {
    fn put(&mut self, name: impl Display, value: impl Display) {
        write!(self.0, "STAT {name} {value}\r\n").expect("writing to memory cannot fail");
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(END);
        self.0
    }
}

/// The snapshots among the answers as one: sums, largest ages, and `hash_power` of all index slots together.
pub(super) fn merge(answers: Vec<Answer>) -> Snapshot {
    let mut total = Snapshot {
        counters: Counters::default(),
        classes: Vec::new(),
        curr_items: 0,
        bytes: 0,
        hash_bytes: 0,
        hash_power: 0,
        hash_is_expanding: false,
        reassign_is_running: false,
        reassign_last_busy: Busy::default(),
    };
    let mut slots = 0_u64;
    for answer in answers {
        let Answer::Snapshot(snapshot) = answer else { continue };
        total.counters += &snapshot.counters;
        total.curr_items += snapshot.curr_items;
        total.bytes += snapshot.bytes;
        total.hash_bytes += snapshot.hash_bytes;
        total.hash_is_expanding |= snapshot.hash_is_expanding;
        total.reassign_is_running |= snapshot.reassign_is_running;
        total.reassign_last_busy = total.reassign_last_busy.max(snapshot.reassign_last_busy);
        slots += 1 << snapshot.hash_power;
        for class in snapshot.classes {
            match total.classes.iter_mut().find(|other| other.id == class.id) {
                Some(other) => add_class(other, &class),
                None => total.classes.push(class),
            }
        }
    }
    total.hash_power = slots.checked_ilog2().unwrap_or(0);
    total
}

fn add_class(total: &mut ClassSnapshot, class: &ClassSnapshot) {
    total.usage.total_pages += class.usage.total_pages;
    total.usage.used_chunks += class.usage.used_chunks;
    total.counters += &class.counters;
    total.evicted_age = total.evicted_age.max(class.evicted_age);
    for segment in Segment::ALL.map(|segment| segment as usize) {
        total.counts[segment] += class.counts[segment];
        total.ages[segment] = total.ages[segment].max(class.ages[segment]);
    }
}

/// `stats`
pub(super) fn general(snapshot: &Snapshot, context: &ServerContext<'_>) -> Vec<u8> {
    let ServerContext { config, settings, clock, budget, workers, server, .. } = *context;
    let worker_sum = |count: fn(&WorkerCounters) -> u64| workers.iter().map(count).sum::<u64>();
    let counters = &snapshot.counters;
    let mut classes = ClassCounters::default();
    for class in &snapshot.classes {
        classes += &class.counters;
    }
    let crawler = settings.lru_crawler.load(Ordering::Relaxed);
    let now = clock.now();
    let connections = worker_sum(WorkerCounters::connections);
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    let seconds =
        |time: fn(&Usage) -> TimeVal| usage.as_ref().map_or(String::from("0.000000"), |usage| micros(time(usage)));

    let mut stats = Stats::default();
    stats.put("pid", std::process::id());
    stats.put("uptime", now.uptime());
    stats.put("time", clock.unix(now));
    stats.put("version", MEMCACHED_VERSION);
    stats.put("libevent", EVENTS);
    stats.put("pointer_size", usize::BITS);
    stats.put("rusage_user", seconds(Usage::user_time));
    stats.put("rusage_system", seconds(Usage::system_time));
    stats.put("max_connections", config.connections_max);
    // memcached's arithmetic: all listeners but one are counted.
    stats.put("curr_connections", connections + server.listeners.get().saturating_sub(1));
    stats.put("total_connections", server.total_connections.get());
    if config.maxconns_fast {
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
    if config.idle_timeout_seconds > 0 {
        stats.put("idle_kicks", worker_sum(|worker| worker.idle_kicks.get()));
    }
    stats.put("bytes_read", worker_sum(|worker| worker.bytes_read.get()));
    stats.put("bytes_written", worker_sum(|worker| worker.bytes_written.get()));
    stats.put("limit_maxbytes", u64::from(budget.limit()) * PAGE_BYTES);
    stats.put("accepting_conns", 1 - server.listen_disabled.get());
    stats.put("listen_disabled_num", server.listen_disabled_num.get());
    stats.put("time_in_listen_disabled_us", server.listen_disabled_micros.get());
    stats.put("threads", config.threads);
    stats.put("conn_yields", worker_sum(|worker| worker.conn_yields.get()));
    stats.put("hash_power_level", snapshot.hash_power);
    stats.put("hash_bytes", snapshot.hash_bytes);
    stats.put("hash_is_expanding", u8::from(snapshot.hash_is_expanding));
    if config.slab_reassign {
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
    if config.lru_maintainer {
        stats.put("lru_maintainer_juggles", counters.juggles);
    }
    stats.put("malloc_fails", 0);
    let watchers = &settings.watchers;
    stats.put("log_worker_dropped", watchers.worker_dropped.load(Ordering::Relaxed));
    stats.put("log_worker_written", watchers.worker_written.load(Ordering::Relaxed));
    stats.put("log_watcher_skipped", watchers.watcher_skipped.load(Ordering::Relaxed));
    stats.put("log_watcher_sent", watchers.watcher_sent.load(Ordering::Relaxed));
    stats.put("log_watchers", watchers.count());
    if config.tls_enabled {
        if config.tls.sessions_max > 0 {
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
    // Their memory has been given back to the system.
    stats.put("slab_global_page_pool", budget.pool());
    stats.put("expired_unfetched", classes.expired_unfetched);
    stats.put("evicted_unfetched", classes.evicted_unfetched);
    if config.lru_maintainer {
        stats.put("evicted_active", classes.evicted_active);
    }
    stats.put("evictions", classes.evicted);
    stats.put("reclaimed", classes.reclaimed);
    stats.put("crawler_reclaimed", classes.crawler_reclaimed);
    stats.put("crawler_items_checked", classes.crawler_items_checked);
    stats.put("lrutail_reflocked", 0);
    if config.lru_maintainer {
        stats.put("moves_to_cold", classes.moves_to_cold);
        stats.put("moves_to_warm", classes.moves_to_warm);
        stats.put("moves_within_lru", classes.moves_within_lru);
        stats.put("direct_reclaims", classes.direct_reclaims);
        stats.put("lru_bumps_dropped", 0);
    }
    stats.end()
}

/// Seconds, a point, six digits: the exporter takes nothing else.
fn micros(time: TimeVal) -> String {
    format!("{}.{:06}", time.tv_sec(), time.tv_usec())
}

/// `stats udp`, which memcached has not.
pub(super) fn udp(context: &ServerContext<'_>) -> Vec<u8> {
    let sum =
        |count: fn(&WorkerCounters) -> &Counter| context.workers.iter().map(|worker| count(worker).get()).sum::<u64>();
    let mut stats = Stats::default();
    stats.put("udp_requests", sum(|worker| &worker.udp_requests));
    stats.put("udp_malformed", sum(|worker| &worker.udp_malformed));
    stats.put("udp_replies_withheld", sum(|worker| &worker.udp_replies_withheld));
    stats.put("udp_datagrams_dropped", sum(|worker| &worker.udp_datagrams_dropped));
    stats.end()
}

/// `stats uploads`, which memcached has not: long values that are being received.
pub(super) fn uploads(context: &ServerContext<'_>) -> Vec<u8> {
    let timed_out: u64 = context.workers.iter().map(|worker| worker.uploads_timed_out.get()).sum();
    let mut stats = Stats::default();
    stats.put("uploads_bytes", context.uploads.bytes);
    stats.put("uploads_limit", context.uploads.limit);
    stats.put("uploads_waiting", context.uploads.waiting);
    stats.put("uploads_timed_out", timed_out);
    stats.end()
}

/// `stats evictions`, which memcached has not: what `evictions` in `stats` counts, by its reason. Memory was used up, or a
/// page was to become free, or too many keys that were chosen for it shared a chain of the index.
pub(super) fn evictions(snapshot: &Snapshot) -> Vec<u8> {
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

/// `stats settings`
pub(crate) fn settings(context: &ServerContext<'_>) -> Vec<u8> {
    let ServerContext { config, settings, budget, .. } = *context;
    let unix = config.listen.iter().find_map(|listen| match listen {
        Listen::Unix { path, .. } => Some(path.display()),
        Listen::Loopback { .. } | Listen::Any { .. } | Listen::Host { .. } => None,
    });
    let yes = |is: bool| if is { "yes" } else { "no" };
    let on = |setting: &AtomicBool| yes(setting.load(Ordering::Relaxed));
    let hundredths = |value: f64| format!("{value:.2}");
    let factor = |setting: &AtomicF64| hundredths(setting.get());

    let mut stats = Stats::default();
    stats.put("maxbytes", u64::from(budget.limit()) * PAGE_BYTES);
    stats.put("maxconns", config.connections_max);
    stats.put("tcpport", config.tcp_port);
    stats.put("udpport", config.udp_port);
    stats.put("inter", config.interface.as_deref().unwrap_or("NULL"));
    stats.put("verbosity", settings.verbosity.load(Ordering::Relaxed));
    stats.put("oldest", settings.oldest.load(Ordering::Relaxed));
    stats.put("evictions", if config.evictions { "on" } else { "off" });
    match &unix {
        Some(path) => stats.put("domain_socket", path),
        None => stats.put("domain_socket", "NULL"),
    }
    stats.put("umask", format_args!("{:o}", config.unix_mask));
    stats.put("shutdown_command", yes(config.shutdown_enabled));
    stats.put("growth_factor", hundredths(config.growth_factor));
    stats.put("chunk_size", config.chunk_size_min);
    stats.put("num_threads", config.threads);
    stats.put("num_threads_per_udp", config.threads);
    stats.put("stat_key_prefix", char::from(config.prefix_delimiter));
    stats.put("detail_enabled", on(&settings.detail_enabled));
    stats.put("reqs_per_event", config.requests_per_event);
    stats.put("cas_enabled", yes(config.cas_enabled));
    stats.put("tcp_backlog", config.listen_backlog);
    stats.put("binding_protocol", config.protocol);
    stats.put("auth_enabled_sasl", yes(config.sasl_password_file.is_some()));
    match &config.auth_file {
        Some(path) => stats.put("auth_enabled_ascii", path.display()),
        None => stats.put("auth_enabled_ascii", "no"),
    }
    stats.put("item_size_max", config.item_size_max);
    stats.put("maxconns_fast", yes(config.maxconns_fast));
    stats.put("hashpower_init", config.hash_power.unwrap_or(0));
    stats.put("slab_reassign", yes(config.slab_reassign));
    stats.put("slab_automove", settings.slab_automove.load(Ordering::Relaxed));
    stats.put("slab_automove_ratio", factor(&settings.slab_automove_ratio));
    stats.put("slab_automove_window", settings.slab_automove_window.load(Ordering::Relaxed));
    stats.put("slab_chunk_max", config.slab_chunk_max_bytes.min(CHUNK_MAX as u64));
    stats.put("lru_crawler", on(&settings.lru_crawler));
    stats.put("lru_crawler_sleep", settings.lru_crawler_sleep.load(Ordering::Relaxed));
    stats.put("lru_crawler_tocrawl", settings.lru_crawler_tocrawl.load(Ordering::Relaxed));
    stats.put("tail_repair_time", config.tail_repair_time_seconds);
    stats.put("flush_enabled", yes(config.flush_enabled));
    stats.put("dump_enabled", yes(config.dump_enabled));
    stats.put("hash_algorithm", "ahash");
    stats.put("lru_maintainer_thread", yes(config.lru_maintainer));
    stats.put("lru_segmented", on(&settings.lru_segmented));
    stats.put("hot_lru_pct", settings.hot_percent.load(Ordering::Relaxed));
    stats.put("warm_lru_pct", settings.warm_percent.load(Ordering::Relaxed));
    stats.put("hot_max_factor", factor(&settings.hot_max_factor));
    stats.put("warm_max_factor", factor(&settings.warm_max_factor));
    stats.put("temp_lru", on(&settings.temp_lru));
    stats.put("temporary_ttl", settings.temporary_ttl.load(Ordering::Relaxed));
    stats.put("idle_timeout", config.idle_timeout_seconds);
    stats.put("watcher_logbuf_size", config.watcher_logbuf_bytes);
    stats.put("worker_logbuf_size", config.worker_logbuf_bytes);
    stats.put("read_buf_mem_limit", config.read_buffers_limit_bytes);
    stats.put("track_sizes", yes(config.track_sizes));
    stats.put("inline_ascii_response", "no");
    // There with and without -Z, as in every memcached that was built with TLS.
    tls_settings(&mut stats, config);
    stats.put("num_napi_ids", config.napi_ids);
    match &config.memory_file {
        Some(path) => stats.put("memory_file", path.display()),
        None => stats.put("memory_file", "(null)"),
    }
    // Bytes: u32, as without LARGE_CLIENT_FLAGS.
    stats.put("client_flags_size", size_of::<u32>());
    stats.end()
}

/// The group of `stats settings` that is about TLS. What is not given has memcached's two names.
fn tls_settings(stats: &mut Stats, config: &Config) {
    let tls = &config.tls;
    let yes = |is: bool| if is { "yes" } else { "no" };
    let path = |path: &Option<PathBuf>, otherwise: &str| {
        path.as_ref().map_or_else(|| otherwise.into(), |path| path.display().to_string())
    };
    stats.put("ssl_enabled", yes(config.tls_enabled));
    stats.put("ssl_chain_cert", path(&tls.chain, "(null)"));
    stats.put("ssl_key", path(&tls.key, "(null)"));
    stats.put("ssl_verify_mode", config.tls_verify_bits);
    // OpenSSL's numbers.
    stats.put("ssl_keyformat", if tls.key_format == KeyFormat::Pem { 1 } else { 2 });
    stats.put("ssl_ciphers", tls.ciphers.as_deref().unwrap_or("NULL"));
    stats.put("ssl_ca_cert", path(&tls.authorities, "NULL"));
    stats.put("ssl_wbuf_size", config.tls_write_buffer_bytes);
    stats.put("ssl_session_cache", yes(tls.sessions_max > 0));
    stats.put("ssl_kernel_tls", yes(config.tls_kernel));
    stats.put("ssl_min_version", format_args!("tlsv1.{}", config.tls_min_version));
}

/// `stats items`: classes with items.
pub(super) fn items(snapshot: &Snapshot, context: &ServerContext<'_>) -> Vec<u8> {
    let temp = context.settings.temp_lru.load(Ordering::Relaxed);
    let segments = context.config.lru_maintainer;
    let mut stats = Stats::default();
    for class in &snapshot.classes {
        let ClassSnapshot { counters, counts, ages, .. } = class;
        let number: u64 = counts.iter().sum();
        if number == 0 {
            continue;
        }
        let mut put = |name: &str, value: u64| stats.put(format_args!("items:{}:{name}", class.id.0), value);
        put("number", number);
        if segments {
            put("number_hot", counts[Segment::Hot as usize]);
            put("number_warm", counts[Segment::Warm as usize]);
            put("number_cold", counts[Segment::Cold as usize]);
            if temp {
                put("number_temp", counts[Segment::Temp as usize]);
            }
            put("age_hot", u64::from(ages[Segment::Hot as usize]));
            put("age_warm", u64::from(ages[Segment::Warm as usize]));
        }
        put("age", u64::from(ages[Segment::Cold as usize]));
        put("mem_requested", counters.mem_requested);
        put("evicted", counters.evicted);
        put("evicted_nonzero", counters.evicted_nonzero);
        put("evicted_time", u64::from(class.evicted_age));
        put("outofmemory", counters.outofmemory);
        put("tailrepairs", 0);
        put("reclaimed", counters.reclaimed);
        put("expired_unfetched", counters.expired_unfetched);
        put("evicted_unfetched", counters.evicted_unfetched);
        if segments {
            put("evicted_active", counters.evicted_active);
        }
        put("crawler_reclaimed", counters.crawler_reclaimed);
        put("crawler_items_checked", counters.crawler_items_checked);
        put("lrutail_reflocked", 0);
        if segments {
            put("moves_to_cold", counters.moves_to_cold);
            put("moves_to_warm", counters.moves_to_warm);
            put("moves_within_lru", counters.moves_within_lru);
            put("direct_reclaims", counters.direct_reclaims);
            put("hits_to_hot", counters.hits_to_hot);
            put("hits_to_warm", counters.hits_to_warm);
            put("hits_to_cold", counters.hits_to_cold);
            put("hits_to_temp", counters.hits_to_temp);
        }
    }
    stats.end()
}

/// `stats slabs`: classes with pages.
pub(super) fn slabs(snapshot: &Snapshot) -> Vec<u8> {
    let mut stats = Stats::default();
    let (mut active, mut pages) = (0, 0);
    for class in snapshot.classes.iter().filter(|class| class.usage.total_pages > 0) {
        let ClassSnapshot { usage, counters, .. } = class;
        active += 1;
        pages += usage.total_pages;
        let chunks = usage.total_pages * u64::from(usage.chunks_per_page);
        let mut put = |name: &str, value: u64| stats.put(format_args!("{}:{name}", class.id.0), value);
        put("chunk_size", u64::from(usage.chunk_size));
        put("chunks_per_page", u64::from(usage.chunks_per_page));
        put("total_pages", usage.total_pages);
        put("total_chunks", chunks);
        put("used_chunks", usage.used_chunks);
        put("free_chunks", chunks - usage.used_chunks);
        put("free_chunks_end", 0);
        put("get_hits", counters.get_hits());
        put("cmd_set", counters.cmd_set);
        put("delete_hits", counters.delete_hits);
        put("incr_hits", counters.incr_hits);
        put("decr_hits", counters.decr_hits);
        put("cas_hits", counters.cas_hits);
        put("cas_badval", counters.cas_badval);
        put("touch_hits", counters.touch_hits);
    }
    stats.put("active_slabs", active);
    stats.put("total_malloced", pages * PAGE_BYTES);
    stats.end()
}

/// `stats sizes`: items by size.
pub(super) fn sizes(answers: Vec<Answer>) -> Vec<u8> {
    let mut stats = Stats::default();
    for answer in answers {
        let Answer::Sizes(sizes, _) = answer else { continue };
        for (size, count) in sizes {
            stats.put(size, count);
        }
    }
    stats.end()
}

/// `stats detail dump`
pub(super) fn detail(answers: Vec<Answer>) -> Vec<u8> {
    let mut total: BTreeMap<Vec<u8>, PrefixCounts> = BTreeMap::new();
    for answer in answers {
        let Answer::Prefixes(prefixes) = answer else { continue };
        for (prefix, PrefixCounts { get, hit, set, del }) in prefixes {
            let sum = total.entry(prefix).or_default();
            sum.get += get;
            sum.hit += hit;
            sum.set += set;
            sum.del += del;
        }
    }
    let mut reply = Vec::new();
    for (prefix, PrefixCounts { get, hit, set, del }) in total {
        reply.extend_from_slice(b"PREFIX ");
        reply.extend_from_slice(&prefix);
        write!(reply, " get {get} hit {hit} set {set} del {del}\r\n").expect("writing to memory cannot fail");
    }
    reply.extend_from_slice(END);
    reply
}

/// The lines of `stats cachedump` so far.
#[derive(Clone, Debug, Default)]
pub struct ColdItems {
    lines: Vec<u8>,
    count: usize,
}

impl ColdItems {
    /// Adds pieces of some shards' lists, line by line of each in turn: up to `limit` lines in all, and as many as go into
    /// `bytes_max`. Says whether there is no room for more.
    pub(super) fn add(&mut self, pieces: &[Vec<Vec<u8>>], limit: usize, bytes_max: usize) -> bool {
        let rows = pieces.iter().map(Vec::len).max().unwrap_or(0);
        for line in (0..rows).flat_map(|row| pieces.iter().filter_map(move |lines| lines.get(row))) {
            if self.count == limit || self.lines.len() + line.len() + END.len() > bytes_max {
                return true;
            }
            self.lines.extend_from_slice(line);
            self.count += 1;
        }
        self.count == limit
    }
}

/// `stats cachedump`
pub(super) fn cold_items(answers: Vec<Answer>) -> Vec<u8> {
    let lists =
        answers.into_iter().filter_map(|answer| if let Answer::List(list) = answer { Some(list) } else { None });
    let mut reply = lists.map(|list| list.lines).next().unwrap_or_default();
    reply.extend_from_slice(END);
    reply
}

/// `stats conns`
pub(super) fn lines(answers: Vec<Answer>) -> Vec<u8> {
    let mut descriptions: Vec<Description> = Vec::new();
    for answer in answers {
        if let Answer::Connections(some) = answer {
            descriptions.extend(some);
        }
    }
    descriptions.sort_by_key(|description| (!description.accepts, description.fd));
    let mut reply: Vec<u8> = descriptions.into_iter().flat_map(|description| description.lines.into_bytes()).collect();
    reply.extend_from_slice(END);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::Cache;
    use crate::clock::NEVER;
    use crate::store::slab::{ClassId, ClassUse};

    /// The names of a reply, in their order.
    fn names(reply: &str) -> Vec<&str> {
        let lines = reply.strip_suffix("END\r\n").expect("an end").lines();
        lines.map(|line| line.split(' ').nth(1).expect("STAT name value")).collect()
    }

    #[track_caller]
    fn value(reply: &str, name: &str) -> u64 {
        let line = reply.lines().find_map(|line| line.strip_prefix("STAT ")?.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {reply}"))
    }

    #[track_caller]
    fn check_values(reply: &str, expected: &[(&str, u64)]) {
        for &(name, number) in expected {
            assert_eq!(value(reply, name), number, "{name}");
        }
    }

    /// 1.6.45 without options.
    const GENERAL: &str = "pid uptime time version libevent pointer_size rusage_user rusage_system max_connections \
        curr_connections total_connections rejected_connections connection_structures response_obj_oom \
        response_obj_count response_obj_bytes read_buf_count read_buf_bytes read_buf_bytes_free read_buf_oom \
        reserved_fds cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed \
        delete_misses delete_hits incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval \
        touch_hits touch_misses store_too_large store_no_memory auth_cmds auth_errors bytes_read bytes_written \
        limit_maxbytes accepting_conns listen_disabled_num time_in_listen_disabled_us threads conn_yields \
        hash_power_level hash_bytes hash_is_expanding slab_reassign_rescues slab_reassign_chunk_rescues \
        slab_reassign_inline_reclaim slab_reassign_busy_items slab_reassign_busy_deletes slab_reassign_busy_nomem \
        slab_reassign_last_busy_status slab_reassign_running slabs_moved lru_crawler_running lru_crawler_starts \
        lru_maintainer_juggles malloc_fails log_worker_dropped log_worker_written log_watcher_skipped \
        log_watcher_sent log_watchers unexpected_napi_ids round_robin_fallback bytes curr_items total_items \
        slab_global_page_pool expired_unfetched evicted_unfetched evicted_active evictions reclaimed \
        crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru \
        direct_reclaims lru_bumps_dropped";

    const SETTINGS: &str = "maxbytes maxconns tcpport udpport inter verbosity oldest evictions domain_socket umask \
        shutdown_command growth_factor chunk_size num_threads num_threads_per_udp stat_key_prefix detail_enabled \
        reqs_per_event cas_enabled tcp_backlog binding_protocol auth_enabled_sasl auth_enabled_ascii item_size_max \
        maxconns_fast hashpower_init slab_reassign slab_automove slab_automove_ratio slab_automove_window \
        slab_chunk_max lru_crawler lru_crawler_sleep lru_crawler_tocrawl tail_repair_time flush_enabled dump_enabled \
        hash_algorithm lru_maintainer_thread lru_segmented hot_lru_pct warm_lru_pct hot_max_factor warm_max_factor \
        temp_lru temporary_ttl idle_timeout watcher_logbuf_size worker_logbuf_size read_buf_mem_limit track_sizes \
        inline_ascii_response ssl_enabled ssl_chain_cert ssl_key ssl_verify_mode ssl_keyformat ssl_ciphers ssl_ca_cert \
        ssl_wbuf_size ssl_session_cache ssl_kernel_tls ssl_min_version num_napi_ids memory_file client_flags_size";

    #[test]
    fn general_has_memcacheds_names_in_its_order() {
        let general: Vec<&str> = GENERAL.split_whitespace().collect();
        assert_eq!(general.len(), 93);
        assert_eq!(names(&Cache::new("").ask("stats")), general);
        let without = |word: &str| general.iter().copied().filter(|name| !name.starts_with(word)).collect::<Vec<_>>();
        assert_eq!(
            names(&Cache::new("-o no_slab_reassign").ask("stats")),
            without("slab_reassign").into_iter().filter(|&name| name != "slabs_moved").collect::<Vec<_>>()
        );
        assert_eq!(names(&Cache::new("-o no_lru_crawler").ask("stats")), without("lru_crawler"));
        assert_eq!(names(&Cache::new("-o no_lru_crawler,no_lru_maintainer").ask("stats")).len(), 84);
        let idle = Cache::new("-o idle_timeout=5").ask("stats");
        assert_eq!(names(&idle)[45..47], ["idle_kicks", "bytes_read"]);
        let mut cache = Cache::new("");
        cache.ask("lru_crawler disable");
        assert_eq!(names(&cache.ask("stats")), without("lru_crawler"));
    }

    #[test]
    fn general_fits_in_the_buffer_of_collectd() {
        const MANY: u64 = u64::MAX / 8;
        let mut cache = Cache::new("-m 16777216 -o idle_timeout=5");
        let class = |id| {
            let counters = ClassCounters {
                hits_to_hot: MANY,
                cmd_set: MANY,
                delete_hits: MANY,
                incr_hits: MANY,
                decr_hits: MANY,
                cas_hits: MANY,
                cas_badval: MANY,
                touch_hits: MANY,
                evicted: MANY,
                evicted_unfetched: MANY,
                evicted_active: MANY,
                expired_unfetched: MANY,
                reclaimed: MANY,
                crawler_reclaimed: MANY,
                crawler_items_checked: MANY,
                moves_to_cold: MANY,
                moves_to_warm: MANY,
                moves_within_lru: MANY,
                direct_reclaims: MANY,
                ..ClassCounters::default()
            };
            ClassSnapshot { id, usage: ClassUse::default(), counters, counts: [0; 4], ages: [0; 4], evicted_age: 0 }
        };
        let counters = Counters {
            cmd_touch: MANY,
            cmd_meta: MANY,
            get_misses: MANY,
            get_expired: MANY,
            get_flushed: MANY,
            touch_misses: MANY,
            delete_misses: MANY,
            incr_misses: MANY,
            decr_misses: MANY,
            cas_misses: MANY,
            store_too_large: MANY,
            store_no_memory: MANY,
            total_items: MANY,
            slabs_moved: MANY,
            juggles: MANY,
            reassign_rescues: MANY,
            reassign_chunk_rescues: MANY,
            reassign_inline_reclaim: MANY,
            reassign_busy_items: MANY,
            reassign_busy_deletes: MANY,
            reassign_busy_nomem: MANY,
        };
        let snapshot = Snapshot {
            counters,
            classes: vec![class(ClassId(1))],
            curr_items: MANY,
            bytes: MANY,
            hash_bytes: MANY,
            hash_power: 32,
            hash_is_expanding: true,
            reassign_is_running: true,
            reassign_last_busy: Busy::Uploading,
        };
        for worker in &cache.workers {
            let (read, written) = (&worker.bytes_read, &worker.bytes_written);
            for counter in [read, written, &worker.conn_yields, &worker.idle_kicks, &worker.cmd_flush] {
                counter.set(MANY);
            }
            worker.given_connections.set(MANY);
            worker.buffer_bytes.set(MANY);
        }
        let server = &cache.server;
        for counter in [&server.total_connections, &server.rejected_connections, &server.listen_disabled_num] {
            counter.set(MANY);
        }
        let reply = general(&snapshot, &cache.context());
        assert!(reply.len() < 4096, "{}", reply.len());
        assert!(!cache.ask("stats").replace("END\r\n", "").contains("END"));
    }

    #[test]
    fn general_adds_up_shards_and_workers() {
        let mut cache = Cache::new("");
        cache.set(0, "a", NEVER, b"1");
        cache.set(1, "b", NEVER, b"12");
        cache.set(1, "b", NEVER, b"123");
        cache.shard(0).store.counters.get_misses = 5;
        cache.shard(1).store.counters.cmd_touch = 6;
        cache.workers[0].bytes_read.add(7);
        cache.workers[1].bytes_read.add(8);
        cache.workers[0].given_connections.add(3);
        cache.workers[1].given_connections.add(2);
        cache.workers[1].closed_connections.add(1);
        cache.server.listeners.set(1);
        cache.server.total_connections.set(5);
        let reply = cache.ask("stats");
        check_values(
            &reply,
            &[
                ("curr_items", 2),
                ("total_items", 3),
                ("get_hits", 3),
                ("get_misses", 5),
                ("cmd_get", 8),
                ("cmd_touch", 6),
                ("bytes_read", 15),
                ("curr_connections", 4),
                ("connection_structures", 5),
                ("total_connections", 5),
                ("threads", 2),
                ("read_buf_count", 2),
                ("limit_maxbytes", 64 << 20),
                ("pointer_size", 64),
                ("hash_power_level", 17),
            ],
        );
        assert!(value(&reply, "bytes") > 6 && value(&reply, "uptime") >= 2 && value(&reply, "time") > 1_700_000_000);
        assert!(reply.contains("STAT version 1.6.45\r\n"));
        cache.ask("stats reset");
        let kept = [("curr_items", 2), ("curr_connections", 4), ("bytes", value(&reply, "bytes"))];
        check_values(&cache.ask("stats"), &kept);
        let forgotten = ["total_items", "get_hits", "get_misses", "cmd_touch", "bytes_read", "total_connections"];
        check_values(&cache.ask("stats"), &forgotten.map(|name| (name, 0)));
    }

    #[test]
    fn times_have_six_digits_behind_the_point() {
        assert_eq!(micros(TimeVal::new(3, 45)), "3.000045");
        let reply = Cache::new("").ask("stats");
        for name in ["rusage_user ", "rusage_system "] {
            let time = reply.lines().find_map(|line| line.split_once(name)).expect("a line").1;
            let (seconds, micros) = time.split_once('.').expect("a point");
            assert!(seconds.parse::<u32>().is_ok() && micros.parse::<u32>().is_ok() && micros.len() == 6, "{time}");
        }
    }

    #[test]
    fn settings_have_memcacheds_names_in_its_order() {
        let reply = Cache::new("").ask("stats settings");
        assert_eq!(names(&reply), SETTINGS.split_whitespace().collect::<Vec<_>>());
        assert_eq!(Cache::new("").ask("stats s"), reply);
        for line in reply.lines().filter(|&line| line != "END") {
            assert_eq!(line.split(' ').filter(|word| !word.is_empty()).count(), 3, "{line}");
        }
    }

    #[test]
    fn settings_are_those_of_the_command_line_and_of_commands_since() {
        #[track_caller]
        fn check(flags: &str, commands: &[&str], expected: &[&str]) {
            let mut cache = Cache::new(flags);
            for command in commands {
                assert_eq!(cache.ask(command), "OK\r\n", "{command}");
            }
            let reply = cache.ask("stats settings");
            for line in expected {
                assert!(reply.contains(&format!("STAT {line}\r\n")), "{line} in {reply}");
            }
        }
        check(
            "",
            &[],
            &["maxbytes 67108864", "inter NULL", "domain_socket NULL", "umask 700", "oldest 0", "temporary_ttl 61"],
        );
        check(
            "-s /tmp/x -a 770 -M -D / -A -F -X -C -f 1.5 -R 7",
            &[],
            &[
                "domain_socket /tmp/x",
                "umask 770",
                "evictions off",
                "stat_key_prefix /",
                "detail_enabled yes",
                "shutdown_command yes",
                "flush_enabled no",
                "dump_enabled no",
                "cas_enabled no",
                "growth_factor 1.50",
                "reqs_per_event 7",
            ],
        );
        check(
            "-o temporary_ttl=9,hashpower=20,track_sizes",
            &[],
            &["temp_lru yes", "temporary_ttl 9", "hashpower_init 20", "track_sizes yes"],
        );
        check(
            "",
            &[
                "slabs automove 0",
                "slabs automove ratio 0.5",
                "slabs automove window 30",
                "lru tune 11 22 0.5 3",
                "lru temp_ttl 44",
                "lru_crawler sleep 5",
                "lru_crawler tocrawl 6",
                "lru_crawler disable",
                "stats detail on",
                "verbosity 9",
                "verbosity 1",
            ],
            &[
                "slab_automove 0",
                "slab_automove_ratio 0.50",
                "slab_automove_window 30",
                "hot_lru_pct 11",
                "warm_lru_pct 22",
                "hot_max_factor 0.50",
                "warm_max_factor 3.00",
                "temp_lru yes",
                "temporary_ttl 44",
                "lru_crawler no",
                "lru_crawler_sleep 5",
                "lru_crawler_tocrawl 6",
                "detail_enabled yes",
                "verbosity 1",
            ],
        );
    }

    const ITEMS: &str = "number number_hot number_warm number_cold age_hot age_warm age mem_requested evicted \
        evicted_nonzero evicted_time outofmemory tailrepairs reclaimed expired_unfetched evicted_unfetched \
        evicted_active crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm \
        moves_within_lru direct_reclaims hits_to_hot hits_to_warm hits_to_cold hits_to_temp";

    const SLABS: &str = "chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks free_chunks_end \
        get_hits cmd_set delete_hits incr_hits decr_hits cas_hits cas_badval touch_hits";

    #[test]
    fn classes_are_added_up_over_shards() {
        let mut cache = Cache::new("");
        cache.set(0, "a", NEVER, b"1");
        cache.set(1, "b", NEVER, b"1");
        cache.shard(1).store.set_now(crate::clock::Now(9));
        cache.set(1, "c", NEVER, &[b'x'; 1000]);
        let items = cache.ask("stats items");
        let ids: Vec<&str> = names(&items).into_iter().filter_map(|name| name.strip_suffix(":number")).collect();
        let &[small, large] = ids.as_slice() else { panic!("two classes in {items}") };
        let all = |class: &str| ITEMS.split_whitespace().map(|name| format!("{class}:{name}")).collect::<Vec<_>>();
        assert_eq!(names(&items), [all(small), all(large)].concat());
        check_values(
            &items,
            &[
                (&format!("{small}:number"), 2),
                (&format!("{small}:number_hot"), 2),
                (&format!("{small}:age_hot"), 7),
                (&format!("{small}:hits_to_hot"), 2),
                (&format!("{large}:number"), 1),
            ],
        );
        cache.ask("lru temp_ttl 10");
        assert!(cache.ask("stats items").contains(":number_temp 0\r\n"));

        let slabs = cache.ask("stats slabs");
        let id = |class: &str| class.strip_prefix("items:").expect("a class").to_owned();
        let all =
            |class: &str| SLABS.split_whitespace().map(|name| format!("{}:{name}", id(class))).collect::<Vec<_>>();
        let globals = vec![String::from("active_slabs"), String::from("total_malloced")];
        assert_eq!(names(&slabs), [all(small), all(large), globals].concat());
        check_values(
            &slabs,
            &[
                (&format!("{}:total_pages", id(small)), 2),
                (&format!("{}:used_chunks", id(small)), 2),
                (&format!("{}:get_hits", id(small)), 2),
                (&format!("{}:used_chunks", id(large)), 1),
                ("active_slabs", 2),
                ("total_malloced", 3 << 20),
            ],
        );
    }

    #[test]
    fn sizes_are_rounded_up_to_32_bytes() {
        let mut cache = Cache::new("-o track_sizes");
        cache.set(0, "a", NEVER, b"1");
        cache.set(1, "b", NEVER, b"1");
        cache.set(1, "c", NEVER, &[b'x'; 1000]);
        assert_eq!(cache.ask("stats sizes"), "STAT 32 2\r\nSTAT 1056 1\r\nEND\r\n");
    }

    #[test]
    fn what_is_told_in_pieces_is_told_once() {
        let mut cache = Cache::new("-o track_sizes");
        // More than a piece in one shard, fewer in the other.
        for (shard, count) in [(0, 1500), (1, 100)] {
            (0..count).for_each(|number| cache.set(shard, &format!("key-{shard}-{number:04}"), NEVER, b"12345678"));
        }
        assert_eq!(cache.ask("stats sizes"), "STAT 64 1600\r\nEND\r\n");

        let class = cache.ask("stats slabs").split(['\u{20}', ':']).nth(1).expect("a class").to_owned();
        cache.ask("lru tune 0 0 0.1 0.1");
        for shard in 0..2 {
            let store = &mut cache.shard(shard).store;
            for _ in 0..2 * store.housekeeping_round() {
                store.housekeep(1500, true);
            }
        }
        let dump = cache.ask(&format!("stats cachedump {class} 0"));
        let mut keys: Vec<&str> =
            dump.lines().filter_map(|line| line.strip_prefix("ITEM ")?.split(' ').next()).collect();
        assert_eq!((keys[0], keys[1], keys[1599]), ("key-0-1499", "key-1-0099", "key-0-0000"));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 1600);
        assert_eq!(cache.ask(&format!("stats cachedump {class} 1000")).lines().count(), 1001);
    }

    #[test]
    fn cold_items_come_from_all_shards_up_to_the_limit() {
        #[track_caller]
        fn check(limit: usize, bytes_max: usize, expected: &str) {
            let lines = |keys: &[&str]| keys.iter().map(|key| format!("{key}\r\n").into_bytes()).collect();
            let mut list = ColdItems::default();
            let mut is_full = list.add(&[lines(&["a", "b"]), lines(&["x"])], limit, bytes_max);
            if !is_full {
                is_full = list.add(&[lines(&["c"])], limit, bytes_max);
            }
            let reply = cold_items(vec![Answer::Done, Answer::List(list)]);
            let full = if is_full { "full" } else { "" };
            assert_eq!(String::from_utf8_lossy(&reply).replace("\r\n", " ") + full, expected);
        }
        check(9, 99, "a x b c END ");
        check(2, 99, "a x END full");
        check(3, 99, "a x b END full");
        check(4, 99, "a x b c END full");
        check(9, 12, "a x END full");
        check(9, 15, "a x b END full");
    }

    #[test]
    fn cold_items_are_shown_with_length_and_unix_time() {
        let mut cache = Cache::new("");
        cache.set(0, "a", NEVER, b"1");
        cache.set(0, "b", 100, b"123");
        let unix = cache.clock.unix(crate::clock::Now(100));
        let class = cache.ask("stats slabs").split(['\u{20}', ':']).nth(1).expect("a class").to_owned();
        cache.ask("lru tune 0 0 0.1 0.1");
        let line = format!("stats cachedump {class} 0");
        for _ in 0..cache.shard(0).store.housekeeping_round() {
            cache.shard(0).store.housekeep(10, true);
        }
        assert_eq!(cache.ask(&line), format!("ITEM b [3 b; {unix} s]\r\nITEM a [1 b; 0 s]\r\nEND\r\n"));
        assert_eq!(cache.ask(&format!("stats cachedump {class} 1")), format!("ITEM b [3 b; {unix} s]\r\nEND\r\n"));
    }
}
