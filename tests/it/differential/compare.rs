//! Compares a reply with the expected one byte for byte, but for two exceptions. Each server chooses its own CAS
//! values, and a second may pass between two times.

use std::collections::BTreeMap;

use super::differences;
use super::frame::Request;
use super::wire::End;
use crate::client::shown;
use crate::server::{Program, Server};

/// Most seconds by which the clocks of two servers may differ, because one starts after the other.
const SECONDS_APART_MAX: i64 = 4;

/// The same for the time of the last access, which memcached may update only once a minute.
const IDLE_SECONDS_APART_MAX: i64 = 60 + SECONDS_APART_MAX;

/// The reply that corecached must give.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// Whether the server closes the connection after this reply.
    pub(super) closed: bool,
    /// The reasons of all differences that changed this reply.
    pub(super) reasons: Vec<&'static str>,
}

/// Describes a reply that differs from the expected one. `asked` is the request in readable form.
pub(super) fn difference(asked: &str, answer: &Answer, ours: &[u8], end: End, corecached: &mut Server) -> String {
    let reasons = answer.reasons.iter().map(|reason| format!("  because   {reason}\n")).collect::<String>();
    let wanted = if answer.closed { " and the end of the connection" } else { "" };
    let got = match end {
        End::Complete => "",
        End::Closed => " and the end of the connection",
        End::Silent => " and then nothing",
    };
    let ended = corecached.ended().map(|status| format!("  ended     {status}\n{}", corecached.printed()));
    format!(
        "  asked     {asked}\n  expected  {}{wanted}\n{reasons}  got       {}{got}\n{}",
        shown(&answer.bytes),
        shown(&ours[..ours.len().min(answer.bytes.len() + 300)]),
        ended.unwrap_or_default()
    )
}

/// The CAS values that the two servers gave to the same state of a key.
#[derive(Debug, Default)]
pub(super) struct CasPairs {
    by_key: BTreeMap<Vec<u8>, Vec<(u64, u64)>>,
}

impl CasPairs {
    /// The latest pair of a key: our value and theirs.
    pub(super) fn last(&self, key: &[u8]) -> Option<(u64, u64)> {
        self.by_key.get(key).and_then(|pairs| pairs.last().copied())
    }

    /// Records that our value matches theirs. Returns false if one of them is known to match another value.
    pub(super) fn agree(&mut self, key: &[u8], ours: u64, theirs: u64) -> bool {
        if ours == 0 || theirs == 0 {
            return ours == theirs;
        }
        let pairs = self.by_key.entry(key.to_vec()).or_default();
        if let Some(known) = pairs.iter().position(|pair| pair.0 == ours || pair.1 == theirs) {
            let agree = pairs[known] == (ours, theirs);
            let last = pairs.remove(known);
            pairs.push(last);
            return agree;
        }
        pairs.push((ours, theirs));
        true
    }
}

/// The name of a key among [`CasPairs`]. A key that the client sends in base64 is another key.
pub(super) fn name(key: &[u8], base64: bool) -> Vec<u8> {
    if base64 { [b"b ", key].concat() } else { key.to_vec() }
}

/// The length of our reply at the start of `ours`, if it matches `theirs`.
pub(super) fn matching(
    request: &Request,
    theirs: &[u8],
    ours: &[u8],
    pairs: &mut CasPairs,
    oracle: Program,
) -> Option<usize> {
    let words = request.words();
    let key = words.get(1).copied().unwrap_or_default();
    match request.command() {
        "gets" | "gats" => values(theirs, ours, pairs),
        "mg" | "ms" | "md" | "ma" => meta(request, key, theirs, ours, pairs),
        "me" => meta_debug(request, key, theirs, ours, pairs),
        "stats" if theirs.starts_with(b"STAT ") || theirs == b"END\r\n" => names(request, theirs, ours, oracle),
        _ => ours.starts_with(theirs).then_some(theirs.len()),
    }
}

/// The first line of both replies, without `\r\n`, and the rest of both.
type Lines<'a> = ((&'a [u8], &'a [u8]), (&'a [u8], &'a [u8]));

fn first_lines<'a>(theirs: &'a [u8], ours: &'a [u8]) -> Option<Lines<'a>> {
    let split = |bytes: &'a [u8]| {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        Some((&bytes[..end], &bytes[end + 2..]))
    };
    Some((split(theirs)?, split(ours)?))
}

fn number(word: &[u8]) -> Option<u64> {
    str::from_utf8(word).ok()?.parse().ok()
}

/// Any number of `VALUE <key> <flags> <bytes> <cas>`, and the rest of the reply.
fn values(theirs: &[u8], ours: &[u8], pairs: &mut CasPairs) -> Option<usize> {
    let (mut their_rest, mut our_rest) = (theirs, ours);
    while their_rest.starts_with(b"VALUE ") {
        // A key may hold any byte but a space and a newline, so the words come from the whole line up to `\n`.
        let line = |bytes: &[u8]| bytes.iter().position(|&byte| byte == b'\n').map(|end| end + 1);
        let (their_line, our_line) = (&their_rest[..line(their_rest)?], &our_rest[..line(our_rest)?]);
        let split = |line: &[u8]| line.iter().rposition(|&byte| byte == b' ').unwrap_or_default();
        let (their_head, their_cas) = their_line.split_at(split(their_line));
        let (our_head, our_cas) = our_line.split_at(split(our_line));
        let cas = |word: &[u8]| number(word.strip_prefix(b" ")?.strip_suffix(b"\r\n")?);
        let mut words = their_head.split(|&byte| byte == b' ').skip(1);
        let key = words.next()?;
        let len = number(words.last()?)? as usize + 2;
        if their_head != our_head || !pairs.agree(key, cas(our_cas)?, cas(their_cas)?) {
            return None;
        }
        their_rest = &their_rest[their_line.len()..];
        our_rest = &our_rest[our_line.len()..];
        if their_rest.get(..len)? != our_rest.get(..len)? {
            return None;
        }
        (their_rest, our_rest) = (&their_rest[len..], &our_rest[len..]);
    }
    our_rest.starts_with(their_rest).then(|| ours.len() - our_rest.len() + their_rest.len())
}

fn meta(request: &Request, key: &[u8], theirs: &[u8], ours: &[u8], pairs: &mut CasPairs) -> Option<usize> {
    if theirs.is_empty() {
        return Some(0);
    }
    let key = &name(key, request.flag(b'b').is_some())[..];
    if theirs.windows(6).take(20).any(|bytes| bytes == b"_ERROR") {
        return ours.starts_with(theirs).then_some(theirs.len());
    }
    let ((their_line, their_rest), (our_line, our_rest)) = first_lines(theirs, ours)?;
    let their_words: Vec<&[u8]> = their_line.split(|&byte| byte == b' ').collect();
    let our_words: Vec<&[u8]> = our_line.split(|&byte| byte == b' ').collect();
    if their_words.len() != our_words.len() {
        return None;
    }
    for (index, (&their_word, &our_word)) in their_words.iter().zip(&our_words).enumerate() {
        let asked = |letter| request.flag(letter).is_some();
        let equal = match (index, their_word, our_word) {
            (1.., [b'c', their_cas @ ..], [b'c', our_cas @ ..]) if asked(b'c') => {
                let (ours, theirs) = (number(our_cas)?, number(their_cas)?);
                // A CAS value that the request sets must come back unchanged.
                let explicit =
                    request.flag(b'E').and_then(|flag| number(&flag[1..])).filter(|_| changed(request, ours));
                explicit.is_none_or(|explicit| explicit == ours) && pairs.agree(key, ours, theirs)
            }
            (1.., [b't', their_time @ ..], [b't', our_time @ ..]) if asked(b't') => {
                close(their_time, our_time, SECONDS_APART_MAX)
            }
            (1.., [b'l', their_time @ ..], [b'l', our_time @ ..]) if asked(b'l') => {
                close(their_time, our_time, IDLE_SECONDS_APART_MAX)
            }
            _ => their_word == our_word,
        };
        if !equal {
            return None;
        }
    }
    let done = ours.len() - our_rest.len();
    our_rest.starts_with(their_rest).then_some(done + their_rest.len())
}

/// Whether a CAS in a reply is the value that the request set. `mg` sets none on an item that exists, and a failed
/// request shows 0.
fn changed(request: &Request, cas: u64) -> bool {
    matches!(request.command(), "ms" | "ma") && cas != 0
}

/// Whether two times are about the same; -1 means never. A server shows a past time as almost 2^32, and the two servers
/// may show different past times.
fn close(theirs: &[u8], ours: &[u8], apart: i64) -> bool {
    const OVER: i64 = 1 << 31;
    let time = |word: &[u8]| str::from_utf8(word).ok()?.parse::<i64>().ok();
    match (time(theirs), time(ours)) {
        (Some(theirs), Some(ours)) if theirs >= OVER && ours >= OVER => theirs < OVER * 2 && ours < OVER * 2,
        (Some(theirs), Some(ours)) if theirs >= 0 && ours >= 0 => (theirs - ours).abs() <= apart,
        _ => theirs == ours,
    }
}

/// `ME <key> exp= la= cas= fetch= cls= size=`
fn meta_debug(request: &Request, key: &[u8], theirs: &[u8], ours: &[u8], pairs: &mut CasPairs) -> Option<usize> {
    if !theirs.starts_with(b"ME ") {
        return ours.starts_with(theirs).then_some(theirs.len());
    }
    let ((their_line, their_rest), (our_line, our_rest)) = first_lines(theirs, ours)?;
    let their_words: Vec<&[u8]> = their_line.split(|&byte| byte == b' ').collect();
    let our_words: Vec<&[u8]> = our_line.split(|&byte| byte == b' ').collect();
    if their_words.len() != our_words.len() || !their_rest.is_empty() {
        return None;
    }
    // In `me`, `b` must be the first flag, and it may not be the last one.
    let flags = request.flags();
    let key = &name(key, flags.len() > 1 && flags[0] == b"b")[..];
    for (their_word, our_word) in their_words.iter().zip(&our_words) {
        let value = |word: &'_ [u8], name: &str| word.strip_prefix(name.as_bytes()).map(<[u8]>::to_vec);
        let pair = |name| value(their_word, name).zip(value(our_word, name));
        let equal = if let Some((theirs, ours)) = pair("exp=") {
            close(&theirs, &ours, SECONDS_APART_MAX)
        } else if let Some((theirs, ours)) = pair("la=") {
            close(&theirs, &ours, IDLE_SECONDS_APART_MAX)
        } else if let Some((theirs, ours)) = pair("cas=") {
            pairs.agree(key, number(&ours)?, number(&theirs)?)
        } else if pair("cls=").or_else(|| pair("size=")).is_some() {
            // Classes and sizes differ from server to server.
            true
        } else {
            their_word == our_word
        };
        if !equal {
            return None;
        }
    }
    Some(ours.len() - our_rest.len())
}

/// Compares the names of the `STAT` lines, without the names that only one version has. The names of classes
/// (`items:3:age`) are not compared, because the classes differ from server to server.
fn names(request: &Request, theirs: &[u8], ours: &[u8], oracle: Program) -> Option<usize> {
    let end = ours.windows(5).position(|bytes| bytes == b"END\r\n")? + 5;
    let words = request.words();
    let of_classes = matches!(words.get(1), Some(&(b"items" | b"slabs")));
    if of_classes {
        // A server may have no items, or no items in a class that the other server uses.
        let whole = ours[..end - 5].split_inclusive(|&byte| byte == b'\n').all(|line| line.starts_with(b"STAT "));
        return whole.then_some(end);
    }
    let names = |text: &[u8]| -> Vec<String> {
        let lines = String::from_utf8_lossy(text);
        let names = lines.lines().map(|line| line.split(' ').nth(1).unwrap_or(line).to_owned());
        names.filter(|name| !differences::is_of_one(oracle, name)).collect()
    };
    (names(theirs) == names(&ours[..end])).then_some(end)
}
