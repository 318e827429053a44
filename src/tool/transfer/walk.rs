//! The list of a server's keys: `lru_crawler metadump`. `mgdump` is shorter, but it writes the keys of binary clients as
//! they are, also those with a line end, and tells neither sizes nor ages.

use super::item::KEY_BYTES_MAX;
use crate::tool::client::Connection;
use crate::tool::target::Target;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How long another walk of the server may make this one wait: a server has one at a time, and begins some itself.
const BUSY_MAX: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A key that a server lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) key: Vec<u8>,
    /// Bytes of header, key and value.
    pub(super) size: u32,
    /// Unix time of the last access.
    pub(super) last_access: u32,
}

/// A list that is being read. The server writes it as it is read, so it takes no memory.
#[derive(Debug)]
pub(super) struct Walk {
    connection: Connection,
    prefix: Vec<u8>,
    key: Vec<u8>,
    /// The first line, which said that the walk has begun.
    first: Option<Vec<u8>>,
    /// Lines so far, also of keys without the prefix.
    pub(super) lines: u64,
    /// Items of the server when the walk began, as `stats` has them.
    pub(super) items: Option<u64>,
}

impl Walk {
    /// Begins a walk through the keys with a prefix.
    ///
    /// # Errors
    /// Those of the connection, and the words of a server that lists no keys.
    pub(super) fn begin(target: &Target, prefix: &[u8]) -> io::Result<Walk> {
        let mut connection = Connection::open(target)?;
        let items = connection.stats("")?.and_then(|stats| stats.text("curr_items")?.parse().ok());
        let mut first = begin(&mut connection, "hash")?;
        // memcached walks its hash table only while that does not grow, and older ones not at all.
        if first == b"END" && items != Some(0) || first.starts_with(b"BADCLASS") {
            first = begin(&mut connection, "all")?;
        }
        if first != b"END" && !first.starts_with(b"key=") {
            return Err(refusal(&first));
        }
        Ok(Walk { connection, prefix: prefix.to_vec(), key: Vec::new(), first: Some(first), lines: 0, items })
    }

    /// The next key, or `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Listed>> {
        loop {
            let first = self.first.take();
            let line = match &first {
                Some(line) => line,
                None => self.connection.raw_line()?,
            };
            if line == b"END" {
                // Whoever asks again gets the same answer.
                self.first = Some(b"END".to_vec());
                return Ok(None);
            }
            let Some((size, last_access)) = read(line, &mut self.key) else { return Err(refusal(line)) };
            self.lines += 1;
            if self.key.starts_with(&self.prefix) {
                return Ok(Some(Listed { key: self.key.clone(), size, last_access }));
            }
        }
    }
}

/// Asks for a list, and returns its first line behind `OK`, which not all servers send.
fn begin(connection: &mut Connection, which: &str) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + BUSY_MAX;
    loop {
        connection.send(&format!("lru_crawler metadump {which}"))?;
        let line = connection.raw_line()?;
        if line == b"OK" {
            return Ok(connection.raw_line()?.to_vec());
        }
        if !line.starts_with(b"BUSY") {
            return Ok(line.to_vec());
        }
        if Instant::now() > deadline {
            return Err(io::Error::other("another walk through its items does not end: it says BUSY"));
        }
        thread::sleep(LOOK_AGAIN);
    }
}

fn refusal(line: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(line).replace(char::is_control, "\u{fffd}");
    let text: String = text.chars().take(200).collect();
    io::Error::other(match text.as_str() {
        _ if text.contains("unauthenticated") => "the server wants a login: --user and --password-file".to_owned(),
        _ if text.contains("access denied") => "the user may not list keys: that needs the right admin".to_owned(),
        _ if text.contains("not allowed") => format!("it lists no keys (-X): \"{text}\""),
        "ERROR" => "it does not list its keys: it knows no \"lru_crawler metadump\"".to_owned(),
        _ => format!("to \"lru_crawler metadump\" it says \"{text}\""),
    })
}

/// Reads a line such as `key=a%20b exp=-1 la=1795835473 cas=2 fetch=yes cls=1 size=67 flags=0 `: the key, its size and its
/// last access.
fn read(line: &[u8], key: &mut Vec<u8>) -> Option<(u32, u32)> {
    let mut words = line.split(|&byte| byte == b' ');
    decode(words.next()?.strip_prefix(b"key=")?, key)?;
    let (mut size, mut last_access) = (None, None);
    for word in words {
        if let Some(digits) = word.strip_prefix(b"size=") {
            size = number(digits);
        } else if let Some(digits) = word.strip_prefix(b"la=") {
            last_access = number(digits);
        }
    }
    // An age of the future or of no u32 is a clock that was set. It does not matter much.
    Some((size?, last_access?))
}

fn number(digits: &[u8]) -> Option<u32> {
    let number: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(number.clamp(0, i64::from(u32::MAX)) as u32)
}

/// Replaces `key` by the bytes of a key with `%XX`.
fn decode(encoded: &[u8], key: &mut Vec<u8>) -> Option<()> {
    key.clear();
    let mut rest = encoded;
    while let [byte, others @ ..] = rest {
        rest = others;
        match byte {
            b'%' => {
                let (code, others) = rest.split_at_checked(2)?;
                let digit = |at: usize| char::from(code[at]).to_digit(16);
                key.push((digit(0)? << 4 | digit(1)?) as u8);
                rest = others;
            }
            _ => key.push(*byte),
        }
    }
    (!key.is_empty() && key.len() <= KEY_BYTES_MAX).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_any_server_is_read() {
        let mut key = Vec::new();
        let line = b"key=a%20b%0A%ff%25 exp=-1 la=1795835473 cas=2 fetch=yes cls=1 size=67 flags=0 ";
        assert_eq!(read(line, &mut key), Some((67, 1_795_835_473)));
        assert_eq!(key, b"a b\n\xff%");
        assert_eq!(read(b"key=x exp=1 la=-5 cas=1 fetch=no cls=1 size=99999999999", &mut key), Some((u32::MAX, 0)));
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let mut key = Vec::new();
        let long = [b"key=", &[b'x'; 251][..], b" la=1 size=1"].concat();
        for line in [&b"HTTP/1.1 400"[..], b"key=", b"key= la=1 size=1", b"key=a", b"key=a%2 la=1 size=1", &long] {
            assert_eq!(read(line, &mut key), None, "{}", line.escape_ascii());
        }
        assert!(refusal(b"ERROR metadump not allowed").to_string().contains("(-X)"));
        assert!(refusal(b"\x1b[2J").to_string().contains("says \"\u{fffd}[2J\""));
    }
}
