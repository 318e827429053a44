//! The users of `-Y` or `-S`.

use crate::auth::{TEXT_USERS_MAX, Users};
use crate::config::Config;
use nix::unistd;
use std::fs::File;
use std::io::Read;

/// The users of `-Y` or `-S`, if there is one of these.
///
/// # Errors
/// What is wrong with their file, in a line.
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
        // memcached, too, starts with a file of `-S` that has no users: they may come later.
        log::warn!("Authfile [{named}] has no users: nobody can log in");
    }
    if users.ignored > 0 {
        log::warn!("Authfile [{named}]: the last {} lines are ignored, {TEXT_USERS_MAX} count", users.ignored);
    }
    Ok(Some(users))
}
