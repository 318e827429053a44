//! How much does it cost to parse a request into an operation?
//!
//! The bench parses a buffer of pipelined requests, as one read returns them, from beginning to end, again and again.
//! Keys are 25 bytes, values 32. An untimed run compares each operation with its request; the timed runs must add up to
//! the same sum.

#![allow(clippy::print_stdout, reason = "what a bench finds out is its product")]

mod common;

use common::{LIMITS, Samples, Verdict, write_key, write_value};
use corecached::protocol::text::Parser;
use corecached::protocol::{Operation, Step, Verb, flag};
use std::hint::black_box;
use std::process::ExitCode;

/// Requests in the buffer: about 30–60 KiB. They fit into the caches, just as bytes that were just read from a socket.
const REQUESTS: u64 = 500;
/// Keys of the long `get`.
const KEYS_PER_GET: u64 = 50;
const VALUE_LEN: usize = 32;
const RUNS: usize = 2000;

/// A kind of request, and the operations that the parser must make of it.
struct Case {
    name: &'static str,
    /// Appends the request of a number.
    write: fn(u64, &mut Vec<u8>),
    verb: Verb,
    flags: u64,
    has_value: bool,
    /// An `End` follows after this many operations; 0: never.
    keys_per_end: u64,
    /// Number of operations in the buffer, without `End`.
    count: u64,
}

fn main() -> ExitCode {
    let cases = [
        Case { name: "get, pipelined", write: write_get, keys_per_end: 1, ..Case::of(Verb::Get) },
        Case {
            name: "get of 50 keys, per key",
            write: write_get_of_many,
            keys_per_end: KEYS_PER_GET,
            count: 20 * KEYS_PER_GET,
            ..Case::of(Verb::Get)
        },
        Case { name: "set of 32 bytes", write: write_set, has_value: true, ..Case::of(Verb::Set) },
        Case { name: "mg <key> v", write: write_meta_get, flags: flag(b'v'), ..Case::of(Verb::MetaGet) },
        Case {
            name: "mg <key> k f t v q O123 N30",
            write: write_meta_get_with_flags,
            flags: b"kftvqON".iter().fold(0, |flags, &letter| flags | flag(letter)),
            ..Case::of(Verb::MetaGet)
        },
        Case { name: "ms <key> 32", write: write_meta_set, has_value: true, ..Case::of(Verb::MetaSet) },
        Case {
            name: "ms <key> 32 T60 F5 k q",
            write: write_meta_set_with_flags,
            flags: b"TFkq".iter().fold(0, |flags, &letter| flags | flag(letter)),
            has_value: true,
            ..Case::of(Verb::MetaSet)
        },
    ];
    let mut verdict = Verdict::default();
    println!("parsing, ns per operation{:>14}{:>9}", "best", "median");
    for case in &cases {
        let samples = case.measure(&mut verdict);
        println!("{:<29}{:>10.1}{:>9.1}", case.name, samples.best(), samples.median());
    }
    verdict.exit()
}

impl Case {
    fn of(verb: Verb) -> Case {
        Case { name: "", write: write_get, verb, flags: 0, has_value: false, keys_per_end: 0, count: REQUESTS }
    }

    fn measure(&self, verdict: &mut Verdict) -> Samples {
        let mut input = Vec::new();
        for number in 0..self.count / self.keys_per_end.max(1) {
            (self.write)(number, &mut input);
        }
        let sum = self.verify(&mut input, verdict);
        Samples::take(RUNS, self.count as usize, || {
            let found =
                parse_all(black_box(&mut input), |operation| u64::from(operation.key.len + operation.value.len));
            verdict.expect(found == sum, || format!("{}: a timed run added up to {found}, not {sum}", self.name));
        })
    }

    /// Compares each operation with its request. Returns the sum that timed runs must reach.
    fn verify(&self, input: &mut [u8], verdict: &mut Verdict) -> u64 {
        let original = input.to_vec();
        let (mut number, mut ends, mut sum) = (0, 0, 0);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        parse_all(input, |operation| {
            sum += u64::from(operation.key.len + operation.value.len);
            if operation.verb == Verb::End {
                ends += 1;
                return 0;
            }
            key.clear();
            write_key(number, &mut key);
            value.clear();
            if self.has_value {
                write_value(number, 0, VALUE_LEN, &mut value);
            }
            let is_meta = matches!(self.verb, Verb::MetaGet | Verb::MetaSet);
            let holds = operation.verb == self.verb
                && operation.key.of(&original) == key
                && (!self.has_value || operation.value.of(&original) == value)
                && (!is_meta || operation.flags == self.flags);
            verdict.expect(holds, || format!("{}: request {number} became {operation:?}", self.name));
            number += 1;
            0
        });
        verdict.expect(number == self.count, || format!("{}: {number} operations of {}", self.name, self.count));
        let expected_ends = number.checked_div(self.keys_per_end).unwrap_or(0);
        verdict.expect(ends == expected_ends, || format!("{}: {ends} ends of {expected_ends}", self.name));
        sum
    }
}

/// Parses a whole buffer, and adds up the results of `look` for each operation.
#[inline]
fn parse_all(input: &mut [u8], mut look: impl FnMut(&Operation) -> u64) -> u64 {
    let (mut parser, mut operation) = (Parser::default(), Operation::default());
    let (mut at, mut sum) = (0, 0);
    while let Step::Operation | Step::Key = parser.next(input, &mut at, &LIMITS, &mut operation) {
        sum += look(&operation);
    }
    sum
}

fn write_get(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"get ");
    write_key(number, out);
    out.extend_from_slice(b"\r\n");
}

fn write_get_of_many(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"get");
    for key in 0..KEYS_PER_GET {
        out.push(b' ');
        write_key(number * KEYS_PER_GET + key, out);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_set(number: u64, out: &mut Vec<u8>) {
    write_storage(b"set ", b" 0 0 32\r\n", number, out);
}

fn write_meta_get(number: u64, out: &mut Vec<u8>) {
    write_line(b"mg ", b" v\r\n", number, out);
}

fn write_meta_get_with_flags(number: u64, out: &mut Vec<u8>) {
    write_line(b"mg ", b" k f t v q O123 N30\r\n", number, out);
}

fn write_meta_set(number: u64, out: &mut Vec<u8>) {
    write_storage(b"ms ", b" 32\r\n", number, out);
}

fn write_meta_set_with_flags(number: u64, out: &mut Vec<u8>) {
    write_storage(b"ms ", b" 32 T60 F5 k q\r\n", number, out);
}

fn write_line(command: &[u8], rest: &[u8], number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(command);
    write_key(number, out);
    out.extend_from_slice(rest);
}

fn write_storage(command: &[u8], rest: &[u8], number: u64, out: &mut Vec<u8>) {
    write_line(command, rest, number, out);
    write_value(number, 0, VALUE_LEN, out);
    out.extend_from_slice(b"\r\n");
}
