//! The state of page moves, which a store holds. [`rebalance`](super::rebalance), [`automove`](super::automove) and
//! [`gather`](super::gather) have the code that works on it.

use super::arena::PageId;
use super::slab::ClassId;
use serde::{Deserialize, Serialize};

/// Why the last page had to wait, by memcached's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Busy {
    /// No page has had to wait yet.
    #[default]
    None,
    /// The store had no memory to rescue an item.
    NoMemory,
    /// A client was sending an item.
    Uploading,
    /// A worker was writing an item to a socket.
    Active,
    /// A worker was writing an item to a socket that was deleted meanwhile.
    Floating,
}

impl Busy {
    /// The value of `slab_reassign_last_busy_status`.
    pub fn name(self) -> &'static str {
        match self {
            Busy::None => "none",
            Busy::NoMemory => "busy",
            Busy::Uploading => "busy_uploading",
            Busy::Active => "busy_active",
            Busy::Floating => "busy_floating",
        }
    }
}

/// How the store takes pages from other classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pace {
    /// It empties them at once.
    #[default]
    AtOnce,
    /// It empties them in steps, because the value can wait.
    InSteps,
    /// As `InSteps`, and a page is moving.
    Waiting,
}

/// The page that is moving.
#[derive(Debug)]
pub(super) struct Move {
    /// Invariant: closed.
    pub(super) page: PageId,
    /// The class that it moves to; `None`: the budget.
    pub(super) to: Option<ClassId>,
    /// A client has asked for the move.
    pub(super) is_requested: bool,
    /// The chunk to look at next.
    pub(super) place: u32,
    /// Chunks that had to stay in use so far, in this round over the page.
    pub(super) left_behind: u32,
    /// Whether an item found no memory.
    pub(super) no_memory: bool,
    /// The count of the clock at which the next round begins.
    pub(super) resume_at: u32,
    /// The count of the clock at which the page stays if it is still in use.
    pub(super) give_up_at: u32,
}

/// The moves of a shard.
#[derive(Debug, Default)]
pub(super) struct Mover {
    pub(super) current: Option<Move>,
    /// A page that could not be emptied. It is not the next one to be tried.
    pub(super) avoid: Option<PageId>,
    /// After a failure no move begins before this count of the clock.
    pub(super) retry_at: u32,
    pub(super) last_busy: Busy,
    /// The classes of the move that began last. The next call of `Store::housekeep` forgets them.
    pub(super) begun: Option<(ClassId, Option<ClassId>)>,
}

impl Mover {
    /// Whether a page is moving.
    pub(super) fn is_running(&self) -> bool {
        self.current.is_some()
    }
}

/// The state of the automover.
#[derive(Debug)]
pub(super) struct Automover {
    pub(super) sampled_at: u32,
    /// By class id.
    pub(super) samples: Vec<Sample>,
    pub(super) plan: Option<Plan>,
    /// Pages that may still move before the next sample.
    pub(super) quota: u32,
    /// Pages that sets have paid for: see [`Automover::earn`].
    pub(super) earned: f64,
    /// `Counters::total_items` at the last sample.
    pub(super) sets: u64,
}

/// Sets that pay for the move of a page. With what is saved, a page moves per thousand sets at most.
const SETS_PER_PAGE: f64 = 1250.0;
/// The pages that a cache can save for a time when its sizes change: one in so many.
const EARNED_SHARE: u32 = 16;

/// The recent past of a class. Earlier seconds count less.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Items that the class has evicted so far.
    pub(super) evicted: u64,
    /// Whether it evicted any in the last second.
    pub(super) evicts: bool,
    /// The share of seconds in which it evicted.
    pub(super) pressure: f64,
    /// The share of seconds in which it had room to spare.
    pub(super) room: f64,
}

/// Pages to move.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) from: ClassId,
    /// `None`: the budget.
    pub(super) to: Option<ClassId>,
    pub(super) left: u32,
}

impl Automover {
    pub(super) fn new(classes: usize) -> Automover {
        Automover {
            sampled_at: 0,
            samples: vec![Sample::default(); classes + 1],
            plan: None,
            quota: 0,
            earned: f64::INFINITY,
            sets: 0,
        }
    }

    /// Whether sets have paid for the move of a page.
    pub(super) fn can_pay(&self) -> bool {
        self.earned >= 1.0
    }

    /// Pays for the move of a page.
    pub(super) fn pay(&mut self) {
        self.earned -= 1.0;
    }

    /// Counts the sets since the last sample. They pay for moves, so that pages do not move back and forth for ever
    /// where no division of the memory is clearly the best. `pages` is the number of pages of the cache.
    pub(super) fn earn(&mut self, sets: u64, pages: u32) {
        let paid = sets.saturating_sub(self.sets) as f64 / SETS_PER_PAGE;
        self.sets = sets;
        self.earned = (self.earned + paid).min(f64::from(pages / EARNED_SHARE).max(1.0));
    }
}
