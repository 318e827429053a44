//! A validated run: a [`Workload`], and where, how long and how fast the client sends it.

use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::client::Rules;
use crate::cpus::Cpus;
use crate::disturb::Disturbance;
use crate::keys::Keys;
use crate::tail::Sentinel;
use crate::workload::Workload;

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    Time(Duration),
    /// Ends after this many requests of all threads.
    Count(u64),
}

/// All parameters of a run.
pub struct Plan {
    pub workload: Workload,
    /// One address, or several that share the keys: servers, or the ports of one server. Key *id* belongs to address
    /// `id % addresses.len()`. Connection *i* leads to address `i % addresses.len()` and asks for its keys.
    pub addresses: Vec<Address>,
    pub threads: usize,
    /// Thread *i* runs on the *i*-th of these cores.
    pub cpus: Option<Cpus>,
    /// The client sets this many keys, from the first on, before the measured part.
    pub prefill: u64,
    /// Requests per second of all threads. `None`: the client sends as fast as the replies come.
    pub rate: Option<f64>,
    pub limit: Limit,
    /// Number of the workload's random sequence. Each run against the same live server must use another one.
    pub sequence: u64,
    pub verify: bool,
    pub reconnect: bool,
    pub idle_connections: usize,
    /// A server that is silent for so long, with requests in flight, has failed.
    pub patience: Duration,
    /// Tell the slow requests of the server from those of the machine.
    pub strain: Option<Strain>,
}

/// An open loop whose threads never sleep, and what else they do to the server.
pub struct Strain {
    /// The rate as a share of what a server holds, between 0 and 1.
    pub share: f64,
    /// The server's process.
    pub process: u32,
    /// What a thread on the server's core notes.
    pub sentinel: Arc<Sentinel>,
    /// The first thread disturbs the server like this.
    pub disturbances: Vec<Disturbance>,
}

impl Plan {
    /// A run of `workload`; everything else has the default of the command line.
    pub fn new(addresses: Vec<Address>, workload: Workload, limit: Limit) -> Plan {
        Plan {
            workload,
            addresses,
            threads: 1,
            cpus: None,
            prefill: 0,
            rate: None,
            limit,
            sequence: 0,
            verify: false,
            reconnect: false,
            idle_connections: 0,
            patience: Duration::from_secs(10),
            strain: None,
        }
    }

    /// The addresses of the servers as text, for reports.
    pub fn server(&self) -> String {
        self.addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(",")
    }

    /// The part of the plan that the clients need. `Err` says which numbers conflict.
    pub fn rules(&self) -> Result<Rules, String> {
        let workload = &self.workload;
        if self.threads == 0 || workload.connections < self.threads {
            return Err(format!(
                "{} connections for {} threads: every thread needs one",
                workload.connections, self.threads
            ));
        }
        let ports = self.addresses.len();
        if workload.connections < ports * self.threads || workload.keys < ports as u64 {
            return Err(format!("{ports} addresses need a connection from each thread and a key each"));
        }
        let keys = Keys::new(workload.keys, workload.key_size, workload.value_size, workload.seed)?;
        let Workload { protocol, cache_aside, .. } = *workload;
        Ok(Rules { protocol, keys, verify: self.verify, cache_aside })
    }
}
