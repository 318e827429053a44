//! The users that may log in (`-Y`, `-S`, `--users`).

use crate::auth::Auth;
use crate::auth::directory::Directory;
use crate::auth::file::{self, Line};
use crate::auth::passwords::{Passwords, TEXT_USERS_MAX};
use crate::config::Config;
use nix::unistd;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Reads the users of `-Y`, `-S` or `--users`. None without these flags.
///
/// # Errors
/// One line that says what is wrong with the file.
pub(super) fn read_users(config: &Config) -> Result<Option<Auth>, String> {
    if let Some(path) = &config.login.users_file {
        let lines = read_lines(path, config)?;
        return Directory::new(lines)
            .map(|users| Some(Auth::Users(Box::new(users))))
            .map_err(|error| format!("--users: {error}"));
    }
    Ok(read_passwords(config)?.map(Auth::with_passwords))
}

/// Reads the file again, and returns the number of users. Without a good file, the users stay as they are.
///
/// # Errors
/// One line that says what is wrong with the file.
pub(super) fn reread_users(auth: &Auth, config: &Config) -> Result<usize, String> {
    match (auth, &config.login.users_file) {
        (Auth::Users(users), Some(path)) => {
            let lines = read_lines(path, config)?;
            let count = lines.len();
            users.replace(lines);
            Ok(count)
        }
        (Auth::Passwords(passwords), _) => {
            let read = read_passwords(config)?.unwrap_or_default();
            let count = read.len();
            *passwords.write() = Arc::new(read);
            Ok(count)
        }
        (Auth::Users(_), None) => unreachable!("the users came from this file"),
    }
}

/// Reads the file of `--users`.
fn read_lines(path: &Path, config: &Config) -> Result<Vec<Line>, String> {
    let named = path.display();
    let text = read_file(path, config.login.file_bytes_max)
        .map_err(|error| format!("--users {named}: cannot be read: {error}"))?
        .ok_or_else(|| format!("--users {named}: has more than {} bytes", config.login.file_bytes_max))?;
    file::read(&text).map_err(|mistake| format!("--users {named}, {mistake}"))
}

/// Reads the file of `-Y` or `-S`, with memcached's messages.
fn read_passwords(config: &Config) -> Result<Option<Passwords>, String> {
    let Some(path) = config.login.text_file.as_ref().or(config.login.sasl_file.as_ref()) else { return Ok(None) };
    let named = path.display();
    let text = read_file(path, config.login.file_bytes_max)
        .map_err(|error| format!("Could not open authfile [{named}] for reading, error {error}"))?
        .ok_or_else(|| format!("Authfile [{named}] has more than {} bytes", config.login.file_bytes_max))?;
    let users = if config.login.text_file.is_some() {
        Passwords::from_text(&text)
    } else {
        let host = unistd::gethostname().unwrap_or_default();
        Passwords::from_sasl(&text, host.as_encoded_bytes())
    };
    let users = users.map_err(|why| format!("Authfile [{named}] {why}"))?;
    if users.is_empty() {
        // Like memcached, start with a file of `-S` that has no users: the operator may add them later.
        log::warn!("Authfile [{named}] has no users: nobody can log in");
    }
    if users.ignored > 0 {
        log::warn!("Authfile [{named}]: the last {} lines are ignored, {TEXT_USERS_MAX} count", users.ignored);
    }
    Ok(Some(users))
}

/// Reads a file of at most so many bytes. None: it has more.
fn read_file(path: &Path, most: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut text)?;
    Ok(Some(text).filter(|text| text.len() as u64 <= most))
}
