//! What the server binds, and how `-l` names it.

use crate::exit::{EXIT_SYSTEM, Exit};
use crate::net::certificates::Verify;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// What the prefixes of an entry of `-l` say about a TCP listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenRules {
    /// `notls:`, `btls:` or `mtls:`: no TLS, or whether clients must show certificates. None: `-Z` and `-o` decide.
    pub tls: Option<Option<Verify>>,
    /// `proto[…]:`: the protocol of its clients. None: `-B` decides.
    pub protocol: Option<BindingProtocol>,
    /// `tag[…]:`: a name for the log. memcached uses it for its proxy.
    pub tag: Option<String>,
}

/// Something to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// 127.0.0.1 and, with IPv6, ::1, when the command line names no address. One of the two is enough.
    Loopback {
        /// 0: ephemeral.
        port: u16,
    },
    /// `*`: all addresses, 0.0.0.0 and ::. One of the two is enough.
    Any {
        /// 0: ephemeral.
        port: u16,
    },
    /// An address, or every address of a name.
    Host {
        /// Without brackets.
        host: String,
        /// 0: ephemeral.
        port: u16,
    },
    /// A Unix socket. The server removes a stale socket at the path first.
    Unix {
        /// Path of the socket.
        path: PathBuf,
        /// Permissions of the socket. Default 0o700.
        mask: u32,
    },
}

impl Listen {
    /// One entry of `-l`: `host`, `host:port`, `[v6]`, `[v6]:port`, a bare IPv6 address, or `*` as the host.
    pub(super) fn from_entry(entry: &str, port: u16) -> Result<Listen, Exit> {
        let (host, own_port) = if let Some(inner) = entry.strip_prefix('[') {
            match inner.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, rest)) if rest.starts_with(':') => (host, Some(&rest[1..])),
                _ => return Err(Exit::failure(EXIT_SYSTEM, format!("Invalid IPV6 address: \"{entry}\""))),
            }
        } else {
            match entry.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                // None: a name or an address. Several: IPv6 without brackets, where no port can be told from the rest.
                Some(_) | None => (entry, None),
            }
        };
        if host.is_empty() {
            return Err(Exit::failure(EXIT_SYSTEM, format!("Invalid address: \"{entry}\" (* listens on all)")));
        }
        let port = match own_port {
            None => port,
            Some("-1") => 0,
            Some(text) => text
                .parse()
                .map_err(|_| Exit::failure(EXIT_SYSTEM, format!("Invalid port number: \"{text}\" (-l {entry})")))?,
        };
        Ok(if host == "*" { Listen::Any { port } } else { Listen::Host { host: host.into(), port } })
    }

    /// The addresses to bind. None for a Unix socket. It asks the resolver for a name, so it may block.
    ///
    /// The caller must bind IPv6 sockets for IPv6 only, because `Any` and `Loopback` give both kinds with one port.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Listen::Loopback { port } => {
                Ok(vec![(Ipv4Addr::LOCALHOST, *port).into(), (Ipv6Addr::LOCALHOST, *port).into()])
            }
            Listen::Any { port } => {
                Ok(vec![(Ipv4Addr::UNSPECIFIED, *port).into(), (Ipv6Addr::UNSPECIFIED, *port).into()])
            }
            Listen::Host { host, port } => {
                let mut addresses = Vec::new();
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                Ok(addresses)
            }
            Listen::Unix { .. } => Ok(Vec::new()),
        }
    }
}

/// As an operator writes it: `127.0.0.1:11211`, `[::1]:11211`, `*:11211`, `/run/memcached.sock`.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Loopback { port } => write!(f, "loopback:{port}"),
            Listen::Any { port } => write!(f, "*:{port}"),
            Listen::Host { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Listen::Host { host, port } => write!(f, "{host}:{port}"),
            Listen::Unix { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// `-B`: the protocols that a connection may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingProtocol {
    /// Either, as a connection's first byte says.
    Auto,
    /// Text and meta.
    Ascii,
    /// Binary.
    Binary,
}

/// memcached's word for it in `stats settings`.
impl fmt::Display for BindingProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BindingProtocol::Auto => "auto-negotiate",
            BindingProtocol::Ascii => "ascii",
            BindingProtocol::Binary => "binary",
        })
    }
}

/// `-l` as `stats settings` shows it: all that were given, each once.
pub(super) fn interfaces(given: &[String]) -> Option<String> {
    let mut texts: Vec<&str> = Vec::new();
    for text in given.iter().map(|text| text.trim_ascii_start()) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if given.is_empty() { None } else { Some(texts.join(",")) }
}
