//! Parts of command lines and of replies that many commands share.

use std::fmt::Display;
use std::io::Write;

pub(super) const OK: &[u8] = b"OK\r\n";
pub(super) const ERROR: &[u8] = b"ERROR\r\n";
pub(super) const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
pub(super) const BAD_CLASS: &[u8] = b"BADCLASS invalid class id\r\n";

/// Whether a token is `word` or its beginning. memcached compares only as many bytes as the token has.
pub(super) fn means(token: &[u8], word: &str) -> bool {
    word.as_bytes().starts_with(token)
}

/// Reads a finite number of at most 31 bytes.
pub(super) fn float(token: &[u8]) -> Option<f64> {
    let token = std::str::from_utf8(token).ok().filter(|token| token.len() < 32)?;
    token.parse().ok().filter(|number: &f64| number.is_finite())
}

pub(super) const END: &[u8] = b"END\r\n";

/// Takes statistics, one after another.
pub(super) trait Lines {
    fn put(&mut self, name: impl Display, value: impl Display);
}

/// Statistics by name.
impl Lines for Vec<(String, String)> {
    fn put(&mut self, name: impl Display, value: impl Display) {
        self.push((name.to_string(), value.to_string()));
    }
}

/// A reply of `STAT` lines.
#[derive(Debug, Default)]
pub(super) struct Stats(Vec<u8>);

impl Lines for Stats {
    fn put(&mut self, name: impl Display, value: impl Display) {
        write!(self.0, "STAT {name} {value}\r\n").expect("writing to memory cannot fail");
    }
}

impl Stats {
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(END);
        self.0
    }
}
