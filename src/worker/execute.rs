//! Runs the tasks of a batch on its shard.

use super::batch::{Batch, Origin, Reservation, Room, Task};
use super::mailbox::Exchange;
use crate::admin;
use crate::clock::{Clock, Now};
use crate::command::observed::{self, Observer};
use crate::command::{self, Reply, Request, Shard};
use crate::protocol::Operation;
use crate::store::OutOfMemory;
use crate::store::gather::{Gathered, Gathering};
use crate::watch::Log;

/// How many operations ahead of the one that is executed an item is prefetched. To prefetch all items of a group at once
/// would fill the processor's queue to memory, and the processor would wait there and execute nothing: this costs a fifth of
/// the time of a `get` of 50 keys out of ten million. Distances from 8 to 20 measure alike.
pub const PREFETCH_AHEAD: usize = 12;

/// What a worker needs to run batches, besides the lease of the shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Executor<'a> {
    pub(super) exchange: &'a Exchange,
    pub(super) clock: &'a Clock,
    /// The time of the worker's turn.
    pub(super) now: Now,
    /// The number of tasks whose index buckets are prefetched together.
    pub(super) group_len: usize,
}

impl Executor<'_> {
    /// Runs a batch on its shard. `log` is there while somebody watches.
    pub(super) fn run(&self, shard: &mut Shard, batch: &mut Batch, log: Option<&mut Log<'_>>) {
        shard.store.set_now(self.now);
        match log {
            None => self.run_tasks::<false>(shard, batch, None),
            log => self.run_tasks::<true>(shard, batch, log),
        }
    }

    /// `WATCHED` exactly if there is a log.
    fn run_tasks<const WATCHED: bool>(&self, shard: &mut Shard, batch: &mut Batch, mut log: Option<&mut Log<'_>>) {
        let Batch { tasks, bytes, reply, ends, .. } = batch;
        for group in tasks.chunks_mut(self.group_len) {
            for (task, _) in &*group {
                if let Task::Execute(operation) = task {
                    shard.store.prefetch_bucket(operation.hash);
                }
            }
            let prefetch_item = |shard: &Shard, ahead: Option<&(Task, Option<Origin>)>| {
                if let Some((Task::Execute(operation), _)) = ahead {
                    shard.store.prefetch_item(operation.hash);
                }
            };
            group.iter().take(PREFETCH_AHEAD).for_each(|ahead| prefetch_item(shard, Some(ahead)));
            for at in 0..group.len() {
                prefetch_item(shard, group.get(at + PREFETCH_AHEAD));
                let (task, origin) = &mut group[at];
                if WATCHED && let Some(log) = &mut log {
                    let mut observer = Observer { log, fd: origin.map_or(-1, |origin| origin.fd) };
                    match task {
                        Task::Execute(operation) => observer.execute(shard, &self.request(operation, bytes), reply),
                        Task::Commit(operation, id) => {
                            observer.commit(shard, &self.request(operation, bytes), *id, reply);
                        }
                        Task::Reserve(reservation) => reserve(reservation, reply, |operation, wanted, so_far| {
                            observer.reserve(shard, &self.request(operation, bytes), wanted, so_far)
                        }),
                        task => {
                            observed::observe(observer.log, shard, |shard| self.run_task(shard, task, bytes, reply));
                        }
                    }
                } else {
                    self.run_task(shard, task, bytes, reply);
                }
                ends.push(reply.out.len());
            }
        }
    }

    #[inline]
    fn request<'r>(&'r self, operation: &'r Operation, bytes: &'r [u8]) -> Request<'r> {
        Request::new(operation, bytes, self.clock)
    }

    #[inline]
    fn run_task(&self, shard: &mut Shard, task: &mut Task, bytes: &[u8], reply: &mut Reply) {
        match task {
            Task::Execute(operation) => command::execute(shard, &self.request(operation, bytes), reply),
            Task::Commit(operation, id) => command::commit(shard, &self.request(operation, bytes), *id, reply),
            Task::Reserve(reservation) => reserve(reservation, reply, |operation, wanted, so_far| {
                command::reserve(shard, &self.request(operation, bytes), wanted, so_far)
            }),
            Task::Abandon(id) => shard.store.abandon(*id),
            Task::Unpin(id) => shard.store.unpin(*id),
            Task::Reads { hash, key, origin, count } => {
                shard.store.count_copied_hits(*hash, key.of(bytes), origin, *count);
            }
            Task::Walk(walk) => {
                if let Some(walk) = walk {
                    walk.step(shard, self.clock, reply);
                }
            }
            Task::Broadcast(broadcast) => {
                self.exchange.answer(broadcast, admin::answer(shard, &broadcast.query, self.clock));
            }
        }
    }
}

/// Lets `reserve` make room for a value, or for some of it. If there is no memory, the reply says so.
fn reserve(
    reservation: &mut Reservation,
    reply: &mut Reply,
    reserve: impl FnOnce(&Operation, usize, Option<Gathering>) -> Result<Gathered, OutOfMemory>,
) {
    let Room::Wanted(so_far) = reservation.room else { unreachable!("nobody asks for room that is ready") };
    reservation.room = reserve(&reservation.operation, reservation.wanted, so_far).into();
    if matches!(reservation.room, Room::Refused) {
        command::refuse(&reservation.operation, reply);
    }
}
