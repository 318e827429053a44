//! Why kept memory is of no use.

use std::io;

/// Why memory was refused.
#[derive(Debug)]
pub enum Refusal {
    /// It is not memory of a server.
    Foreign,
    /// A server with another layout has written it.
    Layout,
    /// Its server did not stop in order, or another server has taken it.
    Unclean,
    /// Its roots have changed since they were written.
    Damaged(&'static str),
    /// The system refused something.
    System(io::Error),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Foreign => write!(formatter, "it is not memory of a server"),
            Refusal::Layout => write!(formatter, "a version with another layout of memory has written it"),
            Refusal::Unclean => write!(formatter, "its server did not stop in order, or another server has taken it"),
            Refusal::Damaged(what) => write!(formatter, "it is damaged: {what}"),
            Refusal::System(error) => write!(formatter, "the system says: {error}"),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        match error.kind() {
            io::ErrorKind::InvalidData => Refusal::Damaged("a part of it lies outside"),
            _ => Refusal::System(error),
        }
    }
}
