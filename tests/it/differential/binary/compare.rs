//! Compares the packets of a reply with the expected ones byte for byte, but for two exceptions. Each server chooses
//! its own CAS values, and statistics differ.

use super::super::compare::CasPairs;
use super::super::differences;
use super::differences::NAMES;
use super::frame::{HEADER_LEN, Request, reply};

/// The length of our reply at the start of `ours`, if it matches `theirs`.
pub(super) fn matching(request: &Request, theirs: &[u8], ours: &[u8], pairs: &mut CasPairs) -> Option<usize> {
    if !request.is_last() && request.is_stat() {
        if matches!(request.key(), b"items" | b"slabs") {
            return of_classes(ours);
        }
        if status(theirs) == 0 {
            return statistics(request, theirs, ours);
        }
    }
    let mut at = 0;
    while at < theirs.len() {
        let (theirs, ours) = (reply(&theirs[at..])?, reply(&ours[at..])?);
        let cas = |packet: &[u8]| packet[16..HEADER_LEN].iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        let is_same = theirs[..16] == ours[..16] && theirs[HEADER_LEN..] == ours[HEADER_LEN..];
        if !is_same || !pairs.agree(request.key(), cas(ours), cas(theirs)) {
            return None;
        }
        at += theirs.len();
    }
    Some(at)
}

fn status(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[6], packet[7]])
}

/// The packets of statistics without the last one, and the end of the last one.
fn series(bytes: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let (mut packets, mut at) = (Vec::new(), 0);
    loop {
        let packet = reply(&bytes[at..])?;
        at += packet.len();
        if packet.len() == HEADER_LEN {
            return Some((packets, at));
        }
        packets.push(packet);
    }
}

/// Statistics of classes must come in packets. The contents are not compared, because each server has its own classes.
/// A server without items has no classes, and may notice only later that an item is gone.
fn of_classes(ours: &[u8]) -> Option<usize> {
    const NOT_FOUND: u16 = 1;
    match status(reply(ours)?) {
        0 => series(ours).map(|(_, end)| end),
        NOT_FOUND => reply(ours).map(<[u8]>::len),
        _ => None,
    }
}

/// Compares only the names of statistics. It also compares how often the client has used each prefix, because both
/// servers must count this alike.
fn statistics(request: &Request, theirs: &[u8], ours: &[u8]) -> Option<usize> {
    let key = |packet: &[u8]| Request { bytes: packet.to_vec(), is_cut: false }.key().to_vec();
    let (their_packets, _) = series(theirs)?;
    let (our_packets, end) = series(ours)?;
    let is_excused = |name: &str| {
        let mut rows = differences::NAMES.iter().chain(NAMES);
        rows.any(|(names, _)| names.split(' ').any(|other| other == name))
    };
    let heads_agree = our_packets.iter().chain([&&ours[end - HEADER_LEN..end]]).all(|ours| {
        // Compares magic, opcode, data type, opaque and CAS. The lengths depend on the names and values.
        [0..2, 4..8, 12..HEADER_LEN].into_iter().all(|part| ours[part.clone()] == theirs[part])
    });
    let agree = if request.key().starts_with(b"detail") {
        // The servers report prefixes in any order.
        let lines = |packets: &[&[u8]]| {
            let mut lines: Vec<Vec<u8>> = Vec::new();
            for packet in packets {
                lines.extend(packet[HEADER_LEN + key(packet).len()..].split(|&byte| byte == b'\n').map(<[u8]>::to_vec));
            }
            lines.sort();
            lines
        };
        lines(&their_packets) == lines(&our_packets)
    } else {
        let names_of = |packets: &[&[u8]]| {
            let names_of = packets.iter().map(|packet| String::from_utf8_lossy(&key(packet)).into_owned());
            names_of.filter(|name| !is_excused(name)).collect::<Vec<_>>()
        };
        names_of(&their_packets) == names_of(&our_packets)
    };
    (heads_agree && agree).then_some(end)
}

/// Whether two replies of the classic or the meta protocol match. The CAS of this key may differ: it is the last word
/// of a `VALUE` line, or it follows a `c`.
pub(super) fn lines_match(key: &[u8], theirs: &[u8], ours: &[u8], pairs: &mut CasPairs) -> bool {
    let split = |reply: &[u8]| {
        let end = reply.iter().position(|&byte| byte == b'\n').unwrap_or(reply.len());
        let words: Vec<Vec<u8>> = reply[..end].split(|byte| b" \r".contains(byte)).map(<[u8]>::to_vec).collect();
        (words, reply[end..].to_vec())
    };
    let ((their_words, their_rest), (our_words, our_rest)) = (split(theirs), split(ours));
    let number = |word: &[u8]| str::from_utf8(word).ok()?.parse::<u64>().ok();
    let is_value = their_words[0] == b"VALUE";
    let mut words = their_words.iter().zip(&our_words).enumerate();
    let same_words = words.all(|(index, (theirs, ours))| {
        let cas = |word: &[u8]| match index {
            4 if is_value => number(word),
            1.. if !is_value => number(word.strip_prefix(b"c")?),
            _ => None,
        };
        match (cas(theirs), cas(ours)) {
            (Some(theirs), Some(ours)) => pairs.agree(key, ours, theirs),
            _ => theirs == ours,
        }
    });
    their_words.len() == our_words.len() && same_words && their_rest == our_rest
}
