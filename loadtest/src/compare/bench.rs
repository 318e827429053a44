//! The two servers of a row, and a measurement of one of them.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustls::ClientConfig;

use super::Comparison;
use super::row::{Load, Row};
use crate::address::{Address, allow_files};
use crate::certificate::Certificate;
use crate::datagrams::Datagrams;
use crate::pair::figure::{
    CLIENT_BUSY, CPU_PER_HANDSHAKE, CPU_PER_KEY, ESTABLISHED_P99, HANDSHAKES_PER_SECOND, KEYS_PER_SECOND, LONGEST_LOAD,
    LOST, MEMORY, P50, P99, SLOWEST, Sample, UNWATCHED, median,
};
use crate::pair::machine;
use crate::pair::measure::{CLIENT_BUSY_MAX, Errors, Failure, cpu_since, measure, sample};
use crate::plan::{Limit, Plan};
use crate::report::{Report, microseconds};
use crate::run::Session;
use crate::server::{Ports, Server};
use crate::storm::Storm;
use crate::workload::{Operation, Workload};

/// Open files of this program besides connections.
pub const FILES_BESIDES: usize = 64;

/// Starts the servers of a row when the row needs them, and keeps them for the next round if the row says so.
pub struct Bench<'a> {
    pub comparison: &'a Comparison,
    pub row: &'a Row,
    pub stop: &'a Arc<AtomicBool>,
    kept: [Option<Server>; 2],
    /// Requests per second, set after the runs that find the baseline's rate.
    rate: Option<f64>,
    /// The client's busy share in these runs.
    rate_busy: f64,
}

impl<'a> Bench<'a> {
    pub fn new(comparison: &'a Comparison, row: &'a Row, stop: &'a Arc<AtomicBool>) -> Bench<'a> {
        Bench { comparison, row, stop, kept: [None, None], rate: None, rate_busy: 0.0 }
    }

    /// Starts the server of `side` with the row's flags. If the row has more workers than the server has cores, the
    /// server may also use the client's cores.
    pub fn start(&self, side: usize) -> Result<Server, Failure> {
        let (comparison, flags) = (self.comparison, &self.row.flags);
        let crowded = flags.threads.is_some_and(|threads| threads > comparison.server_cpus.count());
        let shared = comparison.server_cpus.union(&comparison.client_cpus);
        let cpus = if crowded { &shared } else { &comparison.server_cpus };
        let certificate = self.certificate().map(Certificate::flags).unwrap_or_default();
        let program = &comparison.programs[side];
        let program = program.with(&(flags.text(side, program.kind) + &certificate));
        Server::start(&program, flags.ports(side), cpus, self.stop).map_err(|why| match flags.ports(side) {
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
        let cpu = cpu_since(&server, cpu_before)?;
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
        let cpu = cpu_since(&server, cpu_before)?;
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
        if load.rate_share.is_some() {
            self.known_rate(load)?;
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
        let cpu = cpu_since(&server, cpu_before)?;
        let mut sample = sample(&report, cpu);
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

    /// Requests per second of the row, found at the first call.
    pub fn known_rate(&mut self, load: &Load) -> Result<f64, Failure> {
        let rate = match self.rate {
            Some(rate) => rate,
            None => self.find_rate(load)?,
        };
        self.rate = Some(rate);
        Ok(rate)
    }

    /// Says at which rate the requests came, if they came at a rate.
    pub fn rate_remark(&self) -> Option<String> {
        let rate = format!("{:.0} requests/s on both", self.rate?);
        let busy = self.rate_busy * 100.0;
        let limit = format!("; the client was {busy:.0} % busy when this rate was found, and may have been the limit");
        Some(if self.rate_busy > CLIENT_BUSY_MAX { rate + &limit } else { rate })
    }

    /// The row's share of the rate that the baseline reaches in a closed loop, with one request at a time on each
    /// connection. It takes the median of three runs, because all later figures depend on it.
    fn find_rate(&mut self, load: &Load) -> Result<f64, Failure> {
        let mut server = self.start(0)?;
        let mut workload = Workload { pipeline: 1, ..load.workload.clone() };
        let mut rates = Vec::new();
        for prefill in [load.prefill, 0, 0] {
            let plan = self.plan(&server, &workload, Limit::Time(self.comparison.time))?;
            let session = Session::open(Plan { prefill, ..plan }, self.stop, |_| ());
            server.settle();
            let report = self.finish(&mut server, session)?;
            rates.push(report.requests_per_second());
            self.rate_busy = self.rate_busy.max(report.client_busy());
            workload.advance(report.tally.latency(Operation::Set).len());
        }
        Ok(median(rates).unwrap_or(0.0) * load.rate_share.unwrap_or(1.0))
    }

    /// Measures, and fails if any reply was wrong.
    pub fn finish(&self, server: &mut Server, session: Result<Session, String>) -> Result<Report, Failure> {
        measure(server, session, if self.row.may_refuse() { Errors::Counted } else { Errors::Wrong }, self.stop)
    }

    /// A plan for the row's client, in the protocol of the server. It verifies values, because a fast wrong reply is worth
    /// nothing.
    pub fn plan(&self, server: &Server, workload: &Workload, limit: Limit) -> Result<Plan, String> {
        let cpus = &self.comparison.client_cpus;
        let tls = self.tls(true)?;
        let ports = if self.row.loads_plainly() {
            vec![Address::find(&server.plain().to_string())?]
        } else {
            server.addresses()?.into_iter().map(|port| port.with_tls(tls.clone())).collect()
        };
        // Every thread needs a connection to every port; only one thread can use a single connection.
        let threads = cpus.count().min(workload.connections / ports.len()).max(1);
        let workload = Workload { protocol: server.kind().protocol(workload.protocol), ..workload.clone() };
        Ok(Plan { threads, cpus: Some(cpus.clone()), verify: true, ..Plan::new(ports, workload, limit) })
    }
}
