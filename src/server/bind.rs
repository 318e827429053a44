//! The sockets that the server listens on. The server binds them itself, or systemd hands them over.

use super::open::{Opened, Opener, Use, socket_name, unix_name};
use crate::config::{BindingProtocol, Config, Listen};
use crate::exit::Exit;
use crate::net::certificates::Verify;
use crate::net::listener::Listener;
use crate::net::listener::SocketFiles;
use crate::net::udp::UdpSocket;
use crate::process::handover::{Descriptor, Inherited, KEPT};
use crate::process::supervisor::Supervisor;
use log::Level;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// All sockets that the server listens on.
pub(super) struct Sockets {
    pub(super) listeners: Vec<BoundListener>,
    pub(super) endpoints: UdpEndpoints,
    /// Where the observer answers.
    pub(super) metrics: Vec<Listener>,
    /// The files of the Unix sockets that the server removes at its end.
    pub(super) files: SocketFiles,
    /// The sockets once more, if they are to be handed on to the next server. Names that begin with [`KEPT`] are of sockets
    /// that a server has bound; systemd has bound the others.
    pub(super) kept: Vec<Descriptor>,
    origin: Origin,
}

/// The UDP sockets of each worker.
pub(super) type UdpEndpoints = Vec<Vec<UdpSocket>>;

/// Where the sockets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    CommandLine,
    Systemd,
}

/// A listening socket, and how the server treats the connections that it accepts there.
pub(super) struct BoundListener {
    pub(super) listener: Listener,
    /// The worker that gets all connections of this socket (`--port-per-core`).
    pub(super) worker: Option<usize>,
    /// Whether clients must show certificates. None: connections are not under TLS.
    pub(super) verify: Option<Verify>,
    /// The protocols that clients may use.
    pub(super) protocol: BindingProtocol,
}

impl BoundListener {
    fn new(listener: Listener, config: &Config) -> BoundListener {
        BoundListener { listener, worker: None, verify: None, protocol: config.listen.protocol }
    }
}

impl Sockets {
    /// Takes the sockets of socket units, if there are any. Otherwise takes those of the server before that the command
    /// line still wants, closes its others, and binds those that are missing.
    ///
    /// # Errors
    /// When the system refuses a socket that the server cannot do without.
    pub(super) fn open(config: &Config, inherited: &mut Inherited, supervisor: &Supervisor) -> Result<Sockets, Exit> {
        let keeps = config.process.take_over || supervisor.has_store();
        let given = inherited.take(|name| !name.starts_with(KEPT));
        let mut opener = Opener::new(inherited, keeps);
        let mut sockets = inherit(config, given, &mut opener)?;
        let binds = sockets.listeners.is_empty() && sockets.endpoints.iter().all(Vec::is_empty);
        opener.close_others(&wanted_names(config, binds, sockets.metrics.is_empty()), supervisor);
        if binds {
            sockets.listeners = bind_listeners(config, &mut opener)?;
            sockets.endpoints = bind_endpoints(config, &mut opener)?;
            sockets.origin = Origin::CommandLine;
        }
        if sockets.metrics.is_empty() {
            sockets.metrics = bind_metrics(config, &mut opener)?;
        }
        // Those of workers that this server does not have.
        opener.close_others(&[], supervisor);
        Ok(Sockets { files: opener.files, kept: opener.kept, ..sockets })
    }

    /// Has the supervisor store the sockets that the server has bound, for its next start.
    pub(super) fn store(&mut self, supervisor: &Supervisor) {
        if !supervisor.has_store() {
            return;
        }
        for Descriptor { name, fd } in self.kept.iter().filter(|kept| kept.name.starts_with(KEPT)) {
            if let Err(error) = supervisor.store(name, &[fd.as_fd()]) {
                log::warn!("the sockets are not stored for the next start: {error}");
                return;
            }
        }
        self.files.leave();
    }

    /// The ports of all sockets, for the port file.
    pub(super) fn ports(&self, config: &Config) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let tcp = self.listeners.iter().filter_map(|bound| Some(("TCP", bound.listener.tcp_address()?)));
        let metrics = self.metrics.iter().filter_map(|listener| Some(("METRICS", listener.tcp_address()?)));
        tcp.chain(self.udp_addresses(config).map(|address| ("UDP", address))).chain(metrics)
    }

    /// The addresses of the UDP sockets. All workers have sockets at the same addresses, except with `--port-per-core`.
    fn udp_addresses(&self, config: &Config) -> impl Iterator<Item = SocketAddr> {
        let workers = if config.workers.port_per_core { self.endpoints.len() } else { 1 };
        self.endpoints.iter().take(workers).flatten().filter_map(|socket| socket.address().ok())
    }

    /// Warns, even without `-v`, about clients that the server does not serve although memcached would.
    pub(super) fn warn_of_limited_reach(&self, config: &Config) {
        if self.origin == Origin::CommandLine {
            self.warn_of_loopback(config);
        }
        self.warn_of_withheld_replies(config);
    }

    /// Without `-l` memcached listens on all addresses, and this server on loopback only.
    fn warn_of_loopback(&self, config: &Config) {
        let by_default = |listen: &Listen| matches!(listen, Listen::Loopback { .. });
        if config.listen.sockets.iter().chain(&config.udp.sockets).any(by_default) {
            let tcp = self.listeners.iter().filter_map(|bound| bound.listener.tcp_address());
            let udp = self.udp_addresses(config).map(|address| format!("UDP {address}"));
            let places: Vec<String> = tcp.map(|address| address.to_string()).chain(udp).collect();
            log::warn!(
                "listening on {}, for this machine only: -l ADDRESS serves others (-l 0.0.0.0: on every address)",
                places.join(", ")
            );
        }
    }

    /// Without `--udp-allow` clients on other machines get no long replies over UDP.
    fn warn_of_withheld_replies(&self, config: &Config) {
        let public = self.udp_addresses(config).find(|address| !address.ip().to_canonical().is_loopback());
        if let Some(address) = public.filter(|_| config.udp.allow.is_empty()) {
            log::warn!(
                "listening on UDP {address}: of other machines only those of --udp-allow get replies that are longer \
                 than their request"
            );
        }
    }

    /// Logs each socket in memcached's words. Call it before the slab classes are logged: test suites stop looking for
    /// these lines after fifty others.
    pub(super) fn log(&self) {
        for BoundListener { listener, protocol, .. } in &self.listeners {
            log::info!("listening on {listener}");
            log::debug!("<{} server listening ({protocol})", listener.fd());
        }
        for socket in self.endpoints.iter().flatten() {
            log::info!("listening on {socket}");
            log::debug!("<{} server listening (udp)", socket.fd());
        }
        for listener in &self.metrics {
            log::info!("metrics at {listener}");
        }
    }
}

/// The name of the sockets of the observer among those that systemd has bound (`FileDescriptorName=`).
const METRICS: &str = "metrics";
/// Clients that may wait at a socket of the observer.
const METRICS_BACKLOG: i32 = 128;

/// Takes the sockets that systemd has bound (sd_listen_fds(3)). Those that are named [`METRICS`] replace `--metrics`, and the
/// others replace the other addresses of the command line. All workers share a UDP socket, because systemd passes only one: see [`bind_endpoints`] for the cost. With `--port-per-core` the first
/// worker gets it.
fn inherit(config: &Config, given: Vec<Descriptor>, opener: &mut Opener<'_>) -> Result<Sockets, Exit> {
    let unusable = |error| Exit::system("a socket that was handed over is of no use", error);
    let (mut listeners, mut metrics) = (Vec::new(), Vec::new());
    let mut endpoints: UdpEndpoints = (0..config.workers.threads).map(|_| Vec::new()).collect();
    for Descriptor { name, fd } in given {
        opener.keep(&name, &fd).map_err(unusable)?;
        match Opened::new(fd).map_err(unusable)? {
            Opened::Listener(listener) if name == METRICS => metrics.push(listener),
            Opened::Listener(listener) => {
                let verify =
                    listener.tcp_address().and_then(|_| config.tls.enabled.then_some(config.tls.options.verify));
                listeners.push(BoundListener { verify, ..BoundListener::new(listener, config) });
            }
            Opened::Udp(socket) => {
                let others = if config.workers.port_per_core { 0 } else { config.workers.threads - 1 };
                for own in endpoints.iter_mut().skip(1).take(others) {
                    own.push(socket.share().map_err(unusable)?);
                }
                endpoints[0].push(socket);
            }
        }
    }
    let (files, kept) = (SocketFiles::default(), Vec::new());
    Ok(Sockets { listeners, endpoints, metrics, files, kept, origin: Origin::Systemd })
}

/// The names of the sockets that the command line wants: those of clients if `cache` says so, and those of `--metrics`.
fn wanted_names(config: &Config, cache: bool, metrics: bool) -> Vec<String> {
    let ports = if config.workers.port_per_core { config.workers.threads } else { 1 };
    let Config { listen, udp, observing, .. } = config;
    let mut names = Vec::new();
    for (used, entries, ports, is_wanted) in [
        (Use::Cache, &listen.sockets, ports, cache),
        (Use::Udp, &udp.sockets, ports, cache),
        (Use::Metrics, &observing.addresses, 1, metrics),
    ] {
        for listen in entries.iter().filter(|_| is_wanted) {
            if let Listen::Unix { path, .. } = listen {
                names.extend(unix_name(used, path));
            }
            // If a name cannot be resolved, binding reports it.
            let addresses = listen.resolve().unwrap_or_default();
            let places = addresses.iter().flat_map(|&base| (0..ports).map(move |port| (base, port)));
            names.extend(places.filter_map(|(base, port)| Some(socket_name(used, port_above(base, port)?, port))));
        }
    }
    names
}

/// The address of a worker that has a port of its own. Port 0 stays. None: there is no such port.
fn port_above(mut base: SocketAddr, worker: usize) -> Option<SocketAddr> {
    if base.port() != 0 {
        base.set_port(base.port().checked_add(worker as u16)?);
    }
    Some(base)
}

/// The attempt to bind all addresses of one entry of `-l`, or of the default. As in memcached, an address that is in use is
/// left out if another address of the entry can be bound.
struct Attempt<'a> {
    /// The prefix of addresses in messages: empty for TCP.
    transport: &'static str,
    listen: &'a Listen,
    /// Whether an address was bound, for each worker that has a port of its own, or once for all workers.
    served: Vec<bool>,
    missing: Vec<(SocketAddr, io::Error)>,
}

impl<'a> Attempt<'a> {
    fn new(transport: &'static str, listen: &'a Listen, ports: usize) -> Attempt<'a> {
        Attempt { transport, listen, served: vec![false; ports], missing: Vec::new() }
    }

    fn failed(&self, error: io::Error) -> Exit {
        Exit::system(&format!("failed to listen on {}{}", self.transport, self.listen), error)
    }

    /// The address of a worker that has a port of its own.
    fn address(&self, base: SocketAddr, worker: usize) -> Result<SocketAddr, Exit> {
        let too_high = || self.failed(io::Error::other("there are not enough ports above it"));
        port_above(base, worker).ok_or_else(too_high)
    }

    /// Notes an address that the system refused. An address that the operator named must bind unless it is in use. Of the
    /// two addresses of loopback, or of all interfaces, either may fail for any reason: some machines lack IPv6.
    fn refused(&mut self, address: SocketAddr, error: io::Error) -> Result<(), Exit> {
        if matches!(self.listen, Listen::Host { .. }) && error.kind() != ErrorKind::AddrInUse {
            return Err(self.failed(error));
        }
        self.missing.push((address, error));
        Ok(())
    }

    /// Ends the attempt. Logs the addresses that are missing.
    ///
    /// # Errors
    /// When a port has no address at all.
    fn end(mut self) -> Result<(), Exit> {
        if self.served.contains(&false) {
            let error = self.missing.pop().map_or(ErrorKind::AddrNotAvailable.into(), |(_, error)| error);
            return Err(self.failed(error));
        }
        for (address, error) in &self.missing {
            let level = if error.kind() == ErrorKind::AddrInUse { Level::Warn } else { Level::Info };
            log::log!(level, "{}{address} is not listened on: {error}", self.transport);
        }
        Ok(())
    }
}

fn bind_listeners(config: &Config, opener: &mut Opener<'_>) -> Result<Vec<BoundListener>, Exit> {
    let mut listeners = Vec::new();
    let workers = if config.workers.port_per_core { config.workers.threads } else { 1 };
    for (at, listen) in config.listen.sockets.iter().enumerate() {
        let mut attempt = Attempt::new("", listen, workers);
        if let Listen::Unix { path, mask } = listen {
            let listener = opener.unix(Use::Cache, path, *mask, config.listen.backlog);
            let listener = listener.map_err(|error| attempt.failed(error))?;
            listeners.push(BoundListener::new(listener, config));
            continue;
        }
        let rules = config.rules(at);
        let addresses = listen.resolve().map_err(|error| attempt.failed(error))?;
        for (base, worker) in addresses.iter().flat_map(|&base| (0..workers).map(move |worker| (base, worker))) {
            let address = attempt.address(base, worker)?;
            match opener.tcp(&socket_name(Use::Cache, address, worker), address, config.listen.backlog) {
                Ok(listener) => {
                    mark(config, |mark| listener.set_mark(mark));
                    if let Some(tag) = &rules.tag {
                        log::info!("tag {tag}: {listener}");
                    }
                    attempt.served[worker] = true;
                    let worker = config.workers.port_per_core.then_some(worker);
                    let protocol = rules.protocol.unwrap_or(config.listen.protocol);
                    listeners.push(BoundListener { listener, worker, verify: config.verify(at), protocol });
                }
                Err(error) => attempt.refused(address, error)?,
            }
        }
        attempt.end()?;
    }
    Ok(listeners)
}

/// Binds the addresses of `--metrics`. Each must have at least one socket.
fn bind_metrics(config: &Config, opener: &mut Opener<'_>) -> Result<Vec<Listener>, Exit> {
    let mut listeners = Vec::new();
    for listen in &config.observing.addresses {
        let mut attempt = Attempt::new("metrics ", listen, 1);
        if let Listen::Unix { path, mask } = listen {
            let listener = opener.unix(Use::Metrics, path, *mask, METRICS_BACKLOG);
            listeners.push(listener.map_err(|error| attempt.failed(error))?);
            continue;
        }
        for address in listen.resolve().map_err(|error| attempt.failed(error))? {
            match opener.tcp(&socket_name(Use::Metrics, address, 0), address, METRICS_BACKLOG) {
                Ok(listener) => {
                    attempt.served[0] = true;
                    listeners.push(listener);
                }
                Err(error) => attempt.refused(address, error)?,
            }
        }
        attempt.end()?;
    }
    Ok(listeners)
}

/// Marks a socket with `-o sock_cookie_id`. As in memcached, a failure only causes a warning.
fn mark(config: &Config, set: impl FnOnce(u32) -> io::Result<()>) {
    if config.listen.socket_mark > 0
        && let Err(error) = set(config.listen.socket_mark)
    {
        log::warn!("-o sock_cookie_id: a socket could not be marked: {error}");
    }
}

/// Binds a UDP socket for each worker, all at the same port. The kernel divides the clients among them. With one socket for
/// all workers, as in memcached, each datagram wakes every worker, and only one of them gets it. `loadtest compare --set
/// udp`, two workers, 50 clients, server CPU time per get: 3.9 µs one at a time and 3.5 µs with 4 in flight; with one socket
/// for all, 4.0 µs and 3.9 µs; memcached, 5.4 µs and 5.2 µs. (If the first worker serves all datagrams: 3.8 µs and 3.4 µs,
/// but never more than one core.) With `--port-per-core` each worker has a port of its own.
fn bind_endpoints(config: &Config, opener: &mut Opener<'_>) -> Result<UdpEndpoints, Exit> {
    let mut endpoints: UdpEndpoints = (0..config.workers.threads).map(|_| Vec::new()).collect();
    let sharers = if config.workers.port_per_core { 1 } else { config.workers.threads };
    for listen in &config.udp.sockets {
        let mut attempt = Attempt::new("UDP ", listen, config.workers.threads / sharers);
        for wanted in listen.resolve().map_err(|error| attempt.failed(error))? {
            let mut base = wanted;
            for (port, owners) in endpoints.chunks_mut(sharers).enumerate() {
                let address = attempt.address(base, port)?;
                let name = socket_name(Use::Udp, attempt.address(wanted, port)?, port);
                let sockets = match opener.udp(&name, address, owners.len()) {
                    Ok(sockets) => sockets,
                    Err(error) => {
                        attempt.refused(address, error)?;
                        continue;
                    }
                };
                if port == 0 && base.port() == 0 {
                    // The kernel has chosen this port. The other workers take the ports above it.
                    base = sockets[0].address().map_err(|error| attempt.failed(error))?;
                }
                for (own, socket) in owners.iter_mut().zip(sockets) {
                    mark(config, |mark| socket.set_mark(mark));
                    own.push(socket);
                }
                attempt.served[port] = true;
            }
        }
        attempt.end()?;
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(listen: &Listen, outcomes: &[Result<(), ErrorKind>]) -> Result<(), Exit> {
        let mut attempt = Attempt::new("", listen, 1);
        for outcome in outcomes {
            match outcome {
                Ok(()) => attempt.served[0] = true,
                Err(kind) => attempt.refused(([127, 0, 0, 1], 1).into(), (*kind).into())?,
            }
        }
        attempt.end()
    }

    #[test]
    fn one_address_of_a_name_is_enough_where_the_others_are_in_use() {
        use ErrorKind::{AddrInUse, AddrNotAvailable};
        let named = Listen::Host { host: "name".into(), port: 1 };
        for (listen, outcomes, serves) in [
            (&named, &[Ok(()), Ok(())][..], true),
            (&named, &[Ok(()), Err(AddrInUse)], true),
            (&named, &[Err(AddrInUse), Ok(())], true),
            (&named, &[Err(AddrInUse), Err(AddrInUse)], false),
            (&named, &[Ok(()), Err(AddrNotAvailable)], false),
            (&named, &[], false),
            (&Listen::Loopback { port: 1 }, &[Ok(()), Err(AddrNotAvailable)], true),
            (&Listen::Loopback { port: 1 }, &[Err(AddrInUse), Err(AddrNotAvailable)], false),
            (&Listen::Any { port: 1 }, &[Err(AddrInUse), Ok(())], true),
        ] {
            assert_eq!(attempt(listen, outcomes).is_ok(), serves, "{listen} {outcomes:?}");
        }
    }
}
