//! The programs of others that we are compared with: found, or reported as missing, never silently left out.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The memcached whose answers are written down in the conversations (`<m`): Debian 12's.
const ORACLE: &str = "1.6.18";

/// memcached is here, in the version that the conversations speak of.
pub(crate) fn has_memcached() -> bool {
    let version = Command::new("memcached").arg("-V").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match version {
        Ok(version) if version == format!("memcached {ORACLE}") => true,
        Ok(version) => missing(&format!("the oracle is memcached {ORACLE}, installed is {version}")),
        Err(_) => missing("memcached is not installed"),
    }
}

/// `memccapable`, of Debian's libmemcached-tools.
pub(crate) fn memccapable() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("memccapable")).find(|file| file.is_file());
    if found.is_none() {
        missing("memccapable is not installed");
    }
    found
}

/// The `openssl` program.
pub(crate) fn openssl() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("openssl")).find(|file| file.is_file());
    if found.is_none() {
        missing("openssl is not installed");
    }
    found
}

/// A Python that can import `module`: `$CORECACHED_PYTHON`, `target/python` (where `.ci/run` puts one), or `python3`.
pub(crate) fn python_with(module: &str) -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    let candidates = [std::env::var_os("CORECACHED_PYTHON").map(PathBuf::from), Some(ours), Some("python3".into())];
    let found = candidates.into_iter().flatten().find(|python| {
        let output = Command::new(python).args(["-c", &format!("import {module}")]).output();
        output.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        missing(&format!("no Python that can import {module}"));
    }
    found
}

/// Says that a test is left out, or fails it where peers are required.
fn missing(what: &str) -> bool {
    let required = std::env::var("CORECACHED_REQUIRE_PEERS").is_ok_and(|value| value == "1");
    assert!(!required, "{what} (and CORECACHED_REQUIRE_PEERS=1 forbids to skip)");
    say_skipped(what);
    false
}

/// Says that a test, or a part of it, is left out on this machine.
pub(crate) fn say_skipped(what: &str) {
    use std::io::Write;

    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // `eprintln!` would be captured and thrown away with the output of a passing test; the handle itself is not.
    let _ = writeln!(std::io::stderr(), "skipped: {what} ({test})");
}
