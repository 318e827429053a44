//! The user that root becomes.

use crate::config::{Config, Listen};
use crate::exit::{EXIT_NO_USER, Exit};
use nix::sys::prctl;
use nix::unistd;
use std::os::unix::fs::chown;

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
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(|error| {
                    Exit::system(&format!("failed to give {} to user {name}", path.display()), error)
                })?;
            }
        }
    }
    let switched =
        unistd::setgroups(&[]).and_then(|()| unistd::setgid(user.gid)).and_then(|()| unistd::setuid(user.uid));
    match switched {
        // Root may lack the right to change groups in a container; nothing changes if it stays root.
        Err(_) if user.uid.is_root() => {}
        Err(error) => return Err(Exit::system(&format!("failed to assume identity of user {name}"), error.into())),
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
