//! A run, validated: a [`Workload`], and where, how long and how fast it is to be sent.

use std::time::Duration;

use crate::address::Address;
use crate::client::Rules;
use crate::cpus::Cpus;
use crate::keys::Keys;
use crate::workload::Workload;

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    Time(Duration),
    /// After this many requests of all threads.
    Count(u64),
}

/// Everything a run needs to know.
pub struct Plan {
    pub workload: Workload,
    /// One; or several that together hold the keys, key *id* at `id % addresses.len()`: servers, or the ports of one.
    /// Connection *i* leads to `i % addresses.len()` and asks for that one's keys.
    pub addresses: Vec<Address>,
    pub threads: usize,
    /// Thread *i* runs on the *i*-th of these.
    pub cpus: Option<Cpus>,
    /// How many keys, from the first on, are set before the measured part.
    pub prefill: u64,
    /// Requests per second of all threads; `None` is as fast as the replies come.
    pub rate: Option<f64>,
    pub limit: Limit,
    /// Which of the workload's sequences of random requests: a server that lives on must not meet the same one again.
    pub sequence: u64,
    pub verify: bool,
    pub reconnect: bool,
    pub idle_connections: usize,
    /// A server that is silent for so long, with requests in flight, has failed.
    pub patience: Duration,
}

impl Plan {
    /// A run of `workload`, with everything else as the command line has it by default.
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
        }
    }

    /// Where the connections lead, to show.
    pub fn server(&self) -> String {
        self.addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(",")
    }

    /// What the clients of this run go by. `Err` says which numbers do not fit together.
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
