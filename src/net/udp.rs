//! memcached's protocol over UDP: the socket, and the eight bytes before every datagram's payload.
//!
//! ```text
//! ┌────────────┬──────────┬──────────────┬──────────┬─────────┐
//! │ request id │ sequence │ datagrams in │ reserved │ payload │   u16 each, big endian; payload up to 1392 bytes
//! └────────────┴──────────┴──────────────┴──────────┴─────────┘
//! ```
//!
//! A request is one datagram, from its first command to its last. The server drops a datagram that claims to be one of
//! several, as memcached does. A reply may take several datagrams, each with the request's id.

use mio::event::Source;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Bytes before the payload.
pub const HEADER_LEN: usize = 8;
/// The largest datagram that is sent, header included: memcached's, below the 1500 bytes of Ethernet.
pub const DATAGRAM_MAX: usize = 1400;
/// The largest payload that is sent.
pub const PAYLOAD_MAX: usize = DATAGRAM_MAX - HEADER_LEN;

/// The id of the request in a datagram. None: the datagram is not a whole request.
pub fn request_id(datagram: &[u8]) -> Option<u16> {
    // As in memcached, the sequence number and the reserved bytes may be anything.
    match datagram {
        [high, low, _, _, 0, 1, _, _, _, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// The datagrams of one message: header and payload of each. None: the header cannot count so many datagrams.
pub fn datagrams(id: u16, message: &[u8]) -> Option<impl Iterator<Item = ([u8; HEADER_LEN], &[u8])>> {
    let total = u16::try_from(message.len().div_ceil(PAYLOAD_MAX)).ok()?;
    let numbered = message.chunks(PAYLOAD_MAX).zip(0u16..);
    Some(numbered.map(move |(payload, sequence)| {
        let mut header = [0; HEADER_LEN];
        header[0..2].copy_from_slice(&id.to_be_bytes());
        header[2..4].copy_from_slice(&sequence.to_be_bytes());
        header[4..6].copy_from_slice(&total.to_be_bytes());
        (header, payload)
    }))
}

/// Bytes of all datagrams of a message, headers included.
pub fn wire_len(message_len: usize) -> usize {
    message_len + message_len.div_ceil(PAYLOAD_MAX) * HEADER_LEN
}

/// A socket that receives requests.
#[derive(Debug)]
pub struct UdpSocket(mio::net::UdpSocket);

impl UdpSocket {
    /// Binds an address; port 0 stands for a free port. `shared`: other sockets bind the same address, and the system
    /// assigns each client to one of them for good.
    ///
    /// # Errors
    /// Those of the system.
    pub fn bind(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if shared {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(UdpSocket(mio::net::UdpSocket::from_std(socket.into())))
    }

    /// Takes over a socket that another process has bound.
    ///
    /// # Errors
    /// Those of the system.
    pub fn from_std(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
        socket.set_nonblocking(true)?;
        Ok(UdpSocket(mio::net::UdpSocket::from_std(socket)))
    }

    /// Lets other sockets bind the same address, if they belong to the same user and allow it as well.
    ///
    /// # Errors
    /// Those of the system.
    pub fn allow_others(&self) -> io::Result<()> {
        SockRef::from(&self.0).set_reuse_port(true)
    }

    /// Another handle of the same socket, for another worker: the first worker to ask receives a datagram.
    ///
    /// # Errors
    /// When the system has no descriptors.
    pub fn share(&self) -> io::Result<UdpSocket> {
        let socket = rustix::io::fcntl_dupfd_cloexec(&self.0, 0)?;
        Ok(UdpSocket(mio::net::UdpSocket::from_std(socket.into())))
    }

    /// Receives the next datagram, and returns its length and its sender.
    ///
    /// # Errors
    /// `WouldBlock` when no datagram waits; those of the system.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.recv_from(buffer)
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// `WouldBlock` when the socket has no room; those of the system.
    pub fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.0.send_to(datagram, to).map(|_| ())
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// Those of the system.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Marks the socket for packet filters (`SO_MARK`). The process needs a privilege for it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        SockRef::from(&self.0).set_mark(mark)
    }

    /// The descriptor, by which `stats conns` names the socket.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::fmt::Display for UdpSocket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.local_addr() {
            Ok(address) => formatter.write_str(&format_address(address)),
            Err(_) => formatter.write_str("udp:unknown"),
        }
    }
}

/// `udp:127.0.0.1:11211` or `udp6:[::1]:11211`.
pub fn format_address(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => format!("udp:{address}"),
        SocketAddr::V6(address) => format!("udp6:{address}"),
    }
}

impl Source for UdpSocket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.0.deregister(registry)
    }
}

/// One request that came in a datagram, and its replies. A worker treats it as a connection whose client has sent
/// everything. It collects the replies, because the first datagram already contains the number of datagrams.
#[derive(Debug)]
pub struct Exchange {
    /// The request's id.
    pub id: u16,
    /// The client.
    pub peer: SocketAddr,
    /// The index of the worker's socket that received the request, and the descriptor of that socket.
    pub socket: (usize, RawFd),
    /// The most bytes that all datagrams of the reply may have.
    pub reply_max: usize,
    /// The replies so far. Invariant: no more than `reply_max` bytes.
    pub replies: Vec<u8>,
    /// The replies exceeded `reply_max`.
    pub overflowed: bool,
    /// The worker has served all whole commands of the request.
    pub drained: bool,
}

impl Exchange {
    /// Appends a part of the replies.
    ///
    /// # Errors
    /// When the replies are longer than `reply_max`: the caller need not compute further replies.
    pub fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let count: usize = parts.iter().map(|part| part.len()).sum();
        if self.replies.len() + count > self.reply_max {
            self.overflowed = true;
            return Err(ErrorKind::FileTooLarge.into());
        }
        parts.iter().for_each(|part| self.replies.extend_from_slice(part));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_datagram_with_something_in_it() {
        for (datagram, id) in [
            (&b""[..], None),
            (b"abc", None),
            (b"\x12\x34\x00\x00\x00\x01\x00\x00", None),
            (b"\x12\x34\x00\x00\x00\x01\x00\x00x", Some(0x1234)),
            (b"\x12\x34\x00\x05\x00\x01\xff\xffx", Some(0x1234)),
            (b"\x12\x34\x00\x00\x00\x02\x00\x00x", None),
            (b"\x12\x34\x00\x00\x01\x01\x00\x00x", None),
            (b"\x12\x34\x00\x00\x00\x00\x00\x00x", None),
        ] {
            assert_eq!(request_id(datagram), id, "{}", datagram.escape_ascii());
        }
    }

    #[test]
    fn a_message_is_cut_into_datagrams_that_put_together_are_the_message() {
        for len in [1_usize, 1391, 1392, 1393, 2784, 2785, 100_000] {
            let message: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let cut: Vec<_> = datagrams(0xabcd, &message).expect("few enough").collect();
            assert_eq!(cut.len(), len.div_ceil(1392));
            for (at, (header, payload)) in cut.iter().enumerate() {
                let numbers: Vec<u16> = header.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
                assert_eq!(numbers, [0xabcd, at as u16, cut.len() as u16, 0]);
                assert!(header.len() + payload.len() == 1400 || at + 1 == cut.len(), "{len}");
            }
            let wire: usize = cut.iter().map(|(header, payload)| header.len() + payload.len()).sum();
            assert_eq!(wire, wire_len(len));
            assert_eq!(cut.iter().flat_map(|(_, payload)| payload.iter().copied()).collect::<Vec<u8>>(), message);
        }
        assert!(datagrams(1, &vec![0; 65_535 * 1392]).is_some());
        assert!(datagrams(1, &vec![0; 65_535 * 1392 + 1]).is_none(), "more than the header can count");
    }

    #[test]
    fn replies_are_collected_up_to_their_limit() {
        let mut exchange = Exchange {
            id: 1,
            peer: ([127, 0, 0, 1], 1).into(),
            socket: (0, 3),
            reply_max: 10,
            replies: Vec::new(),
            overflowed: false,
            drained: false,
        };
        assert_eq!(exchange.write(&[IoSlice::new(b"abcd"), IoSlice::new(b"ef")]).expect("there is room"), 6);
        assert_eq!(exchange.write(&[IoSlice::new(b"ghij")]).expect("there is room"), 4);
        assert!(!exchange.overflowed);
        assert!(exchange.write(&[IoSlice::new(b"k")]).is_err() && exchange.overflowed);
        assert_eq!(exchange.replies, b"abcdefghij");
    }
}
