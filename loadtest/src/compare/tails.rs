//! Slow requests at a fixed rate, while other work disturbs the server; and which of them were the machine's.
//!
//! Each measurement starts a server, fills it with more than fits, and lets it rest. While it rests, a thread spins on each
//! core and records for how long it was away from it: that is what the machine does without us. Then the load runs for
//! as long, with the disturbances; [`crate::tail`] says which requests the machine touched.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::bench::Bench;
use super::row::Load;
use crate::cpus::Cpus;
use crate::disturb::{Disturbance, Kind, classes};
use crate::pair::figure::{
    self, CLIENT_GAP_LONGEST, CLIENT_GAPS, CLIENT_STOLEN, DUMPED, ERRORS, HIT_RATE, IDLE_CLIENT_GAPS,
    IDLE_CLIENT_LONGEST, IDLE_SERVER_GAPS, IDLE_SERVER_LONGEST, LATE, LATE_BY_BACKLOG, LATE_BY_GAP, LATE_BY_WAIT,
    LATE_OWN, MAX, OWN_MAX, OWN_P999, OWN_REQUESTS, P99, P999, PAGES_MOVED, REQUESTS, SERVER_PAUSED, SERVER_STOLEN,
    SERVER_WAITED, SIDES, Sample, TLS_CONNECTIONS, UNSENT,
};
use crate::pair::measure::Failure;
use crate::plan::{Limit, Plan, Strain};
use crate::report::{Report, microseconds};
use crate::run::Session;
use crate::server::Server;
use crate::tail::{LATE as LATE_NANOSECONDS, Looks, Sentinel, Tail};

const MIB: f64 = 1_048_576.0;

/// Measures `side` under a load at a rate, with disturbances of these kinds.
pub fn strain(bench: &mut Bench<'_>, side: usize, load: &Load, kinds: &[Kind], round: u32) -> Result<Sample, Failure> {
    let rate = bench.known_rate(load)?;
    let (comparison, stop) = (bench.comparison, bench.stop);
    let mut server = bench.start(side)?;
    let fill = Plan { prefill: load.prefill, ..bench.plan(&server, &load.workload, Limit::Count(0))? };
    let filled = bench.finish(&mut server, Session::open(fill, stop, |_| ()))?;
    server.settle();
    let [server_looks, client_looks] = idle(&comparison.server_cpus, &comparison.client_cpus, comparison.time, stop)?;

    let sentinel = Arc::new(Sentinel::new());
    let strain = Strain {
        share: load.rate_share.unwrap_or(0.0),
        process: server.process(),
        sentinel: Arc::clone(&sentinel),
        disturbances: disturbances(&server, kinds)?,
    };
    let plan = bench.plan(&server, &load.workload, Limit::Time(comparison.time))?;
    let plan = Plan { sequence: u64::from(round), rate: Some(rate), strain: Some(strain), ..plan };
    let session = Session::open(plan, stop, |_| ());
    let before = Machine::now(bench, &server);
    let report = watched(&sentinel, &comparison.server_cpus.nth(0), || bench.finish(&mut server, session))?;
    let after = Machine::now(bench, &server);

    let per_second = |count: u64| count as f64 / report.seconds();
    let tail = report.tally.tail.as_ref().ok_or_else(|| "the threads of the load watched nothing".to_owned())?;
    let mut sample = sample(&report, tail);
    for (figure, value) in [
        (&IDLE_SERVER_LONGEST, server_looks.longest as f64 / 1e3),
        (&IDLE_SERVER_GAPS, server_looks.long as f64 / comparison.time.as_secs_f64()),
        (&IDLE_CLIENT_LONGEST, client_looks.longest as f64 / 1e3),
        (&IDLE_CLIENT_GAPS, client_looks.long as f64 / comparison.time.as_secs_f64()),
        (&SERVER_STOLEN, after.server_stolen.saturating_sub(before.server_stolen).as_secs_f64() * 1e3),
        (&CLIENT_STOLEN, after.client_stolen.saturating_sub(before.client_stolen).as_secs_f64() * 1e3),
    ] {
        sample.push((figure, value));
    }
    for kind in kinds {
        sample.push(match kind {
            Kind::Moves => (&PAGES_MOVED, per_second(after.pages_moved.saturating_sub(before.pages_moved))),
            Kind::Dumps => (&DUMPED, per_second(tail.disturbed[Kind::Dumps as usize]) / MIB),
            Kind::Handshakes => (&TLS_CONNECTIONS, per_second(tail.disturbed[Kind::Handshakes as usize])),
        });
    }
    sample.push((&ERRORS, (report.errors() + filled.errors()) as f64));
    Ok(sample)
}

fn sample(report: &Report, tail: &Tail) -> Sample {
    let latency = report.latency();
    let mut sample: Sample = vec![
        (&P99, microseconds(&latency, 0.99)),
        (&P999, microseconds(&latency, 0.999)),
        (&MAX, microseconds(&latency, 1.0)),
        (&OWN_P999, microseconds(&tail.own, 0.999)),
        (&OWN_MAX, microseconds(&tail.own, 1.0)),
        (&LATE, tail.late as f64),
        (&LATE_OWN, tail.late_own() as f64),
        (&LATE_BY_GAP, tail.late_by_gap as f64),
        (&LATE_BY_WAIT, tail.late_by_wait as f64),
        (&LATE_BY_BACKLOG, tail.late_by_backlog as f64),
        (&REQUESTS, report.tally.completed as f64),
        (&OWN_REQUESTS, tail.own.len() as f64),
        (&CLIENT_GAP_LONGEST, tail.looks.longest as f64 / 1e3),
        (&CLIENT_GAPS, tail.looks.gaps as f64),
        (&SERVER_WAITED, tail.waited as f64 / 1e6),
        (&SERVER_PAUSED, tail.paused as f64 / 1e6),
        (&UNSENT, report.tally.unsent as f64),
    ];
    sample.extend(report.hit_rate().map(|rate| (&HIT_RATE, rate)));
    sample
}

/// Does `work` while the sentinel watches a core.
fn watched<T>(sentinel: &Sentinel, core: &Cpus, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| sentinel.watch(core, &done));
        let result = work();
        done.store(true, Relaxed);
        result
    })
}

/// The disturbances of a server that is full of the load's items.
fn disturbances(server: &Server, kinds: &[Kind]) -> Result<Vec<Disturbance>, Failure> {
    let admin = server.plain();
    let disturbance = |kind: &Kind| {
        Ok(match kind {
            Kind::Moves => Disturbance::Moves { admin, classes: classes(server)? },
            Kind::Dumps => Disturbance::Dumps { admin },
            Kind::Handshakes => Disturbance::Handshakes { door: server.addresses()?.swap_remove(0) },
        })
    };
    Ok(kinds.iter().map(disturbance).collect::<Result<_, String>>()?)
}

/// Counts that only grow.
struct Machine {
    server_stolen: Duration,
    client_stolen: Duration,
    pages_moved: u64,
}

impl Machine {
    fn now(bench: &Bench<'_>, server: &Server) -> Machine {
        Machine {
            server_stolen: bench.comparison.server_cpus.stolen(),
            client_stolen: bench.comparison.client_cpus.stolen(),
            pages_moved: server.stat("slabs_moved").unwrap_or(0),
        }
    }
}

/// The gaps of the server's and of the client's cores while neither has work.
fn idle(server: &Cpus, client: &Cpus, time: Duration, stop: &AtomicBool) -> Result<[Looks; 2], String> {
    thread::scope(|scope| {
        let spin = |cpus: &Cpus| {
            let cores = (0..cpus.count()).map(|core| cpus.nth(core));
            cores.map(|core| scope.spawn(move || spin(&core, time, stop))).collect::<Vec<_>>()
        };
        let spinning = [spin(server), spin(client)];
        let mut sums = [Looks::default(), Looks::default()];
        for (sum, threads) in sums.iter_mut().zip(spinning) {
            for thread in threads {
                sum.add(&thread.join().expect("a thread that only looks at the clock")?);
            }
        }
        Ok(sums)
    })
}

/// Looks at the clock for `time`.
fn spin(core: &Cpus, time: Duration, stop: &AtomicBool) -> Result<Looks, String> {
    core.pin().map_err(|error| format!("a thread cannot be pinned: {error}"))?;
    let (begun, time) = (Instant::now(), time.as_nanos() as u64);
    let (mut looks, mut now) = (Looks::new(0), 0);
    while now < time && !stop.load(Relaxed) {
        now = begun.elapsed().as_nanos() as u64;
        looks.look(now);
    }
    Ok(looks)
}

/// What the machine and the disturbances did to each side: sums over the rounds, and the longest of all.
pub fn remarks(samples: &[Vec<Sample>; 2]) -> Vec<String> {
    let mut remarks = Vec::new();
    for (side, name) in SIDES.iter().enumerate() {
        let rounds = &samples[side];
        let mut all: HashMap<&str, Vec<f64>> = HashMap::new();
        for (figure, value) in rounds.iter().flatten() {
            all.entry(figure.key).or_default().push(*value);
        }
        let values = |figure: &figure::Figure| all.get(figure.key).cloned().unwrap_or_default();
        let sum = |figure| values(figure).iter().sum::<f64>();
        let longest = |figure| values(figure).into_iter().fold(0.0, f64::max);
        let mean = |figure| sum(figure) / rounds.len() as f64;
        if values(&LATE).is_empty() {
            continue;
        }
        let milliseconds = LATE_NANOSECONDS as f64 / 1e6;
        remarks.push(format!(
            "{name}: the machine delayed {:.1} % of all requests; {} of {} took more than {milliseconds} ms: {} during one \
             of {} gaps of the client's core (longest {:.0} µs), {} while the server's thread waited for its core \
             ({:.1} ms in all) or that core paused ({:.1} ms), {} in the backlog after these, {} for no cause outside \
             the server",
            (1.0 - sum(&OWN_REQUESTS) / sum(&REQUESTS).max(1.0)) * 100.0,
            sum(&LATE),
            sum(&REQUESTS),
            sum(&LATE_BY_GAP),
            sum(&CLIENT_GAPS),
            longest(&CLIENT_GAP_LONGEST),
            sum(&LATE_BY_WAIT),
            sum(&SERVER_WAITED),
            sum(&SERVER_PAUSED),
            sum(&LATE_BY_BACKLOG),
            sum(&LATE_OWN),
        ));
        remarks.push(format!(
            "{name}: without load, gaps of more than {milliseconds} ms per second: {:.1} of the server's core (longest \
             {:.0} µs), {:.1} of the client's (longest {:.0} µs); time stolen under load: {:.0} and {:.0} ms",
            mean(&IDLE_SERVER_GAPS),
            longest(&IDLE_SERVER_LONGEST),
            mean(&IDLE_CLIENT_GAPS),
            longest(&IDLE_CLIENT_LONGEST),
            sum(&SERVER_STOLEN),
            sum(&CLIENT_STOLEN),
        ));
        let done: Vec<String> =
            [(&PAGES_MOVED, "pages moved"), (&DUMPED, "MiB of keys dumped"), (&TLS_CONNECTIONS, "TLS connections")]
                .into_iter()
                .filter(|(figure, _)| !values(figure).is_empty())
                .map(|(figure, what)| format!("{:.1} {what}", mean(figure)))
                .collect();
        if !done.is_empty() {
            remarks.push(format!("{name}: per second {}", done.join(", ")));
        }
    }
    remarks
}
