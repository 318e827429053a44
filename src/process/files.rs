//! Files that the process writes for others: its process id, and the ports that it has bound.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The pid file (`-P`). Dropping this value removes the file.
#[derive(Debug)]
pub struct PidFile<'a>(&'a Path);

impl PidFile<'_> {
    /// Writes a temporary file beside `path` and renames it to `path`. As in memcached, a failure only causes a warning,
    /// and so does a pid file that names a running process: the new file replaces it.
    pub fn write(path: &Path) -> Option<PidFile<'_>> {
        let old = fs::read_to_string(path).ok().and_then(|old| old.trim().parse::<u32>().ok());
        if let Some(pid) = old.filter(|pid| *pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists()) {
            log::warn!("The pid file contained the following (running) pid: {pid}");
        }
        let beside = with_suffix(path, ".tmp");
        if let Err(error) = fs::write(&beside, format!("{}\n", std::process::id())) {
            log::warn!("Could not open the pid file {} for writing: {error}", beside.display());
            return None;
        }
        if let Err(error) = fs::rename(&beside, path) {
            log::warn!("Could not rename the pid file from {} to {}: {error}", beside.display(), path.display());
            return None;
        }
        Some(PidFile(path))
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(self.0) {
            log::warn!("Could not remove the pid file {}: {error}", self.0.display());
        }
    }
}

/// Writes the file of `MEMCACHED_PORT_FILENAME`: first a temporary file beside `path`, then a rename, so that a program
/// that waits for the file finds it complete. Each of `ports` is `TCP`, `UDP` or `METRICS`, and an
/// address.
///
/// # Errors
/// When the system refuses to write or rename the file.
pub fn write_port_file(path: &Path, ports: impl IntoIterator<Item = (&'static str, SocketAddr)>) -> io::Result<()> {
    let beside = with_suffix(path, ".lck");
    let mut file = fs::File::create(&beside)?;
    for (transport, address) in ports {
        let family = if address.is_ipv4() { "INET" } else { "INET6" };
        writeln!(file, "{transport} {family}: {}", address.port())?;
    }
    drop(file);
    fs::rename(beside, path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;

    #[test]
    fn the_pid_file_goes_with_the_server() {
        let path = env::temp_dir().join(format!("corecached-pid-{}", std::process::id()));
        fs::write(&path, "1\n").expect("a file in the temporary directory");
        let file = PidFile::write(&path).expect("it can be written");
        assert_eq!(fs::read_to_string(&path).expect("it was written"), format!("{}\n", std::process::id()));
        assert!(!with_suffix(&path, ".tmp").exists());
        drop(file);
        assert!(!path.exists());
        assert!(PidFile::write(Path::new("/nonexistent/pid")).is_none());
    }
}
