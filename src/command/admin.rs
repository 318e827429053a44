//! Commands of one connection or of the whole cache.

use super::Shard;
use super::detail::PrefixCounts;
use crate::clock::{Clock, Now};
use crate::config::Config;
use crate::counters::{ServerCounters, WorkerCounters};
use crate::store::Snapshot;
use crate::store::slab::Budget;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU8;

/// What is asked of all shards, or of all workers.
#[derive(Clone, Debug)]
pub enum Question {
    /// Flush, now or when the time comes.
    Flush(Now),
    /// What is there and what was counted.
    Snapshot,
    /// Forget what was counted.
    ResetCounters,
    /// Start (with this delimiter) or stop counting by prefix.
    Detail(Option<u8>),
    /// Counts by prefix.
    DetailDump,
    /// Items of COLD of a class, at most so many from each shard.
    ColdItems {
        /// The class.
        class: u8,
        /// Items.
        limit: usize,
    },
    /// How many items there are of each size, in steps of 32 bytes.
    Sizes,
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
    /// `lru temp_ttl`
    TemporaryTtl(Option<u32>),
    /// The connections of a worker: answered by workers, the rest by shards.
    Connections,
}

/// What a shard or a worker answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is done.
    Done,
    /// To `Snapshot`.
    Snapshot(Box<Snapshot>),
    /// To `DetailDump`.
    Prefixes(Vec<(Vec<u8>, PrefixCounts)>),
    /// To `Sizes`: counts by size.
    Sizes(BTreeMap<u32, u64>),
    /// To `ColdItems` and `Connections`: lines of the reply.
    Lines(Vec<u8>),
}

/// What the connection that asked is told when all have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A fixed text; nothing when it is empty.
    Text(&'static [u8]),
    /// `stats`
    General,
    /// `stats items`
    Items,
    /// `stats slabs`
    Slabs,
    /// `stats sizes`
    Sizes,
    /// `stats detail dump`
    Detail,
    /// All lines, and `END`: `stats cachedump`, `stats conns`.
    Lines,
}

/// What a command line comes to.
#[derive(Clone, Debug)]
pub enum Plan {
    /// This is the reply, with its terminator; nothing when it is empty.
    Say(Vec<u8>),
    /// Close the connection once earlier replies are sent.
    Quit,
    /// Ask all shards, or all workers, and report.
    Ask(Question, Report),
    /// Stop the server.
    Stop {
        /// `shutdown graceful`
        graceful: bool,
    },
}

/// Settings that commands change while the server runs.
#[derive(Debug, Default)]
pub struct Settings {
    /// `verbosity`
    pub verbosity: AtomicU8,
}

impl Settings {
    /// Those of the command line.
    pub fn new(config: &Config) -> Settings {
        Settings { verbosity: AtomicU8::new(config.verbosity) }
    }
}

/// What commands of the whole server see of it.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    /// The command line.
    pub config: &'a Config,
    /// What was changed since.
    pub settings: &'a Settings,
    /// The clock.
    pub clock: &'a Clock,
    /// The pages of the cache.
    pub budget: &'a Budget,
    /// By worker.
    pub workers: &'a [WorkerCounters],
    /// The listening side.
    pub server: &'a ServerCounters,
    /// The worker that asks: an index into `workers`.
    pub worker: usize,
}

/// What is to be done about a command line (without its terminator).
pub fn plan(line: &[u8], environment: &Environment<'_>) -> Plan {
    let _ = environment;
    if line == b"quit" { Plan::Quit } else { Plan::Say(b"ERROR\r\n".to_vec()) }
}

/// The answer of a shard. [`Question::Connections`] is not for shards.
pub fn answer(shard: &mut Shard, question: &Question, clock: &Clock) -> Answer {
    let _ = (shard, question, clock);
    Answer::Done
}

/// The reply, once all have answered.
pub fn finish(report: &Report, answers: Vec<Answer>, environment: &Environment<'_>) -> Vec<u8> {
    let _ = (report, answers, environment);
    b"OK\r\n".to_vec()
}
