//! UDP: the eight bytes before each datagram, replies of many datagrams, and replies that the server withholds.
//!
//! The requests are data. corecached with one worker, corecached with three workers, and memcached must reply with the
//! same datagrams, headers included.

mod inherited;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::client::shown;
use crate::peers;
use crate::server::{Program, Server};

/// A datagram that takes longer than this counts as missing.
const PATIENCE: Duration = Duration::from_secs(60);
const FLAGS: &[&str] = &["-U", "-1"];

/// A UDP client at one address.
struct Asker {
    socket: UdpSocket,
    server: SocketAddr,
    id: u16,
}

impl Asker {
    fn new(server: SocketAddr) -> Asker {
        Asker::at((Ipv4Addr::LOCALHOST, 0).into(), server)
    }

    fn at(own: SocketAddr, server: SocketAddr) -> Asker {
        let socket = UdpSocket::bind(own).expect("a free port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        Asker { socket, server, id: 0x1200 }
    }

    fn send_raw(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.server).expect("it can be sent");
    }

    /// Sends a request with a new id.
    fn send(&mut self, request: &[u8]) {
        self.id += 1;
        self.send_raw(&[&self.id.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0], request].concat());
    }

    fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65536];
        let count = self.socket.recv(&mut buffer).expect("a datagram");
        buffer.truncate(count);
        buffer
    }

    /// The datagrams of the reply to a request, without its id. It waits for the expected number, and adds all that
    /// come besides.
    fn ask(&mut self, request: &[u8], expected: usize) -> Vec<Vec<u8>> {
        self.send(request);
        let id = self.id;
        let mut datagrams: Vec<Vec<u8>> = (0..expected).map(|_| self.receive()).collect();
        datagrams.extend(self.received_until_now());
        for datagram in &mut datagrams {
            assert_eq!(datagram[..2], id.to_be_bytes(), "{}", shown(datagram));
            datagram.drain(..2);
        }
        datagrams
    }

    /// All datagrams before the reply to another request, which the server answers at once.
    fn received_until_now(&mut self) -> Vec<Vec<u8>> {
        self.send(b"mn\r\n");
        let mark = [&self.id.to_be_bytes()[..], b"\0\0\0\x01\0\0MN\r\n"].concat();
        let mut datagrams = Vec::new();
        loop {
            let datagram = self.receive();
            if datagram == mark {
                return datagrams;
            }
            datagrams.push(datagram);
        }
    }
}

/// A message in one datagram, without its id.
fn whole(message: &str) -> Vec<u8> {
    [b"\0\0\0\x01\0\0", message.as_bytes()].concat()
}

/// Successive requests, and the message of each datagram of the replies.
const CONVERSATION: &[(&str, &[&str])] = &[
    ("get a\r\n", &["END\r\n"]),
    ("set a 5 0 1\r\nx\r\n", &["STORED\r\n"]),
    ("get a\r\n", &["VALUE a 5 1\r\nx\r\nEND\r\n"]),
    ("set b 0 0 2 noreply\r\nyy\r\nget b\r\n", &["VALUE b 0 2\r\nyy\r\nEND\r\n"]),
    ("set b 0 0 2 noreply\r\nyy\r\n", &[]),
    ("get a b\r\n", &["VALUE a 5 1\r\nx\r\n", "VALUE b 0 2\r\nyy\r\nEND\r\n"]),
    ("get a\r\nget b\r\n", &["VALUE a 5 1\r\nx\r\nEND\r\n", "VALUE b 0 2\r\nyy\r\nEND\r\n"]),
    ("mg a v f\r\nmg nothing v\r\nmn\r\n", &["VA 1 f5\r\nx\r\n", "EN\r\n", "MN\r\n"]),
    ("mg a v q\r\nmg nothing v q\r\nmn\r\n", &["VA 1\r\nx\r\n", "MN\r\n"]),
    ("ms m 3 T0\r\nabc\r\nms n\r\n", &["HD\r\n", "CLIENT_ERROR bad command line format\r\n"]),
    ("add a 0 0 1\r\nz\r\nreplace nothing 0 0 1\r\nz\r\n", &["NOT_STORED\r\n", "NOT_STORED\r\n"]),
    ("append b 0 0 1\r\nz\r\nget b\r\n", &["STORED\r\n", "VALUE b 0 3\r\nyyz\r\nEND\r\n"]),
    ("set n 0 0 1\r\n5\r\nincr n 3\r\ndecr n 100\r\n", &["STORED\r\n", "8\r\n", "0\r\n"]),
    ("incr a 1\r\n", &["CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"]),
    ("touch a 0\r\ngat 0 a\r\n", &["TOUCHED\r\n", "VALUE a 5 1\r\nx\r\nEND\r\n"]),
    ("delete m\r\ndelete m\r\n", &["DELETED\r\n", "NOT_FOUND\r\n"]),
    ("nosuch\r\nnosuch\r\n", &["ERROR\r\n", "ERROR\r\n"]),
    (
        "set e 0 0 1\r\nabcde\r\nget a\r\n",
        &["CLIENT_ERROR bad data chunk\r\n", "ERROR\r\n", "VALUE a 5 1\r\nx\r\nEND\r\n"],
    ),
    ("mg a v\nmn \n", &["VA 1\r\nx\r\n", "MN\r\n"]),
    ("verbosity 0\r\nverbosity 0 noreply\r\n", &["OK\r\n"]),
    ("stats detail dump\r\nstats reset\r\n", &["END\r\n", "RESET\r\n"]),
    ("set t 0 0 11\r\nEND\r\nSTAT a\r\nget t\r\n", &["STORED\r\n", "VALUE t 0 11\r\nEND\r\nSTAT a\r\nEND\r\n"]),
    // Half a line is no request. It is not the first half of the next request either.
    ("get a", &[]),
    ("get b\r\nget ", &["VALUE b 0 3\r\nyyz\r\nEND\r\n"]),
    ("get a\r\n", &["VALUE a 5 1\r\nx\r\nEND\r\n"]),
    ("flush_all\r\nget a\r\n", &["OK\r\n", "END\r\n"]),
];

#[test]
fn a_conversation_in_datagrams() {
    let mut asked = vec![(Program::Corecached, "1"), (Program::Corecached, "3")];
    for memcached in [Program::Memcached, Program::Newest] {
        if peers::has(memcached) {
            asked.extend([(memcached, "1"), (memcached, "3")]);
        }
    }
    for (program, workers) in asked {
        let server = Server::on_tcp(program, &[FLAGS, &["-t", workers, "-m", "256"]].concat());
        let mut asker = Asker::new(server.udp());
        for (request, messages) in CONVERSATION {
            let expected: Vec<Vec<u8>> = messages.iter().map(|message| whole(message)).collect();
            let got = asker.ask(request.as_bytes(), expected.len());
            assert!(got == expected, "{program:?}, {workers} workers: to {request:?} came {:?}", texts(&got));
        }
    }
}

fn texts(datagrams: &[Vec<u8>]) -> Vec<String> {
    datagrams.iter().map(|datagram| shown(datagram)).collect()
}

#[test]
fn packets_in_datagrams() {
    let packet = |opcode: u8, key: &str, extras: &[u8], value: &str| {
        let body_len = (key.len() + extras.len() + value.len()) as u32;
        let mut packet = vec![0x80, opcode];
        packet.extend((key.len() as u16).to_be_bytes());
        packet.extend([extras.len() as u8, 0, 0, 0]);
        packet.extend(body_len.to_be_bytes());
        packet.extend([7; 4]);
        packet.extend([0; 8]);
        [&packet, extras, key.as_bytes(), value.as_bytes()].concat()
    };
    let (get, set, noop, getkq, quit) = (0, 1, 10, 13, 7);
    let requests = [
        packet(noop, "", &[], ""),
        packet(set, "k", &[0; 8], "v"),
        [
            packet(get, "k", &[], ""),
            packet(getkq, "k", &[], ""),
            packet(getkq, "no", &[], ""),
            packet(noop, "", &[], ""),
        ]
        .concat(),
        packet(get, "no", &[], ""),
        packet(set, "big", &[0; 8], &"v".repeat(5000)),
        packet(get, "big", &[], ""),
        packet(quit, "", &[], ""),
        packet(noop, "", &[], "")[..20].to_vec(),
    ];
    let expected = [1, 1, 3, 1, 1, 4, 1, 0];
    let ask = |program: Program, workers: &str| {
        let server = Server::on_tcp(program, &[FLAGS, &["-t", workers, "-m", "256"]].concat());
        let mut asker = Asker::new(server.udp());
        let mut replies = Vec::new();
        for (request, expected) in requests.iter().zip(expected) {
            let mut got = asker.ask(request, expected);
            assert_eq!(got.len(), expected, "{program:?}: {} brought {:?}", shown(request), texts(&got));
            // The CAS value differs from server to server.
            got.iter_mut().filter(|it| it.len() >= 30 && it[6] == 0x81).for_each(|it| it[22..30].fill(0));
            replies.push(texts(&got));
        }
        replies
    };
    let ours = ask(Program::Corecached, "1");
    assert_eq!(ours, ask(Program::Corecached, "3"));
    for memcached in [Program::Memcached, Program::Newest] {
        if peers::has(memcached) {
            assert_eq!(ours, ask(memcached, "1"));
        }
    }
    // The packets of one reply with statistics are one message in several datagrams.
    let server = Server::corecached_tcp(&[FLAGS, &["-t", "1"]].concat());
    let mut asker = Asker::new(server.udp());
    let statistics = asker.ask(&packet(0x10, "", &[], ""), 3);
    assert!(
        statistics.len() == 3 && statistics[0][..6] == [0, 0, 0, 3, 0, 0],
        "all packets of a statistic are one message"
    );
}

#[test]
fn where_memcached_sends_empty_datagrams_we_send_none() {
    // For a missing key that is not the last one, memcached sends an empty datagram or none. For `quit` it sends an
    // empty one. These datagrams say that the message has 0 datagrams. If the last key is missing, memcached sends END
    // in a datagram of its own.
    let server = Server::corecached_tcp(FLAGS);
    let mut asker = Asker::new(server.udp());
    asker.ask(b"set a 0 0 1\r\nx\r\n", 1);
    for (request, messages) in [
        ("get a nothing\r\n", &["VALUE a 0 1\r\nx\r\nEND\r\n"][..]),
        ("get nothing a\r\n", &["VALUE a 0 1\r\nx\r\nEND\r\n"]),
        ("get nothing nothing\r\n", &["END\r\n"]),
        ("quit\r\n", &[]),
        // The server ignores requests after `quit`, but it serves the next datagram.
        ("get a\r\nquit\r\nget a\r\n", &["VALUE a 0 1\r\nx\r\nEND\r\n"]),
        ("get a\r\n", &["VALUE a 0 1\r\nx\r\nEND\r\n"]),
    ] {
        let expected: Vec<Vec<u8>> = messages.iter().map(|message| whole(message)).collect();
        assert_eq!(texts(&asker.ask(request.as_bytes(), expected.len())), texts(&expected), "{request:?}");
    }
}

#[test]
fn long_replies_are_many_datagrams() {
    let mut programs = vec![(Program::Corecached, "1"), (Program::Corecached, "3")];
    if peers::has_memcached() {
        programs.push((Program::Memcached, "1"));
    }
    for (program, workers) in programs {
        let server = Server::on_tcp(program, &[FLAGS, &["-t", workers, "-m", "256"]].concat());
        let mut client = server.client();
        let mut asker = Asker::new(server.udp());
        // The first lengths are around the end of the first datagram, and the last ones are long. The header line has
        // 14 to 19 bytes.
        for len in [1371, 1372, 1373, 1374, 2764, 9000, 102_400] {
            let value: String = (0..len).map(|at: usize| char::from(b'a' + (at / 7 % 26) as u8)).collect();
            assert_eq!(client.ask(&format!("set v 0 0 {len}\r\n{value}")), "STORED");
            let message = format!("VALUE v 0 {len}\r\n{value}\r\nEND\r\n");
            let parts: Vec<&[u8]> = message.as_bytes().chunks(1392).collect();
            let total = parts.len() as u16;
            // The test sends one request at a time and reads its reply at once, so the receiver's buffer holds it.
            asker.send(b"get v\r\n");
            for (sequence, part) in (0u16..).zip(&parts) {
                let numbers = [asker.id, sequence, total, 0].map(u16::to_be_bytes).concat();
                let datagram = asker.receive();
                assert!(datagram == [&numbers, *part].concat(), "{program:?} {len}, {sequence}: {}", shown(&datagram));
            }
        }
        let statistics = asker.ask(b"stats\r\n", 2);
        assert!(statistics.len() == 2 && statistics[0].len() == 1398, "{:?}", texts(&statistics));
        assert!(statistics[1].ends_with(b"\r\nEND\r\n"));
    }
}

#[test]
fn long_requests_are_taken_as_long_as_they_are_one_datagram() {
    for workers in ["1", "3"] {
        let server = Server::corecached_tcp(&[FLAGS, &["-t", workers, "-m", "256"]].concat());
        let mut asker = Asker::new(server.udp());
        let value = "y".repeat(60_000);
        assert_eq!(asker.ask(format!("set y 0 0 60000\r\n{value}\r\n").as_bytes(), 1), [whole("STORED\r\n")]);
        let mut client = server.client();
        client.send("get y\r\n");
        client.expect(format!("VALUE y 0 60000\r\n{value}\r\nEND\r\n"));
        // A request cannot continue in the next datagram. The server reports that, and reads the next datagram from its
        // beginning.
        for (request, reply) in [
            ("set f 0 0 10\r\nabc".to_owned(), "CLIENT_ERROR bad data chunk\r\n"),
            (format!("set f 0 0 100000\r\n{value}"), "CLIENT_ERROR bad data chunk\r\n"),
            (format!("set f 0 0 2000000\r\n{value}"), "SERVER_ERROR object too large for cache\r\n"),
            ("get f\r\n".to_owned(), "END\r\n"),
        ] {
            assert_eq!(texts(&asker.ask(request.as_bytes(), 1)), texts(&[whole(reply)]), "{workers} workers");
        }
        // One datagram asks for a hundred keys of all shards. The receiver's buffer holds that many replies.
        let keys: Vec<String> = (0..100).map(|at| format!("key{at}")).collect();
        for key in &keys {
            client.send(format!("set {key} 0 0 1 noreply\r\nx\r\n"));
        }
        assert_eq!(client.ask("mn"), "MN");
        let replies = asker.ask(format!("get {}\r\n", keys.join(" ")).as_bytes(), 100);
        assert_eq!(replies.len(), 100);
        assert!(
            keys.iter().zip(&replies).all(|(key, reply)| reply[6..].starts_with(format!("VALUE {key} ").as_bytes()))
        );
    }
}

#[test]
fn what_is_no_request_is_not_answered() {
    for program in [Program::Corecached, Program::Memcached, Program::Newest] {
        if !peers::has(program) {
            continue;
        }
        let server = Server::on_tcp(program, &[FLAGS, &["-t", "1"]].concat());
        let mut asker = Asker::new(server.udp());
        let frames: &[&[u8]] = &[
            b"",
            b"a",
            b"abcdefg",
            b"get a\r\n",
            b"\x77\x77\0\0\0\x01\0\0",
            b"\x77\x77\0\0\0\x02\0\0mn\r\n",
            b"\x77\x77\0\0\0\0\0\0mn\r\n",
            b"\x77\x77\0\0\x01\x01\0\0mn\r\n",
        ];
        for frame in frames {
            asker.send_raw(frame);
        }
        assert_eq!(texts(&asker.received_until_now()), [""; 0], "{program:?}");
        // Neither memcached nor corecached reads these fields.
        asker.send_raw(b"\x77\x77\0\x05\0\x01\xff\xffversion\r\n");
        let replies = asker.received_until_now();
        assert!(
            replies.len() == 1 && replies[0].starts_with(b"\x77\x77\0\0\0\x01\0\0VERSION "),
            "{:?}",
            texts(&replies)
        );
        if program == Program::Corecached {
            let malformed: Vec<String> = server.client().ask_list("stats udp");
            // The empty datagram counts as malformed too.
            assert!(malformed.contains(&format!("STAT udp_malformed {}", frames.len())), "{malformed:?}");
        }
    }
}

#[test]
fn random_datagrams_do_no_harm() {
    let mut server = Server::corecached_tcp(&[FLAGS, &["-t", "3", "-m", "256"]].concat());
    let mut asker = Asker::new(server.udp());
    let words = [
        "get ",
        "set ",
        "a",
        " ",
        "\r\n",
        "0 0 5\r\n",
        "mg ",
        "ms ",
        "stats",
        "\u{80}",
        "\0\0\0\0",
        "99999999",
        "VALUE",
        "mn\r\n",
        "gat 0 ",
        "watch",
        "lru_crawler metadump all\r\n",
        "flush_all",
        " noreply",
        "incr ",
        "quit\r\n",
        "S100 ",
        "b",
        "k v t",
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..3000 {
        if round % 20 == 0 {
            // The test reads replies so that no buffer overflows.
            asker.received_until_now();
        }
        let mut request = Vec::new();
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        for _ in 0..next() % 12 {
            request.extend_from_slice(words[next() % words.len()].as_bytes());
        }
        asker.send(&request);
    }
    server.assert_alive();
    assert_eq!(Asker::new(server.udp()).ask(b"get zzz\r\n", 1), [whole("END\r\n")]);
}

/// An address of this machine that is not the loopback. The server treats a client at this address as a stranger.
fn outer_address() -> Option<IpAddr> {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // The probe sends nothing. The system only reports the address that it would send from.
    probe.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = probe.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn a_stranger_is_sent_no_more_than_it_has_sent() {
    let Some(address) = outer_address() else {
        return peers::say_skipped("this machine has no address but loopback");
    };
    let listen = format!("127.0.0.1,{address}");
    for workers in ["1", "3"] {
        let server = Server::corecached_tcp(&["-U", "-1", "-l", &listen, "-t", workers, "-m", "256"]);
        let mut friend = Asker::new(server.udp());
        let value = "v".repeat(5000);
        friend.ask(format!("set big 0 0 5000\r\n{value}\r\n").as_bytes(), 1);
        friend.ask(b"set a 0 0 1\r\nx\r\n", 1);
        assert_eq!(friend.ask(b"get big\r\n", 4).len(), 4);

        let outer: SocketAddr = (address, outer_port(&server)).into();
        let mut stranger = Asker::at((address, 0).into(), outer);
        for (request, reply) in [
            // The server answers if the reply is no longer than the request.
            ("delete no\r\n".to_owned(), Some("NOT_FOUND\r\n")),
            ("set bbbbbbbb 0 0 1\r\nx\r\n".to_owned(), Some("STORED\r\n")),
            ("get big\r\n".to_owned(), Some("ERROR\r\n")),
            ("stats\r\n".to_owned(), Some("ERROR\r\n")),
            (format!("get a{}\r\n", " a".repeat(20)), Some("SERVER_ERROR reply too large for UDP\r\n")),
            (format!("get big{}\r\n", " big".repeat(10)), Some("SERVER_ERROR reply too large for UDP\r\n")),
            ("x\r\n".to_owned(), None),
        ] {
            let got = stranger.ask(request.as_bytes(), reply.iter().count());
            let expected: Vec<Vec<u8>> = reply.into_iter().map(whole).collect();
            assert_eq!(texts(&got), texts(&expected), "{request:?}");
            let sent: usize = got.iter().map(|datagram| datagram.len() + 2).sum();
            assert!(sent <= request.len() + 8, "{sent} bytes to {}: {request:?}", request.len() + 8);
        }
        let withheld = server.client().ask_list("stats udp");
        assert!(
            withheld.iter().any(|line| line.starts_with("STAT udp_replies_withheld") && !line.ends_with(" 0")),
            "{withheld:?}"
        );
    }
    // A client that `--udp-allow` names gets the full reply.
    for (allowed, datagrams) in [(format!("10.255.255.0/31,{address}"), 4), ("10.255.255.0/31".to_owned(), 1)] {
        let server = Server::corecached_tcp(&["-U", "-1", "-l", &listen, "--udp-allow", &allowed]);
        Asker::new(server.udp()).ask(format!("set big 0 0 5000\r\n{}\r\n", "v".repeat(5000)).as_bytes(), 1);
        let outer: SocketAddr = (address, outer_port(&server)).into();
        assert_eq!(Asker::at((address, 0).into(), outer).ask(b"get big\r\n", datagrams).len(), datagrams, "{allowed}");
    }
}

/// The UDP port of the second address.
fn outer_port(server: &Server) -> u16 {
    server.udp_ports()[1]
}

#[test]
fn servers_are_not_made_to_answer_each_other() {
    let server = Server::corecached_tcp(FLAGS);
    let mut peer = Asker::at((Ipv4Addr::new(127, 0, 0, 2), server.udp().port()).into(), server.udp());
    peer.send(b"ERROR\r\n");
    peer.send(b"mn\r\n");
    let mut client = Asker::new(server.udp());
    assert_eq!(client.ask(b"mn\r\n", 1), [whole("MN\r\n")]);
    peer.socket.set_nonblocking(true).expect("a socket takes this option");
    assert!(peer.socket.recv(&mut [0; 100]).is_err(), "a server was answered");
}

#[test]
fn no_reply_is_larger_than_any_may_be() {
    let server = Server::corecached_tcp(&[FLAGS, &["-I", "8m", "-m", "64"]].concat());
    let mut client = server.client();
    assert_eq!(client.ask(&format!("set big 0 0 5000000\r\n{}", "v".repeat(5_000_000))), "STORED");
    let mut asker = Asker::new(server.udp());
    assert_eq!(asker.ask(b"get big\r\n", 1), [whole("SERVER_ERROR reply too large for UDP\r\n")]);
    // A datagram with thousands of keys neither keeps the server busy nor fills its memory.
    let value = "v".repeat(1_000_000);
    assert_eq!(client.ask(&format!("set million 0 0 1000000\r\n{value}")), "STORED");
    let before = server.resident_kib();
    let request = format!("get{}\r\n", " million".repeat(7000));
    assert_eq!(asker.ask(request.as_bytes(), 1), [whole("SERVER_ERROR reply too large for UDP\r\n")]);
    assert!(server.resident_kib() < before + 32 * 1024);
    for request in ["lru_crawler metadump all\r\n", "lru_crawler mgdump all\r\n"] {
        assert_eq!(asker.ask(request.as_bytes(), 1), [whole("CLIENT_ERROR not over UDP\r\n")]);
    }
}

#[test]
fn many_clients_are_answered_by_all_workers() {
    let server = Server::corecached_tcp(&[FLAGS, &["-t", "3", "-m", "256"]].concat());
    let mut askers: Vec<Asker> = (0..60).map(|_| Asker::new(server.udp())).collect();
    for round in 0..10 {
        for (at, asker) in askers.iter_mut().enumerate() {
            asker.send(format!("set key{at} 0 0 1\r\n{round}\r\n").as_bytes());
        }
        for asker in &askers {
            assert_eq!(shown(&asker.receive()[2..]), shown(&whole("STORED\r\n")));
        }
        for (at, asker) in askers.iter_mut().enumerate() {
            asker.send(format!("get key{}\r\n", (at + 1) % 60).as_bytes());
        }
        for (at, asker) in askers.iter().enumerate() {
            let reply = format!("VALUE key{} 0 1\r\n{round}\r\nEND\r\n", (at + 1) % 60);
            assert_eq!(shown(&asker.receive()[2..]), shown(&whole(&reply)));
        }
    }
}

#[test]
fn sockets_are_counted_and_described_as_memcached_does() {
    let describe = |program: Program| {
        let server = Server::on_tcp(program, &["-U", "-1", "-t", "2", "-m", "256"]);
        let mut client = server.client();
        assert_eq!(Asker::new(server.udp()).ask(b"mn\r\n", 1), [whole("MN\r\n")]);
        // Each worker of memcached opens its socket in its own time, and counts it then.
        let deadline = Instant::now() + PATIENCE;
        while client.stat("curr_connections") < 3 {
            assert!(Instant::now() < deadline, "{program:?}: not all sockets are counted");
        }
        let counted = ["curr_connections", "total_connections"].map(|name| client.stat(name));
        let settings = client.ask_list("stats settings");
        let ours = ["STAT tcpport", "STAT udpport", "STAT num_threads_per_udp"];
        let settings: Vec<String> =
            settings.into_iter().filter(|line| ours.iter().any(|name| line.starts_with(name))).collect();
        let port = format!(":{}", server.udp().port());
        let mut sockets: Vec<String> = client
            .ask_list("stats conns")
            .into_iter()
            .filter(|line| line.contains("udp:") || line.contains("UDP"))
            .map(|line| line.split_once(':').expect("STAT fd:name value").1.replace(&port, ":PORT"))
            .collect();
        sockets.sort();
        (counted, settings, sockets)
    };
    let ours = describe(Program::Corecached);
    assert_eq!(ours.0, [3, 4]);
    assert_eq!(ours.2, ["UDP UDP", "UDP UDP", "addr udp:127.0.0.1:PORT", "addr udp:127.0.0.1:PORT"]);
    for memcached in [Program::Memcached, Program::Newest] {
        if peers::has(memcached) {
            assert_eq!(ours, describe(memcached));
        }
    }
}

#[test]
fn a_port_of_udp_that_is_taken_is_not_shared() {
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let (status, printed) = crate::server::corecached_run(&["-p", "-1", "-l", "127.0.0.1", "-U", &port, "-t", "2"]);
    assert_eq!(status.code(), Some(71), "{printed}");
    assert!(printed.contains("failed to listen on UDP"), "{printed}");
}
