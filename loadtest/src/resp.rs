//! RESP, the protocol of Redis and its relatives, as far as gets and sets of plain values need it. A request is an array
//! of strings:
//!
//! | request | reply |
//! |---|---|
//! | `GET` | `$<length>` and the value, or `$-1` |
//! | `MGET` of n keys | `*<n>`, and then for each key, in order, the reply of a `GET` |
//! | `SET` | `+OK` |
//! | any | `-<error>` |

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
