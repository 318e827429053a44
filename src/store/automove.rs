//! The automover. Once a second it decides for a shard which class needs pages, and which class can spare some.
//!
//! A cache full of items of one size has no page left for items of another size. The class of the new size then evicts
//! items that it has just stored, while the old pages hold items that no client reads any more. So the automover
//! compares how long the coldest items of each class have idled; this is the age of the class. A class needs pages if
//! it evicts in most seconds of the window and its age is below `ratio` of the highest age. It gets pages of the class
//! with the highest age until the ages meet, as they would in one LRU for all sizes. This is the rule of memcached's
//! page mover, with the same flags. A class whose free chunks have long filled more than two pages gives pages up as
//! well.
//!
//! Ages of classes are compared as if the items of larger chunks were older ([`Store::weigh`]).
//!
//! If the ages differ by much, one decision moves several pages: one at a time would take too long in a large cache. A
//! class gets no further page before it has filled the last one. Within a second several decisions may follow each
//! other, up to a share of the memory. In the long run a page moves for every thousand sets at most.
//!
//! With a free ratio, the oldest class of each shard gives up a page a second until this share of all pages is free.
//!
//! If no class of its own can help, a shard asks the shard with the oldest items for a page. If the hash spreads the
//! keys, all shards are alike and never do so; with a port for each shard (`--port-per-core`) they may differ.

use super::Store;
use super::budget::Need;
use super::moves::Plan;
use super::slab::ClassId;

/// A class starves if it evicts in this share of the window.
const STARVING: f64 = 0.5;
/// A class has room to spare if it has many free chunks in this share of the window.
const ROOMY: f64 = 0.9;
/// The items at the tail that determine the age of a class. The oldest counts, because a hit does not move an item.
const TAILS: usize = 8;
/// If the donor is this many times as old, one decision moves one in [`PAGES_SHARE`] of its pages.
const MUCH_OLDER: f64 = 4.0;
const PAGES_SHARE: u32 = 16;
/// The memory that may change its class within a second: one part in so many, and no more than this.
const MEMORY_SHARE: u64 = 16;
const BYTES_PER_SECOND: u64 = 16 << 20;
/// Between shards the ages must differ by more, because each shard knows only a part: the ratio to this power.
const RATIO_POWER: i32 = 2;

impl Store {
    /// Once a second decides which class needs pages. Begins the next move of the plan, and says whether it did.
    pub(super) fn automove(&mut self) -> bool {
        if self.options.tuning.automove.level == 0 || !self.options.reassign || !self.options.evict {
            self.automover.plan = None;
            return false;
        }
        if self.automover.sampled_at != self.now {
            self.sample();
            self.automover.plan = self.decide();
            self.automover.earn(self.counters.total_items, self.budget.limit());
            self.automover.quota = self.pages_per_second();
        } else if self.automover.plan.is_none() && self.automover.quota > 0 && self.may_move() {
            self.automover.plan = self.decide();
            if self.automover.plan.is_none() {
                self.automover.quota = 0;
            }
        }
        if !self.may_move() {
            return false;
        }
        let Some(plan) = &mut self.automover.plan else { return false };
        let (from, to) = (plan.from, plan.to);
        plan.left -= 1;
        self.automover.quota = self.automover.quota.saturating_sub(1);
        if plan.left == 0 {
            self.automover.plan = None;
        }
        let wanted = to.is_none_or(|to| self.slabs.free_chunks(to) < self.slabs.usage(to).chunks_per_page);
        // A page for another shard, or to be kept free, costs nothing.
        let paid = to.is_none() || self.automover.can_pay();
        if wanted && paid && self.slabs.page_count(from) > 1 && self.start_move(from, to) {
            if to.is_some() {
                self.automover.pay();
            }
            return true;
        }
        self.automover.plan = None;
        false
    }

    fn sample(&mut self) {
        let seconds = self.now.saturating_sub(self.automover.sampled_at);
        self.automover.sampled_at = self.now;
        // Events between two samples count as if they had happened in each second between them.
        let weight = f64::from(seconds) / f64::from(self.options.tuning.automove.window_seconds.max(1));
        let weight = if self.options.tuning.automove.level > 1 { 1.0 } else { weight.min(1.0) };
        for class in self.slabs.ids() {
            let counters = &self.class_counters[class.index()];
            // If the count is lower than before, a client has reset the statistics.
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
        let weighted = |class| self.class_age(class).map(|age| (class, self.weigh(class, age)));
        let ages: Vec<(ClassId, f64)> = self.slabs.ids().filter_map(weighted).collect();
        let starving = |&(class, _): &(ClassId, f64)| {
            let sample = samples[class.index()];
            sample.evicts && sample.pressure >= STARVING
        };
        let poorest = ages.iter().copied().filter(starving).min_by(|(_, one), (_, other)| one.total_cmp(other));
        let to = poorest.map(|(class, _)| class);
        let donors = ages.iter().copied().filter(|&(class, _)| Some(class) != to && self.slabs.page_count(class) > 1);
        let oldest = donors.max_by(|(_, one), (_, other)| one.total_cmp(other));
        let need = if to.is_some() { Need::Pages } else { Need::Nothing };
        let asked = self.budget.report(self.slabs.shard(), oldest.map_or(0, |(class, _)| self.age_of(class)), need);

        let roomy = |&class: &ClassId| {
            samples[class.index()].room >= ROOMY && self.slabs.page_count(class) > 1 && Some(class) != to
        };
        if let Some(from) = self.slabs.ids().find(roomy) {
            return Some(Plan { from, to, left: 1 });
        }
        if let (Some((to, age)), Some((from, donor_age))) = (poorest, oldest)
            && age < donor_age * self.options.tuning.automove.ratio
        {
            let several = (self.slabs.page_count(from) as u32 / PAGES_SHARE).max(1);
            let left = if age * MUCH_OLDER < donor_age { several } else { 1 };
            return Some(Plan { from, to: Some(to), left });
        }
        if let Some((class, _)) = poorest {
            let age = f64::from(self.age_of(class));
            self.budget.ask(self.slabs.shard(), age / self.options.tuning.automove.ratio.powi(RATIO_POWER));
        }
        let wanted = asked || self.budget.free() < self.pages_reserved();
        oldest.filter(|_| wanted).map(|(from, _)| Plan { from, to: None, left: 1 })
    }

    /// An age, for comparisons between classes. A page holds more of small items than of large ones, and so it brings more
    /// hits. With the size itself as the weight, hits would be the most, but large items would hardly stay at all.
    pub(super) fn weigh(&self, class: ClassId, age: u32) -> f64 {
        let usage = self.slabs.usage(class);
        // Items of the largest class may have many chunks.
        let items = if class == self.slabs.largest() { self.lru.total(class).max(1) } else { u32::MAX };
        let mean = self.class_counters[class.index()].mem_requested as f64 / f64::from(items);
        (f64::from(age) + 0.5) * mean.max(f64::from(usage.chunk_size)).sqrt()
    }

    /// The most pages that move in a second.
    pub(super) fn pages_per_second(&self) -> u32 {
        let bytes = (self.budget.limit_bytes() / MEMORY_SHARE).min(BYTES_PER_SECOND);
        (bytes / self.budget.page_size() as u64).max(1) as u32
    }

    /// Pages that are kept free for new items of any class.
    pub(super) fn pages_reserved(&self) -> u32 {
        if self.options.tuning.automove.free_ratio == 0.0 {
            return 0;
        }
        (f64::from(self.budget.limit()) * self.options.tuning.automove.free_ratio) as u32
    }

    fn age_of(&self, class: ClassId) -> u32 {
        self.class_age(class).unwrap_or(0)
    }

    /// Seconds that the coldest items of a class have idled; `None`: it has no items.
    fn class_age(&self, class: ClassId) -> Option<u32> {
        self.coldest(class).take(TAILS).map(|id| self.idle_seconds(id)).max()
    }
}
