//! `stats settings`.

use crate::admin::context::ServerContext;
use crate::admin::line::{Lines, Stats};
use crate::config::{Config, Listen};
use crate::net::certificates::KeyFormat;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// `stats settings`
pub(crate) fn settings(context: &ServerContext<'_>) -> Vec<u8> {
    let mut stats = Stats::default();
    put_settings(context, &mut stats);
    stats.end()
}

/// The names and values of `stats settings`.
pub fn setting_pairs(context: &ServerContext<'_>) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    put_settings(context, &mut pairs);
    pairs
}

fn put_settings(context: &ServerContext<'_>, stats: &mut impl Lines) {
    let ServerContext { config, settings, budget, .. } = *context;
    let unix = config.listen.sockets.iter().find_map(|listen| match listen {
        Listen::Unix { path, .. } => Some(path.display()),
        Listen::Loopback { .. } | Listen::Any { .. } | Listen::Host { .. } => None,
    });
    let yes = |is: bool| if is { "yes" } else { "no" };
    let on = |setting: &AtomicBool| yes(setting.load(Ordering::Relaxed));
    let hundredths = |value: f64| format!("{value:.2}");
    let tuning = *settings.tuning.lock();

    stats.put("maxbytes", budget.limit_bytes());
    stats.put("maxconns", config.connections.max);
    stats.put("tcpport", config.listen.tcp_port);
    stats.put("udpport", config.udp.port);
    stats.put("inter", config.listen.interface.as_deref().unwrap_or("NULL"));
    stats.put("verbosity", settings.verbosity.load(Ordering::Relaxed));
    stats.put("oldest", settings.oldest.load(Ordering::Relaxed));
    stats.put("evictions", if config.memory.evictions { "on" } else { "off" });
    match &unix {
        Some(path) => stats.put("domain_socket", path),
        None => stats.put("domain_socket", "NULL"),
    }
    stats.put("umask", format_args!("{:o}", config.listen.unix_mask));
    stats.put("shutdown_command", yes(config.permissions.shutdown));
    stats.put("growth_factor", hundredths(config.memory.growth_factor));
    stats.put("chunk_size", config.memory.chunk_size_min);
    stats.put("num_threads", config.workers.threads);
    stats.put("num_threads_per_udp", config.workers.threads);
    stats.put("stat_key_prefix", char::from(config.detail.delimiter));
    stats.put("detail_enabled", on(&settings.detail_enabled));
    stats.put("reqs_per_event", config.turn.requests);
    stats.put("cas_enabled", yes(config.memory.cas_enabled));
    stats.put("tcp_backlog", config.listen.backlog);
    stats.put("binding_protocol", config.listen.protocol);
    stats.put("auth_enabled_sasl", yes(config.login.sasl_file.is_some() || config.login.users_file.is_some()));
    match &config.login.text_file {
        Some(path) => stats.put("auth_enabled_ascii", path.display()),
        None => stats.put("auth_enabled_ascii", "no"),
    }
    stats.put("item_size_max", config.memory.item_size_max);
    stats.put("maxconns_fast", yes(config.connections.maxconns_fast));
    stats.put("hashpower_init", config.memory.hash_power.unwrap_or(0));
    stats.put("slab_reassign", yes(config.memory.slab_reassign));
    stats.put("slab_automove", tuning.automove.level);
    stats.put("slab_automove_ratio", hundredths(tuning.automove.ratio));
    stats.put("slab_automove_window", tuning.automove.window_seconds);
    stats.put("slab_chunk_max", config.memory.chunk_max_bytes);
    stats.put("lru_crawler", on(&settings.lru_crawler));
    stats.put("lru_crawler_sleep", settings.lru_crawler_sleep.load(Ordering::Relaxed));
    stats.put("lru_crawler_tocrawl", settings.lru_crawler_tocrawl.load(Ordering::Relaxed));
    stats.put("tail_repair_time", config.shown.tail_repair_time_seconds);
    stats.put("flush_enabled", yes(config.permissions.flush));
    stats.put("dump_enabled", yes(config.permissions.dump));
    stats.put("hash_algorithm", "ahash");
    stats.put("lru_maintainer_thread", yes(config.memory.lru_maintainer));
    stats.put("lru_segmented", yes(tuning.lru.segmented));
    stats.put("hot_lru_pct", tuning.lru.hot_percent);
    stats.put("warm_lru_pct", tuning.lru.warm_percent);
    stats.put("hot_max_factor", hundredths(tuning.lru.hot_max_factor));
    stats.put("warm_max_factor", hundredths(tuning.lru.warm_max_factor));
    stats.put("temp_lru", yes(tuning.temporary_ttl.is_some()));
    stats.put("temporary_ttl", settings.temporary_ttl_shown.load(Ordering::Relaxed));
    stats.put("idle_timeout", config.connections.idle_timeout_seconds);
    stats.put("watcher_logbuf_size", config.watch.watcher_bytes);
    stats.put("worker_logbuf_size", config.watch.worker_bytes);
    stats.put("read_buf_mem_limit", config.shown.read_buffers_limit_bytes);
    stats.put("track_sizes", yes(config.memory.track_sizes));
    stats.put("inline_ascii_response", "no");
    // Show this group with and without -Z, like every memcached that was built with TLS.
    tls_settings(stats, config);
    stats.put("num_napi_ids", config.workers.napi_ids);
    match &config.process.memory_file {
        Some(path) => stats.put("memory_file", path.display()),
        None => stats.put("memory_file", "(null)"),
    }
    // The size in bytes of a u32, as in memcached without LARGE_CLIENT_FLAGS.
    stats.put("client_flags_size", size_of::<u32>());
    // Only ours has this one. Without it the list is memcached's.
    if config.memory.keep {
        stats.put("keep_memory", "yes");
    }
}

/// Shows the group of `stats settings` about TLS. An option that was not given shows as `(null)` or `NULL`, as in
/// memcached.
fn tls_settings(stats: &mut impl Lines, config: &Config) {
    let tls = &config.tls.options;
    let yes = |is: bool| if is { "yes" } else { "no" };
    let path = |path: &Option<PathBuf>, otherwise: &str| {
        path.as_ref().map_or_else(|| otherwise.into(), |path| path.display().to_string())
    };
    stats.put("ssl_enabled", yes(config.tls.enabled));
    stats.put("ssl_chain_cert", path(&tls.chain, "(null)"));
    stats.put("ssl_key", path(&tls.key, "(null)"));
    stats.put("ssl_verify_mode", config.shown.tls_verify_bits);
    // OpenSSL numbers the formats so.
    stats.put("ssl_keyformat", if tls.key_format == KeyFormat::Pem { 1 } else { 2 });
    stats.put("ssl_ciphers", tls.ciphers.as_deref().unwrap_or("NULL"));
    stats.put("ssl_ca_cert", path(&tls.authorities, "NULL"));
    stats.put("ssl_wbuf_size", config.shown.tls_write_buffer_bytes);
    stats.put("ssl_session_cache", yes(tls.sessions_max > 0));
    stats.put("ssl_kernel_tls", yes(config.shown.tls_kernel));
    stats.put("ssl_min_version", format_args!("tlsv1.{}", config.shown.tls_min_version));
}
