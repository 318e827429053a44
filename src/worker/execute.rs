//! Executes batches on their shards.

use super::batch::{Batch, Origin, Reservation, Room, Task};
use super::mailbox::Exchange;
use crate::admin;
use crate::clock::{Clock, Now};
use crate::command::{self, Reply, Shard, observed};
use crate::protocol::Operation;
use crate::store::OutOfMemory;
use crate::store::gather::{Gathered, Gathering};
use crate::watch::Log;

/// How many operations ahead of the one that is executed an item is asked for. All of a group at once would fill the
/// processor's queue to memory and wait there, with nothing executed meanwhile: a fifth of the time of a `get` of 50 keys
/// out of ten million. 8 to 20 measure alike.
pub const PREFETCH_AHEAD: usize = 12;

/// Runs a batch on its shard.
pub(super) fn run(
    shard: &mut Shard,
    batch: &mut Batch,
    exchange: &Exchange,
    clock: &Clock,
    now: Now,
    group_len: usize,
    log: Option<&mut Log<'_>>,
) {
    shard.store.set_now(now);
    match log {
        None => run_tasks::<false>(shard, batch, exchange, clock, group_len, None),
        log => run_tasks::<true>(shard, batch, exchange, clock, group_len, log),
    }
}

/// `WATCHED` exactly if there is a log.
fn run_tasks<const WATCHED: bool>(
    shard: &mut Shard,
    batch: &mut Batch,
    exchange: &Exchange,
    clock: &Clock,
    group_len: usize,
    mut log: Option<&mut Log<'_>>,
) {
    let Batch { tasks, bytes, reply, ends, .. } = batch;
    for group in tasks.chunks_mut(group_len) {
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
                let fd = origin.map_or(-1, |origin| origin.fd);
                match task {
                    Task::Execute(operation) => observed::execute(log, fd, shard, operation, bytes, clock, reply),
                    Task::Commit(operation, id) => {
                        observed::commit(log, fd, shard, operation, bytes, *id, clock, reply);
                    }
                    Task::Reserve(reservation) => reserve(reservation, reply, |operation, wanted, so_far| {
                        observed::reserve(log, fd, shard, operation, bytes, wanted, so_far)
                    }),
                    task => observed::observe(log, shard, |shard| run_task(shard, task, bytes, exchange, clock, reply)),
                }
            } else {
                run_task(shard, task, bytes, exchange, clock, reply);
            }
            ends.push(reply.out.len());
        }
    }
}

#[inline]
fn run_task(shard: &mut Shard, task: &mut Task, bytes: &[u8], exchange: &Exchange, clock: &Clock, reply: &mut Reply) {
    match task {
        Task::Execute(operation) => command::execute(shard, operation, None, bytes, clock, reply),
        Task::Commit(operation, id) => command::commit(shard, operation, bytes, *id, clock, reply),
        Task::Reserve(reservation) => reserve(reservation, reply, |operation, wanted, so_far| {
            command::reserve(shard, operation, bytes, wanted, so_far)
        }),
        Task::Abandon(id) => shard.store.abandon(*id),
        Task::Unpin(id) => shard.store.unpin(*id),
        Task::Walk(walk) => {
            if let Some(walk) = walk {
                walk.step(shard, clock, reply);
            }
        }
        Task::Broadcast(broadcast) => broadcast.answer(exchange, admin::answer(shard, &broadcast.query, clock)),
    }
}

/// Makes room for a value, or some of it.
fn reserve(
    reservation: &mut Reservation,
    reply: &mut Reply,
    reserve: impl FnOnce(&Operation, usize, Option<Gathering>) -> Result<Gathered, OutOfMemory>,
) {
    let Room::Wanted(so_far) = reservation.room else { unreachable!("what is ready is not asked for") };
    reservation.room = Room::of(reserve(&reservation.operation, reservation.wanted, so_far));
    if matches!(reservation.room, Room::Refused) {
        command::refuse(&reservation.operation, reply);
    }
}
