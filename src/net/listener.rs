//! Listening sockets: bound with the options of memcached, non-blocking.

use super::stream::{Stream, format_address};
use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{fs, os};

/// A listening socket of either kind.
#[derive(Debug)]
pub enum Listener {
    /// TCP on IPv4 or IPv6.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// The files of Unix sockets that the server has bound. Dropping this value removes them.
#[derive(Debug, Default)]
pub struct SocketFiles(Vec<PathBuf>);

impl SocketFiles {
    /// Adds a file.
    pub fn push(&mut self, path: &Path) {
        self.0.push(path.to_owned());
    }

    /// Leaves the files where they are: another process goes on listening at these sockets.
    pub fn leave(&mut self) {
        self.0.clear();
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Err(error) = fs::remove_file(path) {
                log::warn!("{} could not be removed: {error}", path.display());
            }
        }
    }
}

impl Listener {
    /// Listens on an address; port 0 stands for a free port. An IPv6 address takes no IPv4 connections.
    ///
    /// # Errors
    /// Those of the system: in use, not permitted, no such address.
    pub fn tcp(address: SocketAddr, backlog: i32) -> io::Result<Listener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_keepalive(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(Listener::Tcp(TcpListener::from_std(socket.into())))
    }

    /// Listens on a Unix socket whose file gets the permissions `mask`. An old socket file is removed first; any other file
    /// is an error.
    ///
    /// # Errors
    /// Those of the system.
    pub fn unix(path: &Path, mask: u32, backlog: i32) -> io::Result<Listener> {
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mask))?;
        socket.listen(backlog)?;
        let listener = os::unix::net::UnixListener::from(os::fd::OwnedFd::from(socket));
        Ok(Listener::Unix(UnixListener::from_std(listener)))
    }

    /// Takes over a TCP socket that another process has bound and listens on.
    ///
    /// # Errors
    /// Those of the system.
    pub fn from_tcp(listener: std::net::TcpListener) -> io::Result<Listener> {
        listener.set_nonblocking(true)?;
        Ok(Listener::Tcp(TcpListener::from_std(listener)))
    }

    /// Takes over a Unix socket.
    ///
    /// # Errors
    /// Those of the system.
    pub fn from_unix(listener: os::unix::net::UnixListener) -> io::Result<Listener> {
        listener.set_nonblocking(true)?;
        Ok(Listener::Unix(UnixListener::from_std(listener)))
    }

    /// Sets the number of clients that may wait.
    ///
    /// # Errors
    /// Those of the system.
    pub fn set_backlog(&self, backlog: i32) -> io::Result<()> {
        SockRef::from(self).listen(backlog)
    }

    /// Marks the socket for packet filters (`SO_MARK`). The process needs a privilege for it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => SockRef::from(listener).set_mark(mark),
            Listener::Unix(_) => Ok(()),
        }
    }

    /// Accepts the next connection.
    ///
    /// # Errors
    /// `WouldBlock` when no connection waits; those of the system.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                // Linux inherits the listener's setting; other systems do not.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Listener::Unix(listener) => Ok(Stream::Unix(listener.accept()?.0)),
        }
    }

    /// Whether a connection may wait to be accepted. True if the system does not say.
    pub fn is_waited_at(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)], Some(&at_once)) != Ok(0)
    }

    /// The descriptor, by which `stats conns` names the listener.
    pub fn fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }

    /// The address of a TCP listener.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}

impl std::fmt::Display for Listener {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => formatter.write_str(&format_address(address)),
                Err(_) => formatter.write_str("tcp:unknown"),
            },
            Listener::Unix(listener) => match listener.local_addr().ok().as_ref().and_then(|it| it.as_pathname()) {
                Some(path) => write!(formatter, "unix:{}", path.display()),
                None => formatter.write_str("unix:unknown"),
            },
        }
    }
}

impl Source for Listener {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => listener.register(registry, token, interests),
            Listener::Unix(listener) => listener.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => listener.reregister(registry, token, interests),
            Listener::Unix(listener) => listener.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => listener.deregister(registry),
            Listener::Unix(listener) => listener.deregister(registry),
        }
    }
}
