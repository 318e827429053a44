//! `stats items` and `stats slabs`, which show a group of lines for each class, and `stats sizes`.

use crate::admin::context::ServerContext;
use crate::admin::line::{Lines, Stats};
use crate::admin::query::Answer;
use crate::store::budget::Budget;
use crate::store::lru::Segment;
use crate::store::{ClassSnapshot, Snapshot};

/// `stats items`: shows the classes with items.
pub(crate) fn items(snapshot: &Snapshot, context: &ServerContext<'_>) -> Vec<u8> {
    let temp = context.settings.tuning.lock().temporary_ttl.is_some();
    let segments = context.config.memory.lru_maintainer;
    let mut stats = Stats::default();
    for class in &snapshot.classes {
        let ClassSnapshot { counters, counts, ages, .. } = class;
        let number: u64 = counts.iter().sum();
        if number == 0 {
            continue;
        }
        let mut put = |name: &str, value: u64| stats.put(format_args!("items:{}:{name}", class.id.0), value);
        put("number", number);
        if segments {
            put("number_hot", counts[Segment::Hot as usize]);
            put("number_warm", counts[Segment::Warm as usize]);
            put("number_cold", counts[Segment::Cold as usize]);
            if temp {
                put("number_temp", counts[Segment::Temp as usize]);
            }
            put("age_hot", u64::from(ages[Segment::Hot as usize]));
            put("age_warm", u64::from(ages[Segment::Warm as usize]));
        }
        put("age", u64::from(ages[Segment::Cold as usize]));
        put("mem_requested", counters.mem_requested);
        put("evicted", counters.evicted);
        put("evicted_nonzero", counters.evicted_nonzero);
        put("evicted_time", u64::from(class.evicted_age));
        put("outofmemory", counters.outofmemory);
        put("tailrepairs", 0);
        put("reclaimed", counters.reclaimed);
        put("expired_unfetched", counters.expired_unfetched);
        put("evicted_unfetched", counters.evicted_unfetched);
        if segments {
            put("evicted_active", counters.evicted_active);
        }
        put("crawler_reclaimed", counters.crawler_reclaimed);
        put("crawler_items_checked", counters.crawler_items_checked);
        put("lrutail_reflocked", 0);
        if segments {
            put("moves_to_cold", counters.moves_to_cold);
            put("moves_to_warm", counters.moves_to_warm);
            put("moves_within_lru", counters.moves_within_lru);
            put("direct_reclaims", counters.direct_reclaims);
            put("hits_to_hot", counters.hits_to_hot);
            put("hits_to_warm", counters.hits_to_warm);
            put("hits_to_cold", counters.hits_to_cold);
            put("hits_to_temp", counters.hits_to_temp);
        }
    }
    stats.end()
}

/// `stats slabs`: shows the classes with pages.
pub(crate) fn slabs(snapshot: &Snapshot, budget: &Budget) -> Vec<u8> {
    let mut stats = Stats::default();
    let (mut active, mut pages) = (0, 0);
    for class in snapshot.classes.iter().filter(|class| class.usage.total_pages > 0) {
        let ClassSnapshot { usage, counters, .. } = class;
        active += 1;
        pages += usage.total_pages;
        let chunks = usage.total_pages * u64::from(usage.chunks_per_page);
        let mut put = |name: &str, value: u64| stats.put(format_args!("{}:{name}", class.id.0), value);
        put("chunk_size", u64::from(usage.chunk_size));
        put("chunks_per_page", u64::from(usage.chunks_per_page));
        put("total_pages", usage.total_pages);
        put("total_chunks", chunks);
        put("used_chunks", usage.used_chunks);
        put("free_chunks", chunks - usage.used_chunks);
        put("free_chunks_end", 0);
        put("get_hits", counters.get_hits());
        put("cmd_set", counters.cmd_set);
        put("delete_hits", counters.delete_hits);
        put("incr_hits", counters.incr_hits);
        put("decr_hits", counters.decr_hits);
        put("cas_hits", counters.cas_hits);
        put("cas_badval", counters.cas_badval);
        put("touch_hits", counters.touch_hits);
    }
    stats.put("active_slabs", active);
    stats.put("total_malloced", pages * budget.page_size() as u64);
    stats.end()
}

/// `stats sizes`: counts items by size.
pub(crate) fn sizes(answers: Vec<Answer>) -> Vec<u8> {
    let mut stats = Stats::default();
    for answer in answers {
        let Answer::Sizes(sizes, _) = answer else { continue };
        for (size, count) in sizes {
            stats.put(size, count);
        }
    }
    stats.end()
}
