//! The users of a password file of memcached, and the check of a name and a password against them. Only these users may use
//! the server.
//!
//! This module knows memcached's two formats: that of `-Y` and that of `MEMCACHED_SASL_PWDB` (`-S`). `server/` reads
//! the file at the start and at each reload. A check uses the users of the last file that was read. It takes the same
//! time whatever is wrong, except that the time depends on lengths. Only a client that logs in waits for the lock.
//!
//! Wanted differences from memcached: a line that is too long or has a zero byte makes the file unusable. memcached
//! cuts such a line, and so accepts shorter passwords. A directory is unusable, too. memcached takes it for a file that
//! lets no client in. The server reads a changed file of `-S` at a reload. memcached looks at the file each time.

use std::fmt;
use subtle::{Choice, ConstantTimeEq};

/// The most users that a file of `-Y` can have. The server does not read further lines.
pub const TEXT_USERS_MAX: usize = 8;

/// The length of the longest line, without its end.
const LINE_LENGTH_MAX: usize = 255;

/// The names and passwords of a file.
#[derive(Clone, Default)]
pub struct Passwords {
    entries: Vec<Entry>,
    /// The number of lines that the server has not read, because the file has too many.
    pub ignored: usize,
}

/// A name, and all passwords that it accepts.
#[derive(Clone)]
struct Entry {
    name: Vec<u8>,
    passwords: Vec<Vec<u8>>,
}

/// The mistake in a file, with the number of its line. The first line has the number 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The line has no colon.
    NoColon(usize),
    /// The line is longer than 255 bytes.
    TooLong(usize),
    /// The line has a zero byte.
    ZeroByte(usize),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::NoColon(line) => write!(f, "has a malformed entry. Should be 'user:password' (line {line})"),
            Malformed::TooLong(line) => write!(f, "has a line of more than {LINE_LENGTH_MAX} bytes (line {line})"),
            Malformed::ZeroByte(line) => write!(f, "has a zero byte (line {line})"),
        }
    }
}

/// Prints no passwords.
impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users", self.entries.len())
    }
}

impl Passwords {
    /// Reads the users of a file of `-Y`. Each line is `user:password`. Only the first [`TEXT_USERS_MAX`] lines count.
    ///
    /// # Errors
    /// If a line has another form, or is empty. An empty file, which would let no client in, counts as one empty line.
    pub fn from_text(file: &[u8]) -> Result<Passwords, Malformed> {
        let mut users = Passwords::default();
        for (number, line) in lines(file) {
            if users.entries.len() == TEXT_USERS_MAX {
                users.ignored += 1;
                continue;
            }
            let (name, password) = split(line?).ok_or(Malformed::NoColon(number))?;
            users.entries.push(Entry { name: name.to_vec(), passwords: vec![password.to_vec()] });
        }
        Ok(users)
    }

    /// Reads the users of a file of `-S`. Each line is `user:password`, perhaps with more fields behind further colons.
    /// Lines without a colon do not count. If a user has several lines, only the first counts. A client that logs in as
    /// `user` can also use the entry `user@host`, as in memcached, where the SASL library adds the name of the host.
    ///
    /// # Errors
    /// If a line is too long or has a zero byte.
    pub fn from_sasl(file: &[u8], host: &[u8]) -> Result<Passwords, Malformed> {
        let mut users = Passwords::default();
        for (_, line) in lines(file) {
            let Some((name, rest)) = split(line?) else { continue };
            // A password may have colons in it, and fields may follow it.
            let ends = rest.iter().enumerate().filter(|&(_, &byte)| byte == b':').map(|(at, _)| at);
            let passwords: Vec<Vec<u8>> = ends.chain([rest.len()]).map(|end| rest[..end].to_vec()).collect();
            let bare = name.strip_suffix(host).and_then(|name| name.strip_suffix(b"@"));
            for name in bare.into_iter().chain([name]) {
                if users.entries.iter().all(|entry| entry.name != name) {
                    users.entries.push(Entry { name: name.to_vec(), passwords: passwords.clone() });
                }
            }
        }
        Ok(users)
    }

    /// The number of users.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the file has no users, so that no client can log in.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a user has this name and this password. Compares all users.
    pub fn know(&self, name: &[u8], password: &[u8]) -> bool {
        let matches = |entry: &Entry| {
            let right = entry.passwords.iter().fold(Choice::from(0), |right, other| right | other.ct_eq(password));
            entry.name.ct_eq(name) & right
        };
        self.entries.iter().fold(Choice::from(0), |known, entry| known | matches(entry)).into()
    }
}

/// The lines of a file with their numbers. An empty file has one line. A line that memcached would cut is an error.
fn lines(file: &[u8]) -> impl Iterator<Item = (usize, Result<&[u8], Malformed>)> {
    let lines = file.strip_suffix(b"\n").unwrap_or(file).split(|&byte| byte == b'\n');
    (1..).zip(lines).map(|(number, line)| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let checked = if line.len() > LINE_LENGTH_MAX {
            Err(Malformed::TooLong(number))
        } else if line.contains(&0) {
            Err(Malformed::ZeroByte(number))
        } else {
            Ok(line)
        };
        (number, checked)
    })
}

/// Splits a line at its first colon, into the name and the rest.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    Some((&line[..colon], &line[colon + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(users: &Passwords, attempts: &[(&str, &str, bool)]) {
        for &(name, password, expected) in attempts {
            assert_eq!(users.know(name.as_bytes(), password.as_bytes()), expected, "{name} {password}");
        }
    }

    #[test]
    fn users_of_a_text_file() {
        for file in ["foo:bar\nu2:p:2\n", "foo:bar\r\nu2:p:2", "foo:bar\nu2:p:2\r\n"] {
            let users = Passwords::from_text(file.as_bytes()).expect("a good file");
            check(
                &users,
                &[
                    ("foo", "bar", true),
                    ("foo", "ba", false),
                    ("foo", "barr", false),
                    ("foo", "baz", false),
                    ("fo", "bar", false),
                    ("foo", "p:2", false),
                    ("u2", "p:2", true),
                    ("u2", "p", false),
                    ("", "", false),
                ],
            );
        }
    }

    #[test]
    fn a_text_file_has_eight_users() {
        let file: String = (0..10).map(|number| format!("user{number}:password{number}\n")).collect();
        let users = Passwords::from_text(file.as_bytes()).expect("a good file");
        assert_eq!((users.len(), users.ignored), (8, 2));
        check(&users, &[("user7", "password7", true), ("user8", "password8", false)]);
    }

    #[test]
    fn a_text_file_has_no_other_lines() {
        let long = format!("user:{}\n", "x".repeat(251));
        for (file, expected) in [
            ("", Malformed::NoColon(1)),
            ("foo", Malformed::NoColon(1)),
            ("\n", Malformed::NoColon(1)),
            ("foo:bar\n\n", Malformed::NoColon(2)),
            ("# users\nfoo:bar\n", Malformed::NoColon(1)),
            ("foo:bar\na:b\0c\n", Malformed::ZeroByte(2)),
            ("a\0:b\n", Malformed::ZeroByte(1)),
            (&long, Malformed::TooLong(1)),
        ] {
            assert_eq!(Passwords::from_text(file.as_bytes()).expect_err("a bad file"), expected, "{file:?}");
        }
        assert!(Passwords::from_text(&long.as_bytes()[1..]).is_ok());
    }

    #[test]
    fn users_of_a_sasl_file() {
        let file = b"# a remark\n\nuser:secret:more:fields\nhosted@here:key\nother@there:key\nuser:second\ntwo:a:b";
        let users = Passwords::from_sasl(file, b"here").expect("a good file");
        check(
            &users,
            &[
                ("user", "secret", true),
                ("user", "secret:more", true),
                ("user", "secret:more:fields", true),
                ("user", "secret:mo", false),
                ("user", "second", false),
                ("hosted", "key", true),
                ("hosted@here", "key", true),
                ("other", "key", false),
                ("other@there", "key", true),
                ("two", "a:b", true),
                ("two", "b", false),
                ("user", "", false),
            ],
        );
    }
}
