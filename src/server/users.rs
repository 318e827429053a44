//! The users that may log in (`-Y`, `-S`).

use crate::auth::{TEXT_USERS_MAX, Users};
use crate::config::Config;
use nix::unistd;
use std::fs::File;
use std::io::Read;

/// Reads the users of `-Y` or `-S`. None without these flags.
///
/// # Errors
/// One line that says what is wrong with the file.
pub(super) fn read_users(config: &Config) -> Result<Option<Users>, String> {
    let Some(path) = config.login.text_file.as_ref().or(config.login.sasl_file.as_ref()) else { return Ok(None) };
    let named = path.display();
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(config.login.file_bytes_max + 1).read_to_end(&mut text))
        .map_err(|error| format!("Could not open authfile [{named}] for reading, error {error}"))?;
    if text.len() as u64 > config.login.file_bytes_max {
        return Err(format!("Authfile [{named}] has more than {} bytes", config.login.file_bytes_max));
    }
    let users = if config.login.text_file.is_some() {
        Users::from_text(&text)
    } else {
        let host = unistd::gethostname().unwrap_or_default();
        Users::from_sasl(&text, host.as_encoded_bytes())
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
