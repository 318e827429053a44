//! Commands of one connection or of the whole cache: a line becomes an [`Action`].
//!
//! Three steps, so that nothing here waits: [`plan`] reads the line where it came in, [`answer`] is called in each shard
//! that is asked, and [`finish`] writes the reply from all answers (see `stats.rs`). Replies and errors are memcached
//! 1.6.45's, and so is how a line is read: a sub-command may be cut short (`stats s`), what follows the last argument is
//! ignored, and `noreply` at the end silences all commands but `stats`, `watch`, `version` and `quit`.
//!
//! Wanted differences from memcached: those of `watch`, see `watch.rs`.

pub mod binary;
pub mod login;
pub mod stats;
pub mod walk;

use crate::auth::Auth;
use crate::clock::{Clock, NEVER, Now};
use crate::command::Shard;
use crate::command::prefixes::{PrefixCounts, Prefixes};
use crate::config::{self, Config, MEMCACHED_VERSION};
use crate::counters::{ServerCounters, UploadUse, WorkerCounters};
use crate::protocol::binary::Access;
use crate::protocol::packet::Head;
use crate::protocol::token::{Tokens, digits_i32, digits_u32};
use crate::store::Snapshot;
use crate::store::item::KEY_BINARY;
use crate::store::rebalance::Reassigned;
use crate::store::slab::{Budget, CLASSES_MAX, ClassId};
use crate::store::walk::{Place, Reader};
use crate::watch::{Categories, Watchers};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use walk::{Classes, Walk, WalkKind, WalkLimits};

/// What is asked of all shards, or of all workers.
#[derive(Clone, Debug)]
pub enum Query {
    /// Flush when the time comes, or at once.
    Flush(Option<Now>),
    /// No flush is to come.
    ForgetFlush,
    /// What is there and what was counted.
    Snapshot,
    /// Forget what was counted.
    ResetCounters,
    /// Start counting by prefix, with these, unless it is on; or stop.
    Detail(Option<Prefixes>),
    /// Counts by prefix.
    DetailDump,
    /// Items of a class, in pieces.
    ColdItems {
        /// The class.
        class: u8,
        /// Items, of all shards together.
        limit: usize,
        /// The shards that have more to tell, and how far they have come. Empty: nobody was asked yet.
        rest: Vec<(u16, Reader)>,
    },
    /// How many items there are of each size, in steps of 32 bytes, in pieces.
    Sizes {
        /// The shards that have more to tell, and how far they have come. Empty: nobody was asked yet.
        rest: Vec<(u16, Place)>,
    },
    /// `lru tune`: shares in percent, factors of age.
    LruTune {
        /// Share of HOT.
        hot_percent: u32,
        /// Share of WARM.
        warm_percent: u32,
        /// Age factor of HOT.
        hot_max_factor: f64,
        /// Age factor of WARM.
        warm_max_factor: f64,
    },
    /// `slabs reassign`: move a page, of the first shard that can.
    Reassign {
        /// From this class; from any if there is none.
        from: Option<ClassId>,
        /// To this class; 0: to the budget.
        to: ClassId,
        /// Whether a shard has begun: the others need not.
        begun: Arc<Mutex<bool>>,
    },
    /// `slabs automove`, as the settings now say.
    Automove {
        /// 0 off, 1 by a window of samples, 2 on every eviction.
        level: u8,
        /// Share of the donor's age.
        ratio: f64,
        /// Seconds of samples.
        window: u32,
        /// Share of pages that is kept free.
        free_ratio: f64,
    },
    /// `lru mode`: segmented, or flat.
    LruMode {
        /// Segmented.
        segmented: bool,
    },
    /// `lru temp_ttl`
    TemporaryTtl(Option<u32>),
    /// The connections of a worker: answered by workers, the rest by shards.
    Connections,
    /// `refresh_certs`: answered by the main thread.
    RefreshCertificates,
}

/// What a shard or a worker answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is done.
    Done,
    /// To `Snapshot`.
    Snapshot(Box<Snapshot>),
    /// To `Reassign`; [`Reassigned::NoSpare`] as well when another shard has begun already.
    Reassigned(Reassigned),
    /// To `DetailDump`.
    Prefixes(Vec<(Vec<u8>, PrefixCounts)>),
    /// To `Sizes`: counts by size, rounded up to 32 bytes, and where to go on if there is more.
    Sizes(BTreeMap<u32, u64>, Option<(u16, Place)>),
    /// To `ColdItems`: a line for each item, most recent first, and where to go on if there is more.
    Items(Vec<Vec<u8>>, Option<(u16, Reader)>),
    /// The answers to `ColdItems` so far.
    List(stats::ColdItems),
    /// To `Connections`: lines of the reply.
    Connections(Vec<Description>),
    /// To `RefreshCertificates`: why the old ones stay.
    Refreshed(Result<(), String>),
}

/// What the connection that asked is told when all have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// A fixed text; nothing when it is empty.
    Text(&'static [u8]),
    /// `slabs reassign`
    Reassigned,
    /// `stats`
    General,
    /// `stats items`
    Items,
    /// `stats slabs`
    Slabs,
    /// `stats evictions`
    Evictions,
    /// `stats sizes`
    Sizes,
    /// `stats detail dump`
    Detail,
    /// `stats cachedump`
    ColdItems,
    /// All lines, and `END`: `stats conns`.
    Lines,
    /// The same in packets, for who asked in one.
    Packets(Head, &'static ReplyKind),
    /// `refresh_certs`; with `noreply` only errors.
    Refreshed {
        /// With `noreply`.
        noreply: bool,
    },
}

/// What `stats conns` says of a connection, or of a listening socket.
#[derive(Clone, Debug)]
pub struct Description {
    /// It is a listening socket: those come first.
    pub accepts: bool,
    /// Its descriptor.
    pub fd: i32,
    /// Its lines.
    pub lines: String,
}

/// What a command line comes to.
#[derive(Clone, Debug)]
pub enum Action {
    /// This is the reply, with its terminator; nothing when it is empty.
    Say(Vec<u8>),
    /// Close the connection once earlier replies are sent.
    Quit,
    /// Ask all shards, or all workers, and report.
    Ask(Query, ReplyKind),
    /// Walk through the shards: `lru_crawler crawl`, `metadump`, `mgdump`.
    Walk(Box<Walk>),
    /// The client has shown who it is, or failed to: what it may do from now on, and the reply.
    Access(Access, Vec<u8>),
    /// Tell the connection what happens, of these categories; none: the words are no categories.
    Watch(Option<Categories>),
    /// Stop the server.
    Stop {
        /// `shutdown graceful`
        graceful: bool,
    },
}

/// Settings that commands change while the server runs.
#[derive(Debug)]
pub struct Settings {
    /// `verbosity`, 0–2 (3 from the command line). Change it by [`Settings::set_verbosity`].
    pub verbosity: AtomicU8,
    /// Count of the clock up to which the last `flush_all` flushes; 0: there was none. For `stats settings` only.
    pub oldest: AtomicU32,
    /// `stats detail on`: counting by prefix.
    pub detail_enabled: AtomicBool,
    /// `slabs automove`, 0–2.
    pub slab_automove: AtomicU8,
    /// `slabs automove ratio`
    pub slab_automove_ratio: AtomicF64,
    /// `slabs automove window`, in seconds.
    pub slab_automove_window: AtomicU32,
    /// `slabs automove freeratio`; 0: no page is kept free.
    pub slab_automove_free_ratio: AtomicF64,
    /// `lru mode segmented`
    pub lru_segmented: AtomicBool,
    /// `lru_crawler enable`: whether housekeeping looks for dead items.
    pub lru_crawler: AtomicBool,
    /// `lru_crawler sleep`, in microseconds.
    pub lru_crawler_sleep: AtomicU32,
    /// `lru_crawler tocrawl`
    pub lru_crawler_tocrawl: AtomicU32,
    /// Times a [`Walk`] was begun.
    pub lru_crawler_starts: AtomicU64,
    /// A [`Walk`] is under way: there is never another one.
    pub lru_crawler_running: AtomicBool,
    /// Who watches.
    pub watchers: Watchers,
    /// `lru tune`, in percent.
    pub hot_percent: AtomicU32,
    /// `lru tune`, in percent.
    pub warm_percent: AtomicU32,
    /// `lru tune`
    pub hot_max_factor: AtomicF64,
    /// `lru tune`
    pub warm_max_factor: AtomicF64,
    /// `lru temp_ttl`: there is a TEMP.
    pub temp_lru: AtomicBool,
    /// `lru temp_ttl`, in seconds.
    pub temporary_ttl: AtomicU32,
}

impl Settings {
    /// Those of the command line.
    pub fn new(config: &Config) -> Settings {
        Settings {
            verbosity: AtomicU8::new(config.verbosity),
            oldest: AtomicU32::new(0),
            detail_enabled: AtomicBool::new(config.detail_enabled),
            slab_automove: AtomicU8::new(config.slab_automove),
            slab_automove_ratio: AtomicF64::new(config.slab_automove_ratio),
            slab_automove_window: AtomicU32::new(config.slab_automove_window_seconds),
            slab_automove_free_ratio: AtomicF64::new(config.slab_automove_free_ratio),
            lru_segmented: AtomicBool::new(config.lru_maintainer),
            lru_crawler: AtomicBool::new(config.lru_crawler),
            lru_crawler_sleep: AtomicU32::new(config.lru_crawler_sleep_micros),
            lru_crawler_tocrawl: AtomicU32::new(config.lru_crawler_tocrawl),
            lru_crawler_starts: AtomicU64::new(0),
            lru_crawler_running: AtomicBool::new(false),
            watchers: Watchers::new(config.watchers_max),
            hot_percent: AtomicU32::new(config.hot_lru_percent),
            warm_percent: AtomicU32::new(config.warm_lru_percent),
            hot_max_factor: AtomicF64::new(config.hot_max_factor),
            warm_max_factor: AtomicF64::new(config.warm_max_factor),
            temp_lru: AtomicBool::new(config.temporary_ttl_seconds.is_some()),
            temporary_ttl: AtomicU32::new(config.temporary_ttl_seconds.unwrap_or(TEMPORARY_TTL_UNUSED)),
        }
    }

    /// As `-v` and `-vv`: what is logged from now on. More than 2 is 2, as in memcached.
    pub fn set_verbosity(&self, verbosity: u32) {
        let verbosity = verbosity.min(2) as u8;
        self.verbosity.store(verbosity, Ordering::Relaxed);
        log::set_max_level(config::log_level(verbosity));
    }
}

/// What memcached shows as `temporary_ttl` as long as there is no TEMP.
const TEMPORARY_TTL_UNUSED: u32 = 61;

/// A number that commands change now and then.
#[derive(Debug)]
pub struct AtomicF64(AtomicU64);

impl AtomicF64 {
    fn new(value: f64) -> AtomicF64 {
        AtomicF64(AtomicU64::new(value.to_bits()))
    }

    /// Its value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// What commands of the whole server see of it.
#[derive(Clone, Copy, Debug)]
pub struct ServerContext<'a> {
    /// The command line.
    pub config: &'a Config,
    /// What was changed since.
    pub settings: &'a Settings,
    /// The clock.
    pub clock: &'a Clock,
    /// The pages of the cache.
    pub budget: &'a Budget,
    /// Who may use it, if not everybody.
    pub auth: Option<&'a Auth>,
    /// By worker.
    pub workers: &'a [WorkerCounters],
    /// Its listening sockets: descriptor and address.
    pub listeners: &'a [(i32, String)],
    /// The listening side.
    pub server: &'a ServerCounters,
    /// The worker that asks: an index into `workers`.
    pub worker: usize,
    /// What long values under way take.
    pub uploads: UploadUse,
}

const OK: &[u8] = b"OK\r\n";
const ERROR: &[u8] = b"ERROR\r\n";
const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const BAD_CLASS: &[u8] = b"BADCLASS invalid class id\r\n";

/// Shortest line of `stats cachedump`: `ITEM k [0 b; 0 s]` with its terminator.
const COLD_ITEM_LINE_MIN: usize = 19;

/// Items that a shard looks at for one piece of an answer. A line takes longer than a count.
const SIZES_PER_PIECE: usize = 512;
const COLD_ITEMS_PER_PIECE: usize = 128;

/// Chunks of a page that is to be reassigned looked at before the reply; the rest is for housekeeping.
const REASSIGN_STEPS: u32 = 256;

/// What is to be done about a command line (without its terminator).
pub fn plan(line: &[u8], context: &ServerContext<'_>) -> Action {
    let tokens = Tokens::of(line);
    let Some((&command, arguments)) = tokens.all().split_first() else { return say(ERROR) };
    let plan = match command {
        b"version" => return Action::Say(format!("VERSION {MEMCACHED_VERSION}\r\n").into_bytes()),
        b"quit" => return Action::Quit,
        b"stats" => return stats(arguments, context),
        b"watch" if !context.config.watch_enabled => return say(b"CLIENT_ERROR watch commands not allowed\r\n"),
        b"watch" => return Action::Watch(Categories::named(arguments)),
        b"refresh_certs" => return refresh_certificates(tokens.noreply(), context.config),
        b"flush_all" => flush_all(arguments, context),
        b"verbosity" => verbosity(arguments, context.settings),
        b"cache_memlimit" => memory_limit(arguments, context.budget),
        b"shutdown" => shutdown(arguments, context.config),
        b"slabs" => slabs(arguments, context),
        b"lru" => lru(arguments, context),
        b"lru_crawler" => lru_crawler(arguments, context),
        #[cfg(feature = "debug-commands")]
        b"debugtime" => debugtime(arguments, context.clock),
        _ => say(ERROR),
    };
    match plan {
        Action::Say(_) if tokens.noreply() => say(b""),
        Action::Ask(query, ReplyKind::Text(_)) if tokens.noreply() => Action::Ask(query, ReplyKind::Text(b"")),
        plan => plan,
    }
}

fn say(text: &[u8]) -> Action {
    Action::Say(text.to_vec())
}

/// Whether a token is a word, or the beginning of one: memcached compares over the length of the token.
fn means(token: &[u8], word: &str) -> bool {
    word.as_bytes().starts_with(token)
}

pub(super) fn stats(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    let Some((&word, rest)) = arguments.split_first() else { return Action::Ask(Query::Snapshot, ReplyKind::General) };
    match word {
        b"items" => Action::Ask(Query::Snapshot, ReplyKind::Items),
        b"slabs" => Action::Ask(Query::Snapshot, ReplyKind::Slabs),
        b"sizes" if context.config.track_sizes => Action::Ask(Query::Sizes { rest: Vec::new() }, ReplyKind::Sizes),
        b"sizes" => say(b"STAT sizes_status disabled\r\nEND\r\n"),
        _ if means(word, "reset") => {
            reset_counters(context);
            Action::Ask(Query::ResetCounters, ReplyKind::Text(b"RESET\r\n"))
        }
        _ if means(word, "detail") => detail(rest, context),
        _ if means(word, "settings") => Action::Say(stats::settings(context)),
        _ if means(word, "cachedump") => cachedump(rest, context.config),
        b"udp" => Action::Say(stats::udp(context)),
        b"uploads" => Action::Say(stats::uploads(context)),
        b"evictions" => Action::Ask(Query::Snapshot, ReplyKind::Evictions),
        _ if means(word, "conns") => Action::Ask(Query::Connections, ReplyKind::Lines),
        _ => say(ERROR),
    }
}

/// `stats reset` outside the shards. A count that a worker makes at the same moment may be lost.
fn reset_counters(context: &ServerContext<'_>) {
    let server = context.server;
    for counter in [
        &server.total_connections,
        &server.rejected_connections,
        &server.listen_disabled_num,
        &server.unexpected_napi_ids,
        &server.round_robin_fallback,
    ] {
        counter.set(0);
    }
    for worker in context.workers {
        let WorkerCounters { bytes_read, bytes_written, conn_yields, idle_kicks, cmd_flush, .. } = worker;
        let WorkerCounters { auth_cmds, auth_errors, .. } = worker;
        for counter in [bytes_read, bytes_written, conn_yields, idle_kicks, cmd_flush, auth_cmds, auth_errors] {
            counter.set(0);
        }
        for counter in [&worker.ssl_new_sessions, &worker.ssl_handshake_errors, &worker.ssl_proto_errors] {
            counter.set(0);
        }
        let WorkerCounters { udp_requests, udp_malformed, udp_replies_withheld, udp_datagrams_dropped, .. } = worker;
        for counter in [udp_requests, udp_malformed, udp_replies_withheld, udp_datagrams_dropped] {
            counter.set(0);
        }
    }
    context.settings.lru_crawler_starts.store(0, Ordering::Relaxed);
    context.settings.watchers.reset_counters();
}

fn detail(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    let ServerContext { config, settings, .. } = context;
    if !config.dump_enabled {
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

fn no_prefixes(config: &Config) -> Prefixes {
    Prefixes::new(config.prefix_delimiter, config.prefixes_max)
}

fn cachedump(arguments: &[&[u8]], config: &Config) -> Action {
    if !config.dump_enabled {
        return say(b"CLIENT_ERROR stats cachedump not allowed\r\n");
    }
    let [class, limit, ..] = arguments else { return say(b"CLIENT_ERROR bad command line\r\n") };
    let (Some(class), Some(limit)) = (digits_u32(class), digits_u32(limit)) else { return say(BAD_FORMAT) };
    if class as usize > CLASSES_MAX {
        return say(b"CLIENT_ERROR Illegal slab id\r\n");
    }
    let fitting = stats::COLD_ITEMS_BYTES_MAX / COLD_ITEM_LINE_MIN;
    let limit = if limit == 0 { fitting } else { fitting.min(limit as usize) };
    Action::Ask(Query::ColdItems { class: class as u8, limit, rest: Vec::new() }, ReplyKind::ColdItems)
}

fn flush_all(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    context.workers[context.worker].cmd_flush.add(1);
    if !context.config.flush_enabled {
        return say(b"CLIENT_ERROR flush_all not allowed\r\n");
    }
    let exptime = match arguments {
        [] | [b"noreply"] => Some(0),
        [exptime, ..] => digits_i32(exptime),
    };
    let Some(exptime) = exptime else { return say(b"CLIENT_ERROR invalid exptime argument\r\n") };
    Action::Ask(flush(exptime, context), ReplyKind::Text(OK))
}

/// What to ask so that all is flushed that is older than this.
pub(super) fn flush(exptime: i32, context: &ServerContext<'_>) -> Query {
    let ServerContext { settings, clock, .. } = context;
    let now = clock.now();
    // What is flushed was stored in the second before the deadline, or earlier.
    let (query, oldest) = match exptime {
        1.. => match clock.deadline(exptime, now) - 1 {
            // Before the clock began: in memcached, "none".
            0 => (Query::ForgetFlush, 0),
            last => (Query::Flush(Some(Now(last))), last),
        },
        _ => (Query::Flush(None), now.0 - 1),
    };
    settings.oldest.store(oldest, Ordering::Relaxed);
    query
}

fn verbosity(arguments: &[&[u8]], settings: &Settings) -> Action {
    match arguments.first().and_then(|level| digits_u32(level)) {
        Some(level) => {
            settings.set_verbosity(level);
            say(OK)
        }
        None => say(BAD_FORMAT),
    }
}

/// Errors are told in spite of `noreply`.
fn refresh_certificates(noreply: bool, config: &Config) -> Action {
    match config.tls_enabled {
        true => Action::Ask(Query::RefreshCertificates, ReplyKind::Refreshed { noreply }),
        false => say(b"Error TLS not enabled\r\n"),
    }
}

fn refreshed(answers: Vec<Answer>, noreply: bool) -> Vec<u8> {
    let error = answers.into_iter().find_map(|answer| match answer {
        Answer::Refreshed(result) => result.err(),
        _ => None,
    });
    match error {
        Some(error) => format!("{error}\r\n").into_bytes(),
        None if noreply => Vec::new(),
        None => OK.to_vec(),
    }
}

fn memory_limit(arguments: &[&[u8]], budget: &Budget) -> Action {
    say(match arguments.first().and_then(|megabytes| digits_u32(megabytes)) {
        None => ERROR,
        Some(0..8) => b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n",
        Some(1_000_000_001..) => b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n",
        // A page is a megabyte.
        Some(megabytes) if budget.set_limit(megabytes) => OK,
        Some(_) => b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n",
    })
}

fn shutdown(arguments: &[&[u8]], config: &Config) -> Action {
    match arguments {
        // The colon is memcached's.
        _ if !config.shutdown_enabled => say(b"SERVER_ERROR: shutdown not enabled\r\n"),
        [] => Action::Stop { graceful: false },
        [word] if means(word, "graceful") => Action::Stop { graceful: true },
        _ => say(b"CLIENT_ERROR invalid shutdown mode\r\n"),
    }
}

fn slabs(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    match arguments {
        [word, from, to] if means(word, "reassign") => reassign(from, to, context.config),
        [word, argument, rest @ ..] if means(word, "automove") => automove(argument, rest, context.settings),
        _ => say(ERROR),
    }
}

/// `slabs reassign`: a shard that has a page to spare begins to move it. As in memcached, `OK` does not mean that the page
/// has arrived.
fn reassign(from: &[u8], to: &[u8], config: &Config) -> Action {
    if !config.slab_reassign {
        return say(b"CLIENT_ERROR slab reassignment disabled\r\n");
    }
    let (Some(from), Some(to)) = (digits_i32(from), digits_i32(to)) else { return say(BAD_FORMAT) };
    let classes = 0..=CLASSES_MAX as i32;
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
        settings.slab_automove_ratio.set(ratio);
    } else if means(argument, "freeratio") {
        let Some(ratio) = value.and_then(float) else { return say(ERROR) };
        settings.slab_automove_free_ratio.set(ratio);
    } else if means(argument, "window") {
        match value.and_then(digits_u32) {
            Some(seconds @ 3..=1800) => settings.slab_automove_window.store(seconds, Ordering::Relaxed),
            Some(_) => return say(b"CLIENT_ERROR automove window too low or too high\r\n"),
            None => return say(BAD_FORMAT),
        }
    } else {
        match digits_u32(argument) {
            Some(level @ 0..=2) => settings.slab_automove.store(level as u8, Ordering::Relaxed),
            Some(_) => return say(ERROR),
            None => return say(BAD_FORMAT),
        }
    }
    let query = Query::Automove {
        level: settings.slab_automove.load(Ordering::Relaxed),
        ratio: settings.slab_automove_ratio.get(),
        window: settings.slab_automove_window.load(Ordering::Relaxed),
        free_ratio: settings.slab_automove_free_ratio.get(),
    };
    Action::Ask(query, ReplyKind::Text(OK))
}

/// A finite number, at most 31 bytes long.
fn float(token: &[u8]) -> Option<f64> {
    let token = std::str::from_utf8(token).ok().filter(|token| token.len() < 32)?;
    token.parse().ok().filter(|number: &f64| number.is_finite())
}

fn lru(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
    let maintained = context.config.lru_maintainer;
    match arguments {
        [word, hot, warm, hot_factor, warm_factor, ..] if means(word, "tune") => {
            let (percents, factors) = ((digits_u32(hot), digits_u32(warm)), (float(hot_factor), float(warm_factor)));
            match (percents, factors) {
                ((Some(hot), Some(warm)), (Some(hot_factor), Some(warm_factor))) => {
                    tune((hot, warm), (hot_factor, warm_factor), context.settings)
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
    settings.lru_segmented.store(segmented, Ordering::Relaxed);
    Action::Ask(Query::LruMode { segmented }, ReplyKind::Text(OK))
}

fn tune(percents: (u32, u32), factors: (f64, f64), settings: &Settings) -> Action {
    let ((hot_percent, warm_percent), (hot_max_factor, warm_max_factor)) = (percents, factors);
    if hot_percent.saturating_add(warm_percent) > 80 {
        return say(b"ERROR hot and warm pcts must not exceed 80\r\n");
    }
    if hot_max_factor <= 0.0 || warm_max_factor <= 0.0 {
        return say(b"ERROR hot/warm age factors must be greater than 0\r\n");
    }
    settings.hot_percent.store(hot_percent, Ordering::Relaxed);
    settings.warm_percent.store(warm_percent, Ordering::Relaxed);
    settings.hot_max_factor.set(hot_max_factor);
    settings.warm_max_factor.set(warm_max_factor);
    let query = Query::LruTune { hot_percent, warm_percent, hot_max_factor, warm_max_factor };
    Action::Ask(query, ReplyKind::Text(OK))
}

/// None: there is no TEMP; the seconds shown stay.
fn temporary_ttl(seconds: Option<u32>, settings: &Settings) -> Action {
    settings.temp_lru.store(seconds.is_some(), Ordering::Relaxed);
    if let Some(seconds) = seconds {
        settings.temporary_ttl.store(seconds, Ordering::Relaxed);
    }
    Action::Ask(Query::TemporaryTtl(seconds), ReplyKind::Text(OK))
}

/// As in memcached, `noreply` is one argument too many for all of these: they do nothing then, in silence.
fn lru_crawler(arguments: &[&[u8]], context: &ServerContext<'_>) -> Action {
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
        [word, _] if means(word, METADUMP) && !config.dump_enabled => b"ERROR metadump not allowed\r\n",
        [word, classes] if means(word, METADUMP) => return walk(WalkKind::Metadump, classes, context),
        [word, _] if means(word, MGDUMP) && !config.dump_enabled => b"ERROR key dump not allowed\r\n",
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

/// Over `all` classes, those of a list, or, for the dumps, `hash`: memcached's word for an order that is always ours.
fn walk(kind: WalkKind, classes: &[u8], context: &ServerContext<'_>) -> Action {
    let ServerContext { config, settings, .. } = context;
    let classes = match classes {
        b"all" => Classes::ALL,
        b"hash" if kind == WalkKind::Crawl => return say(b"ERROR an unknown error happened\r\n"),
        b"hash" => Classes::ALL,
        list => match Classes::listed(list) {
            None => return say(BAD_CLASS),
            Some(classes) if classes.is_empty() => return say(b"NOTSTARTED no items to crawl\r\n"),
            Some(classes) => classes,
        },
    };
    // As in memcached, a dump looks at all items, whatever `tocrawl` says.
    let tocrawl = if kind == WalkKind::Crawl { settings.lru_crawler_tocrawl.load(Ordering::Relaxed) } else { 0 };
    let limits = WalkLimits { items: config.walk_items_per_turn, bytes: config.walk_bytes_per_turn };
    Action::Walk(Walk::new(kind, classes, tocrawl, limits))
}

/// `debugtime p`, `debugtime r`, `debugtime <seconds>`
#[cfg(feature = "debug-commands")]
fn debugtime(arguments: &[&[u8]], clock: &Clock) -> Action {
    let seconds = |token: &[u8]| std::str::from_utf8(token).ok()?.parse().ok();
    match arguments {
        [b"p", ..] => clock.pause(),
        [b"r", ..] => clock.resume(),
        [token, ..] if let Some(count) = seconds(token) => clock.advance(count),
        _ => return say(ERROR),
    }
    say(OK)
}

/// The answer of a shard. [`Query::Connections`] and [`Query::RefreshCertificates`] are not for shards.
pub fn answer(shard: &mut Shard, query: &Query, clock: &Clock) -> Answer {
    let store = &mut shard.store;
    match query {
        &Query::Flush(Some(at)) => store.flush_at(at),
        // Its clock may be a turn behind that of who asks.
        Query::Flush(None) => store.flush_at(Now(store.now().0 - 1)),
        Query::ForgetFlush => store.forget_flush(),
        Query::Snapshot => return Answer::Snapshot(Box::new(store.snapshot())),
        Query::ResetCounters => {
            store.reset_counters();
            if let Some(prefixes) = &mut shard.prefixes {
                prefixes.clear();
            }
        }
        Query::Detail(None) => {
            if let Some(prefixes) = &mut shard.prefixes {
                prefixes.on = false;
            }
        }
        Query::Detail(Some(prefixes)) => shard.prefixes.get_or_insert_with(|| prefixes.clone()).on = true,
        Query::DetailDump => {
            let prefixes = shard.prefixes.iter().flat_map(Prefixes::iter);
            return Answer::Prefixes(prefixes.map(|(prefix, counts)| (prefix.to_vec(), counts)).collect());
        }
        Query::ColdItems { class, rest, .. } => {
            let Some(mut reader) = place_in(rest, shard) else { return Answer::Done };
            let (lines, more) = cold_items(shard, ClassId(*class), &mut reader, clock);
            return Answer::Items(lines, more.then_some((shard.number, reader)));
        }
        Query::Reassign { from, to, begun } => {
            let mut begun = begun.lock();
            if *begun {
                return Answer::Reassigned(Reassigned::NoSpare);
            }
            let reassigned = store.reassign(*from, *to);
            *begun = reassigned == Reassigned::Started;
            drop(begun);
            store.move_pages(REASSIGN_STEPS);
            return Answer::Reassigned(reassigned);
        }
        &Query::LruMode { segmented } => store.options_mut().segmented = segmented,
        &Query::Automove { level, ratio, window, free_ratio } => {
            let options = store.options_mut();
            options.automove = level;
            options.automove_ratio = ratio;
            options.automove_window = window;
            options.automove_free_ratio = free_ratio;
        }
        Query::Sizes { rest } => {
            let Some(place) = place_in(rest, shard) else { return Answer::Done };
            let (counts, next) = sizes(shard, place);
            return Answer::Sizes(counts, next.map(|place| (shard.number, place)));
        }
        &Query::LruTune { hot_percent, warm_percent, hot_max_factor, warm_max_factor } => {
            let options = store.options_mut();
            options.hot_percent = hot_percent;
            options.warm_percent = warm_percent;
            options.hot_max_factor = hot_max_factor;
            options.warm_max_factor = warm_max_factor;
        }
        &Query::TemporaryTtl(seconds) => store.options_mut().temporary_ttl = seconds,
        Query::Connections => unreachable!("workers answer for their connections"),
        Query::RefreshCertificates => unreachable!("the main thread has them"),
    }
    Answer::Done
}

/// Where a shard goes on with its answer; none: it has told all.
fn place_in<T: Copy + Default>(rest: &[(u16, T)], shard: &Shard) -> Option<T> {
    match rest {
        [] => Some(T::default()),
        rest => rest.iter().find(|(number, _)| *number == shard.number).map(|&(_, place)| place),
    }
}

/// What remains to be asked once all shards have answered: a query that takes a shard as long as it has items is
/// answered in pieces, between which others are served. The answers so far become one.
pub fn go_on(query: &Query, answers: &mut Vec<Answer>) -> Option<Query> {
    match query {
        Query::Sizes { .. } => {
            let (mut total, mut rest) = (BTreeMap::new(), Vec::new());
            for answer in answers.drain(..) {
                if let Answer::Sizes(counts, more) = answer {
                    counts.into_iter().for_each(|(size, count)| *total.entry(size).or_insert(0) += count);
                    rest.extend(more);
                }
            }
            answers.push(Answer::Sizes(total, None));
            (!rest.is_empty()).then_some(Query::Sizes { rest })
        }
        &Query::ColdItems { class, limit, .. } => {
            let (mut list, mut pieces, mut rest) = (stats::ColdItems::default(), Vec::new(), Vec::new());
            for answer in answers.drain(..) {
                match answer {
                    Answer::List(before) => list = before,
                    Answer::Items(lines, more) => {
                        pieces.push(lines);
                        rest.extend(more);
                    }
                    _ => {}
                }
            }
            let is_full = list.add(&pieces, limit, stats::COLD_ITEMS_BYTES_MAX);
            answers.push(Answer::List(list));
            (!is_full && !rest.is_empty()).then_some(Query::ColdItems { class, limit, rest })
        }
        _ => None,
    }
}

/// `ITEM <key> [<bytes> b; <exptime> s]`, exptime as Unix time, 0 for never. A key that was sent in base64 may hold any
/// byte; those that would tear the line are %-escaped. A piece of them, and whether there are more.
fn cold_items(shard: &Shard, class: ClassId, reader: &mut Reader, clock: &Clock) -> (Vec<Vec<u8>>, bool) {
    let mut lines = Vec::with_capacity(COLD_ITEMS_PER_PIECE);
    let more = shard.store.read_class(class, reader, COLD_ITEMS_PER_PIECE, |id| {
        let item = shard.store.item(id);
        let mut line = b"ITEM ".to_vec();
        for &byte in item.key() {
            if item.state() & KEY_BINARY != 0 && !byte.is_ascii_graphic() {
                line.extend_from_slice(format!("%{byte:02X}").as_bytes());
            } else {
                line.push(byte);
            }
        }
        let unix = if item.exptime() == NEVER { 0 } else { clock.unix(Now(item.exptime())) };
        line.extend_from_slice(format!(" [{} b; {unix} s]\r\n", item.value_len()).as_bytes());
        lines.push(line);
    });
    (lines, more)
}

/// A piece of the counts, and where to go on if there is more.
fn sizes(shard: &Shard, place: Place) -> (BTreeMap<u32, u64>, Option<Place>) {
    let mut counts = BTreeMap::new();
    let next = shard.store.survey(place, SIZES_PER_PIECE, |id| {
        let size = shard.store.size_of(id).next_multiple_of(32);
        *counts.entry(size as u32).or_default() += 1;
    });
    (counts, next)
}

/// The reply, once all have answered.
pub fn finish(report: &ReplyKind, answers: Vec<Answer>, context: &ServerContext<'_>) -> Vec<u8> {
    match report {
        ReplyKind::Text(text) => text.to_vec(),
        ReplyKind::Reassigned => reassigned(&answers).to_vec(),
        ReplyKind::General => stats::general(&stats::merge(answers), context),
        ReplyKind::Items => stats::items(&stats::merge(answers), context),
        ReplyKind::Slabs => stats::slabs(&stats::merge(answers)),
        ReplyKind::Evictions => stats::evictions(&stats::merge(answers)),
        ReplyKind::Sizes => stats::sizes(answers),
        ReplyKind::Detail => stats::detail(answers),
        ReplyKind::ColdItems => stats::cold_items(answers),
        ReplyKind::Lines => stats::lines(answers),
        ReplyKind::Packets(head, report) => binary::packets(*head, report, &finish(report, answers, context)),
        ReplyKind::Refreshed { noreply } => refreshed(answers, *noreply),
    }
}

/// One shard that begins will do, and one that is busy is more to tell than one without a page to spare.
fn reassigned(answers: &[Answer]) -> &'static [u8] {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::command::Reply;
    use crate::hash::KeyHasher;
    use crate::protocol::Limits;
    use crate::store::item::Items;
    use crate::store::slab::SlabOptions;
    use crate::store::{Store, StoreOptions, arena::Arena};

    /// A cache of two shards and two workers, without sockets.
    pub(crate) struct Cache {
        pub(crate) config: Config,
        pub(crate) settings: Settings,
        pub(crate) clock: Clock,
        pub(crate) workers: [WorkerCounters; 2],
        pub(crate) server: ServerCounters,
        budget: Arc<Budget>,
        hasher: KeyHasher,
        shards: Vec<Shard>,
    }

    impl Cache {
        pub(crate) fn new(flags: &str) -> Cache {
            let words = ["corecached", "-t", "2", "-m", "64"].into_iter().chain(flags.split_ascii_whitespace());
            let config = Config::parse_from(words.map(Into::into)).expect("good flags");
            let arena = Arc::new(Arena::reserve(100, false).expect("address space"));
            let budget = Arc::new(Budget::new(64, 2, &arena));
            let hasher = KeyHasher::seeded(7);
            let shard = |number: u16| {
                let items = Items::new(Arc::clone(&arena), true);
                let options = StoreOptions { slabs: SlabOptions::default(), ..StoreOptions::default() };
                let store = Store::new(usize::from(number), options, items, Arc::clone(&budget), hasher.clone());
                let limits = Limits { item_size_max: 1 << 20, cas: true, inline_max: 2048 };
                Shard { number, store: store.expect("address space"), limits, prefixes: None }
            };
            let shards = vec![shard(0), shard(1)];
            let (workers, server) = (Default::default(), ServerCounters::default());
            let settings = Settings::new(&config);
            Cache { config, settings, clock: Clock::start(), workers, server, budget, hasher, shards }
        }

        pub(crate) fn context(&self) -> ServerContext<'_> {
            ServerContext {
                config: &self.config,
                settings: &self.settings,
                clock: &self.clock,
                budget: &self.budget,
                auth: None,
                workers: &self.workers,
                listeners: &[],
                server: &self.server,
                worker: 1,
                uploads: UploadUse::default(),
            }
        }

        pub(crate) fn shard(&mut self, number: usize) -> &mut Shard {
            &mut self.shards[number]
        }

        /// Stores a value in a shard, and fetches it once.
        pub(crate) fn set(&mut self, number: usize, key: &str, deadline: u32, value: &[u8]) {
            let hash = self.hasher.hash(key.as_bytes());
            let store = &mut self.shards[number].store;
            let old = store.find(hash, key.as_bytes()).ok().map(|entry| entry.id);
            let id = store.put(hash, key.as_bytes(), 0, deadline, value, old).expect("memory");
            store.hit(id);
        }

        fn has(&mut self, number: usize, key: &str) -> bool {
            self.shards[number].store.find(self.hasher.hash(key.as_bytes()), key.as_bytes()).is_ok()
        }

        /// The reply to a line.
        pub(crate) fn ask(&mut self, line: &str) -> String {
            let reply = match plan(line.as_bytes(), &self.context()) {
                Action::Say(text) => text,
                Action::Quit => b"<quit>\r\n".to_vec(),
                Action::Access(..) => unreachable!("no line gives access"),
                Action::Watch(categories) => format!("<watch: {categories:?}>\r\n").into_bytes(),
                Action::Walk(mut walk) => {
                    let mut reply = Reply::default();
                    while let Some(shard) = self.shards.get_mut(walk.shard) {
                        walk.step(shard, &self.clock, &mut reply);
                    }
                    reply.out.put(walk.terminator());
                    if walk.kind == WalkKind::Crawl { OK.to_vec() } else { reply.out.take() }
                }
                Action::Stop { graceful } => format!("<stop, graceful: {graceful}>\r\n").into_bytes(),
                Action::Ask(Query::Connections, report) => {
                    let description = |accepts, fd| Description { accepts, fd, lines: format!("STAT {fd}:addr x\r\n") };
                    let answers = [
                        vec![description(false, 3), description(false, 1)],
                        vec![],
                        vec![description(false, 2), description(true, 4)],
                    ];
                    let answers = answers.into_iter().map(Answer::Connections).collect();
                    finish(&report, answers, &self.context())
                }
                Action::Ask(mut query, report) => {
                    let mut answers = Vec::new();
                    loop {
                        answers.extend(self.shards.iter_mut().map(|shard| answer(shard, &query, &self.clock)));
                        let Some(rest) = go_on(&query, &mut answers) else { break };
                        query = rest;
                    }
                    finish(&report, answers, &self.context())
                }
            };
            String::from_utf8(reply).expect("text")
        }
    }

    /// Lines and their replies; `BCLF` is memcached's most frequent error, and nothing is no reply.
    #[track_caller]
    fn check(flags: &str, talk: &str) {
        let mut cache = Cache::new(flags);
        for row in talk.trim().lines() {
            let (line, expected) = row.split_once(" =>").expect("line => reply");
            let expected = match expected.trim() {
                "" => String::new(),
                "BCLF" => String::from("CLIENT_ERROR bad command line format\r\n"),
                text => text.replace(" | ", "\r\n") + "\r\n",
            };
            assert_eq!(cache.ask(line.trim_start()), expected, "{row}");
        }
    }

    #[test]
    fn commands_of_a_connection() {
        check(
            "",
            "
            version => VERSION 1.6.45
            version foo bar => VERSION 1.6.45
            version noreply => VERSION 1.6.45
            quit => <quit>
            quit noreply => <quit>
            verbosity => BCLF
            verbosity noreply =>
            verbosity 0 noreply =>
            verbosity 1 => OK
            verbosity 1 2 => OK
            verbosity 99 => OK
            verbosity foo => BCLF
            verbosity foo bar my => BCLF
            verbosity -1 => BCLF
            verbosity 0 => OK
            refresh_certs => Error TLS not enabled
            misbehave => ERROR
            nonsense noreply =>
            ",
        );
    }

    #[test]
    fn flushing() {
        check(
            "",
            "
            flush_all => OK
            flush_all 0 => OK
            flush_all -5 => OK
            flush_all noreply =>
            flush_all 10 noreply =>
            flush_all x => CLIENT_ERROR invalid exptime argument
            flush_all x noreply =>
            flush_all noreply 1 => CLIENT_ERROR invalid exptime argument
            flush_all 1 2 3 => OK
            ",
        );
        check("-F", "flush_all => CLIENT_ERROR flush_all not allowed\n flush_all noreply =>");
        let mut cache = Cache::new("");
        cache.set(0, "a", NEVER, b"1");
        cache.ask("flush_all 100");
        let oldest = cache.settings.oldest.load(Ordering::Relaxed);
        assert_eq!(oldest, cache.clock.now().0 + 99);
        assert!(cache.ask("stats items").contains("number 1"));
        cache.shard(0).store.set_now(Now(oldest));
        assert!(!cache.has(0, "a"));
        assert_eq!((cache.workers[0].cmd_flush.get(), cache.workers[1].cmd_flush.get()), (0, 1));
    }

    #[test]
    fn a_flush_that_was_due_before_the_clock_began_keeps_all() {
        for (exptime, kept) in [(2_592_001, true), (1_000_000_000, true), (0, false), (-60, false), (-64, true)] {
            let mut cache = Cache::new("");
            cache.set(0, "a", NEVER, b"1");
            let now = cache.clock.now();
            cache.shard(0).store.set_now(now);
            let exptime = if exptime > 0 { exptime } else { cache.clock.unix(now) + exptime };
            cache.ask("flush_all 10");
            assert_eq!(cache.ask(&format!("flush_all {exptime}")), "OK\r\n");
            assert_eq!(cache.has(0, "a"), kept, "{exptime}");
            assert_eq!(cache.settings.oldest.load(Ordering::Relaxed) == 0, kept, "{exptime}");
            cache.shard(0).store.set_now(Now(now.0 + 20));
            assert_eq!(cache.has(0, "a"), kept, "{exptime}");
        }
    }

    #[test]
    fn a_flush_takes_effect_at_once_in_a_store_whose_clock_is_behind() {
        let mut cache = Cache::new("");
        cache.clock.advance(5);
        cache.set(0, "a", NEVER, b"1");
        assert_eq!(cache.ask("flush_all"), "OK\r\n");
        assert!(!cache.has(0, "a"));
    }

    #[test]
    fn memory_limit() {
        check(
            "",
            "
            cache_memlimit => ERROR
            cache_memlimit x => ERROR
            cache_memlimit -1 => ERROR
            cache_memlimit 7 => MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m
            cache_memlimit 7 noreply =>
            cache_memlimit 8 => OK
            cache_memlimit 80 x y => OK
            cache_memlimit 999999999 => MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust
            cache_memlimit 1000000001 => MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes
            ",
        );
        let mut cache = Cache::new("");
        cache.ask("cache_memlimit 32 noreply");
        assert!(cache.ask("stats settings").contains("STAT maxbytes 33554432\r\n"));
        assert!(cache.ask("stats").contains("STAT limit_maxbytes 33554432\r\n"));
    }

    #[test]
    fn shutting_down() {
        check("", "shutdown => SERVER_ERROR: shutdown not enabled\n shutdown x noreply =>");
        check(
            "-A",
            "
            shutdown => <stop, graceful: false>
            shutdown graceful => <stop, graceful: true>
            shutdown g => <stop, graceful: true>
            shutdown graceful x => CLIENT_ERROR invalid shutdown mode
            shutdown x => CLIENT_ERROR invalid shutdown mode
            ",
        );
    }

    #[test]
    fn slab_pages() {
        check(
            "",
            "
            slabs => ERROR
            slabs x => ERROR
            slabs reassign 1 => ERROR
            slabs reassign 1 2 3 => ERROR
            slabs reassign x 1 => BCLF
            slabs reassign 1 x => BCLF
            slabs reassign 1 1 => SAME src and dst class are identical
            slabs reassign -2 1 => BADCLASS invalid src or dst class id
            slabs reassign 1 -1 => BADCLASS invalid src or dst class id
            slabs reassign 64 1 => BADCLASS invalid src or dst class id
            slabs reassign -1 1 => BADCLASS invalid src or dst class id
            slabs re 1 0 => NOSPARE source class has no spare pages
            slabs automove => ERROR
            slabs automove x => BCLF
            slabs automove -1 => BCLF
            slabs automove 3 => ERROR
            slabs automove 2 => OK
            slabs automove 1 noreply =>
            slabs automove ratio => ERROR
            slabs automove ratio x => ERROR
            slabs automove ratio nan => ERROR
            slabs automove ratio 0.5 => OK
            slabs automove freeratio => ERROR
            slabs automove freeratio 0.5 => OK
            slabs automove window => BCLF
            slabs automove window x => BCLF
            slabs automove window 2 => CLIENT_ERROR automove window too low or too high
            slabs automove window 1801 => CLIENT_ERROR automove window too low or too high
            slabs automove window 30 => OK
            ",
        );
        check("-o no_slab_reassign", "slabs reassign x 1 => CLIENT_ERROR slab reassignment disabled");
    }

    #[test]
    fn lru_options() {
        check(
            "",
            "
            lru => ERROR
            lru tune 1 2 3 => ERROR
            lru tune x 20 1 2 => ERROR
            lru tune -1 20 1 2 => ERROR
            lru tune 10 20 x 2 => ERROR
            lru tune 50 40 0.5 2 => ERROR hot and warm pcts must not exceed 80
            lru tune 4294967295 4294967295 1 1 => ERROR hot and warm pcts must not exceed 80
            lru tune 10 20 0 2 => ERROR hot/warm age factors must be greater than 0
            lru tune 10 20 0.5 2 noreply =>
            lru mode => ERROR
            lru mode flat => OK
            lru mode f => OK
            lru mode flat noreply =>
            lru mode segmented => OK
            lru mode x => ERROR
            lru temp_ttl => ERROR
            lru temp_ttl x => ERROR
            lru temp_ttl 10 => OK
            lru temp_ttl -1 => OK
            lru foo 1 => ERROR
            ",
        );
        check("-o no_lru_maintainer", "lru mode segmented => ERROR\n lru temp_ttl 1 => ERROR\n lru tune 1 2 3 4 => OK");
        let mut cache = Cache::new("");
        cache.ask("lru tune 11 22 0.5 3");
        cache.ask("lru temp_ttl 44");
        let options = cache.shard(1).store.options();
        assert_eq!((options.hot_percent, options.warm_percent), (11, 22));
        assert_eq!((options.hot_max_factor, options.warm_max_factor), (0.5, 3.0));
        assert_eq!(options.temporary_ttl, Some(44));
        cache.ask("lru temp_ttl -1");
        assert_eq!(cache.shard(1).store.options().temporary_ttl, None);
    }

    #[test]
    fn watching() {
        check("", "watch bogus => <watch: None>\n watch noreply => <watch: None>");
        check(
            "-W",
            "watch => CLIENT_ERROR watch commands not allowed\n watch x => CLIENT_ERROR watch commands not allowed",
        );
    }

    #[test]
    fn crawler() {
        check(
            "",
            "
            lru_crawler => ERROR
            lru_crawler enable => ERROR failed to start lru crawler thread
            lru_crawler crawl all => OK
            lru_crawler crawl 1,2,63 => OK
            lru_crawler crawl hash => ERROR an unknown error happened
            lru_crawler crawl , => NOTSTARTED no items to crawl
            lru_crawler crawl 0 => BADCLASS invalid class id
            lru_crawler crawl 64 => BADCLASS invalid class id
            lru_crawler crawl 1,x => BADCLASS invalid class id
            lru_crawler crawl all x => ERROR
            lru_crawler crawl => ERROR
            lru_crawler crawl all noreply =>
            lru_crawler metadump all => END
            lru_crawler metadump 1,64 => BADCLASS invalid class id
            lru_crawler metadump all x => ERROR
            lru_crawler mgdump hash => EN
            lru_crawler disable => OK
            lru_crawler disable => OK
            lru_crawler crawl all => CLIENT_ERROR lru crawler disabled
            lru_crawler metadump all => CLIENT_ERROR lru crawler disabled
            lru_crawler e => OK
            lru_crawler sleep 1000000 => OK
            lru_crawler sleep 1000001 => CLIENT_ERROR sleep must be one second or less
            lru_crawler sleep x => BCLF
            lru_crawler sleep 1 x => ERROR
            lru_crawler tocrawl 5 => OK
            lru_crawler tocrawl -1 => BCLF
            lru_crawler foo 1 => ERROR
            ",
        );
        check(
            "-X",
            "
            lru_crawler metadump all => ERROR metadump not allowed
            lru_crawler mgdump all => ERROR key dump not allowed
            ",
        );
        let mut cache = Cache::new("");
        cache.set(0, "a", 3, b"1");
        cache.shard(0).store.set_now(Now(10));
        cache.ask("lru_crawler crawl all");
        assert_eq!(cache.shard(0).store.snapshot().curr_items, 0);
    }

    #[test]
    fn sub_commands_of_stats() {
        check(
            "",
            "
            stats noreply => ERROR
            stats foo => ERROR
            stats item => ERROR
            stats sizes_enable => ERROR
            stats items x => END
            stats slabs => STAT active_slabs 0 | STAT total_malloced 0 | END
            stats sizes => STAT sizes_status disabled | END
            stats evictions => STAT evictions_for_room 0 | STAT evictions_by_moves 0 | STAT evictions_by_chains 0 | END
            stats conns => STAT 4:addr x | STAT 1:addr x | STAT 2:addr x | STAT 3:addr x | END
            stats co => STAT 4:addr x | STAT 1:addr x | STAT 2:addr x | STAT 3:addr x | END
            stats reset noreply => RESET
            stats r => RESET
            stats cachedump => CLIENT_ERROR bad command line
            stats c => CLIENT_ERROR bad command line
            stats cachedump 1 => CLIENT_ERROR bad command line
            stats cachedump x 0 => BCLF
            stats cachedump 1 -1 => BCLF
            stats cachedump 1 noreply => BCLF
            stats cachedump 64 0 => CLIENT_ERROR Illegal slab id
            stats cachedump 63 0 => END
            stats cachedump 0 0 => END
            stats detail => CLIENT_ERROR usage: stats detail on|off|dump
            stats detail x => CLIENT_ERROR usage: stats detail on|off|dump
            stats d on => OK
            stats detail dump => END
            stats detail off => OK
            ",
        );
        check("-o track_sizes", "stats sizes => END");
        check(
            "-X",
            "
            stats cachedump 1 1 => CLIENT_ERROR stats cachedump not allowed
            stats detail dump => CLIENT_ERROR stats detail not allowed
            ",
        );
    }

    #[test]
    fn counting_by_prefix_goes_on_when_it_is_asked_for_again() {
        let mut cache = Cache::new("-D /");
        cache.ask("stats detail on");
        cache.shard(0).prefixes.as_mut().expect("on").count_get(b"a/x", true);
        cache.shard(1).prefixes.as_mut().expect("on").count_set(b"a/y");
        cache.shard(1).prefixes.as_mut().expect("on").count_delete(b"b/");
        cache.ask("stats detail on");
        let expected = "PREFIX a get 1 hit 1 set 1 del 0\r\nPREFIX b get 0 hit 0 set 0 del 1\r\nEND\r\n";
        assert_eq!(cache.ask("stats detail dump"), expected);
        cache.ask("stats reset");
        assert_eq!(cache.ask("stats detail dump"), "END\r\n");
        assert!(cache.shard(0).prefixes.is_some());
    }

    #[test]
    fn the_debug_build_moves_the_clock() {
        if cfg!(feature = "debug-commands") {
            check("", "debugtime => ERROR\n debugtime x => ERROR\n debugtime p => OK\n debugtime r => OK");
            let mut cache = Cache::new("");
            let before = cache.clock.now().0;
            cache.ask("debugtime 100");
            cache.ask("debugtime -40");
            cache.ask("debugtime +1");
            assert!((before + 61..before + 70).contains(&cache.clock.now().0));
        } else {
            check("", "debugtime p => ERROR");
        }
    }
}
