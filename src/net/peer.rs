//! The peer's address of a TCP connection, even after a reset: `SO_PEERNAME` still works then, and `getpeername` does not.

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, libc, sockopt_impl};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

sockopt_impl!(
    /// `SO_PEERNAME` of an IPv4 socket
    PeerName4, GetOnly, libc::SOL_SOCKET, libc::SO_PEERNAME, libc::sockaddr_in
);
sockopt_impl!(
    /// `SO_PEERNAME` of an IPv6 socket
    PeerName6, GetOnly, libc::SOL_SOCKET, libc::SO_PEERNAME, libc::sockaddr_in6
);

/// The peer's address. `local` is the local address, which is of the same family.
pub(super) fn from_socket(socket: &impl AsFd, local: SocketAddr) -> Option<SocketAddr> {
    Some(match local {
        SocketAddr::V4(_) => {
            let name = getsockopt(socket, PeerName4).ok()?;
            (Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)), u16::from_be(name.sin_port)).into()
        }
        SocketAddr::V6(_) => {
            let name = getsockopt(socket, PeerName6).ok()?;
            (Ipv6Addr::from(name.sin6_addr.s6_addr), u16::from_be(name.sin6_port)).into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn who_reset_a_connection_is_known() {
        for host in ["127.0.0.1", "::1"] {
            let Ok(listener) = TcpListener::bind((host, 0)) else { continue };
            let address = listener.local_addr().expect("it is bound");
            let client = TcpStream::connect(address).expect("it listens");
            let expected = client.local_addr().expect("it is connected");
            let (mut stream, _) = listener.accept().expect("somebody waits");
            assert_eq!(from_socket(&stream, address), Some(expected));
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a socket of ours");
            drop(client);
            assert!(stream.read(&mut [0]).is_err());
            assert!(stream.peer_addr().is_err());
            assert_eq!(from_socket(&stream, address), Some(expected));
        }
    }
}
