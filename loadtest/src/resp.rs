//! RESP, the protocol of Redis and its relatives, as far as gets and sets of plain values need it. A request is an array
//! of strings:
//!
//! | request | reply |
//! |---|---|
//! | `GET` | `$<length>` and the value, or `$-1` |
//! | `MGET` of n keys | `*<n>`, and then for each key, in order, the reply of a `GET` |
//! | `SET` | `+OK` |
//! | any | `-<error>` |

use std::io::{self, BufRead, ErrorKind};

use crate::keys::Keys;
use crate::reply::{Broken, Reply, broken, number};
use crate::request::write_decimal;

/// The other protocols take longer times to live than these 30 days for Unix times.
const RELATIVE_TTL_MAX: u32 = 30 * 24 * 60 * 60;

/// Appends a `GET`, or an `MGET` of several keys.
pub fn get(keys: &Keys, ids: &[u64], out: &mut Vec<u8>) {
    begin(1 + ids.len(), out);
    string(if let [_] = ids { b"GET" } else { b"MGET" }, out);
    for id in ids {
        key(keys, *id, out);
    }
}

/// Appends the `SET` that stores the value of `id`. `ttl` counts seconds as memcached does; 0 means forever.
pub fn set(keys: &Keys, id: u64, ttl: u32, out: &mut Vec<u8>) {
    begin(if ttl == 0 { 3 } else { 5 }, out);
    string(b"SET", out);
    key(keys, id, out);
    length(b'$', keys.value_length(id), out);
    keys.write_value(id, out);
    out.extend_from_slice(b"\r\n");
    if ttl > 0 {
        string(if ttl <= RELATIVE_TTL_MAX { b"EX" } else { b"EXAT" }, out);
        string(ttl.to_string().as_bytes(), out);
    }
}

/// A command of these words.
pub fn command(words: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    begin(words.len(), &mut out);
    words.iter().for_each(|word| string(word.as_bytes(), &mut out));
    out
}

/// Reads a reply that is one string of text.
pub fn read_string(mut input: impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let length = line.trim_end().strip_prefix('$').and_then(|digits| number(digits.as_bytes()));
    let length = length.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, line.trim_end()))?;
    let mut text = vec![0; length];
    input.read_exact(&mut text)?;
    String::from_utf8(text).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// Name and version in the section `server` of a server's information. Relatives of Redis also name the version of Redis
/// with which they are compatible.
pub fn version(information: &str) -> Option<String> {
    let version_of = |name| information.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("_version:"));
    ["valkey", "dragonfly", "redis"].into_iter().find_map(|name| Some(format!("{name} {}", version_of(name)?.trim())))
}

/// The number of keys in the section `keyspace` of a server's information. A database without keys is not in it.
pub fn keys(information: &str) -> Option<u64> {
    let Some(line) = information.lines().find_map(|line| line.strip_prefix("db0:keys=")) else { return Some(0) };
    line.split(',').next()?.trim().parse().ok()
}

/// Begins a command of this many words.
fn begin(words: usize, out: &mut Vec<u8>) {
    length(b'*', words, out);
}

fn key(keys: &Keys, id: u64, out: &mut Vec<u8>) {
    length(b'$', keys.size(), out);
    keys.write_key(id, out);
    out.extend_from_slice(b"\r\n");
}

fn string(bytes: &[u8], out: &mut Vec<u8>) {
    length(b'$', bytes.len(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn length(kind: u8, length: usize, out: &mut Vec<u8>) {
    out.push(kind);
    write_decimal(length as u64, out);
    out.extend_from_slice(b"\r\n");
}

/// Reads the line that begins a reply.
#[inline]
pub fn reply(line: &[u8]) -> Result<Reply<'_>, Broken> {
    let length = |digits| number(digits).ok_or_else(|| broken("length that cannot be understood", line));
    match line {
        b"+OK" => Ok(Reply::Stored),
        b"$-1" => Ok(Reply::Missing),
        [b'$', digits @ ..] => Ok(Reply::Value { key: None, length: length(digits)? }),
        [b'*', digits @ ..] => Ok(Reply::Several(length(digits)?)),
        [b'+' | b'-' | b':', ..] => Ok(Reply::Other(line)),
        _ => Err(broken("line that is not RESP", line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_the_strings_that_answer_them() {
        assert_eq!(command(&["INFO", "server"]), b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n");
        assert_eq!(read_string(&b"$4\r\na\r\nb\r\n"[..]).ok().as_deref(), Some("a\r\nb"));
        for (reply, why) in
            [("-ERR no\r\n", "-ERR no"), ("$-1\r\n", "$-1"), ("", ""), ("$4\r\na\r\n", "fill whole buffer")]
        {
            let error = read_string(reply.as_bytes()).expect_err(reply).to_string();
            assert!(error.contains(why), "{reply:?}: {error}");
        }
    }

    #[test]
    fn what_servers_tell_about_themselves() {
        let version = |text: &str| super::version(text);
        assert_eq!(version("# Server\r\nredis_version:8.0.2\r\nredis_mode:x\r\n").as_deref(), Some("redis 8.0.2"));
        assert_eq!(version("redis_version:7.2.4\r\nvalkey_version:8.1.1\r\n").as_deref(), Some("valkey 8.1.1"));
        assert_eq!(
            version("redis_version:7.4.0\r\ndragonfly_version:df-v1.2\r\n").as_deref(),
            Some("dragonfly df-v1.2")
        );
        assert_eq!(version("# Server\r\n"), None);
        assert_eq!(keys("# Keyspace\r\ndb0:keys=1234,expires=0,avg_ttl=0\r\n"), Some(1234));
        assert_eq!(keys("# Keyspace\r\n"), Some(0));
        assert_eq!(keys("db0:keys=x,expires=0\r\n"), None);
    }
}
