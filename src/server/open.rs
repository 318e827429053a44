//! Sockets of the server before: a server that starts anew takes those that its command line still wants, and binds the
//! others. Clients that connect in between wait in the sockets' queues and are served.
//!
//! A socket is found again by the name under which it was handed on: [`socket_name`], [`unix_name`]. Rules of TLS, protocols
//! and workers are those of the new command line.

use crate::net::listener::{Listener, SocketFiles};
use crate::net::udp::UdpSocket;
use crate::process::handover::{Descriptor, Inherited, KEPT};
use crate::process::supervisor::Supervisor;
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use socket2::{Domain, Socket};
use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

/// How long an address may stay in use after its socket was closed.
const FREE_MAX: Duration = Duration::from_millis(500);
/// systemd's limit of a name, in bytes.
const NAME_MAX: usize = 255;

/// What a socket is for, as names say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Cache,
    Udp,
    Metrics,
}

impl Use {
    fn word(self) -> &'static str {
        match self {
            Use::Cache => "cache",
            Use::Udp => "udp",
            Use::Metrics => "metrics",
        }
    }
}

/// Whether the name is one of a socket that a server has bound.
fn is_socket(name: &str) -> bool {
    let word = name.strip_prefix(KEPT).and_then(|rest| rest.split('-').next());
    word.is_some_and(|word| [Use::Cache, Use::Udp, Use::Metrics].iter().any(|used| used.word() == word))
}

/// The name of the socket of a port: `kept-cache-127.0.0.1-11211`, or `kept-cache-127.0.0.1-any0` where the system chooses
/// the port. `number` tells the sockets of `--port-per-core` apart that have such a port.
pub(super) fn socket_name(used: Use, address: SocketAddr, number: usize) -> String {
    // A name has no colon.
    let mut ip = address.ip().to_string().replace(':', "_");
    if let SocketAddr::V6(address) = address
        && address.scope_id() > 0
    {
        let _ = write!(ip, "%{}", address.scope_id());
    }
    match address.port() {
        0 => format!("{KEPT}{}-{ip}-any{number}", used.word()),
        port => format!("{KEPT}{}-{ip}-{port}", used.word()),
    }
}

/// The name of the Unix socket at a path, with the numbers of its file: `kept-cache-1f.2a3-/run/socket`. The socket itself
/// cannot tell whether its file was removed or replaced. None: there is no socket, or its name would be too long.
pub(super) fn unix_name(used: Use, path: &Path) -> Option<String> {
    let file = fs::symlink_metadata(path).ok().filter(|file| file.file_type().is_socket())?;
    let mut name = format!("{KEPT}{}-{:x}.{:x}-", used.word(), file.dev(), file.ino());
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02x}");
        }
    }
    Some(name).filter(|name| name.len() <= NAME_MAX)
}

/// A socket that somebody else has opened.
pub(super) enum Opened {
    Listener(Listener),
    Udp(UdpSocket),
}

impl Opened {
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Opened> {
        let socket = Socket::from(descriptor);
        match (socket.local_addr()?.domain(), socket_type(&socket)?) {
            (Domain::IPV4 | Domain::IPV6, SocketType::DGRAM) => UdpSocket::from_std(socket.into()).map(Opened::Udp),
            (Domain::IPV4 | Domain::IPV6, SocketType::STREAM) if socket.is_listener()? => {
                Listener::from_tcp(socket.into()).map(Opened::Listener)
            }
            (Domain::UNIX, SocketType::STREAM) if socket.is_listener()? => {
                Listener::from_unix(OwnedFd::from(socket).into()).map(Opened::Listener)
            }
            _ => Err(io::Error::other("it neither listens for TCP or on a Unix socket, nor receives UDP")),
        }
    }
}

/// Opens sockets: takes them from the server before, or binds them.
pub(super) struct Opener<'a> {
    inherited: &'a mut Inherited,
    keeps: bool,
    /// Sockets of the server before were closed.
    has_closed: bool,
    /// With `keeps`: a second descriptor of every socket, to hand on.
    pub(super) kept: Vec<Descriptor>,
    /// The files of the Unix sockets.
    pub(super) files: SocketFiles,
}

impl<'a> Opener<'a> {
    /// `keeps`: the sockets will be handed on.
    pub(super) fn new(inherited: &'a mut Inherited, keeps: bool) -> Opener<'a> {
        Opener { inherited, keeps, has_closed: false, kept: Vec::new(), files: SocketFiles::default() }
    }

    /// Closes the sockets of the server before that are not wanted, here and in the store of the supervisor.
    pub(super) fn close_others(&mut self, wanted: &[String], supervisor: &Supervisor) {
        let others = self.inherited.take(|name| is_socket(name) && !wanted.iter().any(|wanted| wanted == name));
        let mut names: Vec<String> = others.into_iter().map(|other| other.name).collect();
        names.dedup();
        for name in &names {
            log::info!("{name} is not wanted any more");
            supervisor.forget(name);
        }
        if !names.is_empty() {
            // An address is free only after the supervisor has closed its socket too.
            supervisor.wait_until_read();
            self.has_closed = true;
        }
    }

    /// Notes a socket that is to be handed on under this name.
    pub(super) fn keep(&mut self, name: &str, socket: impl AsFd) -> io::Result<()> {
        if self.keeps {
            let fd = rustix::io::fcntl_dupfd_cloexec(socket, 0)?;
            self.kept.push(Descriptor { name: name.to_owned(), fd });
        }
        Ok(())
    }

    fn listener(&mut self, name: &str, backlog: i32) -> io::Result<Option<Listener>> {
        let Some(fd) = self.inherited.take_first(name) else { return Ok(None) };
        match Opened::new(fd)? {
            Opened::Listener(listener) => {
                listener.set_backlog(backlog)?;
                Ok(Some(listener))
            }
            Opened::Udp(_) => Err(io::Error::other(format!("{name} receives UDP"))),
        }
    }

    /// Binds a socket. Where an address is in use that may be one of the sockets that were closed just now, tries again for
    /// a moment: another process may hold the socket until it executes its program.
    fn bind<T>(&self, bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let begun = Instant::now();
        loop {
            match bind() {
                Err(error) if error.kind() == ErrorKind::AddrInUse && self.has_closed && begun.elapsed() < FREE_MAX => {
                    thread::sleep(FREE_MAX / 50);
                }
                bound => return bound,
            }
        }
    }

    /// Listens on an address, as [`Listener::tcp`] does.
    pub(super) fn tcp(&mut self, name: &str, address: SocketAddr, backlog: i32) -> io::Result<Listener> {
        let listener = match self.listener(name, backlog)? {
            Some(listener) => listener,
            None => self.bind(|| Listener::tcp(address, backlog))?,
        };
        self.keep(name, &listener)?;
        Ok(listener)
    }

    /// Listens on a Unix socket, as [`Listener::unix`] does.
    pub(super) fn unix(&mut self, used: Use, path: &Path, mask: u32, backlog: i32) -> io::Result<Listener> {
        let inherited = match unix_name(used, path) {
            Some(name) => self.listener(&name, backlog)?,
            None => None,
        };
        let listener = match inherited {
            Some(listener) => {
                fs::set_permissions(path, fs::Permissions::from_mode(mask))?;
                listener
            }
            None => Listener::unix(path, mask, backlog)?,
        };
        self.files.push(path);
        match unix_name(used, path) {
            Some(name) => self.keep(&name, &listener)?,
            None => log::info!("{} is not handed on to the next server: its name is too long", path.display()),
        }
        Ok(listener)
    }

    /// Binds `count` sockets of one address, so that each worker has its own. Port 0 stands for a free port.
    pub(super) fn udp(&mut self, name: &str, mut address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
        let mut sockets = Vec::new();
        while sockets.len() < count
            && let Some(fd) = self.inherited.take_first(name)
        {
            match Opened::new(fd)? {
                Opened::Udp(socket) => sockets.push(socket),
                Opened::Listener(_) => return Err(io::Error::other(format!("{name} receives no UDP"))),
            }
        }
        let is_inherited = !sockets.is_empty();
        match sockets.first() {
            Some(first) => address = first.address()?,
            // Bind it without sharing first, so that the server does not share a port with another server.
            None => address = self.bind(|| UdpSocket::bind(address, false))?.address()?,
        }
        if count > 1 {
            sockets.iter().try_for_each(UdpSocket::allow_others)?;
        }
        while sockets.len() < count {
            let socket = match (UdpSocket::bind(address, count > 1), sockets.first()) {
                (Ok(socket), _) => socket,
                // The server before had another user.
                (Err(_), Some(first)) if is_inherited => first.share()?,
                (Err(error), _) => return Err(error),
            };
            sockets.push(socket);
        }
        sockets.iter().try_for_each(|socket| self.keep(name, socket))?;
        Ok(sockets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv6Addr, SocketAddrV6};
    use std::os::unix::net::UnixListener;

    #[test]
    fn names_say_what_a_socket_is() {
        let scoped = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 11211, 0, 2);
        for (used, address, number, name) in [
            (Use::Cache, ([127, 0, 0, 1], 11211).into(), 0, "kept-cache-127.0.0.1-11211"),
            (Use::Cache, ([0, 0, 0, 0], 0).into(), 3, "kept-cache-0.0.0.0-any3"),
            (Use::Udp, (Ipv6Addr::LOCALHOST, 11211).into(), 1, "kept-udp-__1-11211"),
            (Use::Metrics, scoped.into(), 0, "kept-metrics-__1%2-11211"),
        ] {
            assert_eq!(socket_name(used, address, number), name);
            assert!(is_socket(name));
        }
        for name in ["kept-memory", "corecached.socket", "kept-", "kept-cached-1", "cache-1"] {
            assert!(!is_socket(name), "{name}");
        }
    }

    #[test]
    fn a_unix_socket_has_another_name_when_it_is_bound_anew() {
        let folder = std::env::temp_dir().join(format!("corecached open: {}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder");
        let path = folder.join("socket");
        assert_eq!(unix_name(Use::Cache, &path), None);
        let _one = UnixListener::bind(&path).expect("a socket in a folder of ours");
        let first = unix_name(Use::Cache, &path).expect("it is there");
        assert!(first.contains("corecached%20open%3a%20"), "{first}");
        assert!(first.is_ascii() && !first.contains(':') && is_socket(&first), "{first}");
        assert_ne!(unix_name(Use::Metrics, &path), Some(first.clone()));
        fs::rename(&path, folder.join("old")).expect("it is there");
        let _other = UnixListener::bind(&path).expect("a socket in a folder of ours");
        assert_ne!(unix_name(Use::Cache, &path), Some(first));
        fs::write(folder.join("file"), "").expect("a folder of ours");
        assert_eq!(unix_name(Use::Cache, &folder.join("file")), None, "it is no socket");
        fs::remove_dir_all(folder).expect("a folder of ours");
    }
}
