//! Items: which go too early, which were stored in vain, and the memory that is lost around them.

use crate::tool::doctor::finding::{Finding, Outcome, Verdict, because, times, well};
use crate::tool::doctor::server::{Class, Period, Server};
use crate::tool::show::{bytes, count, percent, span};

/// An item that was used within the hour would have been used again; the alerts have the same bound.
const YOUNG_SECONDS: f64 = 3600.0;
/// Evictions of a class in the interval from which the last one says something about the others.
const EVICTIONS: f64 = 10.0;
/// Between classes that fit the traffic, ages differ by a factor of two or three.
const AGE_RATIO: f64 = 10.0;
/// Share of all pages from which a class is worth taking pages from.
const PAGES_PERCENT: f64 = 10.0;
/// The ends of chunks of classes a quarter apart are empty by a tenth on average, and by a fifth if all values are just
/// over a border.
const LOST_PERCENT: f64 = 15.0;
/// Share of -m from which a class matters.
const MEMORY_PERCENT: f64 = 10.0;
/// Share of unread items among those that went from which clients may store what nobody asks for.
const UNFETCHED_PERCENT: f64 = 80.0;
/// Clients that store a value when a key is missed lose no more unread items than they have missed keys, whatever is
/// evicted. Half as many more were stored for another reason.
const UNFETCHED_PER_MISS: f64 = 1.5;
/// Items that went from which a share says something.
const GONE: f64 = 1000.0;
/// Items of a sample from which a share says something.
const SAMPLE: u64 = 1000;
/// Where most items have no time to live, that is the rule of the clients and no exception.
const NO_TTL_PERCENT: f64 = 50.0;
/// A few refused values in the life of a server are somebody's mistakes.
const TOO_LARGE: f64 = 10.0;

/// `-m` twice as large, now and for the next start.
fn more_memory(server: &Server) -> Vec<String> {
    let megabytes = 2.0 * server.figure("limit_maxbytes").unwrap_or(64.0 * 1048576.0) / 1048576.0;
    let waste = "corecached prefixes --sort waste    # first: what takes memory and is never asked for";
    let mut change = if server.is_corecached() { vec![waste.to_owned()] } else { Vec::new() };
    change.push(format!("server: cache_memlimit {megabytes:.0}    # at once, until its next start"));
    change.push(format!("flag: -m {megabytes:.0}    # or one more server"));
    change
}

pub(super) fn young_evictions(server: &Server) -> Verdict {
    let classes = server.classes();
    let is_young = |class: &&Class| class.evicted >= EVICTIONS && class.evicted_idle < YOUNG_SECONDS;
    let young: Vec<&Class> = classes.iter().filter(is_young).collect();
    let Some(worst) = young.iter().max_by(|one, other| one.evicted.total_cmp(&other.evicted)) else {
        return well("no class evicts items that were used within the hour");
    };
    let others = match young.len() {
        1 => String::new(),
        many => format!(" {} more classes do the same.", many - 1),
    };
    Ok(Outcome::Found(Finding {
        is: format!(
            "Class {} (chunks of {} bytes) evicts {} items a second, also those that were used \
             {} ago.{others}",
            worst.number,
            worst.chunk_size,
            count(worst.evicted / server.seconds),
            span(worst.evicted_idle)
        ),
        should: "Items should go only when nobody has used them for an hour or more.".into(),
        why: "Memory is short: clients will ask for many of these items again, and get them from the database.".into(),
        change: more_memory(server),
    }))
}

pub(super) fn calcified(server: &Server) -> Verdict {
    let classes = server.classes();
    let total: f64 = classes.iter().map(|class| class.memory).sum();
    let is_rich =
        |class: &&Class| class.memory >= total * PAGES_PERCENT / 100.0 && class.evicted == 0.0 && class.items > 0.0;
    let rich = classes.iter().filter(is_rich).max_by(|one, other| one.age.total_cmp(&other.age));
    let poor = classes.iter().filter(|class| class.evicted >= EVICTIONS);
    let poor = poor.min_by(|one, other| one.evicted_idle.total_cmp(&other.evicted_idle));
    let (Some(rich), Some(poor)) = (rich, poor) else { return well("no class evicts while another has old items") };
    if rich.age < AGE_RATIO * poor.evicted_idle.max(1.0) {
        return well("the classes that evict have items as old as the others");
    }
    let is_off = server.setting("slab_automove") == Ok("0") || server.setting("slab_reassign") == Ok("no");
    // The automover of memcached moves one page in a window, after it has compared several.
    let has_time = server.number_setting("slab_automove_window").is_ok_and(|window| server.seconds >= window);
    let has_moved = server.added("slabs_moved").is_ok_and(|moved| moved > 0.0);
    if !is_off && (has_moved || !has_time) {
        return well("pages are moving to the classes that evict, or the interval was too short to see it");
    }
    let state = if is_off { "pages do not move (slab_automove is off)" } else { "no page moved meanwhile" };
    Ok(Outcome::Found(Finding {
        is: format!(
            "Class {} (chunks of {} bytes) evicts {} items a second that were used {} ago, while class {} holds {} \
            with items that nobody has used for {}; {state}.",
            poor.number,
            poor.chunk_size,
            count(poor.evicted / server.seconds),
            span(poor.evicted_idle),
            rich.number,
            bytes(rich.memory),
            span(rich.age)
        ),
        should: "Items of all sizes should grow about as old before they go.".into(),
        why: "The sizes of values have changed since the memory was divided. One size has too little, and its \
              clients miss, while another keeps what nobody wants."
            .into(),
        change: vec![
            "server: slabs automove 1    # at once".into(),
            format!("server: slabs reassign {} {}    # moves one page at once", rich.number, poor.number),
            "flag: -o slab_reassign,slab_automove    # the defaults".into(),
        ],
    }))
}

pub(super) fn class_border(server: &Server) -> Verdict {
    let limit = server.figure("limit_maxbytes")?;
    let lost = |class: &Class| {
        let (used, requested) = (class.used_chunks * class.chunk_size, class.requested?);
        (used >= limit * MEMORY_PERCENT / 100.0).then(|| (used - requested, 100.0 * (used - requested) / used))
    };
    let classes = server.classes();
    if !classes.is_empty() && classes.iter().all(|class| class.requested.is_none()) {
        return because("it does not tell the bytes of its items by class");
    }
    let losses = classes.iter().filter_map(|class| Some((class, lost(class)?)));
    let worst =
        losses.filter(|(_, (_, share))| *share >= LOST_PERCENT).max_by(|one, other| one.1.0.total_cmp(&other.1.0));
    let Some((class, (lost, share))) = worst else {
        return well("no large class loses much at the ends of its chunks");
    };
    let mean = class.requested.unwrap_or(0.0) / class.items.max(1.0);
    Ok(Outcome::Found(Finding {
        is: format!(
            "The items of class {} have {mean:.0} bytes on average and take chunks of {}: {} of memory, {}%, is lost.",
            class.number,
            class.chunk_size,
            bytes(lost),
            percent(share)
        ),
        should: format!("Chunks should be empty by less than {LOST_PERCENT}%."),
        why: "The values are just too long for the next smaller chunks. The memory that is lost could hold more items."
            .into(),
        change: vec![
            "flag: -f 1.08    # smaller steps between the sizes of chunks".into(),
            format!(
                "flag: -n {:.0}    # if these are the smallest chunks; 48 is the default",
                8.0_f64.max((mean / 2.0).floor())
            ),
            "clients: shorter keys, or values compressed or without fields that nobody reads".into(),
        ],
    }))
}

pub(super) fn evicted_unfetched(server: &Server) -> Verdict {
    let names = ["evicted_unfetched", "evictions", "get_misses"];
    let ([unfetched, gone, misses], period) = server.recent(names, GONE)?;
    unread(server, Gone { which: "that were evicted", all: gone, unfetched, misses }, period)
}

pub(super) fn expired_unfetched(server: &Server) -> Verdict {
    let names = ["expired_unfetched", "reclaimed", "crawler_reclaimed", "get_misses"];
    let ([unfetched, found, crawled, misses], period) = server.recent(names, GONE)?;
    unread(server, Gone { which: "that expired", all: found + crawled, unfetched, misses }, period)
}

/// Items that went, those of them that nobody had fetched, and the keys that clients missed meanwhile.
#[derive(Clone, Copy, Debug)]
struct Gone {
    /// As in "all items that expired".
    which: &'static str,
    all: f64,
    unfetched: f64,
    misses: f64,
}

fn unread(server: &Server, gone: Gone, period: Period) -> Verdict {
    let Gone { which, all, unfetched, misses } = gone;
    let share = 100.0 * unfetched / all.max(1.0);
    if all < GONE || share < UNFETCHED_PERCENT || unfetched < misses * UNFETCHED_PER_MISS {
        let unfetched = count(unfetched);
        return well(format!(
            "{unfetched} of {} items {which} were never fetched, with {} misses",
            count(all),
            count(misses)
        ));
    }
    Ok(Outcome::Found(Finding {
        is: format!(
            "{}% of the {} items {which} {} had never been fetched, and clients missed only {} keys.",
            percent(share),
            count(all),
            server.period(period),
            count(misses)
        ),
        should: "Most stores should follow a miss, or be read later.".into(),
        why: "Clients store what nobody has asked for, and what nobody asks for later. It takes the room of \
              other items, and the time to store it."
            .into(),
        change: in_vain(server),
    }))
}

/// How to find out what is stored in vain.
fn in_vain(server: &Server) -> Vec<String> {
    let find = match server.is_corecached() {
        true => "corecached prefixes --sort waste    # which keys they are",
        false => "server: stats detail on, later stats detail dump    # which keys they are",
    };
    vec![find.into(), "clients: store a value when it is asked for, not when it is made".into()]
}

pub(super) fn no_ttl(server: &Server) -> Verdict {
    let sample = match &server.sample {
        Ok(sample) => sample,
        Err(reason) => return because(format!("it lists no items: {reason}")),
    };
    let share = 100.0 * sample.without_ttl as f64 / sample.items.max(1) as f64;
    if sample.items < SAMPLE || share < NO_TTL_PERCENT {
        return well(format!("{} of {} sampled items have no time to live", sample.without_ttl, sample.items));
    }
    let prefixes = server.prefixes().unwrap_or_default();
    let endless = prefixes.iter().filter(|prefix| prefix.ttl_none_percent.is_some_and(|share| share >= NO_TTL_PERCENT));
    let most = endless.max_by(|one, other| one.sets.total_cmp(&other.sets));
    let example =
        most.map_or_else(String::new, |prefix| format!(" The prefix with most such stores is \"{}\".", prefix.name));
    let mut change = vec!["clients: a time to live with each store, a day if nothing speaks for another".to_owned()];
    if server.is_corecached() {
        change.push("flag: --ttl 'default=1d'    # for stores without one; by prefix: --ttl 'user: default=1d'".into());
    }
    Ok(Outcome::Found(Finding {
        is: format!("{}% of {} sampled items have no time to live (TTL 0).{example}", percent(share), sample.items),
        should: "Items should expire, unless they never change.".into(),
        why: "If a client fails to delete an item that has changed, others get the old value until it is evicted, \
              which may be never. And what nobody uses any more fills the memory."
            .into(),
        change,
    }))
}

pub(super) fn too_large(server: &Server) -> Verdict {
    let ([refused], period) = server.recent(["store_too_large"], 1.0)?;
    let size = server.number_setting("item_size_max")?;
    let is_found = refused >= TOO_LARGE || (period == Period::Interval && refused > 0.0);
    if !is_found {
        return well(format!("{refused} values refused"));
    }
    Ok(Outcome::Found(Finding {
        is: format!(
            "The server has refused {} larger than {} (-I) {}.",
            times(refused, "value"),
            bytes(size),
            server.period(period)
        ),
        should: "It should refuse none.".into(),
        why: "A client makes these values anew each time, sends them, and never finds them. Few report the error."
            .into(),
        change: vec![
            "clients: smaller values, or compressed ones".into(),
            format!("flag: -I {:.0}m    # -m must be at least twice as much", (2.0 * size / 1048576.0).max(2.0)),
        ],
    }))
}

pub(super) fn no_memory(server: &Server) -> Verdict {
    let ([refused], period) = server.recent(["store_no_memory"], 1.0)?;
    if refused == 0.0 {
        return well("no value was refused");
    }
    let is_m = server.setting("evictions") == Ok("off");
    let reason = if is_m { ", and may not evict items (-M)" } else { "" };
    let mut change = more_memory(server);
    if is_m {
        change.push("flag: without -M    # it then evicts what has not been used for longest".into());
    }
    Ok(Outcome::Found(Finding {
        is: format!("The server had no memory for {} {}{reason}.", times(refused, "value"), server.period(period)),
        should: "It should store all values.".into(),
        why: "Clients get an error for each, ask for the value again, and miss.".into(),
        change,
    }))
}
