//! The operations of prefixes as counters that never go down.
//!
//! The workers' tables of prefixes change: prefixes come, and those that matter least join the rest. A counter that went down
//! with its table would look like a restart, and the rate of it like a burst. So the observer adds up what comes in each
//! second, for the prefixes that it shows, and for all others together.

use super::keys::readable;
use crate::measure::prefixes::{Report, Use};
use std::collections::HashMap;

/// The most prefixes that are shown.
pub(super) const SHOWN_MAX: usize = 100;
/// The name of all other keys. A prefix of this name is among them.
pub(super) const OTHER: &str = "other";
/// The commands and outcomes that are counted.
pub(super) const COUNTED: [(&str, &str); 6] =
    [("get", "hit"), ("get", "miss"), ("get", "unknown"), ("set", ""), ("delete", ""), ("other", "")];

/// Operations by command and outcome, in the order of [`COUNTED`]. The outcome of a fetch is unknown if another worker than
/// the sampling one executes it: such fetches count as the others of their prefix, if the outcome of any is known.
pub(super) type Counts = [f64; COUNTED.len()];

/// The operations and the memory of each prefix that is shown.
#[derive(Debug, Default)]
pub(super) struct PrefixTotals {
    /// By name.
    pub(super) shown: HashMap<String, Total>,
    pub(super) other: Total,
    /// The counts of the workers' tables at the last reading.
    before: HashMap<Box<[u8]>, [u64; COUNTED.len()]>,
    other_before: [u64; COUNTED.len()],
}

/// What is known of a prefix.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Total {
    pub(super) operations: Counts,
    /// Bytes that its items hold now.
    pub(super) bytes: f64,
}

impl PrefixTotals {
    /// Adds what the samples say since the last reading. A sample stands for `mean` operations.
    pub(super) fn add(&mut self, report: &Report, mean: f64) {
        self.choose(report);
        self.shown.values_mut().chain([&mut self.other]).for_each(|total| total.bytes = 0.0);
        // Counts that a table has lost since: their prefixes have joined the others there, or all counts were reset.
        let mut lost = [0; COUNTED.len()];
        let mut before = std::mem::take(&mut self.before);
        let mut now = HashMap::with_capacity(report.prefixes.len());
        for (prefix, usage) in &report.prefixes {
            let (counts, earlier) = (counts(usage), before.remove(prefix).unwrap_or_default());
            now.insert(prefix.clone(), counts);
            append(&mut lost, difference(earlier, counts));
            let total = self.shown.get_mut(&readable(prefix)).unwrap_or(&mut self.other);
            total.add(difference(counts, earlier), usage, mean);
        }
        before.into_values().for_each(|counts| append(&mut lost, counts));
        self.before = now;
        let counts = counts(&report.other);
        let added = difference(difference(counts, self.other_before), lost);
        self.other_before = counts;
        self.other.add(added, &report.other, mean);
    }

    /// Chooses which prefixes to show: those shown before, as long as they are among those with the most operations, and then
    /// others.
    fn choose(&mut self, report: &Report) {
        let operations = |usage: &Use| (usage.last.operations, usage.gets + usage.sets + usage.deletes + usage.others);
        let mut by_use: Vec<_> = report.prefixes.iter().collect();
        by_use.sort_by(|(name, one), (other_name, other)| {
            operations(other).cmp(&operations(one)).then(name.cmp(other_name))
        });
        let top: Vec<String> = by_use.iter().take(SHOWN_MAX).map(|(name, _)| readable(name)).collect();
        self.shown.retain(|name, _| top.contains(name));
        for name in top.into_iter().filter(|name| name != OTHER) {
            self.shown.entry(name).or_default();
        }
    }
}

impl Total {
    fn add(&mut self, samples: [u64; COUNTED.len()], usage: &Use, mean: f64) {
        let mut samples = samples.map(|count| count as f64);
        let (hits, known) = (usage.hits as f64, (usage.hits + usage.misses) as f64);
        if known > 0.0 {
            let unknown = std::mem::take(&mut samples[2]);
            samples[0] += unknown * hits / known;
            samples[1] += unknown * (known - hits) / known;
        }
        self.operations.iter_mut().zip(samples).for_each(|(sum, count)| *sum += count * mean);
        self.bytes += usage.memory;
    }
}

fn counts(usage: &Use) -> [u64; COUNTED.len()] {
    let unknown = usage.gets.saturating_sub(usage.hits + usage.misses);
    [usage.hits, usage.misses, unknown, usage.sets, usage.deletes, usage.others]
}

/// What the first counts have more than the second ones.
fn difference(more: [u64; COUNTED.len()], less: [u64; COUNTED.len()]) -> [u64; COUNTED.len()] {
    std::array::from_fn(|at| more[at].saturating_sub(less[at]))
}

fn append(sum: &mut [u64; COUNTED.len()], counts: [u64; COUNTED.len()]) {
    sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(prefixes: &[(&str, u64)], other: u64) -> Report {
        let usage = |hits: u64| Use { gets: hits, hits, memory: hits as f64, ..Use::default() };
        let mut report = Report { other: usage(other), ..Report::default() };
        report.prefixes.extend(prefixes.iter().map(|(name, hits)| (name.as_bytes().into(), usage(*hits))));
        report
    }

    #[test]
    fn counters_never_go_down() {
        let mut totals = PrefixTotals::default();
        let mut last = 0.0;
        let mut add = |totals: &mut PrefixTotals, prefixes: &[(&str, u64)], other: u64| {
            totals.add(&report(prefixes, other), 10.0);
            assert!(totals.other.operations[0] >= last, "the counter of the others went down");
            last = totals.other.operations[0];
        };
        add(&mut totals, &[("a", 5), ("other", 3)], 1);
        assert_eq!((totals.shown["a"].operations[0], totals.other.operations[0]), (50.0, 40.0));
        assert_eq!((totals.shown["a"].bytes, totals.other.bytes), (5.0, 4.0));
        assert!(!totals.shown.contains_key("other"));
        add(&mut totals, &[("a", 6), ("other", 3)], 1);
        assert_eq!(totals.shown["a"].operations[0], 60.0);
        // The tables of workers are thinned out: the prefix joins the others, first in one of them. Its counts do not count
        // twice.
        add(&mut totals, &[("a", 2), ("other", 3)], 5);
        assert_eq!((totals.shown["a"].operations[0], totals.other.operations[0]), (60.0, 40.0));
        add(&mut totals, &[("other", 3)], 8);
        assert!(!totals.shown.contains_key("a"));
        assert_eq!(totals.other.operations[0], 50.0);
        // After `stats reset`.
        add(&mut totals, &[("a", 1)], 0);
        assert_eq!(totals.shown["a"].operations[0], 10.0);
    }

    #[test]
    fn fetches_of_unknown_outcome_count_as_the_others() {
        let mut totals = PrefixTotals::default();
        let mut report = report(&[("a", 0), ("b", 0)], 0);
        report.prefixes.insert((*b"a").into(), Use { gets: 8, hits: 3, misses: 1, ..Use::default() });
        report.prefixes.insert((*b"b").into(), Use { gets: 5, ..Use::default() });
        totals.add(&report, 1.0);
        assert_eq!(totals.shown["a"].operations[..3], [6.0, 2.0, 0.0]);
        assert_eq!(totals.shown["b"].operations[..3], [0.0, 0.0, 5.0]);
    }

    #[test]
    fn at_most_a_hundred_are_shown() {
        let names: Vec<String> = (0..150).map(|number| format!("p{number:03}")).collect();
        let prefixes: Vec<(&str, u64)> =
            names.iter().enumerate().map(|(at, name)| (name.as_str(), 150 - at as u64)).collect();
        let mut totals = PrefixTotals::default();
        totals.add(&report(&prefixes, 0), 1.0);
        assert_eq!(totals.shown.len(), SHOWN_MAX);
        assert!(totals.shown.contains_key("p099") && !totals.shown.contains_key("p100"));
        assert_eq!(totals.other.operations[0], (1..=50).sum::<u64>() as f64);
    }
}
