//! Finds where one message of a run of replies ends and the next begins. By UDP each message is sent in datagrams of its
//! own.
//!
//! The rules are memcached's. Each value of a retrieval is a message, and the `END` behind the last value belongs to it. All
//! lines of a statistic are one message, and so are all its packets in the binary protocol. Every other line or packet is
//! a message.

use super::packet::{RESPONSE, opcode};
use memchr::memchr;

/// The terminator of lists.
const END: &[u8] = b"END\r\n";
/// Bytes of a header of the binary protocol.
const BINARY_HEADER_LEN: usize = 24;

/// The length of the first message of `replies`; the length of `replies` if the message has no end.
///
/// It only reads replies that this server has written. A reply that it does not know counts as a line.
pub fn first_len(replies: &[u8]) -> usize {
    let len = match replies.first() {
        Some(&RESPONSE) => binary_len(replies),
        _ => text_len(replies),
    };
    len.unwrap_or(replies.len()).min(replies.len())
}

fn text_len(replies: &[u8]) -> Option<usize> {
    let line_len = memchr(b'\n', replies)? + 1;
    let mut tokens = replies[..line_len].trim_ascii_end().split(|&byte| byte == b' ');
    let number = |token: Option<&[u8]>| std::str::from_utf8(token?).ok()?.parse::<usize>().ok();
    match tokens.next()? {
        // VALUE <key> <flags> <bytes> [<cas>]
        b"VALUE" => {
            let value_end = line_len + number(tokens.nth(2))? + 2;
            let last = replies.get(value_end..).is_some_and(|rest| rest.starts_with(END));
            Some(value_end + if last { END.len() } else { 0 })
        }
        // VA <bytes> <flags>*
        b"VA" => Some(line_len + number(tokens.next())? + 2),
        b"STAT" | b"ITEM" | b"PREFIX" => {
            let mut end = 0;
            loop {
                let rest = &replies[end..];
                end += memchr(b'\n', rest)? + 1;
                if rest.starts_with(END) {
                    return Some(end);
                }
            }
        }
        _ => Some(line_len),
    }
}

fn binary_len(replies: &[u8]) -> Option<usize> {
    let mut end = 0;
    loop {
        let header = replies.get(end..end + BINARY_HEADER_LEN)?;
        let body_len = u32::from_be_bytes(*header[8..].first_chunk()?) as usize;
        end += BINARY_HEADER_LEN + body_len;
        if header[1] != opcode::STAT || body_len == 0 || header[6..8] != [0, 0] {
            return Some(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(mut replies: &[u8]) -> Vec<String> {
        let mut messages = Vec::new();
        while !replies.is_empty() {
            let (message, rest) = replies.split_at(first_len(replies));
            messages.push(message.escape_ascii().to_string());
            replies = rest;
        }
        messages
    }

    #[test]
    fn text_is_cut_where_memcached_cuts_it() {
        for messages in [
            &["STORED\r\n"][..],
            &["END\r\n"],
            &["VALUE a 0 1\r\nx\r\nEND\r\n"],
            &["VALUE a 0 1\r\nx\r\n", "VALUE b 5 5 77\r\nEND\r\n\r\nEND\r\n", "MN\r\n"],
            // The values look like replies.
            &["VALUE a 0 12\r\nVALUE b 0 1\n\r\nEND\r\n", "VA 4\r\n\r\n\r\n\r\n", "HD\r\n"],
            &["VA 1 ka O5\r\nx\r\n", "EN\r\n", "ME a exp=-1 la=0\r\n", "MN\r\n"],
            &["STAT a 1\r\nSTAT b END\r\nEND\r\n", "RESET\r\n", "ITEM a [1 b; 0 s]\r\nEND\r\n", "END\r\n"],
            &["PREFIX a get 1 hit 1 set 1 del 0\r\nEND\r\n", "VERSION 1.6.45\r\n", "5\r\n"],
            &["CLIENT_ERROR bad data chunk\r\n", "ERROR\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n"],
        ] {
            let expected: Vec<String> = messages.iter().map(|it| it.as_bytes().escape_ascii().to_string()).collect();
            assert_eq!(cut(messages.concat().as_bytes()), expected);
        }
    }

    #[test]
    fn binary_is_cut_by_packets_and_statistics_are_one_message() {
        let packet = |opcode: u8, body: &[u8]| {
            let mut packet = vec![RESPONSE, opcode];
            packet.extend([0; 6]);
            packet.extend((body.len() as u32).to_be_bytes());
            packet.extend([0; 12]);
            packet.extend(body);
            packet
        };
        let statistics = [packet(opcode::STAT, b"pid1"), packet(opcode::STAT, b"uptime2"), packet(opcode::STAT, b"")];
        let messages = [packet(0, b"\0\0\0\0value"), statistics.concat(), packet(0x0a, b"")];
        let expected: Vec<String> = messages.iter().map(|it| it.escape_ascii().to_string()).collect();
        assert_eq!(cut(&messages.concat()), expected);
    }

    #[test]
    fn what_has_no_end_is_one_message() {
        for text in
            ["", "STORED", "VALUE a 0 100\r\nx\r\n", "VALUE a\r\n", "VA x\r\n", "STAT a 1\r\nSTAT b 2\r\n", "\u{81}"]
        {
            assert_eq!(first_len(text.as_bytes()), text.len(), "{text:?}");
        }
        assert_eq!(first_len(&[RESPONSE, opcode::STAT, 0]), 3);
    }
}
