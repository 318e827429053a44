//! What the observer knows: the figures of this second and of those before.

use super::history::History;
use super::keys::Keys;
use super::prefixes::PrefixTotals;
use super::reading::{Memory, Reading};
use super::status::Facts;
use super::view::View;
use super::{exporter, exposition, own};
use crate::admin::{Answer, Query, ServerContext, merge_big_keys};
use crate::command::big_keys::BigKey;
use crate::measure::latency::Times;
use crate::measure::samples::SampleReport;
use crate::worker::mailbox::Exchange;
use crate::worker::pings::{Pinger, Pings};
use mio::Waker;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// The time between two readings.
const TICK: Duration = Duration::from_secs(1);
/// How long the shards may take to answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(2);
/// A worker that has not opened a ping for this long is late.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// The readings whose times are kept: those of the last ten seconds.
const RECENT: usize = 11;

/// The parts of the server that the observer reads.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The counters and settings. Its time is that of the making.
    pub context: ServerContext<'a>,
    /// The shards, which it asks.
    pub exchange: &'a Exchange,
    /// The pings, which it sends.
    pub pings: &'a Pings,
    /// The server serves, and is not about to stop.
    pub is_ready: &'a AtomicBool,
    /// With `-e` or `--keep-memory`: whether the server has begun with the items of the last one.
    pub is_warm: Option<bool>,
    /// When the process started, in Unix seconds.
    pub started: f64,
}

/// The figures of this second and of those before.
pub(super) struct Figures<'a> {
    sources: Sources<'a>,
    waker: Arc<Waker>,
    /// The query on its way. There is at most one, however long the answers take.
    asked: Option<Asked>,
    /// The last reading with answers of the shards, and when they were asked.
    answered: Option<(Arc<Reading>, Instant)>,
    /// The reading of this second is due since then.
    due: Option<Instant>,
    next_tick: Instant,
    /// The readings of the last two seconds.
    last: Option<Arc<Reading>>,
    earlier: Option<Arc<Reading>>,
    recent: VecDeque<Times>,
    history: History,
    samples: SampleReport,
    prefixes: PrefixTotals,
    big_keys: Vec<BigKey>,
    /// The shards are to be asked for their big keys in this second.
    big_keys_due: bool,
    pinger: Pinger,
}

/// A query on its way.
struct Asked {
    query: Query,
    /// When it left.
    at: Instant,
    answers: Receiver<Vec<Answer>>,
}

impl<'a> Figures<'a> {
    /// Figures of a server. `waker` wakes the observer when shards have answered.
    pub(super) fn new(sources: Sources<'a>, waker: Arc<Waker>, now: Instant) -> Figures<'a> {
        Figures {
            sources,
            waker,
            asked: None,
            answered: None,
            due: None,
            next_tick: now,
            last: None,
            earlier: None,
            recent: VecDeque::new(),
            history: History::default(),
            samples: SampleReport::default(),
            prefixes: PrefixTotals::default(),
            big_keys: Vec::new(),
            big_keys_due: false,
            pinger: Pinger::default(),
        }
    }

    /// When [`Figures::advance`] has work, though nothing wakes the observer.
    pub(super) fn deadline(&self) -> Instant {
        self.due.map_or(self.next_tick, |due| self.next_tick.min(due + ANSWER_MAX))
    }

    /// Takes the answers of the shards, and the readings that are due.
    pub(super) fn advance(&mut self, now: Instant) {
        if now >= self.next_tick {
            self.tick(now);
        }
        if let Some(asked) = &self.asked
            && let Ok(answers) = asked.answers.try_recv()
        {
            match asked.query {
                Query::BigKeys => self.big_keys = merge_big_keys(answers),
                _ => self.answered = Some((Arc::new(Reading::take(&self.context(), Some(answers))), asked.at)),
            }
            self.asked = None;
        }
        if let Some(due) = self.due {
            match self.answered_since(due) {
                Some(reading) => self.end_tick(reading),
                None if now >= due + ANSWER_MAX => {
                    let reading = Reading::take(&self.context(), None);
                    self.end_tick(Arc::new(reading));
                }
                None => self.ask(now),
            }
        }
        if self.due.is_none() && std::mem::take(&mut self.big_keys_due) {
            self.send(Query::BigKeys, now);
        }
    }

    /// Asks the shards for their figures.
    pub(super) fn ask(&mut self, now: Instant) {
        self.send(Query::Snapshot, now);
    }

    /// Asks the shards, unless a query is on its way. A worker that hangs answers it later.
    fn send(&mut self, query: Query, now: Instant) {
        if self.asked.is_none() {
            let answers = self.sources.exchange.ask_shards(query.clone(), Arc::clone(&self.waker));
            self.asked = Some(Asked { query, at: now, answers });
        }
    }

    /// The last reading whose shards were asked at `since` or later.
    pub(super) fn answered_since(&self, since: Instant) -> Option<Arc<Reading>> {
        self.answered.as_ref().filter(|(_, asked)| *asked >= since).map(|(reading, _)| Arc::clone(reading))
    }

    /// A second begins.
    fn tick(&mut self, now: Instant) {
        self.next_tick = (self.next_tick + TICK).max(now + TICK / 2);
        self.due.get_or_insert(now);
        self.big_keys_due = true;
        let Sources { context, exchange, pings, .. } = self.sources;
        self.pinger.ping(pings, exchange, context.workers, now);
        self.samples = SampleReport::read(context.measures.iter().map(|measures| &measures.samples), now);
        self.prefixes.add(&self.samples.prefixes, self.samples.mean);
    }

    fn end_tick(&mut self, reading: Arc<Reading>) {
        self.due = None;
        if let Some(last) = &self.last {
            let items = Memory::new(&self.context(), reading.shards.as_ref()).items;
            self.history.add(&reading, last, items);
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(reading.times.clone());
        self.earlier = self.last.replace(reading);
    }

    /// The server at the present time.
    pub(super) fn context(&self) -> ServerContext<'a> {
        let context = self.sources.context;
        ServerContext { now: context.clock.now(), uploads: self.sources.exchange.upload_use(), ..context }
    }

    /// Whether the server serves, and is not about to stop.
    pub(super) fn is_ready(&self) -> bool {
        self.sources.is_ready.load(Ordering::Relaxed)
    }

    /// The workers that do not open their mail.
    pub(super) fn late_workers(&self, now: Instant) -> Vec<usize> {
        self.pinger.late(self.sources.context.workers, now, SILENCE_MAX).collect()
    }

    /// The text of `/metrics`. Without a `reading` it is what needs no shard.
    pub(super) fn metrics(&self, reading: Option<&Reading>, now: Instant) -> String {
        let context = self.context();
        let mut text = String::with_capacity(64 << 10);
        let without_shards;
        let reading = match reading {
            Some(reading) => reading,
            None => {
                exposition::comment(&mut text, "The shards have not answered in time: their metrics are missing.");
                without_shards = Reading::take(&context, None);
                &without_shards
            }
        };
        let view = View {
            context,
            reading,
            samples: &self.samples,
            prefixes: &self.prefixes,
            keys: &self.keys(),
            late_workers: self.late_workers(now).len(),
            is_ready: self.is_ready(),
            is_warm: self.sources.is_warm,
            started: self.sources.started,
        };
        for table in [exporter::SERVER, exporter::LRU, exporter::ITEMS, exporter::PAGES] {
            view.write(&mut text, table);
        }
        for table in [own::SERVER, own::PARTS, own::KEYS, own::PROCESS] {
            view.write(&mut text, table);
        }
        text
    }

    /// What the JSON is made of: the reading of this second. None: there is none yet. `keys` are those of [`Figures::keys`].
    pub(super) fn facts<'b>(&'b self, keys: &'b Keys<'b>, now: Instant) -> Option<Facts<'b>> {
        let reading = self.last.as_deref()?;
        Some(Facts {
            context: self.context(),
            reading,
            earlier: self.earlier.as_deref(),
            times_before: self.recent.front()?,
            samples: &self.samples,
            big_keys: &self.big_keys,
            keys,
            late_workers: self.late_workers(now),
            is_ready: self.is_ready(),
        })
    }

    /// How keys appear.
    pub(super) fn keys(&self) -> Keys<'a> {
        Keys::new(self.sources.context.config)
    }

    /// The JSON of `/history.json`, of the seconds after `since`.
    pub(super) fn history(&self, since: f64) -> Value {
        self.history.json(since)
    }
}
