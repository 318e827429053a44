//! How a worker reaches shards: by lease, or with batches.

use super::batch::{Batch, Origin, Task};
use super::broadcast::Broadcast;
use super::execute::run;
use super::mailbox::Lease;
use super::serve::Serve;
use crate::admin::walk::Walk;
use crate::command::{Pinned, observed};
use crate::hash;
use std::sync::Arc;

/// How things stand between this worker and a shard.
#[derive(Debug, Default)]
pub(super) struct ShardLink<'a> {
    pub(super) lease: Option<Lease<'a>>,
    /// The lease was asked for in vain for the connection at hand.
    pub(super) refused: bool,
    /// Tasks that are not on their way.
    pub(super) open: Option<Box<Batch>>,
    /// A batch is on its way.
    pub(super) posted: bool,
}

impl<'a> Serve<'a> {
    /// The shard of a key.
    #[inline]
    pub(super) fn shard_of(&self, hash: u64) -> usize {
        if self.limits.keep_keys { self.worker } else { hash::shard(hash, self.links.len()) }
    }

    /// Sends batches that are as large as they may be on their way. Says whether that was possible: a shard that still
    /// has one of this worker's batches is not sent another.
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

    /// The lease of a shard, if it is held or can be had. Tasks that were put off for this shard are run first.
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

    fn take_lease(&mut self, shard: usize) {
        let link = &mut self.links[shard];
        match self.exchange.try_lease(shard) {
            Some(mut lease) => {
                lease.store.set_now(self.now);
                if let Some(mut batch) = link.open.take() {
                    let log = self.log.as_deref_mut();
                    run(&mut lease, &mut batch, self.exchange, self.clock, self.now, self.limits.group_len, log);
                    self.done.push(batch);
                }
                link.lease = Some(lease);
                self.leased.push(shard);
            }
            None => {
                link.refused = true;
                self.leased.push(shard);
            }
        }
    }

    /// Gives all leases back. A server with one worker keeps them.
    pub(super) fn give_back(&mut self) {
        if self.exchange.workers() == 1 {
            return;
        }
        let (exchange, clock, now, group_len) = (self.exchange, self.clock, self.now, self.limits.group_len);
        let log = &mut self.log;
        while let Some(shard) = self.leased.pop() {
            let link = &mut self.links[shard];
            link.refused = false;
            if let Some(lease) = link.lease.take() {
                exchange.give_back(lease, |shard, batch| {
                    run(shard, batch, exchange, clock, now, group_len, log.as_deref_mut());
                });
            }
        }
    }

    /// The batch for a shard that is being collected.
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

    /// Puts a task that nobody waits for where it is done: at once, or with the next batch.
    pub(super) fn run_or_defer(&mut self, shard: usize, task: Task) {
        match &mut self.links[shard].lease {
            Some(lease) => match task {
                Task::Unpin(id) => lease.store.unpin(id),
                Task::Abandon(id) => lease.store.abandon(id),
                _ => unreachable!("chores are unpinning and abandoning"),
            },
            None => self.push(shard, task, None, 0),
        }
    }

    /// A pinned value has been written, or never will be.
    pub fn unpin(&mut self, pinned: Pinned) {
        self.run_or_defer(usize::from(pinned.shard), Task::Unpin(pinned.id));
    }

    /// Asks all shards.
    pub fn ask_shards(&mut self, broadcast: &Arc<Broadcast>) {
        for shard in 0..self.links.len() {
            self.push(shard, Task::Broadcast(Arc::clone(broadcast)), None, 0);
            if self.links[shard].lease.is_some() {
                self.run_open(shard);
            }
        }
    }

    /// As [`Serve::ask_shards`], but at the end of the turn: what is asked piece by piece leaves turns to others.
    pub fn ask_shards_later(&mut self, broadcast: &Arc<Broadcast>) {
        for shard in 0..self.links.len() {
            self.push(shard, Task::Broadcast(Arc::clone(broadcast)), None, 0);
        }
    }

    /// Sends a walk to the shard that it has come to. It returns with the batch.
    pub fn walk(&mut self, walk: Box<Walk>) {
        let shard = walk.shard;
        self.push(shard, Task::Walk(Some(walk)), None, 0);
    }

    fn run_open(&mut self, shard: usize) {
        let link = &mut self.links[shard];
        if let (Some(lease), Some(mut batch)) = (&mut link.lease, link.open.take()) {
            let log = self.log.as_deref_mut();
            run(lease, &mut batch, self.exchange, self.clock, self.now, self.limits.group_len, log);
            self.done.push(batch);
        }
    }

    /// Sends batches on their way, at the end of a turn: runs them here if their shard is free.
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

    /// Sends the batch for a shard on its way, if there is one. None is on its way yet.
    fn post(&mut self, shard: usize) {
        let Some(batch) = self.links[shard].open.take() else { return };
        self.links[shard].posted = true;
        let (exchange, clock, now, group_len) = (self.exchange, self.clock, self.now, self.limits.group_len);
        let log = &mut self.log;
        exchange.post(batch, |shard, batch| {
            run(shard, batch, exchange, clock, now, group_len, log.as_deref_mut());
        });
    }

    /// Whether it has something to do although nothing comes in.
    pub fn is_busy(&self) -> bool {
        self.waits_for_room
    }

    /// One of its batches has come back by mail.
    pub fn returned(&mut self, batch: Box<Batch>) {
        self.links[batch.shard].posted = false;
        self.done.push(batch);
    }

    /// The next batch whose replies are to be handed out; give it back with [`Serve::recycle`].
    pub fn next_done(&mut self) -> Option<Box<Batch>> {
        self.done.pop()
    }

    /// Takes back a batch that was handed out.
    pub fn recycle(&mut self, batch: Box<Batch>) {
        if self.spare.len() < self.links.len() * 2 {
            self.spare.push(batch);
        }
    }

    /// Bounded work on the shards that this worker looks after: those whose number is its own, modulo the workers.
    /// Says whether there was something to do.
    pub fn housekeep(&mut self, steps: u32, crawler_on: bool) -> bool {
        let mut busy = false;
        for shard in (self.worker..self.links.len()).step_by(self.exchange.workers()) {
            if self.lease(shard).is_some()
                && let Some(lease) = &mut self.links[shard].lease
            {
                busy |= match &mut self.log {
                    None => lease.store.housekeep(steps, crawler_on),
                    Some(log) => observed::housekeep(log, lease, steps, crawler_on),
                };
            }
        }
        self.give_back();
        busy
    }
}
