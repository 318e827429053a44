//! Replies of a server, in any protocol, from a stream of bytes that may be cut anywhere.
//!
//! The parser keeps one number between calls: the bytes to come of an open data block. The caller keeps an unfinished
//! line, and passes it again with more bytes behind it. The parser returns data as it arrives, so a value of any size
//! needs no memory. It does not know the requests: the caller matches replies with them.

use memchr::memchr;

use crate::resp;
use crate::workload::Protocol;

/// A line longer than this is not a reply (keys end at 250 bytes, error texts at a few dozen).
pub const LINE_SIZE_MAX: usize = 4096;

/// A piece of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `VALUE <key> <flags> <length>`; or `VA <length>`, with the key if the request had the flag k; or `$<length>`.
    /// Data follows.
    Value {
        /// As the server wrote it.
        key: Option<&'a [u8]>,
        /// Bytes of the value.
        length: usize,
    },
    /// The next bytes of the value.
    Data {
        /// Empty at most at the end of the value.
        bytes: &'a [u8],
        /// These bytes complete the value.
        last: bool,
    },
    /// `END`, `EN` or `MN`: the end of a get.
    End,
    /// `*<n>`: the replies for so many keys of a RESP get follow.
    Several(usize),
    /// `$-1`: the next key of a RESP get has no value.
    Missing,
    /// `STORED`, `HD` or `+OK`.
    Stored,
    /// Any other line: `ERROR`, `SERVER_ERROR …`, `NOT_STORED`, `-<error>`, or an unknown one.
    Other(&'a [u8]),
}

/// The stream is malformed; the parser cannot interpret the rest.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub String);

/// Splits a stream into replies, and remembers its place in it.
#[derive(Debug, Default)]
pub struct Parser {
    /// Bytes to come of the open data block, its `\r\n` included; 0 between replies.
    data_left: usize,
}

impl Parser {
    /// Takes the next piece off `input`. `None`: `input` holds no complete piece; call again with the rest and more
    /// bytes.
    #[inline]
    pub fn next<'a>(&mut self, protocol: Protocol, input: &mut &'a [u8]) -> Result<Option<Reply<'a>>, Broken> {
        if self.data_left > 0 {
            return self.data(input);
        }
        let Some(end) = memchr(b'\n', input) else {
            return if input.len() > LINE_SIZE_MAX { Err(broken("line without end", input)) } else { Ok(None) };
        };
        let line = &input[..end];
        *input = &input[end + 1..];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let reply = match protocol {
            Protocol::Classic | Protocol::Meta => text(line)?,
            Protocol::Resp => resp::reply(line)?,
        };
        if let Reply::Value { length, .. } = reply {
            self.data_left = length + 2;
        }
        Ok(Some(reply))
    }

    #[inline]
    fn data<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Reply<'a>>, Broken> {
        let all = input.len() >= self.data_left;
        let (block, rest) = input.split_at(if all { self.data_left } else { input.len().min(self.data_left - 2) });
        let bytes = if all { &block[..block.len() - 2] } else { block };
        if all && !block.ends_with(b"\r\n") {
            return Err(broken("data block that does not end in \\r\\n, but in", &block[bytes.len()..]));
        }
        if !all && bytes.is_empty() {
            return Ok(None);
        }
        *input = rest;
        self.data_left -= block.len();
        Ok(Some(Reply::Data { bytes, last: all }))
    }
}

/// Reads a line of memcached's protocols.
#[inline]
fn text(line: &[u8]) -> Result<Reply<'_>, Broken> {
    let value = match line {
        [b'V', b'A', b'L', b'U', b'E', b' ', rest @ ..] => classic_value(rest),
        [b'V', b'A', b' ', rest @ ..] => meta_value(rest),
        b"END" | b"EN" | b"MN" => return Ok(Reply::End),
        b"STORED" | b"HD" => return Ok(Reply::Stored),
        _ => return Ok(Reply::Other(line)),
    };
    let (key, length) = value.ok_or_else(|| broken("value line that cannot be understood", line))?;
    Ok(Reply::Value { key, length })
}

/// Parses `<key> <flags> <length>` from the end, where the short tokens are.
fn classic_value(line: &[u8]) -> Option<(Option<&[u8]>, usize)> {
    let (rest, length) = last_number(line)?;
    let (key, _flags) = last_number(rest)?;
    Some((Some(key), length))
}

/// Parses `<length> <flag>*`.
fn meta_value(line: &[u8]) -> Option<(Option<&[u8]>, usize)> {
    let digits = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let length = number(&line[..digits])?;
    let key = line[digits..].split(|byte| *byte == b' ').find_map(|flag| flag.strip_prefix(b"k"));
    Some((key, length))
}

fn last_number(line: &[u8]) -> Option<(&[u8], usize)> {
    let space = line.iter().rposition(|byte| *byte == b' ')?;
    Some((&line[..space], number(&line[space + 1..])?))
}

/// A decimal number of at most 15 digits.
pub fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 15 {
        return None;
    }
    let mut number = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + usize::from(digit);
    }
    Some(number)
}

/// What is wrong with these bytes, of which it quotes the first hundred.
pub fn broken(what: &str, bytes: &[u8]) -> Broken {
    Broken(format!("{what}: \"{}\"", bytes[..bytes.len().min(100)].escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses all parts into text, one line per reply. It joins data, so that the cuts do not show.
    fn parse(protocol: Protocol, parts: &[&[u8]]) -> String {
        let (mut parser, mut carried, mut out) = (Parser::default(), Vec::new(), String::new());
        for part in parts {
            carried.extend_from_slice(part);
            let mut rest = carried.as_slice();
            loop {
                match parser.next(protocol, &mut rest) {
                    Ok(None) => break,
                    Ok(Some(Reply::Value { key, length })) => {
                        let key = key.map(|key| String::from_utf8_lossy(key).into_owned());
                        out += &format!("value {} {length} ", key.as_deref().unwrap_or("-"));
                    }
                    Ok(Some(Reply::Data { bytes, last })) => {
                        out += &bytes.escape_ascii().to_string();
                        out += if last { "\n" } else { "" };
                    }
                    Ok(Some(Reply::End)) => out += "end\n",
                    Ok(Some(Reply::Several(count))) => out += &format!("several {count}\n"),
                    Ok(Some(Reply::Missing)) => out += "missing\n",
                    Ok(Some(Reply::Stored)) => out += "stored\n",
                    Ok(Some(Reply::Other(line))) => out += &format!("other {}\n", line.escape_ascii()),
                    Err(Broken(why)) => return out + "broken " + &why,
                }
            }
            carried = rest.to_vec();
        }
        assert!(carried.len() <= LINE_SIZE_MAX);
        out + &carried.escape_ascii().to_string()
    }

    /// Expects the same replies from the whole stream, from every two parts of it, and byte by byte.
    fn check(protocol: Protocol, stream: &[u8], expected: &str) {
        assert_eq!(parse(protocol, &[stream]), expected);
        for cut in 0..=stream.len() {
            assert_eq!(parse(protocol, &[&stream[..cut], &stream[cut..]]), expected, "cut at {cut}");
        }
        assert_eq!(parse(protocol, &stream.chunks(1).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn classic_replies_cut_anywhere() {
        check(
            Protocol::Classic,
            b"VALUE k 0 5\r\na\r\nbc\r\nVALUE a b 4294967295 0\r\n\r\nEND\r\nSTORED\r\nEND\r\nSERVER_ERROR out of x\r\n\
              NOT_STORED\r\nERROR\r\nEND",
            "value k 5 a\\r\\nbc\nvalue a b 0 \nend\nstored\nend\nother SERVER_ERROR out of x\nother NOT_STORED\n\
             other ERROR\nEND",
        );
    }

    #[test]
    fn meta_replies_cut_anywhere() {
        check(
            Protocol::Meta,
            b"VA 2\r\nxy\r\nEN\r\nHD\r\nVA 3 kabc\r\n\r\n\n\r\nVA 0 f1 kz t-1\r\n\r\nMN\r\nNS\r\n",
            "value - 2 xy\nend\nstored\nvalue abc 3 \\r\\n\\n\nvalue z 0 \nend\nother NS\n",
        );
    }

    #[test]
    fn resp_replies_cut_anywhere() {
        check(
            Protocol::Resp,
            b"+OK\r\n$-1\r\n$5\r\na\r\nbc\r\n$0\r\n\r\n-OOM command not allowed\r\n:12\r\n+PONG\r\n+OK",
            "stored\nmissing\nvalue - 5 a\\r\\nbc\nvalue - 0 \nother -OOM command not allowed\nother :12\nother +PONG\n\
             +OK",
        );
        check(
            Protocol::Resp,
            b"*3\r\n$2\r\n$1\r\n$-1\r\n$1\r\n*\r\n*0\r\n",
            "several 3\nvalue - 2 $1\nmissing\nvalue - 1 *\nseveral 0\n",
        );
    }

    #[test]
    fn nonsense_is_broken_not_a_hang() {
        for line in ["VALUE k 0 x", "VALUE 5", "VA 99999999999999999999"] {
            let expected = format!("broken value line that cannot be understood: \"{line}\"");
            check(Protocol::Classic, format!("{line}\r\n").as_bytes(), &expected);
        }
        for line in ["$", "$x", "$-2", "$99999999999999999999", "*", "*-1"] {
            let expected = format!("broken length that cannot be understood: \"{line}\"");
            check(Protocol::Resp, format!("{line}\r\n").as_bytes(), &expected);
        }
        check(Protocol::Resp, b"+OK\r\nERROR\r\n", "stored\nbroken line that is not RESP: \"ERROR\"");
        check(Protocol::Resp, b"\r\n", "broken line that is not RESP: \"\"");
        let end = "broken data block that does not end in";
        assert!(parse(Protocol::Meta, &[b"VA 1\r\nabc\r\n"]).contains(end));
        assert!(parse(Protocol::Resp, &[b"$1\r\nabc\r\n"]).contains(end));
        for protocol in [Protocol::Classic, Protocol::Resp] {
            assert!(parse(protocol, &[&[b'+'; LINE_SIZE_MAX + 1]]).starts_with("broken line without end"));
        }
    }
}
