//! One connection reads a dump of all keys, at the pace that the server gives, and then the next.

use std::net::SocketAddr;

use mio::{Registry, Token};

use super::link::Link;
use super::{Disturber, Kind};

const REQUEST: &[u8] = b"lru_crawler metadump all\r\n";

/// Bytes of a read: a step must be short.
const BUFFER_SIZE: usize = 32 << 10;

/// Nanoseconds until the next attempt, if the server is busy with another dump.
const RETRY: u64 = 5_000_000;

/// The last line of a dump.
const END: &[u8] = b"END\r\n";

/// A line that is longer is none of those that end a reply.
const LINE_MAX: usize = 64;

pub struct Dump {
    link: Link,
    buffer: Box<[u8]>,
    reply: Reply,
    /// A reply is under way.
    waiting: bool,
    /// When to ask next.
    due: u64,
}

impl Dump {
    pub fn begin(admin: SocketAddr, registry: &Registry, token: Token) -> Result<Dump, String> {
        let buffer = vec![0; BUFFER_SIZE].into_boxed_slice();
        let link = Link::open(admin, registry, token)?;
        Ok(Dump { link, buffer, reply: Reply::default(), waiting: false, due: 0 })
    }
}

impl Disturber for Dump {
    fn kind(&self) -> Kind {
        Kind::Dumps
    }

    fn wake(&mut self) {
        self.link.wake();
    }

    fn step(&mut self, now: u64, _: &Registry, _: Token) -> Result<u64, String> {
        if !self.waiting {
            if now < self.due {
                return Ok(0);
            }
            self.link.send(REQUEST);
            self.link.flush()?;
            self.waiting = true;
        }
        let bytes = self.link.read(&mut self.buffer)?;
        let count = bytes.len() as u64;
        match self.reply.take(bytes) {
            End::NotYet => return Ok(count),
            End::Refused(line) => return Err(format!("metadump: {line}")),
            End::Busy => self.due = now + RETRY,
            End::Whole => {}
        }
        self.waiting = false;
        Ok(count)
    }
}

/// The last line of a reply so far, without the bytes that cannot matter.
#[derive(Default)]
struct Reply {
    line: Vec<u8>,
}

#[derive(Debug, PartialEq)]
enum End {
    NotYet,
    Whole,
    Busy,
    Refused(String),
}

impl Reply {
    /// The next bytes of the reply. Only its last bytes can be its end.
    fn take(&mut self, bytes: &[u8]) -> End {
        let tail = &bytes[bytes.len().saturating_sub(LINE_MAX)..];
        self.line.extend_from_slice(tail);
        let Some(body) = self.line.strip_suffix(b"\n") else {
            self.trim(0);
            return End::NotYet;
        };
        let start = body.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let line = &self.line[start..];
        let end = match line {
            END => End::Whole,
            _ if line.starts_with(b"BUSY") || line.starts_with(b"ERROR locked") => End::Busy,
            _ if line.starts_with(b"ERROR") || line.starts_with(b"CLIENT_ERROR") => {
                End::Refused(String::from_utf8_lossy(line).trim_end().to_owned())
            }
            _ => End::NotYet,
        };
        if end == End::NotYet {
            self.trim(start);
        } else {
            self.line.clear();
        }
        end
    }

    /// Keeps the bytes from `start` on, and of a long line only its end.
    fn trim(&mut self, start: usize) {
        let start = start.max(self.line.len().saturating_sub(LINE_MAX));
        self.line.drain(..start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_ends_with_its_last_line() {
        let dump = b"key=END exp=-1 la=1 cas=1 fetch=no cls=1 size=63 flags=0\nkey=xEND\nEND\r\n";
        for cut in 1..dump.len() {
            let mut reply = Reply::default();
            assert_eq!(reply.take(&dump[..cut]), End::NotYet, "cut at {cut}");
            assert_eq!(reply.take(&dump[cut..]), End::Whole, "cut at {cut}");
            assert_eq!(reply.take(b"END\r\n"), End::Whole, "an empty cache");
        }
    }

    #[test]
    fn a_refusal_is_not_a_dump() {
        let mut reply = Reply::default();
        assert_eq!(reply.take(b"BUSY currently processing crawler request\r\n"), End::Busy);
        assert_eq!(reply.take(b"ERROR locked try again later\r\n"), End::Busy);
        let refused = End::Refused("ERROR metadump not allowed".into());
        assert_eq!((reply.take(b"ERROR metadump "), reply.take(b"not allowed\r\n")), (End::NotYet, refused));
    }
}
