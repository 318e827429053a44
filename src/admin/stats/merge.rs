//! Merges the snapshots of all shards into one.

use crate::admin::query::Answer;
use crate::store::lru::Segment;
use crate::store::moves::Busy;
use crate::store::stats::Counters;
use crate::store::{ClassSnapshot, Snapshot};

/// Merges the snapshots among the answers.
pub(crate) fn merge(answers: Vec<Answer>) -> Snapshot {
    let snapshots = answers.iter().filter_map(|answer| match answer {
        Answer::Snapshot(_, snapshot) => Some(&**snapshot),
        _ => None,
    });
    merge_snapshots(snapshots)
}

/// Merges the snapshots of shards: it adds counts, takes the largest ages, and computes `hash_power` for the index slots of
/// all shards together.
pub fn merge_snapshots<'a>(snapshots: impl Iterator<Item = &'a Snapshot>) -> Snapshot {
    let mut total = Snapshot {
        counters: Counters::default(),
        classes: Vec::new(),
        curr_items: 0,
        bytes: 0,
        hash_bytes: 0,
        hash_power: 0,
        hash_is_expanding: false,
        reassign_is_running: false,
        reassign_last_busy: Busy::default(),
    };
    let mut slots = 0_u64;
    for snapshot in snapshots {
        total.counters += &snapshot.counters;
        total.curr_items += snapshot.curr_items;
        total.bytes += snapshot.bytes;
        total.hash_bytes += snapshot.hash_bytes;
        total.hash_is_expanding |= snapshot.hash_is_expanding;
        total.reassign_is_running |= snapshot.reassign_is_running;
        total.reassign_last_busy = total.reassign_last_busy.max(snapshot.reassign_last_busy);
        slots += 1 << snapshot.hash_power;
        for class in &snapshot.classes {
            match total.classes.iter_mut().find(|other| other.id == class.id) {
                Some(other) => add_class(other, class),
                None => total.classes.push(*class),
            }
        }
    }
    total.hash_power = slots.checked_ilog2().unwrap_or(0);
    total
}

fn add_class(total: &mut ClassSnapshot, class: &ClassSnapshot) {
    total.usage.total_pages += class.usage.total_pages;
    total.usage.used_chunks += class.usage.used_chunks;
    total.counters += &class.counters;
    total.evicted_age = total.evicted_age.max(class.evicted_age);
    for segment in Segment::ALL.map(|segment| segment as usize) {
        total.counts[segment] += class.counts[segment];
        total.ages[segment] = total.ages[segment].max(class.ages[segment]);
    }
}
