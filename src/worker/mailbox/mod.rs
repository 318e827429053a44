//! What crosses cores: leases of shards, batches of operations for them, and mail for workers.
//!
//! A shard may only be touched by the holder of its [`Lease`]. Every worker serves its connections itself, and leases the
//! shards it meets keys of for as long as it takes to execute what it has; on an idle server that always succeeds. When
//! somebody else holds the lease, the operations go into a [`Batch`] that is posted to the shard, and the holder executes
//! it, before or after its own, and mails it back with the replies: nobody waits for a lease.
//!
//! ```text
//! post:       push to the inbox;  fence;  try to lease ──no──▶ done: the holder will look
//!                                              └─yes─▶ run what is in the inbox, give back
//! give back:  run what is in the inbox;  free the lease;  fence;  inbox empty? ──yes──▶ done
//!                  ▲                                                 └─no─▶ try to lease ──no──▶ done
//!                  └─────────────────────────────────────────────────────yes──┘
//! ```
//! Of the two fences one comes first: either the poster sees the lease free, or the holder sees the batch.
//!
//! Going to sleep is the same race: a worker says that it sleeps, fences, and looks into its mail once more; who mails
//! pushes, fences, and wakes it if it said so.
//!
//! One of the three files with `unsafe` in them. What it rests on: at most one [`Lease`] of a shard exists, because it is
//! made by the one thread that changed `leased` from false to true, and dropped before that is undone.

use super::batch::Batch;
use super::broadcast::Broadcast;
use super::uploads::{Admission, Limit, Uploads};
use crate::admin::Answer;
use crate::command::Shard;
use crate::config::BindingProtocol;
use crate::counters::UploadUse;
use crate::net::stream::Stream;
use crossbeam::utils::CachePadded;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use sync::{ArrayQueue, AtomicBool, SegQueue, UnsafeCell, Waker, fence};

pub(super) mod sync;

/// What a worker can find in its mail.
#[derive(Debug)]
pub enum Mail {
    /// A new connection, and what it may speak.
    Connection(Stream, BindingProtocol),
    /// One of its batches, executed.
    Batch(Box<Batch>),
    /// A long value of one of its connections may come in now: it has become one of those under way.
    Admitted(Admission),
    /// A query to all workers.
    Broadcast(Arc<Broadcast>),
    /// A query of one of its connections has been answered by all.
    Answered(Arc<Broadcast>),
    /// There is something to tell to a connection that watches: its token, and its generation.
    Watched(usize, u64),
    /// A letter of the watchdog: to be opened.
    Watchdog(u64),
    /// Finish.
    Stop,
}

/// The shards and workers of a server.
pub struct Exchange {
    shards: Box<[CachePadded<Slot>]>,
    inboxes: Box<[CachePadded<WorkerInbox>]>,
    /// By shard.
    uploads: Box<[CachePadded<Uploads>]>,
}

struct Slot {
    leased: AtomicBool,
    inbox: ArrayQueue<Box<Batch>>,
    shard: UnsafeCell<Shard>,
}

// SAFETY: the shard is only reached through a `Lease`, and there is at most one at a time; its memory is ordered by
// acquire and release of `leased`. Everything in a `Shard` may be sent between threads.
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
    /// An exchange for shards and a number of workers, with a limit of the long values under way.
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

    /// What all long values under way take now.
    pub fn upload_use(&self) -> UploadUse {
        let mut usage = UploadUse::default();
        self.uploads.iter().for_each(|uploads| uploads.add_to(&mut usage));
        usage
    }

    /// Tells those whose values may come in now.
    pub fn admit(&self, admitted: Vec<Admission>) {
        for admission in admitted {
            self.mail(admission.ticket.worker, Mail::Admitted(admission));
        }
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.inboxes.len()
    }

    /// The lease of a shard, unless somebody has it.
    #[inline]
    pub fn try_lease(&self, shard: usize) -> Option<Lease<'_>> {
        let slot = &self.shards[shard];
        if slot.leased.load(Ordering::Relaxed) || slot.leased.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(Lease { slot })
    }

    /// Gives a lease back, once everything that was posted meanwhile has been run.
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

    /// Posts a batch to its shard: its holder runs it, or the caller does if there is none. Either way it comes back by
    /// mail. The worker it is from has no other batch on its way to this shard.
    pub fn post(&self, batch: Box<Batch>, run: impl FnMut(&mut Shard, &mut Batch)) {
        let shard = batch.shard;
        self.shards[shard].inbox.push(batch).expect("the inbox has room for a batch of each worker");
        fence(Ordering::SeqCst);
        if let Some(lease) = self.try_lease(shard) {
            self.give_back(lease, run);
        }
    }

    /// Puts something into a worker's mail, and wakes it if it sleeps.
    ///
    /// The queue has no limit of its own: batches, connections, questions and watchers each have one.
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

    /// Answers a broadcast. The last answer goes to the worker that asked, by mail, with all before it.
    pub fn answer(&self, broadcast: &Arc<Broadcast>, answer: Answer) {
        if broadcast.add(answer) {
            self.mail(broadcast.asker, Mail::Answered(Arc::clone(broadcast)));
        }
    }

    /// The next piece of mail of a worker.
    pub fn next_mail(&self, worker: usize) -> Option<Mail> {
        self.inboxes[worker].mail.pop()
    }

    /// Tells how a worker is woken.
    pub fn set_waker(&self, worker: usize, waker: impl Into<Waker>) {
        self.inboxes[worker].waker.set(waker.into()).expect("a worker sets its waker once");
    }

    /// A worker is about to sleep. False: there is mail, it must not.
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
    /// Invariant: `slot.leased`, set by whoever made this.
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
