//! The metrics of memcached_exporter 0.16, by the same names, labels and types, so that its dashboards and alerts work. They
//! show the figures of `stats`, `stats items`, `stats slabs` and `stats settings`.

use super::exposition::Kind::{Counter, Gauge};
use super::exposition::Samples;
use super::process;
use super::view::{Metric, View};
use crate::config::MEMCACHED_VERSION;
use crate::counters::WorkerCounters;
use crate::store::ClassSnapshot;
use crate::store::lru::Segment;
use crate::store::stats::{ClassCounters, Counters};
use std::sync::atomic::Ordering;

/// Of the server.
pub(super) const SERVER: &[Metric] = &[
    Metric("memcached_up", Gauge, "Whether the server answers.", |_, out| out.one(true)),
    Metric("memcached_version", Gauge, "The version of memcached whose rules the server follows.", |_, out| {
        out.put(&[("version", MEMCACHED_VERSION)], 1_u64)
    }),
    Metric("memcached_uptime_seconds", Counter, "Seconds since the start.", |view, out| {
        out.one(view.context.now.uptime())
    }),
    Metric("memcached_time_seconds", Gauge, "The time of the server in Unix seconds.", |view, out| {
        out.one(view.context.clock.unix(view.context.now).max(0) as u64)
    }),
    Metric("memcached_process_user_cpu_seconds_total", Counter, "CPU time in user mode.", |_, out| {
        out.one(process::cpu_seconds()?.0)
    }),
    Metric("memcached_process_system_cpu_seconds_total", Counter, "CPU time in the kernel.", |_, out| {
        out.one(process::cpu_seconds()?.1)
    }),
    Metric("memcached_commands_total", Counter, "Commands by their outcome.", commands),
    Metric("memcached_current_bytes", Gauge, "Bytes of all items.", |view, out| out.one(view.total()?.bytes)),
    Metric("memcached_limit_bytes", Gauge, "Memory for items (-m), in bytes.", |view, out| {
        out.one(view.context.budget.limit_bytes())
    }),
    Metric("memcached_current_items", Gauge, "The number of items.", |view, out| out.one(view.total()?.curr_items)),
    Metric("memcached_items_total", Counter, "Items that were stored.", |view, out| {
        out.one(view.total()?.counters.total_items)
    }),
    Metric("memcached_items_evicted_total", Counter, "Items that were evicted before they expired.", |view, out| {
        out.one(view.classes()?.evicted)
    }),
    Metric("memcached_items_reclaimed_total", Counter, "Items stored in the memory of dead ones.", |view, out| {
        out.one(view.classes()?.reclaimed)
    }),
    Metric("memcached_item_too_large_total", Counter, "Items refused because of their size (-I).", |view, out| {
        out.one(view.total()?.counters.store_too_large)
    }),
    Metric("memcached_item_no_memory_total", Counter, "Items refused because memory was used up.", |view, out| {
        out.one(view.total()?.counters.store_no_memory)
    }),
    Metric("memcached_read_bytes_total", Counter, "Bytes from clients.", |view, out| {
        out.one(view.workers(|worker| worker.bytes_read.get()))
    }),
    Metric("memcached_written_bytes_total", Counter, "Bytes to clients.", |view, out| {
        out.one(view.workers(|worker| worker.bytes_written.get()))
    }),
    Metric(
        "memcached_current_connections",
        Gauge,
        "Open connections, and all listening sockets but one.",
        |view, out| {
            let listeners = view.context.server.listeners.get();
            out.one(view.workers(WorkerCounters::connections) + listeners.saturating_sub(1))
        },
    ),
    Metric("memcached_max_connections", Gauge, "The most connections at a time (-c).", |view, out| {
        out.one(view.context.config.connections.max)
    }),
    Metric("memcached_accepting_connections", Gauge, "Whether the server accepts connections.", |view, out| {
        out.one(view.context.server.listen_disabled.get() == 0)
    }),
    Metric("memcached_connections_total", Counter, "Connections that were accepted.", |view, out| {
        out.one(view.context.server.total_connections.get())
    }),
    Metric("memcached_connections_rejected_total", Counter, "Connections refused because of -c.", |view, out| {
        view.only_if(view.context.config.connections.maxconns_fast)?;
        out.one(view.context.server.rejected_connections.get())
    }),
    Metric(
        "memcached_connections_yielded_total",
        Counter,
        "Times that a connection waited for others (-R).",
        |view, out| out.one(view.workers(|worker| worker.conn_yields.get())),
    ),
    Metric("memcached_connections_listener_disabled_total", Counter, "Times that accepting rested.", |view, out| {
        out.one(view.context.server.listen_disabled_num.get())
    }),
    Metric("memcached_malloced_bytes", Gauge, "Bytes of the pages of all slab classes.", |view, out| {
        let pages: u64 = view.total()?.classes.iter().map(|class| class.usage.total_pages).sum();
        out.one(pages * view.context.budget.page_size() as u64)
    }),
    Metric("memcached_direct_reclaims_total", Counter, "Evictions that a store had to wait for.", |view, out| {
        view.only_if(view.context.config.memory.lru_maintainer)?;
        out.one(view.classes()?.direct_reclaims)
    }),
    Metric("memcached_round_robin_fallback_total", Counter, "Connections without a known queue (-N).", |view, out| {
        view.only_if(view.context.config.workers.napi_ids > 0)?;
        out.one(view.context.server.round_robin_fallback.get())
    }),
    Metric("memcached_unexpected_napi_ids_total", Counter, "Connections by a queue too many (-N).", |view, out| {
        view.only_if(view.context.config.workers.napi_ids > 0)?;
        out.one(view.context.server.unexpected_napi_ids.get())
    }),
];

/// Of the LRU and its crawler. Some are shown only while the crawler is on.
pub(super) const LRU: &[Metric] = &[
    Metric("memcached_lru_crawler_enabled", Gauge, "Whether the crawler is on.", |view, out| out.one(crawls(view))),
    Metric("memcached_lru_crawler_sleep", Gauge, "Microseconds between steps of a crawl.", |view, out| {
        view.only_if(crawls(view))?;
        out.one(view.context.settings.lru_crawler_sleep.load(Ordering::Relaxed))
    }),
    Metric("memcached_lru_crawler_to_crawl", Gauge, "Items of a class that a crawl looks at; 0: all.", |view, out| {
        view.only_if(crawls(view))?;
        out.one(view.context.settings.lru_crawler_tocrawl.load(Ordering::Relaxed))
    }),
    Metric("memcached_lru_crawler_maintainer_thread", Gauge, "Whether the LRU has segments.", |view, out| {
        view.only_if(crawls(view))?;
        out.one(view.context.config.memory.lru_maintainer)
    }),
    Metric(
        "memcached_lru_crawler_hot_percent",
        Gauge,
        "The part of a class that HOT may have, in percent.",
        |view, out| {
            view.only_if(crawls(view))?;
            out.one(view.context.settings.tuning.lock().lru.hot_percent)
        },
    ),
    Metric(
        "memcached_lru_crawler_warm_percent",
        Gauge,
        "The part of a class that WARM may have, in percent.",
        |view, out| {
            view.only_if(crawls(view))?;
            out.one(view.context.settings.tuning.lock().lru.warm_percent)
        },
    ),
    Metric(
        "memcached_lru_crawler_hot_max_factor",
        Gauge,
        "The most age of HOT, as a factor of COLD's.",
        |view, out| {
            view.only_if(crawls(view))?;
            out.one(view.context.settings.tuning.lock().lru.hot_max_factor)
        },
    ),
    Metric(
        "memcached_lru_crawler_warm_max_factor",
        Gauge,
        "The most age of WARM, as a factor of COLD's.",
        |view, out| {
            view.only_if(crawls(view))?;
            out.one(view.context.settings.tuning.lock().lru.warm_max_factor)
        },
    ),
    Metric("memcached_lru_crawler_starts_total", Counter, "Crawls that have begun.", |view, out| {
        view.only_if(crawls(view))?;
        out.one(view.context.settings.lru_crawler_starts.load(Ordering::Relaxed))
    }),
    Metric(
        "memcached_lru_crawler_reclaimed_total",
        Counter,
        "Dead items that housekeeping has removed.",
        |view, out| out.one(view.classes()?.crawler_reclaimed),
    ),
    Metric(
        "memcached_lru_crawler_items_checked_total",
        Counter,
        "Items that housekeeping has looked at.",
        |view, out| out.one(view.classes()?.crawler_items_checked),
    ),
    Metric("memcached_lru_crawler_moves_to_cold_total", Counter, "Items that moved to COLD.", |view, out| {
        view.only_if(view.context.config.memory.lru_maintainer)?;
        out.one(view.classes()?.moves_to_cold)
    }),
    Metric("memcached_lru_crawler_moves_to_warm_total", Counter, "Items that moved to WARM.", |view, out| {
        view.only_if(view.context.config.memory.lru_maintainer)?;
        out.one(view.classes()?.moves_to_warm)
    }),
    Metric(
        "memcached_lru_crawler_moves_within_lru_total",
        Counter,
        "Items that moved within a segment.",
        |view, out| {
            view.only_if(view.context.config.memory.lru_maintainer)?;
            out.one(view.classes()?.moves_within_lru)
        },
    ),
];

fn crawls(view: &View<'_>) -> bool {
    view.context.settings.lru_crawler.load(Ordering::Relaxed)
}

/// Of the slab classes with items, as in `stats items`.
pub(super) const ITEMS: &[Metric] = &[
    Metric("memcached_slab_current_items", Gauge, "Items of the class.", |view, out| {
        each(view, out, has_items, |class| class.counts.iter().sum())
    }),
    Metric(
        "memcached_slab_items_age_seconds",
        Gauge,
        "Seconds that the oldest item of COLD has idled.",
        |view, out| each(view, out, has_items, |class| class.ages[Segment::Cold as usize].into()),
    ),
    Metric(
        "memcached_slab_items_crawler_reclaimed_total",
        Counter,
        "Dead items that housekeeping has removed.",
        |view, out| each(view, out, has_items, |class| class.counters.crawler_reclaimed),
    ),
    Metric(
        "memcached_slab_items_evicted_total",
        Counter,
        "Items that were evicted before they expired.",
        |view, out| each(view, out, has_items, |class| class.counters.evicted),
    ),
    Metric("memcached_slab_items_evicted_nonzero_total", Counter, "Of these, those with an exptime.", |view, out| {
        each(view, out, has_items, |class| class.counters.evicted_nonzero)
    }),
    Metric(
        "memcached_slab_items_evicted_time_seconds",
        Counter,
        "Seconds that the item evicted last had idled.",
        |view, out| each(view, out, has_items, |class| class.evicted_age.into()),
    ),
    Metric(
        "memcached_slab_items_evicted_unfetched_total",
        Counter,
        "Items evicted that nobody had fetched.",
        |view, out| each(view, out, has_items, |class| class.counters.evicted_unfetched),
    ),
    Metric(
        "memcached_slab_items_expired_unfetched_total",
        Counter,
        "Items expired that nobody had fetched.",
        |view, out| each(view, out, has_items, |class| class.counters.expired_unfetched),
    ),
    Metric(
        "memcached_slab_items_outofmemory_total",
        Counter,
        "Items refused because memory was used up.",
        |view, out| each(view, out, has_items, |class| class.counters.outofmemory),
    ),
    Metric("memcached_slab_items_reclaimed_total", Counter, "Items stored in the memory of dead ones.", |view, out| {
        each(view, out, has_items, |class| class.counters.reclaimed)
    }),
    Metric(
        "memcached_slab_items_tailrepairs_total",
        Counter,
        "Always 0: items have no leaked references here.",
        |view, out| each(view, out, has_items, |_| 0),
    ),
    Metric("memcached_slab_mem_requested_bytes", Counter, "Bytes of the items of the class.", |view, out| {
        each(view, out, has_items, |class| class.counters.mem_requested)
    }),
    Metric("memcached_slab_items_moves_to_cold", Counter, "Items that moved to COLD.", |view, out| {
        each_segmented(view, out, |class| class.counters.moves_to_cold)
    }),
    Metric("memcached_slab_items_moves_to_warm", Counter, "Items that moved to WARM.", |view, out| {
        each_segmented(view, out, |class| class.counters.moves_to_warm)
    }),
    Metric("memcached_slab_items_moves_within_lru", Counter, "Items that moved within a segment.", |view, out| {
        each_segmented(view, out, |class| class.counters.moves_within_lru)
    }),
    Metric("memcached_slab_hot_items", Gauge, "Items of HOT.", |view, out| {
        each_segmented(view, out, |class| class.counts[Segment::Hot as usize])
    }),
    Metric("memcached_slab_warm_items", Gauge, "Items of WARM.", |view, out| {
        each_segmented(view, out, |class| class.counts[Segment::Warm as usize])
    }),
    Metric("memcached_slab_cold_items", Gauge, "Items of COLD.", |view, out| {
        each_segmented(view, out, |class| class.counts[Segment::Cold as usize])
    }),
    Metric("memcached_slab_temporary_items", Gauge, "Items of TEMP.", |view, out| {
        view.only_if(view.context.settings.tuning.lock().temporary_ttl.is_some())?;
        each_segmented(view, out, |class| class.counts[Segment::Temp as usize])
    }),
    Metric("memcached_slab_hot_age_seconds", Gauge, "Seconds that the oldest item of HOT has idled.", |view, out| {
        each_segmented(view, out, |class| class.ages[Segment::Hot as usize].into())
    }),
    Metric("memcached_slab_warm_age_seconds", Gauge, "Seconds that the oldest item of WARM has idled.", |view, out| {
        each_segmented(view, out, |class| class.ages[Segment::Warm as usize].into())
    }),
    Metric("memcached_slab_lru_hits_total", Counter, "Hits by segment of the item.", segment_hits),
];

/// Of the slab classes with pages, as in `stats slabs`.
pub(super) const PAGES: &[Metric] = &[
    Metric("memcached_slab_chunk_size_bytes", Gauge, "Bytes of a chunk.", |view, out| {
        each(view, out, has_pages, |class| class.usage.chunk_size.into())
    }),
    Metric("memcached_slab_chunks_per_page", Gauge, "Chunks of a page.", |view, out| {
        each(view, out, has_pages, |class| class.usage.chunks_per_page.into())
    }),
    Metric("memcached_slab_current_pages", Gauge, "Pages of the class.", |view, out| {
        each(view, out, has_pages, |class| class.usage.total_pages)
    }),
    Metric("memcached_slab_current_chunks", Gauge, "Chunks of the class.", |view, out| {
        each(view, out, has_pages, chunks)
    }),
    Metric("memcached_slab_chunks_used", Gauge, "Chunks with items.", |view, out| {
        each(view, out, has_pages, |class| class.usage.used_chunks)
    }),
    Metric("memcached_slab_chunks_free", Gauge, "Chunks without items.", |view, out| {
        each(view, out, has_pages, |class| chunks(class).saturating_sub(class.usage.used_chunks))
    }),
    Metric("memcached_slab_chunks_free_end", Gauge, "Always 0, as in memcached.", |view, out| {
        each(view, out, has_pages, |_| 0)
    }),
    Metric("memcached_slab_commands_total", Counter, "Commands by their outcome.", slab_commands),
];

fn has_items(class: &ClassSnapshot) -> bool {
    class.counts.iter().sum::<u64>() > 0
}

fn has_pages(class: &ClassSnapshot) -> bool {
    class.usage.total_pages > 0
}

fn chunks(class: &ClassSnapshot) -> u64 {
    class.usage.total_pages * u64::from(class.usage.chunks_per_page)
}

/// Puts a sample for each class that is shown.
fn each(
    view: &View<'_>,
    out: &mut Samples<'_>,
    is_shown: fn(&ClassSnapshot) -> bool,
    value: fn(&ClassSnapshot) -> u64,
) -> Option<()> {
    for class in view.total()?.classes.iter().filter(|class| is_shown(class)) {
        out.put(&[("slab", &class.id.0.to_string())], value(class));
    }
    Some(())
}

/// Puts a sample for each class with items, if the LRU has segments.
fn each_segmented(view: &View<'_>, out: &mut Samples<'_>, value: fn(&ClassSnapshot) -> u64) -> Option<()> {
    view.only_if(view.context.config.memory.lru_maintainer)?;
    each(view, out, has_items, value)
}

/// Commands of the whole server. memcached counts `cas` as `set` too.
fn commands(view: &View<'_>, out: &mut Samples<'_>) -> Option<()> {
    let (classes, counters): (&ClassCounters, &Counters) = (view.classes()?, &view.total()?.counters);
    let flushes = view.workers(|worker| worker.cmd_flush.get());
    let cas = classes.cas_hits + classes.cas_badval + counters.cas_misses;
    for (command, status, count) in [
        ("get", "hit", classes.get_hits()),
        ("get", "miss", counters.get_misses),
        ("delete", "hit", classes.delete_hits),
        ("delete", "miss", counters.delete_misses),
        ("incr", "hit", classes.incr_hits),
        ("incr", "miss", counters.incr_misses),
        ("decr", "hit", classes.decr_hits),
        ("decr", "miss", counters.decr_misses),
        ("cas", "hit", classes.cas_hits),
        ("cas", "miss", counters.cas_misses),
        ("cas", "badval", classes.cas_badval),
        ("touch", "hit", classes.touch_hits),
        ("touch", "miss", counters.touch_misses),
        ("set", "hit", classes.cmd_set.saturating_sub(cas)),
        ("flush", "hit", flushes),
    ] {
        out.put(&[("command", command), ("status", status)], count);
    }
    Some(())
}

fn slab_commands(view: &View<'_>, out: &mut Samples<'_>) -> Option<()> {
    for class in view.total()?.classes.iter().filter(|class| has_pages(class)) {
        let (slab, counters) = (class.id.0.to_string(), &class.counters);
        for (command, status, count) in [
            ("get", "hit", counters.get_hits()),
            ("delete", "hit", counters.delete_hits),
            ("incr", "hit", counters.incr_hits),
            ("decr", "hit", counters.decr_hits),
            ("cas", "hit", counters.cas_hits),
            ("cas", "badval", counters.cas_badval),
            ("touch", "hit", counters.touch_hits),
            ("set", "hit", counters.cmd_set.saturating_sub(counters.cas_hits + counters.cas_badval)),
        ] {
            out.put(&[("slab", &slab), ("command", command), ("status", status)], count);
        }
    }
    Some(())
}

fn segment_hits(view: &View<'_>, out: &mut Samples<'_>) -> Option<()> {
    view.only_if(view.context.config.memory.lru_maintainer)?;
    for class in view.total()?.classes.iter().filter(|class| has_items(class)) {
        let (slab, counters) = (class.id.0.to_string(), &class.counters);
        for (lru, hits) in [
            ("hot", counters.hits_to_hot),
            ("warm", counters.hits_to_warm),
            ("cold", counters.hits_to_cold),
            ("temporary", counters.hits_to_temp),
        ] {
            out.put(&[("slab", &slab), ("lru", lru)], hits);
        }
    }
    Some(())
}
