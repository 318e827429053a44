//! Asks servers for what the checks need: one look, a wait, and another look.

use super::files::Root;
use super::server::{Look, Prefix, Sample, Server};
use crate::tool::client::Connection;
use crate::tool::cores::Cores;
use crate::tool::failure::in_words;
use crate::tool::figures::{Ask, Snapshot};
use crate::tool::target::{Address, Target};
use std::collections::HashMap;
use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// The lists of a server, by what follows `stats`. One that the server does not know is left out.
const LISTS: [&str; 7] = ["settings", "items", "slabs", "latency", "slow", "hotkeys", "prefixes"];
/// Most items of a sample: their share is right to within a percent.
const SAMPLE_ITEMS: u64 = 10_000;
/// Longest time for a sample. A server that lists slowly has other work.
const SAMPLE_TIME: Duration = Duration::from_secs(2);

/// How a target is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Depth {
    /// Its settings and figures at one moment.
    Glance,
    /// What happens in this time.
    Watch(Duration),
}

/// Looks at the servers, all in the same time. Errors are in words.
pub(super) fn servers(root: &Root, targets: &[Target], depth: Depth) -> Vec<Result<Server, String>> {
    let first: Vec<_> = targets.iter().map(|target| look(root, target)).collect();
    let second = match depth {
        Depth::Glance => first.iter().map(|_| None).collect::<Vec<_>>(),
        Depth::Watch(time) => {
            if first.iter().any(Result::is_ok) {
                thread::sleep(time);
            }
            let again = |(target, first): (&Target, &Result<_, _>)| first.as_ref().ok().map(|_| look(root, target));
            targets.iter().zip(&first).map(again).collect()
        }
    };
    let both = targets.iter().zip(first.into_iter().zip(second));
    let server = |(target, (first, second))| server(target, first, second).map_err(|error| in_words(&error));
    both.map(server).collect()
}

/// A look, and the CPU time of the server's threads.
type Seen = (Look, Option<Cores>);

fn server(target: &Target, first: io::Result<Seen>, second: Option<io::Result<Seen>>) -> io::Result<Server> {
    let (before, cores_before) = first?;
    let Some(second) = second else {
        return Ok(Server::new(target.name.clone(), before.clone(), before));
    };
    let (after, cores) = second?;
    let mut server = Server::new(target.name.clone(), before, after);
    server.own_connections = 1.0;
    server.workers = cores.zip(cores_before).map(|(now, before)| now.worker_percents(&before));
    server.sample = sample(target);
    Ok(server)
}

/// Each look has a connection of its own: the server may close one that says nothing for a while.
fn look(root: &Root, target: &Target) -> io::Result<Seen> {
    let mut connection = Connection::open(target)?;
    let snapshot = Snapshot::take(&mut connection, Ask::NoLatency)?;
    let cores = if is_here(target) { Cores::of(&root.0, &snapshot.stats) } else { None };
    let mut lists = HashMap::new();
    for name in LISTS {
        if let Some(list) = connection.stats(name)? {
            lists.insert(name, list);
        }
    }
    let collects = lists.get("settings").is_some_and(|settings| settings.text("detail_enabled") == Some("yes"));
    let detail = if collects { detail(&mut connection)? } else { Vec::new() };
    Ok((Look { snapshot, lists, detail }, cores))
}

fn detail(connection: &mut Connection) -> io::Result<Vec<Prefix>> {
    connection.send("stats detail dump")?;
    let mut prefixes = Vec::new();
    loop {
        let line = connection.line()?;
        match Prefix::from_detail(&line) {
            Some(prefix) => prefixes.push(prefix),
            // The end, or a refusal.
            None => return Ok(prefixes),
        }
    }
}

/// The first items of a dump. The walk over the index gives them in the order of hashes, which is none of ours.
fn sample(target: &Target) -> Result<Sample, String> {
    let dump = |which: &str| {
        let mut connection = Connection::open(target)?;
        connection.send(&format!("lru_crawler metadump {which}"))?;
        connection.wait_until(Instant::now() + SAMPLE_TIME);
        let mut sample = Sample::default();
        while sample.items < SAMPLE_ITEMS {
            match connection.line() {
                Ok(line) if line.starts_with("key=") => sample.count(&line),
                Ok(line) if line == "END" => break,
                Ok(line) if line == "OK" => {}
                Ok(line) => return Ok(Err(format!("to \"lru_crawler metadump {which}\" it says \"{line}\""))),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Ok(sample))
    };
    let result: io::Result<Result<Sample, String>> = match dump("hash") {
        // Older servers walk by class alone.
        Ok(Err(_)) => dump("all"),
        other => other,
    };
    result.map_err(|error| in_words(&error))?
}

impl Sample {
    /// Counts a line of a dump: `key=a exp=-1 la=1795835473 …`.
    fn count(&mut self, line: &str) {
        self.items += 1;
        let expiry = line.split(' ').find_map(|word| word.strip_prefix("exp="));
        self.without_ttl += u64::from(expiry == Some("-1") || expiry == Some("0"));
    }
}

/// Whether the server runs on this machine, or is reached through it: its address is one of ours.
pub(super) fn is_here(target: &Target) -> bool {
    let Address::Tcp { host, port } = &target.address else { return true };
    let Ok(addresses) = (host.as_str(), *port).to_socket_addrs() else { return false };
    // Such a socket sends nothing when it connects, but gets the address that it would send from.
    addresses.into_iter().any(|address| {
        let own = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" });
        let own = own.and_then(|socket| socket.connect(address).and_then(|()| socket.local_addr()));
        address.ip().is_loopback() || own.is_ok_and(|own| own.ip() == address.ip())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_without_a_time_to_live_are_counted() {
        let mut sample = Sample::default();
        for expiry in ["-1", "0", "1795835473"] {
            sample.count(&format!("key=exp=-1 exp={expiry} la=1 cas=2 fetch=yes cls=1 size=67"));
        }
        assert_eq!(sample, Sample { items: 3, without_ttl: 2 });
    }

    #[test]
    fn our_own_addresses_are_here() {
        let is_here = |address: Address| {
            is_here(&Target { name: String::new(), address, tls: None, login: None, timeout: Duration::from_secs(1) })
        };
        let tcp = |host: &str| Address::Tcp { host: host.to_owned(), port: 1 };
        assert!(is_here(tcp("127.0.0.1")) && is_here(tcp("::1")) && is_here(Address::Unix("/run/c".into())));
        // Addresses for documentation belong to nobody.
        assert!(!is_here(tcp("192.0.2.1")));
    }
}
