//! Random conversations, thousands of commands each, with memcached 1.6.18 and with corecached: what they reply must be
//! the same, byte for byte, but for what `differences.rs` knows.
//!
//! ```text
//!  seed ─ generate ─ bursts ─┬─ in random pieces ──────────────── corecached ─┐
//!                            └─ frame ─ one request at a time ─ memcached     ├─ compare
//!                                           └──── differences ────────────────┘
//! ```
//!
//! corecached gets each burst pipelined, cut anywhere; memcached gets it request by request, so that it is known which
//! reply belongs to which. A conversation in which they disagree is made as short as may be, and printed.
//!
//! Each test runs as many commands as fit beside other tests. `CORECACHED_COMMANDS=1000000` runs so many;
//! `CORECACHED_SEED=…` begins with another conversation, such as one that has failed.

mod compare;
mod differences;
mod frame;
mod generate;
mod minimise;
mod oracle;
mod random;
mod wire;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::shown;
use crate::peers;
use crate::server::{Program, Server};
use compare::CasPairs;
use frame::{Lacks, Request};
use generate::{Conversation, Part, Piece};
use oracle::{Answer, Oracle};
use random::Random;
use wire::{End, Wire};

/// Commands of a test, unless `CORECACHED_COMMANDS` says otherwise.
const COMMANDS: usize = 4_000;

/// What memcached waits for without a newline. Whether a longer line is refused or its connection closed depends on how it
/// arrives, unless it is a `get`.
const LINE_LENGTH_MAX: usize = 2_000;

/// Replies take a moment; a server that takes so long has forgotten one.
const PATIENCE: Duration = Duration::from_secs(10);

/// While a conversation is made short, which may take a hundred attempts.
const IMPATIENCE: Duration = Duration::from_millis(500);

/// In so many commands, each row of the table of differences is of use.
const COUNTED: usize = 1_000_000;

#[test]
fn text_and_meta_on_one_worker() {
    check("1", 1);
}

#[test]
fn text_and_meta_on_three_workers() {
    check("3", 1_000_001);
}

/// Holds conversations until there were enough commands, each with servers of its own.
fn check(workers: &'static str, seed: u64) {
    if !peers::has_memcached() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let commands = number("CORECACHED_COMMANDS").map_or(COMMANDS, |commands| commands as usize);
    let mut seed = number("CORECACHED_SEED").unwrap_or(seed);
    let mut asked = 0;
    let mut used = vec![0; differences::DIFFERENCES.len()];
    while asked < commands {
        let count = generate::COMMANDS.min(commands - asked);
        let conversation = generate::conversation(seed, count, has_arithmetic(seed));
        match hold(&conversation, workers, seed, PATIENCE) {
            Ok(report) => {
                asked += report.requests;
                used.iter_mut().zip(report.used).for_each(|(all, some)| *all += some);
            }
            Err(disagreement) => {
                eprintln!("CORECACHED_SEED={seed}, {workers} workers, before it is made short:\n{disagreement}");
                let short =
                    minimise::minimise(conversation, |shorter| hold(shorter, workers, seed, IMPATIENCE).is_err());
                let printed = minimise::printed(&short);
                let last = hold(&short, workers, seed, PATIENCE).err();
                let again = if last.is_some() { "" } else { " (not each time; this was the first)" };
                let shown = last.unwrap_or(disagreement);
                panic!("CORECACHED_SEED={seed}, {workers} workers{again}:\n{printed}{shown}");
            }
        }
        seed += 1;
    }
    if commands >= COUNTED {
        for (difference, count) in differences::DIFFERENCES.iter().zip(&used) {
            eprintln!("{count:8} times: {}", difference.reason);
            assert!(*count > 0, "a row of the table that is of no use");
        }
    }
    eprintln!("{asked} requests, {workers} workers, last seed {}", seed - 1);
}

/// Whether a conversation has commands that compute; it goes without the maintainer of memcached's LRU then: while that
/// has to move an item, which takes a moment, memcached puts a shorter number into a new item instead of padding it.
fn has_arithmetic(seed: u64) -> bool {
    !seed.is_multiple_of(4)
}

/// What a conversation was made of.
struct Report {
    requests: usize,
    /// How often each row of the table was of use.
    used: Vec<u64>,
}

/// Holds a conversation with fresh servers. `Err` is a description of the first disagreement.
fn hold(conversation: &Conversation, workers: &str, seed: u64, patience: Duration) -> Result<Report, String> {
    let settings = if has_arithmetic(seed) { &["-m", "1024", "-o", "no_lru_maintainer"][..] } else { &["-m", "1024"] };
    let memcached = Server::on_unix_socket(Program::Memcached, &[settings, &["-t", "1"]].concat());
    let mut corecached = Server::on_unix_socket(Program::Corecached, &[settings, &["-t", workers]].concat());
    let mut oracle = Oracle::connect(memcached.socket(), patience);
    let mut ours = Wire::connect(corecached.socket(), patience);
    let mut pairs = CasPairs::default();
    let mut random = Random::new(seed);
    let mut requests = 0;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs() as i64;

    for (number, burst) in conversation.iter().enumerate() {
        let mut our_bytes = resolve(burst, now, |key| pairs.last(key).map(|pair| pair.0));
        let mut their_bytes = resolve(burst, now, |key| pairs.last(key).map(|pair| pair.1));
        let (requests_of_burst, filler) = split(&their_bytes);
        if requests_of_burst.iter().any(is_left_to_chance) {
            continue;
        }
        their_bytes.extend_from_slice(&filler);
        our_bytes.extend_from_slice(&filler);
        let barrier = format!("Oend{number}.{}", random.below(usize::MAX));
        our_bytes.extend_from_slice(format!("md ~ {barrier}\r\n").as_bytes());
        send_in_pieces(&ours, our_bytes, &mut random);

        let mut answers: Vec<Answer> = Vec::new();
        for request in &requests_of_burst {
            requests += 1;
            answers.push(oracle.answer(request));
            if answers.last().is_some_and(|answer| answer.closed) {
                break;
            }
        }
        let (replies, end) = ours.read_until(format!("NF {barrier}\r\n").as_bytes());
        let mut rest = &replies[..];
        for (request, answer) in requests_of_burst.iter().zip(&answers) {
            match compare::matching(request, &answer.text, rest, &mut pairs) {
                Some(length) => rest = &rest[length..],
                None => return Err(difference(request, answer, rest, end, &mut corecached)),
            }
        }
        let last = (requests_of_burst.last(), answers.last());
        let wanted = if answers.last().is_some_and(|answer| answer.closed) { End::Closed } else { End::Complete };
        if let (Some(request), Some(answer)) = last
            && !(rest.is_empty() && end == wanted)
        {
            let text = "and then, after the replies to the whole burst,\n".to_owned();
            return Err(
                text + &difference(request, &Answer { text: Vec::new(), ..answer.clone() }, rest, end, &mut corecached)
            );
        }
        if wanted == End::Closed {
            ours = Wire::connect(corecached.socket(), patience);
            oracle.reconnect(memcached.socket(), patience);
        }
    }
    corecached.assert_alive();
    Ok(Report { requests, used: oracle.used })
}

/// Whether what is replied depends on the pieces in which a request arrives: see [`LINE_LENGTH_MAX`].
fn is_left_to_chance(request: &Request) -> bool {
    let line = request.line();
    line.len() > LINE_LENGTH_MAX && !line.starts_with(b"get ") && !line.starts_with(b"gets ")
}

/// The requests in the bytes of a burst, and what has to follow them so that the last one is complete.
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

/// The bytes of a burst for one of the servers, given the CAS values it has told.
fn resolve(burst: &[Piece], now: i64, cas_of: impl Fn(&[u8]) -> Option<u64>) -> Vec<u8> {
    /// No server has come so far.
    const UNKNOWN: u64 = 4_000_000_000_000_000_000;
    let mut bytes = Vec::new();
    for part in burst.iter().flat_map(|piece| &piece.0) {
        match part {
            Part::Bytes(text) => bytes.extend_from_slice(text),
            Part::Cas { key, offset } => {
                let cas = cas_of(key).unwrap_or(UNKNOWN).saturating_add_signed(*offset);
                bytes.extend_from_slice(cas.to_string().as_bytes());
            }
            Part::Unix(offset) => bytes.extend_from_slice((now + offset).to_string().as_bytes()),
        }
    }
    bytes
}

/// Most bursts leave in a few writes; some in many small ones, so that requests are seen before they are complete.
fn send_in_pieces(wire: &Wire, mut bytes: Vec<u8>, random: &mut Random) {
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

fn difference(request: &Request, answer: &Answer, ours: &[u8], end: End, corecached: &mut Server) -> String {
    let reasons = answer.reasons.iter().map(|reason| format!("  because   {reason}\n")).collect::<String>();
    let wanted = if answer.closed { " and the end of the connection" } else { "" };
    let got = match end {
        End::Complete => "",
        End::Closed => " and the end of the connection",
        End::Silent => " and then nothing",
    };
    let ended = corecached.ended().map(|status| format!("  ended     {status}\n{}", corecached.printed()));
    format!(
        "  asked     {}\n  expected  {}{wanted}\n{reasons}  got       {}{got}\n{}",
        shown(&request.bytes),
        shown(&answer.text),
        shown(&ours[..ours.len().min(answer.text.len() + 300)]),
        ended.unwrap_or_default()
    )
}
