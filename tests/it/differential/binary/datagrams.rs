//! Random packets over UDP, each in a datagram of its own.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::compare::CasPairs;
use super::compare;
use super::frame::Request;
use super::generate::{self, Piece};
use crate::client::shown;
use crate::peers;
use crate::server::{Program, Server};

/// Number of datagrams of a test.
const DATAGRAMS: usize = 2_000;

/// Bytes before the payload of a datagram.
const HEADER_LEN: usize = 8;

#[test]
fn binary_in_datagrams() {
    check(Program::Newest, "3");
}

#[test]
fn binary_in_datagrams_with_1_6_18() {
    check(Program::Memcached, "1");
}

/// A client of one server. One worker of the server handles all its requests, so they stay in order.
struct Asker {
    socket: UdpSocket,
    number: u16,
    _server: Server,
}

impl Asker {
    fn new(program: Program, workers: &str) -> Asker {
        let server = Server::on_tcp(program, &["-U", "-1", "-t", workers, "-m", "256", "-o", "no_lru_maintainer"]);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time above zero");
        socket.connect(server.udp()).expect("a socket of UDP has a peer");
        Asker { socket, number: 0, _server: server }
    }

    fn send(&mut self, request: &[u8]) -> [u8; 2] {
        self.number = self.number.wrapping_add(1);
        let number = self.number.to_be_bytes();
        self.socket.send(&[&number[..], &[0, 0, 0, 1, 0, 0], request].concat()).expect("it can be sent");
        number
    }

    /// The headers of the reply's datagrams, without their numbers, and their payload.
    ///
    /// The client also sends a command that every shard must answer, and its reply marks the end. The reply to another
    /// command may overtake a reply that waits for the shard of its key.
    fn ask(&mut self, request: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let number = self.send(request);
        let end = [&self.send(b"slabs automove 0\r\n")[..], b"\0\0\0\x01\0\0OK\r\n"].concat();
        let (mut headers, mut payload) = (Vec::new(), Vec::new());
        let mut buffer = [0; 65536];
        loop {
            let count = self.socket.recv(&mut buffer).expect("a datagram");
            let datagram = &buffer[..count];
            if datagram == end {
                return (headers, payload);
            }
            assert_eq!(datagram[..2], number, "a reply to something else: {}", shown(datagram));
            // memcached sends an empty datagram where it has no reply.
            if count > HEADER_LEN {
                headers.push(datagram[2..HEADER_LEN].to_vec());
            }
            payload.extend_from_slice(&datagram[HEADER_LEN..]);
        }
    }
}

fn check(oracle: Program, workers: &str) {
    if !peers::has(oracle) {
        return;
    }
    let (mut memcached, mut corecached) = (Asker::new(oracle, "1"), Asker::new(Program::Corecached, workers));
    let mut pairs = CasPairs::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs() as i64;
    for (number, piece) in generate::datagrams(8_000_001, DATAGRAMS).iter().enumerate() {
        let Piece::Packet(fields) = piece else { unreachable!("packets were asked for") };
        let request = |cas: &dyn Fn(&[u8]) -> Option<u64>| generate::resolve(fields, now, cas);
        let asked = request(&|key| pairs.last(key).map(|pair| pair.1));
        let (their_headers, theirs) = memcached.ask(&asked);
        let (our_headers, ours) = corecached.ask(&request(&|key| pairs.last(key).map(|pair| pair.0)));
        // corecached must report its own version.
        let theirs = if oracle == Program::Memcached && asked[1] == 0x0b {
            [theirs.strip_suffix(b"1.6.18").unwrap_or(&theirs), b"1.6.45"].concat()
        } else {
            theirs
        };
        let asked = Request { bytes: asked, is_cut: false };
        let agree =
            their_headers == our_headers && compare::matching(&asked, &theirs, &ours, &mut pairs) == Some(ours.len());
        assert!(
            agree,
            "{oracle:?}, datagram {number}: asked {}, expected {their_headers:?} {}, got {our_headers:?} {}",
            asked.shown(),
            shown(&theirs),
            shown(&ours)
        );
    }
}
