//! The automover: which class needs pages, and which can spare them. Once a second, for all classes of a shard.
//!
//! A cache that was filled with items of one size has no page left for another: the class of that size evicts what it has
//! just stored, while the pages of the first hold what nobody asks for any more. What is compared is how long the coldest
//! items of a class have idled. A class that evicts in most seconds of the window while its coldest are younger than
//! `ratio` of those of the oldest class is given pages of that one, until the ages meet, as in one LRU over all sizes: the
//! rule of memcached's page mover, whose flags these are. A class that has long had more free chunks than fill two pages
//! gives them up as well.
//!
//! Where the ages differ by much, several pages go for one decision, because a cache of many pages would take too long
//! otherwise; no page goes to a class that has not filled the one before.
//!
//! With a free ratio that share of the pages is given up ahead of need, a page a second and shard, by the oldest class.
//!
//! When no class of its own can help, a shard asks that shard whose coldest items are oldest, for a page at a time: with
//! keys spread by hash all shards look alike, but with a port for each (`--port-per-core`) they need not.

use super::Store;
use super::budget::Need;
use super::slab::ClassId;

/// A class starves if it evicted in this share of the window.
const STARVING: f64 = 0.5;
/// A class has room to spare if it had so in this share of the window.
const ROOMY: f64 = 0.9;
/// Tails looked at for the age of a class: the oldest of them counts, since a hit moves no item.
const TAILS: usize = 8;
/// With a donor so many times as old, a share of its pages goes for one decision.
const MUCH_OLDER: f64 = 4.0;
const PAGES_SHARE: u32 = 16;
/// Between shards, where both sides see only a part, the ages must differ by more: the ratio to this power.
const RATIO_POWER: i32 = 2;

/// What the automover remembers.
#[derive(Debug)]
pub(super) struct Automover {
    sampled_at: u32,
    /// By class id.
    samples: Vec<Sample>,
    plan: Option<Plan>,
}

/// The last seconds of a class, those further back counting less.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Items evicted until now.
    evicted: u64,
    /// Whether any were in the last second.
    evicts: bool,
    /// In which share of the seconds it evicted.
    pressure: f64,
    /// In which share of the seconds it had room to spare.
    room: f64,
}

/// Pages to move.
#[derive(Clone, Copy, Debug)]
struct Plan {
    from: ClassId,
    /// None: the budget.
    to: Option<ClassId>,
    left: u32,
}

impl Automover {
    pub(super) fn new(classes: usize) -> Automover {
        Automover { sampled_at: 0, samples: vec![Sample::default(); classes + 1], plan: None }
    }
}

impl Store {
    /// Considers who needs pages, once a second, and begins the next move of what was decided. Says whether it did.
    pub(super) fn automove(&mut self) -> bool {
        if self.options.automove == 0 || !self.options.reassign || !self.options.evict {
            self.automover.plan = None;
            return false;
        }
        if self.automover.sampled_at != self.now {
            self.sample();
            self.automover.plan = self.decide();
        }
        if !self.may_move() {
            return false;
        }
        let Some(plan) = &mut self.automover.plan else { return false };
        let (from, to) = (plan.from, plan.to);
        plan.left -= 1;
        if plan.left == 0 {
            self.automover.plan = None;
        }
        let wanted = to.is_none_or(|to| self.slabs.free_chunks(to) < self.slabs.usage(to).chunks_per_page);
        if wanted && self.slabs.page_count(from) > 1 && self.start_move(from, to) {
            return true;
        }
        self.automover.plan = None;
        false
    }

    fn sample(&mut self) {
        let seconds = self.now.saturating_sub(self.automover.sampled_at);
        self.automover.sampled_at = self.now;
        // What happened between two samples is taken to have happened in each second of it.
        let weight = f64::from(seconds) / f64::from(self.options.automove_window.max(1));
        let weight = if self.options.automove > 1 { 1.0 } else { weight.min(1.0) };
        for class in self.slabs.ids() {
            let counters = &self.class_counters[class.index()];
            // Less than before: `stats reset` came in between.
            let evicted = counters.evicted.saturating_sub(counters.evicted_by_moves + counters.evicted_by_chains);
            let usage = self.slabs.usage(class);
            let spare = f64::from(self.slabs.free_chunks(class));
            let is_roomy = spare >= 2.5 * f64::from(usage.chunks_per_page) && spare * 4.0 > usage.used_chunks as f64;
            let sample = &mut self.automover.samples[class.index()];
            sample.evicts = evicted != sample.evicted && evicted > 0;
            sample.evicted = evicted;
            sample.pressure += (f64::from(u8::from(sample.evicts)) - sample.pressure) * weight;
            sample.room += (f64::from(u8::from(is_roomy)) - sample.room) * weight;
        }
    }

    fn decide(&mut self) -> Option<Plan> {
        let samples = &self.automover.samples;
        let ages: Vec<(ClassId, f64)> =
            self.slabs.ids().filter_map(|class| self.class_age(class).map(|age| (class, f64::from(age)))).collect();
        let starving = |&(class, _): &(ClassId, f64)| {
            let sample = samples[class.index()];
            sample.evicts && sample.pressure >= STARVING
        };
        let poorest = ages.iter().copied().filter(starving).min_by(|(_, one), (_, other)| one.total_cmp(other));
        let to = poorest.map(|(class, _)| class);
        let donors = ages.iter().copied().filter(|&(class, _)| Some(class) != to && self.slabs.page_count(class) > 1);
        let oldest = donors.max_by(|(_, one), (_, other)| one.total_cmp(other));
        let need = if to.is_some() { Need::Pages } else { Need::Nothing };
        let asked = self.budget.report(self.slabs.shard(), oldest.map_or(0, |(_, age)| age as u32), need);

        let roomy = |&class: &ClassId| {
            samples[class.index()].room >= ROOMY && self.slabs.page_count(class) > 1 && Some(class) != to
        };
        if let Some(from) = self.slabs.ids().find(roomy) {
            return Some(Plan { from, to, left: 1 });
        }
        if let (Some((to, age)), Some((from, donor_age))) = (poorest, oldest)
            && age < donor_age * self.options.automove_ratio
        {
            let several = (self.slabs.page_count(from) as u32 / PAGES_SHARE).max(1);
            let left = if age * MUCH_OLDER < donor_age { several } else { 1 };
            return Some(Plan { from, to: Some(to), left });
        }
        if let Some((_, age)) = poorest {
            self.budget.ask(self.slabs.shard(), age / self.options.automove_ratio.powi(RATIO_POWER));
        }
        let wanted = asked || self.budget.free() < self.pages_reserved();
        oldest.filter(|_| wanted).map(|(from, _)| Plan { from, to: None, left: 1 })
    }

    /// Pages that are kept free for new items of whichever class needs one.
    pub(super) fn pages_reserved(&self) -> u32 {
        if self.options.automove_free_ratio == 0.0 {
            return 0;
        }
        (f64::from(self.budget.limit()) * self.options.automove_free_ratio) as u32
    }

    /// Seconds that the coldest items of a class have idled, if it has items.
    fn class_age(&self, class: ClassId) -> Option<u32> {
        self.coldest(class).take(TAILS).map(|id| self.idle_seconds(id)).max()
    }
}
