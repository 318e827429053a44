//! Descriptors, queues of new connections, queues of the network card.

use super::memory::sysctl;
use crate::tool::doctor::files::known;
use crate::tool::doctor::finding::{Finding, Outcome, Verdict, because, well};
use crate::tool::doctor::local::Local;
use crate::tool::doctor::machine::{SOMAXCONN, SYN_BACKLOG};
use crate::tool::doctor::server::Server;

/// Descriptors besides those of connections: epoll, waker and UDP sockets of each worker, listeners, files, the metrics
/// address. corecached asks the system for as many.
const FILES_PER_WORKER: f64 = 8.0;
const FILES_BESIDES: f64 = 64.0;

/// Workers for which one receive queue is enough. The kernel's work for a request takes about as much time as the
/// server's, and half of it is done by the CPU that sends; so the CPU of a queue keeps up with two workers.
const WORKERS_PER_QUEUE: f64 = 2.0;

pub(super) fn descriptors(local: &Local) -> Verdict {
    let (connections, workers) = (local.connections()?, local.workers()?);
    let Some(limit) = local.process()?.open_files else { return because("the limits of the process cannot be read") };
    // memcached sets the limit itself to -c, whatever it was, and lives with that.
    let besides = if local.is_for_memcached() { 0.0 } else { workers * FILES_PER_WORKER + FILES_BESIDES };
    let needed = connections + besides;
    if limit as f64 >= needed {
        return match limit {
            u64::MAX => well("no limit of open files"),
            _ => well(format!("{limit} open files, {needed} are needed for {connections} connections")),
        };
    }
    Ok(Outcome::Found(Finding {
        is: format!("{} may open {limit} files, and serves {connections} connections.", local.subject()),
        should: format!("With its own files it needs {needed}."),
        why: "Clients beyond the limit are refused, and -c does not help: at its start the server lowers -c to \
              what the limit allows."
            .into(),
        change: vec![
            format!("unit: LimitNOFILE={:.0}", needed.max(65536.0)),
            format!("ulimit -n {needed}    # in a shell, before the start of the server"),
        ],
    }))
}

pub(super) fn somaxconn(local: &Local) -> Verdict {
    let backlog = local.backlog()?;
    let limit = *known(&local.machine.somaxconn, SOMAXCONN)? as f64;
    // A negative backlog asks for as much as the kernel gives.
    if backlog <= limit {
        return well(format!("{limit}, and the backlog (-b) is {backlog}"));
    }
    let mut change = sysctl("net.core.somaxconn", backlog);
    change.push("restart of the server    # a socket keeps the backlog that it began with".into());
    Ok(Outcome::Found(Finding {
        is: format!(
            "{} asks for a backlog of {backlog} connections (-b), and net.core.somaxconn is {limit}.",
            local.subject()
        ),
        should: format!("It should be {backlog} or more."),
        why: "The kernel cuts the backlog to it. When many clients connect at once, as after a restart, it drops \
              those beyond it, and they try again a second later, then after three."
            .into(),
        change,
    }))
}

pub(super) fn syn_backlog(local: &Local) -> Verdict {
    let backlog = local.backlog()?;
    let limit = *known(&local.machine.syn_backlog, SYN_BACKLOG)? as f64;
    // The kernel's default is 1. With cookies it needs no queue to answer any number of connections.
    if local.machine.syn_cookies != Some(0) {
        return well(format!("{limit}, and SYN cookies are on"));
    }
    if backlog <= limit {
        return well(format!("{limit}, and the backlog (-b) is {backlog}"));
    }
    Ok(Outcome::Found(Finding {
        is: format!(
            "net.ipv4.tcp_max_syn_backlog is {limit}, the backlog (-b) is {backlog}, and net.ipv4.tcp_syncookies is 0."
        ),
        should: format!("SYN cookies should be on, or the first should be {backlog} or more."),
        why: "Without cookies the kernel drops new connections when three quarters of that many are half open, and \
              their clients wait for a second."
            .into(),
        change: [sysctl("net.ipv4.tcp_syncookies", 1.0), sysctl("net.ipv4.tcp_max_syn_backlog", backlog)].concat(),
    }))
}

pub(super) fn nic_queues(local: &Local) -> Verdict {
    if local.server().is_ok_and(Server::is_private) {
        return well("the server listens on this machine alone");
    }
    if local.machine.cards.is_empty() {
        return because("no network card is up");
    }
    let workers = local.workers()?.min(local.cpus()?.len() as f64);
    let is_narrow = |width: usize| (width as f64) * WORKERS_PER_QUEUE < workers;
    let narrow = local.machine.cards.iter().find(|card| is_narrow(card.queues.max(card.spread.len())));
    let Some(card) = narrow else {
        let shown = local.machine.cards.iter().map(|card| format!("{}: {} receive queues", card.name, card.queues));
        return well(shown.collect::<Vec<_>>().join(", "));
    };
    let queues =
        if card.queues == 1 { "one receive queue".to_owned() } else { format!("{} receive queues", card.queues) };
    let cpus: u64 = local.cpus()?.iter().filter(|cpu| **cpu < 32).map(|cpu| 1 << cpu).sum();
    Ok(Outcome::Found(Finding {
        is: format!(
            "The network card {} has {queues} for {workers} workers, and RPS does not spread its packets.",
            card.name
        ),
        should: format!("There should be a queue, or a CPU of RPS, for at most {WORKERS_PER_QUEUE} workers."),
        why: "One CPU takes all packets of a queue through the kernel. When it is busy, packets wait or are lost \
              while other CPUs have time."
            .into(),
        change: vec![
            format!("ethtool -L {} combined {workers}    # if ethtool -l shows that the card has more", card.name),
            format!("echo {cpus:x} | tee /sys/class/net/{}/queues/rx-*/rps_cpus    # else", card.name),
        ],
    }))
}
