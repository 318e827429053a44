//! Limits of the process: descriptors for connections, core files, locked memory.

use crate::exit::{EXIT_SYSTEM, Exit};
use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;

/// Descriptors that a worker needs besides its connections: its epoll, its waker, its UDP sockets.
const FILES_PER_WORKER: u64 = 8;
/// Descriptors that the rest of the process needs.
const FILES_BESIDES: u64 = 64;
/// The same when descriptors are few. Only files that the process opens after its sockets count here.
const FILES_PER_WORKER_MIN: u64 = 2;
const FILES_BESIDES_MIN: u64 = 16;

/// What the command line asks of the system.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Connections at the same time.
    pub connections: u32,
    /// Whether fewer connections are a failure.
    pub connections_required: bool,
    /// Worker threads.
    pub workers: usize,
    /// Descriptors of the metrics address.
    pub observer: u64,
    /// `-r`: core files.
    pub core_files: bool,
    /// `-k`: locked memory.
    pub locked_memory: bool,
}

/// Raises the limits of the process. Call it while the process is still root, if it was started as root.
///
/// # Errors
/// When the system refuses descriptors for connections that are required, as in memcached, or refuses core files.
pub fn raise(wanted: Wanted) -> Result<(), Exit> {
    raise_files(wanted)?;
    if wanted.core_files {
        raise_core_files()?;
    }
    if wanted.locked_memory {
        // A process that gives up root can lock no more than this. If the limit stays low, mlockall reports it.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
    }
    Ok(())
}

fn raise_files(wanted: Wanted) -> Result<(), Exit> {
    let connections = u64::from(wanted.connections);
    let files = connections + wanted.workers as u64 * FILES_PER_WORKER + FILES_BESIDES + wanted.observer;
    let (soft, hard) = files_limit()?;
    if soft >= files {
        return Ok(());
    }
    let refused = |_| {
        let text = "failed to set rlimit for open files. Try starting as root or requesting smaller maxconns value.";
        Exit::failure(EXIT_SYSTEM, text)
    };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, files, hard.max(files));
    if wanted.connections_required && hard < connections {
        raised.map_err(refused)?;
    } else if raised.is_err() {
        // Take all descriptors that the system allows. `fit_connections` reduces the connections to match.
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(refused)?;
    }
    Ok(())
}

fn raise_core_files() -> Result<(), Exit> {
    let endless = libc::RLIM_INFINITY;
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE).map_err(|error| Exit::system("getrlimit", error.into()))?;
    // Only root may exceed the hard limit.
    let raised = setrlimit(Resource::RLIMIT_CORE, endless, endless)
        .or_else(|_| setrlimit(Resource::RLIMIT_CORE, hard, hard))
        .and_then(|()| getrlimit(Resource::RLIMIT_CORE));
    match raised {
        Ok((1.., _)) => Ok(()),
        Ok((0, _)) => Err(Exit::failure(EXIT_SYSTEM, "failed to ensure corefile creation")),
        Err(error) => Err(Exit::system("failed to ensure corefile creation", error.into())),
    }
}

/// Reduces `connections` to the number for which descriptors are left, without those that the `observer` will need. Call it
/// when all listening sockets are bound.
/// memcached keeps the number and stops accepting when descriptors run out.
///
/// # Errors
/// When no descriptor is left for a connection.
pub fn fit_connections(connections: u32, workers: usize, observer: u64) -> Result<u32, Exit> {
    let (limit, _) = files_limit()?;
    // The listing itself opens a descriptor, which is counted too.
    let open = fs::read_dir("/proc/self/fd").map_or(FILES_BESIDES, |files| files.count() as u64);
    let needed = open + workers as u64 * FILES_PER_WORKER_MIN + FILES_BESIDES_MIN + observer;
    match limit.saturating_sub(needed) {
        0 => {
            let text = format!(
                "the limit of open files is {limit}: at least {} are needed (ulimit -n, LimitNOFILE=), or fewer with a \
                 smaller -t",
                needed + 1
            );
            Err(Exit::failure(EXIT_SYSTEM, text))
        }
        most if most < u64::from(connections) => {
            log::warn!(
                "the limit of open files is {limit}: {most} connections are served at once, not {connections} (-c; ulimit \
                 -n, LimitNOFILE=)"
            );
            Ok(most as u32)
        }
        _ => Ok(connections),
    }
}

/// The soft and the hard limit of open files.
fn files_limit() -> Result<(u64, u64), Exit> {
    getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| Exit::system("getrlimit", error.into()))
}

/// Locks the memory of the process, each page when it is first used. Locking all pages at once would commit the whole
/// reserved address space.
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
