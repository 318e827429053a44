//! Addresses of servers, and connections to them: TCP or unix sockets, from as many source addresses as needed.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::wire::{self, Wire};

/// While a listen queue is full, the kernel tries again after 1, 3 and 7 seconds; this is long enough for that.
const CONNECT_SECONDS_MAX: Duration = Duration::from_secs(10);
const PORT_DEFAULT: u16 = 11211;

/// Connections from one source address: below the 28,000 ephemeral ports that Linux has by default.
const PER_SOURCE: usize = 25_000;

/// The address of a server. `find` has connected to it once.
#[derive(Clone, Debug)]
pub struct Address {
    text: String,
    socket: SockAddr,
    /// The client speaks TLS if this is set.
    tls: Option<Arc<ClientConfig>>,
}

impl Address {
    /// Parses `host`, `host:port`, or the path of a unix socket, which has a slash in it. Connects once: if a name has
    /// several addresses, takes the first that accepts a connection.
    pub fn find(text: &str) -> Result<Address, String> {
        let fail = |error: &dyn fmt::Display| format!("cannot connect to {text}: {error}");
        let candidates = if text.contains('/') {
            vec![SockAddr::unix(text).map_err(|error| fail(&error))?]
        } else {
            let bare_v6 = text.parse().ok().map(|ip| SocketAddr::new(ip, PORT_DEFAULT));
            let resolved: io::Result<Vec<SocketAddr>> = match bare_v6 {
                Some(address) => Ok(vec![address]),
                None if text.contains(':') => text.to_socket_addrs().map(Iterator::collect),
                None => (text, PORT_DEFAULT).to_socket_addrs().map(Iterator::collect),
            };
            resolved.map_err(|error| fail(&error))?.into_iter().map(SockAddr::from).collect()
        };
        let mut reason = fail(&"the name has no address");
        for socket in candidates {
            let address = Address { text: text.into(), socket, tls: None };
            match address.connect(0) {
                Ok(_) => return Ok(address),
                Err(error) => reason = fail(&error),
            }
        }
        Err(reason)
    }

    /// Makes connections speak TLS with this configuration, or no TLS if it is `None`.
    pub fn with_tls(self, tls: Option<Arc<ClientConfig>>) -> Address {
        Address { tls, ..self }
    }

    /// Wraps a connected socket, with a TLS session if the address has a configuration for it.
    pub fn wire(&self, socket: Socket) -> Result<Wire, String> {
        let session = self.tls.as_ref().map(|config| wire::session(config, &self.text)).transpose()?;
        Ok(Wire::new(socket, session))
    }

    /// Connects within ten seconds; the socket is non-blocking from then on. `ordinal` counts the connections of this
    /// process. It selects the source address, because one address has too few ports.
    pub fn connect(&self, ordinal: usize) -> io::Result<Socket> {
        let socket = self.socket(ordinal)?;
        socket.connect_timeout(&self.socket, CONNECT_SECONDS_MAX)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Begins to connect. The socket becomes writable later, or reports an error.
    pub fn connect_later(&self, ordinal: usize) -> io::Result<Socket> {
        let socket = self.socket_later(ordinal)?;
        self.begin(&socket)?;
        Ok(socket)
    }

    /// A non-blocking socket, to be connected by `begin`.
    pub fn socket_later(&self, ordinal: usize) -> io::Result<Socket> {
        let socket = self.socket(ordinal)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Begins to connect a socket that `socket_later` has made.
    pub fn begin(&self, socket: &Socket) -> io::Result<()> {
        match socket.connect(&self.socket) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(()),
        }
    }

    fn socket(&self, ordinal: usize) -> io::Result<Socket> {
        let socket = Socket::new(self.socket.domain(), Type::STREAM, None)?;
        if self.socket.domain() != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
        }
        let source = ordinal / PER_SOURCE;
        if source > 0 && self.socket.as_socket_ipv4().is_some_and(|address| address.ip().is_loopback()) {
            let ip = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + source as u32);
            socket.bind(&SocketAddr::from((ip, 0)).into())?;
        }
        Ok(socket)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Raises the limit of file descriptors to `count`, beyond the hard limit if the system permits it.
pub fn allow_files(count: usize) -> Result<(), String> {
    let needed = count as libc::rlim_t;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit to write to.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 || limit.rlim_cur >= needed {
        return Ok(());
    }
    let raised = libc::rlimit { rlim_cur: needed, rlim_max: limit.rlim_max.max(needed) };
    // SAFETY: `raised` is a valid rlimit to read from.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(format!("{needed} open files are needed and {} allowed: {error} (see ulimit -Hn)", limit.rlim_max))
}
