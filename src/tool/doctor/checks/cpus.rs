//! CPUs: how many, at which speed, how far from memory, and how the time is read.

use super::memory::sysctl;
use crate::tool::doctor::files::known;
use crate::tool::doctor::finding::{Finding, Outcome, Verdict, because, well};
use crate::tool::doctor::local::Local;
use crate::tool::doctor::machine::{CLOCK, NUMA_BALANCING};
use corecached::process::cgroup::Bound;

/// Clocks that a program reads without a system call.
const FAST_CLOCKS: [&str; 6] =
    ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "timebase", "riscv_clocksource"];

pub(super) fn cpus(local: &Local) -> Verdict {
    let workers = local.server()?.number_setting("num_threads")?;
    let cpus = local.cpus()?.len() as f64;
    if workers <= cpus {
        return well(format!("{cpus}, and {workers} workers"));
    }
    Ok(Outcome::Found(Finding {
        is: format!("The server has {workers} workers (-t), and may run on {}.", count_of(cpus)),
        should: "It should have no more workers than CPUs.".into(),
        why: "Workers that share a CPU wait for each other, and the kernel takes it from one in the middle of a \
              request. More workers serve no more requests."
            .into(),
        change: vec![format!("flag: -t {cpus}"), "unit: AllowedCPUs=    # if it is kept from other CPUs".into()],
    }))
}

fn count_of(cpus: f64) -> String {
    if cpus == 1.0 { "one CPU".into() } else { format!("{cpus} CPUs") }
}

pub(super) fn cgroup_cpu(local: &Local) -> Verdict {
    let Some(Bound { value, file }) = &local.server_process()?.limits.cpus else {
        return well("no quota of a cgroup");
    };
    let workers = local.workers()?;
    if *value >= workers {
        return well(format!("the time of {value:.1} CPUs, by {file}"));
    }
    Ok(Outcome::Found(Finding {
        is: format!("The cgroup of the server has a quota worth {value:.1} CPUs ({file}), for {workers} workers (-t)."),
        should: "The quota should be as many CPUs as there are workers, or there should be none.".into(),
        why: "When the workers have used it up, all of them stand still until the next period: requests wait for \
              up to a tenth of a second."
            .into(),
        change: vec![
            format!("flag: -t {}", value.floor().max(1.0)),
            format!("unit: CPUQuota={:.0}%    # or CPUQuota= for none; a container: --cpus {workers}", workers * 100.0),
        ],
    }))
}

pub(super) fn numa_balancing(local: &Local) -> Verdict {
    let nodes = local.machine.nodes.len();
    if nodes < 2 {
        return well("there is one NUMA node");
    }
    if *known(&local.machine.numa_balancing, NUMA_BALANCING)? == 0 {
        return well(format!("off, with {nodes} nodes"));
    }
    Ok(Outcome::Found(Finding {
        is: format!("The kernel balances memory over {nodes} NUMA nodes (kernel.numa_balancing is not 0)."),
        should: "It should be 0 on a machine whose work is a cache.".into(),
        why: "To learn who uses which page, the kernel takes pages away from the server again and again and lets \
              it fault. All workers use all items, so it learns nothing, and splits huge pages on the way."
            .into(),
        change: sysctl("kernel.numa_balancing", 0.0),
    }))
}

pub(super) fn numa_nodes(local: &Local) -> Verdict {
    let workers = local.server()?.number_setting("num_threads")?;
    let nodes = &local.machine.nodes;
    if nodes.is_empty() {
        return because("the NUMA nodes of this machine cannot be read");
    }
    // A container may keep the server on one node.
    let cpus = &local.server_process()?.cpus;
    let spanned = nodes.iter().filter(|node| !node.is_disjoint(cpus)).count();
    if spanned < 2 || workers < 2.0 {
        return well(format!("the server runs on one node of {}", nodes.len()));
    }
    Ok(Outcome::Found(Finding {
        is: format!("The {workers} workers of one server run on {spanned} NUMA nodes."),
        should: "There should be one server for each node, with its memory there.".into(),
        why: format!(
            "{} of {spanned} accesses to items go to memory of another node, and take about twice as long.",
            spanned - 1
        ),
        change: vec![
            format!("flag: -t {}    # with one such server for each node", (workers / spanned as f64).ceil()),
            "unit: NUMAPolicy=bind, NUMAMask=0 and AllowedCPUs=    # node 0; its CPUs: lscpu".into(),
            "numactl --cpunodebind=0 --membind=0 corecached …    # without systemd".into(),
        ],
    }))
}

pub(super) fn governor(local: &Local) -> Verdict {
    let governors = &local.machine.governors;
    if governors.is_empty() {
        return because("no CPU here has a governor, as in most virtual machines");
    }
    let Some((governor, count)) = governors.iter().find(|(governor, _)| *governor != "performance") else {
        return well("performance");
    };
    Ok(Outcome::Found(Finding {
        is: format!("The frequency of {} follows the governor {governor}.", count_of(*count as f64)),
        should: "It should be performance.".into(),
        why: "A server that waits for packets looks idle, so its CPUs run slowly, and become fast only after a \
              request would have been answered."
            .into(),
        change: vec![
            "cpupower frequency-set -g performance".into(),
            "echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor    # the same".into(),
        ],
    }))
}

pub(super) fn clock_source(local: &Local) -> Verdict {
    let clock = known(&local.machine.clock, CLOCK)?;
    if FAST_CLOCKS.contains(&clock.as_str()) {
        return well(clock);
    }
    let has_tsc = local.machine.clocks.iter().any(|other| other == "tsc");
    let change = match has_tsc {
        true => vec![format!("echo tsc > /{CLOCK}")],
        false => vec![
            "dmesg | grep -i -e tsc -e clocksource    # says why the kernel has given up tsc".into(),
            "kernel: tsc=reliable    # if the machine is known to keep its clocks together".into(),
        ],
    };
    Ok(Outcome::Found(Finding {
        is: format!("The kernel reads the time from {clock}."),
        should: "It should be tsc, or the clock of the hypervisor.".into(),
        why: "Reading this clock is a system call and takes about a microsecond instead of some 30 nanoseconds. \
              The server reads the time in each turn, to measure how long requests take."
            .into(),
        change,
    }))
}
