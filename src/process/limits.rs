//! What the process may use: descriptors for connections, core files, locked memory.

use crate::config::Config;
use crate::exit::{EXIT_SYSTEM, Exit};
use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;

/// Descriptors that a worker is given besides its connections: its epoll, its waker, its UDP sockets.
const FILES_PER_WORKER: u64 = 8;
/// Descriptors that the rest of the process is given.
const FILES_BESIDES: u64 = 64;
/// The same where descriptors are few, of those that are opened after the sockets.
const FILES_PER_WORKER_MIN: u64 = 2;
const FILES_BESIDES_MIN: u64 = 16;

/// Descriptors for `-c`, core files for `-r`, locked memory for `-k`: as long as it is root, where that is needed.
///
/// # Errors
/// When there cannot be as many descriptors as the connections that were asked for, as in memcached, or no core files
/// although they were asked for.
pub fn raise(config: &Config) -> Result<(), Exit> {
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
        let (_, hard) = getrlimit(Resource::RLIMIT_CORE).map_err(|error| Exit::system("getrlimit", error.into()))?;
        // Only root may go beyond the hard limit.
        let raised = setrlimit(Resource::RLIMIT_CORE, endless, endless)
            .or_else(|_| setrlimit(Resource::RLIMIT_CORE, hard, hard))
            .and_then(|()| getrlimit(Resource::RLIMIT_CORE));
        match raised {
            Ok((1.., _)) => {}
            Ok((0, _)) => return Err(Exit::failure(EXIT_SYSTEM, "failed to ensure corefile creation")),
            Err(error) => return Err(Exit::system("failed to ensure corefile creation", error.into())),
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
    getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| Exit::system("getrlimit", error.into()))
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
