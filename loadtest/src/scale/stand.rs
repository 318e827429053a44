//! The servers with one number of workers in one round, and the measurements of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::Scale;
use super::work::{Doors, Work};
use crate::pair::figure::{
    BATCHES_POSTED, CLIENT_BUSIEST, CLIENT_BUSY, Figure, LEASES_REFUSED, REQUESTS_PER_SECOND, Sample,
};
use crate::pair::flags::{Flags, roomy};
use crate::pair::measure::{Errors, Failure, cpu_since, measure, sample};
use crate::plan::{Limit, Plan};
use crate::program::Spoken;
use crate::run::Session;
use crate::server::Server;
use crate::workload::Workload;

/// Connections of this program besides those of a workload.
const CONNECTIONS_BESIDES: usize = 100;

/// The statistics of corecached alone, and their names in `stats leases`.
const LEASES: [(&Figure, &str); 2] = [(&LEASES_REFUSED, "leases_refused"), (&BATCHES_POSTED, "batches_posted")];

/// Starts each server when a workload needs it. A workload that sets leaves all keys in place, so the servers serve for
/// all workloads of the round.
pub struct Stand<'a> {
    scale: &'a Scale,
    workers: usize,
    /// Number of the round, from 1.
    round: u32,
    stop: &'a Arc<AtomicBool>,
    started: Vec<Started>,
}

/// A server, by its side and its flags; or the reason why it did not start.
struct Started {
    side: usize,
    flags: String,
    server: Result<Server, String>,
}

/// A measurement.
pub struct Measured {
    pub sample: Sample,
    /// Share of time that each client thread spent on a core.
    pub busy: Vec<f64>,
}

impl<'a> Stand<'a> {
    pub fn new(scale: &'a Scale, workers: usize, round: u32, stop: &'a Arc<AtomicBool>) -> Stand<'a> {
        Stand { scale, workers, round, stop, started: Vec::new() }
    }

    /// Whether a signal, or a thread of the client that failed, ends the program.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Measures `side` with the workload of this number.
    pub fn measure(&mut self, side: usize, number: usize) -> Result<Measured, Failure> {
        let Scale { works, time, .. } = self.scale;
        let work = &works[number];
        let index = self.server(side, work)?;
        let (scale, stop) = (self.scale, self.stop);
        // Both sides get the same requests, and no server gets the same ones twice.
        let sequence = u64::from(self.round) * works.len() as u64 + number as u64;
        let server = self.started[index].server.as_mut().map_err(|why| why.clone())?;
        let before = server.statistics("stats leases", LEASES.map(|(_, name)| name));
        let plan = Plan { sequence, ..plan(scale, server, &work.workload, Limit::Time(*time))? };
        let session = Session::open(plan, stop, |_| ());
        let cpu_before = server.cpu();
        let report = measure(server, session, Errors::Wrong, stop)?;
        let cpu = cpu_since(server, cpu_before)?;
        let after = server.statistics("stats leases", LEASES.map(|(_, name)| name));
        if work.workload.set > 0 {
            server.settle();
        }
        let mut sample_of = vec![(&REQUESTS_PER_SECOND, report.requests_per_second())];
        sample_of.extend(sample(&report, cpu));
        for ((figure, _), (before, after)) in LEASES.into_iter().zip(before.into_iter().zip(after)) {
            let count = before.zip(after).map(|(before, after)| after.saturating_sub(before) as f64);
            sample_of.extend(count.map(|count| (figure, count * 1e6 / report.keys().max(1) as f64)));
        }
        let busiest = report.threads_busy.iter().copied().fold(0.0, f64::max);
        sample_of.extend([(&CLIENT_BUSY, report.client_busy()), (&CLIENT_BUSIEST, busiest)]);
        Ok(Measured { sample: sample_of, busy: report.threads_busy })
    }

    /// The place of a server in the list, which is started and filled if it is not there yet.
    fn server(&mut self, side: usize, work: &Work) -> Result<usize, Failure> {
        let flags = Flags {
            threads: Some(self.workers),
            memory: Some(roomy(self.scale.keys)),
            connections: Some(self.scale.connections + CONNECTIONS_BESIDES),
            port_per_core: work.doors == Doors::EachWorker,
            ..Flags::default()
        };
        let kind = self.scale.programs[side].kind;
        if flags.port_per_core && side == 1 && kind.speaks() == Spoken::Resp {
            return Err(Failure::Refused("it speaks RESP, and has no --port-per-core".into()));
        }
        let text = flags.text(side, kind);
        let found = self.started.iter().position(|started| started.side == side && started.flags == text);
        let index = found.unwrap_or_else(|| {
            let server = self.start(side, &flags);
            self.started.push(Started { side, flags: text, server });
            self.started.len() - 1
        });
        match &self.started[index].server {
            // The candidate may be a server that does not know the flag.
            Err(why) if flags.port_per_core && side == 1 => Err(Failure::Refused(why.clone())),
            Err(why) => Err(Failure::Broken(why.clone())),
            Ok(_) => Ok(index),
        }
    }

    /// A server that holds all keys.
    fn start(&self, side: usize, flags: &Flags) -> Result<Server, String> {
        let Scale { programs, cores, keys, .. } = self.scale;
        let program = &programs[side];
        let program = program.with(&flags.text(side, program.kind));
        let mut server = Server::start(&program, flags.ports(side), &cores.of_server(self.workers), self.stop)?;
        let workload = Workload { keys: *keys, connections: self.scale.connections, ..Workload::default() };
        let plan = Plan { prefill: *keys, ..plan(self.scale, &server, &workload, Limit::Count(0))? };
        let session = Session::open(plan, self.stop, |_| ());
        server.check()?;
        let session = session?;
        let tally = session.prefill().ok_or("nothing was set")?;
        if let Some(why) = tally.failures.iter().chain(&tally.samples).next() {
            return Err(format!("setting the keys: {why}"));
        }
        server.settle();
        Ok(server)
    }
}

/// A plan for the client, in the protocol of the server. It verifies values, because a fast wrong reply is worth nothing.
fn plan(scale: &Scale, server: &Server, workload: &Workload, limit: Limit) -> Result<Plan, String> {
    let ports = server.addresses()?;
    // Every thread needs a connection to every port.
    let threads = scale.cores.clients().min(workload.connections / ports.len()).max(1);
    let cpus = scale.cores.of_client().cloned();
    let workload = Workload { protocol: server.kind().protocol(workload.protocol), ..workload.clone() };
    Ok(Plan { threads, cpus, verify: true, ..Plan::new(ports, workload, limit) })
}
