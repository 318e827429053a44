//! Exit codes, and the value that ends the program.

use std::fmt;
use std::io;

/// Exit code of a mistaken command line (EX_USAGE of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// Exit code when a file to read cannot be read (EX_NOINPUT).
pub const EXIT_NO_INPUT: u8 = 66;
/// Exit code when the user of `-u` does not exist (EX_NOUSER).
pub const EXIT_NO_USER: u8 = 67;
/// Exit code when the system refuses: bind, limits, fork, setuid (EX_OSERR).
pub const EXIT_SYSTEM: u8 = 71;
/// Exit code when a graceful stop could not write the image of `-e`, so that the next start will be cold (EX_IOERR).
pub const EXIT_NOT_KEPT: u8 = 74;

/// The reason why the program ends without serving: `-h`, a mistake, or an error of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code: 0, 1, or one of sysexits.h.
    pub code: u8,
    /// What to print; without the last newline.
    pub text: String,
    /// The text is an answer to `-h` and the like, for standard output. Otherwise it goes to standard error, and has one
    /// line, or two for an unknown flag.
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

    /// The answer to `-h` and the like.
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
