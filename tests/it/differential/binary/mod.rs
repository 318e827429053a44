//! Random conversations in the binary protocol.
//!
//! Both servers get each burst pipelined, and corecached gets it cut at random places. A reply repeats the number of
//! its request. So the test can assign each reply to its request.

mod compare;
mod datagrams;
mod differences;
mod frame;
mod generate;
mod oracle;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::campaign::{self, Protocol, Report};
use super::compare::{Answer, CasPairs, difference};
use super::random::Random;
use super::text::send_in_pieces;
use super::wire::{End, Wire};
use crate::client::shown;
use crate::server::{Program, Server};
use frame::Request;
use generate::{Conversation, Piece};
use oracle::Oracle;

/// Number of commands of a test, unless `CORECACHED_COMMANDS` sets it.
const COMMANDS: usize = 20_000;

/// The test does not complete a packet that lacks more bytes than this.
const FILLER_MAX: usize = 100_000;

#[test]
fn binary_on_one_worker() {
    check(Program::Newest, "1", 4_000_001);
}

#[test]
fn binary_on_three_workers() {
    check(Program::Newest, "3", 5_000_001);
}

#[test]
fn binary_on_one_worker_with_1_6_18() {
    check(Program::Memcached, "1", 6_000_001);
}

#[test]
fn binary_on_three_workers_with_1_6_18() {
    check(Program::Memcached, "3", 7_000_001);
}

fn check(oracle: Program, workers: &'static str, seed: u64) {
    let name = format!("binary, {workers} workers and {oracle:?}");
    campaign::check(&name, &Binary { oracle, workers }, seed, COMMANDS);
}

struct Binary {
    oracle: Program,
    workers: &'static str,
}

impl Protocol for Binary {
    type Piece = Piece;

    fn oracle(&self) -> Program {
        self.oracle
    }

    fn rows(&self) -> Vec<(usize, &'static str)> {
        let rows = differences::DIFFERENCES.iter().enumerate().filter(|row| row.1.of.contains(&self.oracle));
        rows.map(|(number, difference)| (number, difference.reason)).collect()
    }

    fn conversation(&self, seed: u64, commands: usize) -> Conversation {
        generate::conversation(seed, commands)
    }

    fn hold(&self, conversation: &Conversation, seed: u64, patience: Duration) -> Result<Report, String> {
        let mut talk = Talk::new(self, seed, patience);
        let mut requests = 0;
        for burst in conversation {
            requests += talk.burst(burst)?;
        }
        Ok(Report { requests, used: talk.oracle.used })
    }

    fn shown(&self, piece: &Piece) -> String {
        piece.shown()
    }
}

/// Connections on which both servers get the same requests.
struct Talk {
    memcached: Server,
    corecached: Server,
    oracle: Oracle,
    ours: Wire,
    /// Connections to memcached and to corecached in another protocol.
    others: Option<(Wire, Wire)>,
    pairs: CasPairs,
    random: Random,
    patience: Duration,
    now: i64,
}

impl Talk {
    fn new(binary: &Binary, seed: u64, patience: Duration) -> Talk {
        let setting = generate::setting(seed);
        let start = |program, workers| {
            let own = setting.flags(program);
            let usual = ["-m", "1024", "-o", "no_lru_maintainer", "-t", workers];
            let flags: Vec<&str> = usual.into_iter().chain(own.iter().map(String::as_str)).collect();
            Server::on_unix_socket(program, &flags)
        };
        let memcached = start(binary.oracle, "1");
        let corecached = start(Program::Corecached, binary.workers);
        let mut talk = Talk {
            oracle: Oracle::connect(binary.oracle, setting, memcached.socket(), patience),
            ours: Wire::connect(corecached.socket(), patience),
            others: None,
            memcached,
            corecached,
            pairs: CasPairs::default(),
            random: Random::new(seed),
            patience,
            now: SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs() as i64,
        };
        talk.settle_protocol();
        talk
    }

    /// Sends a request, because the first byte on a connection determines its protocol.
    fn settle_protocol(&mut self) {
        let (question, reply) = noop(0);
        self.ours.send(question);
        assert_eq!(self.ours.read_until(&reply), (Vec::new(), End::Complete), "{}", self.corecached.printed());
    }

    /// Runs a burst. Returns the number of its requests, or the first disagreement.
    fn burst(&mut self, burst: &[Piece]) -> Result<usize, String> {
        if let Some(Piece::Line { .. }) = burst.first() {
            burst.iter().try_for_each(|piece| self.line(piece))?;
            return Ok(burst.len());
        }
        let mut our_bytes = resolve(burst, self.now, |key| self.pairs.last(key).map(|pair| pair.0));
        let their_bytes = resolve(burst, self.now, |key| self.pairs.last(key).map(|pair| pair.1));
        let (requests, filler) = split(&their_bytes, matches!(burst.last(), Some(Piece::End)));
        let ends = requests.last().is_some_and(|last| last.is_cut);
        our_bytes.extend(filler);
        let (question, barrier) = noop(self.random.below(1 << 32) as u32);
        if !ends {
            our_bytes.extend(question);
        }
        send_in_pieces(&mut self.ours, our_bytes, &mut self.random);
        if ends {
            self.ours.finish();
        }

        let answers = self.oracle.answers(&requests)?;
        let (replies, end) = self.ours.read_until(&barrier);
        let mut rest = &replies[..];
        for (request, answer) in requests.iter().zip(&answers) {
            match compare::matching(request, &answer.bytes, rest, &mut self.pairs) {
                Some(length) => rest = &rest[length..],
                None => return Err(difference(&request.shown(), answer, rest, end, &mut self.corecached)),
            }
        }
        let (Some(request), Some(last)) = (requests.last(), answers.last()) else { return Ok(0) };
        let wanted = if last.closed { End::Closed } else { End::Complete };
        if !(rest.is_empty() && end == wanted) {
            let nothing_more = Answer { bytes: Vec::new(), ..last.clone() };
            let text = difference(&request.shown(), &nothing_more, rest, end, &mut self.corecached);
            return Err(format!("and then, after the replies to the whole burst,\n{text}"));
        }
        if wanted == End::Closed {
            self.oracle.reconnect(self.memcached.socket(), self.patience);
            self.ours = Wire::connect(self.corecached.socket(), self.patience);
            self.settle_protocol();
        }
        Ok(requests.len())
    }
}

impl Talk {
    /// Runs a request of another protocol.
    fn line(&mut self, piece: &Piece) -> Result<(), String> {
        let Piece::Line { key, fields } = piece else { unreachable!("lines stand among their like") };
        let connect = |server: &Server| Wire::connect(server.socket(), self.patience);
        let (memcached, corecached) =
            self.others.get_or_insert_with(|| (connect(&self.memcached), connect(&self.corecached)));
        let ask = |wire: &mut Wire, cas: Option<u64>| {
            let mut bytes = generate::resolve(fields, self.now, |_| cas);
            bytes.extend_from_slice(b"mn\r\n");
            wire.send(bytes);
            wire.read_until(b"MN\r\n")
        };
        let last = self.pairs.last(key);
        let theirs = ask(memcached, last.map(|pair| pair.1));
        let ours = ask(corecached, last.map(|pair| pair.0));
        let agree = theirs.1 == End::Complete
            && ours.1 == End::Complete
            && compare::lines_match(key, &theirs.0, &ours.0, &mut self.pairs);
        let disagreement = || {
            let (theirs, ours) = ((shown(&theirs.0), theirs.1), (shown(&ours.0), ours.1));
            format!("  asked     {}\n  expected  {theirs:?}\n  got       {ours:?}\n", piece.shown())
        };
        if agree { Ok(()) } else { Err(disagreement()) }
    }
}

/// A noop with this number, and its reply.
fn noop(number: u32) -> (Vec<u8>, Vec<u8>) {
    let packet = |magic| {
        let mut packet = [0; frame::HEADER_LEN];
        (packet[0], packet[1]) = (magic, 0x0a);
        packet[12..16].copy_from_slice(&number.to_be_bytes());
        packet.to_vec()
    };
    (packet(frame::REQUEST), packet(0x81))
}

/// The requests in the bytes of a burst, up to one that ends the connection, and the bytes that complete the last one.
/// If the client ends the connection, the last one stays incomplete.
fn split(bytes: &[u8], ends: bool) -> (Vec<Request>, Vec<u8>) {
    let mut all = bytes.to_vec();
    let mut requests: Vec<Request> = Vec::new();
    let mut at = 0;
    while at < all.len() && !requests.last().is_some_and(Request::is_last) {
        match Request::first_of(&all[at..]) {
            Ok(request) => {
                at += request.bytes.len();
                requests.push(request);
            }
            Err(count) if !ends && count <= FILLER_MAX => all.extend(std::iter::repeat_n(b'f', count)),
            Err(_) => requests.push(Request { bytes: all[at..].to_vec(), is_cut: true }),
        }
    }
    if ends && !requests.last().is_some_and(Request::is_last) {
        requests.push(Request { bytes: Vec::new(), is_cut: true });
    }
    (requests, all.split_off(bytes.len()))
}

/// The bytes of a burst for one of the servers.
fn resolve(burst: &[Piece], now: i64, cas_of: impl Fn(&[u8]) -> Option<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in burst {
        match piece {
            Piece::Packet(fields) => bytes.extend(generate::resolve(fields, now, &cas_of)),
            Piece::End | Piece::Line { .. } => {}
        }
    }
    bytes
}
