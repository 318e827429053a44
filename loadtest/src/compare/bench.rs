//! The two servers of a row, and a measurement of one of them.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustls::ClientConfig;

use super::Comparison;
use super::row::{Job, Load, Row};
use crate::address::allow_files;
use crate::certificate::Certificate;
use crate::datagrams::Datagrams;
use crate::pair::figure::{
    CLIENT_BUSY, CPU_PER_HANDSHAKE, CPU_PER_KEY, ERRORS, ESTABLISHED_P99, HANDSHAKES_PER_SECOND, HIT_RATE,
    KEYS_PER_SECOND, LONGEST_LOAD, LOST, MEMORY, P50, P90, P99, P999, SIDES, SLOWEST, Sample, UNSENT, UNWATCHED,
    median, value,
};
use crate::pair::machine;
use crate::plan::{Limit, Plan};
use crate::report::{Report, microseconds};
use crate::run::Session;
use crate::server::{Ports, Server};
use crate::storm::Storm;
use crate::workload::{Operation, Workload};

/// Above this busy share, the client may have limited the throughput instead of the server. (At a fixed rate the client
/// polls while it waits, so its busy share means nothing.)
const CLIENT_BUSY_MAX: f64 = 0.95;

/// Open files of this program besides connections.
pub const FILES_BESIDES: usize = 64;

/// Starts the servers of a row when the row needs them, and keeps them for the next round if the row says so.
pub struct Bench<'a> {
    pub comparison: &'a Comparison,
    pub row: &'a Row,
    pub stop: &'a Arc<AtomicBool>,
    kept: [Option<Server>; 2],
    /// Requests per second, set after the runs that find the baseline's rate.
    pub rate: Option<f64>,
}

/// The reason why a measurement has no sample.
pub enum Failure {
    /// The candidate does not know a flag of the row.
    Refused(String),
    Broken(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Broken(why)
    }
}

impl<'a> Bench<'a> {
    pub fn new(comparison: &'a Comparison, row: &'a Row, stop: &'a Arc<AtomicBool>) -> Bench<'a> {
        Bench { comparison, row, stop, kept: [None, None], rate: None }
    }

    /// Starts the server of `side` with the row's flags. If the row has more workers than the server has cores, the
    /// server may also use the client's cores.
    pub fn start(&self, side: usize) -> Result<Server, Failure> {
        let (comparison, flags) = (self.comparison, &self.row.flags);
        let crowded = flags.threads.is_some_and(|threads| threads > comparison.server_cpus.count());
        let shared = comparison.server_cpus.union(&comparison.client_cpus);
        let cpus = if crowded { &shared } else { &comparison.server_cpus };
        let certificate = self.certificate().map(Certificate::flags).unwrap_or_default();
        let command = format!("{}{}{certificate}", comparison.commands[side], flags.text(side));
        Server::start(&command, flags.ports(side), cpus, self.stop).map_err(|why| match flags.ports(side) {
            Ports::Plain(1) => Failure::Broken(why),
            _ => Failure::Refused(why),
        })
    }

    /// The servers' certificate, if the row uses TLS.
    fn certificate(&self) -> Option<&Certificate> {
        self.comparison.certificate.as_ref().filter(|_| self.row.flags.tls)
    }

    /// The client's TLS configuration, if the row uses TLS.
    pub fn tls(&self, resumes: bool) -> Result<Option<Arc<ClientConfig>>, String> {
        self.certificate().map(|certificate| certificate.client(resumes).map(Arc::new)).transpose()
    }

    /// Sends storms to a server of `side`.
    pub fn storm(&self, side: usize, storm: &Storm) -> Result<Sample, Failure> {
        let comparison = self.comparison;
        allow_files(storm.connections + FILES_BESIDES)?;
        let mut server = self.start(side)?;
        let door = server.addresses()?.swap_remove(0).with_tls(self.tls(storm.resumed)?);
        let plain = server.connect_plain().map_err(|error| format!("connection: {error}"))?;
        let cpu_before = server.cpu();
        let weather = storm.rage(&door, plain, comparison.time, &comparison.client_cpus, self.stop);
        server.check()?;
        let weather = weather?;
        let cpu = server.cpu().zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
        let cpu = cpu.ok_or_else(|| "the server's CPU time is not to be found in /proc".to_owned())?;
        let slowest = median(weather.slowest.iter().map(|nanoseconds| *nanoseconds as f64 / 1e6).collect());
        let mut sample: Sample = vec![
            (&CPU_PER_HANDSHAKE, cpu.as_secs_f64() * 1e6 / weather.handshakes as f64),
            (&HANDSHAKES_PER_SECOND, weather.handshakes as f64 / weather.elapsed.as_secs_f64()),
            (&SLOWEST, slowest.unwrap_or(0.0)),
            (&ESTABLISHED_P99, microseconds(&weather.established, 0.99)),
            (&CLIENT_BUSY, weather.client_busy),
        ];
        if weather.unwatched {
            sample.push((&UNWATCHED, 1.0));
        }
        Ok(sample)
    }

    /// Sends gets over UDP to a server of `side`.
    pub fn datagrams(&self, side: usize, datagrams: &Datagrams) -> Result<Sample, Failure> {
        let mut server = self.start(side)?;
        let mut plain = server.connect_plain().map_err(|error| format!("connection: {error}"))?;
        let mut sets = String::new();
        for (key, value) in (0..datagrams.keys).map(|number| datagrams.item(number)) {
            sets += &format!("set {key} 0 0 {} noreply\r\n{value}\r\n", value.len());
        }
        let filled = plain.write_all((sets + "mn\r\n").as_bytes()).and_then(|()| plain.read_exact(&mut [0; 4]));
        filled.map_err(|error| format!("connection: {error}"))?;
        server.settle();
        let comparison = self.comparison;
        let cpu_before = server.cpu();
        let answered = datagrams.ask(server.udp(), comparison.time, &comparison.client_cpus, self.stop);
        server.check()?;
        let answered = answered?;
        let cpu = server.cpu().zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
        let cpu = cpu.ok_or_else(|| "the server's CPU time is not to be found in /proc".to_owned())?;
        Ok(vec![
            (&KEYS_PER_SECOND, answered.replies as f64 / answered.elapsed.as_secs_f64()),
            (&CPU_PER_KEY, cpu.as_secs_f64() * 1e6 / answered.replies as f64),
            (&P50, microseconds(&answered.latency, 0.5)),
            (&P99, microseconds(&answered.latency, 0.99)),
            (&LOST, answered.lost as f64),
            (&CLIENT_BUSY, answered.client_busy),
        ])
    }

    /// Measures `side` under `load` once. Both sides get the same requests; each round has different ones.
    pub fn measure(&mut self, side: usize, load: &Load, round: u32) -> Result<Sample, Failure> {
        if load.rate_share.is_some() && self.rate.is_none() {
            self.rate = Some(self.find_rate(load)?);
        }
        let limit = Limit::Time(self.comparison.time);
        let (mut server, prefill) = match self.kept[side].take() {
            Some(server) => (server, 0),
            None => (self.start(side)?, load.prefill),
        };
        if prefill > 0 && load.warm_up > 0 {
            let plan = Plan { prefill, ..self.plan(&server, &load.workload, Limit::Count(load.warm_up))? };
            self.finish(&mut server, Session::open(plan, self.stop, |_| ()))?;
            server.settle();
        }
        let prefill = if load.warm_up > 0 { 0 } else { prefill };
        let sequence = u64::from(round);
        let plan = Plan { prefill, sequence, rate: self.rate, ..self.plan(&server, &load.workload, limit)? };
        let session = Session::open(plan, self.stop, |_| ());
        if prefill > 0 && session.is_ok() {
            server.settle();
        }
        let longest = session.as_ref().ok().and_then(Session::prefill).filter(|_| load.watch_prefill);
        let longest = longest.map(|tally| microseconds(tally.latency(Operation::Set), 1.0));
        let cpu_before = server.cpu();
        let report = self.finish(&mut server, session)?;
        let cpu = server.cpu().zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
        let cpu = cpu.ok_or_else(|| "the server's CPU time is not to be found in /proc".to_owned())?;
        let mut sample = sample(&report, cpu.as_secs_f64());
        if self.rate.is_none() {
            sample.push((&CLIENT_BUSY, report.client_busy()));
        }
        sample.push((&MEMORY, server.memory().unwrap_or(0) as f64));
        sample.extend(longest.map(|longest| (&LONGEST_LOAD, longest)));
        if self.row.keeps_servers(machine::memory_mib()) || !round.is_multiple_of(self.comparison.keep) {
            self.kept[side] = Some(server);
        }
        Ok(sample)
    }

    /// The row's share of the rate that the baseline reaches in a closed loop, with one request at a time on each
    /// connection. It takes the median of three runs, because all later figures depend on it.
    fn find_rate(&self, load: &Load) -> Result<f64, Failure> {
        let mut server = self.start(0)?;
        let workload = Workload { pipeline: 1, ..load.workload.clone() };
        let mut rates = Vec::new();
        for prefill in [load.prefill, 0, 0] {
            let plan = self.plan(&server, &workload, Limit::Time(self.comparison.time))?;
            let session = Session::open(Plan { prefill, ..plan }, self.stop, |_| ());
            server.settle();
            rates.push(self.finish(&mut server, session)?.requests_per_second());
        }
        Ok(median(rates).unwrap_or(0.0) * load.rate_share.unwrap_or(1.0))
    }

    /// Measures, and fails if any reply was wrong.
    fn finish(&self, server: &mut Server, session: Result<Session, String>) -> Result<Report, Failure> {
        // If the server has died, that explains any other error best.
        server.check()?;
        let report = session?.measure(|_| ());
        server.check()?;
        let full = matches!(&self.row.job, Job::Load(load) if load.full);
        let answered = if full { report.is_right() } else { report.is_clean() };
        if !answered {
            return Err(report.complaints().join("\n").into());
        }
        if self.stop.load(Relaxed) {
            return Err("interrupted".to_owned().into());
        }
        Ok(report)
    }

    /// A plan for the row's client. It verifies values, because a fast wrong reply is worth nothing.
    pub fn plan(&self, server: &Server, workload: &Workload, limit: Limit) -> Result<Plan, String> {
        let cpus = &self.comparison.client_cpus;
        let tls = self.tls(true)?;
        let ports: Vec<_> = server.addresses()?.into_iter().map(|port| port.with_tls(tls.clone())).collect();
        // Every thread needs a connection to every port; only one thread can use a single connection.
        let threads = cpus.count().min(workload.connections / ports.len()).max(1);
        Ok(Plan { threads, cpus: Some(cpus.clone()), verify: true, ..Plan::new(ports, workload.clone(), limit) })
    }
}

fn sample(report: &Report, cpu_seconds: f64) -> Sample {
    let latency = report.latency();
    let quantiles = [(&P50, 0.5), (&P90, 0.9), (&P99, 0.99), (&P999, 0.999)];
    let mut sample: Sample = vec![
        (&KEYS_PER_SECOND, report.keys_per_second()),
        (&CPU_PER_KEY, cpu_seconds * 1e6 / report.keys().max(1) as f64),
    ];
    sample.extend(quantiles.map(|(figure, quantile)| (figure, microseconds(&latency, quantile))));
    sample.extend(report.hit_rate().map(|rate| (&HIT_RATE, rate)));
    sample.push((&UNSENT, report.tally.unsent as f64));
    sample.push((&ERRORS, report.errors() as f64));
    sample
}

/// Remarks that follow from the samples.
pub fn remarks(samples: &[Vec<Sample>; 2]) -> Vec<String> {
    let mut remarks = Vec::new();
    for (side, name) in SIDES.iter().enumerate() {
        let of = |figure| median(samples[side].iter().filter_map(|sample| value(sample, figure)).collect());
        if let Some(busy) = of(&CLIENT_BUSY).filter(|busy| *busy > CLIENT_BUSY_MAX) {
            remarks.push(format!("{name}: the client was {:.0} % busy and may be the limit", busy * 100.0));
        }
        if of(&UNWATCHED).is_some() {
            remarks.push(format!("{name}: the established connection waited for the client as well (try as root)"));
        }
        if let Some(lost) = of(&LOST).filter(|lost| *lost > 0.0) {
            remarks.push(format!("{name}: {lost:.0} datagrams were lost"));
        }
        if let Some(hits) = of(&HIT_RATE).filter(|hits| *hits < 1.0) {
            remarks.push(format!("{name}: {:.2} % hits", hits * 100.0));
        }
        if let Some(errors) = of(&ERRORS).filter(|errors| *errors > 0.0) {
            remarks.push(format!("{name}: {errors:.0} sets were refused for want of memory"));
        }
        if let Some(unsent) = of(&UNSENT).filter(|unsent| *unsent > 0.0) {
            remarks.push(format!("{name}: {unsent:.0} requests were due and never sent"));
        }
    }
    remarks
}
