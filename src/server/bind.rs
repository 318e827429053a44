//! The sockets that the server listens on: bound here, or handed over by systemd.

use crate::config::{BindingProtocol, Config, Listen};
use crate::exit::Exit;
use crate::net::certificates::Verify;
use crate::net::listener::Listener;
use crate::net::udp::UdpSocket;
use listenfd::ListenFd;
use log::Level;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// The sockets that systemd has bound (sd_listen_fds(3)), instead of those of the command line. One for UDP is shared by all
/// workers, since there is but one of it: see [`bind_udp`] for what that costs. With `--port-per-core` it is the first's.
pub(super) fn inherited(config: &Config) -> Result<Option<(Vec<BoundListener>, UdpEndpoints)>, Exit> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() == 0 {
        return Ok(None);
    }
    let mut listeners = Vec::new();
    let mut endpoints: UdpEndpoints = (0..config.threads).map(|_| Vec::new()).collect();
    for at in 0..sockets.len() {
        let unusable = |error| Exit::system("a socket that was handed over is of no use", error);
        let listener = if let Ok(Some(listener)) = sockets.take_tcp_listener(at) {
            Listener::from_tcp(listener)
        } else if let Ok(Some(socket)) = sockets.take_udp_socket(at) {
            let socket = UdpSocket::of(socket).map_err(unusable)?;
            let others = if config.port_per_core { 0 } else { config.threads - 1 };
            for own in endpoints.iter_mut().skip(1).take(others) {
                own.push(socket.share().map_err(unusable)?);
            }
            endpoints[0].push(socket);
            continue;
        } else {
            let listener = sockets.take_unix_listener(at).map_err(unusable)?;
            Listener::from_unix(listener.expect("each is taken once"))
        };
        let listener = listener.map_err(unusable)?;
        let verify = listener.tcp_address().and_then(|_| config.tls_enabled.then_some(config.tls.verify));
        listeners.push(BoundListener { verify, ..BoundListener::of(listener, config) });
    }
    Ok(Some((listeners, endpoints)))
}

/// A listening socket, and what becomes of those who come in there.
pub(super) struct BoundListener {
    pub(super) listener: Listener,
    /// The worker that all its connections go to (`--port-per-core`), if there is such a one.
    pub(super) worker: Option<usize>,
    /// What TLS wants of its clients, if they come by TLS.
    pub(super) verify: Option<Verify>,
    /// What they may speak.
    pub(super) protocol: BindingProtocol,
}

impl BoundListener {
    fn of(listener: Listener, config: &Config) -> BoundListener {
        BoundListener { listener, worker: None, verify: None, protocol: config.protocol }
    }
}

/// The sockets for UDP of each worker.
pub(super) type UdpEndpoints = Vec<Vec<UdpSocket>>;

/// Binding the addresses of one entry of `-l`, or of the default. As in memcached an address that is in use is left out as
/// long as there is another one.
struct Attempt<'a> {
    /// Before the address in what is told: nothing for TCP.
    transport: &'static str,
    listen: &'a Listen,
    /// Of each worker with a port of its own, or of all: whether it has an address.
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

    /// The address of a worker with a port of its own.
    fn address(&self, mut base: SocketAddr, worker: usize) -> Result<SocketAddr, Exit> {
        if base.port() != 0 {
            let port = base.port().checked_add(worker as u16);
            base.set_port(port.ok_or_else(|| self.failed(io::Error::other("there are not enough ports above it")))?);
        }
        Ok(base)
    }

    /// An address could not be bound. Of the two of loopback or of all interfaces one is enough, whatever is wrong with
    /// the other: not every machine has IPv6.
    fn refused(&mut self, address: SocketAddr, error: io::Error) -> Result<(), Exit> {
        if matches!(self.listen, Listen::Host { .. }) && error.kind() != ErrorKind::AddrInUse {
            return Err(self.failed(error));
        }
        self.missing.push((address, error));
        Ok(())
    }

    /// All addresses were tried: fails where nobody could be served, and tells what is missing.
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

pub(super) fn bind(config: &Config) -> Result<Vec<BoundListener>, Exit> {
    let mut listeners = Vec::new();
    let workers = if config.port_per_core { config.threads } else { 1 };
    for (at, listen) in config.listen.iter().enumerate() {
        let mut attempt = Attempt::new("", listen, workers);
        if let Listen::Unix { path, mask } = listen {
            let listener = Listener::unix(path, *mask, config.listen_backlog).map_err(|error| attempt.failed(error))?;
            listeners.push(BoundListener::of(listener, config));
            continue;
        }
        let rules = config.rules(at);
        let addresses = listen.resolve().map_err(|error| attempt.failed(error))?;
        for (base, worker) in addresses.iter().flat_map(|&base| (0..workers).map(move |worker| (base, worker))) {
            let address = attempt.address(base, worker)?;
            match Listener::tcp(address, config.listen_backlog) {
                Ok(listener) => {
                    mark(config, |mark| listener.set_mark(mark));
                    if let Some(tag) = &rules.tag {
                        log::info!("tag {tag}: {listener}");
                    }
                    attempt.served[worker] = true;
                    let worker = config.port_per_core.then_some(worker);
                    let protocol = rules.protocol.unwrap_or(config.protocol);
                    listeners.push(BoundListener { listener, worker, verify: config.verify(at), protocol });
                }
                Err(error) => attempt.refused(address, error)?,
            }
        }
        attempt.end()?;
    }
    Ok(listeners)
}

/// `-o sock_cookie_id`. As in memcached, a server that may not mark its sockets serves all the same.
fn mark(config: &Config, set: impl FnOnce(u32) -> io::Result<()>) {
    if config.socket_mark > 0
        && let Err(error) = set(config.socket_mark)
    {
        log::warn!("-o sock_cookie_id: a socket could not be marked: {error}");
    }
}

/// Every worker has a socket of its own at the same port, among which the kernel divides the clients: with one for all, as
/// in memcached, a datagram wakes every worker, and all but one in vain. Two workers, 50 clients, server CPU per get
/// (`loadtest compare --set udp`): 3.9 µs one at a time and 3.5 with 4 in flight; 4.0 and 3.9 with one socket for all;
/// memcached 5.4 and 5.2. (All by the first worker: 3.8 and 3.4, and never more than one core.) With `--port-per-core` the
/// ports are different ones.
pub(super) fn bind_udp(config: &Config) -> Result<UdpEndpoints, Exit> {
    let mut endpoints: UdpEndpoints = (0..config.threads).map(|_| Vec::new()).collect();
    let shared = config.threads > 1 && !config.port_per_core;
    let sharers = if config.port_per_core { 1 } else { config.threads };
    for listen in &config.udp_listen {
        let mut attempt = Attempt::new("UDP ", listen, config.threads / sharers);
        for mut base in listen.resolve().map_err(|error| attempt.failed(error))? {
            for (port, owners) in endpoints.chunks_mut(sharers).enumerate() {
                let mut address = attempt.address(base, port)?;
                // Alone first: a port that another server has is not to be shared with it.
                match UdpSocket::bind(address, false).and_then(|alone| alone.address()) {
                    Ok(found) => address = found,
                    Err(error) => {
                        attempt.refused(address, error)?;
                        continue;
                    }
                }
                if port == 0 {
                    // The others have the ports above it, which may be any one.
                    base = address;
                }
                for own in owners {
                    let socket = UdpSocket::bind(address, shared).map_err(|error| attempt.failed(error))?;
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

/// Where the sockets of UDP are bound. Those of all workers are at the same addresses, unless each has a port of its own.
pub(super) fn udp_addresses(config: &Config, endpoints: &UdpEndpoints) -> impl Iterator<Item = SocketAddr> {
    let some = if config.port_per_core { endpoints.len() } else { 1 };
    endpoints.iter().take(some).flatten().filter_map(|socket| socket.address().ok())
}

/// Without `-l` memcached listens on all addresses, so whoever comes from there must be told, also without `-v`.
pub(super) fn tell_that_it_is_for_this_machine(config: &Config, listeners: &[BoundListener], endpoints: &UdpEndpoints) {
    let by_default = |listen: &Listen| matches!(listen, Listen::Loopback { .. });
    if config.listen.iter().chain(&config.udp_listen).any(by_default) {
        let tcp = listeners.iter().filter_map(|listener| listener.listener.tcp_address());
        let udp = udp_addresses(config, endpoints).map(|address| format!("UDP {address}"));
        let places: Vec<String> = tcp.map(|address| address.to_string()).chain(udp).collect();
        log::warn!(
            "listening on {}, for this machine only: -l ADDRESS serves others (-l 0.0.0.0: on every address)",
            places.join(", ")
        );
    }
}

/// The same of replies over UDP: whoever has not said who may get long ones sees them only on this machine.
pub(super) fn tell_that_replies_are_withheld(config: &Config, endpoints: &UdpEndpoints) {
    let public = udp_addresses(config, endpoints).find(|address| !address.ip().to_canonical().is_loopback());
    if let Some(address) = public.filter(|_| config.udp_allow.is_empty()) {
        log::warn!(
            "listening on UDP {address}: of other machines only those of --udp-allow get replies that are longer than \
             their request"
        );
    }
}

/// In memcached's words. Before the slab classes: test suites give up after fifty lines without one of these.
pub(super) fn tell_listeners(listeners: &[BoundListener], endpoints: &UdpEndpoints) {
    for BoundListener { listener, protocol, .. } in listeners {
        log::info!("listening on {listener}");
        log::debug!("<{} server listening ({protocol})", listener.fd());
    }
    for socket in endpoints.iter().flatten() {
        log::info!("listening on {socket}");
        log::debug!("<{} server listening (udp)", socket.fd());
    }
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
