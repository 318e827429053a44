//! How the program ends, if not by serving until it is stopped.

use std::fmt;
use std::io;

/// Exit code of a mistaken command line (EX_USAGE of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// Exit code when `-u` names nobody (EX_NOUSER).
pub const EXIT_NO_USER: u8 = 67;
/// Exit code when the system refuses: bind, limits, fork, setuid (EX_OSERR).
pub const EXIT_SYSTEM: u8 = 71;
/// Exit code when a graceful stop could not write the image of `-e`: the next start will be cold (EX_IOERR).
pub const EXIT_NOT_KEPT: u8 = 74;

/// Why the program ends before or instead of serving: `-h`, a mistake, or what the system refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code: 0, 1, or one of sysexits.h.
    pub code: u8,
    /// What to print; without the last newline.
    pub text: String,
    /// It was asked for, so it goes to standard output; otherwise to standard error, and is one line, or two for
    /// a flag that there is not.
    pub to_stdout: bool,
}

impl Exit {
    /// A failure with this code and this one line.
    pub fn failure(code: u8, text: impl Into<String>) -> Exit {
        Exit { code, text: text.into(), to_stdout: false }
    }

    /// What the system refused.
    pub fn system(what: &str, error: io::Error) -> Exit {
        Exit::failure(EXIT_SYSTEM, format!("{what}: {error}"))
    }

    /// A mistaken command line, and this one line about it.
    pub fn usage(text: impl Into<String>) -> Exit {
        Exit::failure(EXIT_USAGE, text)
    }

    /// What was asked for.
    pub fn information(text: String) -> Exit {
        Exit { code: 0, text, to_stdout: true }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Exit {}

/// What the system refused.
impl From<io::Error> for Exit {
    fn from(error: io::Error) -> Exit {
        Exit::failure(EXIT_SYSTEM, error.to_string())
    }
}
