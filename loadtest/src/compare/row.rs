//! A row of a table: the same work for both servers, and the target ratios.

use crate::datagrams::Datagrams;
use crate::disturb;
use crate::mix::Mix;
use crate::pair::figure::{Bound, CPU_PER_KEY, SIDES, Target};
use crate::pair::flags::Flags;
use crate::pair::machine::available_mib;
use crate::program::{Kind, Program, Spoken};
use crate::storm::Storm;
use crate::workload::{Protocol, Workload};

/// A piece of work, with the settings of the servers.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub about: String,
    pub flags: Flags,
    pub job: Job,
    pub targets: Vec<Target>,
}

/// The kinds of measurement.
#[derive(Clone, Debug)]
pub enum Job {
    Load(Load),
    /// Sets the keys of the workload, more than fit, and counts those that the server holds.
    Fill(Workload),
    /// The same, with values of one size; only the number of items counts.
    Fit(Workload),
    /// Plays a cache-aside client, and counts the misses.
    Mix(Mix),
    /// Opens this many connections, uses each once, and measures the memory.
    Idle(usize),
    /// A load at a fixed rate, with other work for the server meanwhile.
    Strain(Load, Vec<disturb::Kind>),
    /// Begins many TLS connections at once, again and again.
    Storm(Storm),
    /// Sends gets over UDP.
    Datagrams(Datagrams),
}

/// A workload for a server that holds the keys of the prefill.
#[derive(Clone, Debug)]
pub struct Load {
    pub workload: Workload,
    /// Keys to set first.
    pub prefill: u64,
    /// Requests of the workload before the measurement.
    pub warm_up: u64,
    /// Send requests at this share of the rate that the baseline reaches in a closed loop.
    pub rate_share: Option<f64>,
    /// Not all keys fit, so the row reports error replies and does not fail by them. memcached refuses some sets when
    /// many arrive at once, because its background thread has not yet found items to evict.
    pub full: bool,
    /// Report the longest set of the prefill.
    pub watch_prefill: bool,
}

/// Rows with more keys keep their two servers for all rounds, instead of new ones for each.
const FRESH_KEYS_MAX: u64 = 1_000_000;

impl Row {
    /// A workload with a prefill of all its keys.
    pub fn load(name: impl Into<String>, about: impl Into<String>, workload: Workload) -> Row {
        let (prefill, warm_up) = (workload.keys, 0);
        let load = Load { workload, prefill, warm_up, rate_share: None, full: false, watch_prefill: false };
        Row::new(name, about, Job::Load(load))
    }

    pub fn new(name: impl Into<String>, about: impl Into<String>, job: Job) -> Row {
        Row { name: name.into(), about: about.into(), flags: Flags::default(), job, targets: Vec::new() }
    }

    /// Sets the number of workers, and the memory in MiB.
    pub fn on(mut self, threads: usize, memory: u64) -> Row {
        (self.flags.threads, self.flags.memory) = (Some(threads), Some(memory));
        self
    }

    /// Adds the target that the candidate's CPU time per key is at most this share of the baseline's.
    pub fn at_most(self, ratio: f64) -> Row {
        self.target((&CPU_PER_KEY, Bound::AtMost(ratio)))
    }

    pub fn target(mut self, target: Target) -> Row {
        self.targets.push(target);
        self
    }

    /// Makes the row use TLS.
    pub fn by_tls(mut self) -> Row {
        self.flags.tls = true;
        self
    }

    /// Changes the load, if the row has one.
    pub fn with(mut self, change: impl FnOnce(&mut Load)) -> Row {
        if let Job::Load(load) = &mut self.job {
            change(load);
        }
        self
    }

    /// Whether both servers keep running between rounds, on a machine with this many MiB: the prefill is costly, and
    /// both fit in memory.
    pub fn keeps_servers(&self, machine_mib: u64) -> bool {
        let costly = matches!(&self.job, Job::Load(load) if load.is_costly());
        costly && self.flags.memory.is_none_or(|memory| memory * 2 < machine_mib)
    }

    /// Whether a reply that reports an error may be right: not all keys fit.
    pub fn may_refuse(&self) -> bool {
        matches!(&self.job, Job::Load(load) | Job::Strain(load, _) if load.full)
    }

    /// Whether the load goes to the port without TLS, although the server has one with TLS.
    pub fn loads_plainly(&self) -> bool {
        matches!(self.job, Job::Strain(..))
    }

    /// A description of the work, the flags and the number of keys.
    pub fn about(&self) -> String {
        let flags = self.flags.text(1, Kind::Memcached);
        let keys = match &self.job {
            Job::Load(load) => format!(", {} keys", load.workload.keys),
            Job::Datagrams(datagrams) => format!(", {} keys", datagrams.keys),
            Job::Mix(mix) => format!(", {} requests", mix.requests),
            Job::Fill(_) | Job::Fit(_) | Job::Idle(_) | Job::Storm(_) | Job::Strain(..) => String::new(),
        };
        if flags.is_empty() {
            format!("{}{keys}", self.about)
        } else {
            format!("{}{keys}; `{}`", self.about, flags.trim())
        }
    }

    /// The reason to refuse the row, if it needs what this program does not do by RESP, and one of the servers speaks
    /// that.
    pub fn refusal(&self, programs: &[Program; 2]) -> Option<String> {
        let side = programs.iter().position(|program| program.kind.speaks() == Spoken::Resp)?;
        let flags = &self.flags;
        let why = match &self.job {
            _ if flags.tls => "for which this program has no TLS",
            Job::Datagrams(_) => "which has no UDP",
            Job::Strain(..) => "which has no such disturbances",
            Job::Storm(_) => "for which this program has no storms",
            Job::Mix(_) => "for which this program has no cache-aside client of many sizes",
            Job::Load(load) if load.workload.protocol == Protocol::Meta => "which has no meta commands",
            _ if flags.port_per_core => "and the row is about keys that belong to ports",
            _ if !flags.others.is_empty() => "and the row is about flags of memcached",
            Job::Load(_) | Job::Fill(_) | Job::Fit(_) | Job::Idle(_) => return None,
        };
        Some(format!("refused: the {} speaks RESP, {why}", SIDES[side]))
    }

    /// The reason to leave the row out, if this machine lacks memory for both servers.
    pub fn does_not_fit(&self) -> Option<String> {
        let needed = 2 * self.flags.memory?;
        let available = available_mib()?;
        (needed > available).then(|| format!("left out: both servers need {needed} MiB, and {available} are available"))
    }

    /// The number of rounds. Memory needs only one.
    pub fn rounds(&self, wanted: u32) -> u32 {
        if let Job::Fill(_) | Job::Fit(_) | Job::Mix(_) | Job::Idle(_) = self.job { 1 } else { wanted }
    }

    /// The number of keys of the workload; 0 without a workload.
    pub fn keys(&self) -> u64 {
        match &self.job {
            Job::Load(load) | Job::Strain(load, _) => load.workload.keys,
            Job::Fill(workload) | Job::Fit(workload) => workload.keys,
            Job::Datagrams(datagrams) => datagrams.keys,
            Job::Mix(_) | Job::Idle(_) | Job::Storm(_) => 0,
        }
    }
}

impl Load {
    /// Whether the prefill takes long, because of its many keys or of a warm-up.
    fn is_costly(&self) -> bool {
        self.prefill > FRESH_KEYS_MAX || self.warm_up > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_resp_cannot_do_are_refused() {
        let [text, resp] = ["memcached", "redis-server"].map(|name| Program::new(name.into(), None));
        let refusal = |row: &Row| {
            assert_eq!(row.refusal(&[text.clone(), text.clone()]), None, "{}", row.name);
            let [baseline, candidate] = [[resp.clone(), text.clone()], [text.clone(), resp.clone()]];
            let [baseline, candidate] = [baseline, candidate].map(|programs| row.refusal(&programs));
            assert_eq!(baseline.as_ref().map(|why| why.replace("baseline", "candidate")), candidate, "{}", row.name);
            baseline
        };
        let gets = |protocol| Row::load("row", "", Workload { protocol, ..Workload::default() });
        assert_eq!(refusal(&gets(Protocol::Classic)), None);
        assert_eq!(refusal(&Row::new("row", "", Job::Idle(5)).on(1, 64)), None);
        assert_eq!(refusal(&Row::new("row", "", Job::Fill(Workload::default())).on(1, 64)), None);
        let meta = refusal(&gets(Protocol::Meta));
        assert_eq!(meta.as_deref(), Some("refused: the baseline speaks RESP, which has no meta commands"));
        let with = |change: fn(&mut Flags)| {
            let mut row = gets(Protocol::Classic);
            change(&mut row.flags);
            refusal(&row).unwrap_or_default()
        };
        assert!(with(|flags| flags.tls = true).contains("no TLS"));
        assert!(with(|flags| flags.port_per_core = true).contains("ports"));
        assert!(with(|flags| flags.others = "-f 1.5").contains("flags of memcached"));
    }
}
