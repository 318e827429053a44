//! The users of `--users` at this moment, and who of them has shown a password.
//!
//! To check a password costs some milliseconds, so a worker does not do it. A password that was right is remembered as an HMAC
//! with a key of this process: the next connection that shows it costs one HMAC, on the worker. Everything else is left to
//! [`super::checks`], also what is certainly wrong, so that a wrong password always takes the same way.

use super::file::{DEFAULT, Line};
use super::user::{Tally, User};
use super::verifier::{HASH_LEN, Hash, ROUNDS, Verifier, random};
use parking_lot::{Mutex, RwLock};
use ring::hmac;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use subtle::ConstantTimeEq;

/// See the head of this file.
pub struct Directory {
    users: RwLock<Arc<Vec<Arc<User>>>>,
    /// The number of times that the users were replaced.
    generation: AtomicU64,
    key: hmac::Key,
    /// The counts of all users that the server has known.
    tallies: Mutex<Vec<Arc<Tally>>>,
    /// What is remembered of passwords that were right, by the name of the user.
    proofs: Mutex<HashMap<String, Proof>>,
}

/// What is remembered of a password that was right.
struct Proof {
    /// The verifier that accepted the password.
    verifier: Verifier,
    hash: Hash,
}

/// Prints no keys.
impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users", self.len())
    }
}

/// A password that a client has shown for a name, to be checked.
#[derive(Clone)]
pub struct Attempt {
    /// The name, as the client gave it.
    pub name: Vec<u8>,
    password: Vec<u8>,
    user: Option<Arc<User>>,
    verifier: Verifier,
}

/// Prints no password.
impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt to log in as {}", self.name.escape_ascii())
    }
}

impl Attempt {
    /// The user, if the password is right. It takes milliseconds, the same for a name that no user has.
    pub fn check(&self) -> Option<Arc<User>> {
        let is_right = self.verifier.accepts(&self.password);
        self.user.clone().filter(|_| is_right)
    }
}

/// What a worker finds out about a name and a password at once.
#[derive(Clone, Debug)]
pub enum Shown {
    /// They are those of this user.
    Known(Arc<User>),
    /// They must be checked.
    Unknown(Attempt),
}

impl Directory {
    /// Begins with the users of these lines.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new(lines: Vec<Line>) -> io::Result<Directory> {
        let directory = Directory {
            users: RwLock::default(),
            generation: AtomicU64::new(0),
            key: hmac::Key::new(hmac::HMAC_SHA256, &random::<HASH_LEN>()?),
            tallies: Mutex::default(),
            proofs: Mutex::default(),
        };
        directory.replace(lines);
        Ok(directory)
    }

    /// Replaces the users. Those that stay keep their counts.
    pub fn replace(&self, lines: Vec<Line>) {
        let users: Vec<Arc<User>> = lines.into_iter().map(|line| Arc::new(self.user(line))).collect();
        self.proofs.lock().retain(|name, _| users.iter().any(|user| user.name == *name));
        *self.users.write() = Arc::new(users);
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn user(&self, line: Line) -> User {
        let Line { name, verifier, rights, prefixes, connections_max, rate, tls_name } = line;
        let mut tallies = self.tallies.lock();
        let tally = tallies.iter().find(|tally| tally.name == name).map(Arc::clone).unwrap_or_else(|| {
            let tally = Arc::new(Tally::new(name.clone(), tallies.len()));
            tallies.push(Arc::clone(&tally));
            tally
        });
        User { name, verifier, rights, prefixes, connections_max, rate, tls_name, tally }
    }

    /// Changes with each reload.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The users, in the order of the file.
    pub fn users(&self) -> Arc<Vec<Arc<User>>> {
        Arc::clone(&self.users.read())
    }

    /// The number of users.
    pub fn len(&self) -> usize {
        self.users.read().len()
    }

    /// Whether there are no users.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn find(&self, is_it: impl Fn(&User) -> bool) -> Option<Arc<User>> {
        self.users.read().iter().find(|user| is_it(user)).map(Arc::clone)
    }

    /// The user with this name.
    pub fn named(&self, name: &str) -> Option<Arc<User>> {
        self.find(|user| user.name == name)
    }

    /// The user for those who do not log in, if there is one.
    pub fn default_user(&self) -> Option<Arc<User>> {
        self.named(DEFAULT)
    }

    /// The first user with one of these names in its client certificate.
    pub fn by_tls_names(&self, names: &[String]) -> Option<Arc<User>> {
        names.iter().find_map(|name| self.find(|user| user.tls_name.as_ref() == Some(name)))
    }

    /// The user with this name, and its verifier. A name that nobody can log in with has a verifier that nothing fits.
    pub fn look_up(&self, name: &[u8]) -> (Option<Arc<User>>, Verifier) {
        let user = self.find(|user| user.name.as_bytes() == name && user.verifier.is_some());
        let verifier = user.as_ref().and_then(|user| user.verifier.clone());
        let verifier =
            verifier.unwrap_or_else(|| Verifier::of_nobody(self.sign(&[b"salt", name]), self.usual_rounds()));
        (user, verifier)
    }

    /// The rounds of the first verifier in the file: a name that does not exist has as many.
    fn usual_rounds(&self) -> NonZeroU32 {
        let users = self.users.read();
        users.iter().find_map(|user| user.verifier.as_ref()).map_or(ROUNDS, |verifier| verifier.rounds)
    }

    /// Looks whether a password is remembered.
    pub fn show(&self, name: &[u8], password: &[u8]) -> Shown {
        let (user, verifier) = self.look_up(name);
        let hash = self.sign(&[b"password", name, password]);
        if let Some(user) = &user
            && let Some(proof) = self.proofs.lock().get(&user.name)
            && proof.verifier == verifier
            && proof.hash.ct_eq(&hash).into()
        {
            return Shown::Known(Arc::clone(user));
        }
        Shown::Unknown(Attempt { name: name.to_vec(), password: password.to_vec(), user, verifier })
    }

    /// Remembers a password that was right.
    pub fn remember(&self, attempt: &Attempt) {
        let Some(user) = &attempt.user else { return };
        let hash = self.sign(&[b"password", &attempt.name, &attempt.password]);
        let proof = Proof { verifier: attempt.verifier.clone(), hash };
        self.proofs.lock().insert(user.name.clone(), proof);
    }

    /// An HMAC of these parts, each with its length.
    fn sign(&self, parts: &[&[u8]]) -> Hash {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().expect("a signature has this length")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::file;

    fn directory(file: &str) -> Directory {
        Directory::new(file::read(file.as_bytes()).expect("a good file")).expect("random bytes")
    }

    fn line(name: &str, password: &str) -> String {
        format!("{name} {} read\n", Verifier::generate(password.as_bytes()).expect("random bytes"))
    }

    #[track_caller]
    fn checked(directory: &Directory, name: &str, password: &str) -> Option<String> {
        match directory.show(name.as_bytes(), password.as_bytes()) {
            Shown::Known(_) => panic!("it is not remembered yet"),
            Shown::Unknown(attempt) => {
                let user = attempt.check()?;
                directory.remember(&attempt);
                Some(user.name.clone())
            }
        }
    }

    fn is_known(directory: &Directory, name: &str, password: &str) -> bool {
        matches!(directory.show(name.as_bytes(), password.as_bytes()), Shown::Known(_))
    }

    #[test]
    fn a_right_password_is_checked_once() {
        let (web, other) = (line("web", "secret"), line("other", "secret"));
        let directory = directory(&(web.clone() + &other + "default - read\n"));
        assert_eq!(checked(&directory, "web", "wrong"), None);
        assert_eq!(checked(&directory, "nobody", "secret"), None);
        assert_eq!(checked(&directory, "default", ""), None);
        assert_eq!(checked(&directory, "web", "secret").as_deref(), Some("web"));
        assert!(is_known(&directory, "web", "secret"));
        for (name, password) in [("web", "wrong"), ("web", ""), ("other", "secret"), ("nobody", "secret")] {
            assert!(!is_known(&directory, name, password), "{name} {password}");
        }
        // A new verifier forgets the old password; a new line with the old one does not.
        directory.replace(file::read(web.replace("read", "write").as_bytes()).expect("a good file"));
        assert!(is_known(&directory, "web", "secret"));
        directory.replace(file::read(line("web", "new").as_bytes()).expect("a good file"));
        assert!(!is_known(&directory, "web", "secret") && checked(&directory, "web", "secret").is_none());
        assert_eq!(checked(&directory, "web", "new").as_deref(), Some("web"));
    }

    #[test]
    fn users_keep_their_counts_over_a_reload() {
        let directory = directory("a - read tls-name=a.example\nb - read tls-name=b.example\n");
        let before = directory.named("b").expect("a user");
        assert!(before.tally.refuse(3, 0) && !before.tally.refuse(1, 59) && before.tally.refuse(1, 60));
        let generation = directory.generation();
        directory.replace(file::read(b"c - read tls-name=c\nb - write tls-name=b").expect("a good file"));
        assert!(directory.generation() != generation && directory.named("a").is_none());
        let after = directory.by_tls_names(&["x".into(), "b".into()]).expect("a user");
        assert_eq!((after.tally.number, after.tally.refusals.load(Ordering::Relaxed)), (1, 5));
        assert_eq!(directory.named("c").expect("a user").tally.number, 2);
    }

    #[test]
    fn a_name_that_does_not_exist_looks_like_one_that_does() {
        let directory = directory(&line("web", "secret").replace("4096", "5000"));
        let (user, verifier) = directory.look_up(b"nobody");
        assert!(user.is_none() && verifier == directory.look_up(b"nobody").1);
        assert_eq!(verifier.rounds.get(), 5000);
        assert!(verifier.salt.len() == 16 && verifier.salt != directory.look_up(b"somebody").1.salt);
    }

    #[test]
    fn a_user_has_so_many_connections() {
        let directory = directory("a - read tls-name=a connections=2");
        let user = directory.named("a").expect("a user");
        assert!(user.enter() && user.enter() && !user.enter());
        user.leave();
        assert!(user.enter() && !user.enter());
    }
}
