//! Who may use the server: the users of a password file, and the check of a name and a password against them.
//!
//! Two formats, memcached's: that of `-Y` and that of `MEMCACHED_SASL_PWDB` (`-S`). Files are read by `server/`, at the
//! start and when told to; a check looks at what was read last. It takes the same time for whatever is wrong, but for
//! lengths, and only a client that logs in waits for its lock.
//!
//! Wanted differences from memcached: a line that is too long or has a zero byte makes the file unusable, where it would be
//! cut and so let shorter passwords in; so does a directory, which memcached takes for a file that lets nobody in; a
//! changed file of `-S` is looked at when told to, not each time.

use parking_lot::RwLock;
use std::fmt;
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq};

/// Users that a file of `-Y` can have; further lines are not read.
pub const TEXT_USERS_MAX: usize = 8;

/// Longest line, without its end.
const LINE_LENGTH_MAX: usize = 255;

/// Names and passwords.
#[derive(Clone, Default)]
pub struct Users {
    entries: Vec<Entry>,
    /// Lines that were not read, because there were too many.
    pub ignored: usize,
}

/// A name, and all that its password may be.
#[derive(Clone)]
struct Entry {
    name: Vec<u8>,
    passwords: Vec<Vec<u8>>,
}

/// What is wrong with a file: the number of a line, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// There is no colon in it.
    NoColon(usize),
    /// It is longer than 255 bytes.
    TooLong(usize),
    /// There is a zero byte in it.
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

/// Passwords are not printed.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users", self.entries.len())
    }
}

impl Users {
    /// Those of a file of `-Y`: `user:password` in each line, of which the first [`TEXT_USERS_MAX`] count.
    ///
    /// # Errors
    /// When it has a line of another form, be it an empty one: an empty file, which would let nobody in, has one.
    pub fn from_text(file: &[u8]) -> Result<Users, Malformed> {
        let mut users = Users::default();
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

    /// Those of a file of `-S`: `user:password`, and perhaps more behind further colons, in each line; lines without a
    /// colon say nothing, and of a user's lines the first counts. As in memcached, where the SASL library adds the name
    /// of the host, `user@host` is the entry of a client that logs in as `user`.
    ///
    /// # Errors
    /// When a line is too long, or has a zero byte.
    pub fn from_sasl(file: &[u8], host: &[u8]) -> Result<Users, Malformed> {
        let mut users = Users::default();
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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none, and nobody can log in.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether one of them has this name and this password. All are compared.
    pub fn know(&self, name: &[u8], password: &[u8]) -> bool {
        let matches = |entry: &Entry| {
            let right = entry.passwords.iter().fold(Choice::from(0), |right, other| right | other.ct_eq(password));
            entry.name.ct_eq(name) & right
        };
        self.entries.iter().fold(Choice::from(0), |known, entry| known | matches(entry)).into()
    }
}

/// The lines of a file with their numbers; an empty file has one. What memcached would cut is an error.
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

/// Name and the rest, at the first colon.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    Some((&line[..colon], &line[colon + 1..]))
}

/// The users of now.
#[derive(Debug, Default)]
pub struct Auth(RwLock<Arc<Users>>);

impl Auth {
    /// With these, for the time being.
    pub fn new(users: Users) -> Auth {
        Auth(RwLock::new(Arc::new(users)))
    }

    /// From now on with others.
    pub fn replace(&self, users: Users) {
        *self.0.write() = Arc::new(users);
    }

    /// Whether somebody has this name and this password.
    pub fn knows(&self, name: &[u8], password: &[u8]) -> bool {
        let users = Arc::clone(&self.0.read());
        users.know(name, password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(users: &Users, attempts: &[(&str, &str, bool)]) {
        for &(name, password, expected) in attempts {
            assert_eq!(users.know(name.as_bytes(), password.as_bytes()), expected, "{name} {password}");
        }
    }

    #[test]
    fn users_of_a_text_file() {
        for file in ["foo:bar\nu2:p:2\n", "foo:bar\r\nu2:p:2", "foo:bar\nu2:p:2\r\n"] {
            let users = Users::from_text(file.as_bytes()).expect("a good file");
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
        let users = Users::from_text(file.as_bytes()).expect("a good file");
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
            assert_eq!(Users::from_text(file.as_bytes()).expect_err("a bad file"), expected, "{file:?}");
        }
        assert!(Users::from_text(&long.as_bytes()[1..]).is_ok());
    }

    #[test]
    fn users_of_a_sasl_file() {
        let file = b"# a remark\n\nuser:secret:more:fields\nhosted@here:key\nother@there:key\nuser:second\ntwo:a:b";
        let users = Users::from_sasl(file, b"here").expect("a good file");
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

    #[test]
    fn users_are_replaced_and_never_printed() {
        let auth = Auth::new(Users::from_text(b"a:old\n").expect("a good file"));
        assert!(auth.knows(b"a", b"old"));
        auth.replace(Users::from_text(b"a:new\n").expect("a good file"));
        assert!(auth.knows(b"a", b"new") && !auth.knows(b"a", b"old"));
        assert!(!format!("{auth:?}").contains("new"));
    }
}
