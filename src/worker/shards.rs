//! The links of a worker to the shards. An operation is executed at once while the worker has the lease of its shard;
//! otherwise it goes into a batch for the shard.
//!
//! ```text
//!            ┌────────── lease ──────────┐ every task runs at once
//!   free ────┤                           ├──▶ free
//!            └─ open batch ─▶ posted ────┘ tasks are collected; at most one batch is on its way
//! ```

use super::batch::{Batch, Origin, Task};
use super::broadcast::Broadcast;
use super::copies::{Copies, Reads};
use super::execute::Executor;
use super::limits::ServeLimits;
use super::mailbox::{Exchange, Lease};
use crate::admin::walk::Walk;
use crate::clock::{Clock, Now};
use crate::command::Pinned;
use crate::command::copied::Copied;
use crate::command::observed;
use crate::counters::WorkerCounters;
use crate::hash;
use crate::measure::latency::Tally;
use crate::store::Store;
use crate::store::item::Items;
use crate::watch::{Categories, Log, Watchers};
use std::sync::Arc;

/// The link of a worker to one shard.
#[derive(Debug, Default)]
pub(super) struct ShardLink<'a> {
    pub(super) lease: Option<Lease<'a>>,
    /// Another worker had the lease when this one asked for it. It does not ask again for the same connection.
    refused: bool,
    /// How often that has happened in this second.
    pub(super) refusals: u32,
    /// The tasks that are not posted yet.
    pub(super) open: Option<Box<Batch>>,
    /// A batch is on its way.
    posted: bool,
}

/// The links of one worker to all shards.
#[derive(Debug)]
#[allow(clippy::vec_box, reason = "batches travel by pointer")]
pub struct Shards<'a> {
    pub(super) worker: usize,
    pub(super) exchange: &'a Exchange,
    pub(super) clock: &'a Clock,
    pub(super) items: Items,
    pub(super) limits: ServeLimits,
    /// The time of this turn.
    pub(super) now: Now,
    pub(super) links: Vec<ShardLink<'a>>,
    /// The copies of hot items.
    pub(super) copies: Copies,
    /// The shards whose lease was asked for, with or without success, since the leases were last given back.
    pub(super) leased: Vec<usize>,
    /// Batches of this worker that have been run.
    done: Vec<Box<Batch>>,
    spare: Vec<Box<Batch>>,
    /// A batch has become as large as it may be.
    pub(super) has_full: bool,
    /// A shard is to be asked again for room for a long value: the worker has something to do in its next turn.
    pub(super) waits_for_room: bool,
    /// The lines of this turn for watchers; none while nobody watches.
    pub(super) log: Option<Box<Log<'a>>>,
    /// The operations since the worker measured last.
    pub(super) tally: Tally,
    /// The key of the last long value among them, or none.
    pub(super) long_key: Vec<u8>,
    /// Counts what happens when another worker has a lease, and nothing on the way of a request without that.
    counters: Option<&'a WorkerCounters>,
}

/// What a step of housekeeping found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Housekept {
    /// Nothing to do.
    Idle,
    /// Something to do.
    Busy,
    /// Dead items, which count as items until they are freed: the next step should follow at once.
    FoundDead,
}

impl<'a> Shards<'a> {
    /// The links of worker number `worker` of an exchange.
    pub fn new(
        worker: usize,
        exchange: &'a Exchange,
        clock: &'a Clock,
        items: Items,
        limits: ServeLimits,
    ) -> Shards<'a> {
        let mut links = Vec::new();
        links.resize_with(exchange.shards(), ShardLink::default);
        Shards {
            worker,
            exchange,
            clock,
            items,
            limits,
            now: clock.now(),
            links,
            copies: Copies::default(),
            leased: Vec::new(),
            done: Vec::new(),
            spare: Vec::new(),
            has_full: false,
            waits_for_room: false,
            log: None,
            tally: Tally::default(),
            long_key: Vec::new(),
            counters: None,
        }
    }

    /// Counts refused leases and posted batches here from now on.
    pub fn count_in(&mut self, counters: &'a WorkerCounters) {
        self.counters = Some(counters);
    }

    /// A turn begins at this time.
    pub fn begin(&mut self, now: Now) {
        self.now = now;
        for link in &mut self.links {
            if let Some(lease) = &mut link.lease {
                lease.store.set_now(now);
            }
        }
    }

    /// Sets the categories that are watched from now on. `micros` is the time of this turn in microseconds since 1970;
    /// `bytes_max` limits the log.
    pub fn watch(&mut self, watchers: &'a Watchers, watched: Categories, micros: u128, bytes_max: usize) {
        if watched.is_empty() {
            self.log = None;
        } else {
            self.log.get_or_insert_with(|| Box::new(Log::new(watchers, bytes_max))).begin(watched, micros);
        }
    }

    /// The lines of this turn for watchers; none while nobody watches.
    pub fn log(&mut self) -> Option<&mut Log<'a>> {
        self.log.as_deref_mut()
    }

    /// The shard of a key.
    #[inline]
    pub(super) fn shard_of(&self, hash: u64) -> usize {
        if self.limits.keep_keys { self.worker } else { hash::shard(hash, self.links.len()) }
    }

    fn executor(&self) -> Executor<'a> {
        // `debugtime` on another worker may have moved the clock since the turn began, and its client counts on that.
        let now = if cfg!(feature = "debug-commands") { self.clock.now() } else { self.now };
        Executor { exchange: self.exchange, clock: self.clock, now, group_len: self.limits.group_len }
    }

    /// The lease of a shard, if the worker has it or can have it. A new lease first runs the tasks that were collected for the
    /// shard.
    #[inline]
    pub(super) fn lease(&mut self, shard: usize) -> Option<&mut Lease<'a>> {
        let link = &mut self.links[shard];
        if link.lease.is_none() {
            if link.refused || link.posted {
                return None;
            }
            self.take_lease(shard);
        }
        self.links[shard].lease.as_mut()
    }

    /// Prefetches the bucket of a hash, and takes the lease of its shard if the worker can have it. It takes none for the sake
    /// of an operation that only reads a hot key: see [`Shards::copy_of`].
    #[inline(always)]
    pub(super) fn prefetch_bucket(&mut self, hash: u64, only_reads: impl FnOnce() -> bool) {
        let shard = self.shard_of(hash);
        if self.links[shard].lease.is_none() && self.hot_key(hash, only_reads).is_some() {
            return;
        }
        if let Some(lease) = self.lease(shard) {
            lease.store.prefetch_bucket(hash);
        }
    }

    /// The number of the hot key with this hash, if a copy of its item may answer the operation. Nobody watches then.
    #[inline]
    pub(super) fn hot_key(&self, hash: u64, only_reads: impl FnOnce() -> bool) -> Option<usize> {
        self.copies.find(hash).filter(|_| self.log.is_none() && only_reads())
    }

    /// A copy of the item of a hot key. If there is none that holds, this takes the lease of the shard, if the worker can have
    /// it, and copies the item.
    ///
    /// While operations on the shard wait, there is no copy: one of them may change the item, for the same client.
    pub(super) fn copy_of(&mut self, number: usize, hash: u64, key: &[u8]) -> Option<&Copied> {
        let (shard, now) = (self.shard_of(hash), self.now);
        if self.links[shard].posted || self.links[shard].open.is_some() || !self.copies.hold(number, key, now) {
            self.lease(shard)?;
            if let Some(lease) = &mut self.links[shard].lease {
                self.copies.renew(number, key, lease);
            }
            if !self.copies.hold(number, key, now) {
                return None;
            }
        }
        Some(self.copies.read(number))
    }

    /// A second has passed: tells the shards how often copies were read, and gives the number of these reads.
    pub(super) fn tell_reads(&mut self) -> u64 {
        let (mut told, mut total) = (Vec::new(), 0);
        self.copies.tick(|reads| told.push(reads));
        for Reads { shard, hash, key, origin, count } in told {
            let key = self.open(shard).copy_of(&key);
            self.push(shard, Task::Reads { hash, key, origin, count }, None, 0);
            total += count;
        }
        self.links.iter_mut().for_each(|link| link.refusals = 0);
        total
    }

    fn take_lease(&mut self, shard: usize) {
        let executor = self.executor();
        let link = &mut self.links[shard];
        match self.exchange.try_lease(shard) {
            Some(mut lease) => {
                lease.store.set_now(self.now);
                if let Some(mut batch) = link.open.take() {
                    executor.run(&mut lease, &mut batch, self.log.as_deref_mut());
                    self.done.push(batch);
                }
                link.lease = Some(lease);
                self.leased.push(shard);
            }
            None => {
                link.refused = true;
                link.refusals = link.refusals.saturating_add(1);
                self.leased.push(shard);
                if let Some(counters) = self.counters {
                    counters.leases_refused.add(1);
                }
            }
        }
    }

    /// Gives all leases back. The only worker of a server keeps them.
    pub(super) fn give_back(&mut self) {
        if self.exchange.workers() == 1 {
            return;
        }
        let executor = self.executor();
        let log = &mut self.log;
        while let Some(shard) = self.leased.pop() {
            let link = &mut self.links[shard];
            link.refused = false;
            if let Some(lease) = link.lease.take() {
                self.exchange.give_back(lease, |shard, batch| executor.run(shard, batch, log.as_deref_mut()));
            }
        }
    }

    /// The batch that collects tasks for a shard.
    pub(super) fn open(&mut self, shard: usize) -> &mut Batch {
        let (worker, spare) = (self.worker, &mut self.spare);
        self.links[shard].open.get_or_insert_with(|| match spare.pop() {
            Some(mut batch) => {
                batch.clear();
                batch.shard = shard;
                batch
            }
            None => Box::new(Batch::new(worker, shard)),
        })
    }

    /// Adds a task to the batch for a shard.
    pub(super) fn push(&mut self, shard: usize, task: Task, origin: Option<Origin>, reply_bytes_max: usize) {
        let most = self.limits.batch_bytes_max;
        let batch = self.open(shard);
        batch.push(task, origin, reply_bytes_max);
        self.has_full |= batch.bytes_max() > most;
    }

    /// Posts the batches that are as large as they may be. Returns false if one could not be posted: a shard has at most one
    /// batch of each worker on its way.
    #[cold]
    pub(super) fn post_full(&mut self) -> bool {
        self.has_full = false;
        for shard in 0..self.links.len() {
            let link = &self.links[shard];
            if link.open.as_deref().is_none_or(|batch| batch.bytes_max() <= self.limits.batch_bytes_max) {
                continue;
            }
            if link.lease.is_some() {
                self.run_open(shard);
            } else if link.posted {
                self.has_full = true;
            } else {
                self.post(shard);
            }
        }
        !self.has_full
    }

    /// Posts the batch for a shard, if there is one. No other is on its way.
    fn post(&mut self, shard: usize) {
        let executor = self.executor();
        let Some(batch) = self.links[shard].open.take() else { return };
        self.links[shard].posted = true;
        if let Some(counters) = self.counters {
            counters.batches_posted.add(1);
        }
        let log = &mut self.log;
        self.exchange.post(batch, |shard, batch| executor.run(shard, batch, log.as_deref_mut()));
    }

    /// Runs the batch for a shard, if there is one and the worker has the lease.
    fn run_open(&mut self, shard: usize) {
        let executor = self.executor();
        let link = &mut self.links[shard];
        if let (Some(lease), Some(mut batch)) = (&mut link.lease, link.open.take()) {
            executor.run(lease, &mut batch, self.log.as_deref_mut());
            self.done.push(batch);
        }
    }

    /// At the end of a turn: runs the batches of shards that are free, and posts the others.
    pub fn flush(&mut self) {
        self.waits_for_room = false;
        for shard in 0..self.links.len() {
            if self.links[shard].open.is_none() || self.links[shard].posted {
                continue;
            }
            if self.links[shard].lease.is_some() {
                self.run_open(shard);
                continue;
            }
            self.take_lease(shard);
            self.post(shard);
        }
        self.give_back();
    }

    /// Does a task that nobody waits for at once, or adds it to the next batch.
    pub(super) fn run_or_defer(&mut self, shard: usize, task: Task) {
        match &mut self.links[shard].lease {
            Some(lease) => match task {
                Task::Unpin(id) => lease.store.unpin(id),
                Task::Abandon(id) => lease.store.abandon(id),
                _ => unreachable!("only unpinning and abandoning have no reply"),
            },
            None => self.push(shard, task, None, 0),
        }
    }

    /// Unpins a value: the worker has written it, or never will.
    pub fn unpin(&mut self, pinned: Pinned) {
        self.run_or_defer(usize::from(pinned.shard), Task::Unpin(pinned.id));
    }

    /// Asks all shards.
    pub fn ask(&mut self, broadcast: &Arc<Broadcast>) {
        for shard in 0..self.links.len() {
            self.push(shard, Task::Broadcast(Arc::clone(broadcast)), None, 0);
            if self.links[shard].lease.is_some() {
                self.run_open(shard);
            }
        }
    }

    /// Asks all shards at the end of the turn, so that a query in pieces leaves turns to others.
    pub fn ask_later(&mut self, broadcast: &Arc<Broadcast>) {
        for shard in 0..self.links.len() {
            self.push(shard, Task::Broadcast(Arc::clone(broadcast)), None, 0);
        }
    }

    /// Sends a walk to the shard that it has come to. It returns with the batch.
    pub fn walk(&mut self, walk: Box<Walk>) {
        let shard = walk.shard;
        self.push(shard, Task::Walk(Some(walk)), None, 0);
    }

    /// Whether the worker has something to do even if nothing comes in.
    pub fn is_busy(&self) -> bool {
        self.waits_for_room
    }

    /// A batch of this worker has come back by mail.
    pub fn returned(&mut self, batch: Box<Batch>) {
        self.links[batch.shard].posted = false;
        self.done.push(batch);
    }

    /// The next batch whose replies the caller hands out. The caller then gives it back with [`Shards::recycle`].
    pub fn next_done(&mut self) -> Option<Box<Batch>> {
        self.done.pop()
    }

    /// Takes back a batch that was handed out.
    pub fn recycle(&mut self, batch: Box<Batch>) {
        if self.spare.len() < self.links.len() * 2 {
            self.spare.push(batch);
        }
    }

    /// Calls `look` with the stores of the shards of this worker that no other worker has leased.
    pub(super) fn for_own_stores(&mut self, look: impl FnOnce(&[&Store])) {
        let own = (self.worker..self.links.len()).step_by(self.exchange.workers());
        for shard in own.clone() {
            self.lease(shard);
        }
        let stores: Vec<&Store> = own.filter_map(|shard| Some(&self.links[shard].lease.as_deref()?.store)).collect();
        look(&stores);
        self.give_back();
    }

    /// Does a bounded amount of housekeeping on the shards of this worker: those whose number modulo the number of workers is
    /// its own.
    pub fn housekeep(&mut self, steps: u32, crawler_on: bool) -> Housekept {
        let (mut busy, mut found_dead) = (false, false);
        for shard in (self.worker..self.links.len()).step_by(self.exchange.workers()) {
            if self.lease(shard).is_some()
                && let Some(lease) = &mut self.links[shard].lease
            {
                busy |= match &mut self.log {
                    None => lease.store.housekeep(steps, crawler_on),
                    Some(log) => observed::housekeep(log, lease, steps, crawler_on),
                };
                found_dead |= lease.store.has_found_dead();
            }
        }
        self.give_back();
        match (busy, found_dead) {
            (_, true) => Housekept::FoundDead,
            (true, false) => Housekept::Busy,
            (false, false) => Housekept::Idle,
        }
    }
}
