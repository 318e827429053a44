//! What a process is to the system that runs it: its log, limits, identity, files, and what its supervisor is told.
//!
//! As memcached does it, so that service files and scripts written for memcached serve: `-d`, `-r`, `-u`, `-P`,
//! `MEMCACHED_PORT_FILENAME`. And what memcached has not, because systemd offers it: `Type=notify`, in [`supervisor`].
//!
//! Wanted differences from memcached: sockets are bound before the process goes to the background and before it gives up
//! root, so that whoever starts it sees that it failed, and ports below 1024 serve; the pid file is removed without `-d`
//! too; relative paths still mean what they meant when `-d` has moved to `/`.

pub mod supervisor;

use crate::command::admin;
use crate::config::{Config, EXIT_NO_USER, EXIT_SYSTEM, Exit, Listen};
use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf, absolute};
use std::{env, fs};

/// Descriptors that a worker is given besides its connections: its epoll, its waker, its UDP sockets.
const FILES_PER_WORKER: u64 = 8;
/// Descriptors that the rest of the process is given.
const FILES_BESIDES: u64 = 64;
/// The same where descriptors are few, of those that are opened after the sockets.
const FILES_PER_WORKER_MIN: u64 = 2;
const FILES_BESIDES_MIN: u64 = 16;

/// What the system refused, with the exit code for it.
pub fn failure(what: &str, error: io::Error) -> Exit {
    Exit::failure(EXIT_SYSTEM, format!("{what}: {error}"))
}

/// Lines on standard error: warnings, with `-v` what happens to the server, with `-vv` to connections. `RUST_LOG` wins.
pub fn start_log(verbosity: u8) {
    // The filter lets everything pass that the level does, so that `verbosity` can raise it later.
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("trace,mio=warn"));
    // systemd stamps the lines of its journal itself.
    if env::var_os("JOURNAL_STREAM").is_some() {
        builder.format_timestamp(None);
    }
    // In tests several servers run in one process: the first one's log serves.
    let _ = builder.try_init();
    log::set_max_level(admin::log_level(verbosity));
}

/// Descriptors for `-c`, core files for `-r`, locked memory for `-k`: as long as it is root, where that is needed.
///
/// # Errors
/// When there cannot be as many descriptors as the connections that were asked for, as in memcached, or no core files
/// although they were asked for.
pub fn raise_limits(config: &Config) -> Result<(), Exit> {
    let files = u64::from(config.connections_max) + config.threads as u64 * FILES_PER_WORKER + FILES_BESIDES;
    let (soft, hard) = files_limit()?;
    if soft < files {
        let refused = |_| {
            let text =
                "failed to set rlimit for open files. Try starting as root or requesting smaller maxconns value.";
            Exit::failure(EXIT_SYSTEM, text)
        };
        let raised = setrlimit(Resource::RLIMIT_NOFILE, files, hard.max(files));
        if config.connections_given && hard < u64::from(config.connections_max) {
            raised.map_err(refused)?;
        } else if raised.is_err() {
            // All there are: `fit_connections` sees how many connections that makes.
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(refused)?;
        }
    }
    if config.core_dumps {
        let endless = libc::RLIM_INFINITY;
        let (_, hard) = getrlimit(Resource::RLIMIT_CORE).map_err(|error| failure("getrlimit", error.into()))?;
        // Only root may go beyond the hard limit.
        let raised = setrlimit(Resource::RLIMIT_CORE, endless, endless)
            .or_else(|_| setrlimit(Resource::RLIMIT_CORE, hard, hard))
            .and_then(|()| getrlimit(Resource::RLIMIT_CORE));
        match raised {
            Ok((1.., _)) => {}
            Ok((0, _)) => return Err(Exit::failure(EXIT_SYSTEM, "failed to ensure corefile creation")),
            Err(error) => return Err(failure("failed to ensure corefile creation", error.into())),
        }
    }
    if config.lock_memory {
        // Once root is given up, this is all that may be locked; if it cannot be raised, mlockall says so.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
    }
    Ok(())
}

/// Takes back connections for which there are no descriptors, now that all sockets are bound that it listens on. memcached
/// promises all of them, and rests when descriptors run out.
///
/// # Errors
/// When there are none for a single connection.
pub fn fit_connections(config: &mut Config) -> Result<(), Exit> {
    let (limit, _) = files_limit()?;
    // Of this process only; what it costs to count them is counted, too.
    let open = fs::read_dir("/proc/self/fd").map_or(FILES_BESIDES, |files| files.count() as u64);
    let needed = open + config.threads as u64 * FILES_PER_WORKER_MIN + FILES_BESIDES_MIN;
    match limit.saturating_sub(needed) {
        0 => {
            let text = format!(
                "the limit of open files is {limit}: at least {} are needed (ulimit -n, LimitNOFILE=), or fewer with a \
                 smaller -t",
                needed + 1
            );
            Err(Exit::failure(EXIT_SYSTEM, text))
        }
        most if most < u64::from(config.connections_max) => {
            let wanted = config.connections_max;
            log::warn!(
                "the limit of open files is {limit}: {most} connections are served at once, not {wanted} (-c; ulimit -n, \
                 LimitNOFILE=)"
            );
            config.connections_max = most as u32;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The limits of open files, soft and hard.
fn files_limit() -> Result<(u64, u64), Exit> {
    getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| failure("getrlimit", error.into()))
}

/// `-k`. On fault: locking the whole reserve would commit it.
pub fn lock_memory() {
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault) {
        log::warn!("-k: memory is not locked, mlockall() failed: {error} (systemd: LimitMEMLOCK=infinity)");
    }
}

/// Undoes [`lock_memory`].
pub fn unlock_memory() {
    if let Err(error) = munlockall() {
        log::warn!("munlockall() failed: {error}");
    }
}

/// `-d` moves to `/`: what is opened or removed after that is named from there.
///
/// # Errors
/// When there is no current directory.
pub fn name_files_from_the_root(config: &mut Config) -> Result<(), Exit> {
    if !config.daemonize {
        return Ok(());
    }
    let name = |path: &mut PathBuf| {
        *path = absolute(&*path).map_err(|error| failure(&path.display().to_string(), error))?;
        Ok(())
    };
    for listen in &mut config.listen {
        if let Listen::Unix { path, .. } = listen {
            name(path)?;
        }
    }
    // What is read or written later.
    let Config { pid_file, memory_file, auth_file, sasl_password_file, tls, .. } = config;
    let tls = [&mut tls.chain, &mut tls.key, &mut tls.authorities];
    [pid_file, memory_file, auth_file, sasl_password_file].into_iter().chain(tls).flatten().try_for_each(name)
}

/// `-d`: into the background, with nothing on standard output and error unless something is to be said there (`-v`), and
/// out of the way, in `/`, unless core files are to be found where it was started (`-r`).
///
/// # Errors
/// When the system does not fork.
pub fn daemonize(config: &Config) -> Result<(), Exit> {
    if !config.daemonize {
        return Ok(());
    }
    unistd::daemon(config.core_dumps, config.verbosity > 0)
        .map_err(|error| failure("failed to daemon() in order to daemonize", error.into()))
}

/// `-u`: root becomes somebody else, who then owns the Unix sockets.
///
/// # Errors
/// When there is no such user, or it cannot become that one.
pub fn drop_privileges(config: &Config) -> Result<(), Exit> {
    let Some(name) = config.user.as_deref().filter(|_| unistd::geteuid().is_root()) else { return Ok(()) };
    let user = unistd::User::from_name(name)
        .ok()
        .flatten()
        .ok_or_else(|| Exit::failure(EXIT_NO_USER, format!("can't find the user {name} to switch to")))?;
    if !user.uid.is_root() {
        for listen in &config.listen {
            if let Listen::Unix { path, .. } = listen {
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                    .map_err(|error| failure(&format!("failed to give {} to user {name}", path.display()), error))?;
            }
        }
    }
    let switched =
        unistd::setgroups(&[]).and_then(|()| unistd::setgid(user.gid)).and_then(|()| unistd::setuid(user.uid));
    match switched {
        // Root may lack the right to change groups in a container; nothing changes if it stays root.
        Err(_) if user.uid.is_root() => {}
        Err(error) => return Err(failure(&format!("failed to assume identity of user {name}"), error.into())),
        Ok(()) => {}
    }
    if config.core_dumps
        && let Err(error) = prctl::set_dumpable(true)
    {
        // Whoever changes identity leaves no core files unless it says so.
        log::warn!("-r: there will be no core files: {error}");
    }
    Ok(())
}

/// The pid file, removed when this is dropped.
#[derive(Debug)]
pub struct PidFile<'a>(&'a Path);

impl PidFile<'_> {
    /// Writes the file beside its place and moves it there. As with memcached, a server whose pid file cannot be written
    /// serves all the same, and one that finds the pid of a living process there says so and takes its place.
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

/// `MEMCACHED_PORT_FILENAME`: written beside its place and moved there, so that whoever waits for it finds it whole.
/// `ports`: `TCP` or `UDP`, and an address.
///
/// # Errors
/// Those of the system.
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

    #[test]
    fn relative_files_are_named_from_the_root_before_a_daemon_goes_there() {
        let mut config = Config {
            daemonize: true,
            pid_file: Some("pid".into()),
            memory_file: Some("image".into()),
            listen: vec![Listen::Unix { path: "sub/socket".into(), mask: 0o700 }],
            ..Config::default()
        };
        let here = env::current_dir().expect("there is one");
        let mut stays = Config { daemonize: false, ..config.clone() };
        name_files_from_the_root(&mut config).expect("there is a current directory");
        assert_eq!(config.pid_file, Some(here.join("pid")));
        assert_eq!(config.memory_file, Some(here.join("image")));
        assert_eq!(config.listen, [Listen::Unix { path: here.join("sub/socket"), mask: 0o700 }]);
        name_files_from_the_root(&mut stays).expect("nothing is to be done");
        assert_eq!(stays.pid_file, Some("pid".into()));
    }
}
