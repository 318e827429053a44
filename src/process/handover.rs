//! Descriptors that outlive a process: the sockets of a server that starts anew, and whatever else it keeps.
//!
//! A server gets them from systemd at its start: the sockets of a socket unit, and those that the server before it has put
//! into the store of its unit ([`super::supervisor::Supervisor::store`]). Or it gets them from the server that it takes over
//! from. Each has a name. Names of what a server has stored itself begin with [`KEPT`]; systemd chooses the others.

use super::rights;
use std::env;
use std::io;
use std::iter;
use std::os::fd::OwnedFd;
use std::process;

/// The beginning of the names of descriptors that a server has opened itself and handed on. What follows says what it is:
/// `kept-tcp-127.0.0.1-11211`.
pub const KEPT: &str = "kept-";
/// The first descriptor from systemd (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;

/// A descriptor, and the name under which it is handed on.
#[derive(Debug)]
pub struct Descriptor {
    /// Its name. Several may have the same one.
    pub name: String,
    /// It closes on exec.
    pub fd: OwnedFd,
}

/// The descriptors that this process was given and that nobody has taken yet, in the order in which they were given.
/// Dropping this value closes them.
#[derive(Debug, Default)]
pub struct Inherited {
    descriptors: Vec<Descriptor>,
}

impl Inherited {
    /// Takes the descriptors that systemd has handed over (sd_listen_fds_with_names(3)). Call it once, before anything else
    /// opens descriptors by number and before `-d` changes the process id.
    ///
    /// # Errors
    /// When the environment names a descriptor that is not open; those of the system.
    pub fn from_environment() -> io::Result<Inherited> {
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        let pid = env::var("LISTEN_PID").unwrap_or_default();
        let is_for_us = pid.is_empty() || number("LISTEN_PID") == Some(process::id());
        let count = number("LISTEN_FDS").filter(|_| is_for_us).unwrap_or(0);
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').chain(iter::repeat("")).map(str::to_owned);
        let end = i32::try_from(count).ok().and_then(|count| FIRST.checked_add(count)).unwrap_or(i32::MAX);
        let fds = rights::adopt(FIRST..end)?;
        let descriptors = names.zip(fds).map(|(name, fd)| Descriptor { name, fd }).collect();
        Ok(Inherited { descriptors })
    }

    /// Adds descriptors that were given in another way.
    pub fn add(&mut self, more: Vec<Descriptor>) {
        self.descriptors.extend(more);
    }

    /// Takes the descriptors whose name is wanted.
    pub fn take(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<Descriptor> {
        self.descriptors.extract_if(.., |descriptor| wanted(&descriptor.name)).collect()
    }

    /// Takes the first descriptor of this name.
    pub fn take_first(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.descriptors.iter().position(|descriptor| descriptor.name == name)?;
        Some(self.descriptors.remove(at).fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_descriptor_is_taken_once() {
        let file = || std::fs::File::open("/dev/null").expect("it is there").into();
        let given = |name: &str| Descriptor { name: name.to_owned(), fd: file() };
        let mut inherited = Inherited::default();
        inherited.add(vec![given("kept-a"), given("b.socket"), given("kept-a"), given("kept-c")]);
        assert!(inherited.take_first("kept-a").is_some());
        assert!(inherited.take_first("nothing").is_none());
        let names = |taken: Vec<Descriptor>| taken.into_iter().map(|it| it.name).collect::<Vec<_>>();
        assert_eq!(names(inherited.take(|name| name.starts_with(KEPT))), ["kept-a", "kept-c"]);
        assert_eq!(names(inherited.take(|_| true)), ["b.socket"]);
        assert!(inherited.take(|_| true).is_empty());
    }
}
