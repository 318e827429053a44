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

use super::broadcast::Broadcast;
use super::uploads::{Admission, Limit, Uploads};
use crate::command::walk::Walk;
use crate::command::{Reply, Shard};
use crate::config::BindingProtocol;
use crate::counters::UploadUse;
use crate::net::stream::Stream;
use crate::protocol::{Operation, Span};
use crate::store::arena::ItemId;
use crate::store::gather::Gathering;
use crossbeam::utils::CachePadded;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use sync::{ArrayQueue, AtomicBool, SegQueue, UnsafeCell, Waker, fence};

#[path = "sync.rs"]
pub(super) mod sync;

/// Which connection of a worker a task is for. Tokens are used again, generations are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its token.
    pub token: usize,
    /// Counts the connections of the worker.
    pub generation: u64,
    /// Its gap in the replies.
    pub slot: usize,
    /// Its descriptor, for those who watch.
    pub fd: i32,
}

/// Something to be done on a shard.
#[derive(Clone, Debug)]
pub enum Task {
    /// Execute an operation. Its spans refer to the bytes of the batch.
    Execute(Operation),
    /// Make room for a value that is received in place. There is a reply only if there is none: the error.
    Reserve(Box<Reservation>),
    /// Execute a storage command whose value was received.
    Commit(Operation, ItemId),
    /// Give up an item that was reserved.
    Abandon(ItemId),
    /// A pinned value has been written, or never will be.
    Unpin(ItemId),
    /// Answer a query to all shards.
    Broadcast(Arc<Broadcast>),
    /// A piece of a walk, which is taken out when the batch has returned. The reply is a piece of a dump.
    Walk(Option<Box<Walk>>),
}

/// Room for a value that is received in place.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// The storage command.
    pub operation: Operation,
    /// Bytes of the value that room is wanted for.
    pub wanted: usize,
    /// How far it has come.
    pub room: Room,
}

/// See [`Reservation`].
#[derive(Clone, Copy, Debug)]
pub enum Room {
    /// More is wanted than there is. On the way back: ask once more.
    Wanted(Option<Gathering>),
    /// There is as much as is wanted.
    Ready(Gathering),
    /// There is no memory. What there was has been given up.
    Refused,
}

impl Room {
    /// The item that must be abandoned if nobody takes it over.
    pub fn item(&self) -> Option<ItemId> {
        match self {
            Room::Wanted(so_far) => so_far.as_ref().and_then(Gathering::item),
            Room::Ready(gathering) => gathering.item(),
            Room::Refused => None,
        }
    }
}

/// Tasks of one worker for one shard; on the way back, with their replies.
#[derive(Debug)]
pub struct Batch {
    /// The worker that it came from.
    pub from: usize,
    /// The shard that it is for.
    pub shard: usize,
    /// What to do, in this order, and for which connection; none where nobody waits for a reply.
    pub tasks: Vec<(Task, Option<Origin>)>,
    /// What the spans of the tasks refer to.
    pub bytes: Vec<u8>,
    /// The replies, one behind the other.
    pub reply: Reply,
    /// Where the reply of each task ends.
    pub ends: Vec<usize>,
    /// Bytes that the replies may take, at most; those of pinned values do not count.
    reply_bytes_max: usize,
}

/// Room for replies and operations that a batch keeps from one use to the next, in bytes each.
const KEPT_BYTES_MAX: usize = 256 << 10;

impl Batch {
    /// An empty batch.
    pub fn new(from: usize, shard: usize) -> Batch {
        Batch {
            from,
            shard,
            tasks: Vec::new(),
            bytes: Vec::new(),
            reply: Reply::default(),
            ends: Vec::new(),
            reply_bytes_max: 0,
        }
    }

    /// Empties it, to be used again. Memory beyond what most batches need goes back.
    pub fn clear(&mut self) {
        self.tasks.clear();
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.reply.out.clear();
        self.reply.out.shrink_to(KEPT_BYTES_MAX);
        self.reply.pinned.clear();
        self.ends.clear();
        self.reply_bytes_max = 0;
    }

    /// Adds a task whose reply takes at most `reply_bytes_max` bytes.
    pub fn push(&mut self, task: Task, origin: Option<Origin>, reply_bytes_max: usize) {
        self.tasks.push((task, origin));
        self.reply_bytes_max += reply_bytes_max;
    }

    /// Bytes that it takes, at most, with those of the replies.
    pub fn bytes_max(&self) -> usize {
        self.bytes.len() + self.tasks.len() * size_of::<(Task, Option<Origin>)>() + self.reply_bytes_max
    }

    /// Copies the bytes that an operation refers to into the batch, and makes it refer to them.
    pub fn adopt(&mut self, operation: &Operation, input: &[u8]) -> Operation {
        let mut adopted = *operation;
        adopted.key = self.copy(operation.key, input);
        if operation.verb.is_meta() {
            adopted.tokens = self.copy(operation.tokens, input);
        }
        // The value of a command that is still being received lies beyond the buffer; only its length matters.
        if operation.verb.is_storage() && (operation.value.start + operation.value.len) as usize <= input.len() {
            adopted.value = self.copy(operation.value, input);
        }
        adopted
    }
}

impl Batch {
    fn copy(&mut self, span: Span, input: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(span.of(input));
        Span::new(start, self.bytes.len())
    }
}

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

/// Every order of what threads do here, and all that the memory model lets them see; see `sync.rs`.
/// `RUSTFLAGS="--cfg loom" cargo test --release --lib loom`, as `.ci/run` does it.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::hash::KeyHasher;
    use crate::protocol::Limits;
    use crate::store::arena::Arena;
    use crate::store::item::Items;
    use crate::store::slab::Budget;
    use crate::store::{Store, StoreOptions};
    use loom::sync::Notify;
    use loom::thread::{self, JoinHandle};
    use std::sync::LazyLock;

    /// The store of a shard is not used here; the arena of all of them is made once.
    static MEMORY: LazyLock<(Items, Arc<Budget>)> = LazyLock::new(|| {
        let arena = Arc::new(Arena::reserve(2, false).expect("address space"));
        let budget = Arc::new(Budget::new(2, 1, &arena));
        (Items::new(arena, true), budget)
    });

    /// An exchange with one shard. Its number, 0, is what the tests write to with a lease.
    fn exchange(workers: usize) -> Arc<Exchange> {
        let (items, budget) = (MEMORY.0.clone(), Arc::clone(&MEMORY.1));
        let store = Store::new(0, StoreOptions::default(), items, budget, KeyHasher::seeded(1)).expect("address space");
        let limits = Limits { item_size_max: 1 << 20, cas: true, inline_max: 2048 };
        Arc::new(Exchange::new(vec![Shard { number: 0, store, limits, prefixes: None }], workers, Limit::None))
    }

    /// Runs a test in every order in which threads are stopped at most so many times where they could go on.
    fn check(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(test);
    }

    fn spawn<T: 'static>(exchange: &Arc<Exchange>, test: impl FnOnce(&Exchange) -> T + 'static) -> JoinHandle<T> {
        let exchange = Arc::clone(exchange);
        thread::spawn(move || test(&exchange))
    }

    fn batch(from: usize, number: u8) -> Box<Batch> {
        let mut batch = Box::new(Batch::new(from, 0));
        batch.bytes.push(number);
        batch
    }

    /// Uses the shard: the how-manieth use it is.
    fn touch(shard: &mut Shard) -> usize {
        shard.number += 1;
        usize::from(shard.number)
    }

    /// Stands for executing a batch: uses the shard once.
    fn run(shard: &mut Shard, batch: &mut Batch) {
        batch.ends.push(touch(shard));
    }

    /// Uses the shard by lease, or posts a batch that does. The number of the use, if that is known.
    fn turn(exchange: &Exchange, worker: usize) -> Option<usize> {
        match exchange.try_lease(0) {
            Some(mut lease) => {
                let number = touch(&mut lease);
                exchange.give_back(lease, run);
                Some(number)
            }
            None => {
                exchange.post(batch(worker, 0), run);
                None
            }
        }
    }

    /// The next batch of a worker; it sleeps until there is one.
    fn wait(exchange: &Exchange, worker: usize, waker: &Notify) -> Box<Batch> {
        loop {
            match exchange.next_mail(worker) {
                Some(Mail::Batch(batch)) => return batch,
                Some(other) => panic!("unexpected mail {other:?}"),
                None => {}
            }
            if exchange.falls_asleep(worker) {
                waker.wait();
            }
            exchange.wakes_up(worker);
        }
    }

    fn set_waker(exchange: &Exchange, worker: usize) -> Arc<Notify> {
        let waker = Arc::new(Notify::new());
        exchange.set_waker(worker, Waker(Arc::clone(&waker)));
        waker
    }

    /// At the end nobody holds the shard, nothing is left for it, and it was used so many times.
    fn check_end(exchange: &Exchange, uses: usize) {
        let lease = exchange.try_lease(0).expect("the lease was given back");
        assert!(exchange.shards[0].inbox.is_empty(), "a batch was left");
        assert_eq!(usize::from(lease.number), uses);
    }

    #[test]
    fn a_shard_has_one_holder() {
        check(3, || {
            let exchange = exchange(3);
            let uses = |exchange: &Exchange| {
                let lease = exchange.try_lease(0);
                lease.map_or(0, |mut lease| {
                    touch(&mut lease);
                    exchange.give_back(lease, |_, _| unreachable!("nobody posts"));
                    1
                })
            };
            let others = [(); 2].map(|()| spawn(&exchange, move |exchange| uses(exchange) + uses(exchange)));
            let own = uses(&exchange);
            check_end(&exchange, others.into_iter().map(|other| other.join().expect("no panic")).sum::<usize>() + own);
        });
    }

    #[test]
    fn what_is_posted_is_run_once_and_comes_back() {
        check(3, || {
            let exchange = exchange(3);
            let others = [1, 2].map(|worker| spawn(&exchange, move |exchange| turn(exchange, worker)));
            let done = [turn(&exchange, 0)].into_iter().chain(others.map(|other| other.join().expect("no panic")));
            for (worker, done) in done.collect::<Vec<_>>().into_iter().enumerate() {
                match (done, exchange.next_mail(worker)) {
                    (Some(_), None) => {}
                    (None, Some(Mail::Batch(batch))) => assert_eq!((batch.from, batch.ends.len()), (worker, 1)),
                    (done, mail) => panic!("worker {worker}: {done:?} {mail:?}"),
                }
                assert!(exchange.next_mail(worker).is_none());
            }
            check_end(&exchange, 3);
        });
    }

    #[test]
    fn what_is_posted_keeps_its_order() {
        check(4, || {
            let exchange = exchange(2);
            let other = spawn(&exchange, |exchange| turn(exchange, 0));
            // Not even a worker that does not wait for the first, where there is room for two, sees it done second.
            exchange.post(batch(1, 1), run);
            exchange.post(batch(1, 2), run);
            other.join().expect("no panic");
            let mut last = 0;
            for number in [1, 2] {
                let Some(Mail::Batch(batch)) = exchange.next_mail(1) else { panic!("batch {number} is missing") };
                assert!(batch.bytes == [number] && batch.ends[0] > last);
                last = batch.ends[0];
            }
        });
    }

    #[test]
    fn who_sleeps_is_woken_by_mail() {
        check(3, || {
            let exchange = exchange(1);
            let waker = set_waker(&exchange, 0);
            let others =
                [1, 2].map(|number| spawn(&exchange, move |exchange| exchange.mail(0, Mail::Batch(batch(0, number)))));
            let sum: u8 = [(); 2].map(|()| wait(&exchange, 0, &waker).bytes[0]).iter().sum();
            assert_eq!(sum, 3);
            others.into_iter().for_each(|other| other.join().expect("no panic"));
        });
    }

    #[test]
    fn workers_post_and_sleep_and_go_on() {
        check(3, || {
            let exchange = exchange(2);
            let work = |exchange: &Exchange, worker: usize| {
                let waker = set_waker(exchange, worker);
                let mut last = 0;
                for _ in 0..2 {
                    let use_number = turn(exchange, worker).unwrap_or_else(|| wait(exchange, worker, &waker).ends[0]);
                    assert!(use_number > last, "worker {worker} is done with {last}, then {use_number}");
                    last = use_number;
                }
            };
            let other = spawn(&exchange, move |exchange| work(exchange, 1));
            work(&exchange, 0);
            other.join().expect("no panic");
            check_end(&exchange, 4);
        });
    }
}
