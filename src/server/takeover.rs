//! `--take-over` in a server: it takes over from the one that runs, and lets the next one take over from it.

use super::requests::Ending;
use crate::config::{Config, Listen};
use crate::exit::Exit;
use crate::process::handover::{Descriptor, Inherited};
use crate::process::supervisor::Supervisor;
use crate::process::takeover::{Offer, Predecessor, Progress, Successor, name};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf, absolute};
use std::time::{Duration, Instant};

/// The token of a server that takes over in the main thread's poll.
pub(super) const SUCCESSORS: Token = Token(usize::MAX - 2);

/// The server that this one takes over from, and the offer to the next one.
pub(super) struct TakeOver {
    predecessor: Option<Predecessor>,
    has_ended: bool,
    offer: Offer,
}

impl TakeOver {
    /// Takes the sockets of a running server, if there is one, and offers them to the next. The running server serves on.
    /// None without `--take-over`.
    ///
    /// # Errors
    /// When no other server could find this one; when a server runs, but gives no sockets.
    pub(super) fn begin(
        config: &Config,
        inherited: &mut Inherited,
        signals: &mut Signals,
    ) -> Result<Option<TakeOver>, Exit> {
        if !config.process.take_over {
            return Ok(None);
        }
        let names = names(config)?;
        let file = memory_file(config).map_err(|error| Exit::system("-e", error))?;
        let found = Predecessor::find(&names, file.as_deref(), || goes_on(signals));
        let found = found.map_err(|error| Exit::system("--take-over: the running server gives no sockets", error))?;
        let (predecessor, mut sockets) = found.unzip();
        match &predecessor {
            Some(predecessor) => log::info!("taking over from process {}", predecessor.pid()),
            None => log::info!("there is no server to take over from"),
        }
        let offer = Offer::new(&names, sockets.get_or_insert_default());
        inherited.add(sockets.unwrap_or_default());
        Ok(Some(TakeOver { predecessor, has_ended: false, offer }))
    }

    /// Whether there is an old server.
    pub(super) fn has_predecessor(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Ends the old server, unless it has ended, and adds what it has kept to `inherited`. From here on there is no way back.
    ///
    /// # Errors
    /// When the old server goes on, or a signal ends the wait for it.
    pub(super) fn end_predecessor(&mut self, inherited: &mut Inherited, signals: &mut Signals) -> Result<(), Exit> {
        let Some(predecessor) = self.predecessor.as_ref().filter(|_| !self.has_ended) else { return Ok(()) };
        let kept = predecessor.end(|| goes_on(signals)).map_err(|error| match error.kind() {
            ErrorKind::TimedOut => {
                Exit::system("--take-over", io::Error::other("a signal came before the old server ended"))
            }
            _ => Exit::system("--take-over: the running server serves on", error),
        })?;
        self.has_ended = true;
        inherited.add(kept);
        Ok(())
    }

    /// This server serves: lets the old one exit. Returns what the main thread offers to the next one; `given` are the
    /// sockets that it will get.
    ///
    /// # Errors
    /// When the system has no descriptors.
    pub(super) fn serves(self, config: &Config, mut given: Vec<Descriptor>) -> io::Result<Offering> {
        if let Some(predecessor) = self.predecessor {
            predecessor.leave();
        }
        given.extend(self.offer.descriptors()?);
        Ok(Offering { offer: self.offer, given, successor: None, memory_file: memory_file(config)? })
    }
}

/// Whether to wait on for the old server.
fn goes_on(signals: &mut Signals) -> bool {
    !signals.pending().any(|signal| signal == SIGINT || signal == SIGTERM)
}

/// The file of `-e`, however it was named.
fn memory_file(config: &Config) -> io::Result<Option<PathBuf>> {
    config.process.memory_file.as_deref().map(absolute).transpose()
}

/// A name for each address that the next server will know. A port that the system has chosen is none: it would find any
/// server with such a port.
fn names(config: &Config) -> Result<Vec<String>, Exit> {
    let Config { listen, udp, .. } = config;
    let mut names = Vec::new();
    for (transport, entries) in [("", &listen.sockets), ("UDP ", &udp.sockets)] {
        for entry in entries {
            let address = match entry {
                Listen::Unix { path, .. } => {
                    absolute(path).map_err(|error| Exit::system(&format!("{entry}"), error))?.into_os_string()
                }
                Listen::Loopback { port: 0 } | Listen::Any { port: 0 } | Listen::Host { port: 0, .. } => continue,
                _ => format!("{transport}{entry}").into(),
            };
            names.push(name(&address));
        }
    }
    if names.is_empty() {
        return Err(Exit::usage(
            "--take-over needs an address with a port, or a Unix socket, by which servers find each other",
        ));
    }
    Ok(names)
}

/// Has the supervisor forget the descriptors that nobody has taken.
pub(super) fn forget_rest(inherited: &mut Inherited, supervisor: &Supervisor) {
    for Descriptor { name, .. } in inherited.take(|_| true) {
        log::info!("{name} is not wanted any more");
        supervisor.forget(&name);
    }
}

/// What the main thread offers to the next server, and how far that has come.
pub(super) struct Offering {
    offer: Offer,
    given: Vec<Descriptor>,
    successor: Option<Successor>,
    memory_file: Option<PathBuf>,
}

impl Offering {
    /// Has the poll wait for the next server.
    pub(super) fn register(&self, registry: &Registry) -> io::Result<()> {
        let register = |socket: &socket2::Socket| {
            registry.register(&mut SourceFd(&socket.as_raw_fd()), SUCCESSORS, Interest::READABLE)
        };
        self.offer.sockets().try_for_each(register)
    }

    /// The time until [`Offering::advance`] has work although nothing comes.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.successor.as_ref().map(|successor| successor.wait(now))
    }

    /// Goes as far with the next server as can be done without waiting. If it is ready: that server, and how this one ends.
    pub(super) fn advance(&mut self, registry: &Registry) -> Option<(Successor, Ending)> {
        loop {
            let Some(successor) = &mut self.successor else {
                let successor = self.offer.next()?;
                let socket = successor.socket().as_raw_fd();
                if let Err(error) = registry.register(&mut SourceFd(&socket), SUCCESSORS, Interest::READABLE) {
                    log::warn!("process {} cannot take over: {error}", successor.pid());
                    continue;
                }
                self.successor = Some(successor);
                continue;
            };
            match successor.advance(&self.given) {
                Progress::Waits => return None,
                Progress::Gone => self.successor = None,
                Progress::IsReady(file) => {
                    let ending = self.ending(file.as_deref());
                    return self.successor.take().map(|successor| (successor, ending));
                }
            }
        }
    }

    /// The cache is written for a server that will load it.
    fn ending(&self, file: Option<&Path>) -> Ending {
        match &self.memory_file {
            Some(own) if Some(&**own) == file => Ending::Graceful,
            Some(own) => {
                log::warn!("the cache is not written to {}: the next server has another file of -e", own.display());
                Ending::Plain
            }
            None => Ending::Plain,
        }
    }
}
