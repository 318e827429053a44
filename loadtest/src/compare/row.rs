//! A row of a table: one piece of work for both servers, and the expected ratio.

use std::{fmt, fs};

use super::figure::{Bound, CPU_PER_KEY, Target};
use crate::datagrams::Datagrams;
use crate::server::Ports;
use crate::storm::Storm;
use crate::workload::Workload;

/// What is done, with which settings of the servers.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub about: String,
    pub flags: Flags,
    pub job: Job,
    pub targets: Vec<Target>,
}

/// What a row sets on both servers, behind their commands, so that it goes over what stands there.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `-t`
    pub threads: Option<usize>,
    /// `-m`, in MiB.
    pub memory: Option<u64>,
    /// `-c`
    pub connections: Option<usize>,
    /// `--port-per-core`, which only the candidate is given.
    pub port_per_core: bool,
    /// `-Z`, with a certificate that is made for it.
    pub tls: bool,
    /// `-U`
    pub udp: bool,
}

/// The kinds of measurement.
#[derive(Clone, Debug)]
pub enum Job {
    Load(Load),
    /// Sets the keys of the workload, more than fit, and counts what is held.
    Fill(Workload),
    /// Opens so many connections, each used once, and looks at the memory.
    Idle(usize),
    /// Begins connections by TLS at once, again and again.
    Storm(Storm),
    /// Asks by UDP.
    Datagrams(Datagrams),
}

/// A workload against a server that holds what the workload needs.
#[derive(Clone, Debug)]
pub struct Load {
    pub workload: Workload,
    /// Keys set first.
    pub prefill: u64,
    /// Requests of the workload before those that count.
    pub warm_up: u64,
    /// Send at this share of the rate that the baseline reaches when it is asked as fast as it answers.
    pub rate_share: Option<f64>,
    /// Not all keys fit: error replies are reported, and end nothing. memcached refuses some sets when many come at
    /// once, because its background thread has not yet sorted what could be evicted.
    pub full: bool,
    /// Report the longest set of the prefill.
    pub watch_prefill: bool,
}

/// Rows with more keys keep their two servers for all rounds, instead of fresh ones for each.
const FRESH_KEYS_MAX: u64 = 1_000_000;

impl Row {
    /// A workload whose keys are all set before.
    pub fn load(name: impl Into<String>, about: impl Into<String>, workload: Workload) -> Row {
        let (prefill, warm_up) = (workload.keys, 0);
        let load = Load { workload, prefill, warm_up, rate_share: None, full: false, watch_prefill: false };
        Row::new(name, about, Job::Load(load))
    }

    pub fn new(name: impl Into<String>, about: impl Into<String>, job: Job) -> Row {
        Row { name: name.into(), about: about.into(), flags: Flags::default(), job, targets: Vec::new() }
    }

    /// On servers with so many workers and MiB.
    pub fn on(mut self, threads: usize, memory: u64) -> Row {
        (self.flags.threads, self.flags.memory) = (Some(threads), Some(memory));
        self
    }

    /// With the servers' CPU time per key at most this share of the baseline's.
    pub fn at_most(self, ratio: f64) -> Row {
        self.target((&CPU_PER_KEY, Bound::AtMost(ratio)))
    }

    pub fn target(mut self, target: Target) -> Row {
        self.targets.push(target);
        self
    }

    /// The same by TLS.
    pub fn by_tls(mut self) -> Row {
        self.flags.tls = true;
        self
    }

    /// Changes the load, if it is one.
    pub fn with(mut self, change: impl FnOnce(&mut Load)) -> Row {
        if let Job::Load(load) = &mut self.job {
            change(load);
        }
        self
    }

    /// Whether both servers live on between rounds, on a machine of so many MiB: what they hold is costly, and they fit
    /// side by side.
    pub fn keeps_servers(&self, machine_mib: u64) -> bool {
        let costly = matches!(&self.job, Job::Load(load) if load.is_costly());
        costly && self.flags.memory.is_none_or(|memory| memory * 2 < machine_mib)
    }

    /// What is done, on what.
    pub fn about(&self) -> String {
        let flags = self.flags.text(1);
        let keys = match &self.job {
            Job::Load(load) => format!(", {} keys", load.workload.keys),
            Job::Datagrams(datagrams) => format!(", {} keys", datagrams.keys),
            Job::Fill(_) | Job::Idle(_) | Job::Storm(_) => String::new(),
        };
        if flags.is_empty() {
            format!("{}{keys}", self.about)
        } else {
            format!("{}{keys}; `{}`", self.about, flags.trim())
        }
    }

    /// Why this machine has not the memory for both servers, if so.
    pub fn does_not_fit(&self) -> Option<String> {
        let needed = 2 * self.flags.memory?;
        let available = available_mib()?;
        (needed > available).then(|| format!("left out: both servers need {needed} MiB, and {available} are available"))
    }

    /// Memory settles in one round.
    pub fn rounds(&self, wanted: u32) -> u32 {
        if let Job::Fill(_) | Job::Idle(_) = self.job { 1 } else { wanted }
    }

    /// The most keys that a server holds or is asked for; 0 without a workload.
    pub fn keys(&self) -> u64 {
        match &self.job {
            Job::Load(load) => load.workload.keys,
            Job::Fill(workload) => workload.keys,
            Job::Datagrams(datagrams) => datagrams.keys,
            Job::Idle(_) | Job::Storm(_) => 0,
        }
    }
}

impl Load {
    /// Whether the servers live on between rounds: what they hold is costly, or comes about only in time.
    fn is_costly(&self) -> bool {
        self.prefill > FRESH_KEYS_MAX || self.warm_up > 0
    }
}

impl Flags {
    /// The flags of `side`, 0 the baseline, with a space before each.
    pub fn text(&self, side: usize) -> String {
        let own = if self.port_per_core && side == 1 { " --port-per-core" } else { "" };
        let tls = if self.tls { " -Z" } else { "" };
        let udp = if self.udp { " -U" } else { "" };
        format!("{self}{own}{tls}{udp}")
    }

    /// The ports that `side` listens on.
    pub fn ports(&self, side: usize) -> Ports {
        if self.udp {
            return Ports::Udp;
        }
        match (self.tls, self.port_per_core && side == 1) {
            (true, _) => Ports::Tls,
            (false, true) => Ports::Plain(self.threads.unwrap_or(1)),
            (false, false) => Ports::Plain(1),
        }
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, number) in [
            ("-t", self.threads.map(|count| count as u64)),
            ("-m", self.memory),
            ("-c", self.connections.map(|count| count as u64)),
        ] {
            if let Some(number) = number {
                write!(f, " {flag} {number}")?;
            }
        }
        Ok(())
    }
}

/// Memory that programs may still take, as the kernel sees it.
fn available_mib() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_both_sides() {
        let flags = Flags {
            threads: Some(2),
            memory: Some(64),
            connections: None,
            port_per_core: true,
            tls: false,
            udp: false,
        };
        assert_eq!((flags.text(0).as_str(), flags.ports(0)), (" -t 2 -m 64", Ports::Plain(1)));
        assert_eq!((flags.text(1).as_str(), flags.ports(1)), (" -t 2 -m 64 --port-per-core", Ports::Plain(2)));
        let flags = Flags { tls: true, ..Flags::default() };
        assert_eq!((flags.text(0).as_str(), flags.ports(0)), (" -Z", Ports::Tls));
        assert_eq!(Flags::default().text(1), "");
    }
}
