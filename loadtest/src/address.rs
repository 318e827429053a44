//! Where the server is, and connections to it: TCP or unix, from as many source addresses as their number needs.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::wire::{self, Wire};

/// Long enough for a full listen queue, which makes the kernel repeat itself after 1, 3 and 7 seconds.
const CONNECT_SECONDS_MAX: Duration = Duration::from_secs(10);
const PORT_DEFAULT: u16 = 11211;

/// Connections from one source address: below the 28,000 ephemeral ports that Linux has by default.
const PER_SOURCE: usize = 25_000;

/// A server's address, known to have answered once.
#[derive(Clone, Debug)]
pub struct Address {
    text: String,
    socket: SockAddr,
    /// There if it is spoken to by TLS.
    tls: Option<Arc<ClientConfig>>,
}

impl Address {
    /// `host`, `host:port` or, with a slash in it, the path of a unix socket. Connects once: of a name's several
    /// addresses, the first where somebody listens is the server.
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

    /// The same, by TLS if there is a configuration for it.
    pub fn with_tls(self, tls: Option<Arc<ClientConfig>>) -> Address {
        Address { tls, ..self }
    }

    /// What goes over a connection to it.
    pub fn wire(&self, socket: Socket) -> Result<Wire, String> {
        let session = self.tls.as_ref().map(|config| wire::session(config, &self.text)).transpose()?;
        Ok(Wire::new(socket, session))
    }

    /// A connection, established within ten seconds and non-blocking from then on. `ordinal` counts the connections of
    /// this process, and chooses the source address where one has too few ports.
    pub fn connect(&self, ordinal: usize) -> io::Result<Socket> {
        let socket = self.socket(ordinal)?;
        socket.connect_timeout(&self.socket, CONNECT_SECONDS_MAX)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// A connection that is still being established: it becomes writable, or an error, later.
    pub fn connect_later(&self, ordinal: usize) -> io::Result<Socket> {
        let socket = self.socket_later(ordinal)?;
        self.begin(&socket)?;
        Ok(socket)
    }

    /// A socket that does not block, to be connected by `begin`.
    pub fn socket_later(&self, ordinal: usize) -> io::Result<Socket> {
        let socket = self.socket(ordinal)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Begins to connect it.
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

/// Makes room for `count` file descriptors, beyond the hard limit if the system lets us.
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
