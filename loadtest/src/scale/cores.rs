//! The cores of the servers and of the client.
//!
//! A machine of four or more cores is split: the client has the last cores, and a server with N workers the first N of
//! the others. On a smaller machine both run on all cores, and the system decides where.
//!
//! A physical core often runs two threads, and Linux calls each a core. Both of them then go to the same side. The servers
//! first get one thread of each physical core, so that workers share physical cores only when they outnumber them.

use crate::cpus::Cpus;

/// Machines with fewer cores are not split.
const SPLIT_MIN: usize = 4;

/// The cores of both sides, and whether threads keep to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    Split {
        /// A server with N workers runs on the first N.
        server: Cpus,
        /// One thread of the client on each.
        client: Cpus,
    },
    /// Server and client run on any of these.
    Floating(Cpus),
}

/// Whether a measurement's server and client had cores of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    Apart,
    Shared,
}

impl Cores {
    /// The cores of this machine, as far as this process may use them; `client` of them for the client, or half.
    pub fn here(client: Option<usize>) -> Result<Cores, String> {
        let allowed = Cpus::allowed()?;
        // A quota can allow less time than that of all cores.
        let count = std::thread::available_parallelism().map_or(allowed.count(), usize::from);
        split(&allowed.first(count), client, Cpus::siblings)
    }

    /// The given cores. If one list is missing, that side gets all other cores of this machine.
    pub fn given(server: Option<Cpus>, client: Option<Cpus>) -> Result<Cores, String> {
        let others = |cpus: &Cpus, side| {
            let others = Cpus::allowed()?.except(cpus);
            others.ok_or_else(|| format!("no core is left for the {side}: give both --server-cpus and --client-cpus"))
        };
        match (server, client) {
            (None, None) => Cores::here(None),
            (Some(server), Some(client)) => Ok(Cores::Split { server, client }),
            (Some(server), None) => Ok(Cores::Split { client: others(&server, "client")?, server }),
            (None, Some(client)) => {
                let server = spread(&others(&client, "server")?, Cpus::siblings);
                Ok(Cores::Split { server, client })
            }
        }
    }

    /// The most workers that have cores without the client; on a machine that is not split, all cores.
    pub fn workers_max(&self) -> usize {
        match self {
            Cores::Split { server: cpus, .. } | Cores::Floating(cpus) => cpus.count(),
        }
    }

    /// Threads of the client.
    pub fn clients(&self) -> usize {
        match self {
            Cores::Split { client: cpus, .. } | Cores::Floating(cpus) => cpus.count(),
        }
    }

    /// The cores of a server with so many workers. If they outnumber the server's cores, it may use the client's, too.
    pub fn of_server(&self, workers: usize) -> Cpus {
        match self {
            Cores::Split { server, .. } if workers <= server.count() => server.first(workers),
            Cores::Split { server, client } => server.union(client),
            Cores::Floating(cpus) => cpus.clone(),
        }
    }

    /// The cores that the client's threads keep to, one each.
    pub fn of_client(&self) -> Option<&Cpus> {
        match self {
            Cores::Split { client, .. } => Some(client),
            Cores::Floating(_) => None,
        }
    }

    pub fn sharing(&self, workers: usize) -> Sharing {
        match self {
            Cores::Split { client, .. } if !self.of_server(workers).overlaps(client) => Sharing::Apart,
            Cores::Split { .. } | Cores::Floating(_) => Sharing::Shared,
        }
    }

    /// Which cores each side has.
    pub fn text(&self) -> String {
        match self {
            Cores::Split { server, client } => {
                format!("server {server}, with N workers the first N; client {client}, a thread on each")
            }
            Cores::Floating(cpus) => format!(
                "{cpus} for server and client together; client threads: {}; ratios of shared cores say little about \
                 scaling",
                cpus.count()
            ),
        }
    }
}

fn split(cpus: &Cpus, client: Option<usize>, siblings: impl Fn(usize) -> Cpus) -> Result<Cores, String> {
    let count = cpus.count();
    let client = match client {
        None if count < SPLIT_MIN => return Ok(Cores::Floating(cpus.clone())),
        None => count / 2,
        Some(client) if client >= count => {
            return Err(format!("--client-cores {client}: of {count} cores, none is left for the server"));
        }
        Some(client) => client,
    };
    let by_physical_core = cpus.sorted_by_key(|cpu| siblings(*cpu));
    let server = by_physical_core.first(count - client);
    let client = by_physical_core.except(&server).expect("fewer than all are the server's");
    Ok(Cores::Split { server: spread(&server, siblings), client })
}

/// First the first thread of each physical core, then the second.
fn spread(cpus: &Cpus, siblings: impl Fn(usize) -> Cpus) -> Cpus {
    cpus.sorted_by_key(|cpu| siblings(*cpu).position(*cpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(list: &str) -> Cpus {
        list.parse().expect("a list")
    }

    fn alone(cpu: usize) -> Cpus {
        cpus(&cpu.to_string())
    }

    /// The server's cores and the client's.
    #[track_caller]
    fn check(all: &str, client: Option<usize>, siblings: impl Fn(usize) -> Cpus, server: &str, expected: &str) {
        let Ok(Cores::Split { server: servers, client }) = split(&cpus(all), client, siblings) else {
            panic!("{all} is to be split")
        };
        assert_eq!((servers.to_string().as_str(), client.to_string().as_str()), (server, expected));
    }

    #[test]
    fn large_machines_are_split_and_small_ones_are_not() {
        check("0-15", None, alone, "0-7", "8-15");
        check("0-4", None, alone, "0-2", "3,4");
        check("0-7", Some(6), alone, "0,1", "2-7");
        check("0,1", Some(1), alone, "0", "1");
        for few in ["0", "0,1", "4-6"] {
            assert_eq!(split(&cpus(few), None, alone), Ok(Cores::Floating(cpus(few))));
        }
        assert!(split(&cpus("0-7"), Some(8), alone).is_err_and(|why| why.contains("none is left")));
    }

    #[test]
    fn threads_of_a_physical_core_go_to_one_side() {
        let next = |cpu: usize| cpus(&format!("{},{}", cpu / 2 * 2, cpu / 2 * 2 + 1));
        check("0-7", None, next, "0,2,1,3", "4-7");
        let far = |cpu: usize| cpus(&format!("{},{}", cpu % 4, cpu % 4 + 4));
        check("0-7", None, far, "0,1,4,5", "2,6,3,7");
    }

    #[test]
    fn a_row_shares_cores_only_if_it_must() {
        let apart = Cores::Split { server: cpus("0-3"), client: cpus("4-7") };
        assert_eq!((apart.of_server(2), apart.sharing(2)), (cpus("0,1"), Sharing::Apart));
        assert_eq!((apart.of_server(4), apart.sharing(4)), (cpus("0-3"), Sharing::Apart));
        assert_eq!((apart.of_server(5), apart.sharing(5)), (cpus("0-7"), Sharing::Shared));
        let overlapping = Cores::Split { server: cpus("0-3"), client: cpus("2-5") };
        assert_eq!((overlapping.sharing(2), overlapping.sharing(3)), (Sharing::Apart, Sharing::Shared));
        assert_eq!(Cores::Floating(cpus("0,1")).sharing(1), Sharing::Shared);
    }
}
