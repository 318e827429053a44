//! The one connection of a replay: it sends a batch of gets, reads the replies, and sets the missing keys.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::replay::trace::Request;
use crate::reply::{Broken, Parser, Reply};
use crate::workload::Protocol;

const BUFFER_SIZE: usize = 256 << 10;

/// A server that is silent for so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A blocking connection.
pub struct Connection<S> {
    stream: S,
    out: Vec<u8>,
    buffer: Vec<u8>,
    /// `buffer[start..end]` has been read and not parsed yet. Invariant: start <= end <= buffer.len().
    start: usize,
    end: usize,
    parser: Parser,
}

impl Connection<TcpStream> {
    /// Connects to `host:port`.
    pub fn open(server: &str) -> Result<Connection<TcpStream>, String> {
        let fail = |error| format!("cannot connect to {server}: {error}");
        let addresses: Vec<_> = server.to_socket_addrs().map_err(fail)?.collect();
        let stream = TcpStream::connect(addresses.as_slice()).map_err(fail)?;
        stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(PATIENCE))).map_err(fail)?;
        Ok(Connection::new(stream))
    }
}

impl<S: Read + Write> Connection<S> {
    pub fn new(stream: S) -> Connection<S> {
        let buffer = vec![0; BUFFER_SIZE];
        Connection { stream, out: Vec::new(), buffer, start: 0, end: 0, parser: Parser::default() }
    }

    /// Sends a get for each key, all in one write. Adds to `found` whether the server had each key.
    pub fn get(&mut self, batch: &[Request], found: &mut Vec<bool>) -> Result<(), String> {
        for request in batch {
            self.out.extend_from_slice(b"get ");
            self.out.extend_from_slice(&request.key);
            self.out.extend_from_slice(b"\r\n");
        }
        self.write()?;
        for request in batch {
            let mut hit = false;
            self.answer(|reply| match reply {
                Reply::Value { key, .. } if key == Some(&request.key) && !hit => {
                    hit = true;
                    Ok(false)
                }
                Reply::Data { .. } => Ok(false),
                Reply::End => Ok(true),
                other => Err(unexpected(request, &other)),
            })?;
            found.push(hit);
        }
        Ok(())
    }

    /// Asks for numbered keys in one `get`. Adds to `found` whether the server had each key.
    pub fn get_together(
        &mut self,
        ids: impl Iterator<Item = u64> + Clone,
        found: &mut Vec<bool>,
    ) -> Result<(), String> {
        self.out.extend_from_slice(b"get");
        for id in ids.clone() {
            self.out.push(b' ');
            write_key(id, &mut self.out);
        }
        self.out.extend_from_slice(b"\r\n");
        self.write()?;
        // Replies come in the order of the request, without the keys that are missing.
        let (mut expected, mut key) = (ids, Vec::new());
        self.answer(|reply| match reply {
            Reply::Value { key: Some(hit), .. } => {
                for id in expected.by_ref() {
                    key.clear();
                    write_key(id, &mut key);
                    found.push(key == hit);
                    if key == hit {
                        return Ok(false);
                    }
                }
                Err(format!("{}: not asked for, or out of order", hit.escape_ascii()))
            }
            Reply::Data { .. } => Ok(false),
            Reply::End => {
                found.extend(expected.by_ref().map(|_| false));
                Ok(true)
            }
            other => Err(format!("get: unexpected {other:?}")),
        })
    }

    /// Stores a value of the given size under each numbered key. Counts refused sets.
    pub fn set_numbered(&mut self, items: &[(u64, usize)]) -> Result<u64, String> {
        let request = |&(id, size): &(u64, usize)| {
            let mut key = Vec::new();
            write_key(id, &mut key);
            Request { key, size: Some(size), scan: false }
        };
        let requests: Vec<Request> = items.iter().map(request).collect();
        self.set(requests.iter(), 0)
    }

    /// Stores `requests` in order. Each value has the size of its request, or else `size` bytes. Counts refused sets.
    pub fn set<'a>(&mut self, requests: impl Iterator<Item = &'a Request> + Clone, size: usize) -> Result<u64, String> {
        for request in requests.clone() {
            let size = request.size.unwrap_or(size);
            self.out.extend_from_slice(b"set ");
            self.out.extend_from_slice(&request.key);
            self.out.extend_from_slice(format!(" 0 0 {size}\r\n").as_bytes());
            self.out.resize(self.out.len() + size, b'v');
            self.out.extend_from_slice(b"\r\n");
        }
        self.write()?;
        let mut refused = 0;
        for request in requests {
            self.answer(|reply| match reply {
                Reply::Stored => Ok(true),
                Reply::Other(line) if line.starts_with(b"SERVER_ERROR") => {
                    refused += 1;
                    Ok(true)
                }
                other => Err(unexpected(request, &other)),
            })?;
        }
        Ok(refused)
    }

    fn write(&mut self) -> Result<(), String> {
        let written = self.stream.write_all(&self.out).map_err(|error| format!("writing failed: {error}"));
        self.out.clear();
        written
    }

    /// Passes replies to `take` until it reports that the answer is complete.
    fn answer(&mut self, mut take: impl FnMut(Reply<'_>) -> Result<bool, String>) -> Result<(), String> {
        loop {
            let mut rest = &self.buffer[self.start..self.end];
            let reply = self
                .parser
                .next(Protocol::Classic, &mut rest)
                .map_err(|Broken(why)| format!("the server sent a {why}"))?;
            let done = reply.map(&mut take).transpose()?;
            self.start = self.end - rest.len();
            match done {
                Some(true) => return Ok(()),
                Some(false) => {}
                None => self.read()?,
            }
        }
    }

    fn read(&mut self) -> Result<(), String> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        match self.stream.read(&mut self.buffer[self.end..]) {
            Ok(0) => Err("the server closed the connection".into()),
            Ok(count) => {
                self.end += count;
                Ok(())
            }
            Err(error) => Err(format!("reading failed: {error}")),
        }
    }
}

/// Appends the key of a number: `key:` and 16 digits, to base 16.
fn write_key(id: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"key:");
    out.extend((0..16).rev().map(|digit| b"0123456789abcdef"[(id >> (4 * digit)) as usize & 15]));
}

fn unexpected(request: &Request, reply: &Reply<'_>) -> String {
    let what = match reply {
        Reply::Other(line) => format!("\"{}\"", line.escape_ascii()),
        other => format!("{other:?}"),
    };
    format!("{}: unexpected {what}", request.key.escape_ascii())
}

#[cfg(test)]
pub mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A server with prepared replies. It sends them one byte at a time.
    pub struct Script {
        pub replies: VecDeque<u8>,
        pub asked: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let Some(byte) = self.replies.pop_front() else { return Ok(0) };
            buffer[0] = byte;
            Ok(1)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.asked.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    pub fn script(replies: &str) -> Connection<Script> {
        Connection::new(Script { replies: replies.bytes().collect(), asked: Vec::new() })
    }

    fn request(key: &str, size: Option<usize>) -> Request {
        Request { key: key.into(), size, scan: false }
    }

    #[test]
    fn gets_and_the_sets_behind_them() {
        let batch = [request("a", None), request("b", Some(3)), request("c", None)];
        let replies = "VALUE a 0 2\r\nxy\r\nEND\r\nEND\r\nEND\r\nSTORED\r\nSERVER_ERROR out of memory\r\n";
        let (mut connection, mut found) = (script(replies), Vec::new());
        connection.get(&batch, &mut found).expect("answers");
        assert_eq!(found, [true, false, false]);
        assert_eq!(connection.set(batch[1..].iter(), 1), Ok(1));
        let asked = String::from_utf8_lossy(&connection.stream.asked).into_owned();
        assert_eq!(asked, "get a\r\nget b\r\nget c\r\nset b 0 0 3\r\nvvv\r\nset c 0 0 1\r\nv\r\n");
    }

    #[test]
    fn a_get_of_many_keys_finds_those_that_answer() {
        let key = |id: u64| format!("key:{id:016x}");
        let replies = format!("VALUE {} 0 2\r\nxy\r\nVALUE {} 0 0\r\n\r\nEND\r\n", key(7), key(7));
        let (mut connection, mut found) = (script(&replies), Vec::new());
        connection.get_together([5, 7, 6, 7, 9].into_iter(), &mut found).expect("answers");
        assert_eq!(found, [false, true, false, true, false]);
        let replies = format!("VALUE {} 0 0\r\n\r\nEND\r\n", key(8));
        assert!(script(&replies).get_together([5, 7].into_iter(), &mut Vec::new()).is_err());
    }

    #[test]
    fn wrong_answers_end_the_replay() {
        for (replies, expected) in [
            ("VALUE b 0 0\r\n\r\nEND\r\n", "a: unexpected Value"),
            ("ERROR\r\n", "a: unexpected \"ERROR\""),
            ("", "the server closed the connection"),
        ] {
            let why = script(replies).get(&[request("a", None)], &mut Vec::new()).expect_err("it is wrong");
            assert!(why.contains(expected), "{why}");
        }
    }
}
