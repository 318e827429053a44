//! The checks, as tables: those of a machine and those of a server. A check is a function from facts to a verdict; its
//! thresholds are the constants of its file.

mod connections;
mod cpus;
mod items;
mod memory;
mod network;
mod traffic;

use super::finding::Check;
use super::local::Local;
use super::server::Server;

pub(super) const MACHINE: &[Check<Local>] = &[
    Check { name: "descriptors", of: network::descriptors },
    Check { name: "somaxconn", of: network::somaxconn },
    Check { name: "syn-backlog", of: network::syn_backlog },
    Check { name: "nic-queues", of: network::nic_queues },
    Check { name: "memory", of: memory::memory },
    Check { name: "cgroup-memory", of: memory::cgroup_memory },
    Check { name: "swapped", of: memory::swapped },
    Check { name: "swappiness", of: memory::swappiness },
    Check { name: "memlock", of: memory::memlock },
    Check { name: "overcommit", of: memory::overcommit },
    Check { name: "huge-pages", of: memory::huge_pages },
    Check { name: "shmem-huge-pages", of: memory::shmem_huge_pages },
    Check { name: "cpus", of: cpus::cpus },
    Check { name: "cgroup-cpu", of: cpus::cgroup_cpu },
    Check { name: "numa-balancing", of: cpus::numa_balancing },
    Check { name: "numa-nodes", of: cpus::numa_nodes },
    Check { name: "cpu-governor", of: cpus::governor },
    Check { name: "clock-source", of: cpus::clock_source },
];

pub(super) const SERVER: &[Check<Server>] = &[
    Check { name: "connections", of: connections::connections },
    Check { name: "connections-rejected", of: connections::rejected },
    Check { name: "accept-stopped", of: connections::accept_stopped },
    Check { name: "short-connections", of: connections::short },
    Check { name: "auth-errors", of: connections::auth_errors },
    Check { name: "values-too-large", of: items::too_large },
    Check { name: "no-memory", of: items::no_memory },
    Check { name: "young-evictions", of: items::young_evictions },
    Check { name: "calcified-classes", of: items::calcified },
    Check { name: "class-border", of: items::class_border },
    Check { name: "evicted-unfetched", of: items::evicted_unfetched },
    Check { name: "expired-unfetched", of: items::expired_unfetched },
    Check { name: "no-ttl", of: items::no_ttl },
    Check { name: "busy-workers", of: traffic::busy_workers },
    Check { name: "uneven-workers", of: traffic::uneven_workers },
    Check { name: "hot-key", of: traffic::hot_key },
    Check { name: "prefix-without-hits", of: traffic::prefix_without_hits },
    Check { name: "yields", of: traffic::yields },
    Check { name: "slow-requests", of: traffic::slow_requests },
];
