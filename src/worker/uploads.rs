//! Long values under way: how many bytes of memory those may take whose clients have announced them, and not sent them
//! yet.
//!
//! A long value is received in the memory of items, where nothing can be evicted for others before it is complete or given
//! up. So all of them together have a limit, a share of `-m`, and those of a shard the same share of its part: all may have
//! one key. A value counts with all of its bytes from its first one on, so that what has begun can come to its end; others
//! wait, in the order in which their first bytes came, and nothing is read from their connections meanwhile.
//!
//! ```text
//!             there is room                     all bytes are there, or it is given up
//!  announced ───────────────▶ under way ──────────────────────────────────────────────▶ ended
//!      │                       ▲     │ others wait, and its client sends next to nothing
//!      └──▶ waiting ───────────┘     ▼
//!              ▲───────────────── yielded: it counts with what it holds, and waits again when more comes
//! ```
//! The one lock of the path of a request, taken twice for a value that is longer than the read buffer takes.

use crate::counters::UploadUse;
use crate::store::arena::PAGE_SIZE;
use crate::store::budget::Budget;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Who waits: a connection of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The worker.
    pub worker: usize,
    /// The token of the connection.
    pub token: usize,
    /// Its generation, which is not used again.
    pub generation: u64,
}

/// A value that may come in, with all of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Whose it is.
    pub ticket: Ticket,
    /// The shard whose memory it takes.
    pub shard: usize,
    /// Bytes that count; of them, those it holds because it has yielded.
    pub bytes: usize,
    held: usize,
}

impl Admission {
    /// A value of `bytes` bytes that holds memory for `held` of them.
    pub fn new(ticket: Ticket, shard: usize, bytes: usize, held: usize) -> Admission {
        Admission { ticket, shard, bytes, held }
    }
}

/// Which values of a shard count, and which wait.
#[derive(Debug)]
pub struct Uploads {
    limit: Limit,
    shards: usize,
    state: Mutex<State>,
    /// How many wait: for those who only want to know.
    waiting: AtomicUsize,
}

/// What values under way may take.
#[derive(Clone, Debug)]
pub enum Limit {
    /// As much as they want: for tests and measurements.
    None,
    /// A share of a shard's part of the pages, or two of the largest items if that is more, but at most half of the part.
    /// One value at a time may always come in.
    Share {
        /// The pages.
        budget: Arc<Budget>,
        /// The share, in percent.
        percent: u32,
        /// `-I`, in bytes.
        item_size_max: u64,
    },
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of values under way.
    active: usize,
    /// Bytes that yielded ones hold.
    held: usize,
    queue: VecDeque<Admission>,
}

impl Uploads {
    /// Those of one of so many shards.
    pub fn new(limit: Limit, shards: usize) -> Uploads {
        Uploads { limit, shards, state: Mutex::default(), waiting: AtomicUsize::new(0) }
    }

    /// Bytes that values under way may take together.
    pub fn limit(&self) -> usize {
        match &self.limit {
            Limit::None => usize::MAX,
            Limit::Share { budget, percent, item_size_max } => {
                let memory = budget.limit() as usize * PAGE_SIZE / self.shards;
                (memory * *percent as usize / 100).max(*item_size_max as usize * 2).min(memory / 2)
            }
        }
    }

    /// Adds what there is of them now. Yielded ones count with what they hold.
    pub fn add_to(&self, usage: &mut UploadUse) {
        usage.limit = usage.limit.saturating_add(self.limit());
        let state = self.state.lock();
        usage.bytes += state.active + state.held;
        usage.waiting += state.queue.len();
    }

    /// How many values wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A value wants to come in. False: it waits, until one of the other calls names it.
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

    /// A value that counted `bytes` is complete, or given up. Gives those that may come in now.
    #[must_use]
    pub fn leave(&self, bytes: usize) -> Vec<Admission> {
        self.change(|state| state.active -= bytes)
    }

    /// A value that counted `bytes` makes way for others, and keeps the memory for `held` of them.
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

    /// A value that waits is given up. None: it does not wait any more, and its admission is in the mail.
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
        // Those that have yielded cannot keep all others out.
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
        let arena = Arena::reserve(pages).expect("address space");
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
        assert_eq!(tokens(uploads.leave(1 << 20)), []);
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
        // It holds as much as it may, and goes on later.
        assert_eq!(tokens(uploads.yield_to_others(4 << 20, 4 << 20)), [1]);
        let again = Admission::new(value(0, 4).ticket, 0, 4 << 20, 4 << 20);
        assert!(!uploads.enter(again));
        assert_eq!(bytes(&uploads), 8 << 20);
        assert_eq!(tokens(uploads.leave(4 << 20)), [0]);
        assert_eq!(tokens(uploads.leave(4 << 20)), []);
        assert_eq!(bytes(&uploads), 0);
    }
}
