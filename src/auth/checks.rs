//! Passwords that wait to be checked, each of which takes some milliseconds. One thread of its own checks them, one after the
//! other, so that no worker does.
//!
//! What may wait is limited, in all and for each address, and after a wrong password the next one for the same name and from the
//! same address waits for a second. So nobody who tries passwords takes more than a part of a core, and nobody is kept out
//! by those who try passwords for another name, or from other addresses. What finds no room is refused.

use super::directory::Attempt;
use super::user::User;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Limits of what may wait, and of how fast it is checked.
#[derive(Clone, Copy, Debug)]
pub struct CheckLimits {
    /// The most attempts that wait.
    pub waiting: usize,
    /// The most of an address. All Unix sockets are one address.
    pub of_address: usize,
    /// The most of an address for one name.
    pub of_name: usize,
    /// The time between a wrong password and the next check for the same name, from the same address.
    pub pause: Duration,
}

impl Default for CheckLimits {
    fn default() -> CheckLimits {
        CheckLimits { waiting: 256, of_address: 16, of_name: 4, pause: Duration::from_secs(1) }
    }
}

/// Who tries: an address, and the name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    address: Option<IpAddr>,
    name: Vec<u8>,
}

struct Waiting<T> {
    source: Source,
    attempt: Attempt,
    asker: T,
}

struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Those who were wrong not long ago, and when their next attempt is checked.
    held: Vec<(Source, Instant)>,
    stopped: bool,
}

/// See the head of this file. `T` says who gets the result.
pub struct Checks<T> {
    limits: CheckLimits,
    queue: Mutex<Queue<T>>,
    changed: Condvar,
}

impl<T> fmt::Debug for Checks<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passwords wait", self.queue.lock().waiting.len())
    }
}

impl<T> Checks<T> {
    /// No passwords wait.
    pub fn new(limits: CheckLimits) -> Checks<T> {
        let queue = Queue { waiting: VecDeque::new(), held: Vec::new(), stopped: false };
        Checks { limits, queue: Mutex::new(queue), changed: Condvar::new() }
    }

    /// Lets an attempt of a client at this address wait. None is the address of Unix sockets. False: there is no room, and
    /// the asker gets no result.
    pub fn submit(&self, attempt: Attempt, address: Option<IpAddr>, asker: T) -> bool {
        let source = Source { address, name: attempt.name.clone() };
        let mut queue = self.queue.lock();
        let of_address = queue.waiting.iter().filter(|other| other.source.address == address).count();
        let of_name = queue.waiting.iter().filter(|other| other.source == source).count();
        let CheckLimits { waiting, of_address: address_max, of_name: name_max, .. } = self.limits;
        if queue.waiting.len() >= waiting || of_address >= address_max || of_name >= name_max {
            return false;
        }
        queue.waiting.push_back(Waiting { source, attempt, asker });
        self.changed.notify_one();
        true
    }

    /// Lets [`Checks::run`] return.
    pub fn stop(&self) {
        self.queue.lock().stopped = true;
        self.changed.notify_one();
    }

    /// Checks what waits until [`Checks::stop`]. `answer` gets each result, with the user if the password was right.
    pub fn run(&self, mut answer: impl FnMut(T, &Attempt, Option<Arc<User>>)) {
        while let Some(Waiting { source, attempt, asker }) = self.next() {
            let user = attempt.check();
            if user.is_none() {
                self.queue.lock().held.push((source, Instant::now() + self.limits.pause));
            }
            answer(asker, &attempt, user);
        }
    }

    /// Waits for the next attempt. None: the server stops.
    fn next(&self) -> Option<Waiting<T>> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopped {
                return None;
            }
            let now = Instant::now();
            queue.held.retain(|(_, until)| *until > now);
            let Queue { waiting, held, .. } = &mut *queue;
            let is_held = |source: &Source| held.iter().any(|(other, _)| other == source);
            if let Some(at) = waiting.iter().position(|attempt| !is_held(&attempt.source)) {
                return waiting.remove(at);
            }
            let until = held.iter().map(|(_, until)| *until).min().filter(|_| !waiting.is_empty());
            match until {
                None => self.changed.wait(&mut queue),
                Some(until) => {
                    self.changed.wait_until(&mut queue, until);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::directory::{Directory, Shown};
    use crate::auth::file;
    use crate::auth::verifier::Verifier;
    use std::net::Ipv4Addr;

    const HOUR: Duration = Duration::from_secs(3600);

    fn attempt(directory: &Directory, name: &str, password: &str) -> Attempt {
        match directory.show(name.as_bytes(), password.as_bytes()) {
            Shown::Known(_) => unreachable!("nothing is remembered"),
            Shown::Unknown(attempt) => attempt,
        }
    }

    fn directory() -> Directory {
        let verifier = Verifier::generate(b"secret").expect("random bytes");
        let lines = format!("a {verifier} read\nb {verifier} read\n");
        Directory::new(file::read(lines.as_bytes()).expect("a good file")).expect("random bytes")
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some(Ipv4Addr::new(10, 0, 0, last).into())
    }

    #[test]
    fn what_waits_is_limited() {
        let directory = directory();
        let limits = CheckLimits { waiting: 6, of_address: 3, of_name: 2, pause: HOUR };
        let checks = Checks::new(limits);
        let submit = |name: &str, last: u8| checks.submit(attempt(&directory, name, "x"), address(last), ());
        assert!(submit("a", 1) && submit("a", 1) && !submit("a", 1), "two of a name");
        assert!(submit("b", 1) && !submit("b", 1), "three of an address");
        assert!(submit("a", 2) && submit("a", 2) && submit("a", 3) && !submit("a", 4), "six in all");
    }

    #[test]
    fn a_wrong_password_holds_up_no_other_name_and_no_other_address() {
        let directory = directory();
        let checks = Checks::new(CheckLimits { pause: HOUR, ..CheckLimits::default() });
        for (name, password, last) in
            [("a", "wrong", 1), ("a", "secret", 1), ("b", "secret", 1), ("a", "secret", 2), ("nobody", "secret", 1)]
        {
            assert!(checks.submit(attempt(&directory, name, password), address(last), (name, password, last)));
        }
        let mut results = Vec::new();
        checks.run(|asker, _, user| {
            results.push((asker, user.is_some()));
            if results.len() == 4 {
                checks.stop();
            }
        });
        let expected = [
            (("a", "wrong", 1), false),
            (("b", "secret", 1), true),
            (("a", "secret", 2), true),
            (("nobody", "secret", 1), false),
        ];
        assert_eq!(results, expected);
        assert_eq!(checks.queue.lock().waiting.len(), 1, "the right password waits for its second");
    }

    #[test]
    fn the_pause_ends() {
        let directory = directory();
        let checks = Checks::new(CheckLimits { pause: Duration::from_millis(20), ..CheckLimits::default() });
        for password in ["wrong", "secret"] {
            assert!(checks.submit(attempt(&directory, "a", password), None, password));
        }
        let mut results = Vec::new();
        checks.run(|password, _, user| {
            results.push((password, user.is_some(), Instant::now()));
            if results.len() == 2 {
                checks.stop();
            }
        });
        assert_eq!((results[0].1, results[1].1), (false, true));
        assert!(results[1].2 - results[0].2 >= Duration::from_millis(19));
    }
}
