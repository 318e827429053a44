//! The limit of long values under way: those that clients have announced, and not sent to their end.
//!
//! A long value is received in the memory of items, and cannot be evicted before it is complete or given up. So the values of
//! a shard together have a limit, which is a share of the shard's part of `-m`. The limit is by shard because all values may
//! be for the same key. A value counts with all of its bytes from the first one on, so that a value that has begun can come
//! to its end. Other values wait, in the order in which their first bytes came, and the worker does not read from their
//! connections meanwhile.
//!
//! ```text
//!             there is room                     all bytes have come, or it is given up
//!  announced ───────────────▶ under way ──────────────────────────────────────────────▶ ended
//!      │                       ▲     │ others wait, and its client sends next to nothing
//!      └──▶ waiting ───────────┘     ▼
//!              ▲───────────────── yielded: it counts with the memory that it holds, and waits again when more comes
//! ```
//! Here is the only lock on the path of a request. A worker takes it twice for a value that is longer than the read buffer.

use crate::counters::UploadUse;
use crate::store::budget::Budget;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The connection of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The worker of the connection.
    pub worker: usize,
    /// The token of the connection.
    pub token: usize,
    /// The generation of the connection; see `Origin`.
    pub generation: u64,
}

/// A value that may come in, or wants to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The connection of the value.
    pub ticket: Ticket,
    /// The shard of the value.
    pub shard: usize,
    /// The bytes that the value counts with.
    pub bytes: usize,
    /// Those of them that the value has held since it has yielded.
    held: usize,
}

impl Admission {
    /// A value of `bytes` bytes that holds memory for `held` of them.
    pub fn new(ticket: Ticket, shard: usize, bytes: usize, held: usize) -> Admission {
        Admission { ticket, shard, bytes, held }
    }
}

/// The long values of a shard: those under way, and those that wait.
#[derive(Debug)]
pub struct Uploads {
    limit: Limit,
    shards: usize,
    state: Mutex<State>,
    /// The number of values that wait, for readers that do not take the lock.
    waiting: AtomicUsize,
}

/// The memory that values under way may take.
#[derive(Clone, Debug)]
pub enum Limit {
    /// No limit: for tests and measurements.
    None,
    /// A share of a shard's part of the pages, or two of the largest items if that is more, but at most half of the part. One
    /// value may always come in while no other is under way.
    Share {
        /// The pages of the server.
        budget: Arc<Budget>,
        /// The share, in percent.
        percent: u32,
        /// `-I`, in bytes.
        item_size_max: u64,
    },
}

#[derive(Debug, Default)]
struct State {
    /// The bytes of values under way.
    active: usize,
    /// The bytes that yielded values hold.
    held: usize,
    queue: VecDeque<Admission>,
}

impl Uploads {
    /// The long values of one of `shards` shards.
    pub fn new(limit: Limit, shards: usize) -> Uploads {
        Uploads { limit, shards, state: Mutex::default(), waiting: AtomicUsize::new(0) }
    }

    /// The bytes that values under way to this shard may take together.
    pub fn limit(&self) -> usize {
        match &self.limit {
            Limit::None => usize::MAX,
            Limit::Share { budget, percent, item_size_max } => {
                let memory = budget.limit_bytes() as usize / self.shards;
                (memory * *percent as usize / 100).max(*item_size_max as usize * 2).min(memory / 2)
            }
        }
    }

    /// Adds the values of this shard to `usage`. Yielded ones count with the memory that they hold.
    pub fn add_to(&self, usage: &mut UploadUse) {
        usage.limit = usage.limit.saturating_add(self.limit());
        let state = self.state.lock();
        usage.bytes += state.active + state.held;
        usage.waiting += state.queue.len();
    }

    /// The number of values that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A value wants to come in. Returns false if it must wait until one of the other calls returns its admission.
    pub fn enter(&self, admission: Admission) -> bool {
        let limit = self.limit();
        let mut state = self.state.lock();
        if state.queue.is_empty() && state.admit(&admission, limit) {
            return true;
        }
        state.queue.push_back(admission);
        self.waiting.store(state.queue.len(), Ordering::Relaxed);
        false
    }

    /// A value that counted `bytes` is complete, or given up. Returns the values that may come in now.
    #[must_use]
    pub fn leave(&self, bytes: usize) -> Vec<Admission> {
        self.change(|state| state.active -= bytes)
    }

    /// A value that counted `bytes` makes way for others, and keeps the memory of `held` of them.
    #[must_use]
    pub fn yield_to_others(&self, bytes: usize, held: usize) -> Vec<Admission> {
        self.change(|state| {
            state.active -= bytes;
            state.held += held;
        })
    }

    /// A value that has yielded is given up.
    #[must_use]
    pub fn leave_yielded(&self, held: usize) -> Vec<Admission> {
        self.change(|state| state.held -= held)
    }

    /// A value that waits is given up. Returns `None` if it does not wait any more: then its admission is in the mail.
    #[must_use]
    pub fn withdraw(&self, ticket: Ticket) -> Option<Vec<Admission>> {
        let mut found = false;
        let admitted = self.change(|state| {
            if let Some(at) = state.queue.iter().position(|other| other.ticket == ticket) {
                let admission = state.queue.remove(at).expect("it is there");
                state.held -= admission.held;
                found = true;
            }
        });
        found.then_some(admitted)
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Vec<Admission> {
        let mut admitted = Vec::new();
        let mut state = self.state.lock();
        change(&mut state);
        if !state.queue.is_empty() {
            let limit = self.limit();
            while let Some(&first) = state.queue.front()
                && state.admit(&first, limit)
            {
                state.queue.pop_front();
                admitted.push(first);
            }
        }
        self.waiting.store(state.queue.len(), Ordering::Relaxed);
        admitted
    }
}

impl State {
    fn admit(&mut self, admission: &Admission, limit: usize) -> bool {
        let more = admission.bytes - admission.held;
        // Yielded values alone cannot keep all others out.
        if self.active > 0 && self.active + self.held + more > limit {
            return false;
        }
        self.held -= admission.held;
        self.active += admission.bytes;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::arena::Arena;

    fn uploads_of_shard(shards: usize, pages: u32, item_size_max: u64) -> Uploads {
        let arena = Arena::reserve(pages, 1 << 20).expect("address space");
        let budget = Arc::new(Budget::new(pages, shards, &arena));
        Uploads::new(Limit::Share { budget, percent: 25, item_size_max }, shards)
    }

    fn uploads(pages: u32, item_size_max: u64) -> Uploads {
        uploads_of_shard(1, pages, item_size_max)
    }

    fn bytes(uploads: &Uploads) -> usize {
        let mut usage = UploadUse::default();
        uploads.add_to(&mut usage);
        usage.bytes
    }

    fn value(token: usize, megabytes: usize) -> Admission {
        Admission::new(Ticket { worker: 0, token, generation: token as u64 }, 0, megabytes << 20, 0)
    }

    fn tokens(admitted: Vec<Admission>) -> Vec<usize> {
        admitted.into_iter().map(|admission| admission.ticket.token).collect()
    }

    #[test]
    fn the_limit_is_a_share_of_memory_with_room_for_two_of_the_largest() {
        for (pages, item_megabytes, expected) in
            [(64, 1, 16), (1024, 1, 256), (4, 1, 2), (512, 200, 256), (512, 80, 160)]
        {
            assert_eq!(uploads(pages, item_megabytes << 20).limit(), expected << 20);
        }
    }

    #[test]
    fn a_shard_has_its_part_of_the_limit() {
        for (shards, pages, item_megabytes, expected) in
            [(4, 1024, 1, 64), (16, 1024, 1, 16), (4, 64, 1, 4), (8, 16, 1, 1)]
        {
            assert_eq!(uploads_of_shard(shards, pages, item_megabytes << 20).limit(), expected << 20);
        }
    }

    #[test]
    fn values_come_in_in_order_while_there_is_room() {
        let uploads = uploads(16, 1 << 20);
        assert!(uploads.enter(value(0, 3)) && uploads.enter(value(1, 1)));
        assert!(!uploads.enter(value(2, 2)) && !uploads.enter(value(3, 1)), "nobody overtakes");
        assert_eq!((bytes(&uploads), uploads.waiting()), (4 << 20, 2));
        assert!(tokens(uploads.leave(1 << 20)).is_empty());
        assert_eq!(tokens(uploads.leave(3 << 20)), [2, 3]);
        assert_eq!((bytes(&uploads), uploads.waiting()), (3 << 20, 0));
    }

    #[test]
    fn one_that_waits_can_be_given_up() {
        let uploads = uploads(16, 1 << 20);
        assert!(uploads.enter(value(0, 4)));
        assert!(!uploads.enter(value(1, 4)) && !uploads.enter(value(2, 4)));
        assert_eq!(uploads.withdraw(value(1, 4).ticket).map(tokens), Some(vec![]));
        assert_eq!(tokens(uploads.leave(4 << 20)), [2]);
        assert!(uploads.withdraw(value(2, 4).ticket).is_none(), "it has been admitted");
        assert_eq!(bytes(&uploads), 4 << 20);
    }

    #[test]
    fn those_that_yield_keep_nobody_out_for_ever() {
        let uploads = uploads(16, 1 << 20);
        assert!(uploads.enter(value(0, 4)));
        assert!(!uploads.enter(value(1, 4)));
        // The first value has filled its room. It yields, and continues later.
        assert_eq!(tokens(uploads.yield_to_others(4 << 20, 4 << 20)), [1]);
        let again = Admission::new(value(0, 4).ticket, 0, 4 << 20, 4 << 20);
        assert!(!uploads.enter(again));
        assert_eq!(bytes(&uploads), 8 << 20);
        assert_eq!(tokens(uploads.leave(4 << 20)), [0]);
        assert!(tokens(uploads.leave(4 << 20)).is_empty());
        assert_eq!(bytes(&uploads), 0);
    }
}
