//! Going to the background (`-d`).

use crate::exit::Exit;
use nix::unistd;

/// The current directory of a process in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// `/`, so that the process keeps no file system busy.
    Root,
    /// The one it was started in. The system writes core files there.
    Unchanged,
}

/// Standard output and standard error of a process in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// `/dev/null`.
    Discarded,
    /// Those it was started with.
    Unchanged,
}

/// Moves the process to the background.
///
/// # Errors
/// When the system refuses to fork.
pub fn detach(folder: Folder, output: Output) -> Result<(), Exit> {
    unistd::daemon(folder == Folder::Unchanged, output == Output::Unchanged)
        .map_err(|error| Exit::system("failed to daemon() in order to daemonize", error.into()))
}
