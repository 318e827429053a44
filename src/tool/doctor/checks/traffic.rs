//! Who does the work, and for which keys.

use crate::tool::doctor::finding::{Finding, Outcome, Unknown, Verdict, because, well};
use crate::tool::doctor::server::{Prefix, Server};
use crate::tool::reply::readable;
use crate::tool::show::{count, micros, percent};

/// Above this share of a CPU, requests wait for the worker and the waits grow fast; the alerts have the same bound.
const BUSY_PERCENT: f64 = 85.0;
/// A worker below this share of a CPU has time left, however little the others do.
const UNEVEN_PERCENT: f64 = 50.0;
/// How many times as busy as the mean of the others a worker must be. Chance alone makes a few connections uneven.
const UNEVEN_RATIO: f64 = 2.0;
/// Share of all operations that makes a key hot; the alerts have the same bound.
const HOT_PERCENT: f64 = 20.0;
/// On a server with fewer operations a second no key keeps a worker busy.
const HOT_OPERATIONS: f64 = 1000.0;
/// Samples from which a share says something.
const SAMPLES: f64 = 100.0;
/// Operations from which a prefix counts: with one sample in 128, that is 16 samples.
const PREFIX_OPERATIONS: f64 = 2000.0;
/// Hits of a prefix in percent of its gets or of its stores, whichever are more. A cache of any use has more.
const PREFIX_HITS_PERCENT: f64 = 1.0;
/// Yields a second from which they may matter, and the share of all operations that came in such batches.
const YIELDS: f64 = 100.0;
const YIELDED_PERCENT: f64 = 50.0;
/// Slow requests of the interval that are no accident, and their share: 99.99 % of the others were not slow.
const SLOW: f64 = 5.0;
const SLOW_PERCENT: f64 = 0.01;

pub(super) fn busy_workers(server: &Server) -> Verdict {
    let workers = workers(server)?;
    let mean = workers.iter().sum::<f64>() / workers.len() as f64;
    if mean < BUSY_PERCENT {
        return well(format!("{mean:.0}% of the time, on average"));
    }
    let threads = workers.len();
    Ok(Outcome::Found(Finding {
        is: format!("The server has {threads} workers (-t), and they ran {mean:.0}% of the time."),
        should: format!("They should run less than {BUSY_PERCENT}% of it."),
        why: "Requests wait in queues that grow with each burst.".into(),
        change: vec![
            format!("flag: -t {}    # if the machine has more CPUs", 2 * threads),
            "clients: many keys in one request    # or one more server".into(),
        ],
    }))
}

pub(super) fn uneven_workers(server: &Server) -> Verdict {
    let workers = workers(server)?;
    let busiest = workers.iter().copied().fold(0.0, f64::max);
    let others = (workers.iter().sum::<f64>() - busiest) / (workers.len().max(2) - 1) as f64;
    if workers.len() < 2 || busiest < UNEVEN_PERCENT || busiest < UNEVEN_RATIO * others {
        return well(format!("the busiest ran {busiest:.0}% of the time, the others {others:.0}%"));
    }
    Ok(Outcome::Found(Finding {
        is: format!("One worker ran {busiest:.0}% of the time, and the others {others:.0}% on average."),
        should: "They should have about the same work.".into(),
        why:
            "A connection stays with its worker. The clients of the busy one wait, while the others have time for them."
                .into(),
        change: vec![
            "clients: more connections, each with a part of the requests".into(),
            "corecached hotkeys    # if it is one key".into(),
        ],
    }))
}

/// How much of the time each worker ran, in percent.
fn workers(server: &Server) -> Result<&[f64], Unknown> {
    match server.workers.as_deref() {
        // The kernel counts in hundredths of a second.
        _ if server.seconds < 1.0 => because("the interval is shorter than a second"),
        None => because("the threads of the server are not in /proc here: ask on its machine"),
        Some([]) => because("its threads have no names"),
        Some(workers) => Ok(workers),
    }
}

pub(super) fn hot_key(server: &Server) -> Verdict {
    let keys = server.own_list("hotkeys")?;
    if keys.number("sample_mean") == Some(0.0) {
        return because("it samples nothing (--sample 0)");
    }
    let operations = keys.number("operations_per_second").unwrap_or(0.0);
    if keys.number("samples").unwrap_or(0.0) < SAMPLES || operations < HOT_OPERATIONS {
        return well(format!("{} operations a second are too few for a key to be hot", count(operations)));
    }
    let rows = keys.rows("");
    let of = |row: &crate::tool::reply::Row, field| row.number(field).unwrap_or(0.0);
    // The share that it has at least.
    let share = |row| of(row, "share_percent") - of(row, "error_percent");
    let hottest = rows.iter().map(|(_, row)| row).max_by(|one, other| share(one).total_cmp(&share(other)));
    let Some(hottest) = hottest.filter(|row| share(row) >= HOT_PERCENT) else {
        return well("no key stands out");
    };
    Ok(Outcome::Found(Finding {
        is: format!(
            "The key {} has {}% of all operations, {} a second.",
            readable(hottest.text("key").unwrap_or_default()),
            percent(of(hottest, "share_percent")),
            count(of(hottest, "ops_per_second"))
        ),
        should: format!("No key should have more than {HOT_PERCENT}%."),
        why: "One shard has the key, and one worker at a time has the shard: more workers or more servers serve no \
            more requests for it."
            .into(),
        change: vec![
            "clients: keep the value for a second".into(),
            "clients: store it under several names, and let each choose one".into(),
            "corecached hotkeys --peaks    # since when".into(),
        ],
    }))
}

pub(super) fn prefix_without_hits(server: &Server) -> Verdict {
    let prefixes = server.prefixes()?;
    let operations = |prefix: &&Prefix| prefix.gets.max(prefix.sets);
    let is_vain = |prefix: &&Prefix| {
        operations(prefix) >= PREFIX_OPERATIONS && prefix.hits < operations(prefix) * PREFIX_HITS_PERCENT / 100.0
    };
    let mut vain: Vec<&Prefix> = prefixes.iter().filter(is_vain).collect();
    vain.sort_by(|one, other| operations(other).total_cmp(&operations(one)));
    let Some(worst) = vain.first() else {
        return well(format!("prefixes: {}, all with hits or with little traffic", prefixes.len()));
    };
    let others = match vain.len() {
        1 => String::new(),
        many => format!(" So do {} more prefixes.", many - 1),
    };
    Ok(Outcome::Found(Finding {
        is: format!(
            "Keys that begin with \"{}\" had {} gets, {} hits and {} stores.{others}",
            worst.name,
            count(worst.gets),
            count(worst.hits),
            count(worst.sets)
        ),
        should: "What is stored should be asked for, and what is asked for should be found.".into(),
        why: match worst.gets < worst.sets * PREFIX_HITS_PERCENT / 100.0 {
            true => "Storing them is work for nothing, and they take the room of others.".into(),
            false => {
                "Asking for them is work for nothing. Clients may store these values under other keys, with a time \
                to live that is too short, or not at all."
                    .into()
            }
        },
        change: vec![
            match server.is_corecached() {
                true => "corecached prefixes --sort misses    # and --sort waste: all of them".into(),
                false => "server: stats detail dump    # all of them".into(),
            },
            format!("server: watch fetchers mutations    # some keys, to compare: look for {}", worst.name),
        ],
    }))
}

pub(super) fn yields(server: &Server) -> Verdict {
    let yields = server.added("conn_yields")? / server.seconds;
    let batch = server.number_setting("reqs_per_event")?;
    let operations = server.rates.operations;
    let share = 100.0 * (yields * batch / operations.max(1.0)).min(1.0);
    if yields < YIELDS || share < YIELDED_PERCENT {
        return well(format!("{} a second", count(yields)));
    }
    Ok(Outcome::Found(Finding {
        is: format!(
            "Connections had to let others go first {} times a second: they sent more than {batch} requests \
             at once (-R).",
            count(yields)
        ),
        should: format!(
            "Less than {YIELDED_PERCENT}% of the requests should come in such batches; here it is {share:.0}%."
        ),
        why: "Such a batch is cut into parts, and its client waits for the other connections between them.".into(),
        change: vec![
            format!("flag: -R {:.0}    # larger parts: such clients wait less, others longer", 5.0 * batch),
            "clients: smaller batches over more connections".into(),
        ],
    }))
}

pub(super) fn slow_requests(server: &Server) -> Verdict {
    let of = |list: &crate::tool::reply::Stats| list.number("slow_requests").unwrap_or(0.0);
    let now = of(server.own_list("latency")?);
    let before = server.before.lists.get("latency").map_or(0.0, of);
    let slow = if before <= now { now - before } else { now };
    let share = 100.0 * slow / (server.rates.operations * server.seconds).max(1.0);
    if slow < SLOW || share < SLOW_PERCENT {
        return well(format!("{slow} in the interval"));
    }
    let last = server.own_list("slow").map(|list| list.rows("")).unwrap_or_default();
    let last = last.first().map_or_else(String::new, |(_, row)| {
        let of = |field| row.number(field).unwrap_or(0.0);
        let command = readable(row.text("command").unwrap_or("request"));
        format!(" The last was {command} with {} operations: {}.", count(of("operations")), micros(of("service_us")))
    });
    Ok(Outcome::Found(Finding {
        is: format!(
            "{} requests took longer than --slow-log in {:.0} seconds, {share:.2}% of all.{last}",
            count(slow),
            server.seconds.max(1.0)
        ),
        should: format!("It should be less than {SLOW_PERCENT}%."),
        why: "Clients see these times, and so do the requests behind them on the same worker.".into(),
        change: vec![
            "corecached top    # the pane Slow: which commands and keys".into(),
            "corecached doctor --machine    # swap, a quota or too few CPUs stop workers".into(),
        ],
    }))
}
