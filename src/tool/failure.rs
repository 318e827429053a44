//! The reasons why a command of the tool ends without success, and their exit codes.

use corecached::exit::{EXIT_SYSTEM, EXIT_USAGE};
use std::io;

/// Exit code when a server says no or does not answer.
const EXIT_SERVER: u8 = 1;

#[derive(Debug)]
pub(super) enum Failure {
    /// A server does not answer, or lacks what was asked for. Standard error has a line about each.
    Reported,
    /// A mistaken command line. One line.
    Usage(String),
    /// Standard output or the terminal failed.
    Output(io::Error),
}

impl Failure {
    pub(super) fn code(&self) -> u8 {
        match self {
            Failure::Reported => EXIT_SERVER,
            Failure::Usage(_) => EXIT_USAGE,
            // The reader has what it wanted (`corecached stat | head`).
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Failure::Output(_) => EXIT_SYSTEM,
        }
    }

    /// The line for standard error, if there is one.
    pub(super) fn message(&self) -> Option<String> {
        match self {
            Failure::Usage(text) => Some(text.clone()),
            Failure::Reported => None,
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Failure::Output(error) => Some(format!("cannot write: {error}")),
        }
    }
}

/// Only output fails as [`io::Error`] alone; the errors of a server are wrapped where its name is known.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

/// An error of a connection in a few words.
pub(super) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer in time".into(),
        io::ErrorKind::UnexpectedEof => "the server closed the connection".into(),
        io::ErrorKind::NotFound if error.raw_os_error().is_some() => "no such socket".into(),
        _ => {
            let text = error.to_string();
            text.find(" (os error").map_or(text.clone(), |end| text[..end].to_lowercase())
        }
    }
}
