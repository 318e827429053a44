//! How a transfer ends: at the end, before it, or with an error of a server, a file or the output.

use crate::tool::failure::{Failure, in_words};
use std::io;

/// An end without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tool) enum Ended {
    AtEnd,
    /// `--limit` was reached.
    AtLimit,
    /// A signal came.
    Interrupted,
}

/// What broke a transfer.
#[derive(Debug)]
pub(in crate::tool) enum Trouble {
    /// A server does not answer, or says what it should not.
    Server(String, io::Error),
    /// A file of items cannot be read, or is wrong. One line.
    Input(String),
    /// Standard output or the file that is written failed.
    Output(io::Error),
}

impl Trouble {
    /// Wraps an error of the server with this name.
    pub(in crate::tool) fn of(server: &str) -> impl Fn(io::Error) -> Trouble {
        move |error| Trouble::Server(server.to_owned(), error)
    }

    /// Gives a name to the server of an error that has none yet.
    pub(in crate::tool) fn named(self, server: &str) -> Trouble {
        match self {
            Trouble::Server(name, error) if name.is_empty() => Trouble::Server(server.to_owned(), error),
            other => other,
        }
    }
}

/// Prints what broke a transfer, unless `main` does so.
pub(in crate::tool) fn said(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Output(error) => return Failure::Output(error),
        Trouble::Server(name, error) => eprintln!("corecached: {name}: {}", in_words(&error)),
        Trouble::Input(text) => eprintln!("corecached: {text}"),
    }
    Failure::Reported
}
