//! `slabs`, `lru` and `lru_crawler`: commands that change settings of the store or walk through it.

use super::context::ServerContext;
use super::line::{BAD_CLASS, BAD_FORMAT, ERROR, OK, float, means};
use super::query::{Action, Answer, Query, ReplyKind, say};
use super::settings::Settings;
use super::walk::{Classes, Walk, WalkKind, WalkLimits};
use crate::protocol::token::{digits_i32, digits_u32};
use crate::store::rebalance::Reassigned;
use crate::store::slab::ClassId;
use crate::store::{LruTuning, Tuning};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) fn slabs(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    match arguments {
        [word, from, to] if means(word, "reassign") => reassign(from, to, context),
        [word, argument, rest @ ..] if means(word, "automove") => automove(argument, rest, context.settings),
        _ => say(ERROR),
    }
}

/// `slabs reassign`: a shard that can spare a page begins to move it. As in memcached, `OK` does not mean that the page
/// has arrived.
fn reassign(from: &[u8], to: &[u8], context: &ServerContext<'_>) -> Action {
    if !context.config.memory.slab_reassign {
        return say(b"CLIENT_ERROR slab reassignment disabled\r\n");
    }
    let (Some(from), Some(to)) = (digits_i32(from), digits_i32(to)) else { return say(BAD_FORMAT) };
    let classes = 0..=context.class_id_max() as i32;
    if from == to {
        say(b"SAME src and dst class are identical\r\n")
    } else if (from != -1 && !classes.contains(&from)) || !classes.contains(&to) {
        say(b"BADCLASS invalid src or dst class id\r\n")
    } else {
        let from = u8::try_from(from).ok().map(ClassId);
        Action::Ask(Query::Reassign { from, to: ClassId(to as u8), begun: Arc::default() }, ReplyKind::Reassigned)
    }
}

fn automove(argument: &[u8], rest: &[&[u8]], settings: &Settings) -> Action {
    let value = rest.first().copied();
    if means(argument, "ratio") {
        let Some(ratio) = value.and_then(float) else { return say(ERROR) };
        tune(settings, |tuning| tuning.automove.ratio = ratio)
    } else if means(argument, "freeratio") {
        let Some(ratio) = value.and_then(float) else { return say(ERROR) };
        tune(settings, |tuning| tuning.automove.free_ratio = ratio)
    } else if means(argument, "window") {
        match value.and_then(digits_u32) {
            Some(seconds @ 3..=1800) => tune(settings, |tuning| tuning.automove.window_seconds = seconds),
            Some(_) => say(b"CLIENT_ERROR automove window too low or too high\r\n"),
            None => say(BAD_FORMAT),
        }
    } else {
        match digits_u32(argument) {
            Some(level @ 0..=2) => tune(settings, |tuning| tuning.automove.level = level as u8),
            Some(_) => say(ERROR),
            None => say(BAD_FORMAT),
        }
    }
}

/// Changes settings of the store, and tells the shards to take them.
fn tune(settings: &Settings, change: impl FnOnce(&mut Tuning)) -> Action {
    change(&mut settings.tuning.lock());
    Action::Ask(Query::Tune(Arc::clone(&settings.tuning)), ReplyKind::Text(OK))
}

/// If any shard has begun, the reply is `OK`. Otherwise a busy shard takes precedence over a shard without a spare
/// page.
pub(super) fn reassigned(answers: &[Answer]) -> &'static [u8] {
    let any = |wanted| answers.iter().any(|answer| matches!(answer, Answer::Reassigned(came) if *came == wanted));
    if any(Reassigned::Started) {
        OK
    } else if any(Reassigned::Busy) {
        b"BUSY currently processing reassign request\r\n"
    } else if any(Reassigned::BadClass) {
        b"BADCLASS invalid src or dst class id\r\n"
    } else {
        b"NOSPARE source class has no spare pages\r\n"
    }
}

pub(super) fn lru(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    let maintained = context.config.memory.lru_maintainer;
    match arguments {
        [word, hot, warm, hot_factor, warm_factor, ..] if means(word, "tune") => {
            let (percents, factors) = ((digits_u32(hot), digits_u32(warm)), (float(hot_factor), float(warm_factor)));
            match (percents, factors) {
                ((Some(hot), Some(warm)), (Some(hot_factor), Some(warm_factor))) => {
                    lru_tune((hot, warm), (hot_factor, warm_factor), context.settings)
                }
                _ => say(ERROR),
            }
        }
        [word, mode, ..] if means(word, "mode") && maintained => match mode {
            mode if means(mode, "flat") => lru_mode(false, context.settings),
            mode if means(mode, "segmented") => lru_mode(true, context.settings),
            _ => say(ERROR),
        },
        [word, seconds, ..] if means(word, "temp_ttl") && maintained => match digits_i32(seconds) {
            Some(seconds) => temporary_ttl(u32::try_from(seconds).ok(), context.settings),
            None => say(ERROR),
        },
        _ => say(ERROR),
    }
}

fn lru_mode(segmented: bool, settings: &Settings) -> Action {
    tune(settings, |tuning| tuning.lru.segmented = segmented)
}

/// Takes the shares of HOT and WARM in percent, and the factors of their ages.
fn lru_tune(
    (hot_percent, warm_percent): (u32, u32),
    (hot_max_factor, warm_max_factor): (f64, f64),
    settings: &Settings,
) -> Action {
    if hot_percent.saturating_add(warm_percent) > 80 {
        return say(b"ERROR hot and warm pcts must not exceed 80\r\n");
    }
    if hot_max_factor <= 0.0 || warm_max_factor <= 0.0 {
        return say(b"ERROR hot/warm age factors must be greater than 0\r\n");
    }
    tune(settings, |tuning| {
        tuning.lru = LruTuning { hot_percent, warm_percent, hot_max_factor, warm_max_factor, ..tuning.lru };
    })
}

/// `None` switches TEMP off; `stats settings` keeps showing the last seconds.
fn temporary_ttl(seconds: Option<u32>, settings: &Settings) -> Action {
    if let Some(seconds) = seconds {
        settings.temporary_ttl_shown.store(seconds, Ordering::Relaxed);
    }
    tune(settings, |tuning| tuning.temporary_ttl = seconds)
}

/// As in memcached, `noreply` is one argument too many for all of these commands: they then do nothing, and do not
/// reply.
pub(super) fn lru_crawler(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    let ServerContext { config, settings, .. } = context;
    let enabled = settings.lru_crawler.load(Ordering::Relaxed);
    const DISABLED: &[u8] = b"CLIENT_ERROR lru crawler disabled\r\n";
    const CRAWL: &str = "crawl";
    const METADUMP: &str = "metadump";
    const MGDUMP: &str = "mgdump";
    say(match arguments {
        [word] if means(word, "enable") && enabled => b"ERROR failed to start lru crawler thread\r\n",
        [word] if means(word, "enable") => {
            settings.lru_crawler.store(true, Ordering::Relaxed);
            OK
        }
        [word] if means(word, "disable") => {
            settings.lru_crawler.store(false, Ordering::Relaxed);
            OK
        }
        [word, _] if [CRAWL, METADUMP, MGDUMP].iter().any(|walk| means(word, walk)) && !enabled => DISABLED,
        [word, classes] if means(word, CRAWL) => return walk(WalkKind::Crawl, classes, context),
        [word, _] if means(word, METADUMP) && !config.permissions.dump => b"ERROR metadump not allowed\r\n",
        [word, classes] if means(word, METADUMP) => return walk(WalkKind::Metadump, classes, context),
        [word, _] if means(word, MGDUMP) && !config.permissions.dump => b"ERROR key dump not allowed\r\n",
        [word, classes] if means(word, MGDUMP) => return walk(WalkKind::Mgdump, classes, context),
        [word, count] if means(word, "tocrawl") => match digits_u32(count) {
            Some(count) => {
                settings.lru_crawler_tocrawl.store(count, Ordering::Relaxed);
                OK
            }
            None => BAD_FORMAT,
        },
        [word, micros] if means(word, "sleep") => match digits_u32(micros) {
            Some(micros @ 0..=1_000_000) => {
                settings.lru_crawler_sleep.store(micros, Ordering::Relaxed);
                OK
            }
            Some(_) => b"CLIENT_ERROR sleep must be one second or less\r\n",
            None => BAD_FORMAT,
        },
        _ => ERROR,
    })
}

/// Begins a walk over `all` classes or over those of a list. Dumps accept `hash`, too: in memcached it chooses an
/// order, and every walk here has that order.
fn walk(kind: WalkKind, classes: &[u8], context: &ServerContext<'_>) -> Action {
    let ServerContext { config, settings, .. } = context;
    let classes = match classes {
        b"all" => Classes::ALL,
        b"hash" if kind == WalkKind::Crawl => return say(b"ERROR an unknown error happened\r\n"),
        b"hash" => Classes::ALL,
        list => match Classes::listed(list, context.class_id_max()) {
            None => return say(BAD_CLASS),
            Some(classes) if classes.is_empty() => return say(b"NOTSTARTED no items to crawl\r\n"),
            Some(classes) => classes,
        },
    };
    // As in memcached, a dump looks at all items, whatever `tocrawl` says.
    let tocrawl = if kind == WalkKind::Crawl { settings.lru_crawler_tocrawl.load(Ordering::Relaxed) } else { 0 };
    let limits = WalkLimits { items: config.turn.walk_items, bytes: config.turn.walk_bytes };
    Action::Walk(Walk::new(kind, classes, tocrawl, limits))
}
