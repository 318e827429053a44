//! This machine as `/proc` and `/sys` show it.

use super::files::{Root, chosen, cpu_list, cpu_mask, kilobytes};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const SOMAXCONN: &str = "proc/sys/net/core/somaxconn";
pub(super) const SYN_BACKLOG: &str = "proc/sys/net/ipv4/tcp_max_syn_backlog";
pub(super) const SYN_COOKIES: &str = "proc/sys/net/ipv4/tcp_syncookies";
pub(super) const HUGE_PAGES: &str = "sys/kernel/mm/transparent_hugepage/enabled";
pub(super) const SHARED_HUGE_PAGES: &str = "sys/kernel/mm/transparent_hugepage/shmem_enabled";
pub(super) const MEMORY: &str = "proc/meminfo";
pub(super) const SWAPPINESS: &str = "proc/sys/vm/swappiness";
pub(super) const OVERCOMMIT: &str = "proc/sys/vm/overcommit_memory";
pub(super) const NUMA_BALANCING: &str = "proc/sys/kernel/numa_balancing";
pub(super) const CLOCK: &str = "sys/devices/system/clocksource/clocksource0/current_clocksource";
pub(super) const CLOCKS: &str = "sys/devices/system/clocksource/clocksource0/available_clocksource";
const NODES: &str = "sys/devices/system/node";
const CPUS: &str = "sys/devices/system/cpu";
const CARDS: &str = "sys/class/net";

/// What a file did not tell is `None`, or empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    pub(super) somaxconn: Option<u64>,
    pub(super) syn_backlog: Option<u64>,
    /// 0: off.
    pub(super) syn_cookies: Option<u64>,
    pub(super) huge_pages: Option<String>,
    pub(super) shared_huge_pages: Option<String>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) swap_bytes: Option<u64>,
    pub(super) swappiness: Option<u64>,
    /// 2: the kernel promises no more memory than there is.
    pub(super) overcommit: Option<u64>,
    pub(super) numa_balancing: Option<u64>,
    /// The CPUs of each NUMA node that has some.
    pub(super) nodes: Vec<BTreeSet<u32>>,
    pub(super) cpus: BTreeSet<u32>,
    /// The number of CPUs with each governor.
    pub(super) governors: BTreeMap<String, usize>,
    pub(super) clock: Option<String>,
    pub(super) clocks: Vec<String>,
    pub(super) cards: Vec<Card>,
}

/// A network card that is up. Devices without hardware, such as loopback and bridges, are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) name: String,
    /// Receive queues, each with an interrupt of its own.
    pub(super) queues: usize,
    /// The CPUs that packets are passed on to by software (RPS).
    pub(super) spread: BTreeSet<u32>,
}

impl Machine {
    pub(super) fn read(root: &Root) -> Machine {
        let memory = root.text(MEMORY).unwrap_or_default();
        let nodes = root.names(NODES).into_iter().filter(|name| is_numbered(name, "node"));
        let nodes = nodes.filter_map(|name| root.text(&format!("{NODES}/{name}/cpulist")));
        let cpus = root.text(&format!("{CPUS}/online")).as_deref().map(cpu_list).unwrap_or_default();
        let mut governors = BTreeMap::new();
        for cpu in &cpus {
            if let Some(governor) = root.text(&format!("{CPUS}/cpu{cpu}/cpufreq/scaling_governor")) {
                *governors.entry(governor).or_default() += 1;
            }
        }
        Machine {
            somaxconn: root.number(SOMAXCONN),
            syn_backlog: root.number(SYN_BACKLOG),
            syn_cookies: root.number(SYN_COOKIES),
            huge_pages: root.text(HUGE_PAGES).as_deref().and_then(chosen),
            shared_huge_pages: root.text(SHARED_HUGE_PAGES).as_deref().and_then(chosen),
            memory_bytes: kilobytes(&memory, "MemTotal"),
            swap_bytes: kilobytes(&memory, "SwapTotal"),
            swappiness: root.number(SWAPPINESS),
            overcommit: root.number(OVERCOMMIT),
            numa_balancing: root.number(NUMA_BALANCING),
            nodes: nodes.map(|list| cpu_list(&list)).filter(|cpus| !cpus.is_empty()).collect(),
            cpus,
            governors,
            clock: root.text(CLOCK),
            clocks: root.text(CLOCKS).unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
            cards: root.names(CARDS).iter().filter_map(|name| Card::read(root, name)).collect(),
        }
    }
}

impl Card {
    fn read(root: &Root, name: &str) -> Option<Card> {
        let folder = format!("{CARDS}/{name}");
        if !root.path(&format!("{folder}/device")).exists() || root.text(&format!("{folder}/operstate"))? == "down" {
            return None;
        }
        let queues = root.names(&format!("{folder}/queues"));
        let queues: Vec<&String> = queues.iter().filter(|queue| is_numbered(queue, "rx-")).collect();
        let masks = queues.iter().filter_map(|queue| root.text(&format!("{folder}/queues/{queue}/rps_cpus")));
        let spread = masks.flat_map(|mask| cpu_mask(&mask)).collect();
        (!queues.is_empty()).then(|| Card { name: name.to_owned(), queues: queues.len(), spread })
    }
}

/// Whether a name is `prefix` and a number.
fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}
