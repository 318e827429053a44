//! Who may use the server: the password files of memcached (`-Y`, `-S`), and our own file of users with their rights and
//! limits (`--users`).
//!
//! ```text
//!  directory              the users of --users now, and what is counted of each
//!   └ file scram checks   how the file is read; a login by SCRAM; passwords that are checked beside the workers
//!      └ user             a user: rights, prefixes, limits
//!         └ verifier      what the server knows of a password
//!  passwords              the files of -Y and -S
//! ```
//!
//! Only a client that logs in waits for a lock of this module.

pub mod checks;
pub mod directory;
pub mod file;
pub mod passwords;
pub mod scram;
pub mod user;
pub mod verifier;

use directory::Directory;
use parking_lot::RwLock;
use passwords::Passwords;
use std::sync::Arc;

/// The users that may log in now.
#[derive(Debug)]
pub enum Auth {
    /// Those of `-Y` or `-S`. Each may do everything.
    Passwords(RwLock<Arc<Passwords>>),
    /// Those of `--users`.
    Users(Box<Directory>),
}

impl Auth {
    /// Begins with these passwords.
    pub fn with_passwords(passwords: Passwords) -> Auth {
        Auth::Passwords(RwLock::new(Arc::new(passwords)))
    }

    /// The users of `--users`, if the server has that flag.
    pub fn users(&self) -> Option<&Directory> {
        match self {
            Auth::Passwords(_) => None,
            Auth::Users(users) => Some(users),
        }
    }

    /// Whether a user of `-Y` or `-S` has this name and this password.
    pub fn knows(&self, name: &[u8], password: &[u8]) -> bool {
        match self {
            Auth::Passwords(passwords) => {
                let passwords = Arc::clone(&passwords.read());
                passwords.know(name, password)
            }
            Auth::Users(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_replaced_and_never_printed() {
        let auth = Auth::with_passwords(Passwords::from_text(b"a:old\n").expect("a good file"));
        assert!(auth.knows(b"a", b"old"));
        let Auth::Passwords(passwords) = &auth else { unreachable!("it was made of passwords") };
        *passwords.write() = Arc::new(Passwords::from_text(b"a:new\n").expect("a good file"));
        assert!(auth.knows(b"a", b"new") && !auth.knows(b"a", b"old"));
        assert!(!format!("{auth:?}").contains("new"));
    }
}
