//! A user of `--users`: what it may do, with which keys, and how much.

use super::verifier::Verifier;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A right of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Fetch values, and read statistics without keys.
    Read,
    /// Change, store and delete items.
    Write,
    /// Commands for the whole server, and those that show keys.
    Admin,
}

impl Right {
    /// The right with this word.
    pub fn named(word: &str) -> Option<Right> {
        Some(match word {
            "read" => Right::Read,
            "write" => Right::Write,
            "admin" => Right::Admin,
            _ => return None,
        })
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// No right.
    pub const NONE: Rights = Rights(0);
    /// To fetch.
    pub const READ: Rights = Rights::of(Right::Read);
    /// To change.
    pub const WRITE: Rights = Rights::of(Right::Write);
    /// To fetch and change with one command.
    pub const READ_AND_WRITE: Rights = Rights(Rights::READ.0 | Rights::WRITE.0);
    /// To command the server.
    pub const ADMIN: Rights = Rights::of(Right::Admin);

    const fn of(right: Right) -> Rights {
        Rights(1 << right as u8)
    }

    /// Adds a right.
    pub fn add(&mut self, right: Right) {
        self.0 |= Rights::of(right).0;
    }

    /// Whether all these rights are among them.
    #[inline]
    pub fn have(self, wanted: Rights) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// Whether any of these rights is among them.
    pub fn have_any(self, wanted: Rights) -> bool {
        self.0 & wanted.0 != 0
    }
}

/// The beginning of keys that a user may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The first 8 bytes, and ones where they have a byte of the prefix. To compare them is enough for most prefixes, and costs
    /// a few instructions.
    head: u64,
    mask: u64,
    whole: Arc<[u8]>,
}

impl Prefix {
    /// A prefix of these bytes.
    pub fn new(bytes: &[u8]) -> Prefix {
        let (mut head, mut mask) = ([0; 8], [0; 8]);
        for (at, &byte) in bytes.iter().take(8).enumerate() {
            (head[at], mask[at]) = (byte, 0xff);
        }
        Prefix { head: u64::from_le_bytes(head), mask: u64::from_le_bytes(mask), whole: bytes.into() }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.whole
    }

    #[inline]
    fn begins(&self, key: &[u8]) -> bool {
        match key.first_chunk() {
            Some(first) if u64::from_le_bytes(*first) & self.mask != self.head => false,
            Some(_) if self.whole.len() <= 8 => true,
            _ => key.starts_with(&self.whole),
        }
    }
}

/// What a user may use of a thing in a second, on all workers together. None: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Operations. Each key of a list of keys is one.
    pub operations: Option<u64>,
    /// Bytes of requests and replies.
    pub bytes: Option<u64>,
}

/// What is counted of a user, over all reloads of the file. Workers write to it together, but no operation that is allowed
/// does.
#[derive(Debug)]
pub struct Tally {
    /// The name of the user.
    pub name: String,
    /// The number of the user: 0 for the first one that the server has known, and so on.
    pub number: usize,
    /// Open connections of the user.
    pub connections: AtomicU64,
    /// Operations and commands that were refused.
    pub refusals: AtomicU64,
    /// The minute since the server's start in which a refusal was logged last, plus one.
    logged: AtomicU64,
}

impl Tally {
    /// Begins to count a user.
    pub fn new(name: String, number: usize) -> Tally {
        let (connections, refusals, logged) = Default::default();
        Tally { name, number, connections, refusals, logged }
    }

    /// Counts refusals in a second since the server's start. Returns whether the log is to tell of them: it is once a minute.
    pub fn refuse(&self, count: u64, second: u32) -> bool {
        self.refusals.fetch_add(count, Ordering::Relaxed);
        let minute = u64::from(second / 60) + 1;
        self.logged.swap(minute, Ordering::Relaxed) != minute
    }
}

/// A line of the file.
pub struct User {
    /// The name. `default` is for those who do not log in.
    pub name: String,
    /// What is known of its password. None: nobody can log in as this user by password.
    pub verifier: Option<Verifier>,
    /// What it may do.
    pub rights: Rights,
    /// Keys that it may use begin with one of these. Empty: it may use all keys.
    pub prefixes: Vec<Prefix>,
    /// The most connections at once. None: as many as there may be.
    pub connections_max: Option<u64>,
    /// What it may use in a second.
    pub rate: Rate,
    /// The name in a client's certificate that makes the client this user.
    pub tls_name: Option<String>,
    /// What is counted of it.
    pub tally: Arc<Tally>,
}

/// Prints no verifier.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {:?} with {:?}", self.name, self.rights)
    }
}

impl User {
    /// Whether an operation of the user may be refused.
    pub fn is_restricted(&self) -> bool {
        !self.prefixes.is_empty() || !self.rights.have(Rights::READ_AND_WRITE) || !self.rights.have(Rights::ADMIN)
    }

    /// Whether the user has a rate.
    pub fn is_rated(&self) -> bool {
        self.rate != Rate::default()
    }

    /// Whether the user may use a key. Bytes behind the key may follow it: a prefix has no byte that ends a key.
    #[inline]
    pub fn owns(&self, key: &[u8]) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| prefix.begins(key))
    }

    /// Takes a place for one more connection. False: there is none.
    pub fn enter(&self) -> bool {
        let most = self.connections_max.unwrap_or(u64::MAX);
        let more = |open: u64| (open < most).then(|| open + 1);
        self.tally.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives the place of a connection back.
    pub fn leave(&self) {
        self.tally.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_beginning_of_a_key() {
        for prefix in ["a", "app1:", "exactly8", "exactly9:", "longer than that:"] {
            for key in
                ["", "a", "app1", "app1:", "app1:key", "app2:key", "exactly8", "exactly9:", "exactly9", "exactly9x"]
            {
                let begins = Prefix::new(prefix.as_bytes()).begins(key.as_bytes());
                assert_eq!(begins, key.starts_with(prefix), "{prefix} {key}");
            }
            let key = format!("{prefix}and more");
            assert!(Prefix::new(prefix.as_bytes()).begins(key.as_bytes()), "{key}");
        }
    }
}
