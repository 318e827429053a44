//! Leases of shards, and mail for workers: everything that crosses cores.
//!
//! Only the holder of its [`Lease`] may touch a shard. Every worker serves its own connections, and leases the shards of their
//! keys for as long as it takes to execute their commands; on an idle server the lease is always free. When another worker
//! holds the lease, the operations go into a [`Batch`] that is posted to the shard. The holder runs the batch, before or after
//! its own operations, and mails it back with the replies: nobody waits for a lease.
//!
//! ```text
//! post:       push to the inbox;  fence;  try to lease ──no──▶ done: the holder will look
//!                                              └─yes─▶ run the inbox, give back
//! give back:  run the inbox;  free the lease;  fence;  inbox empty? ──yes──▶ done
//!                  ▲                                       └─no─▶ try to lease ──no──▶ done
//!                  └───────────────────────────────────────────yes──┘
//! ```
//! One of the two fences comes first. Then either the poster sees the lease free, or the holder sees the batch.
//!
//! Going to sleep is the same race. A worker says that it sleeps, fences, and looks into its mail once more. A sender pushes
//! the mail, fences, and wakes the worker if it has said that it sleeps.
//!
//! This is one of the three files with `unsafe` in them. The `unsafe` rests on this: at most one [`Lease`] of a shard exists.
//! The one thread that has changed `leased` from false to true makes the lease, and drops it before `leased` is false again.

use super::batch::Batch;
use super::broadcast::{Asker, Broadcast};
use super::uploads::{Admission, Limit, Uploads};
use crate::admin::{Answer, Query, ReplyKind};
use crate::command::Shard;
use crate::config::BindingProtocol;
use crate::counters::UploadUse;
use crate::net::seats::Seat;
use crate::net::stream::Stream;
use crossbeam::utils::CachePadded;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use sync::{ArrayQueue, AtomicBool, SegQueue, UnsafeCell, Waker, fence};

pub(super) mod sync;

/// A piece of mail for a worker.
#[derive(Debug)]
pub enum Mail {
    /// A new connection, and the protocol that it may speak.
    Connection(Stream, BindingProtocol, Option<Seat>),
    /// A batch of this worker that has been run.
    Batch(Box<Batch>),
    /// A long value of one of the worker's connections may come in: it counts among those under way now.
    Admitted(Admission),
    /// A query to all workers.
    Broadcast(Arc<Broadcast>),
    /// A query of a thread that is no worker: to be asked of all shards.
    Ask(Arc<Broadcast>),
    /// All have answered a query of one of the worker's connections.
    Answered(Arc<Broadcast>),
    /// There are lines for a connection that watches: its token, and its generation.
    Watched(usize, u64),
    /// A ping ([`Pings`](super::pings::Pings)). The worker records that it has read it.
    Watchdog(u64),
    /// The worker must close its connections and end.
    Stop,
}

/// The shards and workers of a server.
pub struct Exchange {
    shards: Box<[CachePadded<Slot>]>,
    inboxes: Box<[CachePadded<WorkerInbox>]>,
    /// The long values under way to each shard.
    uploads: Box<[CachePadded<Uploads>]>,
}

struct Slot {
    leased: AtomicBool,
    inbox: ArrayQueue<Box<Batch>>,
    shard: UnsafeCell<Shard>,
}

// SAFETY: threads reach the shard only through a `Lease`, and there is at most one at a time. Acquire and release of
// `leased` order the memory of the shard. Everything in a `Shard` may be sent between threads.
unsafe impl Sync for Slot {}

struct WorkerInbox {
    mail: SegQueue<Mail>,
    sleeps: AtomicBool,
    waker: OnceLock<Waker>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Exchange {{ shards: {}, workers: {} }}", self.shards.len(), self.inboxes.len())
    }
}

impl Exchange {
    /// An exchange for these shards and a number of workers. `limit` is that of the long values under way.
    pub fn new(shards: Vec<Shard>, workers: usize, limit: Limit) -> Exchange {
        let uploads = (0..shards.len()).map(|_| CachePadded::new(Uploads::new(limit.clone(), shards.len()))).collect();
        let slot = |shard| {
            CachePadded::new(Slot {
                leased: AtomicBool::new(false),
                // A worker has at most one batch on its way to a shard.
                inbox: ArrayQueue::new(workers),
                shard: UnsafeCell::new(shard),
            })
        };
        let inbox = |_| {
            CachePadded::new(WorkerInbox {
                mail: SegQueue::new(),
                sleeps: AtomicBool::new(false),
                waker: OnceLock::new(),
            })
        };
        Exchange { shards: shards.into_iter().map(slot).collect(), inboxes: (0..workers).map(inbox).collect(), uploads }
    }

    /// The long values under way to a shard.
    pub fn uploads(&self, shard: usize) -> &Uploads {
        &self.uploads[shard]
    }

    /// The memory of all long values that are under way now.
    pub fn upload_use(&self) -> UploadUse {
        let mut usage = UploadUse::default();
        self.uploads.iter().for_each(|uploads| uploads.add_to(&mut usage));
        usage
    }

    /// Tells the workers of these values that they may come in.
    pub fn admit(&self, admitted: Vec<Admission>) {
        for admission in admitted {
            self.mail(admission.ticket.worker, Mail::Admitted(admission));
        }
    }

    /// The number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.inboxes.len()
    }

    /// The lease of a shard, unless another worker has it.
    #[inline]
    pub fn try_lease(&self, shard: usize) -> Option<Lease<'_>> {
        let slot = &self.shards[shard];
        if slot.leased.load(Ordering::Relaxed) || slot.leased.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(Lease { slot })
    }

    /// Runs everything that was posted meanwhile, and gives the lease back.
    #[inline]
    pub fn give_back(&self, mut lease: Lease<'_>, mut run: impl FnMut(&mut Shard, &mut Batch)) {
        loop {
            let slot = lease.slot;
            while let Some(mut batch) = slot.inbox.pop() {
                run(&mut lease, &mut batch);
                self.mail(batch.from, Mail::Batch(batch));
            }
            drop(lease);
            fence(Ordering::SeqCst);
            if slot.inbox.is_empty() || slot.leased.swap(true, Ordering::Acquire) {
                return;
            }
            lease = Lease { slot };
        }
    }

    /// Posts a batch to its shard. The holder of the lease runs the batch; if there is none, the caller does. Either way the
    /// batch comes back by mail. Its worker must have no other batch on the way to this shard.
    pub fn post(&self, batch: Box<Batch>, run: impl FnMut(&mut Shard, &mut Batch)) {
        let shard = batch.shard;
        self.shards[shard].inbox.push(batch).expect("the inbox has room for a batch of each worker");
        fence(Ordering::SeqCst);
        if let Some(lease) = self.try_lease(shard) {
            self.give_back(lease, run);
        }
    }

    /// Sends mail to a worker, and wakes it if it sleeps.
    ///
    /// The mail has no limit of its own: batches, connections, queries and watchers each have one.
    pub fn mail(&self, worker: usize, mail: Mail) {
        let inbox = &self.inboxes[worker];
        inbox.mail.push(mail);
        fence(Ordering::SeqCst);
        if inbox.sleeps.load(Ordering::Relaxed)
            && inbox.sleeps.swap(false, Ordering::Relaxed)
            && let Some(waker) = inbox.waker.get()
            && let Err(error) = waker.wake()
        {
            log::error!("waking worker {worker} failed: {error}");
        }
    }

    /// Asks all shards from a thread that is no worker. `waker` wakes the thread when it can take all answers at once. A worker
    /// that hangs answers when it goes on; do not ask again before.
    pub fn ask_shards(&self, query: Query, waker: Arc<mio::Waker>) -> Receiver<Vec<Answer>> {
        let (asker, answers) = channel();
        let broadcast = Broadcast::new(query, ReplyKind::Text(b""), Asker::Thread(asker, waker), self.shards());
        self.mail(0, Mail::Ask(broadcast));
        answers
    }

    /// Answers a broadcast. The last answer goes to who asked, with all before it: to a worker by mail.
    pub fn answer(&self, broadcast: &Arc<Broadcast>, answer: Answer) {
        if broadcast.add(answer) {
            match &broadcast.asker {
                Asker::Connection { worker, .. } => self.mail(*worker, Mail::Answered(Arc::clone(broadcast))),
                Asker::Thread(thread, waker) => {
                    // The thread may wait no more.
                    if thread.send(broadcast.answers()).is_ok()
                        && let Err(error) = waker.wake()
                    {
                        log::error!("waking a thread that waits for answers failed: {error}");
                    }
                }
            }
        }
    }

    /// The next piece of mail of a worker.
    pub fn next_mail(&self, worker: usize) -> Option<Mail> {
        self.inboxes[worker].mail.pop()
    }

    /// Sets the waker of a worker.
    pub fn set_waker(&self, worker: usize, waker: impl Into<Waker>) {
        self.inboxes[worker].waker.set(waker.into()).expect("a worker sets its waker once");
    }

    /// A worker is about to sleep. Returns false if there is mail: then it must not sleep.
    pub fn falls_asleep(&self, worker: usize) -> bool {
        let inbox = &self.inboxes[worker];
        inbox.sleeps.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        inbox.mail.is_empty()
    }

    /// A worker is awake.
    pub fn wakes_up(&self, worker: usize) {
        self.inboxes[worker].sleeps.store(false, Ordering::Relaxed);
    }
}

/// The right to touch a shard.
pub struct Lease<'a> {
    /// Invariant: `slot.leased` is true, and the maker of this lease has set it.
    slot: &'a Slot,
}

impl Deref for Lease<'_> {
    type Target = Shard;

    #[inline]
    fn deref(&self) -> &Shard {
        // SAFETY: this is the only lease of the shard, and it is borrowed.
        unsafe { &*self.slot.shard.get() }
    }
}

impl DerefMut for Lease<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Shard {
        // SAFETY: this is the only lease of the shard, and it is borrowed mutably.
        unsafe { &mut *self.slot.shard.get() }
    }
}

impl Drop for Lease<'_> {
    #[inline]
    fn drop(&mut self) {
        debug_assert!(self.slot.leased.load(Ordering::Relaxed) || std::thread::panicking(), "there were two leases");
        self.slot.leased.store(false, Ordering::Release);
    }
}

impl std::fmt::Debug for Lease<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Lease of shard {}", self.number)
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
