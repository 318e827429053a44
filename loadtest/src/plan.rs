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
    pub address: Address,
    pub threads: usize,
    /// Thread *i* runs on the *i*-th of these.
    pub cpus: Option<Cpus>,
    /// Set every key before the measured part.
    pub prefill: bool,
    /// Requests per second of all threads; `None` is as fast as the replies come.
    pub rate: Option<f64>,
    pub limit: Limit,
    pub verify: bool,
    pub reconnect: bool,
    pub idle_connections: usize,
    /// A server that is silent for so long, with requests in flight, has failed.
    pub patience: Duration,
}

impl Plan {
    /// A run of `workload`, with everything else as the command line has it by default.
    pub fn new(address: Address, workload: Workload, limit: Limit) -> Plan {
        Plan {
            workload,
            address,
            threads: 1,
            cpus: None,
            prefill: false,
            rate: None,
            limit,
            verify: false,
            reconnect: false,
            idle_connections: 0,
            patience: Duration::from_secs(10),
        }
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
        let keys = Keys::new(workload.keys, workload.key_size, workload.value_size, workload.seed)?;
        let Workload { protocol, cache_aside, .. } = *workload;
        Ok(Rules { protocol, keys, verify: self.verify, cache_aside })
    }
}
