//! Random conversations in the classic and the meta protocol.
//!
//! corecached gets each burst pipelined and cut at random places. memcached gets it request by request, with a marker
//! between two requests. So the test can assign each reply to its request.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::campaign::{self, Protocol, Report};
use super::compare::{self, Answer, CasPairs, difference};
use super::differences;
use super::frame::{self, Lacks, Request};
use super::generate::{self, Conversation, Part, Piece, Scope};
use super::oracle::Oracle;
use super::random::Random;
use super::wire::{End, Wire};
use crate::client::shown;
use crate::server::{Program, Server};

/// Number of commands of a test, unless `CORECACHED_COMMANDS` sets it.
const COMMANDS: usize = 40_000;

/// memcached waits for this many bytes without a newline. It refuses a longer line or closes the connection, depending
/// on how the line arrives, unless the line is a `get`.
const LINE_LENGTH_MAX: usize = 2_000;

/// An item with a shorter time to live may or may not have expired when a client asks for it.
const SECONDS_MIN: i128 = 120;

#[test]
fn text_and_meta_on_one_worker() {
    check(Program::Newest, "1", 1);
}

#[test]
fn text_and_meta_on_three_workers() {
    check(Program::Newest, "3", 1_000_001);
}

#[test]
fn text_and_meta_on_one_worker_with_1_6_18() {
    check(Program::Memcached, "1", 2_000_001);
}

#[test]
fn text_and_meta_on_three_workers_with_1_6_18() {
    check(Program::Memcached, "3", 3_000_001);
}

fn check(oracle: Program, workers: &'static str, seed: u64) {
    campaign::check(&format!("{workers} workers and {oracle:?}"), &TextAndMeta { oracle, workers }, seed, COMMANDS);
}

struct TextAndMeta {
    oracle: Program,
    workers: &'static str,
}

impl TextAndMeta {
    /// Conversations with commands that compute run without memcached's LRU maintainer. While the maintainer moves an
    /// item, memcached cannot pad a shorter number, and puts it into a new item.
    fn scope(&self, seed: u64) -> Scope {
        Scope { arithmetic: !seed.is_multiple_of(4), newest: self.oracle == Program::Newest }
    }

    /// Whether damage has made a request that the generator never makes: a `T` for `ma`, or an opaque that is too long.
    /// memcached reports such an opaque too late. See `generate.rs`.
    fn cannot_be_asked(&self, request: &Request) -> bool {
        let is_late = match request.command() {
            "mg" => self.oracle == Program::Memcached,
            command => command == "ma",
        };
        let is_long = request.flag(b'O').is_some_and(|opaque| opaque.len() > differences::OPAQUE_MAX);
        is_late && is_long || request.command() == "ma" && request.flag(b'T').is_some()
    }
}

impl Protocol for TextAndMeta {
    type Piece = Piece;

    fn oracle(&self) -> Program {
        self.oracle
    }

    fn rows(&self) -> Vec<(usize, &'static str)> {
        differences::of(self.oracle).iter().map(|difference| difference.reason).enumerate().collect()
    }

    fn conversation(&self, seed: u64, commands: usize) -> Conversation {
        generate::conversation(seed, commands, self.scope(seed))
    }

    fn hold(&self, conversation: &Conversation, seed: u64, patience: Duration) -> Result<Report, String> {
        let maintained = if self.scope(seed).arithmetic { &["-o", "no_lru_maintainer"][..] } else { &[] };
        let flags = |workers| [&["-m", "1024", "-t", workers], maintained].concat();
        let memcached = Server::on_unix_socket(self.oracle, &flags("1"));
        let mut corecached = Server::on_unix_socket(Program::Corecached, &flags(self.workers));
        let mut oracle = Oracle::connect(memcached.socket(), patience, differences::of(self.oracle));
        let mut ours = Wire::connect(corecached.socket(), patience);
        let mut pairs = CasPairs::default();
        let mut random = Random::new(seed);
        let mut requests = 0;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs() as i64;

        for (number, burst) in conversation.iter().enumerate() {
            let mut our_bytes = resolve(burst, now, |key| pairs.last(key).map(|pair| pair.0));
            let their_bytes = resolve(burst, now, |key| pairs.last(key).map(|pair| pair.1));
            let (requests_of_burst, filler) = split(&their_bytes);
            if requests_of_burst.iter().any(|request| is_left_to_chance(request) || self.cannot_be_asked(request)) {
                continue;
            }
            our_bytes.extend_from_slice(&filler);
            let barrier = format!("Oend{number}.{}", random.below(usize::MAX));
            our_bytes.extend_from_slice(format!("md ~ {barrier}\r\n").as_bytes());
            send_in_pieces(&mut ours, our_bytes, &mut random);

            let answers = oracle.answers(&requests_of_burst)?;
            requests += answers.len();
            let (replies, end) = ours.read_until(format!("NF {barrier}\r\n").as_bytes());
            let mut rest = &replies[..];
            for (request, answer) in requests_of_burst.iter().zip(&answers) {
                match compare::matching(request, &answer.bytes, rest, &mut pairs, self.oracle) {
                    Some(length) => rest = &rest[length..],
                    None => return Err(difference(&shown(&request.bytes), answer, rest, end, &mut corecached)),
                }
            }
            let Some(last) = answers.last() else { continue };
            let wanted = if last.closed { End::Closed } else { End::Complete };
            if !(rest.is_empty() && end == wanted) {
                let request = &requests_of_burst[answers.len() - 1];
                let nothing_more = Answer { bytes: Vec::new(), ..last.clone() };
                let text = difference(&shown(&request.bytes), &nothing_more, rest, end, &mut corecached);
                return Err(format!("and then, after the replies to the whole burst,\n{text}"));
            }
            if wanted == End::Closed {
                ours = Wire::connect(corecached.socket(), patience);
                oracle.reconnect(memcached.socket(), patience);
            }
        }
        corecached.assert_alive();
        Ok(Report { requests, used: oracle.used })
    }

    fn shown(&self, piece: &Piece) -> String {
        piece.shown()
    }
}

/// Whether the reply depends on the pieces in which the request arrives (see [`LINE_LENGTH_MAX`]), or on how long this
/// request and the next ones take (see [`SECONDS_MIN`]).
fn is_left_to_chance(request: &Request) -> bool {
    let line = request.line();
    let is_long = line.len() > LINE_LENGTH_MAX && !line.starts_with(b"get ") && !line.starts_with(b"gets ");
    let words = request.words();
    let times = match request.command() {
        "touch" => words.get(2).copied().into_iter().collect(),
        "gat" | "gats" | "flush_all" => words.get(1).copied().into_iter().collect(),
        _ if request.is_storage() => words.get(3).copied().into_iter().collect(),
        _ if request.is_meta() => [b'T', b'N'].iter().filter_map(|&letter| Some(&request.flag(letter)?[1..])).collect(),
        _ => Vec::new(),
    };
    let is_short = |time: &[u8]| frame::strto(time).is_some_and(|seconds| (1..SECONDS_MIN).contains(&seconds));
    is_long || times.into_iter().any(is_short)
}

/// The requests in the bytes of a burst, and the bytes that complete the last one.
fn split(bytes: &[u8]) -> (Vec<Request>, Vec<u8>) {
    let mut all = bytes.to_vec();
    let mut requests = Vec::new();
    let mut at = 0;
    while at < all.len() {
        match Request::first_of(&all[at..]) {
            Ok(request) => {
                at += request.bytes.len();
                requests.push(request);
            }
            Err(Lacks::Newline) => all.extend_from_slice(b"\r\n"),
            Err(Lacks::Value(count)) => all.extend(std::iter::repeat_n(b'f', count)),
        }
    }
    (requests, all.split_off(bytes.len()))
}

/// The bytes of a burst for one of the servers. `cas_of` gives the CAS values that this server has sent.
fn resolve(burst: &[Piece], now: i64, cas_of: impl Fn(&[u8]) -> Option<u64>) -> Vec<u8> {
    /// No server has reached this CAS value.
    const UNKNOWN: u64 = 4_000_000_000_000_000_000;
    let mut bytes = Vec::new();
    for part in burst.iter().flat_map(|piece| &piece.0) {
        match part {
            Part::Bytes(text) => bytes.extend_from_slice(text),
            Part::Cas { key, offset } => {
                // A server does not compare a CAS value of 0.
                let cas = cas_of(key).unwrap_or(UNKNOWN).saturating_add_signed(*offset);
                let cas = if cas == 0 { UNKNOWN } else { cas };
                bytes.extend_from_slice(cas.to_string().as_bytes());
            }
            Part::Unix(offset) => bytes.extend_from_slice((now + offset).to_string().as_bytes()),
        }
    }
    bytes
}

/// Sends most bursts in a few writes, and some in many small ones. Then the server sees incomplete requests.
pub(super) fn send_in_pieces(wire: &mut Wire, mut bytes: Vec<u8>, random: &mut Random) {
    let most = match random.below(4) {
        0 => bytes.len(),
        1 => 1 + bytes.len() / 50,
        2 => 1 + bytes.len() / 10,
        _ => 3_000,
    };
    while !bytes.is_empty() {
        let count = (1 + random.below(most)).min(bytes.len());
        let rest = bytes.split_off(count);
        wire.send(bytes);
        bytes = rest;
    }
}
