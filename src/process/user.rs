//! The user that the process becomes when root has started it (`-u`).

use crate::exit::{EXIT_NO_USER, Exit};
use nix::sys::prctl;
use nix::unistd;
use std::os::unix::fs::chown;
use std::path::Path;

/// Whether the process may change its user.
pub fn is_root() -> bool {
    unistd::geteuid().is_root()
}

/// The user with this name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<unistd::User, Exit> {
    let user = unistd::User::from_name(name).ok().flatten();
    user.ok_or_else(|| Exit::failure(EXIT_NO_USER, format!("can't find the user {name} to switch to")))
}

/// Makes the process run as user `name`, and makes that user the owner of the Unix sockets at `sockets`.
///
/// # Errors
/// When the user does not exist, or the system refuses the change.
pub fn become_user<'a>(name: &str, sockets: impl Iterator<Item = &'a Path>) -> Result<(), Exit> {
    let user = find(name)?;
    if !user.uid.is_root() {
        for path in sockets {
            chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .map_err(|error| Exit::system(&format!("failed to give {} to user {name}", path.display()), error))?;
        }
    }
    let switched =
        unistd::setgroups(&[]).and_then(|()| unistd::setgid(user.gid)).and_then(|()| unistd::setuid(user.uid));
    match switched {
        // In a container root may lack the right to change groups. If root stays root, the failure does no harm.
        Err(_) if user.uid.is_root() => Ok(()),
        Err(error) => Err(Exit::system(&format!("failed to assume identity of user {name}"), error.into())),
        Ok(()) => Ok(()),
    }
}

/// Allows core files again: the kernel forbids them to a process that has changed its user.
pub fn allow_core_files() {
    if let Err(error) = prctl::set_dumpable(true) {
        log::warn!("-r: the system will write no core files: {error}");
    }
}
