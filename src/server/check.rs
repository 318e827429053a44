//! `--check`: reads what the server would read at its start, without binding, starting or writing anything, and says what
//! it found.

use super::nodes::NodesFile;
use super::users::read_users;
use crate::auth::Auth;
use crate::config::{Config, Listen};
use crate::exit::{EXIT_USAGE, Exit};
use crate::net::certificates::Certificates;
use crate::process::user;
use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Reads all files that the settings name, and resolves all addresses.
///
/// # Errors
/// The failure with which the server would end: its code, and one line.
pub(super) fn report(config: &Config) -> Result<String, Exit> {
    let mut report = String::new();
    let mut say = |what: &str, found: String| {
        if !found.is_empty() {
            writeln!(report, "{what}: {found}").expect("a String takes everything");
        }
    };
    if let Some(path) = &config.process.flags_file {
        say("flags", format!("{}, then the command line", path.display()));
    }
    say("listens on", addresses("", &config.listen.sockets)?);
    say("listens on UDP", addresses("UDP ", &config.udp.sockets)?);
    say("metrics at", addresses("metrics ", &config.observing.addresses)?);
    say("memory", memory(config));
    if config.tls.enabled {
        Certificates::load(&config.tls.options).map_err(|line| Exit::failure(EXIT_USAGE, line))?;
        let chain = config.tls.options.chain.as_deref().unwrap_or(Path::new(""));
        say("TLS", format!("the certificate in {} is good", chain.display()));
    }
    say("logins", logins(config)?);
    if let Some(path) = &config.nodes_file {
        let count = NodesFile::open(path)?.nodes().count();
        say("nodes", format!("{count} in {}", path.display()));
    }
    if let Some(path) = &config.process.memory_file {
        say("memory file", memory_file(path).map_err(|error| Exit::system(&format!("-e {}", path.display()), error))?);
    }
    if let Some(name) = config.process.user.as_deref().filter(|_| user::is_root()) {
        let user = user::find(name)?;
        say("user", format!("{name}, user id {}", user.uid));
    }
    report.push_str("all is well");
    Ok(report)
}

/// The addresses, each with what it resolves to.
fn addresses(transport: &str, listens: &[Listen]) -> Result<String, Exit> {
    let mut all = Vec::new();
    for listen in listens {
        let failed = |error| Exit::system(&format!("failed to listen on {transport}{listen}"), error);
        match listen {
            Listen::Unix { path, .. } => all.push(path.display().to_string()),
            _ => all.extend(listen.resolve().map_err(failed)?.iter().map(ToString::to_string)),
        }
    }
    Ok(all.join(", "))
}

fn memory(config: &Config) -> String {
    let (total, item) = (config.memory.limit_bytes >> 20, config.memory.item_size_max);
    let (workers, connections) = (config.workers.threads, config.connections.max);
    format!("{total} MiB, items up to {item} bytes; {workers} workers, {connections} connections")
}

/// The users that may log in, if clients must.
fn logins(config: &Config) -> Result<String, Exit> {
    let login = &config.login;
    let Some(path) = login.users_file.as_ref().or(login.text_file.as_ref()).or(login.sasl_file.as_ref()) else {
        return Ok(String::new());
    };
    let auth = read_users(config).map_err(|why| Exit::failure(1, why))?;
    let count = match auth {
        Some(Auth::Users(users)) => users.len(),
        Some(Auth::Passwords(passwords)) => passwords.read().len(),
        None => 0,
    };
    Ok(format!("{count} users in {}", path.display()))
}

/// Whether there is an image, and a folder for the next one.
fn memory_file(path: &Path) -> io::Result<String> {
    let named = path.display();
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(format!("{named} is there, {} MiB", found.len() >> 20)),
        Ok(_) => Err(io::Error::other("it is not a file")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            folder.metadata()?;
            Ok(format!("{named} is not there, so the next start is cold"))
        }
        Err(error) => Err(error),
    }
}
