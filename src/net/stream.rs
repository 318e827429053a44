//! A connected, non-blocking socket: TCP, TCP under TLS, or Unix. A request by UDP is one as well: a worker treats it as a
//! connection whose client has sent everything.

use super::socket::{receive, send};
use super::tls::{TlsLimits, TlsStream};
use super::{peer, queues, udp};
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::server::ServerConfig;
use socket2::SockRef;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// A connection's socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP on IPv4 or IPv6.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TCP under TLS.
    Tls(Box<TlsStream>),
    /// One request by UDP: nothing more arrives, and replies are collected.
    Datagram(Box<udp::Exchange>),
    /// One end of a simulated network.
    #[cfg(test)]
    Simulated(super::simulated::Socket),
}

impl Stream {
    /// Puts a TCP connection under TLS; others stay as they are.
    ///
    /// # Errors
    /// When the configuration is not fit for a server.
    pub fn secure(self, config: Arc<ServerConfig>, limits: TlsLimits) -> io::Result<Stream> {
        match self {
            Stream::Tcp(socket) => Ok(Stream::Tls(Box::new(TlsStream::new(socket, config, limits)?))),
            stream @ (Stream::Unix(_) | Stream::Tls(_) | Stream::Datagram(_)) => Ok(stream),
            #[cfg(test)]
            stream @ Stream::Simulated(_) => Ok(stream),
        }
    }

    /// Reads the bytes that have arrived, as far as the buffer has room. 0: the peer has closed the connection.
    ///
    /// # Errors
    /// `WouldBlock` when no bytes have arrived.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => receive(stream, buffer),
            Stream::Unix(stream) => receive(stream, buffer),
            Stream::Tls(stream) => stream.read(buffer),
            Stream::Datagram(_) => Ok(0),
            #[cfg(test)]
            Stream::Simulated(socket) => socket.read(&mut [IoSliceMut::new(buffer)]),
        }
    }

    /// Whether the next read reports the end, though no event may announce it. A plain socket always has an event for its
    /// end.
    #[inline]
    pub fn has_ended(&self) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) | Stream::Datagram(_) => false,
            Stream::Tls(stream) => stream.has_ended(),
            #[cfg(test)]
            Stream::Simulated(_) => false,
        }
    }

    /// As `read`, into several buffers.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read_vectored(buffers),
            Stream::Unix(stream) => stream.read_vectored(buffers),
            Stream::Tls(stream) => stream.read_vectored(buffers),
            Stream::Datagram(_) => Ok(0),
            #[cfg(test)]
            Stream::Simulated(socket) => socket.read(buffers),
        }
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => send(stream, bytes),
            Stream::Unix(stream) => send(stream, bytes),
            Stream::Tls(stream) => stream.write(bytes),
            Stream::Datagram(exchange) => exchange.write(&[IoSlice::new(bytes)]),
            #[cfg(test)]
            Stream::Simulated(socket) => socket.write(&[IoSlice::new(bytes)]),
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
            Stream::Tls(stream) => stream.write_vectored(buffers),
            Stream::Datagram(exchange) => exchange.write(buffers),
            #[cfg(test)]
            Stream::Simulated(socket) => socket.write(buffers),
        }
    }

    /// Tells the peer that nothing more comes. The peer may still send. TLS and datagrams stay as they are.
    ///
    /// # Errors
    /// When the peer has broken the connection.
    pub fn end_writing(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(_) | Stream::Datagram(_) => Ok(()),
            #[cfg(test)]
            Stream::Simulated(_) => Ok(()),
        }
    }

    /// The descriptor, by which `stats conns` names the connection.
    pub fn fd(&self) -> RawFd {
        match self {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
            Stream::Tls(stream) => stream.socket().as_raw_fd(),
            Stream::Datagram(exchange) => exchange.socket.1,
            #[cfg(test)]
            Stream::Simulated(_) => -1,
        }
    }

    /// The CPU that handled the last incoming packet, if the system knows it.
    pub fn incoming_cpu(&self) -> Option<usize> {
        match self {
            Stream::Tcp(stream) => SockRef::from(stream).cpu_affinity().ok(),
            Stream::Tls(stream) => SockRef::from(stream.socket()).cpu_affinity().ok(),
            Stream::Unix(_) | Stream::Datagram(_) => None,
            #[cfg(test)]
            Stream::Simulated(_) => None,
        }
    }

    /// The receive queue of the incoming packets, if the system knows it. Loopback has no queues.
    pub fn incoming_queue(&self) -> Option<u32> {
        match self {
            Stream::Tcp(stream) => queues::from_socket(stream),
            Stream::Tls(stream) => queues::from_socket(stream.socket()),
            Stream::Unix(_) | Stream::Datagram(_) => None,
            #[cfg(test)]
            Stream::Simulated(_) => None,
        }
    }

    /// The peer's address of a TCP connection, as long as the system knows it, even after a reset.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        let socket = match self {
            Stream::Tcp(stream) => stream,
            Stream::Tls(stream) => stream.socket(),
            Stream::Unix(_) | Stream::Datagram(_) => return None,
            #[cfg(test)]
            Stream::Simulated(_) => return None,
        };
        socket.peer_addr().ok().or_else(|| peer::from_socket(socket, socket.local_addr().ok()?))
    }

    /// Whether it is a Unix socket.
    pub fn is_local(&self) -> bool {
        matches!(self, Stream::Unix(_))
    }

    /// The peer's address, as `stats conns` shows it: `tcp:…`, `tcp6:[…]:…` or `unix:…`.
    pub fn peer(&self) -> String {
        match self {
            Stream::Tcp(stream) => address_or_unknown(stream.peer_addr()),
            Stream::Unix(_) => "unix:unknown".to_owned(),
            Stream::Tls(stream) => address_or_unknown(stream.socket().peer_addr()),
            Stream::Datagram(exchange) => udp::format_address(exchange.peer),
            #[cfg(test)]
            Stream::Simulated(_) => "simulated".to_owned(),
        }
    }

    /// The local address, in the same form.
    pub fn local(&self) -> String {
        match self {
            Stream::Tcp(stream) => address_or_unknown(stream.local_addr()),
            Stream::Tls(stream) => address_or_unknown(stream.socket().local_addr()),
            Stream::Unix(stream) => {
                let address = stream.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(|| "unix:unknown".to_owned(), |path| format!("unix:{}", path.display()))
            }
            // The socket knows the address; the request does not.
            Stream::Datagram(_) => "udp:unknown".to_owned(),
            #[cfg(test)]
            Stream::Simulated(_) => "simulated".to_owned(),
        }
    }
}

fn address_or_unknown(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|_| "tcp:unknown".to_owned(), format_address)
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
            Stream::Tls(stream) => stream.socket_mut().register(registry, token, interests),
            Stream::Datagram(_) => Ok(()),
            #[cfg(test)]
            Stream::Simulated(socket) => socket.register(token),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.reregister(registry, token, interests),
            Stream::Unix(stream) => stream.reregister(registry, token, interests),
            Stream::Tls(stream) => stream.socket_mut().reregister(registry, token, interests),
            Stream::Datagram(_) => Ok(()),
            #[cfg(test)]
            Stream::Simulated(socket) => socket.register(token),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.deregister(registry),
            Stream::Unix(stream) => stream.deregister(registry),
            Stream::Tls(stream) => stream.socket_mut().deregister(registry),
            Stream::Datagram(_) => Ok(()),
            #[cfg(test)]
            Stream::Simulated(_) => Ok(()),
        }
    }
}
