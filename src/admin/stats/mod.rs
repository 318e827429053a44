//! `stats` and its sub-commands. They show memcached's names in memcached's order, with true values.
//!
//! Tools count these names and parse the values (the exporter's `rusage_*`, collectd's buffer of 4096 bytes), so the
//! list has not one name more and not one less. memcached also counts its response objects. We have none, so these
//! counts stay 0.

pub(super) mod classes;
pub(super) mod general;
pub(super) mod lists;
pub(super) mod measures;
pub(super) mod merge;
pub(super) mod settings;

use super::cold_items::{BYTES_MAX, LINE_MIN};
use super::context::ServerContext;
use super::flush_prefix;
use super::line::{BAD_FORMAT, ERROR, OK, means};
use super::query::{Action, Query, ReplyKind, say};
use crate::command::prefixes::Prefixes;
use crate::config::Config;
use crate::counters::WorkerCounters;
use crate::protocol::token::digits_u32;
use measures::HotList;
use std::sync::atomic::Ordering;
use std::time::Instant;

pub(super) fn plan(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    let Some((&word, rest)) = arguments.split_first() else { return Action::Ask(Query::Snapshot, ReplyKind::General) };
    match word {
        b"items" => Action::Ask(Query::Snapshot, ReplyKind::Items),
        b"slabs" => Action::Ask(Query::Snapshot, ReplyKind::Slabs),
        b"sizes" if context.config.memory.track_sizes => {
            Action::Ask(Query::Sizes { rest: Vec::new() }, ReplyKind::Sizes)
        }
        b"sizes" => say(b"STAT sizes_status disabled\r\nEND\r\n"),
        _ if means(word, "reset") => {
            reset_counters(context);
            Action::Ask(Query::ResetCounters, ReplyKind::Text(b"RESET\r\n"))
        }
        _ if means(word, "detail") => detail(rest, context),
        _ if means(word, "settings") => Action::Say(settings::settings(context)),
        _ if means(word, "cachedump") => cachedump(rest, context),
        b"flush_prefix" => flush_prefix::statistic(rest, context),
        b"udp" => Action::Say(general::udp(context)),
        b"uploads" => Action::Say(general::uploads(context)),
        b"leases" => Action::Say(general::leases(context)),
        b"latency" if rest.first() == Some(&&b"histogram"[..]) => Action::Say(measures::histogram(context)),
        b"latency" => Action::Say(measures::latency(context)),
        b"slow" => Action::Say(measures::slow(context)),
        b"hotkeys" => hot_keys(rest, context),
        b"bigkeys" => Action::Ask(Query::BigKeys, ReplyKind::BigKeys),
        b"prefixes" => Action::Say(measures::prefixes(context)),
        b"evictions" => Action::Ask(Query::Snapshot, ReplyKind::Evictions),
        _ if means(word, "conns") => Action::Ask(Query::Connections, ReplyKind::Lines),
        _ => say(ERROR),
    }
}

/// Does the part of `stats reset` outside the shards. It may lose a count that a worker makes at the same moment.
fn reset_counters(context: &ServerContext<'_>) {
    context.server.reset();
    context.workers.iter().for_each(WorkerCounters::reset);
    let now = Instant::now();
    context.measures.iter().for_each(|measures| measures.reset(now));
    context.settings.lru_crawler_starts.store(0, Ordering::Relaxed);
    context.settings.watchers.reset_counters();
}

fn detail(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    let ServerContext { config, settings, .. } = context;
    if !config.permissions.dump {
        return say(b"CLIENT_ERROR stats detail not allowed\r\n");
    }
    match arguments {
        [word, ..] if means(word, "on") => {
            settings.detail_enabled.store(true, Ordering::Relaxed);
            Action::Ask(Query::Detail(Some(no_prefixes(config))), ReplyKind::Text(OK))
        }
        [word, ..] if means(word, "off") => {
            settings.detail_enabled.store(false, Ordering::Relaxed);
            Action::Ask(Query::Detail(None), ReplyKind::Text(OK))
        }
        [word, ..] if means(word, "dump") => Action::Ask(Query::DetailDump, ReplyKind::Detail),
        _ => say(b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"),
    }
}

fn hot_keys(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    let list = match arguments {
        [] => HotList::Operations,
        [b"bytes", ..] => HotList::Bytes,
        [b"peaks", ..] => HotList::Peaks,
        _ => return say(b"CLIENT_ERROR usage: stats hotkeys [bytes|peaks]\r\n"),
    };
    Action::Say(measures::hot_keys(list, context))
}

fn no_prefixes(config: &Config) -> Prefixes {
    Prefixes::new(config.detail.delimiter, config.detail.prefixes_max)
}

fn cachedump(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    if !context.config.permissions.dump {
        return say(b"CLIENT_ERROR stats cachedump not allowed\r\n");
    }
    let [class, limit, ..] = arguments else { return say(b"CLIENT_ERROR bad command line\r\n") };
    let (Some(class), Some(limit)) = (digits_u32(class), digits_u32(limit)) else { return say(BAD_FORMAT) };
    if class > context.class_id_max() {
        return say(b"CLIENT_ERROR Illegal slab id\r\n");
    }
    let fitting = BYTES_MAX / LINE_MIN;
    let limit = if limit == 0 { fitting } else { fitting.min(limit as usize) };
    Action::Ask(Query::ColdItems { class: class as u8, limit, rest: Vec::new() }, ReplyKind::ColdItems)
}

#[cfg(test)]
mod tests;
