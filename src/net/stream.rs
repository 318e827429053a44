//! A connected socket of either kind, non-blocking.

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// A connection's socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP on IPv4 or IPv6.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Reads what is there, up to the room in the buffer. 0: the other side has closed.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, _) = rustix::net::recv(self.as_fd(), buffer, RecvFlags::empty())?;
        Ok(count)
    }

    /// As `read`, into several buffers.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read_vectored(buffers),
            Stream::Unix(stream) => stream.read_vectored(buffers),
        }
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.as_fd(), bytes, SendFlags::NOSIGNAL)?)
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }

    /// As `write`, from several buffers.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(buffers),
            Stream::Unix(stream) => stream.write_vectored(buffers),
        }
    }

    /// Its descriptor: names it in `stats conns`.
    pub fn fd(&self) -> RawFd {
        match self {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        }
    }

    /// The CPU that handled the last packet that came in, if it is known.
    pub fn incoming_cpu(&self) -> Option<usize> {
        match self {
            Stream::Tcp(stream) => SockRef::from(stream).cpu_affinity().ok(),
            Stream::Unix(_) => None,
        }
    }

    /// Address of the other side, as `stats conns` shows it: `tcp:…`, `tcp6:[…]:…` or `unix:…`.
    pub fn peer(&self) -> String {
        match self {
            Stream::Tcp(stream) => stream.peer_addr().map_or_else(|_| "tcp:unknown".to_owned(), format_address),
            Stream::Unix(_) => "unix:unknown".to_owned(),
        }
    }

    /// Address of this side, in the same form.
    pub fn local(&self) -> String {
        match self {
            Stream::Tcp(stream) => stream.local_addr().map_or_else(|_| "tcp:unknown".to_owned(), format_address),
            Stream::Unix(stream) => {
                let address = stream.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(|| "unix:unknown".to_owned(), |path| format!("unix:{}", path.display()))
            }
        }
    }
}

/// `tcp:127.0.0.1:11211` or `tcp6:[::1]:11211`.
pub fn format_address(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => format!("tcp:{address}"),
        SocketAddr::V6(address) => format!("tcp6:{address}"),
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, interests),
            Stream::Unix(stream) => stream.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.reregister(registry, token, interests),
            Stream::Unix(stream) => stream.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.deregister(registry),
            Stream::Unix(stream) => stream.deregister(registry),
        }
    }
}
